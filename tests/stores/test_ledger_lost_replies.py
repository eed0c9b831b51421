"""Replies that never arrive: "COMMIT failed" does not mean "not committed". Nothing is doubled, nothing is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest
from sqlalchemy import text

from axme_celery.errors import LedgerUnavailable
from axme_celery.ids import uuid7
from axme_celery.ledger import SqlLedger
from axme_celery.ledger.write import WHOLE_ROWS
from axme_celery.model import Change, Checkpoint, DeadLetter, Leg, LegStatus, WaitStatus

from . import ledgers
from .ledgers import assert_whole, held, new_intent, recorded, running, submitted, waiting
from .proxy import COMMIT, BreakingProxy, How


@dataclass(frozen=True)
class Lossy:
    """One ledger: through the proxy, and past it."""

    ledger: SqlLedger
    direct: SqlLedger
    proxy: BreakingProxy


@pytest.fixture
def lossy(postgres_ledger_url: str) -> Iterator[Lossy]:
    proxy = BreakingProxy(postgres_ledger_url)
    through, past = SqlLedger(proxy.url), SqlLedger(postgres_ledger_url)
    through.now(fresh=True)
    yield Lossy(through, past, proxy)
    through.close()
    past.close()
    proxy.close()


#: Prepares something past the proxy, and returns what to do through it, and what must be so once it returned.
Deed = Callable[[Lossy, int], tuple[Callable[[], object], Callable[[], None]]]


def a_submit(on: Lossy, n: int) -> tuple[Callable[[], object], Callable[[], None]]:
    change = new_intent(on.direct, key=f"key {n}" if n % 2 else None, tags=("lossy",))
    assert change.intent is not None
    intent_id = change.intent.id

    def check() -> None:
        assert_whole(on.direct, intent_id)
        assert len(on.direct.outbox_by_ids([change.outbox[0].id])) == 1
        assert len(on.direct.intents({}, None, 1000)) == n + 1

    return lambda: on.ledger.commit(change), check


def a_large_submit(on: Lossy, n: int) -> tuple[Callable[[], object], Callable[[], None]]:
    """More rows than are written in one statement: a transaction of several, with a COMMIT."""
    change = new_intent(on.direct, tags=tuple(f"tag {i}" for i in range(WHOLE_ROWS)))
    assert change.intent is not None
    intent_id = change.intent.id
    return lambda: on.ledger.commit(change), lambda: assert_whole(on.direct, intent_id)


def an_answer(on: Lossy, n: int) -> tuple[Callable[[], object], Callable[[], None]]:
    wait = waiting(on.direct)
    change = ledgers.answered(on.direct, wait.id)

    def check() -> None:
        assert_whole(on.direct, wait.intent_id)
        record = on.direct.wait(wait.id)
        assert record is not None
        assert (record.wait.status, record.leg.run, record.intent.seq) == (WaitStatus.ANSWERED, 2, 6)
        assert len(on.direct.outbox_by_ids([d.id for d in change.outbox])) == len(change.outbox) == 1

    return lambda: on.ledger.commit(change), check


def a_claim(on: Lossy, n: int) -> tuple[Callable[[], object], Callable[[], None]]:
    leg_id = submitted(on.direct).leg.id
    if n % 2:
        # A claim of a later run, of an intent that is in progress: no event of its own.
        ledgers.until_committed(on.direct, lambda: ledgers.claim(on.direct, leg_id))
        ledgers.until_committed(on.direct, lambda: ledgers.lost(on.direct, leg_id))
    change = ledgers.claim(on.direct, leg_id, 1 + n % 2)
    token = change.legs[0][1].token

    def check() -> None:
        record = recorded(on.direct, leg_id)
        assert (record.leg.status, record.leg.token, record.leg.attempts) == (LegStatus.RUNNING, token, 1 + n % 2)
        assert_whole(on.direct, record.intent.id)

    return lambda: on.ledger.commit(change), check


def an_end(on: Lossy, n: int) -> tuple[Callable[[], object], Callable[[], None]]:
    record = running(on.direct)
    change = ledgers.completed(on.direct, record.leg.id)

    def check() -> None:
        assert_whole(on.direct, record.intent.id)
        assert recorded(on.direct, record.leg.id).leg.status is LegStatus.DONE
        assert len(on.direct.outbox_by_ids([d.id for d in change.outbox])) == 1

    return lambda: on.ledger.commit(change), check


def a_rest(on: Lossy, n: int) -> tuple[Callable[[], object], Callable[[], None]]:
    """A leg comes to rest on its wait again: no event, and the token stays."""
    wait = waiting(on.direct)
    with on.direct.engines.durable.begin() as connection:
        connection.execute(
            text("UPDATE axme_legs SET status = 'RUNNING', attempts = 1 WHERE id = :id"), {"id": wait.leg_id}
        )
    leg = recorded(on.direct, wait.leg_id).leg
    resting = replace(leg, status=LegStatus.WAITING, attempts=0)
    return lambda: on.ledger.commit(Change(legs=((leg, resting),))), lambda: assert_whole(on.direct, wait.intent_id)


def a_discard(on: Lossy, n: int) -> tuple[Callable[[], object], Callable[[], None]]:
    intent_id = submitted(on.direct).intent.id
    letter = DeadLetter(id=uuid7(), kind="leg", intent_id=intent_id, code="x", reason="y", at=on.direct.now())
    on.direct.commit(Change(dead=(letter,)))
    change = Change(closes=((letter.id, "DISCARDED", None, "ana", None),))

    def check() -> None:
        kept = on.direct.dead_letter(letter.id)
        assert kept is not None
        assert (kept.state, kept.closed_by) == ("DISCARDED", "ana")

    return lambda: on.ledger.commit(change), check


def a_settled_outbox(on: Lossy, n: int) -> tuple[Callable[[], object], Callable[[], None]]:
    change = new_intent(on.direct)
    on.direct.commit(change)
    ids = [change.outbox[0].id]

    def check() -> None:
        assert on.direct.outbox_by_ids(ids) == []

    return lambda: on.ledger.outbox_settle(ids), check


DEEDS: list[Deed] = [a_submit, a_large_submit, an_answer, a_claim, an_end, a_rest, a_discard, a_settled_outbox]


@pytest.mark.parametrize("deed", DEEDS, ids=lambda deed: deed.__name__)
@pytest.mark.parametrize(("how", "times"), [("done", 20), ("done late", 3), ("lost", 5)])
def test_a_commit_whose_reply_is_lost_is_once_in_the_ledger(lossy: Lossy, deed: Deed, how: How, times: int) -> None:
    """Whether it was committed, or will be in a moment, or never was: the call succeeds and the ledger has it once."""
    for n in range(times):
        act, check = deed(lossy, n)
        lossy.proxy.break_at(COMMIT, how)
        act()
        check()
    assert lossy.proxy.broken == times


@pytest.mark.parametrize(("how", "times"), [("done", 25), ("done late", 3), ("lost", 5)])
def test_a_checkpoint_whose_reply_is_lost_is_once_in_the_ledger(lossy: Lossy, how: How, times: int) -> None:
    """One statement is its transaction. Prepared or not by then."""
    leg_id = running(lossy.direct).leg.id
    for n in range(1, times + 1):
        lossy.proxy.break_at(f"value {n}".encode(), how)
        lossy.ledger.commit(ledgers.step_done(leg_id, nth=n, value=f'"value {n}"'))
        lossy.ledger.commit(ledgers.step_done(leg_id, "other", nth=n))

    kept = lossy.direct.checkpoints(recorded(lossy.direct, leg_id).intent.id)
    assert lossy.proxy.broken == times
    assert sorted(one.value for one in kept if one.name == "fetch") == sorted(
        f'"value {n}"' for n in range(1, times + 1)
    )
    assert len(kept) == 2 * times


def book(on: Lossy, leg: Leg, n: int) -> Callable[[], Checkpoint]:
    """A transaction step that counts."""

    def within(connection: object) -> Checkpoint:
        connection.execute(text("INSERT INTO theirs VALUES (:leg)"), {"leg": leg.id})  # type: ignore[attr-defined]
        return Checkpoint(leg_id=leg.id, name="book", nth=1, position=0, run=1, value=str(n))

    return lambda: on.ledger.transaction(within, held(leg.id))


@pytest.mark.parametrize(("how", "times"), [("done", 20), ("done late", 3), ("lost", 5)])
def test_a_transaction_step_whose_reply_is_lost_has_happened_with_its_checkpoint_or_not_at_all(
    lossy: Lossy, how: How, times: int
) -> None:
    """What was committed is found and returned. Else it is an error, and whatever comes of it, comes whole and once."""
    with lossy.direct.engines.durable.begin() as connection:
        connection.execute(text("CREATE TABLE theirs (leg_id VARCHAR(255))"))
    for n in range(times):
        leg = running(lossy.direct).leg
        lossy.proxy.break_at(COMMIT, how)
        if how == "done":
            assert book(lossy, leg, n)().value == str(n)
        else:
            with pytest.raises(LedgerUnavailable, match="lost at the commit"):
                book(lossy, leg, n)()
        # Whoever replaces this run waits for what is still under way, and then knows.
        lossy.direct.commit(ledgers.lost(lossy.direct, leg.id))
        with lossy.direct.engines.durable.connect() as connection:
            counted = connection.scalar(text("SELECT count(*) FROM theirs WHERE leg_id = :leg"), {"leg": leg.id})
        kept = recorded(lossy.direct, leg.id).checkpoints
        assert counted == len(kept) == (0 if how == "lost" else 1)
    assert lossy.proxy.broken == times


def test_a_connection_that_breaks_before_the_commit_is_tried_again(lossy: Lossy) -> None:
    """At any statement of a transaction: the database has undone it, so it is simply done again."""
    many = tuple(f"tag {i}" for i in range(WHOLE_ROWS))
    for marker in (
        b"BEGIN ISOLATION",
        b"INSERT INTO axme_intents",
        b"INSERT INTO axme_legs",
        b"INSERT INTO axme_outbox",
    ):
        change = new_intent(lossy.direct, tags=many)
        assert change.intent is not None
        lossy.proxy.break_at(marker, "done")
        lossy.ledger.commit(change)
        assert_whole(lossy.direct, change.intent.id)
        # Back to statements that are not prepared by name, so that their words are sent again.
        lossy.ledger.close()
    assert lossy.proxy.broken == 4
    assert len(lossy.direct.intents({}, None, 10)) == 4


def test_reading_over_a_connection_that_breaks_is_tried_again(lossy: Lossy) -> None:
    """By SQLAlchemy or by the driver."""
    intent = submitted(lossy.direct).intent
    for read in (
        lambda: lossy.ledger.intent(intent.id),
        lambda: lossy.ledger.intents({}, None, 1)[0],
        lambda: lossy.ledger.leg_record(lossy.direct.legs(intent.id)[0].id).intent,  # type: ignore[union-attr]
    ):
        lossy.ledger.close()
        lossy.ledger.intent(intent.id)
        lossy.proxy.break_at(b"axme_", "done")
        assert read() == intent
    assert lossy.proxy.broken == 3


def test_a_commit_nobody_can_clear_up_says_so(lossy: Lossy) -> None:
    """The reply is lost and then the database is gone: the error says to look before trying again."""
    change = new_intent(lossy.direct)
    lossy.ledger.intent("x")
    lossy.proxy.break_at(COMMIT, "done")
    lossy.proxy.close()

    with pytest.raises(LedgerUnavailable, match="look for it before you try again"):
        lossy.ledger.commit(change)

    assert change.intent is not None
    assert_whole(lossy.direct, change.intent.id)
