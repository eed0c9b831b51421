"""The SQL tracker: its tables, its engines, and a database that is away."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, MetaData, create_engine, func, select, text

from axme_celery.errors import LedgerUnavailable, TrackerUnavailable
from axme_celery.ledger.engine import Engines
from axme_celery.tracker import Lease, Timer
from axme_celery.tracker.sql import SqlTracker
from axme_celery.tracker.tables import TrackerTables, tracker_tables

from .conftest import MovedClock

NOW = datetime(2026, 10, 5, tzinfo=UTC)

#: Every method that asks the database something.
CALLS: dict[str, Callable[[SqlTracker], object]] = {
    "hold": lambda tracker: tracker.hold([Lease("a", 1)], 5),
    "seed": lambda tracker: tracker.seed([Lease("a", 1)], 5),
    "release": lambda tracker: tracker.release([Lease("a", 1)]),
    "tell": lambda tracker: tracker.tell({"intent": 1}, [Lease("a", 1)]),
    "lapsed": lambda tracker: tracker.lapsed(1),
    "schedule": lambda tracker: tracker.schedule([Timer("wait", "w", NOW)]),
    "refill": lambda tracker: tracker.refill([Timer("wait", "w", NOW)]),
    "unschedule": lambda tracker: tracker.unschedule([("wait", "w")]),
    "take": lambda tracker: tracker.take(NOW, 30, 10),
    "put_progress": lambda tracker: tracker.put_progress("a", 1, 2, None),
    "progress": lambda tracker: tracker.progress(["a"]),
    "tick": lambda tracker: tracker.tick("beat"),
    "ticks": lambda tracker: tracker.ticks(),
    "lock": lambda tracker: tracker.lock("timers", "one", 5),
    "ping": lambda tracker: tracker.ping(),
    "clear": lambda tracker: tracker.clear(),
}


def create(engine: Engine) -> TrackerTables:
    metadata = MetaData()
    tables = tracker_tables(metadata)
    metadata.create_all(engine)
    return tables


@pytest.fixture
def postgres(module_postgres_url: str) -> Iterator[Engine]:
    engine = create_engine(module_postgres_url, pool_size=10)
    tables = create(engine)
    yield engine
    tables.leases.metadata.drop_all(engine)
    engine.dispose()


@pytest.mark.parametrize("call", CALLS)
def test_a_database_without_the_tables_is_tracker_unavailable(call: str, tmp_path: Path) -> None:
    """Whatever is asked, the error is ours and says to migrate."""
    engine = Engines(f"sqlite:///{tmp_path}/empty.db").durable
    with pytest.raises(TrackerUnavailable, match="migrate"):
        CALLS[call](SqlTracker(lambda: engine))
    engine.dispose()


def test_a_database_that_is_away_is_tracker_unavailable(tmp_path: Path) -> None:
    """Refused, in a folder that is not there, or the ledger itself says so: one error."""

    def away() -> Engine:
        raise LedgerUnavailable("the ledger's database cannot be reached")

    refused = create_engine("postgresql+psycopg://postgres@127.0.0.1:1/none")
    nowhere = create_engine(f"sqlite:///{tmp_path}/nowhere/ledger.db")
    for source in (lambda: refused, lambda: nowhere, away):
        for call in CALLS.values():
            with pytest.raises(TrackerUnavailable):
                call(SqlTracker(source))


def test_a_locked_sqlite_is_tracker_unavailable(tmp_path: Path) -> None:
    """When its busy timeout has passed."""
    engine = create_engine(f"sqlite:///{tmp_path}/ledger.db", connect_args={"timeout": 0.1})
    create(engine)
    other = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")

    with pytest.raises(TrackerUnavailable, match="locked"):
        SqlTracker(lambda: engine).hold([Lease("a", 1)], 5)
    other.execute("COMMIT")
    SqlTracker(lambda: engine).hold([Lease("a", 1)], 5)
    other.close()
    engine.dispose()


def test_postgres_keeps_the_tables_out_of_its_log(postgres: Engine) -> None:
    """A tracker may be lost in a crash; so no lease waits for a disk."""
    with postgres.connect() as connection:
        kinds = connection.execute(
            text("SELECT relname, relpersistence FROM pg_class WHERE relname LIKE 'axme_%' AND relkind = 'r'")
        ).all()
    assert sorted(kinds) == [(f"axme_{name}", "u") for name in ("leases", "locks", "progress", "ticks", "timers")]


def test_connections_go_back_to_the_ledger_as_they_came(tmp_path: Path, postgres: Engine) -> None:
    """The ledger shares its engine: no transaction is left open, no connection left in autocommit."""
    lite = Engines(f"sqlite:///{tmp_path}/ledger.db").durable
    create(lite)
    for engine in (lite, postgres):
        tracker = SqlTracker(lambda engine=engine: engine)  # type: ignore[misc]
        for call in CALLS.values():
            call(tracker)
        with engine.connect() as connection:
            connection.execute(text("INSERT INTO axme_ticks VALUES ('rolled back', 1)"))
            connection.rollback()
        assert tracker.ticks() == {}
        with engine.connect() as connection:
            assert connection.execute(text("SELECT count(*) FROM axme_ticks")).scalar() == 0
    with lite.connect() as connection:
        assert connection.connection.dbapi_connection.isolation_level is None  # type: ignore[union-attr]
    lite.dispose()


def test_plain_sqlite_engines_do_too(tmp_path: Path, clock: MovedClock) -> None:
    """No WAL, no BEGIN IMMEDIATE: two takers still never get the same timer."""
    engine = create_engine(f"sqlite:///{tmp_path}/plain.db", connect_args={"timeout": 30})
    create(engine)
    timers = [Timer("wait", str(n), clock.now - timedelta(seconds=n)) for n in range(200)]
    SqlTracker(lambda: engine, clock).schedule(timers)

    def sweep() -> list[Timer]:
        tracker, taken = SqlTracker(lambda: engine, clock), []
        while bite := tracker.take(clock.now, 30, 9):
            taken += bite
        return taken

    with ThreadPoolExecutor(3) as pool:
        taken = [timer for one in [pool.submit(sweep) for _ in range(3)] for timer in one.result()]
    assert sorted(taken, key=lambda timer: timer.due_at, reverse=True) == timers
    engine.dispose()


def test_writers_of_the_same_rows_queue_and_never_deadlock(postgres: Engine, clock: MovedClock) -> None:
    """Sweepers refilling, takers and renewing workers at once, each with its rows in another order."""
    tracker = SqlTracker(lambda: postgres, clock)
    timers = [Timer("wait", str(n), clock.now) for n in range(60)]
    leases = [Lease(str(n), 1) for n in range(60)]

    def work(n: int) -> None:
        order = 1 if n % 2 else -1
        for _ in range(15):
            tracker.schedule(timers[::order])
            tracker.take(clock.now, 0, 20)
            tracker.seed(leases[::order], 5)
            tracker.hold(leases[::order], 5)
            tracker.release(leases[::order])
            tracker.unschedule([("wait", timer.id) for timer in timers[::order]])

    with ThreadPoolExecutor(8) as pool:
        for one in [pool.submit(work, n) for n in range(8)]:
            one.result()


def test_old_rows_are_swept_out(tmp_path: Path, clock: MovedClock) -> None:
    """Progress of a day ago and sweepers of an hour ago leave the tables, not only the answers."""
    engine = Engines(f"sqlite:///{tmp_path}/ledger.db").durable
    tables = create(engine)
    tracker = SqlTracker(lambda: engine, clock)
    tracker.put_progress("a", 1, 2, None)
    tracker.tick("gone")
    clock.pass_seconds(86_400)
    tracker.tick("beat")

    with engine.connect() as connection:
        counts = [
            connection.scalar(select(func.count()).select_from(table)) for table in (tables.progress, tables.ticks)
        ]
    assert counts == [0, 1]
    engine.dispose()


def test_listening_looks_often_at_first_and_then_less(tmp_path: Path) -> None:
    """A result that comes at once is seen at once; a long wait does not wear out the database."""
    tracker = SqlTracker(lambda: Engines(f"sqlite:///{tmp_path}/never opened.db").durable)

    def seconds(intent_id: str, timeout: float = 9) -> float:
        began = time.monotonic()
        assert tracker.listen(intent_id, timeout, after=3) is False
        return time.monotonic() - began

    first, second, third = seconds("mine"), seconds("mine"), seconds("mine")
    assert 0.02 <= first < second < third
    assert seconds("other") < third
    assert seconds("other", timeout=0.001) < 0.02
    # At most half a second, however long it goes on.
    assert sum(seconds("long") for _ in range(6)) < 2.5
