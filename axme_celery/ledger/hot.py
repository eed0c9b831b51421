"""The hot path: what every leg and every step asks of the ledger, by statements compiled once."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import bindparam, select

from ..model import Checkpoint, Fence, Intent, Leg, LegRecord, Wait, WaitRecord
from . import statements
from . import tables as t
from .driver import Driver
from .query import Query, among
from .rows import columns, to_row


def record(driver: Driver, checkpoint: Checkpoint, at: datetime, fence: Fence, is_sqlite: bool) -> bool:
    """Insert a checkpoint made then; False when its claim is no longer the running one, or its key is taken.

    One round trip and one commit.
    """
    row = to_row(checkpoint)
    row["at"], row["token"] = at, fence.token
    return driver.run(statements.insert_checkpoint_of_running(is_sqlite), [row]) == 1


def intent(driver: Driver, intent_id: str, is_sqlite: bool) -> Intent | None:
    """An intent as it is."""
    return next((found for (found,) in _intent(is_sqlite).read(driver, id=intent_id)), None)


def leg_record(driver: Driver, leg_id: str, is_sqlite: bool, *, history: bool) -> LegRecord | None:
    """A leg with its intent; with ``history`` also what earlier runs recorded, if there can be any."""
    for found, leg in _leg(is_sqlite).read(driver, id=leg_id):
        if not history or not (leg.has_history or leg.run > 1):
            return LegRecord(found, leg)
        checkpoints = tuple(one for (one,) in _checkpoints(is_sqlite).read(driver, leg_id=leg_id))
        waits = tuple(one for (one,) in _waits(is_sqlite).read(driver, leg_id=leg_id))
        return LegRecord(found, leg, checkpoints, waits)
    return None


def wait_record(driver: Driver, wait_id: str, is_sqlite: bool) -> WaitRecord | None:
    """A wait with its leg and intent."""
    return next((WaitRecord(*found) for found in _wait(is_sqlite).read(driver, id=wait_id)), None)


def wait_records(driver: Driver, wait_ids: Sequence[str], is_sqlite: bool) -> list[WaitRecord]:
    """The same of many."""
    return [WaitRecord(*found) for found in _waits_among(is_sqlite).read(driver, ids=list(wait_ids))]


@functools.cache
def _intent(is_sqlite: bool) -> Query:
    return Query(select(*columns(Intent)).where(t.intents.c.id == bindparam("id")), (Intent,), is_sqlite)


@functools.cache
def _leg(is_sqlite: bool) -> Query:
    query = (
        select(*columns(Intent, "i_"), *columns(Leg, "l_"))
        .join_from(t.legs, t.intents, t.legs.c.intent_id == t.intents.c.id)
        .where(t.legs.c.id == bindparam("id"))
    )
    return Query(query, (Intent, Leg), is_sqlite)


@functools.cache
def _checkpoints(is_sqlite: bool) -> Query:
    query = select(*columns(Checkpoint)).where(t.checkpoints.c.leg_id == bindparam("leg_id"))
    return Query(query, (Checkpoint,), is_sqlite)


@functools.cache
def _waits(is_sqlite: bool) -> Query:
    return Query(select(*columns(Wait)).where(t.waits.c.leg_id == bindparam("leg_id")), (Wait,), is_sqlite)


#: Waits, each with its leg and intent.
WAIT_RECORD = (
    select(*columns(Intent, "i_"), *columns(Leg, "l_"), *columns(Wait, "w_"))
    .select_from(t.waits)
    .join(t.legs, t.legs.c.id == t.waits.c.leg_id)
    .join(t.intents, t.intents.c.id == t.waits.c.intent_id)
)


@functools.cache
def _wait(is_sqlite: bool) -> Query:
    return Query(WAIT_RECORD.where(t.waits.c.id == bindparam("id")), (Intent, Leg, Wait), is_sqlite)


@functools.cache
def _waits_among(is_sqlite: bool) -> Query:
    return Query(WAIT_RECORD.where(among(t.waits.c.id, "ids", is_sqlite)), (Intent, Leg, Wait), is_sqlite)
