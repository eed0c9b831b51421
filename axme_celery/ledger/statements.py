"""The statements that write, each built and compiled once."""

from __future__ import annotations

import functools
from typing import Any

from sqlalchemy import Table, bindparam, exists, literal_column, select, text
from sqlalchemy import delete as delete_from
from sqlalchemy import update as update_of
from sqlalchemy.dialects import postgresql, sqlite

from . import tables as t
from . import tables_hooks as th
from .driver import Prepared
from .query import among


@functools.cache
def insert(table: Table, is_sqlite: bool) -> Prepared:
    """Insert whole rows."""
    return Prepared(_insert(table, is_sqlite), is_sqlite)


@functools.cache
def insert_new(table: Table, is_sqlite: bool) -> Prepared:
    """Insert whole rows, again without harm: what is there stays."""
    return Prepared(_insert(table, is_sqlite).on_conflict_do_nothing(), is_sqlite)


@functools.cache
def insert_if_subscribed(is_sqlite: bool) -> Prepared:
    """Insert an outbox row where there is a subscription to intents; again without harm.

    Asked of the database in the writing transaction itself: what a process remembers of subscriptions may be old, and
    would lose the first events of a new one.
    """
    table, s = t.outbox, th.subscriptions.c
    names = [column.name for column in table.c]
    # Literal: the index of live subscriptions is of use only to a plan that knows the value.
    is_live = exists().where(s.revoked_at.is_(None), s.kind == literal_column("'subscription'"))
    row = select(*(bindparam(name, type_=table.c[name].type) for name in names)).where(is_live)
    statement = (sqlite if is_sqlite else postgresql).insert(table)
    return Prepared(statement.from_select(names, row).on_conflict_do_nothing(), is_sqlite)


@functools.cache
def update(table: Table, columns: tuple[str, ...], guards: tuple[str, ...], is_sqlite: bool) -> Prepared:
    """Set columns where others still are as given. Rows say ``set_<column>`` and ``is_<column>``."""
    statement = (
        update_of(table)
        .where(*(table.c[name] == bindparam(f"is_{name}") for name in guards))
        .values({name: bindparam(f"set_{name}") for name in columns})
    )
    return Prepared(statement, is_sqlite)


@functools.cache
def delete(table: Table, guards: tuple[str, ...], is_sqlite: bool) -> Prepared:
    """Delete where columns are as given, as ``is_<column>``."""
    return Prepared(delete_from(table).where(*(table.c[name] == bindparam(f"is_{name}") for name in guards)), is_sqlite)


@functools.cache
def delete_all(table: Table, is_sqlite: bool) -> Prepared:
    """Delete the rows of these ids, however many: one statement, and always the same. Rows say ``ids``, a list.

    They are locked in no order of ours: two who delete some of the same may be refused as a deadlock, and try again.
    """
    return Prepared(delete_from(table).where(among(table.c.id, "ids", is_sqlite)), is_sqlite)


@functools.cache
def count_down(is_sqlite: bool) -> Prepared:
    """One more member of a join has arrived; returns how many are left."""
    joins = t.joins
    statement = (
        update_of(joins)
        .where(joins.c.id == bindparam("id"), joins.c.status == "OPEN", joins.c.left > 0)
        .values(left=joins.c.left - 1)
        .returning(joins.c.left)
    )
    return Prepared(statement, is_sqlite)


@functools.cache
def grow(is_sqlite: bool) -> Prepared:
    """A join gets one more member."""
    joins = t.joins
    where = (
        joins.c.id == bindparam("id"), joins.c.size == bindparam("is_size"), joins.c.status == "OPEN", joins.c.left > 0,
    )  # fmt: skip
    statement = update_of(joins).where(*where).values(size=joins.c.size + 1, left=joins.c.left + 1)
    return Prepared(statement, is_sqlite)


@functools.cache
def close_legs(is_sqlite: bool, called_too: bool) -> Prepared:
    """Cancel whatever legs of an intent are open; those that were called, too, or not."""
    legs = t.legs
    statement = (
        update_of(legs)
        .where(
            legs.c.intent_id == bindparam("intent_id"),
            text("status NOT IN ('DONE', 'FAILED', 'CANCELED')"),
            *(() if called_too else (legs.c.called_by.is_(None),)),
        )
        .values(status="CANCELED", ended_at=bindparam("at"), error=bindparam("error"), due_at=None)
    )
    return Prepared(statement, is_sqlite)


@functools.cache
def close_joins(is_sqlite: bool) -> Prepared:
    """Cancel whatever joins of an intent are open."""
    joins = t.joins
    where = (joins.c.intent_id == bindparam("intent_id"), joins.c.status == "OPEN")
    return Prepared(update_of(joins).where(*where).values(status="CANCELED"), is_sqlite)


@functools.cache
def hold_run(is_sqlite: bool) -> Prepared:
    """Find and lock a leg's row while the claim of this run and token still is the running one.

    FOR UPDATE, because a plain read would pass while the next claim is written but not yet committed.
    """
    statement = (
        select(t.legs.c.run)
        .where(
            t.legs.c.id == bindparam("leg_id"),
            t.legs.c.run == bindparam("run"),
            t.legs.c.token == bindparam("token"),
            t.legs.c.status == "RUNNING",
        )
        .with_for_update()
    )
    return Prepared(statement, is_sqlite)


@functools.cache
def insert_checkpoint(is_sqlite: bool) -> Prepared:
    """Insert a checkpoint, or complete the STARTED marker that stands in its place."""
    statement = _insert(t.checkpoints, is_sqlite)
    completed = {name: statement.excluded[name] for name in ("recorded", "value", "at")}
    statement = statement.on_conflict_do_update(
        index_elements=["leg_id", "name", "nth"], set_=completed, where=t.checkpoints.c.recorded == "STARTED"
    )
    return Prepared(statement, is_sqlite)


@functools.cache
def insert_checkpoint_of_running(is_sqlite: bool) -> Prepared:
    """Insert a checkpoint where its claim still is the running one and its key is free. One statement: the hot path."""
    legs, table = t.legs, t.checkpoints
    names = [column.name for column in table.c]
    guard = select(*(bindparam(name, type_=table.c[name].type) for name in names)).where(
        legs.c.id == bindparam("leg_id"),
        legs.c.run == bindparam("run"),
        legs.c.token == bindparam("token"),
        legs.c.status == "RUNNING",
    )
    if not is_sqlite:
        guard = guard.with_for_update()
    statement = (sqlite if is_sqlite else postgresql).insert(table)
    return Prepared(statement.from_select(names, guard).on_conflict_do_nothing(), is_sqlite)


def _insert(table: Table, is_sqlite: bool) -> Any:
    statement: Any = (sqlite if is_sqlite else postgresql).insert(table)
    return statement.values({column.name: bindparam(column.name) for column in table.c})
