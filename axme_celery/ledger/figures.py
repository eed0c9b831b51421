"""The ledger's figures for whoever draws curves: how many of what there are."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Connection, func, or_, select

from ..model import FINAL, LegStatus, WaitStatus
from . import tables as t

#: Of what has ended only so much is counted: a figure must not cost more every year.
RECENT = timedelta(days=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """Counts, and ages in seconds, by the ledger's clock."""

    #: By status; of the ended ones those of the last day.
    intents: dict[str, int] = field(default_factory=dict)
    #: Open ones, by kind.
    waits: dict[str, int] = field(default_factory=dict)
    outbox: dict[str, int] = field(default_factory=dict)
    outbox_lag_seconds: float = 0.0
    overdue_seconds: float = 0.0
    oldest_wait_seconds: float = 0.0
    parked_legs: int = 0
    running_legs: int = 0
    open_dead_letters: int = 0


def figures(c: Connection, now: datetime) -> Figures:
    """The figures at ``now``, which is the ledger's."""
    intents, waits, legs, outbox = t.intents.c, t.waits.c, t.legs.c, t.outbox.c
    is_open = waits.status == WaitStatus.OPEN.value
    is_counted = or_(intents.ended_at.is_(None), intents.ended_at >= now - RECENT)
    by_status = select(intents.status, func.count()).where(is_counted).group_by(intents.status)
    by_kind = select(waits.kind, func.count()).where(is_open).group_by(waits.kind)
    queued = select(outbox.kind, func.count()).group_by(outbox.kind)
    ended = {status.value for status in FINAL}

    def counted(query: object, zeros: set[str] | frozenset[str] = frozenset()) -> dict[str, int]:
        found = {str(row[0]): int(row[1]) for row in c.execute(query)}  # type: ignore[call-overload]
        return {**dict.fromkeys(zeros, 0), **found}

    def late(moment: datetime | None) -> float:
        return max(0.0, (now - moment).total_seconds()) if moment is not None else 0.0

    def number(status: LegStatus) -> int:
        return int(c.scalar(select(func.count()).select_from(t.legs).where(legs.status == status.value)) or 0)

    letters = select(func.count()).select_from(t.dead_letters).where(t.dead_letters.c.state == "OPEN")
    return Figures(
        intents=counted(by_status, ended),
        waits=counted(by_kind, {"HUMAN", "TOOL", "AGENT", "TIME"}),
        outbox=counted(queued),
        outbox_lag_seconds=late(c.scalar(select(func.min(outbox.next_at)))),
        overdue_seconds=max(
            late(c.scalar(select(func.min(waits.due_at)).where(is_open))),
            late(c.scalar(select(func.min(intents.deadline_at)).where(intents.ended_at.is_(None)))),
        ),
        oldest_wait_seconds=late(c.scalar(select(func.min(waits.opened_at)).where(is_open))),
        parked_legs=number(LegStatus.PARKED),
        running_legs=number(LegStatus.RUNNING),
        open_dead_letters=int(c.scalar(letters) or 0),
    )
