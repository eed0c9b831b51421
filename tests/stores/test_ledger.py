"""One suite for the ledger on SQLite and on PostgreSQL: what it refuses, what it keeps whole, what it finds again."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import DBAPIError

from axme_celery import audit, lifecycle
from axme_celery.errors import BadInput, BadSetting, LedgerUnavailable, StaleChange
from axme_celery.hooks import HookDelivery
from axme_celery.ids import uuid7
from axme_celery.ledger import SqlLedger, tables
from axme_celery.ledger.clock import HostClock, LedgerClock
from axme_celery.ledger.driver import Driver, Prepared, Row
from axme_celery.model import (
    Change,
    Checkpoint,
    DeadLetter,
    Delivery,
    DeliveryKind,
    EarlyAnswer,
    Intent,
    Lease,
    LegStatus,
    Recorded,
    Status,
    Timer,
    Wait,
    WaitKind,
    WaitStatus,
)

from . import ledgers
from .conftest import MovedClock
from .ledgers import (
    everything,
    held,
    human_wait,
    new_intent,
    occasion,
    recorded,
    running,
    step_done,
    submitted,
    waiting,
)

# -- what is written is read again, to the letter ---------------------------------


def test_an_intent_and_its_leg_come_back_as_they_were_written(ledger: SqlLedger) -> None:
    """Every field, through columns, time zones and JSON."""
    now = ledger.now()
    change = new_intent(
        ledger, key="k", tags=("a", "b"), requester="ana", correlation_id="c", reply_to="agent://x", notify="https://x",
        deadline_at=now + timedelta(days=1), parent_wait_id=uuid7(), replay_of=uuid7(), payload='{"é":"\\u0000 ☃"}',
    )  # fmt: skip
    (written,) = ledger.commit(change)

    found = recorded(ledger, change.legs[0][1].id)

    assert found.intent == written.intent
    assert found.leg == written.legs[0][1]
    assert ledger.intent(found.intent.id) == found.intent == ledger.intent_by_key("k")
    assert ledger.legs(found.intent.id) == [found.leg]
    assert [found.intent] == ledger.intents({"tag": "b"}, None, 10)


def test_a_wait_comes_back_as_it_was_written(ledger: SqlLedger) -> None:
    """With everything set, read in each of the ways there are."""
    record, now = running(ledger), ledger.now()
    moments = ("timeout_at", "remind_at", "escalate_at", "escalated_at", "heartbeat_at", "poll_at")
    wait = human_wait(
        ledger, record.leg, to=("ana", "ben"), tool="t", job_id="j", reminders=2,
        votes=({"by": "ben", "outcome": "approved"},), delegations=({"by": "cyd", "to": "ana"},),
        wanted_at=now + timedelta(hours=9), **{name: now + timedelta(hours=n) for n, name in enumerate(moments)},
    )  # fmt: skip
    ledger.commit(*ledgers.opened(ledger, wait))

    found = ledger.wait(wait.id)

    assert found is not None
    shown = lifecycle.shown_hash(wait.title, wait.request, record.intent.payload)
    assert found.wait == replace(wait, due_at=lifecycle.due(wait), payload_hash=shown)
    assert [found] == ledger.wait_records([wait.id]) == [ledger.tool_wait("t", "j")]
    assert ledger.waits(record.intent.id) == [found.wait] == list(recorded(ledger, record.leg.id).waits)
    assert (found.intent, found.leg) == (ledger.intent(record.intent.id), recorded(ledger, record.leg.id).leg)


def test_every_column_is_a_field_and_every_field_a_column(ledger: SqlLedger) -> None:
    """But for what the ledger keeps for itself, and the leg that is joined to a delivery."""
    from axme_celery.ledger.rows import TABLE_OF

    for kind, table in TABLE_OF.items():
        names = {field.name for field in fields(kind)}
        apart = {Delivery: {"leg", "held_until"}, HookDelivery: {"held_until"}}.get(kind, set())
        assert names ^ set(table.c.keys()) == apart


def test_what_is_not_there_is_none(ledger: SqlLedger) -> None:
    assert ledger.intent("x") is None
    assert ledger.intent_by_key("x") is None
    assert ledger.leg_record("x") is None
    assert ledger.wait("x") is None
    assert ledger.checkpoint("x", "s", 1) is None
    assert ledger.tool_wait("t", "x") is None
    assert ledger.early_answer("t", "x") is None
    assert ledger.dead_letter("x") is None
    assert ledger.wait_records([]) == ledger.wait_records(["x"]) == ledger.outbox_by_ids(["x"]) == []


def test_a_first_run_does_not_look_for_a_history_it_cannot_have(ledger: SqlLedger) -> None:
    """A later run gets all checkpoints and waits of its leg; without ``history`` none."""
    record = running(ledger)
    leg_id = record.leg.id
    ledger.commit(step_done(leg_id))
    assert recorded(ledger, leg_id).checkpoints == ()

    ledger.commit(ledgers.lost(ledger, leg_id))

    later = recorded(ledger, leg_id)
    assert [one.name for one in later.checkpoints] == ["fetch"]
    without = ledger.leg_record(leg_id, history=False)
    assert without is not None
    assert without.checkpoints == ()


def test_what_has_half_a_character_is_refused_when_it_is_looked_for(ledger: SqlLedger) -> None:
    """No driver can ask a database for it."""
    for look in (ledger.wait, ledger.intent, ledger.intent_by_key, ledger.leg_record, ledger.dead_letter):
        with pytest.raises(BadInput, match="lone surrogate"):
            look("\ud800")
    assert ledger.wait("x") is None


# -- what no longer holds is refused ------------------------------------------------


def refused(ledger: SqlLedger, intent_id: str, *changes: Change) -> str:
    """Commit what must be refused; nothing of the intent may change."""
    before = everything(ledger, intent_id)
    with pytest.raises(StaleChange) as stale:
        ledger.commit(*changes)
    assert everything(ledger, intent_id) == before
    return str(stale.value)


def test_a_change_decided_on_an_older_intent_is_refused(ledger: SqlLedger) -> None:
    """Two decisions on one state: the second committed changes nothing, and says which intent."""
    record = running(ledger)
    first, second = ledgers.canceled(ledger, record.intent.id), ledgers.completed(ledger, record.leg.id)
    ledger.commit(first)

    why = refused(ledger, record.intent.id, second)

    assert f"intent {record.intent.id} has moved on from seq 3" in why
    ended = ledger.intent(record.intent.id)
    assert ended is not None
    assert ended.status is Status.CANCELED


def test_a_change_of_a_leg_at_another_run_is_refused(ledger: SqlLedger) -> None:
    """A claim without an event of its own is fenced by the leg's status and run alone."""
    wait = waiting(ledger)
    ledger.commit(ledgers.answered(ledger, wait.id))
    one, two = ledgers.claim(ledger, wait.leg_id, 2), ledgers.claim(ledger, wait.leg_id, 2)
    assert one.intent is not None or one.events == ()
    ledger.commit(one)

    assert f"leg {wait.leg_id} is no longer QUEUED at run 2" in refused(
        ledger, wait.intent_id, replace(two, intent=None)
    )


