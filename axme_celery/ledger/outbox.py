"""The outbox as the relays use it: take what is due, then remove, put back or file it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import Connection, bindparam, or_, select

from ..model import DeadLetter, Delivery, DeliveryKind, Leg
from . import tables as t
from .driver import Driver
from .query import Query
from .rows import columns, to_record, to_row
from .write import Sheet

#: Ids in one ``IN``: databases bind only so many values.
_MANY = 1000


def take_due(
    driver: Driver, now: datetime, until: datetime, limit: int, hold_seconds: float, is_sqlite: bool
) -> list[Delivery]:
    """Deliveries due by ``until`` that no other relay holds; in a transaction, at whose commit the caller holds them."""
    taken: list[Delivery] = [found for (found,) in _due(is_sqlite).read(driver, now=now, until=until, limit=limit)]
    if taken:
        sheet, held_until = Sheet(is_sqlite), until + timedelta(seconds=hold_seconds)
        for delivery in taken:
            sheet.update(t.outbox, {"held_until": held_until}, {"id": delivery.id})
        sheet.write(driver)
    return taken


def settle(
    sent: Sequence[str], failed: Sequence[Delivery], dead: Sequence[tuple[Delivery, DeadLetter]], is_sqlite: bool
) -> Sheet:
    """Remove what was sent, put back what failed, file what ran out of tries. Harmless to repeat."""
    sheet = Sheet(is_sqlite)
    sheet.delete_all(t.outbox, [*sent, *(delivery.id for delivery, _ in dead)])
    for delivery in sorted(failed, key=lambda one: one.id):
        tried = {"next_at": delivery.next_at, "attempts": delivery.attempts, "last_error": delivery.last_error}
        sheet.update(t.outbox, {**tried, "held_until": None}, {"id": delivery.id})
    for _, letter in dead:
        sheet.insert_new(t.dead_letters, to_row(letter))
    return sheet


def by_ids(c: Connection, delivery_ids: Sequence[str]) -> list[Delivery]:
    """These deliveries, as far as they (still, or already) exist."""
    found: list[Delivery] = []
    for start in range(0, len(delivery_ids), _MANY):
        query = select(*columns(Delivery)).where(t.outbox.c.id.in_(delivery_ids[start : start + _MANY]))
        found += [to_record(Delivery, row) for row in c.execute(query).mappings()]
    return with_legs(c, found)


def with_legs(c: Connection, deliveries: Sequence[Delivery]) -> list[Delivery]:
    """The same deliveries with the legs they are to publish, as those are now."""
    wanted = sorted({d.leg_id for d in deliveries if d.leg_id and d.kind in (DeliveryKind.LEG, DeliveryKind.RESULT)})
    legs: dict[str, Leg] = {}
    for start in range(0, len(wanted), _MANY):
        query = select(*columns(Leg)).where(t.legs.c.id.in_(wanted[start : start + _MANY]))
        legs |= {row["id"]: to_record(Leg, row) for row in c.execute(query).mappings()}
    return [replace(d, leg=legs.get(d.leg_id)) if d.leg_id else d for d in deliveries]


@functools.cache
def _due(is_sqlite: bool) -> Query:
    c = t.outbox.c
    query = (
        select(*columns(Delivery))
        .where(c.next_at <= bindparam("until"), or_(c.held_until.is_(None), c.held_until <= bindparam("now")))
        .order_by(c.next_at)
        .limit(bindparam("limit"))
        .with_for_update(skip_locked=True)
    )
    return Query(query, (Delivery,), is_sqlite)
