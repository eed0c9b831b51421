"""What one ``Change`` writes, and how to recognise that it was written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from .. import audit
from ..errors import StaleChange
from ..model import Change, Checkpoint, Delivery, Event, Intent, Leg, LegStatus, Wait
from . import tables
from .rows import changed, to_row

#: A delivery due within this is sent by the process that committed it; the others are the sweep's.
OWN_SECONDS = 3.0
#: How long the sweep leaves the committing process alone with its delivery.
HOLD_SECONDS = 5.0


@dataclass(frozen=True)
class Sealed:
    """A change with its events hashed: the same bytes at every try, so that a lost reply can be cleared up."""

    change: Change
    events: tuple[Event, ...]


def seal(change: Change, key: bytes | None) -> Sealed:
    """Put the change's events into the intent's audit chain."""
    head = change.was.head_hash if change.was is not None else audit.GENESIS
    events = audit.seal_all(change.events, head, key)
    if events and change.intent is not None:
        change = replace(change, intent=replace(change.intent, head_hash=events[-1].hash))
    return Sealed(change, events)


def write(connection: Connection, sealed: Sealed, now: datetime, *, own: bool) -> None:
    """Write a change, or raise StaleChange: the caller rolls back.

    Locks are taken in one order everywhere (intent, legs, waits), so that two writers never wait for each other.
    ``own``: this process will send what is due at once.
    """
    change = sealed.change
    _write_intent(connection, change)
    _write_legs(connection, change)
    _write_waits(connection, change)
    if change.fence is not None:
        hold_run(connection, *change.fence)
    if sealed.events:
        connection.execute(insert(tables.events), [to_row(e) for e in sealed.events])
    if change.checkpoints:
        connection.execute(insert(tables.checkpoints), [to_row(c) for c in change.checkpoints])
    if change.outbox:
        rows = [_outbox_row(d, now, own=own) for d in change.outbox]
        connection.execute(insert_new(connection, tables.outbox), rows)
    if change.early:
        _write_early(connection, change)
    if change.dead:
        connection.execute(insert_new(connection, tables.dead_letters), [to_row(d) for d in change.dead])
    for dead_letter_id, state, replayed_as, closed_by in change.closes:
        done = connection.execute(
            update(tables.dead_letters)
            .where(tables.dead_letters.c.id == dead_letter_id, tables.dead_letters.c.state == "OPEN")
            .values(state=state, replayed_as=replayed_as, closed_by=closed_by, closed_at=now)
        )
        if done.rowcount != 1:
            raise StaleChange(f"dead letter {dead_letter_id} is no longer open")


def landed(connection: Connection, sealed: Sealed) -> bool:
    """Whether this very change is in the ledger, asked after a COMMIT whose reply was lost."""
    change = sealed.change
    if sealed.events:
        last = sealed.events[-1]
        found = connection.scalar(
            select(tables.events.c.hash).where(
                tables.events.c.intent_id == last.intent_id, tables.events.c.seq == last.seq
            )
        )
        return bool(found == last.hash)
    for was, leg in change.legs:
        if was is None or leg.token == was.token:
            continue
        token = connection.scalar(select(tables.legs.c.token).where(tables.legs.c.id == leg.id))
        return bool(token == leg.token)
    # The rest (heartbeats, resends, early answers) may simply be written again.
    return False


def hold_run(connection: Connection, leg_id: str, run: int) -> None:
    """Lock the leg's row while this run still is the running one.

    FOR UPDATE, because a plain read would pass while the next claim is written but not yet committed.
    """
    held = connection.scalar(
        select(tables.legs.c.run)
        .where(tables.legs.c.id == leg_id, tables.legs.c.run == run, tables.legs.c.status == LegStatus.RUNNING.value)
        .with_for_update()
    )
    if held is None:
        raise StaleChange(f"run {run} of leg {leg_id} is not the running one any more")


def insert_checkpoint(connection: Connection, checkpoint: Checkpoint) -> None:
    """Insert a checkpoint, or complete the STARTED marker that stands in its place."""
    statement = _insert(connection, tables.checkpoints)
    statement = statement.on_conflict_do_update(
        index_elements=["leg_id", "name", "nth"],
        set_={"recorded": statement.excluded.recorded, "value": statement.excluded.value, "at": statement.excluded.at},
        where=tables.checkpoints.c.recorded == "STARTED",
    )
    connection.execute(statement, to_row(checkpoint))


def _write_intent(connection: Connection, change: Change) -> None:
    intent = change.intent
    if intent is None:
        return
    if change.was is None:
        connection.execute(insert(tables.intents), to_row(intent))
        if intent.tags:
            connection.execute(insert(tables.tags), [{"tag": t, "intent_id": intent.id} for t in intent.tags])
        return
    done = connection.execute(
        update(tables.intents)
        .where(tables.intents.c.id == intent.id, tables.intents.c.seq == change.before)
        .values(_changed(change.was, intent))
    )
    if done.rowcount != 1:
        raise StaleChange(f"intent {intent.id} has moved on from seq {change.before}")


def _write_legs(connection: Connection, change: Change) -> None:
    for was, leg in change.legs:
        if was is None:
            connection.execute(insert(tables.legs), to_row(leg))
            continue
        done = connection.execute(
            update(tables.legs)
            .where(tables.legs.c.id == leg.id, tables.legs.c.status == was.status.value, tables.legs.c.run == was.run)
            .values(_changed(was, leg))
        )
        if done.rowcount != 1:
            raise StaleChange(f"leg {leg.id} is no longer {was.status.value} at run {was.run}")


def _write_waits(connection: Connection, change: Change) -> None:
    for was, wait in change.waits:
        if was is None:
            connection.execute(insert(tables.waits), to_row(wait))
        else:
            done = connection.execute(
                update(tables.waits)
                .where(tables.waits.c.id == wait.id, tables.waits.c.status == was.status.value)
                .values(_changed(was, wait))
            )
            if done.rowcount != 1:
                raise StaleChange(f"wait {wait.id} is no longer {was.status.value}")
        added = set(wait.to) - set(was.to if was is not None else ())
        dropped = set(was.to if was is not None else ()) - set(wait.to)
        if added:
            rows = [{"owner": owner, "wait_id": wait.id} for owner in sorted(added)]
            connection.execute(insert(tables.wait_owners), rows)
        if dropped:
            connection.execute(
                delete(tables.wait_owners).where(
                    tables.wait_owners.c.wait_id == wait.id, tables.wait_owners.c.owner.in_(dropped)
                )
            )


def _changed(was: Intent | Leg | Wait, now: Intent | Leg | Wait) -> dict[str, Any]:
    """The columns to write; where nothing differs, one as it is, for the row must be found unmoved all the same."""
    return changed(was, now) or {"id": now.id}


def _write_early(connection: Connection, change: Change) -> None:
    for early in change.early:
        if early.wait_id is None:
            connection.execute(insert_new(connection, tables.early_answers), to_row(early))
        else:
            connection.execute(
                update(tables.early_answers)
                .where(tables.early_answers.c.tool == early.tool, tables.early_answers.c.job_id == early.job_id)
                .values(wait_id=early.wait_id)
            )


def _outbox_row(delivery: Delivery, now: datetime, *, own: bool) -> dict[str, Any]:
    row = to_row(delivery)
    soon = delivery.next_at <= now + timedelta(seconds=OWN_SECONDS)
    row["held_until"] = delivery.next_at + timedelta(seconds=HOLD_SECONDS) if own and soon else None
    return row


def _insert(connection: Connection, table: Any) -> Any:
    return (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(table)


def insert_new(connection: Connection, table: Any) -> Any:
    """An insert that may be repeated: what is there stays."""
    return _insert(connection, table).on_conflict_do_nothing()
