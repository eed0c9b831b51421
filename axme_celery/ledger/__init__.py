"""The ledger: the SQL truth about every intent, on PostgreSQL and SQLite.

One method writes what concerns an intent: ``commit``. It refuses a change that
was decided on what no longer holds, retries what a database may refuse for a
moment, and after a lost reply looks for its own write before it says anything:
"COMMIT failed" does not mean "not committed".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as NoFreeConnection

from ..errors import LedgerUnavailable, StaleChange
from ..model import (
    Change,
    Checkpoint,
    DeadLetter,
    Delivery,
    EarlyAnswer,
    Event,
    Fence,
    Intent,
    JsonDict,
    Lease,
    Leg,
    LegRecord,
    Timer,
    Wait,
    WaitRecord,
)
from . import hot, outbox, read, schema, tables, trouble
from .access import Access
from .clock import HostClock, LedgerClock
from .driver import Driver
from .engine import Engines
from .exchange import SqlExchange
from .figures import Figures, figures
from .health import Health, health
from .hooks import HookStore
from .keys import KeyShelf
from .mailboxes import SqlMailboxes
from .people import Desks
from .plans import PlanShelf
from .views import SqlViews
from .write import CallersConnection, hold_run, proof_of, put_checkpoint, seal, sheet_of, with_fanout

T = TypeVar("T")


class SqlLedger(KeyShelf, PlanShelf):
    """The ledger at one database URL. Connects on first use; safe across fork.

    ``clock`` replaces the database's own time (tests move it). ``secret`` makes the audit chain a keyed one.
    """

    def __init__(self, url: str, *, clock: Callable[[], datetime] | None = None, secret: str | None = None) -> None:
        self.engines = Engines(url)
        super().__init__(Access(self.engines), self.engines.is_sqlite)
        self._secret = secret.encode() if secret else None
        #: Agents outside Celery and what lies there for them.
        self.mailboxes = SqlMailboxes(self._access, self._is_sqlite)
        #: Inboxes, and the links that lead to a wait.
        self.desks = Desks(self._access)
        #: What pages ask.
        self.views = SqlViews(self._access, self._is_sqlite)
        #: Requests already answered, and messages.
        self.exchange = SqlExchange(self._access, self._is_sqlite)
        if clock is not None:
            self._clock: LedgerClock | HostClock = HostClock(clock)
        elif self._is_sqlite:
            self._clock = HostClock(lambda: datetime.now(UTC))
        else:
            self._clock = LedgerClock(self._ask_time)
        self._id: str | None = None
        #: Webhooks: subscriptions, and the deliveries to them.
        self.hooks = HookStore(self._access, self.now, self._is_sqlite)

    # -- identity and time ----------------------------------------------------

    @property
    def id(self) -> str:
        """This ledger's identity, made when it was migrated; the namespace of its tracker."""
        if self._id is None:
            self._id = self._access.ask(schema.ledger_id)
        return self._id

    def revision(self) -> str | None:
        """The last migration this ledger has had; None when it has no tables."""
        return self._access.ask_unready(schema.revision)

    def now(self, *, fresh: bool = False) -> datetime:
        """The ledger's clock: never ahead of the database's. ``fresh`` asks the database now."""
        return self._clock.now(fresh=fresh)

    def engine(self) -> Engine:
        """This process's engine, for a tracker that keeps its tables here.

        Raises LedgerUnavailable within a transaction of this thread's on SQLite: its one writer would wait for itself.
        """
        self._access.refuse_to_wait_for_itself(LedgerUnavailable)
        return self.engines.durable

    def close(self) -> None:
        """Close this process's connections."""
        self.engines.dispose()

    # -- writing ----------------------------------------------------------------

    def commit(self, *changes: Change, connection: Connection | None = None) -> tuple[Change, ...]:
        """Write all changes in one transaction, or none. Returns them as written, with their place in the audit chain.

        Raises StaleChange when one was decided on what no longer holds, LedgerUnavailable when the database
        cannot be reached. With ``connection`` it writes into the caller's transaction and commits nothing; what
        else its database raises there is the caller's to see.
        """
        if connection is None and len(changes) == 1 and changes[0].fence is not None and not changes[0].legs:
            self._record(changes[0])
            return changes
        sealed = [seal(change, self._secret) for change in changes]
        sheet = sheet_of(sealed, self.now(), own=connection is None, is_sqlite=self._is_sqlite)
        if connection is None:
            durable = any(change.durable for change in changes)
            self._access.write(sheet.write, proof_of(sealed), durable=durable, whole=sheet.whole(durable=durable))
            return tuple(
                replace(c, reached=sheet.reached(c.counts)) if c.counts else c for c in with_fanout(sealed, sheet)
            )
        self._access.make_ready()
        _begin_for_real(connection)
        try:
            # A savepoint: a refused change leaves the caller's own transaction usable.
            with connection.begin_nested():
                sheet.write(CallersConnection(connection))
        except IntegrityError as error:
            if not trouble.is_taken(error):
                raise
            raise StaleChange(f"another writer was first: {error.orig}") from error
        return with_fanout(sealed, sheet)

    def transaction(self, checkpoint: Callable[[Connection], Checkpoint], fence: Fence) -> Checkpoint:
        """Call with a connection inside a transaction, and commit its SQL together with the checkpoint returned.

        The run is checked and locked at the end, just before the commit, so that a long call blocks nobody.
        Raises what the call raises, and what the database only says of its SQL at the record or the commit; but
        LedgerUnavailable when the database went away in its middle.
        Not tried again on its own account: what the caller's function did besides SQL is not ours to repeat.
        """
        recorded: Checkpoint | None = None
        began = committing = False
        try:
            with self._access.transaction() as connection:
                began = True
                recorded = replace(checkpoint(connection), at=self.now())
                to = CallersConnection(connection)
                hold_run(to, fence, self._is_sqlite)
                put_checkpoint(to, recorded, self._is_sqlite)
                committing = True
                connection.commit()
            return recorded
        except (DBAPIError, NoFreeConnection) as error:
            if began and not trouble.is_gone(error) and (recorded is None or trouble.is_refusal(error)):
                # The caller's own SQL failed, perhaps unnoticed until the record or the commit: that error is the
                # caller's to see. Running the leg again would only come to it again.
                raise
            if committing and recorded is not None and trouble.is_transient(error):
                found = self.checkpoint(recorded.leg_id, recorded.name, recorded.nth)
                if found is not None and found.run == recorded.run and found.value == recorded.value:
                    return found
            unknown = committing and trouble.is_transient(error)
            raise trouble.told(error, at=self.engines.named, unknown=unknown) from error

    def outbox_due(self, until: datetime, limit: int, hold_seconds: float) -> list[Delivery]:
        """Deliveries due by then, now hidden from other relays for ``hold_seconds``."""
        taken: list[Delivery] = []
        now = self.now()

        def take(driver: Driver) -> None:
            taken[:] = outbox.take_due(driver, now, until, limit, hold_seconds, self._is_sqlite)

        self._access.write(take, durable=False)
        return self._access.ask(lambda c: outbox.with_legs(c, taken)) if taken else taken

    def outbox_by_ids(self, delivery_ids: Sequence[str]) -> list[Delivery]:
        """These deliveries, as far as they exist."""
        return self._access.ask(lambda c: outbox.by_ids(c, delivery_ids))

    def outbox_settle(
        self,
        sent: Sequence[str],
        failed: Sequence[Delivery] = (),
        dead: Sequence[tuple[Delivery, DeadLetter]] = (),
    ) -> None:
        """Remove what was sent, put back what failed, file what ran out of tries."""
        sheet = outbox.settle(sent, failed, dead, self._is_sqlite)
        self._access.write(sheet.write, durable=bool(dead), whole=sheet.whole(durable=bool(dead)))

    def health(self) -> Health:
        """What is late, what is stuck, how long waits last: for the doctor and for whoever watches."""
        return self._access.ask(lambda c: health(c, self.now(fresh=True)))

    def figures(self) -> Figures:
        """How many of what there are, for whoever draws curves."""
        return self._access.ask(lambda c: figures(c, self.now()))

    def prune(self, intent_ids: Sequence[str]) -> int:
        """Delete ended intents with everything of theirs. Returns how many there were."""
        most = [0]

        def remove(driver: Driver) -> None:
            # Done again after a lost reply, there may be nothing left to count.
            most[0] = max(most[0], schema.delete_intents(driver, intent_ids, self._is_sqlite))

        self._access.write(remove, durable=True)
        return most[0]

    # -- reading ------------------------------------------------------------------

    def intent(self, intent_id: str) -> Intent | None:
        return self._access.drive(lambda d: hot.intent(d, intent_id, self._is_sqlite))

    def intent_by_key(self, key: str, connection: Connection | None = None) -> Intent | None:
        return self._asked_of(connection, lambda c: read.intent_by_key(c, key))

    def intent_of_leg(self, leg_id: str, connection: Connection | None = None) -> Intent | None:
        return self._asked_of(connection, lambda c: read.intent_of_leg(c, leg_id))

    def intents(self, filters: JsonDict, after: tuple[datetime, str] | None, limit: int) -> list[Intent]:
        return self._access.ask(lambda c: read.intents(c, filters, after, limit))

    def leg_record(self, leg_id: str, *, history: bool = True) -> LegRecord | None:
        return self._access.drive(lambda d: hot.leg_record(d, leg_id, self._is_sqlite, history=history))

    def legs(self, intent_id: str, limit: int | None = None) -> list[Leg]:
        return self._access.ask(lambda c: read.legs(c, intent_id, limit))

    def checkpoints(self, intent_id: str) -> list[Checkpoint]:
        return self._access.ask(lambda c: read.checkpoints(c, intent_id))

    def checkpoint(self, leg_id: str, name: str, nth: int) -> Checkpoint | None:
        return self._access.ask(lambda c: read.checkpoint(c, leg_id, name, nth))

    def waits(self, intent_id: str) -> list[Wait]:
        return self._access.ask(lambda c: read.waits(c, intent_id))

    def wait(self, wait_id: str) -> WaitRecord | None:
        return self._access.drive(lambda d: hot.wait_record(d, wait_id, self._is_sqlite))

    def wait_records(self, wait_ids: Sequence[str]) -> list[WaitRecord]:
        if not wait_ids:
            return []
        return self._access.drive(lambda d: hot.wait_records(d, wait_ids, self._is_sqlite))

    def tool_wait(self, tool: str, job_id: str) -> WaitRecord | None:
        return self._access.ask(lambda c: read.tool_wait(c, tool, job_id))

    def early_answer(self, tool: str, job_id: str) -> EarlyAnswer | None:
        return self._access.ask(lambda c: read.early_answer(c, tool, job_id))

    def unmatched_early_answers(self, limit: int) -> list[EarlyAnswer]:
        return self._access.ask(lambda c: read.unmatched_early_answers(c, limit))

    def events(self, intent_id: str, since: int = 0, limit: int = 1000) -> list[Event]:
        return self._access.ask(lambda c: read.events(c, intent_id, since, limit))

    def inbox(self, owners: Sequence[str], after: tuple[datetime, str] | None, limit: int) -> list[Wait]:
        return self._access.ask(lambda c: read.inbox(c, owners, after, limit))

    def dead_letters(self, state: str | None, after: str | None, limit: int) -> list[DeadLetter]:
        return self._access.ask(lambda c: read.dead_letters(c, state, after, limit))

    def dead_letter(self, dead_letter_id: str) -> DeadLetter | None:
        return self._access.ask(lambda c: read.dead_letter(c, dead_letter_id))

    def dead_letters_of(self, intent_id: str) -> list[DeadLetter]:
        return self._access.ask(lambda c: read.dead_letters_of(c, intent_id))

    def due_waits(self, until: datetime, limit: int) -> list[Timer]:
        return self._access.ask(lambda c: read.due_waits(c, until, limit))

    def due_intents(self, until: datetime, limit: int) -> list[Timer]:
        return self._access.ask(lambda c: read.due_intents(c, until, limit))

    def running(self, leases: Sequence[Lease] | None, limit: int) -> list[Lease]:
        return self._access.ask(lambda c: read.running(c, leases, limit))

    def unstarted_legs(self, until: datetime, limit: int) -> list[Leg]:
        return self._access.ask(lambda c: read.unstarted_legs(c, until, limit))

    def legs_in_chords(self, after: str | None, limit: int) -> list[Leg]:
        return self._access.ask(lambda c: read.legs_in_chords(c, after, limit))

    def prunable(self, ended_before: datetime, limit: int) -> list[Intent]:
        return self._access.ask(lambda c: read.prunable(c, ended_before, limit))

    def count_prunable(self, ended_before: datetime) -> int:
        return self._access.ask(lambda c: read.count_prunable(c, ended_before))

    # -- how ------------------------------------------------------------------------

    def _asked_of(self, connection: Connection | None, question: Callable[[Connection], T]) -> T:
        """The answer; with ``connection`` as the caller's own transaction sees it."""
        if connection is None:
            return self._access.ask(question)
        self._access.make_ready()
        return question(connection)

    def _record(self, change: Change) -> None:
        """The hot path: one checkpoint, guarded by its run."""
        (checkpoint,) = change.checkpoints
        at = self.now()
        # The row's key is the proof of our own write, so trying again can only find it there.
        fence = change.fence
        assert fence is not None
        if self._access.drive(lambda driver: hot.record(driver, checkpoint, at, fence, self._is_sqlite)):
            return
        found = self.checkpoint(checkpoint.leg_id, checkpoint.name, checkpoint.nth)
        if found is not None and found.run == checkpoint.run:
            if found.value == checkpoint.value and found.recorded == checkpoint.recorded:
                return
            if found.recorded == "STARTED":
                completed = replace(checkpoint, at=at)
                self._access.write(lambda driver: self._complete_marker(driver, fence, completed), durable=True)
                return
        raise StaleChange(f"run {fence.run} of leg {fence.leg_id} is not the running one any more")

    def _complete_marker(self, driver: Driver, fence: Fence, checkpoint: Checkpoint) -> None:
        hold_run(driver, fence, self._is_sqlite)
        put_checkpoint(driver, checkpoint, self._is_sqlite)

    def _ask_time(self) -> datetime:
        answered: Any = self._access.ask_unready(lambda c: c.scalar(select(func.clock_timestamp())))
        moment: datetime = answered.astimezone(UTC)
        return moment


def _begin_for_real(connection: Connection) -> None:
    """Python's SQLite driver begins a transaction at the first write, and a savepoint is none: releasing it first
    of all would commit it, whatever became of the caller's transaction."""
    raw: Any = connection.connection.driver_connection
    if connection.dialect.name == "sqlite" and not raw.in_transaction:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


__all__ = ["SqlLedger", "tables"]
