"""Everything the verbs and doors ask of the ledger. Reads take no lock and hold no transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, exists, func, literal_column, or_, select, tuple_

from ..model import (
    Checkpoint,
    DeadLetter,
    EarlyAnswer,
    Event,
    Intent,
    JsonDict,
    Lease,
    Leg,
    Timer,
    Wait,
    WaitRecord,
    WaitStatus,
)
from . import tables as t
from . import tables_hooks as th
from .hot import WAIT_RECORD
from .rows import columns, to_record

# Literal, not bound: the small partial indexes are of use only to a plan that knows the value.
_OPEN: ColumnElement[str] = literal_column("'OPEN'")
_HUMAN: ColumnElement[str] = literal_column("'HUMAN'")
_RUNNING: ColumnElement[str] = literal_column("'RUNNING'")
_QUEUED: ColumnElement[str] = literal_column("'QUEUED'")


def _one(connection: Connection, kind: type[Any], query: Select[Any]) -> Any:
    row = connection.execute(query).mappings().first()
    return None if row is None else to_record(kind, row)


def _all(connection: Connection, kind: type[Any], query: Select[Any]) -> list[Any]:
    return [to_record(kind, row) for row in connection.execute(query).mappings()]


def intent_by_key(c: Connection, key: str) -> Intent | None:
    found: Intent | None = _one(c, Intent, select(*columns(Intent)).where(t.intents.c.key == key))
    return found


def intent_of_leg(c: Connection, leg_id: str) -> Intent | None:
    of_leg = select(t.legs.c.intent_id).where(t.legs.c.id == leg_id).scalar_subquery()
    found: Intent | None = _one(c, Intent, select(*columns(Intent)).where(t.intents.c.id == of_leg))
    return found


#: What ``intents`` may be filtered by, besides ``tag`` and ``text``.
FILTERS = ("status", "type", "waiting_reason", "key", "requester", "correlation_id", "replay_of",
    "owner", "to_agent", "from_agent", "handler")  # fmt: skip


def intents(c: Connection, filters: JsonDict, after: tuple[datetime, str] | None, limit: int) -> list[Intent]:
    """Newest first; ``after`` is the (created_at, id) of the last one seen."""
    query = intents_query(filters)
    if after is not None:
        query = query.where(tuple_(t.intents.c.created_at, t.intents.c.id) < tuple_(*after))
    query = query.order_by(t.intents.c.created_at.desc(), t.intents.c.id.desc()).limit(limit)
    return _all(c, Intent, query)


def intents_query(filters: JsonDict) -> Select[Any]:
    """Intents that pass these filters, in no order yet."""
    query = select(*columns(Intent))
    for name in FILTERS:
        wanted = filters.get(name)
        if wanted is None:
            continue
        column = t.intents.c[name]
        query = query.where(column.in_(wanted) if isinstance(wanted, list | tuple | set) else column == wanted)
    if filters.get("tag") is not None:
        tagged = and_(t.tags.c.tag == filters["tag"], t.tags.c.intent_id == t.intents.c.id)
        query = query.where(exists().where(tagged))
    if filters.get("created_since") is not None:
        query = query.where(t.intents.c.created_at >= filters["created_since"])
    if filters.get("created_before") is not None:
        query = query.where(t.intents.c.created_at <= filters["created_before"])
    return query


def legs(c: Connection, intent_id: str, limit: int | None = None) -> list[Leg]:
    query = select(*columns(Leg)).where(t.legs.c.intent_id == intent_id).limit(limit)
    return _all(c, Leg, query.order_by(t.legs.c.created_at, t.legs.c.position, t.legs.c.id))


def checkpoints(c: Connection, intent_id: str) -> list[Checkpoint]:
    query = (
        select(*columns(Checkpoint))
        .join(t.legs, t.legs.c.id == t.checkpoints.c.leg_id)
        .where(t.legs.c.intent_id == intent_id)
        .order_by(t.checkpoints.c.leg_id, t.checkpoints.c.position)
    )
    return _all(c, Checkpoint, query)


def checkpoint(c: Connection, leg_id: str, name: str, nth: int) -> Checkpoint | None:
    key = (t.checkpoints.c.leg_id == leg_id, t.checkpoints.c.name == name, t.checkpoints.c.nth == nth)
    found: Checkpoint | None = _one(c, Checkpoint, select(*columns(Checkpoint)).where(*key))
    return found


def waits(c: Connection, intent_id: str) -> list[Wait]:
    return _all(
        c,
        Wait,
        select(*columns(Wait)).where(t.waits.c.intent_id == intent_id).order_by(t.waits.c.opened_at, t.waits.c.id),
    )


def tool_wait(c: Connection, tool: str, job_id: str) -> WaitRecord | None:
    """The wait of a tool's job: the open one, else the last that was."""
    query = WAIT_RECORD.where(t.waits.c.tool == tool, t.waits.c.job_id == job_id)
    found = [
        WaitRecord(to_record(Intent, row, "i_"), to_record(Leg, row, "l_"), to_record(Wait, row, "w_"))
        for row in c.execute(query.order_by(t.waits.c.opened_at.desc()).limit(20)).mappings()
    ]
    return next((r for r in found if r.wait.status is WaitStatus.OPEN), found[0] if found else None)


