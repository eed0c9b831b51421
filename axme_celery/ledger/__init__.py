"""The ledger: the SQL truth about every intent, on PostgreSQL and SQLite.

One method writes what concerns an intent: ``commit``. It refuses a change that
was decided on what no longer holds, retries what a database may refuse for a
moment, and after a lost reply looks for its own write before it says anything:
"COMMIT failed" does not mean "not committed".
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import Connection, func, select
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, ProgrammingError

from ..errors import LedgerNotMigrated, LedgerUnavailable, StaleChange
from ..model import (
    Change,
    Checkpoint,
    DeadLetter,
    Delivery,
    EarlyAnswer,
    Event,
    Intent,
    JsonDict,
    Lease,
    Leg,
    LegRecord,
    Timer,
    Wait,
    WaitRecord,
)
from . import hot, outbox, read, schema, tables
from .clock import HostClock, LedgerClock
from .engine import Engines
from .health import Health, health
from .write import Sealed, hold_run, insert_checkpoint, landed, seal, write

T = TypeVar("T")

#: How often a write is tried when the database is away or asks to try again.
TRIES = 4
#: SQLSTATEs that mean "try the whole transaction again": serialization, deadlock, lock not available.
_TRY_AGAIN = {"40001", "40P01", "55P03"}
#: ... and those of a server that is going down or coming up.
_GOING_AWAY = {"57P01", "57P02", "57P03", "08000", "08003", "08006", "53300"}


class SqlLedger:
    """The ledger at one database URL. Connects on first use; safe across fork.

    ``clock`` replaces the database's own time (tests move it). ``secret`` makes the audit chain a keyed one.
    """

    def __init__(self, url: str, *, clock: Callable[[], datetime] | None = None, secret: str | None = None) -> None:
        self.engines = Engines(url)
        self._secret = secret.encode() if secret else None
        if clock is not None:
            self._clock: LedgerClock | HostClock = HostClock(clock)
        elif self.engines.is_sqlite:
            self._clock = HostClock(lambda: datetime.now(UTC))
        else:
            self._clock = LedgerClock(self._ask_time)
        self._id: str | None = None
        self._prepared = False

    # -- identity and time ----------------------------------------------------

    @property
    def id(self) -> str:
        """This ledger's identity, made when it was migrated; the namespace of its tracker."""
        if self._id is None:
            self._id = self._reading(schema.ledger_id)
        return self._id

    def revision(self) -> str | None:
        """The last migration this ledger has had; None when it has no tables."""
        return self._asking(schema.revision)

    def now(self, *, fresh: bool = False) -> datetime:
        """The ledger's clock: never ahead of the database's. ``fresh`` asks the database now."""
        return self._clock.now(fresh=fresh)

    def close(self) -> None:
        """Close this process's connections."""
        self.engines.dispose()

    # -- writing ----------------------------------------------------------------

    def commit(self, *changes: Change, connection: Connection | None = None) -> tuple[Change, ...]:
        """Write all changes in one transaction, or none. Returns them as written, with their place in the audit chain.

        Raises StaleChange when one was decided on what no longer holds, LedgerUnavailable when the database
        cannot be reached. With ``connection`` it writes into the caller's transaction and commits nothing.
        """
        self._prepare()
        if connection is not None:
            # A savepoint: a refused change leaves the caller's own transaction usable.
            sealed = [seal(c, self._secret) for c in changes]
            with connection.begin_nested():
                self._write_all(connection, sealed, own=False)
            return tuple(s.change for s in sealed)
        if len(changes) == 1 and changes[0].fence is not None and changes[0].checkpoints:
            self._record(changes[0])
            return changes
        sealed = [seal(c, self._secret) for c in changes]
        self._writing(
            lambda c: self._write_all(c, sealed, own=True),
            lambda c: landed(c, sealed[0]),
            durable=any(c.durable for c in changes),
        )
        return tuple(s.change for s in sealed)

    def transaction(self, checkpoint: Callable[[Connection], Checkpoint], fence: tuple[str, int]) -> Checkpoint:
        """Call with a connection inside a transaction, and commit its SQL together with the checkpoint returned.

        The run is checked and locked at the end, just before the commit, so that a long call blocks nobody.
        Not tried again on its own account: what the caller's function did besides SQL is not ours to repeat.
        """
        self._prepare()
        recorded: Checkpoint | None = None
        committing = False
        try:
            with self.engines.connect() as connection:
                with connection.begin() as transaction:
                    recorded = checkpoint(connection)
                    hold_run(connection, *fence)
                    insert_checkpoint(connection, recorded)
                    committing = True
                    transaction.commit()
                return recorded
        except DBAPIError as error:
            if not committing or recorded is None:
                # The caller's own SQL failed: that error is the caller's to see.
                raise
            if not _is_transient(error):
                raise _unavailable(error) from error
            found = self._reading(lambda c: read.checkpoint(c, recorded.leg_id, recorded.name, recorded.nth))
            if found is not None and found.run == recorded.run and found.value == recorded.value:
                return found
            raise _unavailable(error) from error

    def outbox_due(self, until: datetime, limit: int, hold_seconds: float) -> list[Delivery]:
        """Deliveries due by then, now hidden from other relays for ``hold_seconds``."""
        taken: list[Delivery] = []

        def take(connection: Connection) -> None:
            taken[:] = outbox.take_due(connection, self.now(), until, limit, hold_seconds)

        self._writing(take, lambda c: False, durable=False)
        return taken

    def outbox_by_ids(self, delivery_ids: Sequence[str]) -> list[Delivery]:
        """These deliveries, as far as they exist."""
        return self._reading(lambda c: outbox.by_ids(c, delivery_ids))

    def outbox_settle(
        self,
        sent: Sequence[str],
        failed: Sequence[Delivery] = (),
        dead: Sequence[tuple[Delivery, DeadLetter]] = (),
    ) -> None:
        """Remove what was sent, put back what failed, file what ran out of tries."""
        self._writing(lambda c: outbox.settle(c, sent, failed, dead), lambda c: False, durable=bool(dead))

    def health(self) -> Health:
        """What is late, what is stuck, how long waits last: for the doctor and for whoever watches."""
        return self._reading(lambda c: health(c, self.now(fresh=True)))

    def prune(self, intent_ids: Sequence[str]) -> int:
        """Delete ended intents with everything of theirs. Returns how many there were."""
        counted = [0]

        def remove(connection: Connection) -> None:
            counted[0] = schema.delete_intents(connection, intent_ids)

        self._writing(remove, lambda c: False, durable=True)
        return counted[0]

    # -- reading ------------------------------------------------------------------

    def intent(self, intent_id: str) -> Intent | None:
        return self._reading(lambda c: read.intent(c, intent_id))

    def intent_by_key(self, key: str, connection: Connection | None = None) -> Intent | None:
        return self._reading(lambda c: read.intent_by_key(c, key), connection)

    def intents(self, filters: JsonDict, after: tuple[datetime, str] | None, limit: int) -> list[Intent]:
        return self._reading(lambda c: read.intents(c, filters, after, limit))

    def leg_record(
        self, leg_id: str, *, history: bool = True, connection: Connection | None = None
    ) -> LegRecord | None:
        return self._reading(lambda c: read.leg_record(c, leg_id, history=history), connection)

    def legs(self, intent_id: str) -> list[Leg]:
        return self._reading(lambda c: read.legs(c, intent_id))

    def checkpoints(self, intent_id: str) -> list[Checkpoint]:
        return self._reading(lambda c: read.checkpoints(c, intent_id))

    def checkpoint(self, leg_id: str, name: str, nth: int) -> Checkpoint | None:
        return self._reading(lambda c: read.checkpoint(c, leg_id, name, nth))

    def waits(self, intent_id: str) -> list[Wait]:
        return self._reading(lambda c: read.waits(c, intent_id))

    def wait(self, wait_id: str) -> WaitRecord | None:
        return self._reading(lambda c: read.wait(c, wait_id))

    def wait_records(self, wait_ids: Sequence[str]) -> list[WaitRecord]:
        return self._reading(lambda c: read.wait_records(c, wait_ids))

    def tool_wait(self, tool: str, job_id: str) -> WaitRecord | None:
        return self._reading(lambda c: read.tool_wait(c, tool, job_id))

    def early_answer(self, tool: str, job_id: str) -> EarlyAnswer | None:
        return self._reading(lambda c: read.early_answer(c, tool, job_id))

    def unmatched_early_answers(self, limit: int) -> list[EarlyAnswer]:
        return self._reading(lambda c: read.unmatched_early_answers(c, limit))

    def events(self, intent_id: str, since: int = 0, limit: int = 1000) -> list[Event]:
        return self._reading(lambda c: read.events(c, intent_id, since, limit))

    def inbox(self, owners: Sequence[str], after: tuple[datetime, str] | None, limit: int) -> list[Wait]:
        return self._reading(lambda c: read.inbox(c, owners, after, limit))

    def dead_letters(self, state: str | None, after: str | None, limit: int) -> list[DeadLetter]:
        return self._reading(lambda c: read.dead_letters(c, state, after, limit))

    def dead_letter(self, dead_letter_id: str) -> DeadLetter | None:
        return self._reading(lambda c: read.dead_letter(c, dead_letter_id))

    def dead_letters_of(self, intent_id: str) -> list[DeadLetter]:
        return self._reading(lambda c: read.dead_letters_of(c, intent_id))

    def due_waits(self, until: datetime, limit: int) -> list[Timer]:
        return self._reading(lambda c: read.due_waits(c, until, limit))

    def due_intents(self, until: datetime, limit: int) -> list[Timer]:
        return self._reading(lambda c: read.due_intents(c, until, limit))

    def running(self, leases: Sequence[Lease] | None, limit: int) -> list[Lease]:
        return self._reading(lambda c: read.running(c, leases, limit))

    def unstarted_legs(self, until: datetime, limit: int) -> list[Leg]:
        return self._reading(lambda c: read.unstarted_legs(c, until, limit))

    def prunable(self, ended_before: datetime, limit: int) -> list[Intent]:
        return self._reading(lambda c: read.prunable(c, ended_before, limit))

    def count_prunable(self, ended_before: datetime) -> int:
        return self._reading(lambda c: read.count_prunable(c, ended_before))

    # -- how ------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Look once whether the tables are there and new enough. A SQLite ledger is made on first use."""
        if self._prepared:
            return
        if self.engines.is_sqlite:
            try:
                schema.create_sqlite(self.engines)
            except DBAPIError as error:
                raise _unavailable(error) from error
        self._asking(schema.require)
        self._prepared = True

    def _write_all(self, connection: Connection, sealed: Sequence[Sealed], *, own: bool) -> None:
        now = self.now()
        try:
            for one in sealed:
                write(connection, one, now, own=own)
        except IntegrityError as error:
            # A key that was free when this was decided is taken now: load and decide again.
            raise StaleChange(f"another writer was first: {error.orig}") from error

    def _record(self, change: Change) -> None:
        """The hot path: one checkpoint, guarded by its run."""
        (checkpoint,) = change.checkpoints
        checkpoint = replace(checkpoint, at=self.now())
        for attempt in range(TRIES):
            try:
                with self.engines.borrow() as driver:
                    if hot.record(driver, checkpoint, self.engines.is_sqlite):
                        return
                break
            except Exception as error:
                # The row's key is the proof of our own write, so trying again can only find it there.
                if attempt == TRIES - 1 or not _is_transient(error):
                    raise _unavailable(error) from error
                time.sleep(_pause(attempt))
        found = self.checkpoint(checkpoint.leg_id, checkpoint.name, checkpoint.nth)
        if found is not None and found.run == checkpoint.run:
            if found.value == checkpoint.value and found.recorded == checkpoint.recorded:
                return
            if found.recorded == "STARTED":
                sealed = [Sealed(change, ())]
                self._writing(lambda c: self._finish_marker(c, sealed[0]), lambda c: False, durable=True)
                return
        assert change.fence is not None
        raise StaleChange(f"run {change.fence[1]} of leg {change.fence[0]} is not the running one any more")

    def _finish_marker(self, connection: Connection, sealed: Sealed) -> None:
        assert sealed.change.fence is not None
        hold_run(connection, *sealed.change.fence)
        for checkpoint in sealed.change.checkpoints:
            insert_checkpoint(connection, checkpoint)

    def _writing(
        self, write_all: Callable[[Connection], None], landed_before: Callable[[Connection], bool], *, durable: bool
    ) -> None:
        """One transaction, tried again while the database says so; a lost COMMIT reply is cleared up first."""
        for attempt in range(TRIES):
            unknown = False
            try:
                with self.engines.connect() as connection:
                    transaction = connection.begin()
                    try:
                        write_all(connection)
                        unknown = True
                        transaction.commit()
                        return
                    except BaseException:
                        _roll_back(transaction)
                        raise
            except DBAPIError as error:
                if attempt == TRIES - 1 or not _is_transient(error):
                    raise _unavailable(error) from error
                time.sleep(_pause(attempt))
                if unknown and self._reading(landed_before):
                    return

    def _reading(self, ask: Callable[[Connection], T], connection: Connection | None = None) -> T:
        """Ask; with ``connection`` as the caller's own transaction sees it."""
        self._prepare()
        return self._asking(ask) if connection is None else ask(connection)

    def _asking(self, ask: Callable[[Connection], T]) -> T:
        """Ask in autocommit; again on a new connection if the old one turns out to be dead."""
        for attempt in range(TRIES):
            try:
                with self.engines.connect() as connection:
                    return ask(self._for_reading(connection))
            except DBAPIError as error:
                if attempt == TRIES - 1 or not _is_transient(error):
                    raise _unavailable(error) from error
                time.sleep(_pause(attempt))
        raise AssertionError("unreachable")

    def _for_reading(self, connection: Connection) -> Connection:
        if self.engines.is_sqlite:
            # Already in autocommit; setting a level here would be reset to the driver's own transactions.
            return connection.execution_options(axme_read=True)
        return connection.execution_options(isolation_level="AUTOCOMMIT")

    def _ask_time(self) -> datetime:
        answered: Any = self._asking(lambda c: c.scalar(select(func.clock_timestamp())))
        moment: datetime = answered.astimezone(UTC)
        return moment


