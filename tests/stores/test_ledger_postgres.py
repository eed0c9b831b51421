"""A ledger on PostgreSQL as people run it: restarted, crashed, out of connections, with another default isolation."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace

import pytest
from sqlalchemy import make_url, text

from axme_celery.errors import LedgerUnavailable, StaleChange
from axme_celery.ledger import SqlLedger, access, engine, migrate, outbox
from axme_celery.ledger.driver import Prepared, Row
from axme_celery.ledger.write import Sheet
from axme_celery.model import Checkpoint, LegStatus
from tests.servers import PrivatePostgres

from . import ledgers
from .ledgers import assert_whole, held, new_intent, recorded, running, step_done, submitted, waiting


@pytest.fixture
def private_ledger(private_postgres: PrivatePostgres) -> Iterator[SqlLedger]:
    """A ledger on a server of its own, which the test may treat badly."""
    url = private_postgres.create_database()
    migrate.upgrade(url)
    ledger = SqlLedger(url)
    yield ledger
    ledger.close()


# -- not there ---------------------------------------------------------------------


def test_a_database_that_does_not_exist_is_named_with_its_setting_and_without_its_password(postgres_url: str) -> None:
    """A typo in its name is not mended by trying again, and a password is in no log."""
    wrong = make_url(postgres_url).set(database="no_such", password="hush", query={"options": "-csearch_path=hush"})
    ledger = SqlLedger(wrong.render_as_string(hide_password=False))

    with pytest.raises(LedgerUnavailable) as refused:
        ledger.intent("i-1")

    said = str(refused.value)
    assert ":***@" in said and "/no_such (axme_ledger_url) cannot be opened" in said
    assert "hush" not in said
    assert "correct the setting, or create" in said and "try again" not in said


def test_a_server_that_is_away_is_named_with_the_setting_and_may_come_back() -> None:
    """Trying again is right; and so is a look at what was named."""
    ledger = SqlLedger("postgresql://axme:hush@127.0.0.1:1/reports")

    with pytest.raises(LedgerUnavailable, match=r"axme:\*\*\*@127.0.0.1:1/reports \(axme_ledger_url\).* try again"):
        ledger.intent("i-1")


# -- down and up -------------------------------------------------------------------


def test_a_crash_of_the_database_is_a_clear_error_and_then_over(
    private_postgres: PrivatePostgres, private_ledger: SqlLedger
) -> None:
    """Writers in the middle of their work: each call succeeds or is LedgerUnavailable, and what succeeded is there."""
    ledger, stop = private_ledger, threading.Event()
    accepted: list[str] = []
    refused: list[LedgerUnavailable] = []

    def write() -> None:
        while not stop.is_set():
            try:
                # Telling the time may need the database, too.
                change = new_intent(ledger)
                ledger.commit(change)
                assert change.intent is not None
                accepted.append(change.intent.id)
            except LedgerUnavailable as error:
                refused.append(error)

    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(write) for _ in range(4)]
        for _ in range(2):
            time.sleep(0.5)
            private_postgres.crash()
            time.sleep(1.5)
            private_postgres.start()
        before = len(accepted)
        time.sleep(1)
        stop.set()
        for writer in as_completed(writers):
            writer.result(30)

    assert refused
    assert all("database" in str(one) for one in refused)
    assert len(accepted) > before
    for intent_id in accepted:
        assert_whole(ledger, intent_id)


def test_a_restart_between_two_calls_is_not_noticed(
    private_postgres: PrivatePostgres, private_ledger: SqlLedger
) -> None:
    """Every pooled connection is dead; the first one found so has the others dropped."""
    ledger = private_ledger
    leg_id = running(ledger).leg.id
    # A claim does not wait for the disk. What is committed after it does, and takes it along.
    submitted(ledger)
    barrier = threading.Barrier(5)

    def open_one(_: int) -> None:
        with ledger.engines.connect() as connection:
            connection.execute(text("SELECT 1"))
            barrier.wait()

    calls = [
        lambda: ledger.intents({}, None, 1),
        lambda: ledger.intent("x"),
        lambda: submitted(ledger),
        lambda: ledger.commit(step_done(leg_id)),
        lambda: ledger.outbox_due(ledger.now(fresh=True), 10, 1),
    ]
    for call in calls:
        with ThreadPoolExecutor(5) as pool:
            list(pool.map(open_one, range(5)))
        assert ledger.engines.durable.pool.checkedin() == 5  # type: ignore[attr-defined]
        private_postgres.crash()
        private_postgres.start()
        call()


def test_a_transaction_step_cut_off_by_a_crash_has_not_happened(
    private_postgres: PrivatePostgres, private_ledger: SqlLedger
) -> None:
    """Its SQL and its record are gone together; the next run does it."""
    ledger = private_ledger
    with ledger.engines.durable.begin() as connection:
        connection.execute(text("CREATE TABLE theirs (x INTEGER)"))
    leg = running(ledger).leg

    def cut_off(connection: object) -> Checkpoint:
        connection.execute(text("INSERT INTO theirs VALUES (1)"))  # type: ignore[attr-defined]
        private_postgres.crash()
        private_postgres.start()
        return Checkpoint(leg_id=leg.id, name="book", nth=1, position=0, run=1)

    with pytest.raises(Exception, match=r"connection|terminat|closed"):
        ledger.transaction(cut_off, held(leg.id))

    with ledger.engines.durable.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM theirs")) == 0
    assert recorded(ledger, leg.id).checkpoints == ()


def test_terminated_sessions_cost_nobody_anything(private_ledger: SqlLedger) -> None:
    """An operator, or a pooler between, ends sessions all the time: writers go on."""
    ledger, stop = private_ledger, threading.Event()
    killer = SqlLedger(ledger.engines.url.render_as_string(hide_password=False))
    others = text(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
        "WHERE pid <> pg_backend_pid() AND datname = current_database() AND state LIKE 'idle%'"
    )

    def kill() -> None:
        with killer.engines.durable.connect() as connection:
            while not stop.is_set():
                connection.execute(others)
                connection.commit()
                time.sleep(0.25)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        done = [submitted(ledger).intent.id for _ in range(150)]
    finally:
        stop.set()
        thread.join()
        killer.close()
    for intent_id in done:
        assert_whole(ledger, intent_id)
    assert len(ledger.intents({}, None, 1000)) == len(done)


def test_a_server_without_a_free_place_is_a_clear_error(postgres_ledger_url: str) -> None:
    """And it works when there is one again."""
    crowded = SqlLedger(postgres_ledger_url)
    name = crowded.engines.url.database
    with crowded.engines.durable.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.execute(text(f"ALTER DATABASE {name} CONNECTION LIMIT 0"))
        connection.execute(text("CREATE ROLE axme_test_guest LOGIN"))
        try:
            connection.execute(text("GRANT ALL ON ALL TABLES IN SCHEMA public TO axme_test_guest"))
            guest = SqlLedger(crowded.engines.url.set(username="axme_test_guest").render_as_string(hide_password=False))
            with pytest.raises(LedgerUnavailable, match="too many connections"):
                guest.intent("x")
            connection.execute(text(f"ALTER DATABASE {name} CONNECTION LIMIT -1"))
            assert guest.intent("x") is None
            guest.close()
        finally:
            connection.execute(text("DROP OWNED BY axme_test_guest"))
            connection.execute(text("DROP ROLE axme_test_guest"))
    crowded.close()


def test_more_threads_than_connections_is_a_clear_error(postgres_ledger: SqlLedger) -> None:
    """Once they have waited for one as long as the pool lets them."""
    ledger, pool = postgres_ledger, postgres_ledger.engines.durable.pool
    ledger.intent("x")
    pool._timeout = 0.05  # type: ignore[attr-defined]
    with contextlib.ExitStack() as held:
        for _ in range(25):
            held.enter_context(ledger.engines.connect())

        with pytest.raises(LedgerUnavailable, match="limit"):
            ledger.intent("x")
        with pytest.raises(LedgerUnavailable, match="limit"):
            ledger.commit(new_intent(ledger))

    assert ledger.intent("x") is None


def test_a_thread_alone_needs_one_connection(postgres_ledger: SqlLedger) -> None:
    """The one that is kept ready for the hot path serves all else, too."""
    ledger = postgres_ledger
    ledger.intent("x")
    ledger.commit(new_intent(ledger))
    ledger.figures()
    ledger.intent("x")

    count = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'"
    )
    with ledger.engines.connect() as connection:
        assert connection.scalar(text(count)) == 1


def test_a_connection_is_not_kept_from_the_pool_for_ever(
    postgres_ledger: SqlLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There it is replaced when it is old; and more than a few are not kept ready at all."""
    ledger = postgres_ledger
    ledger.intent("x")
    (before,) = ledger.engines._ready
    monkeypatch.setattr(engine, "READY_SECONDS", 3600.0)
    monkeypatch.setattr(engine.time, "monotonic", lambda: before.until + 1)

    ledger.intent("x")

    (after,) = ledger.engines._ready
    assert after.driver is not before.driver
    assert after.until == before.until + 1 + 3600
    with contextlib.ExitStack() as borrowed:
        for _ in range(engine.READY + 2):
            borrowed.enter_context(ledger.engines.borrow())
    assert len(ledger.engines._ready) == engine.READY