def test_an_answer_to_a_wait_that_was_closed_is_refused(ledger: SqlLedger) -> None:
    """The wait's status is a fence of its own, whatever became of the intent."""
    wait = waiting(ledger)
    record = ledger.wait(wait.id)
    assert record is not None
    late = Change(waits=((record.wait, replace(record.wait, status=WaitStatus.EXPIRED)),))
    ledger.commit(ledgers.answered(ledger, wait.id))

    assert f"wait {wait.id} is no longer OPEN" in refused(ledger, wait.intent_id, late)


def test_a_dead_letter_is_closed_once(ledger: SqlLedger) -> None:
    """Whoever closes it second is refused, and it says who was first."""
    intent_id = submitted(ledger).intent.id
    letter = DeadLetter(id=uuid7(), kind="leg", intent_id=intent_id, code="x", reason="y", at=ledger.now())
    ledger.commit(Change(dead=(letter,)))
    ledger.commit(Change(closes=((letter.id, "DISCARDED", None, "ana", None),)))

    refused(ledger, intent_id, Change(closes=((letter.id, "REPLAYED", uuid7(), "ben", None),)))

    closed = ledger.dead_letter(letter.id)
    assert closed is not None
    assert (closed.state, closed.closed_by) == ("DISCARDED", "ana")
    assert closed.closed_at is not None


def test_of_many_changes_none_is_written_when_one_is_refused(ledger: SqlLedger) -> None:
    """The last of them is stale; everything before it, of every kind, is undone with it."""
    stale = running(ledger)
    too_late = ledgers.completed(ledger, stale.leg.id)
    ledger.commit(ledgers.canceled(ledger, stale.intent.id))
    wait, fresh = waiting(ledger), new_intent(ledger, key="fresh", tags=("t",))
    before = everything(ledger, wait.intent_id)

    refused(ledger, stale.intent.id, fresh, ledgers.answered(ledger, wait.id), too_late)

    assert ledger.intent_by_key("fresh") is None
    assert everything(ledger, wait.intent_id) == before
    assert ledger.outbox_by_ids([fresh.outbox[0].id]) == []
    assert ledger.intents({"tag": "t"}, None, 10) == []


def test_a_key_that_is_taken_is_refused(ledger: SqlLedger) -> None:
    """It was free when this was decided: the verb loads again and finds the first."""
    submitted(ledger, key="october")
    second = new_intent(ledger, key="october")

    with pytest.raises(StaleChange, match="another writer was first"):
        ledger.commit(second)

    assert ledger.leg_record(second.legs[0][1].id) is None


def test_a_run_that_was_replaced_may_record_nothing(ledger: SqlLedger) -> None:
    """Neither a step's result, nor its start, nor one in a transaction, whose SQL is undone."""
    leg_id = running(ledger).leg.id
    ledger.commit(ledgers.lost(ledger, leg_id))
    ledger.commit(ledgers.claim(ledger, leg_id, 2))

    for change in (step_done(leg_id), ledgers.step_begun(leg_id)):
        with pytest.raises(StaleChange, match="run 1 of leg"):
            ledger.commit(change)
    with pytest.raises(StaleChange, match="run 1 of leg"):
        ledger.transaction(lambda connection: insert_theirs(connection, leg_id), held(leg_id))

    assert recorded(ledger, leg_id).checkpoints == ()
    assert not their_rows(ledger)
    ledger.commit(step_done(leg_id, run=2))


def test_a_step_of_an_ended_intent_may_record_nothing(ledger: SqlLedger) -> None:
    """Canceled while it ran."""
    record = running(ledger)
    ledger.commit(ledgers.canceled(ledger, record.intent.id))

    refused(ledger, record.intent.id, step_done(record.leg.id))


def test_a_value_no_column_takes_is_bad_input(postgres_ledger: SqlLedger) -> None:
    """PostgreSQL refuses what is too long or has a NUL; nothing is kept, and it is no reason to try again."""
    ledger = postgres_ledger
    for wrong in ({"requester": "x" * 256}, {"key": "a\x00b"}):
        change = new_intent(ledger, **wrong)
        with pytest.raises(BadInput, match="cannot keep"):
            ledger.commit(change)
        assert ledger.leg_record(change.legs[0][1].id) is None


# -- checkpoints ----------------------------------------------------------------------


def test_a_step_recorded_twice_by_its_run_is_recorded_once(ledger: SqlLedger) -> None:
    """The same value again is what a lost reply looks like; another value for the same call is refused."""
    leg_id = running(ledger).leg.id
    ledger.commit(step_done(leg_id, value="1"))
    ledger.commit(step_done(leg_id, value="1"))

    with pytest.raises(StaleChange):
        ledger.commit(step_done(leg_id, value="2"))

    kept = ledger.checkpoint(leg_id, "fetch", 1)
    assert kept is not None
    assert (kept.value, kept.recorded, kept.run) == ("1", Recorded.DONE, 1)
    assert kept.at is not None
    assert abs(kept.at - ledger.now()) < timedelta(seconds=5)


def test_a_started_step_becomes_a_done_one(ledger: SqlLedger) -> None:
    """The marker of an at-most-once step is completed in its place, by the run that made it only."""
    leg_id = running(ledger).leg.id
    ledger.commit(ledgers.step_begun(leg_id))
    ledger.commit(step_done(leg_id, "pay", value='"receipt"'))
    done = ledger.checkpoint(leg_id, "pay", 1)
    assert done is not None
    assert (done.recorded, done.value) == (Recorded.DONE, '"receipt"')

    ledger.commit(replace(ledgers.step_begun(leg_id, "ship")))
    ledger.commit(ledgers.lost(ledger, leg_id))
    ledger.commit(ledgers.claim(ledger, leg_id, 2))
    with pytest.raises(StaleChange):
        ledger.commit(step_done(leg_id, "ship", run=1))
    begun = ledger.checkpoint(leg_id, "ship", 1)
    assert begun is not None
    assert begun.recorded is Recorded.STARTED


