"""The outbox as the relays use it: claim what is due, then remove, put back or file it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import Connection, bindparam, delete, or_, select, update

from ..model import DeadLetter, Delivery, DeliveryKind, Leg
from . import tables as t
from .rows import columns, to_record, to_row
from .write import insert_new


def take_due(c: Connection, now: datetime, until: datetime, limit: int, hold_seconds: float) -> list[Delivery]:
    """Deliveries due by ``until`` that no other relay holds, now held by the caller. In the caller's transaction."""
    query = (
        select(*columns(Delivery))
        .where(t.outbox.c.next_at <= until, or_(t.outbox.c.held_until.is_(None), t.outbox.c.held_until <= now))
        .order_by(t.outbox.c.next_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    taken = [to_record(Delivery, row) for row in c.execute(query).mappings()]
    if not taken:
        return []
    c.execute(
        update(t.outbox)
        .where(t.outbox.c.id.in_([d.id for d in taken]))
        .values(held_until=until + timedelta(seconds=hold_seconds))
    )
    return _with_legs(c, taken)


def by_ids(c: Connection, delivery_ids: Sequence[str]) -> list[Delivery]:
    """These deliveries, as far as they (still, or already) exist."""
    rows = c.execute(select(*columns(Delivery)).where(t.outbox.c.id.in_(delivery_ids))).mappings()
    return _with_legs(c, [to_record(Delivery, row) for row in rows])


def settle(
    c: Connection,
    sent: Sequence[str],
    failed: Sequence[Delivery],
    dead: Sequence[tuple[Delivery, DeadLetter]],
) -> None:
    """Remove what was sent, put back what failed, file what ran out of tries."""
    gone = [*sent, *(delivery.id for delivery, _ in dead)]
    if gone:
        c.execute(delete(t.outbox).where(t.outbox.c.id.in_(sorted(gone))))
    if failed:
        put_back = update(t.outbox).where(t.outbox.c.id == bindparam("of_id")).values(
            next_at=bindparam("at"), attempts=bindparam("tries"), last_error=bindparam("why"), held_until=None
        )  # fmt: skip
        ordered = sorted(failed, key=lambda d: d.id)
        c.execute(
            put_back, [{"of_id": d.id, "at": d.next_at, "tries": d.attempts, "why": d.last_error} for d in ordered]
        )
    if dead:
        c.execute(insert_new(c, t.dead_letters), [to_row(letter) for _, letter in dead])


def _with_legs(c: Connection, deliveries: list[Delivery]) -> list[Delivery]:

    wanted = {d.leg_id for d in deliveries if d.leg_id and d.kind in (DeliveryKind.LEG, DeliveryKind.RESULT)}
    if not wanted:
        return deliveries
    rows = c.execute(select(*columns(Leg)).where(t.legs.c.id.in_(wanted))).mappings()
    legs = {leg.id: leg for leg in (to_record(Leg, row) for row in rows)}
    return [replace(d, leg=legs.get(d.leg_id)) if d.leg_id else d for d in deliveries]