def test_one_broken_connection_condemns_those_kept_ready(
    postgres_ledger: SqlLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that restarted has hung up on all: the second try opens a new one instead of finding the next dead one."""
    ledger = postgres_ledger
    ledger.intent("x")
    with contextlib.ExitStack() as borrowed:
        for _ in range(engine.READY):
            borrowed.enter_context(ledger.engines.borrow())
    with ledger.engines.durable.connect() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    monkeypatch.setattr(access, "TRIES", 2)

    assert ledger.intent("x") is None


def test_what_is_in_use_while_all_is_closed_is_not_kept(postgres_ledger: SqlLedger) -> None:
    """Nor is what was kept ready: after a close there is nothing of before."""
    ledger = postgres_ledger
    with ledger.engines.borrow(), ledger.engines.borrow() as kept:
        pass
    with ledger.engines.borrow() as in_use:
        ledger.close()
        assert in_use is not kept
        assert kept.is_broken

    assert not ledger.engines._ready
    ledger.intent("x")
    assert len(ledger.engines._ready) == 1


# -- other settings ------------------------------------------------------------------


@pytest.fixture
def serializable(postgres_ledger_url: str) -> Iterator[SqlLedger]:
    """A database whose transactions are serializable unless they say otherwise."""
    ledger = SqlLedger(postgres_ledger_url)
    with ledger.engines.durable.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        set_to = "SET default_transaction_isolation = 'serializable'"
        connection.execute(text(f"ALTER DATABASE {ledger.engines.url.database} {set_to}"))
    ledger.close()
    yield ledger
    ledger.close()


def test_writers_get_along_where_transactions_are_serializable_by_default(serializable: SqlLedger) -> None:
    """Nothing fails for being serialised, nothing is lost, and a lost race is still a refusal."""
    ledger = serializable
    with ledger.engines.durable.connect() as connection:
        assert connection.scalar(text("SHOW transaction_isolation")) == "serializable"
    intent_id = submitted(ledger).intent.id

    def write(writer: int) -> None:
        for _ in range(10):
            ledgers.until_committed(ledger, lambda: ledgers.told(ledger, intent_id, f"writer {writer}"))
            leg_id = running(ledger).leg.id
            ledger.commit(step_done(leg_id))
            ledger.commit(ledgers.completed(ledger, leg_id))
            ledger.outbox_due(ledger.now(), 5, 1)

    with ThreadPoolExecutor(6) as pool:
        for one in [pool.submit(write, n) for n in range(6)]:
            one.result(60)
    assert_whole(ledger, intent_id)
    assert len(ledger.events(intent_id)) == 2 + 60

    wait = waiting(ledger)
    one, two = ledgers.answered(ledger, wait.id), ledgers.answered(ledger, wait.id, outcome="rejected")
    ledger.commit(one)
    with pytest.raises(StaleChange):
        ledger.commit(two)


def test_a_change_is_as_isolated_as_it_needs_whatever_the_database_says(serializable: SqlLedger) -> None:
    """READ COMMITTED, seen by the database at the commit itself: more would only have writers refused and tried again."""
    with serializable.engines.durable.begin() as connection:
        for statement in (
            "CREATE TABLE seen (isolation text)",
            "CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " INSERT INTO seen VALUES (current_setting('transaction_isolation')); RETURN NULL; END $$",
            "CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON axme_intents"
            " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION see()",
        ):
            connection.exec_driver_sql(statement)
    submitted(serializable)
    with serializable.engines.durable.connect() as connection:
        assert list(connection.scalars(text("SELECT isolation FROM seen"))) == ["read committed"]


def test_a_transaction_step_is_as_isolated_as_the_database_says(serializable: SqlLedger) -> None:
    """The caller's SQL may rely on it."""
    leg = running(serializable).leg
    seen: list[object] = []

    def look(connection: object) -> Checkpoint:
        seen.append(connection.scalar(text("SHOW transaction_isolation")))  # type: ignore[attr-defined]
        return Checkpoint(leg_id=leg.id, name="look", nth=1, position=0, run=1)

    serializable.transaction(look, held(leg.id))
    assert seen == ["serializable"]


def test_the_sessions_say_whose_they_are_and_let_nothing_hang(postgres_ledger: SqlLedger) -> None:
    """For whoever looks at the server; and a transaction that is forgotten ends."""
    with postgres_ledger.engines.durable.connect() as connection:
        assert connection.scalar(text("SHOW application_name")) == "axme-celery"
        assert connection.scalar(text("SHOW idle_in_transaction_session_timeout")) == "1min"
        # Else a query that must read through a table, which seems dear where that is off, is compiled for longer than it runs.
        assert connection.scalar(text("SHOW jit")) == "off"


def test_what_is_planned_while_the_outbox_is_empty_is_good_when_it_is_full(postgres_ledger: SqlLedger) -> None:
    """A plan is kept for as long as its connection: reading through an empty table costs nothing, then everything."""
    with postgres_ledger.engines.durable.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.execute(text("VACUUM ANALYZE axme_outbox"))
        for ids in ("= 'a'", "= ANY (ARRAY['a', 'b', 'c'])"):
            plan = " ".join(connection.scalars(text(f"EXPLAIN DELETE FROM axme_outbox WHERE id {ids}")))
            assert "axme_outbox_pkey" in plan


def test_what_a_transaction_step_asks_is_planned_as_usual(postgres_ledger: SqlLedger) -> None:
    """Their tables are not ours: what they ask of one may well read through all of it."""
    leg = running(postgres_ledger).leg
    seen: list[object] = []

    def look(connection: object) -> Checkpoint:
        seen.append(connection.scalar(text("SHOW enable_seqscan")))  # type: ignore[attr-defined]
        return Checkpoint(leg_id=leg.id, name="look", nth=1, position=0, run=1)

    postgres_ledger.transaction(look, held(leg.id))
    assert seen == ["on"]


@pytest.mark.parametrize("is_sqlite", [True, False])
def test_however_many_deliveries_were_sent_they_are_removed_by_the_same_statement(is_sqlite: bool) -> None:
    """So that it is prepared once."""
    sheets = [outbox.settle([str(n) for n in range(count)], (), (), is_sqlite) for count in (1, 7, 300)]
    written = [[(prepared.sql, len(rows)) for prepared, rows in spied(sheet)] for sheet in sheets]

    assert written[0] == written[1] == written[2]
    assert [len(statements) for statements in written] == [1, 1, 1]


def spied(sheet: Sheet) -> list[tuple[Prepared, Sequence[Row]]]:
    """The statements of a sheet, with their rows."""
    seen: list[tuple[Prepared, Sequence[Row]]] = []

    class Spy:
        def run(self, prepared: Prepared, rows: Sequence[Row]) -> int:
            seen.append((prepared, rows))
            return len(rows)

        def fetch(self, prepared: Prepared, row: Row) -> Sequence[object]:
            raise AssertionError("nothing to ask")

    sheet.write(Spy())
    return seen


def test_moments_are_utc_whatever_the_servers_zone(postgres_ledger_url: str) -> None:
    """What was written is read to the microsecond."""
    ledger = SqlLedger(postgres_ledger_url)
    with ledger.engines.durable.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.execute(text(f"ALTER DATABASE {ledger.engines.url.database} SET timezone = 'Asia/Kathmandu'"))
    ledger.close()
    (written,) = ledger.commit(new_intent(ledger))
    assert written.intent is not None
    found = ledger.intent(written.intent.id)
    assert found == written.intent
    assert found.created_at.isoformat().endswith("+00:00")
    assert abs((ledger.now(fresh=True) - found.created_at).total_seconds()) < 10
    ledger.close()


def test_a_change_in_one_statement_is_refused_whole(postgres_ledger: SqlLedger) -> None:
    """Its first parts may have found their rows: with one that did not, nothing is written, and it says what has moved on."""
    ledger = postgres_ledger
    record = submitted(ledger)
    change = ledgers.claim(ledger, record.leg.id)
    ((was, leg),) = change.legs
    assert was is not None
    # The intent is as it was decided on, the leg is not; events and all the rest come after.
    late = replace(change, legs=((replace(was, run=7), leg),))
    with pytest.raises(StaleChange, match=r"leg .* is no longer QUEUED at run 7"):
        ledger.commit(late)
    assert recorded(ledger, record.leg.id) == record
    assert [event.type for event in ledger.events(record.intent.id)] == ["intent.created", "intent.submitted"]

    ledger.commit(change)
    assert recorded(ledger, record.leg.id).leg.status is LegStatus.RUNNING
