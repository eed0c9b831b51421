"""A ledger on SQLite: many processes at one file, a disk that is full, a process that is killed, one in memory."""

from __future__ import annotations

import multiprocessing
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import DateTime, create_engine, event
from sqlalchemy.dialects import sqlite

from axme_celery.errors import LedgerUnavailable
from axme_celery.ledger import SqlLedger, sqlite_pool, tables
from axme_celery.model import Lease, Status
from axme_celery.tracker import open_tracker

from . import ledgers
from .ledgers import assert_whole, handles, new_intent, open_files, running, step_done, submitted

SPAWN = multiprocessing.get_context("spawn")


def integrity(path: Path) -> str:
    """What SQLite itself finds wrong with a file: "ok"."""
    with sqlite3.connect(path) as connection:
        found: str = connection.execute("PRAGMA integrity_check").fetchone()[0]
    return found


# -- many processes ----------------------------------------------------------------


def whole_lives(url: str, seconds: float, start: Any, told: Any) -> None:
    """Intents from their submit to their end, as many as fit; tells how many, or what went wrong."""
    ledger, done = SqlLedger(url), 0
    start.wait()
    until = time.monotonic() + seconds
    try:
        while time.monotonic() < until:
            record = running(ledger)
            for nth in range(1, 4):
                ledger.commit(step_done(record.leg.id, nth=nth))
            ledger.commit(ledgers.completed(ledger, record.leg.id))
            done += 1
        told.put(done)
    except BaseException as error:
        told.put(repr(error))


def test_no_lock_error_reaches_any_of_four_processes_at_one_file(tmp_path: Path) -> None:
    """They start at once on a file that is not there yet, and write as fast as they can."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    start, told = SPAWN.Barrier(4), SPAWN.Queue()
    processes = [SPAWN.Process(target=whole_lives, args=(url, 4.0, start, told)) for _ in range(4)]
    for process in processes:
        process.start()
    counts = [told.get(timeout=100) for _ in processes]
    for process in processes:
        process.join(30)

    assert all(isinstance(count, int) and count > 0 for count in counts), counts
    ledger = SqlLedger(url)
    intents = ledger.intents({}, None, 100_000)
    assert len(intents) == sum(counts)
    assert {intent.status for intent in intents} == {Status.COMPLETED}
    for intent in intents[:: max(1, len(intents) // 20)]:
        assert_whole(ledger, intent.id)
    assert integrity(tmp_path / "ledger.db") == "ok"
    ledger.close()


def make_and_tell(url: str, start: Any, told: Any) -> None:
    start.wait()
    try:
        told.put(SqlLedger(url).id)
    except BaseException as error:
        told.put(repr(error))


def test_processes_that_make_one_ledger_at_once_agree_on_it(tmp_path: Path) -> None:
    """One makes the tables, the others find them; all have the same identity, every time."""
    start, told = SPAWN.Barrier(6), SPAWN.Queue()
    processes = [
        SPAWN.Process(target=make_and_tell, args=(f"sqlite:///{tmp_path}/ledger.db", start, told)) for _ in range(6)
    ]
    for process in processes:
        process.start()
    identities = {told.get(timeout=60) for _ in processes}
    for process in processes:
        process.join(30)

    (identity,) = identities
    assert identity == SqlLedger(f"sqlite:///{tmp_path}/ledger.db").id


def test_threads_that_make_one_ledger_at_once_agree_on_it(tmp_path: Path) -> None:
    """As soon as the first request of a web process comes, others do too."""
    for n in range(5):
        ledger = SqlLedger(f"sqlite:///{tmp_path}/{n}.db")
        start = threading.Barrier(6)

        def ask(_: int, ledger: SqlLedger = ledger, start: threading.Barrier = start) -> str:
            start.wait()
            return ledger.id

        with ThreadPoolExecutor(6) as pool:
            assert len(set(pool.map(ask, range(6)))) == 1
        ledger.close()


def test_a_writer_that_never_ends_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After as long as SQLite waits for another writer, a few times over; and it works when that has gone."""
    monkeypatch.setattr("axme_celery.ledger.engine.SQLITE_BUSY_SECONDS", 0.1)
    ledger = SqlLedger(f"sqlite:///{tmp_path}/ledger.db")
    leg_id = running(ledger).leg.id
    other = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    for write in (lambda: ledger.commit(new_intent(ledger)), lambda: ledger.commit(step_done(leg_id))):
        with pytest.raises(LedgerUnavailable, match="locked"):
            write()

    other.execute("ROLLBACK")
    ledger.commit(step_done(leg_id))
    other.close()
    ledger.close()