def test_steps_touch_no_intent(ledger: SqlLedger) -> None:
    """So that nothing serialises the legs of a group: the intent's row and seq stay as they are."""
    record = running(ledger)
    for nth in range(1, 21):
        ledger.commit(step_done(record.leg.id, nth=nth))

    assert ledger.intent(record.intent.id) == record.intent
    assert [one.nth for one in ledger.checkpoints(record.intent.id)] == list(range(1, 21))


# -- a step's own SQL ------------------------------------------------------------------


def make_theirs(ledger: SqlLedger) -> None:
    with ledger.engines.durable.begin() as connection:
        connection.execute(text("CREATE TABLE IF NOT EXISTS theirs (leg_id VARCHAR(255))"))


def insert_theirs(connection: object, leg_id: str, run: int = 1) -> Checkpoint:
    connection.execute(text("CREATE TABLE IF NOT EXISTS theirs (leg_id VARCHAR(255))"))  # type: ignore[attr-defined]
    connection.execute(text("INSERT INTO theirs VALUES (:leg)"), {"leg": leg_id})  # type: ignore[attr-defined]
    return Checkpoint(leg_id=leg_id, name="book", nth=1, position=0, run=run, value="7")


def their_rows(ledger: SqlLedger) -> list[str]:
    make_theirs(ledger)
    with ledger.engines.durable.connect() as connection:
        return list(connection.scalars(text("SELECT leg_id FROM theirs")))


def test_a_transaction_step_commits_with_its_checkpoint(ledger: SqlLedger) -> None:
    """Both or neither: here both."""
    leg_id = running(ledger).leg.id

    ledger.transaction(lambda connection: insert_theirs(connection, leg_id), held(leg_id))

    assert their_rows(ledger) == [leg_id]
    assert ledger.checkpoint(leg_id, "book", 1) is not None


def test_a_transaction_step_that_raises_leaves_nothing(ledger: SqlLedger) -> None:
    """Its own error comes out as it was, also when it is the database's."""
    leg_id = running(ledger).leg.id
    make_theirs(ledger)

    def fails(connection: object) -> Checkpoint:
        insert_theirs(connection, leg_id)
        raise ValueError("theirs")

    def breaks(connection: object) -> Checkpoint:
        insert_theirs(connection, leg_id)
        connection.execute(text("SELECT nonsense FROM nowhere"))  # type: ignore[attr-defined]
        raise AssertionError("unreachable")

    with pytest.raises(ValueError, match="theirs"):
        ledger.transaction(fails, held(leg_id))
    with pytest.raises(Exception, match="nowhere"):
        ledger.transaction(breaks, held(leg_id))

    assert their_rows(ledger) == []
    assert ledger.checkpoint(leg_id, "book", 1) is None


@pytest.mark.parametrize("found", ["at the record", "at the commit"])
def test_what_the_database_says_late_of_a_steps_own_sql_is_the_steps_error(
    postgres_ledger: SqlLedger, found: str
) -> None:
    """A failure that the step swallowed, or a constraint that is only checked at the commit: nobody's worker is dead."""
    ledger, leg_id = postgres_ledger, running(postgres_ledger).leg.id
    make_theirs(ledger)
    with ledger.engines.durable.begin() as connection:
        connection.execute(text("CREATE TABLE parents (id INTEGER PRIMARY KEY)"))
        connection.execute(
            text("CREATE TABLE children (parent INTEGER REFERENCES parents DEFERRABLE INITIALLY DEFERRED)")
        )

    def writes(connection: object) -> Checkpoint:
        checkpoint = insert_theirs(connection, leg_id)
        if found == "at the record":
            with contextlib.suppress(DBAPIError):
                connection.execute(text("SELECT nonsense FROM nowhere"))  # type: ignore[attr-defined]
        else:
            connection.execute(text("INSERT INTO children VALUES (99)"))  # type: ignore[attr-defined]
        return checkpoint

    with pytest.raises(DBAPIError) as late:
        ledger.transaction(writes, held(leg_id))

    assert getattr(late.value.orig, "sqlstate", None) == {"at the record": "25P02", "at the commit": "23503"}[found]
    assert (their_rows(ledger), ledger.checkpoint(leg_id, "book", 1)) == ([], None)
    ledger.transaction(lambda connection: insert_theirs(connection, leg_id), held(leg_id))
    assert their_rows(ledger) == [leg_id]


def test_reading_inside_a_transaction_step_disturbs_nothing(ledger: SqlLedger) -> None:
    """The verbs read the ledger while a step's transaction is open; what it wrote must still commit."""
    record = running(ledger)

    def looks_around(connection: object) -> Checkpoint:
        checkpoint = insert_theirs(connection, record.leg.id)
        assert ledger.intent(record.intent.id) == record.intent
        assert ledger.legs(record.intent.id) == [record.leg]
        return checkpoint

    make_theirs(ledger)
    ledger.transaction(looks_around, held(record.leg.id))

    assert their_rows(ledger) == [record.leg.id]


def test_writing_past_a_transaction_step_on_sqlite_is_refused_at_once(tmp_path: Path) -> None:
    """It would wait for itself, for as long as SQLite waits for another writer."""
    ledger = SqlLedger(f"sqlite:///{tmp_path}/ledger.db")
    leg_id, other = running(ledger).leg.id, new_intent(ledger)
    began = time.monotonic()

    def writes_past(connection: object) -> Checkpoint:
        ledger.commit(other)
        raise AssertionError("unreachable")

    with pytest.raises(BadInput, match="connection="):
        ledger.transaction(writes_past, held(leg_id))
    assert time.monotonic() - began < 5

    def writes_along(connection: object) -> Checkpoint:
        ledger.commit(other, connection=connection)  # type: ignore[arg-type]
        return insert_theirs(connection, leg_id)

    ledger.transaction(writes_along, held(leg_id))
    assert ledger.leg_record(other.legs[0][1].id) is not None
    ledger.close()


# -- many writers of one intent -----------------------------------------------------------


def test_events_are_gapless_under_eight_writers(ledger: SqlLedger) -> None:
    """Each decides on what it sees and is refused when it was too late; the history is 1..n, and its chain holds."""
    intent_id = submitted(ledger).intent.id
    start = threading.Barrier(8)

    def write(writer: int) -> None:
        start.wait()
        for _ in range(12):
            ledgers.until_committed(ledger, lambda: ledgers.told(ledger, intent_id, f"writer {writer}"))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))

    events = ledger.events(intent_id)
    intent = ledger.intent(intent_id)
    assert intent is not None
    assert [one.seq for one in events] == list(range(1, 2 + 8 * 12 + 1))
    assert audit.verify(intent, events, None) is None
    assert {one.actor for one in events[2:]} == {f"writer {n}" for n in range(8)}


