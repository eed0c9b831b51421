"""DBOS Transact, on the same PostgreSQL and on SQLite; in its defaults, and polling every 10 ms where it polls."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

import sqlalchemy

from tests.bench import crash, floor
from tests.bench.celery_plain import PLAIN
from tests.bench.harness import Case, Figures
from tests.bench.processes import Program, kill_group, settle
from tests.bench.timing import p50_p99_ms, sample_latency, sample_throughput, step_figures, wait_until
from tests.bench.turn import Turn

NEEDS = ("dbos",)
DEFAULT_POLL_SECONDS = 1.0
TUNED_POLL_SECONDS = 0.01


def _url(turn: Turn, database: str) -> str:
    return turn.postgres_libpq if database == "PostgreSQL" else f"sqlite:///{turn.directory}/dbos.db"


def steps(turn: Turn, *, database: str) -> Figures:
    """50 trivial steps in one workflow, in this process, a few times over."""
    from dbos import DBOS

    from tests.bench.apps import dbos_app

    dbos_app.launch(_url(turn, database))
    dbos_app.steps(50)
    flows = [dbos_app.steps(50) for _ in range(turn.pick(8, 3))]
    DBOS.destroy()
    return step_figures(flows)


def one_leg(turn: Turn, *, database: str, poll_seconds: float) -> Figures:
    """A workflow of one step, enqueued by this process and run by another."""
    from dbos import DBOSClient, EnqueueOptions

    from tests.bench.apps.dbos_app import QUEUE

    url = _url(turn, database)
    start_worker(turn, url, poll_seconds)
    client = DBOSClient(system_database_url=url)
    options: EnqueueOptions = {"queue_name": QUEUE, "workflow_name": "one"}

    def call(number: int = 1) -> None:
        client.enqueue(options, number).get_result(polling_interval_sec=poll_seconds)

    call()
    settle()
    latency = sample_latency(
        call, samples=turn.pick(200, 30), at_most_seconds=turn.pick(10, 4), poll_seconds=poll_seconds
    )
    engine = sqlalchemy.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    schema = "dbos." if database == "PostgreSQL" else ""
    count = sqlalchemy.text(f"SELECT count(*) FROM {schema}workflow_status WHERE status = 'SUCCESS'")

    def finished() -> int:
        with engine.connect() as connection:
            return int(connection.execute(count).scalar_one())

    before = finished()
    throughput = sample_throughput(
        lambda number: client.enqueue(options, number),
        lambda: finished() - before,
        count=turn.pick(500, 150),
        every=0.05,
    )
    client.destroy()
    return {**p50_p99_ms(latency), **throughput}


def killed(turn: Turn, *, database: str) -> Figures:
    """The worker is killed in step 47 and at once started again under the same name, which is what DBOS recovers by."""
    from dbos import DBOSClient

    from tests.bench.apps.dbos_app import QUEUE

    url, log = _url(turn, database), str(turn.directory / "pages")
    start_worker(turn, url, DEFAULT_POLL_SECONDS)
    client = DBOSClient(system_database_url=url)
    client.enqueue({"queue_name": QUEUE, "workflow_name": "pages"}, log)
    figures = crash.kill_and_watch(log, kill=kill_group, then=lambda: turn.start(lambda: _worker(turn)), seconds=60)
    client.destroy()
    return figures


def start_worker(turn: Turn, url: str, poll_seconds: float) -> None:
    """Start the worker program and return when it listens."""
    os.environ.update(BENCH_DBOS_URL=url, BENCH_DBOS_POLL_SECONDS=str(poll_seconds))
    turn.start(lambda: _worker(turn))
    wait_until((turn.directory / "ready").exists, seconds=60, what="the DBOS worker")


def _worker(turn: Turn) -> Program:
    return Program(["-m", "tests.bench.apps.dbos_worker"], turn.log.with_name("dbos.log"))


def _cases(name: str, run: Callable[..., Figures], against: dict[str, str] | None = None) -> tuple[Case, ...]:
    return tuple(
        Case(
            subject=name.format(database=database), run=partial(run, database=database), needs=NEEDS,
            against=(against or {}).get(database),
        )
        for database in ("PostgreSQL", "SQLite")
    )  # fmt: skip


STEPS = _cases("DBOS, {database}", steps, {"PostgreSQL": floor.POSTGRES, "SQLite": floor.SQLITE})
_PLAIN = {"PostgreSQL": PLAIN, "SQLite": PLAIN}
ONE_LEG = (
    # Polling once a second, the database makes no difference: one will do.
    *_cases("DBOS, {database}", partial(one_leg, poll_seconds=DEFAULT_POLL_SECONDS), _PLAIN)[:1],
    *_cases("DBOS, {database}, polling every 10 ms", partial(one_leg, poll_seconds=TUNED_POLL_SECONDS), _PLAIN),
)
CRASHES = _cases("DBOS, {database}: worker killed, the same started again", killed)