def _pause(attempt: int) -> float:
    """Full jitter, doubling from 50 ms."""
    return random.uniform(0.2, 1.0) * 0.05 * 2.0**attempt


def _roll_back(transaction: Any) -> None:
    try:
        transaction.rollback()
    except DBAPIError:
        # The connection is gone, and the transaction with it; the first error is the one to tell.
        pass


def _is_transient(error: BaseException) -> bool:
    """Whether the same transaction may succeed if tried again: connection gone, deadlock, busy."""
    original = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    state = getattr(original, "sqlstate", None)
    if state is not None:
        return state in _TRY_AGAIN or state in _GOING_AWAY
    text = str(original)
    if "locked" in text or "busy" in text:
        return True
    # No SQLSTATE: psycopg's own report of a connection that broke or was never made.
    module = type(original).__module__.split(".")[0]
    return module == "psycopg" and type(original).__name__ == "OperationalError"


def _is_missing_table(error: DBAPIError) -> bool:
    return getattr(error.orig, "sqlstate", None) == "42P01" or "no such table" in str(error.orig)


def _unavailable(error: BaseException) -> LedgerUnavailable:
    original = error.orig if isinstance(error, DBAPIError) else error
    first_line = str(original).strip().splitlines()[0] if str(original).strip() else type(original).__name__
    if isinstance(error, ProgrammingError | OperationalError) and _is_missing_table(error):
        return LedgerNotMigrated(
            f"the ledger has no tables yet ({first_line}); run: axme-celery -A yourproject migrate"
        )
    return LedgerUnavailable(f"the ledger's database did not take this: {first_line}; nothing half-done, try again")


__all__ = ["SqlLedger", "tables"]
