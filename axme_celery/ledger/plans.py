"""Pipelines as the ledger knows them: what follows what, what has arrived where, and what is still going on."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, and_, bindparam, exists, func, literal_column, or_, select

from ..graph import Join
from ..model import Intent, JoinRecord, Leg, Wait
from . import tables as t
from .access import Access
from .query import Query, among
from .rows import columns, to_record

# Literal, not bound: the small partial indexes are of use only to a plan that knows the value.
_PENDING: ColumnElement[str] = literal_column("'PENDING'")
_OPEN: ColumnElement[str] = literal_column("'OPEN'")
_QUEUED: ColumnElement[str] = literal_column("'QUEUED'")
_RUNNING: ColumnElement[str] = literal_column("'RUNNING'")
_NONE: ColumnElement[int] = literal_column("0")


class PlanShelf:
    """The pipelines of a ledger; one of its parts."""

    _access: Access
    _is_sqlite: bool

    def following(self, after: str, limit: int) -> list[Leg]:
        """Legs whose turn it is when this leg or join ends, in the order of the canvas."""
        return self._access.drive(
            lambda d: [leg for (leg,) in _following(self._is_sqlite).read(d, after=after, limit=limit)]
        )

    def following_each(self, afters: Sequence[str], limit: int) -> dict[str, list[Leg]]:
        """The same of many, by leg or join: up to ``limit`` of each, and nothing of one that nothing follows."""
        if not afters:
            return {}
        query, following = _following_each(self._is_sqlite), dict[str, list[Leg]]()
        for (leg,) in self._access.drive(lambda d: query.read(d, afters=list(afters), limit=limit)):
            following.setdefault(leg.after, []).append(leg)
        return following

    def join_record(self, join_id: str) -> JoinRecord | None:
        """A join with its intent."""
        found = self._access.drive(lambda d: _join(self._is_sqlite).read(d, id=join_id))
        return next((JoinRecord(*one) for one in found), None)

    def joins(self, intent_id: str) -> list[Join]:
        query = select(*columns(Join)).where(t.joins.c.intent_id == intent_id).order_by(t.joins.c.node, t.joins.c.id)
        return self._access.ask(lambda c: [to_record(Join, row) for row in c.execute(query).mappings()])

    def full_joins(self, limit: int) -> list[str]:
        """Joins that have all their members and were not passed yet."""
        query = select(t.joins.c.id).where(t.joins.c.status == _OPEN, t.joins.c.left == _NONE).limit(limit)
        return self._access.ask(lambda c: list(c.scalars(query)))

    def members(self, join_id: str) -> list[str]:
        """The results of what arrived at a join, as JSON texts, in the order of its members."""

        def ask(c: Connection) -> list[str]:
            arrived: list[tuple[int, str]] = []
            for table, status in ((t.legs, "DONE"), (t.joins, "PASSED")):
                query = select(table.c.join_index, table.c.result)
                arrived += [
                    (row.join_index, row.result or "null")
                    for row in c.execute(query.where(table.c.join_id == join_id, table.c.status == status))
                ]
            return [result for _, result in sorted(arrived, key=lambda one: one[0])]

        return self._access.ask(ask)

    def last_member(self, join_id: str) -> str | None:
        """The leg that arrived last at a join; None where only joins arrived."""
        c = t.legs.c
        arrived = select(c.id).where(c.join_id == join_id, c.status == "DONE")
        query = arrived.order_by(c.ended_at.desc(), c.join_index.desc()).limit(1)
        return self._access.ask(lambda connection: connection.scalar(query))

    def open_waits(self, intent_id: str) -> list[Wait]:
        """What an intent waits for now, the longest open first."""
        query = (
            select(*columns(Wait))
            .where(t.waits.c.intent_id == intent_id, t.waits.c.status == _OPEN)
            .order_by(t.waits.c.opened_at, t.waits.c.id)
        )
        return self._access.ask(lambda c: [to_record(Wait, row) for row in c.execute(query).mappings()])

    def is_busy(self, intent_id: str, besides: Sequence[str] = ()) -> bool:
        """Whether anything of an intent is queued, running or about to be, but for these legs and joins."""
        # One statement, so that what moves on meanwhile is seen before or after, and not missed between two looks.
        query = select(_busy(intent_id, besides))
        return self._access.ask(lambda c: bool(c.scalar(query)))

    def rests(self, intent_id: str) -> bool:
        """Whether an intent waits for something, and nothing else of it goes on."""
        waiting = exists().where(t.waits.c.intent_id == intent_id, t.waits.c.status == _OPEN)
        query = select(and_(waiting, ~_busy(intent_id, ())))
        return self._access.ask(lambda c: bool(c.scalar(query)))

    def canceled_legs(self, intent_id: str, after: str, limit: int) -> list[Leg]:
        """Legs of an intent that ended with it, from after this id on."""
        query = (
            select(*columns(Leg))
            .where(t.legs.c.intent_id == intent_id, t.legs.c.status == "CANCELED", t.legs.c.id > after)
            .order_by(t.legs.c.id)
            .limit(limit)
        )
        return self._access.ask(lambda c: [to_record(Leg, row) for row in c.execute(query).mappings()])


def _busy(intent_id: str, besides: Sequence[str]) -> ColumnElement[bool]:
    of_intent = and_(t.legs.c.intent_id == intent_id, t.legs.c.id.not_in(besides))
    full = and_(t.joins.c.intent_id == intent_id, t.joins.c.status == _OPEN, t.joins.c.left == _NONE)
    return or_(
        exists().where(of_intent, t.legs.c.status == _RUNNING),
        exists().where(of_intent, t.legs.c.status == _QUEUED),
        exists().where(full, t.joins.c.id.not_in(besides)),
    )


@functools.cache
def _following(is_sqlite: bool) -> Query:
    query = (
        select(*columns(Leg))
        .where(t.legs.c.after == bindparam("after"), t.legs.c.status == _PENDING)
        .order_by(t.legs.c.position)
        .limit(bindparam("limit"))
    )
    return Query(query, (Leg,), is_sqlite)


@functools.cache
def _following_each(is_sqlite: bool) -> Query:
    c = t.legs.c
    nth = func.row_number().over(partition_by=c.after, order_by=c.position).label("nth")
    those = select(*columns(Leg), nth).where(among(c.after, "afters", is_sqlite), c.status == _PENDING).subquery()
    query = select(*(those.c[column.name] for column in columns(Leg))).where(those.c.nth <= bindparam("limit"))
    return Query(query.order_by(those.c.after, those.c.nth), (Leg,), is_sqlite)


@functools.cache
def _join(is_sqlite: bool) -> Query:
    query = (
        select(*columns(Intent, "i_"), *columns(Join, "j_"))
        .join_from(t.joins, t.intents, t.joins.c.intent_id == t.intents.c.id)
        .where(t.joins.c.id == bindparam("id"))
    )
    return Query(query, (Intent, Join), is_sqlite)