def test_of_many_claims_of_one_run_one_wins(ledger: SqlLedger) -> None:
    """A duplicated message is one run."""
    leg_id = submitted(ledger).leg.id
    start = threading.Barrier(6)

    def try_claim(_: int) -> str:
        change = ledgers.claim(ledger, leg_id)
        start.wait()
        try:
            ledger.commit(change)
        except StaleChange:
            return "lost"
        return change.legs[0][1].token

    with ThreadPoolExecutor(6) as pool:
        outcomes = list(pool.map(try_claim, range(6)))

    (winner,) = [one for one in outcomes if one != "lost"]
    assert recorded(ledger, leg_id).leg.token == winner


def test_of_an_answer_a_timeout_and_a_cancel_one_wins(ledger: SqlLedger) -> None:
    """Decided on one state and committed at once: one is written, whole; the others change nothing."""
    for _ in range(5):
        wait = waiting(ledger, timeout_at=ledger.now() - timedelta(seconds=1))
        record = ledger.wait(wait.id)
        assert record is not None
        timeout = lifecycle.fire(record, ahead=timedelta(0), on=occasion(ledger))
        assert timeout is not None
        rivals = [ledgers.answered(ledger, wait.id), timeout, ledgers.canceled(ledger, wait.intent_id)]
        start = threading.Barrier(3)

        def rival(change: Change, start: threading.Barrier = start) -> bool:
            start.wait()
            try:
                ledger.commit(change)
            except StaleChange:
                return False
            return True

        with ThreadPoolExecutor(3) as pool:
            assert sorted(pool.map(rival, rivals)) == [False, False, True]
        ledgers.assert_whole(ledger, wait.intent_id)


def test_many_changes_at_once_and_single_ones_never_block_each_other_for_good(ledger: SqlLedger) -> None:
    """Sweepers with hundreds of waits beside people who answer the same ones: all get through, each wait closes once."""
    waits = [waiting(ledger, timeout_at=ledger.now()) for _ in range(12)]

    def sweep(order: int) -> None:
        while True:
            records = [
                r for r in ledger.wait_records([w.id for w in waits][::order]) if r.wait.status is WaitStatus.OPEN
            ]
            fired = [lifecycle.fire(r, ahead=timedelta(0), on=occasion(ledger)) for r in records]
            try:
                ledger.commit(*(change for change in fired if change is not None))
                return
            except StaleChange:
                continue

    def answer_all() -> None:
        for wait in waits:
            record = ledger.wait(wait.id)
            assert record is not None
            if record.wait.status is WaitStatus.OPEN:
                try:
                    ledger.commit(lifecycle.answer(record, outcome="approved", by="ana", on=occasion(ledger)))
                except StaleChange:
                    continue

    with ThreadPoolExecutor(3) as pool:
        for one in [pool.submit(sweep, 1), pool.submit(sweep, -1), pool.submit(answer_all)]:
            one.result(60)

    for wait in waits:
        assert next(w.status for w in ledger.waits(wait.intent_id)) in {WaitStatus.ANSWERED, WaitStatus.EXPIRED}
        assert len([e for e in ledger.events(wait.intent_id) if e.type == "intent.in_progress"]) == 2


