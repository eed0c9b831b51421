"""Webhooks in the ledger: subscriptions, the events they are told, and the deliveries a courier takes and settles."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, exists, func, literal_column, or_, select, tuple_
from sqlalchemy import delete as delete_from
from sqlalchemy import update as update_of

from ..hooks import HookDelivery, HookEvent, HookStatus, Parcel, Schema, Settlement, Subscription
from ..model import JsonDict
from . import tables as t
from . import tables_hooks as th
from .access import Access
from .driver import Driver, Prepared
from .query import Query
from .rows import columns, to_record, to_row
from .write import Sheet

# Literal, not bound: the partial indexes are of use only to a plan that knows the value.
_PENDING: ColumnElement[str] = literal_column("'PENDING'")
_SUBSCRIBED: ColumnElement[str] = literal_column("'subscription'")
#: Subscriptions with something due that one courier looks at in a turn.
_MOST_DUE = 200
#: Ids in one ``IN``.
_MANY = 1000


class HookStore:
    """What concerns webhooks in a ledger."""

    def __init__(self, access: Access, now: Callable[[], datetime], is_sqlite: bool) -> None:
        self._access, self._now, self._is_sqlite = access, now, is_sqlite

    # -- subscriptions ----------------------------------------------------------------

    def put(self, subscription: Subscription) -> None:
        """Add a subscription; one of this id stays as it is."""
        sheet = Sheet(self._is_sqlite)
        sheet.insert_new(th.subscriptions, to_row(subscription))
        self._access.write(sheet.write, durable=True)

    def change(self, subscription_id: str, values: JsonDict, *, end_pending: str | None = None) -> None:
        """Set columns of a subscription. ``end_pending``: give up what is pending for it, for this reason."""
        sheet = Sheet(self._is_sqlite)
        sheet.update(th.subscriptions, values, {"id": subscription_id})
        if end_pending is not None:
            self._end_pending(sheet, subscription_id, end_pending)
        self._access.write(sheet.write, durable=True)

    def subscription(self, subscription_id: str) -> Subscription | None:
        return next(iter(self.subscriptions_by_ids([subscription_id])), None)

    def subscriptions_by_ids(self, ids: Sequence[str]) -> list[Subscription]:
        query = select(*columns(Subscription)).where(th.subscriptions.c.id.in_(list(ids)))
        return self._access.ask(lambda c: _all(c, Subscription, query)) if ids else []

    def live(self) -> list[Subscription]:
        """All that are told of intents in general: subscribed and not revoked, disabled ones too."""
        s = th.subscriptions.c
        query = select(*columns(Subscription)).where(s.revoked_at.is_(None), s.kind == _SUBSCRIBED)
        return self._access.ask(lambda c: _all(c, Subscription, query))

    def subscriptions(
        self, *, owner: str | None, kind: str | None, revoked: bool, after: str | None, limit: int
    ) -> list[Subscription]:
        """Newest first. ``owner``: only theirs; None is everybody's."""
        s = th.subscriptions.c
        query = select(*columns(Subscription))
        if owner is not None:
            query = query.where(s.owner == owner)
        if kind is not None:
            query = query.where(s.kind == kind)
        if not revoked:
            query = query.where(s.revoked_at.is_(None))
        if after is not None:
            last = select(s.created_at, s.id).where(s.id == after).subquery()
            query = query.where(tuple_(s.created_at, s.id) < tuple_(last.c.created_at, last.c.id))
        query = query.order_by(s.created_at.desc(), s.id.desc()).limit(limit)
        return self._access.ask(lambda c: _all(c, Subscription, query))

    # -- events and deliveries ----------------------------------------------------------

    def record(
        self,
        *,
        subscriptions: Sequence[Subscription] = (),
        events: Sequence[HookEvent] = (),
        deliveries: Sequence[HookDelivery] = (),
        done: Sequence[str] = (),
        durable: bool = False,
    ) -> None:
        """Add these, as far as they are not there yet, and remove the outbox rows they came from, in one transaction.

        Not ``durable``: should a crash of the database undo it, the outbox rows are back and it is done again.
        """
        sheet = Sheet(self._is_sqlite)
        for subscription in sorted(subscriptions, key=lambda one: one.id):
            sheet.insert_new(th.subscriptions, to_row(subscription))
        for event in sorted(events, key=lambda one: one.id):
            sheet.insert_new(th.hook_events, to_row(event))
        for delivery in sorted(deliveries, key=lambda one: (one.event_id, one.subscription_id)):
            sheet.insert_new(th.hook_deliveries, to_row(delivery) | {"held_until": None})
        sheet.delete_all(t.outbox, done)
        self._access.write(sheet.write, durable=durable)

    def event(self, event_id: str) -> HookEvent | None:
        query = select(*columns(HookEvent)).where(th.hook_events.c.id == event_id)
        return next(iter(self._access.ask(lambda c: _all(c, HookEvent, query))), None)

    def delivery(self, delivery_id: str) -> Parcel | None:
        """A delivery with its event and subscription."""
        return next(iter(self._access.ask(lambda c: _parcels(c, th.hook_deliveries.c.id == delivery_id))), None)

    def deliveries_of(self, event_id: str) -> list[Parcel]:
        return self._access.ask(lambda c: _parcels(c, th.hook_deliveries.c.event_id == event_id))

    def deliveries(self, filters: JsonDict, after: tuple[datetime, str] | None, limit: int) -> list[Parcel]:
        """Newest first. Filters: status, subscription_id, intent_id, type, owner, since, until (of its making)."""
        d, s = th.hook_deliveries.c, th.subscriptions.c
        where = [d[n] == filters[n] for n in ("status", "subscription_id", "intent_id", "type") if filters.get(n)]
        if filters.get("owner") is not None:
            where.append(s.owner == filters["owner"])
        if filters.get("since") is not None:
            where.append(d.created_at >= filters["since"])
        if filters.get("until") is not None:
            where.append(d.created_at < filters["until"])
        if after is not None:
            where.append(tuple_(d.created_at, d.id) < tuple_(*after))
        return self._access.ask(lambda c: _parcels(c, *where, limit=limit))

    def counts(self) -> dict[str, int]:
        """Deliveries by status."""
        d = th.hook_deliveries.c
        query = select(d.status, func.count()).group_by(d.status)
        return self._access.ask(lambda c: {row[0]: int(row[1]) for row in c.execute(query)})

    def requeue(self, delivery_ids: Sequence[str], by: str | None) -> int:
        """Send these again, from the start of the schedule; closes their dead letters. Returns how many there were."""
        now, most = self._now(), [0]
        values = {"status": "PENDING", "attempts": 0, "next_at": now, "held_until": None, "ended_at": None}
        d, x = th.hook_deliveries, t.dead_letters
        closed = {"state": "REPLAYED", "closed_by": by, "closed_at": now}

        def write(driver: Driver) -> None:
            done = 0
            for delivery_id in sorted(delivery_ids):
                again = update_of(d).where(d.c.id == bindparam("is_id")).values(_binds(values))
                done += driver.run(
                    _prepared("requeue", again, self._is_sqlite), [_row(values) | {"is_id": delivery_id}]
                )
                letters = update_of(x).where(x.c.delivery_id == bindparam("is_id"), x.c.state == "OPEN")
                prepared = _prepared("letters", letters.values(_binds(closed)), self._is_sqlite)
                driver.run(prepared, [_row(closed) | {"is_id": delivery_id}])
            # Done again after a lost reply, it counts the same.
            most[0] = done

        self._access.write(write, durable=True)
        return most[0]

    # -- the courier -----------------------------------------------------------------------

    def is_due(self) -> bool:
        """Whether a courier would find anything to send."""
        now = self._now()
        query = select(exists().where(*_sendable(now), exists().where(*_due_of(now))))
        return self._access.ask(lambda c: bool(c.scalar(query)))

    def turn(
        self,
        settlements: Sequence[Settlement],
        free: int,
        room: Callable[[Subscription], int],
        hold_seconds: float,
    ) -> list[Parcel]:
        """One turn of a courier: settle what was tried, then take up to ``free`` deliveries that are due.

        room:         how many more of a subscription this courier may have in hand.
        hold_seconds: they are hidden from other couriers for so long.
        """
        taken: list[Parcel] = []
        now = self._now()

        def work(driver: Driver) -> None:
            self._settle(settlements).write(driver)
            taken[:] = self._take(driver, now, free, room, now + timedelta(seconds=hold_seconds)) if free > 0 else []

        self._access.write(work, durable=any(one.letter is not None for one in settlements))
        return taken

    def _settle(self, settlements: Sequence[Settlement]) -> Sheet:
        sheet = Sheet(self._is_sqlite)
        for one in sorted(settlements, key=lambda one: one.was.subscription_id):
            if one.subscription:
                sheet.update(th.subscriptions, one.subscription, {"id": one.was.subscription_id})
        for one in sorted(settlements, key=lambda one: one.was.id):
            values = {name: to_row(one.now)[name] for name in _WRITTEN} | {"held_until": None}
            # Received is received, whoever else tried meanwhile and failed.
            won = one.now.status is HookStatus.DELIVERED
            guards = (
                {"id": one.was.id} if won else {"id": one.was.id, "status": "PENDING", "attempts": one.was.attempts}
            )
            sheet.update(th.hook_deliveries, values, guards)
            if one.letter is not None:
                sheet.insert_new(t.dead_letters, to_row(one.letter))
        for one in settlements:
            if one.subscription.get("disabled_at") is not None:
                self._end_pending(sheet, one.was.subscription_id, str(one.subscription["disabled_reason"]))
        return sheet

    def _end_pending(self, sheet: Sheet, subscription_id: str, why: str) -> None:
        values = {"status": "DEAD", "ended_at": self._now(), "next_at": None, "last_error": why}
        sheet.update(th.hook_deliveries, values, {"subscription_id": subscription_id, "status": "PENDING"})

    def _take(
        self, driver: Driver, now: datetime, free: int, room: Callable[[Subscription], int], held_until: datetime
    ) -> list[Parcel]:
        waiting = [found for (found,) in _with_due(self._is_sqlite).read(driver, now=now)]
        # By lot, so that none of many is always the last.
        random.shuffle(waiting)
        taken: list[Parcel] = []
        sheet = Sheet(self._is_sqlite)
        for subscription in waiting:
            limit = min(room(subscription), free - len(taken))
            if limit <= 0:
                continue
            rows = _due(self._is_sqlite).read(driver, subscription_id=subscription.id, now=now, limit=limit)
            taken += [Parcel(delivery=delivery, event=event, subscription=subscription) for delivery, event in rows]
        for parcel in sorted(taken, key=lambda one: one.delivery.id):
            sheet.update(th.hook_deliveries, {"held_until": held_until}, {"id": parcel.delivery.id})
        sheet.write(driver)
        return taken

    # -- schemas of payloads --------------------------------------------------------------

    def put_schema(self, schema: Schema) -> None:
        """Add a schema, or put it in the place of the one before."""
        row = to_row(schema)
        key = {"owner": schema.owner, "semantic_type": schema.semantic_type}
        sheet = Sheet(self._is_sqlite)
        sheet.insert_new(th.schemas, row)
        sheet.update(th.schemas, {k: v for k, v in row.items() if k not in (*key, "created_at")}, key)
        self._access.write(sheet.write, durable=True)

    def schema(self, owner: str | None, semantic_type: str) -> Schema | None:
        query = _schema(self._is_sqlite)
        found = self._access.drive(lambda d: query.read(d, whose=owner or "", kind=semantic_type))
        return next((schema for (schema,) in found), None)

    # -- upkeep -----------------------------------------------------------------------------

    def prune(self, before: datetime) -> None:
        """Delete posted events that are older, and their deliveries. Those of intents go with their intents."""
        e, d = th.hook_events, th.hook_deliveries
        open_ones = exists().where(d.c.event_id == e.c.id, d.c.status == _PENDING)
        old = select(e.c.id).where(e.c.intent_id.is_(None), e.c.at < bindparam("before", type_=e.c.at.type), ~open_ones)
        statements = (delete_from(d).where(d.c.event_id.in_(old)), delete_from(e).where(e.c.id.in_(old)))
        prepared = [_prepared(f"prune {n}", one, self._is_sqlite) for n, one in enumerate(statements)]

        def remove(driver: Driver) -> None:
            for one in prepared:
                driver.run(one, [{"before": before}])

        self._access.write(remove, durable=False)


