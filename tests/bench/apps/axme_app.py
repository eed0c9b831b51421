"""axme-celery: a Celery app with the extension, its intents, and an ordinary task beside them."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime

from celery import Celery

from axme_celery import Axme, step, wait_for_time
from tests.bench import crash

app = Celery("bench", broker=os.environ["BENCH_BROKER"], backend=os.environ["BENCH_RESULTS"])
app.conf.broker_connection_retry_on_startup = True
app.conf.axme_ledger_url = os.environ["BENCH_LEDGER"]
app.conf.axme_lease_seconds = float(os.environ.get("BENCH_LEASE_SECONDS", "15"))
app.conf.axme_secret_key = "of no worth, and long enough to sign a session with"
app.conf.axme_requests_per_minute = None
app.conf.axme_live_clients = int(os.environ.get("BENCH_LIVE_CLIENTS", "56"))
if "BENCH_SWEEP_QUEUE" in os.environ:
    app.conf.task_routes = {"axme.*": {"queue": os.environ["BENCH_SWEEP_QUEUE"]}}
axme = Axme(app)


@app.task
def nothing(number: int) -> int:
    """An ordinary task: named to nobody, so the extension must leave it alone."""
    return number


@app.task
def length(values: list[int]) -> int:
    """The body of a chord: how much came together."""
    return len(values)


@axme.task
def intent_of_nothing(number: int) -> int:
    return number


@step
def trivial(number: int) -> dict[str, int]:
    return {"page": number}


@axme.task
def one(number: int) -> dict[str, int]:
    return trivial(number)


@axme.task
def steps(count: int) -> list[float]:
    """Seconds that each of ``count`` steps took, as the leg sees it."""
    taken = []
    for number in range(count):
        before = time.perf_counter()
        trivial(number)
        taken.append(time.perf_counter() - before)
    return taken


@step
def page(log: str, number: int) -> int:
    return crash.page(log, number)


@axme.task
def pages(log: str) -> None:
    for number in range(1, crash.STEPS + 1):
        page(log, number)


@axme.task
def late_by(due_at: float) -> float:
    """Wait until ``due_at`` (seconds since the epoch); how many seconds later than that the leg went on."""
    wait_for_time(until=datetime.fromtimestamp(due_at, UTC))
    return time.time() - due_at