# -- killed --------------------------------------------------------------------------


def test_a_killed_process_leaves_a_whole_file(tmp_path: Path) -> None:
    """At any moment, over and over; what it was told is committed is there."""
    path = tmp_path / "ledger.db"
    program = (
        "import sys; from axme_celery.ledger import SqlLedger; from tests.stores.ledgers import submitted;"
        f"ledger = SqlLedger('sqlite:///{path}')\n"
        "while True: print(submitted(ledger).intent.id, flush=True)"
    )
    for _ in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", program], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        told = [process.stdout.readline().strip()]
        time.sleep(random.uniform(0, 0.1))
        process.kill()
        told += process.stdout.read().split()
        process.wait()
        process.stdout.close()

        assert integrity(path) == "ok"
        ledger = SqlLedger(f"sqlite:///{path}")
        # The last line may have been cut short.
        for intent_id in [one for one in told if len(one) == 36]:
            assert_whole(ledger, intent_id)
        ledger.close()


# -- a full disk -----------------------------------------------------------------------


def fill(ledger: SqlLedger) -> tuple[list[str], LedgerUnavailable]:
    """Submit until that is refused; what was accepted, and the refusal."""
    accepted = []
    for _ in range(2000):
        change = new_intent(ledger, payload='"' + "x" * 20_000 + '"')
        assert change.intent is not None
        try:
            ledger.commit(change)
        except LedgerUnavailable as refused:
            assert ledger.intent(change.intent.id) is None
            return accepted, refused
        accepted.append(change.intent.id)
    raise AssertionError("the disk was never full")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of three megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"may not mount a small disk here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("is_there", [False, True], ids=["no folder", "another file"])
def test_a_place_that_holds_no_ledger_is_named_with_its_setting(tmp_path: Path, is_there: bool) -> None:
    """A typo in the path is not mended by trying again."""
    path = tmp_path / "reports" / "ledger.db"
    if is_there:
        path.parent.mkdir()
        path.write_bytes(b"a spreadsheet" * 500)
    ledger = SqlLedger(f"sqlite:///{path}")

    with pytest.raises(LedgerUnavailable) as refused:
        ledger.intent("i-1")

    assert f"sqlite:///{path} (axme_ledger_url) cannot be opened" in str(refused.value)
    assert "correct the setting, or create" in str(refused.value) and "try again" not in str(refused.value)


def test_a_full_disk_is_a_clear_error_and_does_no_harm(small_disk: Path) -> None:
    """Nothing half-written, everything accepted is there, reading goes on; and so does all when there is room again."""
    filler, path = small_disk / "filler", small_disk / "ledger.db"
    filler.write_bytes(b"x" * 1_000_000)
    ledger = SqlLedger(f"sqlite:///{path}")

    accepted, refused = fill(ledger)

    assert "full" in str(refused)
    assert f"sqlite:///{path} (axme_ledger_url)" in str(refused) and "nothing half-done" in str(refused)
    with pytest.raises(LedgerUnavailable):
        while True:
            submitted(ledger)
    for intent_id in accepted:
        assert_whole(ledger, intent_id)

    filler.unlink()
    for _ in range(5):
        accepted.append(submitted(ledger).intent.id)
    leg_id = running(ledger).leg.id
    ledger.commit(step_done(leg_id))
    ledger.close()
    assert integrity(path) == "ok"
    ledger = SqlLedger(f"sqlite:///{path}")
    for intent_id in accepted:
        assert_whole(ledger, intent_id)
    ledger.close()


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """No file of this process may grow beyond this. No mount is needed for it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_file_that_may_not_grow_is_a_clear_error_and_does_no_harm(tmp_path: Path) -> None:
    """A quota, or a file system's limit: refused by the operating system at the write, not by SQLite."""
    ledger = SqlLedger(f"sqlite:///{tmp_path}/ledger.db")
    first = submitted(ledger).intent.id
    with files_of_at_most(500_000):
        accepted, refused = fill(ledger)
        assert "I/O" in str(refused) or "full" in str(refused)
        assert_whole(ledger, first)

    for _ in range(5):
        accepted.append(submitted(ledger).intent.id)
    for intent_id in (first, *accepted):
        assert_whole(ledger, intent_id)
    ledger.close()
    assert integrity(tmp_path / "ledger.db") == "ok"