@functools.cache
def _schema(is_sqlite: bool) -> Query:
    """Compiled once: every submission over HTTP asks this."""
    s = th.schemas.c
    query = select(*columns(Schema)).where(s.owner == bindparam("whose"), s.semantic_type == bindparam("kind"))
    return Query(query, (Schema,), is_sqlite)


#: Columns of a delivery that a try changes.
_WRITTEN = ("status", "attempts", "tries", "next_at", "ended_at", "last_error")

_compiled: dict[tuple[str, bool], Prepared] = {}


def _prepared(name: str, statement: Any, is_sqlite: bool) -> Prepared:
    key = (name, is_sqlite)
    if key not in _compiled:
        _compiled[key] = Prepared(statement, is_sqlite)
    return _compiled[key]


def _binds(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: bindparam(f"set_{name}") for name in values}


def _row(values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"set_{name}": value for name, value in values.items()}


def _all(c: Connection, kind: type[Any], query: Any) -> list[Any]:
    return [to_record(kind, row) for row in c.execute(query).mappings()]


def _parcels(c: Connection, *where: ColumnElement[bool], limit: int = _MANY) -> list[Parcel]:
    d, e, s = th.hook_deliveries, th.hook_events, th.subscriptions
    query = (
        select(*columns(HookDelivery, "d_"), *columns(HookEvent, "e_"), *columns(Subscription, "s_"))
        .select_from(d)
        .join(e, e.c.id == d.c.event_id)
        .join(s, s.c.id == d.c.subscription_id)
        .where(*where)
        .order_by(d.c.created_at.desc(), d.c.id.desc())
        .limit(limit)
    )
    return [
        Parcel(
            delivery=to_record(HookDelivery, row, "d_"),
            event=to_record(HookEvent, row, "e_"),
            subscription=to_record(Subscription, row, "s_"),
        )
        for row in c.execute(query).mappings()
    ]


