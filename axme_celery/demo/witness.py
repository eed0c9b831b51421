"""The witness: a log outside the engine of which page was started and written, when, by whom.

The proof at the end must not rest on what the engine says of itself. Each line is
appended with one O_APPEND write, so that lines of several processes never mix and
a line once written survives the kill of its writer.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

What = Literal["started", "wrote"]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One thing seen."""

    what: What
    #: Counted from 1.
    page: int
    #: The leg's run, counted from 1.
    run: int
    #: The process that did it.
    pid: int
    #: Seconds since 1970, by this machine's clock.
    at: float


def note(log: Path, what: What, page: int, run: int) -> None:
    """Append what this process just did."""
    line = Line(what=what, page=page, run=run, pid=os.getpid(), at=time.time())
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, (json.dumps(asdict(line)) + "\n").encode())
    finally:
        os.close(descriptor)


def read(log: Path) -> list[Line]:
    """Everything seen so far, oldest first; nothing when there is no log yet."""
    try:
        text = log.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return [Line(**json.loads(line)) for line in text.splitlines()]
