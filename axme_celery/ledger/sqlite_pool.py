"""SQLite connections that are all closed at the moment their process forks.

SQLite keeps what it knows of a file and its locks per process, for all its
connections together. A child inherits that knowledge without the locks: its own
new connections would find a lock taken for ever by one that only the parent
has, or believe that a lock is held which is not, and lose writes. So a fork
waits until nobody is at a connection, and finds none open.
"""

from __future__ import annotations

import threading
import time
import weakref
from contextlib import suppress
from typing import Any

from sqlalchemy import Pool
from sqlalchemy.pool import ConnectionPoolEntry

from ..forkgate import behind_gates
from .driver import Driver

#: A fork waits no longer than this for those who are at a connection: longer than anybody is who waits for nobody.
PATIENCE_SECONDS = 5.0

#: So many connections that nobody is at stay open.
KEPT = 5

_pools: weakref.WeakSet[ForkedEmptyPool] = weakref.WeakSet()


class _Own(threading.local):
    #: How often this thread is inside.
    count = 0


class _Door:
    """Those who take a connection go in, those who give one back come out; a fork shuts it and waits."""

    def __init__(self) -> None:
        self._own = _Own()
        self.reset()

    def reset(self) -> None:
        """In a forked child: the other threads are gone. One of them may have held the lock."""
        # For threads that come out when garbage is collected, which may be while they are going in.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._forks = 0
        # Whoever forked with a connection in hand comes out here, too.
        self._inside = self._own.count

    def enter(self) -> None:
        own = self._own
        with self._lock:
            # Who is inside already may need to go in twice before they can come out.
            while self._forks and not own.count:
                self._changed.wait()
            self._inside += 1
            own.count += 1

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            self._own.count -= 1
            if self._forks:
                self._changed.notify_all()

    def shut(self) -> None:
        until = time.monotonic() + PATIENCE_SECONDS
        with self._lock:
            # One fork at a time: another's closing of connections is SQLite at work, too.
            while self._forks and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
            self._forks += 1
            # Whoever forks with a connection in hand cannot be waited for.
            while self._inside > self._own.count and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)

    def open(self) -> None:
        with self._lock:
            self._forks -= 1
            self._changed.notify_all()


_door = _Door()


class ForkedEmptyPool(Pool):
    """SQLite connections, of which none is open whenever their process forks. The last one given back is the next one taken."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._idle: list[ConnectionPoolEntry] = []
        _pools.add(self)

    def lend(self) -> _Loan:
        """A connection as its driver gave it, for a ``with``."""
        return _Loan(self)

    def dispose(self) -> None:
        """Close the connections nobody is at."""
        with suppress(IndexError):
            while True:
                self._idle.pop().close()

    def recreate(self) -> ForkedEmptyPool:
        """An empty pool like this one."""
        return type(self)(self._creator, _dispatch=self.dispatch, dialect=self._dialect)

    def status(self) -> str:
        """In words."""
        return f"SQLite connections that are open and in nobody's hand: {len(self._idle)}"

    def _do_get(self) -> ConnectionPoolEntry:
        _door.enter()
        try:
            try:
                return self._idle.pop()
            except IndexError:
                return self._create_connection()
        except BaseException:
            _door.leave()
            raise

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        try:
            connection: Any = record.dbapi_connection
            # A COMMIT or ROLLBACK that failed may have left the transaction open (busy, disk full): whoever borrowed
            # this connection next would read in it, and commit it.
            if connection is not None and not connection.in_transaction and len(self._idle) < KEPT:
                self._idle.append(record)
            else:
                record.close()
        finally:
            _door.leave()


class _Loan:
    """SQLAlchemy's own checkout and checkin take as long as SQLite does with a row; this takes a fraction of it."""

    __slots__ = ("_entry", "_pool")

    def __init__(self, pool: ForkedEmptyPool) -> None:
        self._pool = pool
        self._entry: ConnectionPoolEntry | None = None

    def __enter__(self) -> Driver:
        self._entry = entry = self._pool._do_get()
        return Driver(entry.dbapi_connection, True)

    def __exit__(self, *_: object) -> None:
        self._end()

    def __del__(self) -> None:
        # A time limit's exception may strike just before or behind the ``with``: every fork would wait for this one.
        self._end()

    def _end(self) -> None:
        entry, self._entry = self._entry, None
        if entry is not None:
            self._pool._do_return_conn(entry)


def _before() -> None:
    _door.shut()
    for pool in list(_pools):
        pool.dispose()


behind_gates(_before, _door.open, _door.reset)
