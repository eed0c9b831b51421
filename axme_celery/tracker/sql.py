"""The tracker in the ledger's own database, for a team that has no Redis.

Each method is one to three short statements (statements.py). On PostgreSQL each commits by
itself, in one round trip and without waiting for the disk; on SQLite they share a transaction.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, CursorResult, Engine, Executable, delete
from sqlalchemy.exc import SQLAlchemyError

from axme_celery.errors import LedgerUnavailable, TrackerUnavailable
from axme_celery.model import Lease, Progress, Timer
from axme_celery.tracker.clock import Clock, length, to_microseconds, to_moment
from axme_celery.tracker.statements import TABLES, Statements, statements

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

    #: ``listen`` only sleeps for a moment: whoever has many listeners looks at the ledger for all of them at once.
    pushes = False

    def __init__(self, engine_source: Callable[[], Engine], clock: Clock | None = None) -> None:
        self._engine_source = engine_source
        self._clock = clock
        self._last_listen = _LastListen()

    # -- leases --

    def hold(self, leases: Sequence[Lease], seconds: float) -> None:
        """Take or renew leases for so long from now. Whether they were there does not matter."""
        if leases:
            with self._session("hold leases") as session:
                session.run(session.sql.hold, _terms(leases, seconds))

    def seed(self, leases: Sequence[Lease], seconds: float) -> int:
        """Give one term to those leases the tracker knows nothing of: their workers may live. Returns how many."""
        if not leases:
            return 0
        with self._session("seed leases") as session:
            return len(session.run(session.sql.seed, _terms(leases, seconds)).all())

    def release(self, leases: Sequence[Lease]) -> None:
        """Drop leases, lapsed or not."""
        if leases:
            with self._session("release leases") as session:
                session.run(session.sql.release, [{"a_leg": leg_id, "a_run": run} for leg_id, run in _in_order(leases)])

    def lapsed(self, limit: int) -> list[Lease]:
        """Leases past their end by the database's clock, the longest past first. They stay until released."""
        with self._session("list lapsed leases") as session:
            rows = session.run(session.sql.lapsed, {"limit": limit}).all()
        return [Lease(row.leg_id, row.run) for row in rows]

    # -- timers --

    def schedule(self, timers: Sequence[Timer]) -> None:
        """Set timers, or move them, also those just taken."""
        if timers:
            with self._session("schedule timers") as session:
                session.run(session.sql.schedule, _moments(timers))

    def refill(self, timers: Sequence[Timer]) -> None:
        """Set those timers the tracker knows nothing of; one that was taken stays hidden."""
        if timers:
            with self._session("refill timers") as session:
                session.run(session.sql.refill, _moments(timers))

    def unschedule(self, timers: Sequence[tuple[str, str]]) -> None:
        """Drop timers by (kind, id), also those just taken."""
        if timers:
            with self._session("unschedule timers") as session:
                session.run(session.sql.unschedule, [{"a_kind": kind, "an_id": id} for kind, id in sorted(timers)])

    def take(self, until: datetime, hold_seconds: float, limit: int) -> list[Timer]:
        """Take timers due at or before ``until``, the earliest first, each by one taker.

        until:         by the ledger's clock.
        hold_seconds:  a taken timer is hidden so long, by the database's clock, and then comes back
                       unless it was unscheduled or scheduled again.
        """
        taking = {"until": to_microseconds(until), "term": length(hold_seconds), "limit": limit}
        with self._session("take timers") as session:
            session.run(session.sql.show_again, {"limit": limit})
            rows = session.run(session.sql.take, taking).all()
        return [Timer(kind, id, to_moment(due)) for due, kind, id in sorted(map(tuple, rows))]

    # -- live notices --

    def tell(self, seqs: Mapping[str, int], ended: Sequence[Lease] = ()) -> None:
        """Drop these leases. Of the intents nothing: a listener reads the ledger, which is this database, by itself."""
        self.release(ended)

    def listen(self, intent_id: str, timeout_seconds: float, after: int) -> bool:
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

    def told(self, intent_id: str) -> int:
        """0: nobody is told anything here."""
        return 0

    def wake(self) -> None:
        """Nothing: nobody sleeps for long here."""

    # -- progress --

    def put_progress(self, leg_id: str, done: float, total: float | None, note: str | None) -> None:
        """Keep how far a leg says it is, for a day."""
        with self._session("keep progress") as session:
            session.run(session.sql.put_progress, {"leg_id": leg_id, "done": done, "total": total, "note": note})

    def progress(self, leg_ids: Sequence[str]) -> dict[str, Progress]:
        """What these legs last said within a day, by leg id; silent ones are left out."""
        found: dict[str, Progress] = {}
        with self._session("read progress") as session:
            for start in range(0, len(leg_ids), _BATCH):
                for row in session.run(session.sql.progress, {"legs": leg_ids[start : start + _BATCH]}):
                    found[row.leg_id] = Progress(row.done, row.total, row.note, to_moment(row.said_at))
        return found

    # -- sweepers --

    def tick(self, sweeper: str) -> None:
        """Note that this sweeper swept just now, and drop what is old here."""
        with self._session("note a tick") as session:
            session.run(session.sql.tick, {"sweeper": sweeper})
            session.run(session.sql.forget_ticks, {})
            session.run(session.sql.forget_progress, {})

    def ticks(self) -> dict[str, datetime]:
        """Who swept within the last hour, and when last."""
        with self._session("read the ticks") as session:
            return {row.sweeper: to_moment(row.swept_at) for row in session.run(session.sql.ticks, {})}

    def lock(self, name: str, owner: str, seconds: float) -> bool:
        """Take a lock for so long, or renew one's own; False when another has it."""
        with self._session("take a lock") as session:
            taken = session.run(session.sql.lock, {"name": name, "owner": owner, "term": length(seconds)})
            return taken.first() is not None

    # -- the store --

    def ping(self) -> None:
        """Return when the database answers and has the tables."""
        with self._session("answer a ping") as session:
            session.run(session.sql.ping, {}).all()

    def clear(self) -> None:
        """Forget everything. For tests and ``reindex``."""
        with self._session("clear") as session:
            for table in vars(TABLES).values():
                session.run(delete(table), {})

    def eviction_policy(self) -> str | None:
        """Always "noeviction": a database throws nothing away."""
        return "noeviction"

    def close(self) -> None:
        """Nothing: the engine is its owner's to close."""

    # -- inside --

    @contextmanager
    def _session(self, verb: str) -> Iterator[_Session]:
        """A connection to do one thing with, whose every failure is TrackerUnavailable."""
        try:
            engine = self._engine_source()
            if engine.dialect.name == "postgresql":
                with engine.connect() as connection:
                    yield _Session(connection.execution_options(isolation_level="AUTOCOMMIT"), self._clock)
            else:
                # Not AUTOCOMMIT here: leaving it would undo how the ledger set its connections up to begin.
                with engine.begin() as connection:
                    yield _Session(connection, self._clock)
        except (SQLAlchemyError, LedgerUnavailable, OSError) as error:
            raise TrackerUnavailable(
                f"the tracker's tables in the ledger's database did not {verb}: {error}; nothing is lost: "
                f"check that the database is reachable and that axme-celery migrate was run"
            ) from error