def early_answer(c: Connection, tool: str, job_id: str) -> EarlyAnswer | None:
    key = (t.early_answers.c.tool == tool, t.early_answers.c.job_id == job_id)
    found: EarlyAnswer | None = _one(c, EarlyAnswer, select(*columns(EarlyAnswer)).where(*key))
    return found


def unmatched_early_answers(c: Connection, limit: int) -> list[EarlyAnswer]:
    """Early answers whose wait is open by now."""
    open_wait = and_(
        t.waits.c.tool == t.early_answers.c.tool,
        t.waits.c.job_id == t.early_answers.c.job_id,
        t.waits.c.status == _OPEN,
    )
    query = select(*columns(EarlyAnswer)).where(t.early_answers.c.wait_id.is_(None), exists().where(open_wait))
    return _all(c, EarlyAnswer, query.limit(limit))


def events(c: Connection, intent_id: str, since: int, limit: int) -> list[Event]:
    query = select(*columns(Event)).where(t.events.c.intent_id == intent_id, t.events.c.seq > since)
    return _all(c, Event, query.order_by(t.events.c.seq).limit(limit))


def inbox(c: Connection, owners: Sequence[str], after: tuple[datetime, str] | None, limit: int) -> list[Wait]:
    """Open human waits of these owners (of everybody, when empty), oldest first."""
    query = select(*columns(Wait)).where(t.waits.c.status == _OPEN, t.waits.c.kind == _HUMAN)
    if owners:
        mine = and_(t.wait_owners.c.wait_id == t.waits.c.id, t.wait_owners.c.owner.in_(list(owners)))
        query = query.where(exists().where(mine))
    if after is not None:
        query = query.where(tuple_(t.waits.c.opened_at, t.waits.c.id) > tuple_(*after))
    return _all(c, Wait, query.order_by(t.waits.c.opened_at, t.waits.c.id).limit(limit))


def dead_letters(c: Connection, state: str | None, after: str | None, limit: int) -> list[DeadLetter]:
    """Newest first; ``after`` is the id of the last one seen."""
    query = select(*columns(DeadLetter))
    if state is not None:
        query = query.where(t.dead_letters.c.state == state)
    if after is not None:
        query = query.where(t.dead_letters.c.id < after)
    return _all(c, DeadLetter, query.order_by(t.dead_letters.c.id.desc()).limit(limit))


def dead_letter(c: Connection, dead_letter_id: str) -> DeadLetter | None:
    query = select(*columns(DeadLetter)).where(t.dead_letters.c.id == dead_letter_id)
    found: DeadLetter | None = _one(c, DeadLetter, query)
    return found