def test_five_hundred_changes_are_one_transaction_and_few_statements(
    ledger: SqlLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the sweep commits at a stroke: every row of it is there, and the database was asked a dozen times."""
    statements: list[str] = []
    changes = [new_intent(ledger, tags=("bulk",)) for _ in range(500)]
    own, run = threading.get_ident(), Driver.run

    def counting(self: Driver, prepared: Prepared, rows: Sequence[Row]) -> int:
        # Relays of other tests may still be at it.
        if threading.get_ident() == own:
            statements.append(prepared.sql)
        return run(self, prepared, rows)

    monkeypatch.setattr(Driver, "run", counting)
    ledger.commit(*changes)

    assert len(statements) == 6
    assert len(ledger.intents({"tag": "bulk"}, None, 1000)) == 500
    assert len(ledger.outbox_due(ledger.now() + timedelta(minutes=1), 1000, 1)) == 0
    assert len(ledger.outbox_by_ids([c.outbox[0].id for c in changes])) == 500
    for change in changes[::97]:
        assert change.intent is not None
        ledgers.assert_whole(ledger, change.intent.id)


# -- in the caller's transaction -------------------------------------------------------------


def test_a_callers_rollback_takes_the_intent_with_it(ledger: SqlLedger, ledger_url: str) -> None:
    """Through the caller's own engine, with nothing before or after ours in the transaction, or something."""
    ledger.id  # noqa: B018  (the tables)
    engine = create_engine(ledger_url)
    make_theirs(ledger)
    for theirs_first in (False, True):
        change = new_intent(ledger)
        with engine.connect() as connection:
            if theirs_first:
                connection.execute(text("INSERT INTO theirs VALUES ('x')"))
            ledger.commit(change, connection=connection)
            connection.execute(text("INSERT INTO theirs VALUES ('y')"))
            connection.rollback()
        assert ledger.leg_record(change.legs[0][1].id) is None
    assert their_rows(ledger) == []
    engine.dispose()


def test_a_callers_commit_takes_the_intent_with_it(ledger: SqlLedger, ledger_url: str) -> None:
    """Invisible before, there afterwards; the outbox row is left to the relays, for nobody announces it."""
    ledger.id  # noqa: B018
    make_theirs(ledger)
    engine, change = create_engine(ledger_url), new_intent(ledger, key="theirs")
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO theirs VALUES ('x')"))
        written = ledger.commit(change, connection=connection)
        assert ledger.intent_by_key("theirs") is None

    assert ledger.intent_by_key("theirs") == written[0].intent
    assert their_rows(ledger) == ["x"]
    assert [d.id for d in ledger.outbox_due(ledger.now(), 10, 1)] == [change.outbox[0].id]
    engine.dispose()


def test_a_refused_change_leaves_the_callers_transaction_usable(ledger: SqlLedger, ledger_url: str) -> None:
    """What they wrote before and write after it still commits, and nothing of ours does."""
    submitted(ledger, key="taken")
    make_theirs(ledger)
    engine, change = create_engine(ledger_url), new_intent(ledger, key="taken")
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO theirs VALUES ('before')"))
        with pytest.raises(StaleChange):
            ledger.commit(change, connection=connection)
        connection.execute(text("INSERT INTO theirs VALUES ('after')"))

    assert their_rows(ledger) == ["before", "after"]
    assert ledger.leg_record(change.legs[0][1].id) is None
    engine.dispose()


def test_many_changes_go_into_a_callers_transaction_too(ledger: SqlLedger, ledger_url: str) -> None:
    """Also stale ones among them are found there, by whatever driver."""
    record = running(ledger)
    late = ledgers.completed(ledger, record.leg.id)
    changes = [new_intent(ledger) for _ in range(5)]
    engine = create_engine(ledger_url)
    with engine.begin() as connection:
        ledger.commit(*changes, connection=connection)
    ledger.commit(ledgers.canceled(ledger, record.intent.id))
    more = [new_intent(ledger) for _ in range(5)]
    with engine.begin() as connection, pytest.raises(StaleChange, match="has moved on"):
        ledger.commit(*more, late, connection=connection)

    assert all(ledger.leg_record(c.legs[0][1].id) is not None for c in changes)
    assert all(ledger.leg_record(c.legs[0][1].id) is None for c in more)
    engine.dispose()


# -- the outbox -----------------------------------------------------------------------------


def delivery(ledger: SqlLedger, intent_id: str, *, in_seconds: float = 60, **given: object) -> Delivery:
    at = ledger.now() + timedelta(seconds=in_seconds)
    return Delivery(**{"id": uuid7(), "kind": DeliveryKind.NOTICE, "intent_id": intent_id, "next_at": at, **given})  # type: ignore[arg-type]


def test_each_delivery_is_taken_by_one_relay(ledger: SqlLedger) -> None:
    """Two relays at once share what is due; a third finds nothing until the hold ends."""
    intent_id = submitted(ledger).intent.id
    kept = [delivery(ledger, intent_id) for _ in range(60)]
    ledger.commit(Change(outbox=tuple(kept)))
    until = ledger.now() + timedelta(minutes=2)

    def take(_: int) -> list[str]:
        taken: list[str] = []
        while bite := ledger.outbox_due(until, 7, 30):
            taken += [one.id for one in bite]
        return taken

    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(take, range(2))

    mine = {d.id for d in kept}
    assert sorted(set(one + two) & mine) == sorted(mine)
    assert len(one + two) == len(set(one + two))
    assert ledger.outbox_due(until, 100, 30) == []


def test_a_held_delivery_comes_back_when_its_relay_dies(clock: MovedClock, ledger_url: str) -> None:
    """After the hold, and not before."""
    ledger = SqlLedger(ledger_url, clock=clock)
    intent_id = submitted(ledger).intent.id
    held = delivery(ledger, intent_id, in_seconds=3600)
    ledger.commit(Change(outbox=(held,)))
    clock.pass_seconds(3600)

    assert [d.id for d in ledger.outbox_due(clock.now, 10, 30) if d.kind is DeliveryKind.NOTICE] == [held.id]
    clock.pass_seconds(29)
    assert ledger.outbox_due(clock.now, 10, 30) == []
    clock.pass_seconds(1)
    assert held.id in [d.id for d in ledger.outbox_due(clock.now, 10, 30)]
    ledger.close()


def test_settling_removes_puts_back_and_files(ledger: SqlLedger) -> None:
    """Sent ones go, failed ones come again at their moment with their reason, dead ones become letters; and twice is once."""
    intent_id = submitted(ledger).intent.id
    sent, failed, dead = (delivery(ledger, intent_id, in_seconds=-1) for _ in range(3))
    ledger.commit(Change(outbox=(sent, failed, dead)))
    later = replace(failed, attempts=1, last_error="refused", next_at=ledger.now() + timedelta(seconds=30))
    letter = DeadLetter(
        id=uuid7(), kind="delivery", intent_id=intent_id, delivery_id=dead.id, code="notice_undeliverable",
        reason="gone", at=ledger.now(),
    )  # fmt: skip

    for _ in range(2):
        ledger.outbox_settle([sent.id], [later], [(dead, letter)])

    assert ledger.outbox_by_ids([sent.id, failed.id, dead.id]) == [later]
    assert ledger.dead_letters_of(intent_id) == [letter]
    assert later.id not in [d.id for d in ledger.outbox_due(ledger.now(), 10, 1)]
    assert later.id in [d.id for d in ledger.outbox_due(ledger.now() + timedelta(seconds=31), 10, 1)]


def test_a_delivery_brings_the_leg_it_is_to_publish(ledger: SqlLedger) -> None:
    """As the leg is now, not as it was when the row was written."""
    change = new_intent(ledger)
    ledger.commit(change)
    leg_id = change.legs[0][1].id
    ledger.commit(ledgers.claim(ledger, leg_id))

    (found,) = ledger.outbox_by_ids([change.outbox[0].id])

    assert found.kind is DeliveryKind.LEG
    assert found.leg == recorded(ledger, leg_id).leg
    assert found.leg is not None
    assert found.leg.status is LegStatus.RUNNING


def test_what_the_committing_process_sends_itself_is_left_to_it_for_a_while(ledger: SqlLedger) -> None:
    """The sweep takes it only when that process has had its time; what is due later is anybody's."""
    now, later = new_intent(ledger), new_intent(ledger)
    far = replace(later.outbox[0], next_at=ledger.now() + timedelta(seconds=20))
    ledger.commit(now, replace(later, outbox=(far,)))

    assert ledger.outbox_due(ledger.now(), 10, 1) == []
    taken = ledger.outbox_due(ledger.now() + timedelta(seconds=21), 10, 1)
    assert [d.id for d in taken] == [far.id]


def test_more_deliveries_than_a_statement_binds_are_found(ledger: SqlLedger) -> None:
    """A caller's transaction may have submitted thousands."""
    intent_id = submitted(ledger).intent.id
    many = [delivery(ledger, intent_id) for _ in range(2500)]
    ledger.commit(Change(outbox=tuple(many)))

    assert {d.id for d in ledger.outbox_by_ids([*(d.id for d in many), *(uuid7() for _ in range(40_000))])} == {
        d.id for d in many
    }


# -- lists -------------------------------------------------------------------------------------


def test_pages_of_intents_meet_without_gap_or_repeat(clock: MovedClock, ledger_url: str) -> None:
    """By keyset: many made in the same moment, and new ones arriving between the pages."""
    ledger = SqlLedger(ledger_url, clock=clock)
    made = []
    for n in range(24):
        made.append(submitted(ledger).intent.id)
        if n % 5 == 0:
            clock.pass_seconds(1)

    seen: list[Intent] = []
    after = None
    while page := ledger.intents({}, after, 5):
        seen += page
        after = (page[-1].created_at, page[-1].id)
        submitted(ledger)

    assert [one.id for one in seen] == sorted(made, reverse=True)
    ledger.close()


def test_intents_are_found_by_what_they_are(ledger: SqlLedger) -> None:
    """Each filter alone and together; an unknown value finds nothing."""
    one = submitted(ledger, type="a", requester="ana", correlation_id="c1", tags=("x", "y"), key="k1").intent
    two = running(ledger, type="b", tags=("y",), replay_of=one.id).intent

    def found(**filters: object) -> list[str]:
        return [i.id for i in ledger.intents(filters, None, 10)]

    assert found(status="SUBMITTED") == [one.id]
    assert found(status=["SUBMITTED", "IN_PROGRESS"]) == [two.id, one.id]
    assert found(type="b") == [two.id]
    assert found(requester="ana", tag="y") == [one.id]
    assert found(tag="y") == [two.id, one.id]
    assert found(correlation_id="c1", key="k1") == [one.id]
    assert found(replay_of=one.id) == [two.id]
    assert found(waiting_reason="WAITING_FOR_HUMAN") == []
    assert found(created_since=ledger.now() + timedelta(hours=1)) == []
    assert found(type=None, tag=None) == [two.id, one.id]


def test_the_inbox_shows_open_human_waits_of_these_owners(clock: MovedClock, ledger_url: str) -> None:
    """Oldest first, page by page; others' waits, closed ones and those for tools are not in it."""
    ledger = SqlLedger(ledger_url, clock=clock)
    mine: list[Wait] = []
    for n in range(7):
        mine.append(waiting(ledger, to=("ana", "team") if n % 2 else ("ana",)))
        clock.pass_seconds(1)
        waiting(ledger, to=("ben",))
        waiting(ledger, to=(), kind=WaitKind.TOOL, tool="t", job_id=str(n))
    ledger.commit(ledgers.answered(ledger, mine[0].id))

    seen: list[str] = []
    after = None
    while page := ledger.inbox(["ana", "team"], after, 2):
        seen += [one.id for one in page]
        after = (page[-1].opened_at, page[-1].id)

    assert seen == [one.id for one in mine[1:]]
    assert [one.id for one in ledger.inbox(["team"], None, 10)] == [mine[n].id for n in (1, 3, 5)]
    assert len(ledger.inbox([], None, 100)) == 6 + 7
    assert ledger.inbox(["nobody"], None, 10) == []
    ledger.close()


def test_an_escalated_wait_is_in_its_new_owners_inbox_too(ledger: SqlLedger) -> None:
    """And one that is taken off somebody leaves theirs."""
    wait = waiting(ledger, to=("ana", "ben"))
    record = ledger.wait(wait.id)
    assert record is not None
    ledger.commit(Change(waits=((record.wait, replace(record.wait, to=("ben", "head"))),)))

    assert ledger.inbox(["ana"], None, 10) == []
    assert [one.id for one in ledger.inbox(["head"], None, 10)] == [wait.id]
    assert [one.id for one in ledger.inbox(["ben", "head"], None, 10)] == [wait.id]


def test_events_are_read_from_where_one_was(ledger: SqlLedger) -> None:
    """The cursor is the seq."""
    intent_id = running(ledger).intent.id
    assert [e.seq for e in ledger.events(intent_id)] == [1, 2, 3]
    assert [e.seq for e in ledger.events(intent_id, since=1)] == [2, 3]
    assert [e.seq for e in ledger.events(intent_id, since=1, limit=1)] == [2]
    assert ledger.events(intent_id, since=3) == []


def test_dead_letters_are_paged_newest_first(ledger: SqlLedger) -> None:
    """All, or those in one state."""
    intent_id = submitted(ledger).intent.id
    letters = [
        DeadLetter(id=uuid7(), kind="leg", intent_id=intent_id, code="x", reason=str(n), at=ledger.now())
        for n in range(5)
    ]
    ledger.commit(Change(dead=tuple(letters)))
    ledger.commit(Change(closes=((letters[4].id, "DISCARDED", None, "ana", None),)))

    assert ledger.dead_letters("OPEN", None, 3) == [letters[3], letters[2], letters[1]]
    assert ledger.dead_letters("OPEN", letters[1].id, 3) == [letters[0]]
    assert [x.id for x in ledger.dead_letters(None, None, 10)] == [x.id for x in reversed(letters)]
    assert ledger.dead_letter(letters[0].id) == letters[0]


# -- what the sweep asks ---------------------------------------------------------------------------


def test_due_waits_and_deadlines_are_told_earliest_first(clock: MovedClock, ledger_url: str) -> None:
    """Open ones only, and only so many."""
    ledger = SqlLedger(ledger_url, clock=clock)
    now = clock.now
    third, first, second = (waiting(ledger, timeout_at=now + timedelta(seconds=s)) for s in (3, 1, 2))
    closed = waiting(ledger, timeout_at=now)
    ledger.commit(ledgers.answered(ledger, closed.id))
    late = submitted(ledger, deadline_at=now + timedelta(seconds=1)).intent
    gone = submitted(ledger, deadline_at=now).intent
    ledger.commit(ledgers.canceled(ledger, gone.id))

    until = now + timedelta(seconds=2)
    assert ledger.due_waits(until, 10) == [
        Timer("wait", w.id, now + timedelta(seconds=s)) for w, s in ((first, 1), (second, 2))
    ]
    assert [t.id for t in ledger.due_waits(until, 1)] == [first.id]
    assert third.id in [t.id for t in ledger.due_waits(now + timedelta(days=1), 10)]
    assert ledger.due_intents(until, 10) == [Timer("intent", late.id, now + timedelta(seconds=1))]
    ledger.close()


def test_running_tells_which_leases_are_still_of_the_running_run(ledger: SqlLedger) -> None:
    """Another run, another status, an unknown leg: not among them."""
    one, two, queued = running(ledger).leg, running(ledger).leg, submitted(ledger).leg
    asked = [Lease(one.id, 1), Lease(two.id, 2), Lease(queued.id, 1), Lease("x", 1)]

    assert ledger.running(asked, 10) == [Lease(one.id, 1)]
    assert set(ledger.running(None, 10)) == {Lease(one.id, 1), Lease(two.id, 1)}
    assert len(ledger.running(None, 1)) == 1
    assert ledger.running([], 10) == []


def test_pages_are_told_which_intents_are_parked_and_which_legs_start_later(ledger: SqlLedger) -> None:
    """Of many intents at once; a leg that a worker has, or that may start now, does not start later."""
    on = ledgers.occasion(ledger)
    parked, later, now = ledgers.running(ledger), new_intent(ledger), new_intent(ledger)
    ledger.commit(lifecycle.park(parked.intent, parked.leg, code="drift", reason="it changed", on=on))
    at = on.now + timedelta(hours=1)
    ledger.commit(replace(later, outbox=(replace(later.outbox[0], next_at=at),)), now)
    assert later.intent is not None and now.intent is not None

    assert ledger.views.parked([parked.intent.id, later.intent.id]) == {parked.intent.id}
    assert ledger.views.parked([]) == set()
    assert ledger.views.starts(later.intent.id, on.now) == {later.legs[0][1].id: at}
    assert ledger.views.starts(later.intent.id, at) == {}
    assert ledger.views.starts(now.intent.id, ledger.now(fresh=True)) == {}


def test_pages_are_told_of_the_steps_of_some_legs_and_their_values_only_where_these_are_short(
    ledger: SqlLedger,
) -> None:
    """However much a step gave, a page of it stays small."""
    one, other = running(ledger), running(ledger)
    long, short = f'"{"é" * 98}"', '"é"'
    ledger.commit(step_done(one.leg.id, "fetch", value=long))
    ledger.commit(step_done(one.leg.id, "fetch", nth=2, value=short))
    ledger.commit(step_done(other.leg.id, "fetch", value="1"))

    first, second = marks = ledger.views.steps([one.leg.id])
    of_all = ledger.views.steps([other.leg.id, one.leg.id])

    assert [(mark.name, mark.nth, mark.run, mark.recorded) for mark in marks] == [
        ("fetch", 1, 1, Recorded.DONE), ("fetch", 2, 1, Recorded.DONE),
    ]  # fmt: skip
    assert sorted(mark.leg_id for mark in of_all) == sorted([one.leg.id, one.leg.id, other.leg.id])
    assert ledger.views.steps([]) == []
    assert ledger.views.count_steps(one.intent.id) == 2
    assert ledger.views.step_values([second, first], 99) == [(short, 3), (None, 100)]
    assert ledger.views.step_values([first], 100) == [(long, 100)]
    assert ledger.views.step_values([replace(first, nth=3)], 100) == [("null", 0)]
    assert ledger.views.step_values([], 100) == []


def test_legs_nobody_started_are_found_when_their_message_has_left_the_outbox(
    clock: MovedClock, ledger_url: str
) -> None:
    """What is still in the outbox is not lost yet; what was claimed is not lost either."""
    ledger = SqlLedger(ledger_url, clock=clock)
    lost, pending, claimed = (new_intent(ledger) for _ in range(3))
    ledger.commit(lost, pending, claimed)
    ledger.outbox_settle([lost.outbox[0].id, claimed.outbox[0].id])
    ledger.commit(ledgers.claim(ledger, claimed.legs[0][1].id))

    assert ledger.unstarted_legs(clock.now + timedelta(seconds=599), 10) == []
    found = ledger.unstarted_legs(clock.now + timedelta(seconds=600), 10)
    assert [leg.id for leg in found] == [lost.legs[0][1].id]
    ledger.close()


def test_early_answers_are_kept_once_and_found_when_their_wait_opens(ledger: SqlLedger) -> None:
    """The first one stays; it is unmatched until a wait has it."""
    first = EarlyAnswer(tool="t", job_id="j", answer="completed:1", at=ledger.now())
    ledger.commit(Change(early=(first,)))
    ledger.commit(Change(early=(replace(first, answer="completed:2"),)))
    assert ledger.early_answer("t", "j") == first
    assert ledger.unmatched_early_answers(10) == []

    wait = waiting(ledger, kind=WaitKind.TOOL, tool="t", job_id="j", to=())
    assert ledger.unmatched_early_answers(10) == [first]

    record = ledger.tool_wait("t", "j")
    assert record is not None
    change = lifecycle.answer(record, outcome="completed", by="t", data="1", on=occasion(ledger))
    ledger.commit(replace(change, early=(replace(first, wait_id=wait.id),)))
    assert ledger.unmatched_early_answers(10) == []
    assert ledger.early_answer("t", "j") == replace(first, wait_id=wait.id)


def test_pruning_takes_everything_of_what_ended_long_ago_and_nothing_else(clock: MovedClock, ledger_url: str) -> None:
    """What is open, has something to send, or an open dead letter, stays; the rest goes from every table."""
    ledger = SqlLedger(ledger_url, clock=clock)

    def ended() -> str:
        wait = waiting(ledger)
        ledger.commit(ledgers.answered(ledger, wait.id))
        ledger.commit(ledgers.claim(ledger, wait.leg_id, 2))
        ledger.commit(step_done(wait.leg_id, run=2))
        ledger.commit(ledgers.completed(ledger, wait.leg_id))
        return wait.intent_id

    old, unsent, lettered = ended(), ended(), ended()
    still_open = submitted(ledger, tags=("t",)).intent.id
    clock.pass_seconds(10)
    everything_due = [d for d in ledger.outbox_due(clock.now + timedelta(hours=1), 100, 1) if d.intent_id != unsent]
    ledger.outbox_settle([d.id for d in everything_due])
    letter = DeadLetter(id=uuid7(), kind="leg", intent_id=lettered, code="x", reason="y", at=clock.now)
    ledger.commit(Change(dead=(letter,)))
    clock.pass_seconds(3600)
    recent = ended()

    found = ledger.prunable(clock.now - timedelta(minutes=1), 10)
    assert [one.id for one in found] == [old]
    assert ledger.count_prunable(clock.now - timedelta(minutes=1)) == 1

    assert ledger.prune([old]) == 1

    assert ledger.prune([old]) == ledger.prune([]) == 0
    assert everything(ledger, old) == ledgers.Everything(None, [], [], [], [])
    with ledger.engines.durable.connect() as connection:
        left = {
            table.name: connection.scalar(text(f"SELECT count(*) FROM {table.name} WHERE intent_id = :id"), {"id": old})
            for table in tables.metadata.sorted_tables
            if "intent_id" in table.c
        }
        owners = connection.scalar(text("SELECT count(*) FROM axme_wait_owners"))
        checkpoints = connection.scalar(text("SELECT count(*) FROM axme_checkpoints"))
    assert left
    assert set(left.values()) == {0}
    assert (owners, checkpoints) == (6, 3), "each wait is in its assignee's inbox and in everybody's"
    for kept in (unsent, lettered, still_open, recent):
        assert ledger.events(kept)
    ledger.close()


# -- clocks ------------------------------------------------------------------------------------


def test_the_ledgers_clock_is_never_ahead_of_the_databases() -> None:
    """However long the answer took; and it is carried on by the monotonic clock for a while, then asked again."""
    database = datetime(2026, 10, 5, tzinfo=UTC)
    asked: list[float] = []

    def ask() -> datetime:
        asked.append(time.monotonic())
        told = database + timedelta(seconds=time.monotonic() - began)
        time.sleep(0.02)
        return told

    began = time.monotonic()
    ledger_clock = LedgerClock(ask)
    for _ in range(50):
        told = ledger_clock.now()
        assert told <= database + timedelta(seconds=time.monotonic() - began)
        time.sleep(0.001)
    assert len(asked) == 1

    ledger_clock.now(fresh=True)
    assert len(asked) == 2


def test_the_ledgers_clock_is_asked_again_when_its_answer_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five seconds by the monotonic clock; what the host's wall clock does is of no account."""
    moments = iter([10.0, 14.0, 15.5, 15.5, 16.0])
    answers = iter([datetime(2026, 10, 5, tzinfo=UTC), datetime(2026, 10, 6, tzinfo=UTC)])
    ledger_clock = LedgerClock(lambda: next(answers))
    monkeypatch.setattr("axme_celery.ledger.clock.time.monotonic", lambda: next(moments))

    assert ledger_clock.now() == datetime(2026, 10, 5, tzinfo=UTC)
    assert ledger_clock.now() == datetime(2026, 10, 5, 0, 0, 4, tzinfo=UTC)
    assert ledger_clock.now() == datetime(2026, 10, 6, tzinfo=UTC)
    assert ledger_clock.now() == datetime(2026, 10, 6, 0, 0, 0, 500_000, tzinfo=UTC)


def test_the_hosts_clock_never_goes_back(clock: MovedClock) -> None:
    """It stands still while the host's steps back."""
    host_clock = HostClock(clock)
    first = host_clock.now()
    clock.pass_seconds(-3600)
    assert host_clock.now() == host_clock.now(fresh=True) == first
    clock.pass_seconds(3601)
    assert host_clock.now() == first + timedelta(seconds=1)


def test_the_database_tells_the_time(ledger: SqlLedger) -> None:
    """Aware, UTC, and about now."""
    told = ledger.now(fresh=True)
    assert told.tzinfo is UTC
    assert abs(told - datetime.now(UTC)) < timedelta(seconds=2)


# -- transactions are transactions ---------------------------------------------------------------


def test_a_pooled_connection_is_as_it_came_after_every_use(ledger: SqlLedger) -> None:
    """The driver's autocommit is switched for the hot path; SQLAlchemy's transactions must still be some afterwards."""
    record = running(ledger)
    ledger.commit(step_done(record.leg.id))
    ledger.outbox_due(ledger.now(), 10, 1)
    with pytest.raises(StaleChange):
        ledger.commit(step_done(record.leg.id, run=9))
    make_theirs(ledger)

    for _ in range(8):
        with ledger.engines.durable.connect() as connection:
            connection.execute(text("INSERT INTO theirs VALUES ('rolled back')"))
            connection.rollback()
        ledger.commit(step_done(record.leg.id, "other", nth=_ + 1))

    assert their_rows(ledger) == []


def test_reading_on_sqlite_takes_no_lock(tmp_path: Path) -> None:
    """While another writes, everything can be read, and no transaction is left open by it."""
    ledger = SqlLedger(f"sqlite:///{tmp_path}/ledger.db")
    wait = waiting(ledger)
    begun: list[str] = []

    @event.listens_for(ledger.engines.durable, "before_cursor_execute")
    def note(_c, _cursor, statement, *_):  # type: ignore[no-untyped-def]
        begun.append(statement)

    other = create_engine(f"sqlite:///{tmp_path}/ledger.db")
    with other.connect() as writer:
        writer.exec_driver_sql("BEGIN IMMEDIATE")
        began = time.monotonic()
        assert ledger.intents({}, None, 10)
        assert ledger.inbox(["ana"], None, 10)
        assert ledger.wait(wait.id)
        assert ledger.leg_record(wait.leg_id)
        assert ledger.due_waits(ledger.now() + timedelta(days=9), 10)
        assert ledger.health().open_intents == 1
        assert time.monotonic() - began < 5
        writer.rollback()
    assert not [one for one in begun if "BEGIN" in one]
    with ledger.engines.borrow() as driver:
        assert driver.is_idle
    other.dispose()
    ledger.close()


def test_a_claim_does_not_wait_for_the_disk(postgres_ledger: SqlLedger) -> None:
    """Losing it in a crash of the database harms nothing; a submit and an end of a leg do wait."""
    ledger = postgres_ledger
    # What the database itself finds set at each commit.
    with ledger.engines.durable.begin() as connection:
        for statement in (
            "CREATE TABLE seen (n serial, setting text)",
            "CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " INSERT INTO seen (setting) VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$",
            "CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT OR UPDATE ON axme_legs"
            " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION see()",
        ):
            connection.exec_driver_sql(statement)
    record = submitted(ledger)
    ledger.commit(ledgers.claim(ledger, record.leg.id))
    ledger.commit(ledgers.completed(ledger, record.leg.id))
    with ledger.engines.durable.connect() as connection:
        seen = list(connection.scalars(text("SELECT setting FROM seen ORDER BY n")))
    assert seen == ["on", "off", "on"]
    with ledger.engines.borrow() as driver:
        query = Prepared(text("SELECT 1"), is_sqlite=False)
        row: Row = {}
        assert driver.run(query, [row]) == 1
        assert driver._connection.execute("SHOW synchronous_commit").fetchone()[0] == "on"


# -- the URL -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "words"),
    [("mysql://x/y", "runs on postgresql"), ("nonsense", "not a database URL"), ("oracle://x", "'oracle'")],
)
def test_a_url_that_is_no_ledgers_is_refused(url: str, words: str) -> None:
    with pytest.raises(BadSetting, match=re.escape(words)):
        SqlLedger(url)


