"""Plain Celery, in its defaults."""

from __future__ import annotations

import os
import time

from celery import Celery

from tests.bench import crash

app = Celery("bench", broker=os.environ["BENCH_BROKER"], backend=os.environ["BENCH_RESULTS"])
app.conf.broker_connection_retry_on_startup = True


@app.task
def nothing(number: int) -> int:
    return number


@app.task
def length(values: list[int]) -> int:
    """The body of a chord: how much came together."""
    return len(values)


@app.task
def page(number: int, log: str) -> int:
    """A step of the crash flow; passes on the number of the next."""
    return crash.page(log, number) + 1


@app.task
def late_by(due_at: float) -> float:
    """Seconds by which it was started later than ``due_at`` (seconds since the epoch)."""
    return time.time() - due_at
