"""The tracker in the ledger's own database, for a team that has no Redis.

Each method is one or two short statements. On PostgreSQL each commits by itself, in
one round trip and without waiting for the disk; on SQLite they share a transaction.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Engine,
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
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from axme_celery.errors import LedgerUnavailable, TrackerUnavailable
from axme_celery.model import Lease, Progress, Timer
from axme_celery.tracker.clock import DAY, HOUR, Clock, length, to_microseconds, to_moment
from axme_celery.tracker.tables import tracker_tables

_TABLES = tracker_tables(MetaData())
_LEASES, _TIMERS, _PROGRESS, _TICKS, _LOCKS = (
    _TABLES.leases,
    _TABLES.timers,
    _TABLES.progress,
    _TABLES.ticks,
    _TABLES.locks,
)

#: Ids in one ``IN``: SQLite takes so many bound values at least.
_BATCH = 500
#: How long ``listen`` sleeps, growing while the same thread listens to the same intent.
_FIRST_SLEEP_SECONDS = 0.02
_LONGEST_SLEEP_SECONDS = 0.5


class SqlTracker:
    """Leases, timers and progress in SQL. Promises are those of the ``Tracker`` port.

    engine_source:  gives this process's engine at each call (the ledger's is fork-safe so).
                    PostgreSQL or SQLite; the tables are those of ``tracker_tables``.
    clock:          replaces the database's clock; tests move it.

    Every method raises TrackerUnavailable, and nothing else, when the database cannot be reached or refuses.
    """

    def __init__(self, engine_source: Callable[[], Engine], clock: Clock | None = None) -> None:
        self._engine_source = engine_source
        self._clock = clock
        self._last_listen = _LastListen()

    # -- leases --

    def hold(self, leases: Sequence[Lease], seconds: float) -> None:
        """Take or renew leases for so long from now. Whether they were there does not matter."""
        if leases:
            with self._asked("hold leases") as connection:
                self._put(connection, _LEASES, self._terms(leases, seconds), ends_at=self._in(connection, "term"))

    def seed(self, leases: Sequence[Lease], seconds: float) -> None:
        """Give one term to those leases the tracker knows nothing of: it was lost, their workers may live."""
        if leases:
            with self._asked("seed leases") as connection:
                statement = _insert(connection, _LEASES).values(_columns(_LEASES, ends_at=self._in(connection, "term")))
                connection.execute(statement.on_conflict_do_nothing(), self._terms(leases, seconds))

    def release(self, leases: Sequence[Lease]) -> None:
        """Drop leases, lapsed or not."""
        if leases:
            with self._asked("release leases") as connection:
                connection.execute(
                    delete(_LEASES).where(_LEASES.c.leg_id == bindparam("a_leg"), _LEASES.c.run == bindparam("a_run")),
                    [{"a_leg": leg_id, "a_run": run} for leg_id, run in _in_order(leases)],
                )

    def settle(self, lease: Lease, intent_id: str, seq: int) -> None:
        """``release`` and ``tell`` in one."""
        self.release([lease])

    def lapsed(self, limit: int) -> list[Lease]:
        """Leases past their end by the database's clock, the longest past first. They stay until released."""
        with self._asked("list lapsed leases") as connection:
            rows = connection.execute(
                select(_LEASES.c.leg_id, _LEASES.c.run)
                .where(_LEASES.c.ends_at <= self._now(connection))
                .order_by(_LEASES.c.ends_at)
                .limit(limit)
            ).all()
        return [Lease(leg_id, run) for leg_id, run in rows]

    # -- timers --

    def schedule(self, timers: Sequence[Timer]) -> None:
        """Set timers, or move them, also those just taken."""
        if timers:
            moments = {(timer.kind, timer.id): to_microseconds(timer.due_at) for timer in timers}
            with self._asked("schedule timers") as connection:
                self._put(
                    connection,
                    _TIMERS,
                    [{"kind": kind, "id": id, "due_at": due_at} for (kind, id), due_at in sorted(moments.items())],
                    hidden_until=None,
                )

    def refill(self, timers: Sequence[Timer]) -> None:
        """Set those timers the tracker knows nothing of; one that was taken stays hidden."""
        if timers:
            moments = {(timer.kind, timer.id): to_microseconds(timer.due_at) for timer in timers}
            with self._asked("refill timers") as connection:
                connection.execute(
                    _insert(connection, _TIMERS).on_conflict_do_nothing(),
                    [{"kind": kind, "id": id, "due_at": due_at} for (kind, id), due_at in sorted(moments.items())],
                )

    def unschedule(self, timers: Sequence[tuple[str, str]]) -> None:
        """Drop timers by (kind, id), also those just taken."""
        if timers:
            with self._asked("unschedule timers") as connection:
                connection.execute(
                    delete(_TIMERS).where(_TIMERS.c.kind == bindparam("a_kind"), _TIMERS.c.id == bindparam("an_id")),
                    [{"a_kind": kind, "an_id": id} for kind, id in sorted(timers)],
                )

    def take(self, until: datetime, hold_seconds: float, limit: int) -> list[Timer]:
        """Take timers due at or before ``until``, the earliest first, each by one taker.

        until:         by the ledger's clock.
        hold_seconds:  a taken timer is hidden so long, by the database's clock, and then comes back
                       unless it was unscheduled or scheduled again.
        """
        hidden_until, due_at = _TIMERS.c.hidden_until, _TIMERS.c.due_at
        with self._asked("take timers") as connection:
            now = self._now(connection)
            connection.execute(_hide(hidden_until <= now, hidden_until, limit, None))
            rows = connection.execute(
                _hide(
                    and_(hidden_until.is_(None), due_at <= to_microseconds(until)),
                    due_at,
                    limit,
                    now + length(hold_seconds),
                ).returning(_TIMERS.c.kind, _TIMERS.c.id, due_at)
            ).all()
        return [Timer(kind, id, to_moment(due)) for due, kind, id in sorted((due, kind, id) for kind, id, due in rows)]

    # -- live notices --

    def tell(self, intent_id: str, seq: int) -> None:
        """Nothing: a listener reads the ledger, which is this database, by itself."""

    def listen(self, intent_id: str, timeout_seconds: float, after: int | None = None) -> bool:
        """Sleep for a moment, at most the timeout, and return False: read the ledger again.

        The moment grows from 20 ms to half a second while one thread goes on listening to one intent.
        """
        last = self._last_listen
        if last.intent_id != intent_id or time.monotonic() - last.woke_at > 2 * _LONGEST_SLEEP_SECONDS:
            last.intent_id, last.sleep_seconds = intent_id, _FIRST_SLEEP_SECONDS
        time.sleep(max(0.0, min(timeout_seconds, last.sleep_seconds)))
        last.sleep_seconds = min(2 * last.sleep_seconds, _LONGEST_SLEEP_SECONDS)
        last.woke_at = time.monotonic()
        return False

    # -- progress --

    def put_progress(self, leg_id: str, done: float, total: float | None, note: str | None) -> None:
        """Keep how far a leg says it is, for a day."""
        row = {"leg_id": leg_id, "done": done, "total": total, "note": note}
        with self._asked("keep progress") as connection:
            self._put(connection, _PROGRESS, [row], said_at=self._now(connection))

    def progress(self, leg_ids: Sequence[str]) -> dict[str, Progress]:
        """What these legs last said within a day, by leg id; silent ones are left out."""
        found: dict[str, Progress] = {}
        with self._asked("read progress") as connection:
            for start in range(0, len(leg_ids), _BATCH):
                rows = connection.execute(
                    select(_PROGRESS).where(
                        _PROGRESS.c.leg_id.in_(leg_ids[start : start + _BATCH]),
                        _PROGRESS.c.said_at > self._now(connection) - DAY,
                    )
                )
                for row in rows:
                    found[row.leg_id] = Progress(row.done, row.total, row.note, to_moment(row.said_at))
        return found

    # -- sweepers --

    def tick(self, sweeper: str) -> None:
        """Note that this sweeper swept just now, and drop what is old here."""
        with self._asked("note a tick") as connection:
            now = self._now(connection)
            self._put(connection, _TICKS, [{"sweeper": sweeper}], swept_at=now)
            connection.execute(delete(_TICKS).where(_TICKS.c.swept_at <= now - HOUR))
            connection.execute(delete(_PROGRESS).where(_PROGRESS.c.said_at <= now - DAY))

    def ticks(self) -> dict[str, datetime]:
        """Who swept within the last hour, and when last."""
        with self._asked("read the ticks") as connection:
            rows = connection.execute(
                select(_TICKS.c.sweeper, _TICKS.c.swept_at).where(_TICKS.c.swept_at > self._now(connection) - HOUR)
            ).all()
        return {sweeper: to_moment(swept_at) for sweeper, swept_at in rows}

    def lock(self, name: str, owner: str, seconds: float) -> bool:
        """Take a lock for so long, or renew one's own; False when another has it."""
        with self._asked("take a lock") as connection:
            now = self._now(connection)
            statement = _insert(connection, _LOCKS).values(name=name, owner=owner, ends_at=now + length(seconds))
            held = connection.execute(
                statement.on_conflict_do_update(
                    index_elements=[_LOCKS.c.name],
                    set_={"owner": statement.excluded.owner, "ends_at": statement.excluded.ends_at},
                    where=or_(_LOCKS.c.owner == owner, _LOCKS.c.ends_at <= now),
                ).returning(_LOCKS.c.owner)
            )
            return held.first() is not None

    # -- the store --

    def ping(self) -> None:
        """Return when the database answers and has the tables."""
        with self._asked("answer a ping") as connection:
            connection.execute(select(_LEASES.c.run).limit(1)).all()

    def clear(self) -> None:
        """Forget everything. For tests and ``reindex``."""
        with self._asked("clear") as connection:
            for table in vars(_TABLES).values():
                connection.execute(delete(table))

    def eviction_policy(self) -> str | None:
        """Always "noeviction": a database throws nothing away."""
        return "noeviction"

    def close(self) -> None:
        """Nothing: the engine is its owner's to close."""

    # -- inside --

    @contextmanager
    def _asked(self, verb: str) -> Iterator[Connection]:
        """A connection to do one thing with, whose every failure is TrackerUnavailable."""
        try:
            engine = self._engine_source()
            if engine.dialect.name == "postgresql":
                with engine.connect() as connection:
                    yield connection.execution_options(isolation_level="AUTOCOMMIT")
            else:
                # Not AUTOCOMMIT here: leaving it would undo how the ledger set its connections up to begin.
                with engine.begin() as connection:
                    yield connection
        except (SQLAlchemyError, LedgerUnavailable, OSError) as error:
            raise TrackerUnavailable(
                f"the tracker's tables in the ledger's database did not {verb}: {error}; nothing is lost: "
                f"check that the database is reachable and that axme-celery migrate was run"
            ) from error

    def _now(self, connection: Connection) -> ColumnElement[int]:
        """Now, in microseconds: the given clock's, or what the database says when it runs the statement."""
        if self._clock:
            return literal(to_microseconds(self._clock()), BigInteger)
        if connection.dialect.name == "postgresql":
            return cast(extract("epoch", func.clock_timestamp()) * 1_000_000, BigInteger)
        # SQLite counts days since noon of its first day, and is exact to the millisecond.
        return cast((func.julianday("now") - 2440587.5) * 86_400_000, Integer) * 1000

    def _in(self, connection: Connection, term: str) -> ColumnElement[int]:
        """A row's own term from now."""
        return self._now(connection) + bindparam(term, type_=BigInteger)

    def _terms(self, leases: Sequence[Lease], seconds: float) -> list[dict[str, Any]]:
        term = length(seconds)
        return [{"leg_id": leg_id, "run": run, "term": term} for leg_id, run in _in_order(leases)]

    def _put(self, connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]], **values: Any) -> None:
        """Insert rows or overwrite those there; ``values`` are the same expression for all."""
        statement = _insert(connection, table).values(_columns(table, **values))
        keys = [column.name for column in table.primary_key]
        overwritten = {column.name: statement.excluded[column.name] for column in table.c if column.name not in keys}
        connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=overwritten), list(rows))


class _LastListen(threading.local):
    """What this thread listened to last."""

    intent_id = ""
    sleep_seconds = _FIRST_SLEEP_SECONDS
    woke_at = 0.0


def _insert(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


def _columns(table: Table, **values: Any) -> dict[str, Any]:
    """Each column's value: what is given, or the row's own."""
    return {column.name: values[column.name] if column.name in values else bindparam(column.name) for column in table.c}


def _in_order(leases: Sequence[Lease]) -> list[tuple[str, int]]:
    """Their keys, sorted, as wherever several rows are written: two writers of the same rows queue, never deadlock."""
    return sorted({(lease.leg_id, lease.run) for lease in leases})


def _hide(
    which: ColumnElement[bool], order: ColumnElement[Any], limit: int, until: ColumnElement[int] | None
) -> Update:
    """Hide the first timers of those, or with ``until`` None show them. Rows another is writing are left to it."""
    key = _TIMERS.c.kind, _TIMERS.c.id
    first = select(*key).where(which).order_by(order).limit(limit).with_for_update(skip_locked=True).cte("first")
    return update(_TIMERS).where(_TIMERS.c.kind == first.c.kind, _TIMERS.c.id == first.c.id).values(hidden_until=until)
