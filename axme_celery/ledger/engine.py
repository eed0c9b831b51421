"""Connections to the ledger's database: made on first use, one pool per process, never shared across a fork."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.pool import PoolProxiedConnection

from ..errors import BadSetting
from .driver import Driver
from .sqlite_pool import ForkedEmptyPool

#: How long SQLite waits for another writer before it gives up.
SQLITE_BUSY_SECONDS = 30

#: So many connections of PostgreSQL are kept ready for statements of the hot path, each at most so long at a time: taking
#: one from the pool and giving it back costs a third of what the database does with a step.
READY, READY_SECONDS = 3, 60.0

#: What we ask of PostgreSQL. Its plan of a prepared statement is made once, and an outbox is empty then as often as not:
#: a plan that reads through all of an empty table would do so with a hundred thousand rows in it, a moment later.
#: Where only that is possible, the plan seems dear enough to be compiled, which takes longer than it.
_OPTIONS = {"idle_in_transaction_session_timeout": "60000", "enable_seqscan": "off", "jit": "off"}

_all: weakref.WeakSet[Engines] = weakref.WeakSet()
#: The pools a fork copied into this process. Their sockets and files are the parent's: using them would mix up its
#: answers, closing them would hang up on it. So they are kept, untouched, and never collected.
_inherited: list[object] = []


class _Ready(NamedTuple):
    """A connection that is out of the pool, in autocommit and between statements."""

    pooled: PoolProxiedConnection
    driver: Driver
    until: float


class Engines:
    """The connections of one ledger URL, for the process that asks.

    ``sqlite://`` (in memory) is a database file in memory where there is such a place, else in the temporary folder,
    gone when this object is or its process ends. A database in SQLite's own memory is one connection's: threads that
    share that roll back one another's transactions.
    """

    def __init__(self, url: str) -> None:
        try:
            self.url: URL = make_url(url)
        except Exception as error:
            raise BadSetting(f"axme_ledger_url is not a database URL: {error}") from None
        backend = self.url.get_backend_name()
        if backend not in {"postgresql", "sqlite"}:
            raise BadSetting(
                f"axme_ledger_url names {backend!r}; the ledger runs on postgresql+psycopg:// or sqlite:///"
            )
        if backend == "postgresql" and self.url.get_driver_name() != "psycopg":
            self.url = self.url.set(drivername="postgresql+psycopg")
        self.is_sqlite = backend == "sqlite"
        self.is_memory = self.is_sqlite and (
            not self.url.database or ":memory:" in self.url.database or self.url.query.get("mode") == "memory"
        )
        #: The URL as people are told it: without its password, and without options, which may hold one too.
        self.named = self.url.set(query={}).render_as_string()
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._commits_alone: bool | None = None
        self._ready: deque[_Ready] = deque()
        #: Where a ledger in memory is.
        self._folder: Path | None = None
        _all.add(self)

    @property
    def durable(self) -> Engine:
        """SQLAlchemy's engine: transactions as usual, whose commits reach the disk before they return."""
        engine = self._engine
        if engine is None:
            with self._lock:
                engine = self._engine
                if engine is None:
                    engine = self._engine = self._create()
        return engine

    @property
    def driver_error(self) -> type[Exception]:
        """What the driver raises."""
        error: type[Exception] = self.durable.dialect.loaded_dbapi.Error
        return error

    @property
    def commits_alone(self) -> bool:
        """Whether a statement outside a transaction is as isolated as we want: READ COMMITTED, for each change says
        itself what it was decided on, so that more would only cost retries. What users do in a step's transaction is
        as isolated as their database says.
        """
        if self._commits_alone is None:
            with self.connect() as connection:
                level = (
                    None
                    if self.is_sqlite
                    else connection.exec_driver_sql("SHOW default_transaction_isolation").scalar()
                )
            self._commits_alone = level == "read committed"
        return self._commits_alone

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """An SQLAlchemy connection for a few statements."""
        with suppress(IndexError):
            # Rather than open another: a process with one thread needs one.
            self._give_back(self._ready.pop())
        with self.durable.connect() as connection:
            yield connection

    def borrow(self) -> AbstractContextManager[Driver]:
        """A connection as its driver gave it, in autocommit; for statements compiled once."""
        if not self.is_sqlite:
            return self._borrow_ready()
        pool = self.durable.pool
        assert isinstance(pool, ForkedEmptyPool)
        return pool.lend()

    def dispose(self) -> None:
        """Close this process's connections. The next use opens new ones."""
        self._let_go()
        with self._lock:
            engine, self._engine = self._engine, None
        if engine is not None:
            engine.dispose()

    @contextmanager
    def _borrow_ready(self) -> Iterator[Driver]:
        # After a fork in here, or when all was closed meanwhile, there is another place, and what is ours is not for it.
        place = self._ready
        ready = self._take()
        try:
            yield ready.driver
        except BaseException:
            self._take_back(ready)
            raise
        if len(place) >= READY:
            self._give_back(ready)
        else:
            place.append(ready)

    def _take(self) -> _Ready:
        with suppress(IndexError):
            # From the end it was put back to: what is not needed grows old at the other.
            ready = self._ready.pop()
            if ready.until > time.monotonic():
                return ready
            # The pool knows whether it is too old to be used.
            self._give_back(ready)
        pooled = self.durable.raw_connection()
        driver = Driver(pooled.driver_connection, False)
        try:
            driver.autocommit(True)
        except BaseException:
            pooled.invalidate()
            raise
        return _Ready(pooled, driver, time.monotonic() + READY_SECONDS)

    def _give_back(self, ready: _Ready) -> None:
        try:
            ready.driver.autocommit(False)
        except Exception:
            # It broke after its last statement, which concerns nobody.
            ready.pooled.invalidate()
        else:
            ready.pooled.close()

    def _take_back(self, ready: _Ready) -> None:
        """After an error: only a connection that is between transactions may be used again."""
        if ready.driver.is_broken:
            # The database went away, and with it every idle connection: the next try must not run into another one.
            ready.pooled.invalidate()
            self._let_go()
            self.durable.dispose()
        elif ready.driver.is_idle:
            self._give_back(ready)
        else:
            ready.pooled.invalidate()

    def _let_go(self) -> None:
        """Close the connections that are kept ready."""
        place, self._ready = self._ready, deque()
        with suppress(IndexError):
            while True:
                place.pop().pooled.invalidate()

    def _create(self) -> Engine:
        if self.is_sqlite:
            return self._sqlite()
        arguments: dict[str, Any] = {
            "connect_timeout": 5,
            "application_name": "axme-celery",
            "options": " ".join(f"-c {name}={value}" for name, value in _OPTIONS.items()),
            "keepalives_idle": 30,
            "keepalives_interval": 5,
            "keepalives_count": 3,
        }
        # What the user says in the URL goes before what we would say.
        arguments = {k: v for k, v in arguments.items() if k not in self.url.query}
        return create_engine(
            self.url, connect_args=arguments, pool_size=5, max_overflow=20, pool_use_lifo=True, pool_recycle=1800
        )

    def _sqlite(self) -> Engine:
        url = self.url
        if self.is_memory:
            if self._folder is None:
                self._folder = _temporary_folder(self)
            url = make_url("sqlite://").set(database=str(self._folder / "ledger.db"))
        arguments = {"timeout": SQLITE_BUSY_SECONDS, "check_same_thread": False}
        engine = create_engine(url, connect_args=arguments, poolclass=ForkedEmptyPool)
        synchronous = "OFF" if self.is_memory else "FULL"

        @event.listens_for(engine, "connect")
        def _prepare(connection: Any, _: Any) -> None:
            # The driver must not begin transactions by itself: it would begin them deferred.
            connection.isolation_level = None
            connection.execute("PRAGMA journal_mode=WAL").close()
            connection.execute(f"PRAGMA synchronous={synchronous}").close()

        @event.listens_for(engine, "begin")
        def _begin(connection: Connection) -> None:
            # A deferred transaction that reads and then writes fails with "database is locked" whatever the
            # timeout. Taking the write lock first makes writers queue instead.
            if not connection.get_execution_options().get("axme_read"):
                connection.exec_driver_sql("BEGIN IMMEDIATE")

        return engine

    def _after_fork(self) -> None:
        if self._engine is not None:
            _inherited.extend((self._engine, self._ready))
        # Another thread of the parent may have held the lock.
        self._engine, self._ready, self._lock = None, deque(), threading.Lock()


def _temporary_folder(owner: Engines) -> Path:
    """A folder, in memory if possible, that goes when its owner does or this process ends."""
    memory = Path("/dev/shm")
    usable = memory.is_dir() and os.access(memory, os.W_OK)
    folder = Path(tempfile.mkdtemp(prefix="axme-ledger-", dir=memory if usable else None))
    weakref.finalize(owner, _remove, folder, os.getpid())
    return folder


def _remove(folder: Path, maker: int) -> None:
    # A forked child has this finalizer too, and must leave the parent its ledger.
    if os.getpid() == maker:
        shutil.rmtree(folder, ignore_errors=True)


def _forked() -> None:
    for engines in list(_all):
        engines._after_fork()


os.register_at_fork(after_in_child=_forked)
