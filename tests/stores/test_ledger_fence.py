"""The fence on PostgreSQL: a claim that is written but not yet committed already shuts out the run before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Connection, create_engine

from axme_celery.errors import StaleChange
from axme_celery.ledger import SqlLedger
from axme_celery.model import Checkpoint, Leg

from . import ledgers
from .ledgers import STILL_RUNNING, held, in_thread, recorded, running, step_begun, step_done

#: Long enough for a write that does not wait to be through.
MOMENT_SECONDS = 0.5


@pytest.fixture
def elsewhere(postgres_ledger_url: str) -> Iterator[Connection]:
    """A transaction of another process."""
    engine = create_engine(postgres_ledger_url)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def a_step(ledger: SqlLedger, leg: Leg) -> Callable[[], object]:
    return lambda: ledger.commit(step_done(leg.id))


def the_end_of_a_started_step(ledger: SqlLedger, leg: Leg) -> Callable[[], object]:
    ledger.commit(step_begun(leg.id, "fetch"))
    return lambda: ledger.commit(step_done(leg.id))


def a_step_in_a_transaction(ledger: SqlLedger, leg: Leg) -> Callable[[], object]:
    checkpoint = Checkpoint(leg_id=leg.id, name="fetch", nth=1, position=0, run=1, value="1")
    return lambda: ledger.transaction(lambda connection: checkpoint, held(leg.id))


@pytest.mark.parametrize("write", [a_step, the_end_of_a_started_step, a_step_in_a_transaction])
def test_a_zombie_waits_for_an_uncommitted_requeue_and_then_records_nothing(
    postgres_ledger: SqlLedger, elsewhere: Connection, write: Callable[[SqlLedger, Leg], Callable[[], object]]
) -> None:
    """A plain look at the leg would still see it running, and let the stale result in."""
    ledger = postgres_ledger
    leg = running(ledger).leg
    zombie = write(ledger, leg)
    before = tuple(ledger.checkpoints(leg.intent_id))
    ledger.commit(ledgers.lost(ledger, leg.id), connection=elsewhere)

    with in_thread(zombie) as outcome:
        assert outcome(MOMENT_SECONDS) is STILL_RUNNING
        elsewhere.commit()
        assert isinstance(outcome(10), StaleChange)

    left = recorded(ledger, leg.id)
    assert left.leg.run == 2
    assert left.checkpoints == before


@pytest.mark.parametrize("write", [a_step, the_end_of_a_started_step, a_step_in_a_transaction])
def test_a_run_goes_on_when_the_requeue_did_not_commit(
    postgres_ledger: SqlLedger, elsewhere: Connection, write: Callable[[SqlLedger, Leg], Callable[[], object]]
) -> None:
    """It waited, and then it is the running one after all."""
    ledger = postgres_ledger
    leg = running(ledger).leg
    step = write(ledger, leg)
    ledger.commit(ledgers.lost(ledger, leg.id), connection=elsewhere)

    with in_thread(step) as outcome:
        assert outcome(MOMENT_SECONDS) is STILL_RUNNING
        elsewhere.rollback()
        assert not isinstance(outcome(10), Exception)

    kept = ledger.checkpoint(leg.id, "fetch", 1)
    assert kept is not None
    assert (kept.value, kept.recorded) == ("1", "DONE")


def test_a_claim_waits_for_a_step_that_is_being_recorded(postgres_ledger: SqlLedger, elsewhere: Connection) -> None:
    """The other way round: whoever replaces a run reads everything that run recorded."""
    ledger = postgres_ledger
    leg = running(ledger).leg
    ledger.commit(step_done(leg.id), connection=elsewhere)
    lost = ledgers.lost(ledger, leg.id)

    with in_thread(lambda: ledger.commit(lost)) as outcome:
        assert outcome(MOMENT_SECONDS) is STILL_RUNNING
        elsewhere.commit()
        assert not isinstance(outcome(10), Exception)

    assert [one.name for one in recorded(ledger, leg.id).checkpoints] == ["fetch"]


def test_a_step_waits_for_no_writer_of_the_intent(postgres_ledger: SqlLedger, elsewhere: Connection) -> None:
    """A checkpoint touches no intent row: an event being written of the same intent holds no step up."""
    ledger = postgres_ledger
    record = running(ledger)
    ledger.commit(ledgers.told(ledger, record.intent.id, "ana"), connection=elsewhere)

    with in_thread(lambda: ledger.commit(step_done(record.leg.id))) as outcome:
        assert not isinstance(outcome(5), Exception)
        assert outcome(0) is not STILL_RUNNING
    elsewhere.commit()
