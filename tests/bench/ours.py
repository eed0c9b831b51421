"""axme-celery, on PostgreSQL and on SQLite: real workers on the same Redis, with a beat process that sweeps."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from typing import Any

from tests.bench import celery_plain, crash, floor
from tests.bench.harness import Case, Figures
from tests.bench.processes import celery_beat, celery_worker, kill_group, settle
from tests.bench.timing import lateness_figures, step_figures, wait_until
from tests.bench.turn import Turn

NEEDS = ("axme_celery.extension",)
APP = "tests.bench.apps.axme_app"
FLOOR = {"PostgreSQL": floor.POSTGRES, "SQLite": floor.SQLITE}
DATABASES = tuple(FLOOR)
#: Where a one-leg intent is kept, what it is called in a table, and its task.
FLOWS = (
    ("PostgreSQL", "no step", "intent_of_nothing"),
    ("PostgreSQL", "one step", "one"),
    ("SQLite", "no step", "intent_of_nothing"),
)
MANY_WAITS = "100,000 other waits open (5,000 in a quick run)"


def prepare(turn: Turn, database: str, *, lease_seconds: float = 15, beat: bool = True) -> Any:
    """Make the ledger and start a beat; returns the app's module, imported, for this process to submit with."""
    ledger = turn.postgres if database == "PostgreSQL" else f"sqlite:///{turn.directory}/axme.db"
    os.environ.update(BENCH_LEDGER=ledger, BENCH_LEASE_SECONDS=str(lease_seconds))
    with turn.log.with_name("migrate.log").open("wb") as log:
        subprocess.run(
            [sys.executable, "-m", "celery", "-A", APP, "axme", "migrate"], stdout=log, stderr=log, check=True
        )
    if beat:
        turn.start(lambda: celery_beat(APP, turn.log))
    from tests.bench.apps import axme_app

    return axme_app


def steps(turn: Turn, *, database: str, count: int) -> Figures:
    """``count`` trivial steps in one leg, on a worker of the solo pool, a few times over."""
    app = prepare(turn, database)
    turn.start(lambda: celery_worker(APP, turn.log, pool="solo", concurrency=1))
    app.steps.delay(count).get(timeout=60)
    settle()
    flows = [app.steps.delay(count).get(timeout=60) for _ in range(turn.pick(8, 3))]
    return step_figures(flows)


def one_leg(turn: Turn, *, database: str, task: str) -> Figures:
    """A one-leg intent: submitted with ``delay``, awaited through Celery's own ``get``, as in plain Celery."""
    app = prepare(turn, database)
    turn.start(lambda: celery_worker(APP, turn.log))
    return celery_plain.one_leg_of(turn, getattr(app, task))


def ordinary(turn: Turn) -> Figures:
    """Plain Celery's own task, in an app that has the extension installed and not named it."""
    app = prepare(turn, "PostgreSQL", beat=False)
    turn.start(lambda: celery_worker(APP, turn.log))
    return celery_plain.one_leg_of(turn, app.nothing)


def killed(turn: Turn, *, database: str, lease_seconds: float, whole_worker: bool) -> Figures:
    """The worker that runs step 47, or only its pool child, is killed; another worker is there and idle."""
    app = prepare(turn, database, lease_seconds=lease_seconds)
    for name in ("one", "two"):
        turn.start(lambda name=name: celery_worker(APP, turn.log, name=name, concurrency=1))  # type: ignore[misc]
    wait_until(lambda: len(app.app.control.ping(timeout=0.5)) == 2, seconds=60, what="two workers")
    log = str(turn.directory / "pages")
    app.pages.delay(log)
    kill = kill_group if whole_worker else (lambda pid: os.kill(pid, signal.SIGKILL))
    return crash.kill_and_watch(log, kill=kill, seconds=lease_seconds + 30)


def timers(turn: Turn, *, spread_seconds: float, others: tuple[int, int]) -> Figures:
    """1,000 legs that wait for a time, due evenly within ``spread_seconds``, beside ``others`` (full, quick)."""
    app = prepare(turn, "PostgreSQL")
    open_waits(app, turn.pick(*others))
    turn.start(lambda: celery_worker(APP, turn.log))
    app.nothing.delay(0).get(timeout=60)
    count = turn.pick(1000, 200)
    suspended = celery_plain.stored_results(turn)
    before = suspended()
    first = time.time() + turn.pick(12, 6)
    sent = [app.late_by.delay(first + spread_seconds * number / count) for number in range(count)]
    # Each leg stores WAITING when it has suspended: all must have before the first is due.
    wait_until(lambda: suspended() - before >= count, seconds=first - 1.5 - time.time(), what="all legs to suspend")
    return lateness_figures([result.get(timeout=120) for result in sent])


def open_waits(app: Any, count: int, *, at_once: int = 1000) -> None:
    """Open ``count`` waits that will not be due: pipelines that begin with a wait, so that no worker has to run."""
    from axme_celery import wait_for_time

    for _ in range(count // at_once):
        app.axme.submit_many([wait_for_time.s("30d") | app.nothing.si(0) for _ in range(at_once)])


STEPS = tuple(
    Case(
        subject=f"axme, {database}, {count} steps in one leg", run=partial(steps, database=database, count=count),
        needs=NEEDS, against=FLOOR[database],
    )
    for database in DATABASES
    for count in (50, 1000)
)  # fmt: skip
ONE_LEG = tuple(
    Case(
        subject=f"axme, {database}, {title}", run=partial(one_leg, database=database, task=task), needs=NEEDS,
        against=celery_plain.PLAIN,
    )
    for database, title, task in FLOWS
)  # fmt: skip
ORDINARY = (
    Case(subject="plain Celery, axme installed", run=ordinary, needs=NEEDS, against=celery_plain.PLAIN),
)  # fmt: skip
CRASHES = (
    Case(
        subject="axme, PostgreSQL: worker killed, another is there, lease 15 s (default)",
        run=partial(killed, database="PostgreSQL", lease_seconds=15, whole_worker=True), needs=NEEDS, rounds=1,
        quick=False,
    ),
    *(
        Case(
            subject=f"axme, {database}: {title}",
            run=partial(killed, database=database, lease_seconds=lease, whole_worker=whole), needs=NEEDS,
        )
        for database in DATABASES
        for title, lease, whole in (
            ("worker killed, another is there, lease 2 s", 2, True),
            ("pool child killed, lease 15 s", 15, False),
        )
    ),
)  # fmt: skip
TIMERS = tuple(
    Case(
        subject=f"axme, {title}, {waits}", run=partial(timers, spread_seconds=spread_seconds, others=others),
        needs=NEEDS, rounds=rounds, against=f"{celery_plain.PLAIN}, ETA, {title}",
    )
    for title, spread_seconds, waits, others, rounds in (
        ("due in 1 s", 1.0, "no other waits", (0, 0), None),
        ("due in 1 s", 1.0, MANY_WAITS, (100_000, 5_000), 1),
        ("spread over 10 s", 10.0, "no other waits", (0, 0), 1),
    )
)  # fmt: skip