class _Session:
    """Runs statements on one connection, telling the time to those that need to be told."""

    def __init__(self, connection: Connection, clock: Clock | None) -> None:
        self.sql: Statements = statements(connection.dialect.name, clock is not None)
        self._connection = connection
        self._now = {"now": to_microseconds(clock())} if clock else {}

    def run(self, statement: Executable, parameters: dict[str, Any] | list[dict[str, Any]]) -> CursorResult[Any]:
        if isinstance(parameters, dict):
            return self._connection.execute(statement, {**parameters, **self._now})
        return self._connection.execute(statement, [{**row, **self._now} for row in parameters])


class _LastListen(threading.local):
    """What this thread listened to last."""

    intent_id = ""
    sleep_seconds = _FIRST_SLEEP_SECONDS
    woke_at = 0.0


def _in_order(leases: Sequence[Lease]) -> list[tuple[str, int]]:
    """Their keys, sorted, as wherever several rows are written: two writers of the same rows queue, never deadlock."""
    return sorted({(lease.leg_id, lease.run) for lease in leases})


def _terms(leases: Sequence[Lease], seconds: float) -> list[dict[str, Any]]:
    return [{"leg_id": leg_id, "run": run, "term": length(seconds)} for leg_id, run in _in_order(leases)]


def _moments(timers: Sequence[Timer]) -> list[dict[str, Any]]:
    moments = {(timer.kind, timer.id): to_microseconds(timer.due_at) for timer in timers}
    return [{"kind": kind, "id": id, "due_at": due_at} for (kind, id), due_at in sorted(moments.items())]