def test_other_names_of_postgresql_are_understood() -> None:
    """Whatever driver a URL names, ours is used, and what it says of the connection goes before what we would say."""
    for url in ("postgresql://u@h/d", "postgresql+psycopg2://u@h/d"):
        assert SqlLedger(url).engines.url.get_driver_name() == "psycopg"


def test_a_database_that_is_away_is_a_clear_error(tmp_path: Path) -> None:
    """Refused, or in a folder that is not there: LedgerUnavailable from whatever is asked, within seconds."""
    began = time.monotonic()
    for url in ("postgresql+psycopg://postgres@127.0.0.1:1/none", f"sqlite:///{tmp_path}/nowhere/ledger.db"):
        ledger = SqlLedger(url)
        for call in (
            lambda: ledger.intent("x"),  # noqa: B023
            lambda: ledger.id,  # noqa: B023
            lambda: ledger.revision(),  # noqa: B023
            lambda: ledger.commit(Change(closes=(("x", "DISCARDED", None, None, None),))),  # noqa: B023
            lambda: ledger.outbox_settle(["x"]),  # noqa: B023
            lambda: ledger.transaction(lambda c: step_done("x").checkpoints[0], held("x")),  # noqa: B023
        ):
            with pytest.raises(LedgerUnavailable):
                call()
    assert time.monotonic() - began < 30