def _sendable(now: Any) -> list[ColumnElement[bool]]:
    s = th.subscriptions.c
    return [s.revoked_at.is_(None), s.disabled_at.is_(None), or_(s.rests_until.is_(None), s.rests_until <= now)]


def _due_of(now: Any) -> list[ColumnElement[bool]]:
    d = th.hook_deliveries.c
    free = or_(d.held_until.is_(None), d.held_until <= now)
    return [d.subscription_id == th.subscriptions.c.id, d.status == _PENDING, d.next_at <= now, free]


@functools.cache
def _with_due(is_sqlite: bool) -> Query:
    now = bindparam("now", type_=th.subscriptions.c.rests_until.type)
    query = select(*columns(Subscription)).where(*_sendable(now), exists().where(*_due_of(now))).limit(_MOST_DUE)
    return Query(query, (Subscription,), is_sqlite)


@functools.cache
def _due(is_sqlite: bool) -> Query:
    d, e = th.hook_deliveries, th.hook_events
    now = bindparam("now", type_=d.c.next_at.type)
    query = (
        select(*columns(HookDelivery, "d_"), *columns(HookEvent, "e_"))
        .join_from(d, e, e.c.id == d.c.event_id)
        .where(
            d.c.subscription_id == bindparam("subscription_id"),
            d.c.status == _PENDING,
            d.c.next_at <= now,
            or_(d.c.held_until.is_(None), d.c.held_until <= now),
        )
        .order_by(d.c.next_at)
        .limit(bindparam("limit"))
        .with_for_update(skip_locked=True, of=d)
    )
    return Query(query, (HookDelivery, HookEvent), is_sqlite)