def dead_letters_of(c: Connection, intent_id: str) -> list[DeadLetter]:
    query = select(*columns(DeadLetter)).where(t.dead_letters.c.intent_id == intent_id).order_by(t.dead_letters.c.id)
    return _all(c, DeadLetter, query)


# -- what the sweep asks ------------------------------------------------------


def due_waits(c: Connection, until: datetime, limit: int) -> list[Timer]:
    query = (
        select(t.waits.c.id, t.waits.c.due_at)
        .where(t.waits.c.status == _OPEN, t.waits.c.due_at <= until)
        .order_by(t.waits.c.due_at)
        .limit(limit)
    )
    return [Timer("wait", row.id, row.due_at) for row in c.execute(query)]


def due_intents(c: Connection, until: datetime, limit: int) -> list[Timer]:
    query = (
        select(t.intents.c.id, t.intents.c.deadline_at)
        .where(t.intents.c.ended_at.is_(None), t.intents.c.deadline_at <= until)
        .order_by(t.intents.c.deadline_at)
        .limit(limit)
    )
    return [Timer("intent", row.id, row.deadline_at) for row in c.execute(query)]


def running(c: Connection, leases: Sequence[Lease] | None, limit: int) -> list[Lease]:
    query = select(t.legs.c.id, t.legs.c.run).where(t.legs.c.status == _RUNNING)
    if leases is None:
        # An agent's lease is the leg's own due_at, and no tracker's affair.
        query = query.where(t.legs.c.due_at.is_(None))
        return [Lease(row.id, row.run) for row in c.execute(query.limit(limit))]
    wanted = {(lease.leg_id, lease.run) for lease in leases}
    found = c.execute(query.where(t.legs.c.id.in_([lease.leg_id for lease in leases])))
    return [Lease(row.id, row.run) for row in found if (row.id, row.run) in wanted]


def unstarted_legs(c: Connection, until: datetime, limit: int) -> list[Leg]:
    """QUEUED legs whose message is presumed lost, unless the outbox still holds it."""
    pending = and_(
        t.outbox.c.intent_id == t.legs.c.intent_id, t.outbox.c.leg_id == t.legs.c.id, t.outbox.c.kind == "LEG"
    )
    query = (
        select(*columns(Leg))
        .where(
            t.legs.c.status == _QUEUED,
            or_(t.legs.c.due_at.is_(None), t.legs.c.due_at <= until),
            ~exists().where(pending),
        )
        .limit(limit)
    )
    return _all(c, Leg, query)


def legs_in_chords(c: Connection, after: str | None, limit: int) -> list[Leg]:
    """Legs that have not ended and that a chord of Celery's own waits for, by id from ``after`` on."""
    query = select(*columns(Leg)).where(t.legs.c.in_chord, t.legs.c.ended_at.is_(None))
    if after is not None:
        query = query.where(t.legs.c.id > after)
    return _all(c, Leg, query.order_by(t.legs.c.id).limit(limit))


def prunable(c: Connection, ended_before: datetime, limit: int) -> list[Intent]:
    """Intents that ended long ago and still have nothing to send and no open dead letter."""
    query = select(*columns(Intent)).where(_may_go(ended_before)).order_by(t.intents.c.ended_at).limit(limit)
    return _all(c, Intent, query)


def count_prunable(c: Connection, ended_before: datetime) -> int:
    """How many ``prunable`` there are."""
    return int(c.scalar(select(func.count()).select_from(t.intents).where(_may_go(ended_before))) or 0)


def _may_go(ended_before: datetime) -> ColumnElement[bool]:
    undelivered = exists().where(t.outbox.c.intent_id == t.intents.c.id)
    open_letter = exists().where(t.dead_letters.c.intent_id == t.intents.c.id, t.dead_letters.c.state == "OPEN")
    d = th.hook_deliveries.c
    untold = exists().where(d.intent_id == t.intents.c.id, d.status == "PENDING")
    return and_(t.intents.c.ended_at < ended_before, ~undelivered, ~open_letter, ~untold)