def test_a_file_that_may_only_be_read_can_be_read(tmp_path: Path) -> None:
    """And a write to it is a clear error."""
    path = tmp_path / "ledger.db"
    ledger = SqlLedger(f"sqlite:///{path}")
    intent = submitted(ledger).intent
    engine = ledger.engines.durable
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA query_only = ON")
        raw = connection.connection.driver_connection
        assert raw is not None
    assert ledger.intent(intent.id) == intent
    with pytest.raises(LedgerUnavailable, match="readonly"):
        submitted(ledger)
    ledger.close()


# -- in memory ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=memory&cache=shared&uri=true"]
)
def test_threads_share_a_ledger_in_memory(url: str) -> None:
    """Writers, readers and the tracker beside each other, each with transactions of its own."""
    ledger = SqlLedger(url)
    tracker = open_tracker(None, ledger.id, lambda: ledger.engines.durable)
    start = threading.Barrier(6)

    def live(n: int) -> list[str]:
        start.wait()
        mine = []
        for nth in range(10):
            record = running(ledger)
            tracker.hold([Lease(record.leg.id, 1)], 30)
            ledger.commit(step_done(record.leg.id, nth=1, value=str(nth)))
            assert ledger.checkpoint(record.leg.id, "fetch", 1) is not None
            ledger.commit(ledgers.completed(ledger, record.leg.id))
            tracker.release([Lease(record.leg.id, 1)])
            mine.append(record.intent.id)
        return mine

    with ThreadPoolExecutor(6) as pool:
        everyones = [intent_id for mine in pool.map(live, range(6)) for intent_id in mine]
    for intent_id in everyones:
        assert_whole(ledger, intent_id)
    assert len(ledger.intents({}, None, 1000)) == len(set(everyones)) == 60
    assert tracker.lapsed(10) == []


def test_ledgers_in_memory_are_each_their_own() -> None:
    """As many as one makes."""
    one, two = SqlLedger("sqlite://"), SqlLedger("sqlite://")
    submitted(one)
    assert one.id != two.id
    assert two.intents({}, None, 10) == []


def test_a_ledger_in_memory_survives_closing_its_connections() -> None:
    """It is the process's, not a connection's."""
    ledger = SqlLedger("sqlite://")
    intent = submitted(ledger).intent
    ledger.close()
    assert ledger.intent(intent.id) == intent


# -- in the transaction of a caller who uses SQLite as Python's driver does by default ------


@pytest.mark.parametrize("theirs", [0, 1])
def test_a_callers_plain_engine_rolls_our_part_back(tmp_path: Path, theirs: int) -> None:
    """Even where the driver would begin no transaction for a savepoint, and releasing that would commit it."""
    ledger = SqlLedger(f"sqlite:///{tmp_path}/ledger.db")
    submitted(ledger)
    engine, changes = create_engine(f"sqlite:///{tmp_path}/ledger.db"), [new_intent(ledger) for _ in range(2)]
    with engine.connect() as connection:
        for _ in range(theirs):
            connection.exec_driver_sql("CREATE TABLE theirs (x INTEGER)")
        for change in changes:
            ledger.commit(change, connection=connection)
        connection.rollback()

    assert len(ledger.intents({}, None, 10)) == 1
    ledger.commit(changes[0])
    engine.dispose()
    ledger.close()


