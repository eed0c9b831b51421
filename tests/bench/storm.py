"""A storm: very many waits fall due in the same moment, while people go on answering."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import func, select

from tests.bench import ours
from tests.bench.harness import Case, Figures
from tests.bench.processes import celery_worker
from tests.bench.timing import percentile, wait_until
from tests.bench.turn import Turn

FULL, QUICK = 100_000, 5_000
SUBJECT = f"axme, PostgreSQL, {FULL:,} due at once ({QUICK:,} in a quick run)"
#: Between two answers of a person.
PAUSE_SECONDS = 0.2
#: How long the storm is looked at, if not all have fired before.
AT_MOST_SECONDS = 240.0


def storm(turn: Turn) -> Figures:
    """So many time waits fall due at once, each with a task after it; meanwhile questions are answered one by one."""
    os.environ["BENCH_SWEEP_QUEUE"] = "sweeps"
    app = ours.prepare(turn, "PostgreSQL")
    turn.start(lambda: celery_worker(ours.APP, turn.log))
    for queue in ("sweeps", "people"):
        turn.start(lambda queue=queue: celery_worker(ours.APP, turn.log, name=queue, concurrency=1, queues=queue))  # type: ignore[misc]
    app.nothing.delay(0).get(timeout=60)
    count = turn.pick(FULL, QUICK)
    due_at = _open(app, count)
    time.sleep(max(0.0, due_at.timestamp() - time.time()))
    began, answers, ends, fired_s = time.monotonic(), list[float](), list[float](), None
    while fired_s is None and time.monotonic() - began < AT_MOST_SECONDS:
        answer_s, end_s = _answer_one(app)
        answers.append(answer_s)
        ends.append(end_s)
        time.sleep(PAUSE_SECONDS)
        if not app.axme.runtime.ledger.due_waits(due_at, 1):
            fired_s = time.monotonic() - began
    return {
        "fired_s": fired_s,
        "done_meanwhile": float(_done(app)),
        "answer_p95_ms": percentile(answers, 95) * 1000,
        "answer_worst_ms": max(answers) * 1000,
        "end_p95_ms": percentile(ends, 95) * 1000,
    }


def _open(app: Any, count: int, *, at_once: int = 500) -> datetime:
    """Open so many waits for one moment, which is returned: a little after the last of them is open."""
    from axme_celery import wait_for_time

    def open_some(until: datetime) -> float:
        before = time.monotonic()
        app.axme.submit_many([wait_for_time.s(until=until) | app.nothing.si(0) for _ in range(at_once)])
        return time.monotonic() - before

    far = datetime.now(UTC) + timedelta(days=30)
    one_takes = max(open_some(far) for _ in range(3))
    due_at = datetime.now(UTC) + timedelta(seconds=1.3 * one_takes * count / at_once + 5)
    for _ in range(count // at_once):
        open_some(due_at)
    assert datetime.now(UTC) < due_at, "some fell due before all were open"
    return due_at


def _done(app: Any) -> int:
    """How many tasks that were waited for have ended."""
    from axme_celery.ledger import tables

    legs = tables.legs.c
    done = select(func.count()).select_from(tables.legs).where(legs.task == app.nothing.name, legs.status == "DONE")
    with app.axme.runtime.ledger.engines.connect() as connection:
        return int(connection.scalar(done))


def _answer_one(app: Any) -> tuple[float, float]:
    """Have somebody asked, and say yes: the seconds that the answer takes, and those until what follows has ended."""
    from axme_celery import wait_for_human

    intent = app.axme.submit(wait_for_human.s("Go on?", to="ana") | app.nothing.si(1).set(queue="people"))
    (wait,) = wait_until(intent.waits, seconds=30, what="a question")
    before = time.monotonic()
    app.axme.answer(wait.id, "approved", by="ana")
    answered = time.monotonic()
    intent.wait(timeout=60)
    return answered - before, time.monotonic() - before


STORM = (Case(subject=SUBJECT, run=storm, needs=ours.NEEDS, rounds=1),)
