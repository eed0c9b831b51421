"""Processor time of a flow, process by process: why so many of them go through two cores in a second, and no more."""

from __future__ import annotations

import contextlib
import os
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import redis

from tests.bench import celery_plain, floor, ours
from tests.bench.harness import Case, Figures
from tests.bench.processes import celery_worker, settle
from tests.bench.timing import wait_until
from tests.bench.turn import Turn

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


def _plain(turn: Turn) -> Figures:
    from tests.bench.apps import celery_app

    worker = turn.start(lambda: celery_worker(celery_plain.APP, turn.log))
    return _costs(turn, celery_app.nothing, worker.pid)


def _floor(turn: Turn) -> Figures:
    task, worker = floor.start(turn)
    return _costs(turn, task, worker.pid)


def _axme(turn: Turn, *, database: str, task: str) -> Figures:
    app = ours.prepare(turn, database)
    worker = turn.start(lambda: celery_worker(ours.APP, turn.log))
    return _costs(turn, getattr(app, task), worker.pid)


def _costs(turn: Turn, task: Any, worker: int) -> Figures:
    """Submit many, wait for the last, and see what each process has used meanwhile."""
    count = turn.pick(1500, 400)
    for number in range(20):
        task.delay(number).get(timeout=60)
    settle()
    client = redis.Redis.from_url(turn.broker)
    stored = celery_plain.stored_results(turn)
    begun, before = stored(), _used(turn, worker, client)
    for number in range(count):
        task.delay(number)
    wait_until(lambda: stored() - begun >= count, seconds=120, what="the last result")
    after = _used(turn, worker, client)
    figures: Figures = {key: (after[key] - before[key]) / count * 1e6 for key in before}
    figures["total_us"] = sum(value or 0.0 for value in figures.values())
    return figures


def _used(turn: Turn, worker: int, client: redis.Redis) -> dict[str, float]:
    """Seconds of processor time used so far, by whom."""
    with psycopg.connect(turn.postgres_libpq) as connection:
        query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        backends = [pid for (pid,) in connection.execute(query)]
    children = Path(f"/proc/{worker}/task/{worker}/children").read_text().split()
    return {
        "submitter_us": _seconds(os.getpid()),
        "parent_us": _seconds(worker),
        "children_us": sum(_seconds(int(child)) for child in children),
        "database_us": sum(_seconds(backend) for backend in backends),
        "redis_us": _seconds(int(client.info("server")["process_id"])),  # type: ignore[index]
    }


def _seconds(pid: int) -> float:
    with contextlib.suppress(FileNotFoundError):
        # After the name, which may hold anything: state is the first, user and system time the 12th and 13th.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND
    return 0.0


COSTS = (
    Case(subject=celery_plain.PLAIN, run=_plain),
    Case(subject=floor.FLOW, run=_floor, against=celery_plain.PLAIN),
    *(
        Case(
            subject=f"axme, {database}, {title}", run=partial(_axme, database=database, task=task), needs=ours.NEEDS,
            against=celery_plain.PLAIN,
        )
        for database, title, task in ours.FLOWS
    ),
)  # fmt: skip
