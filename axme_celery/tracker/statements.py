"""What the SQL tracker says to the database, built once for each dialect."""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Integer,
    MetaData,
    Table,
    Update,
    and_,
    bindparam,
    cast,
    delete,
    extract,
    func,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from axme_celery.tracker.clock import DAY, HOUR
from axme_celery.tracker.tables import tracker_tables

TABLES = tracker_tables(MetaData())
_LEASES, _TIMERS, _PROGRESS, _TICKS, _LOCKS = (
    TABLES.leases.c,
    TABLES.timers.c,
    TABLES.progress.c,
    TABLES.ticks.c,
    TABLES.locks.c,
)


class Statements:
    """Every statement, with its parameters by name.

    given_clock:  each statement that depends on the time takes it as the parameter ``now``,
                  instead of asking the database's clock when it runs.
    """

    def __init__(self, dialect: str, given_clock: bool) -> None:
        self._insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
        now = _now(dialect, given_clock)
        ends_at = now + bindparam("term", type_=BigInteger)

        #: leg_id, run, term
        self.hold = self._put(TABLES.leases, leg_id=None, run=None, ends_at=ends_at)
        #: ... returns one row for each that was new
        self.seed = (
            self._new(TABLES.leases, leg_id=None, run=None, ends_at=ends_at)
            .on_conflict_do_nothing()
            .returning(_LEASES.run)
        )
        #: a_leg, a_run
        self.release = delete(TABLES.leases).where(
            _LEASES.leg_id == bindparam("a_leg"), _LEASES.run == bindparam("a_run")
        )
        #: limit
        self.lapsed = (
            select(_LEASES.leg_id, _LEASES.run)
            .where(_LEASES.ends_at <= now)
            .order_by(_LEASES.ends_at)
            .limit(bindparam("limit", type_=Integer))
        )

        #: kind, id, due_at
        self.schedule = self._put(TABLES.timers, kind=None, id=None, due_at=None, hidden_until=null())
        self.refill = self._new(TABLES.timers, kind=None, id=None, due_at=None).on_conflict_do_nothing()
        #: a_kind, an_id
        self.unschedule = delete(TABLES.timers).where(
            _TIMERS.kind == bindparam("a_kind"), _TIMERS.id == bindparam("an_id")
        )
        #: limit
        self.show_again = _first(_TIMERS.hidden_until <= now, _TIMERS.hidden_until).values(hidden_until=None)
        #: until, term, limit
        self.take = (
            _first(and_(_TIMERS.hidden_until.is_(None), _TIMERS.due_at <= bindparam("until")), _TIMERS.due_at)
            .values(hidden_until=ends_at)
            .returning(_TIMERS.due_at, _TIMERS.kind, _TIMERS.id)
        )

        #: leg_id, done, total, note
        self.put_progress = self._put(TABLES.progress, leg_id=None, done=None, total=None, note=None, said_at=now)
        #: legs, a list
        self.progress = select(TABLES.progress).where(
            _PROGRESS.leg_id.in_(bindparam("legs", expanding=True)), _PROGRESS.said_at > now - DAY
        )
        self.forget_progress = delete(TABLES.progress).where(_PROGRESS.said_at <= now - DAY)

        #: sweeper
        self.tick = self._put(TABLES.ticks, sweeper=None, swept_at=now)
        self.ticks = select(_TICKS.sweeper, _TICKS.swept_at).where(_TICKS.swept_at > now - HOUR)
        self.forget_ticks = delete(TABLES.ticks).where(_TICKS.swept_at <= now - HOUR)

        #: name, owner, term; a row when it was taken
        lock = self._new(TABLES.locks, name=None, owner=None, ends_at=ends_at)
        self.lock = lock.on_conflict_do_update(
            index_elements=[_LOCKS.name],
            set_={"owner": lock.excluded.owner, "ends_at": lock.excluded.ends_at},
            where=or_(_LOCKS.owner == lock.excluded.owner, _LOCKS.ends_at <= now),
        ).returning(_LOCKS.owner)

        self.ping = select(_LEASES.run).limit(1)

    def _new(self, table: Table, **values: ColumnElement[Any] | None) -> postgresql.Insert | sqlite.Insert:
        """Insert a row: of parameters named as the columns, or the expression given."""
        expressions = {name: bindparam(name) if value is None else value for name, value in values.items()}
        return self._insert(table).values(expressions)

    def _put(self, table: Table, **values: ColumnElement[Any] | None) -> postgresql.Insert | sqlite.Insert:
        """Insert a row, or overwrite the one there."""
        row = self._new(table, **values)
        overwritten = {column.name: row.excluded[column.name] for column in table.c if not column.primary_key}
        return row.on_conflict_do_update(index_elements=list(table.primary_key), set_=overwritten)


@cache
def statements(dialect: str, given_clock: bool) -> Statements:
    """Those of a dialect. Built once, as SQLAlchemy takes longer to build one than the database to run it."""
    return Statements(dialect, given_clock)


def _now(dialect: str, given_clock: bool) -> ColumnElement[int]:
    """Now, in microseconds."""
    if given_clock:
        return bindparam("now", type_=BigInteger)
    if dialect == "postgresql":
        return cast(extract("epoch", func.clock_timestamp()) * 1_000_000, BigInteger)
    # SQLite counts days since noon of its first day, exact to the millisecond.
    return cast((func.julianday("now") - 2440587.5) * 86_400_000, Integer) * 1000


def _first(which: ColumnElement[bool], order: ColumnElement[int]) -> Update:
    """Change the first ``limit`` timers of those. Rows that another is writing are left to it."""
    first = (
        select(_TIMERS.kind, _TIMERS.id)
        .where(which)
        .order_by(order)
        .limit(bindparam("limit", type_=Integer))
        .with_for_update(skip_locked=True)
        .cte("first")
    )
    return update(TABLES.timers).where(_TIMERS.kind == first.c.kind, _TIMERS.id == first.c.id)
