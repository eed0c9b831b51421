"""The history file: one JSON line per thing seen, appended in a single write by whoever saw it.

Lines of an intent's body and steps (``ev``):

    B   the body started                 D   the body returned, ``value``
    S   a step's function started        E   ... and returned, ``value``
    N   a step gave back ``value`` to the body, so it is recorded
    X   a step raised ``value`` to the body
    W+  a wait was asked for             W-  ... and gave back ``value``; ``now`` by the ledger's clock

with ``intent``, ``run``, ``step`` and ``nth`` (the wait's name, for waits) and, for S, ``attempt``.
Lines of Celery's result backend: R, ``leg`` and the ``state`` that was stored.
Lines of a client: ``op``, ``id`` of the call, and ``ev``: invoke, then ok (done), fail (refused, nothing done) or
info (unknown whether done). A client that died in between leaves an invoke alone: that is unknown too.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

Line = dict[str, Any]

ENVIRONMENT = "CHAOS_WITNESS"
_file: tuple[str, int] | None = None


def write_to(path: Path) -> None:
    """This process and its children append to that file from now on."""
    global _file
    if _file is not None:
        os.close(_file[1])
        _file = None
    os.environ[ENVIRONMENT] = str(path)


def note(ev: str, **fields: Any) -> None:
    """Append one line. In one write to a file opened for appending, so that lines of many processes never mix."""
    global _file
    path = os.environ[ENVIRONMENT]
    if _file is None or _file[0] != path:
        _file = (path, os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644))
    line = {"t": time.monotonic_ns(), "pid": os.getpid(), "ev": ev, **fields}
    os.write(_file[1], json.dumps(line, separators=(",", ":")).encode() + b"\n")


def read(path: Path) -> list[Line]:
    """The lines, in the order they were written."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def digest(value: Any) -> str:
    """Tells one JSON value from another."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
