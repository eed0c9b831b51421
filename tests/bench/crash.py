"""Fifty steps, and a kill in the forty-seventh: the same steps, the same log and the same clock for every subject."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bench.harness import Figures
from tests.bench.timing import wait_until

STEPS = 50
KILLED_IN = 47


@dataclass(frozen=True)
class Started:
    """One line of the log: a step began, in a process, at a moment (seconds since the epoch)."""

    number: int
    pid: int
    at: float


def page(log: str, number: int) -> int:
    """The step: notes that it began. The first time it is number 47 it hangs, so that the kill finds it running."""
    hangs = number == KILLED_IN and not any(line.number == KILLED_IN for line in read(log))
    with open(log, "a") as file:
        file.write(f"{number} {os.getpid()} {time.time()!r}\n")
    if hangs:
        time.sleep(600)
    return number


def read(log: str) -> list[Started]:
    if not Path(log).exists():
        return []
    return [
        Started(int(number), int(pid), float(at))
        for number, pid, at in (line.split() for line in Path(log).read_text().splitlines())
    ]


def kill_and_watch(
    log: str, *, kill: Callable[[int], None], then: Callable[[], object] = lambda: None, seconds: float = 60
) -> Figures:
    """Wait for step 47, ``kill`` the process that runs it, do ``then``, and wait at most ``seconds`` for step 50.

    Figures: resumed_s and done_s, from the kill to the first step after it and to the last step, None when that did
    not happen; and repeated, the steps that ran more than once.
    """
    last: list[Started] = wait_until(
        lambda: (lines := read(log)) and lines[-1].number == KILLED_IN and lines, seconds=60, what="step 47"
    )
    time.sleep(0.3)
    killed_at = time.time()
    kill(last[-1].pid)
    then()
    try:
        wait_until(lambda: read(log)[-1].number == STEPS, seconds=seconds, what="step 50")
    except TimeoutError:
        return {"resumed_s": None, "done_s": None, "repeated": None}
    lines = read(log)
    after = [line for line in lines if line.at > killed_at]
    return {
        "resumed_s": after[0].at - killed_at,
        "done_s": lines[-1].at - killed_at,
        "repeated": float(len(lines) - len({line.number for line in lines})),
    }