def test_every_connection_of_a_file_is_set_up_alike(tmp_path: Path) -> None:
    """A log that lets readers read while one writes, and commits that reach the disk before they return."""
    ledger = SqlLedger(f"sqlite:///{tmp_path}/ledger.db")
    with ledger.engines.borrow() as one, ledger.engines.borrow() as two:
        for driver in (one, two):
            for name, value in (("journal_mode", "wal"), ("synchronous", 2), ("busy_timeout", 30_000)):
                assert driver._connection.execute(f"PRAGMA {name}").fetchone() == (value,)
    ledger.close()


# -- connections ---------------------------------------------------------------------------


def test_a_step_takes_its_connection_without_sqlalchemys_checkout(sqlite_ledger: SqlLedger) -> None:
    """That takes as long as writing the row does."""
    leg_id = running(sqlite_ledger).leg.id
    checkouts: list[object] = []
    event.listen(sqlite_ledger.engines.durable, "checkout", lambda *given: checkouts.append(given))

    sqlite_ledger.commit(step_done(leg_id))
    assert checkouts == []

    assert sqlite_ledger.checkpoint(leg_id, "fetch", 1) is not None
    assert len(checkouts) == 1


def test_one_thread_needs_one_connection_whichever_way_it_asks(sqlite_ledger: SqlLedger) -> None:
    """With a second one, each would read anew from the file what the other has written."""
    record = running(sqlite_ledger)
    sqlite_ledger.commit(step_done(record.leg.id))
    assert sqlite_ledger.intents({}, None, 10) == [record.intent]
    with sqlite_ledger.engines.durable.begin():
        pass

    assert len(handles(sqlite_ledger)) == 1


def test_as_many_connections_as_are_wanted_at_once_and_few_that_stay(sqlite_ledger: SqlLedger) -> None:
    """Whoever waited for a free one would wait for SQLite's one writer anyway. None is left when the ledger is closed."""
    submitted(sqlite_ledger)
    with ExitStack() as borrowed:
        for _ in range(20):
            borrowed.enter_context(sqlite_ledger.engines.borrow())
            borrowed.enter_context(sqlite_ledger.engines.connect())
        assert len(handles(sqlite_ledger)) == 40
    assert len(handles(sqlite_ledger)) == sqlite_pool.KEPT

    sqlite_ledger.close()

    assert open_files(sqlite_ledger) == []


def test_a_connection_given_back_within_a_transaction_is_not_lent_again(sqlite_ledger: SqlLedger) -> None:
    """Whoever came next would commit what was given up."""
    leg_id = running(sqlite_ledger).leg.id
    with sqlite_ledger.engines.borrow() as given_up:
        given_up.begin(durable=True)
        given_up._connection.execute("DELETE FROM axme_legs")

    with sqlite_ledger.engines.borrow() as driver:
        assert driver.is_idle
    assert sqlite_ledger.leg_record(leg_id) is not None


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 10, 5, 8, 30, 0, 123456, tzinfo=UTC),
        datetime(2026, 10, 5, 8, 30, tzinfo=UTC),
        datetime(2026, 12, 31, 23, 59, 59, 7, tzinfo=timezone(timedelta(hours=-5, minutes=-30))),
        None,
    ],
)
def test_moments_are_the_text_that_sqlalchemy_writes(moment: datetime | None) -> None:
    """Sortable, in UTC, and what is in ledgers already."""
    dialect = sqlite.dialect()
    ours = tables.Moment().dialect_impl(dialect).bind_processor(dialect)
    theirs = DateTime().dialect_impl(dialect).bind_processor(dialect)
    assert ours is not None
    assert theirs is not None

    assert ours(moment) == theirs(moment and moment.astimezone(UTC).replace(tzinfo=None))
