"""How the ledger's database is asked and written to: tried again where that may help, cleared up after a lost reply."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoFreeConnection

from ..errors import AxmeError, BadInput, LedgerUnavailable, StaleChange
from . import schema, trouble
from .driver import Driver, Whole
from .engine import Engines

T = TypeVar("T")

#: How often something is tried when the database is away or asks to try again: for about a second.
TRIES = 4

#: Whether a transaction of this thread's is open.
_open: ContextVar[bool] = ContextVar("axme_ledger_open", default=False)


class Access:
    """Everything the ledger does with its database goes through here."""

    def __init__(self, engines: Engines) -> None:
        self.engines = engines
        self._is_ready = False

    # -- asking ---------------------------------------------------------------------

    def ask(self, question: Callable[[Connection], T]) -> T:
        """Ask with SQLAlchemy, in autocommit."""
        self.make_ready()
        return self.ask_unready(question)

    def ask_unready(self, question: Callable[[Connection], T]) -> T:
        """The same of a ledger that may have no tables yet."""

        def once() -> T:
            with self.engines.connect() as connection:
                return question(self._for_reading(connection))

        return self._persistently(once)

    def drive(self, work: Callable[[Driver], T]) -> T:
        """Run statements that may be repeated, each a transaction of its own."""
        self.make_ready()

        def once() -> T:
            with self.engines.borrow() as driver:
                return work(driver)

        return self._persistently(once)

    # -- writing --------------------------------------------------------------------

    def write(
        self,
        work: Callable[[Driver], None],
        proof: Callable[[Connection], bool] | None = None,
        *,
        durable: bool,
        whole: Whole | None = None,
    ) -> None:
        """Run ``work`` in one transaction and commit it.

        whole:    the same in one statement, which is run instead where that is as isolated as it should be.
        proof:    whether the work is in the ledger, asked when the reply to a commit was lost; None where the work
                  may simply be done again.
        durable:  wait for the disk at the commit.

        Raises what ``work`` raises, LedgerUnavailable, StaleChange when another writer took a key first, BadInput in a
        transaction of this thread's on SQLite.
        """
        self.make_ready()
        # No LedgerUnavailable: that would have the leg run again, and come here again.
        self.refuse_to_wait_for_itself(BadInput)
        was_lost = False
        for attempt in range(TRIES):
            committing = False
            try:
                at_once = whole is not None and self.engines.commits_alone
                with self.engines.borrow() as driver:
                    if whole is not None and at_once:
                        committing = True
                        driver.run_whole(whole)
                        return
                    with self._in_transaction(driver, durable):
                        work(driver)
                        committing = True
                        driver.commit()
                        return
            except StaleChange:
                # After a lost reply it may be our own work that is in the way: committed, but later than we looked.
                if was_lost and proof is not None and self.ask(proof):
                    return
                raise
            except self._errors as error:
                if trouble.is_taken(error):
                    if was_lost and proof is not None and self.ask(proof):
                        return
                    raise StaleChange(f"another writer was first: {error}") from error
                was_lost = was_lost or committing
                is_last = attempt == TRIES - 1 or not trouble.is_transient(error)
                if not is_last:
                    time.sleep(trouble.pause_seconds(attempt))
                if was_lost and proof is not None and self._is_proved(proof):
                    return
                if is_last:
                    raise trouble.told(
                        error, at=self.engines.named, unknown=was_lost and trouble.is_transient(error)
                    ) from error

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction of SQLAlchemy's for a caller's own SQL; the caller commits it. Not tried again."""
        self.make_ready()
        token = _open.set(True)
        try:
            with self.engines.connect() as connection, connection.begin() as transaction:
                if not self.engines.is_sqlite:
                    # What the caller asks of their own tables may well read through all of one.
                    connection.exec_driver_sql("SET LOCAL enable_seqscan TO ON")
                yield connection
                if transaction.is_active:
                    transaction.rollback()
        finally:
            _open.reset(token)

    def refuse_to_wait_for_itself(self, error: type[AxmeError]) -> None:
        """Raises this error within a transaction of this thread's on SQLite, for another would never get to write."""
        if self.engines.is_sqlite and _open.get():
            raise error(
                "SQLite has one writer at a time and this transaction is it: pass its connection on (connection=), "
                "or do this after it"
            )

    # -- the tables -------------------------------------------------------------------

    def make_ready(self) -> None:
        """Look once whether the tables are there and new enough. A SQLite ledger is made on first use."""
        if not self._is_ready:
            if self.engines.is_sqlite:
                self._persistently(lambda: schema.create_sqlite(self.engines))
            self.ask_unready(schema.require)
            self._is_ready = True

    # -- inside -----------------------------------------------------------------------

    def _persistently(self, once: Callable[[], T]) -> T:
        for attempt in range(TRIES):
            try:
                return once()
            except UnicodeEncodeError as error:
                raise BadInput(f"no ledger keeps text with half a character (a lone surrogate): {error}") from error
            except self._errors as error:
                if attempt == TRIES - 1 or not trouble.is_transient(error):
                    raise trouble.told(error, at=self.engines.named) from error
                time.sleep(trouble.pause_seconds(attempt))
        raise AssertionError("unreachable")

    def _is_proved(self, proof: Callable[[Connection], bool]) -> bool:
        try:
            return self.ask(proof)
        except LedgerUnavailable:
            return False

    @contextlib.contextmanager
    def _in_transaction(self, driver: Driver, durable: bool) -> Iterator[None]:
        try:
            driver.begin(durable=durable)
            yield
        except BaseException:
            # Should this fail too, the first error is the one to tell; the connection is then given up.
            with contextlib.suppress(*self._errors):
                driver.roll_back()
            raise

    def _for_reading(self, connection: Connection) -> Connection:
        if self.engines.is_sqlite:
            # Already in autocommit; setting a level here would be reset to the driver's own transactions.
            return connection.execution_options(axme_read=True)
        return connection.execution_options(isolation_level="AUTOCOMMIT")

    @property
    def _errors(self) -> tuple[type[Exception], ...]:
        """What SQLAlchemy, its pool and the driver raise when the database is in trouble."""
        return DBAPIError, NoFreeConnection, self.engines.driver_error
