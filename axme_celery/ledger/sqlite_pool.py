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

from sqlalchemy import QueuePool
from sqlalchemy.pool import ConnectionPoolEntry

from ..forkgate import behind_gates

#: A fork waits no longer than this for those who are at a connection: longer than anybody is who waits for nobody.
PATIENCE_SECONDS = 5.0

_pools: weakref.WeakSet[ForkedEmptyPool] = weakref.WeakSet()


class _Door:
    """Those who take a connection go in, those who give one back come out; a fork shuts it and waits."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._inside = 0
        self._forks = 0
        self._own = threading.local()

    def enter(self) -> None:
        with self._changed:
            # Who is inside already may need to go in twice before they can come out.
            while self._forks and not self._own_count():
                self._changed.wait()
            self._inside += 1
            self._own.count = self._own_count() + 1

    def leave(self) -> None:
        with self._changed:
            self._inside -= 1
            self._own.count = self._own_count() - 1
            self._changed.notify_all()

    def shut(self) -> None:
        until = time.monotonic() + PATIENCE_SECONDS
        with self._changed:
            # One fork at a time: another's closing of connections is SQLite at work, too.
            while self._forks and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
            self._forks += 1
            # Whoever forks with a connection in hand cannot be waited for.
            while self._inside > self._own_count() and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)

    def open(self) -> None:
        with self._changed:
            self._forks -= 1
            self._changed.notify_all()

    def _own_count(self) -> int:
        return int(getattr(self._own, "count", 0))


_door = _Door()


class ForkedEmptyPool(QueuePool):
    """A queue of SQLite connections that is empty whenever its process forks."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        _pools.add(self)

    def close_idle(self) -> None:
        """Close the connections nobody is at."""
        out = self.checkedout()
        self.dispose()
        # It counts as if there were no others.
        self._overflow += out

    def _do_get(self) -> ConnectionPoolEntry:
        _door.enter()
        try:
            return super()._do_get()
        except BaseException:
            _door.leave()
            raise

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        try:
            super()._do_return_conn(record)
        finally:
            _door.leave()


def _before() -> None:
    _door.shut()
    for pool in list(_pools):
        pool.close_idle()


def _after_in_child() -> None:
    # Its lock may have been held by a thread that is not here.
    _door.__init__()  # type: ignore[misc]


behind_gates(_before, _door.open, _after_in_child)
