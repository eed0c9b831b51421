"""The ledger's figures at one moment: what is late, what is stuck, how long waits last, who works on it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Table, func, select

from ..model import LegStatus, WaitStatus
from ..parties import SCHEME
from . import tables as t

#: The hosts that work here are read from the legs of this many intents, the newest.
RECENT = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Health:
    """Ages are seconds, by the ledger's clock."""

    open_intents: int = 0
    #: How late the most overdue timer (of a wait, or an intent's deadline) is; 0 when none is due.
    overdue_seconds: float = 0.0
    #: Deliveries that are due, and how late the first of them is.
    outbox_due: int = 0
    outbox_lag_seconds: float = 0.0
    parked_legs: int = 0
    open_dead_letters: int = 0
    #: The longest time between opening and timeout of an open wait; without a timeout, the time it is open already.
    longest_wait_seconds: float = 0.0
    #: Hosts that ran legs of the newest intents.
    hosts: tuple[str, ...] = ()


def health(c: Connection, now: datetime) -> Health:
    """The figures at ``now``, which is the ledger's."""

    def count(table: Table, *where: ColumnElement[bool]) -> int:
        return int(c.scalar(select(func.count()).select_from(table).where(*where)) or 0)

    def late(moment: datetime | None) -> float:
        return max(0.0, (now - moment).total_seconds()) if moment is not None else 0.0

    waits, intents = t.waits.c, t.intents.c
    is_open = waits.status == WaitStatus.OPEN.value
    first_due = c.scalar(select(func.min(waits.due_at)).where(is_open, waits.due_at <= now))
    first_deadline = c.scalar(
        select(func.min(intents.deadline_at)).where(intents.ended_at.is_(None), intents.deadline_at <= now)
    )
    first_delivery = c.scalar(select(func.min(t.outbox.c.next_at)).where(t.outbox.c.next_at <= now))
    longest = c.execute(
        select(waits.opened_at, waits.timeout_at).where(is_open, waits.timeout_at.is_not(None))
        .order_by(waits.timeout_at.desc()).limit(1)
    ).first()  # fmt: skip
    oldest = c.scalar(select(func.min(waits.opened_at)).where(is_open))
    newest = select(intents.id).order_by(intents.created_at.desc()).limit(RECENT)
    workers = c.scalars(
        select(t.legs.c.worker)
        # Agents outside Celery work elsewhere.
        .where(
            t.legs.c.intent_id.in_(newest),
            t.legs.c.worker.is_not(None),
            t.legs.c.task.not_like(f"{SCHEME}%"),
        )
        .distinct()
    )
    return Health(
        open_intents=count(t.intents, intents.ended_at.is_(None)),
        overdue_seconds=max(late(first_due), late(first_deadline)),
        outbox_due=count(t.outbox, t.outbox.c.next_at <= now),
        outbox_lag_seconds=late(first_delivery),
        parked_legs=count(t.legs, t.legs.c.status == LegStatus.PARKED.value),
        open_dead_letters=count(t.dead_letters, t.dead_letters.c.state == "OPEN"),
        longest_wait_seconds=max(
            late(oldest), 0.0 if longest is None else (longest.timeout_at - longest.opened_at).total_seconds()
        ),
        hosts=tuple(sorted({name.rpartition(":")[0] for name in workers})),
    )
