"""Connections to the ledger's database: made on first use, one set per process, never shared across a fork."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.pool import StaticPool

from ..errors import BadSetting

#: How long SQLite waits for another writer before it gives up.
SQLITE_BUSY_SECONDS = 30


class Engines:
    """The engines of one ledger URL for the process that asks.

    ``durable`` waits for the disk at commit, ``relaxed`` (PostgreSQL) does not. A forked child gets its own;
    the parent's sockets are left alone, for both would read each other's answers.
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
        self.is_memory = self.is_sqlite and self.url.database in (None, "", ":memory:")
        #: One connection serves all threads of an in-memory database, one at a time.
        self.exclusive = threading.RLock()
        self._lock = threading.Lock()
        self._pid = 0
        self._made: dict[str, Engine] = {}

    @property
    def durable(self) -> Engine:
        """Commits reach the disk before they return."""
        return self._engine("durable")

    @property
    def relaxed(self) -> Engine:
        """Commits may be lost if the database crashes within a moment; the same engine as ``durable`` on SQLite."""
        return self._engine("durable" if self.is_sqlite else "relaxed")

    @contextmanager
    def connect(self, *, durable: bool = True) -> Iterator[Connection]:
        """A connection for a few statements; an in-memory database serves one caller at a time."""
        engine = self.durable if durable else self.relaxed
        if self.is_memory:
            with self.exclusive, engine.connect() as connection:
                yield connection
        else:
            with engine.connect() as connection:
                yield connection

    def dispose(self) -> None:
        """Close this process's connections. The next use opens new ones."""
        with self._lock:
            for engine in self._made.values():
                engine.dispose(close=self._pid == os.getpid())
            self._made = {}

    def _engine(self, name: str) -> Engine:
        if self._pid == os.getpid():
            engine = self._made.get(name)
            if engine is not None:
                return engine
        with self._lock:
            if self._pid != os.getpid():
                # Forked: forget the parent's pools without closing their sockets.
                for engine in self._made.values():
                    engine.dispose(close=False)
                self._made, self._pid = {}, os.getpid()
            engine = self._made.get(name)
            if engine is None:
                engine = self._made[name] = self._create(name)
            return engine

    def _create(self, name: str) -> Engine:
        if self.is_sqlite:
            return _sqlite_engine(self.url, in_memory=self.is_memory)
        options = "-c idle_in_transaction_session_timeout=60000"
        if name == "relaxed":
            options += " -c synchronous_commit=off"
        arguments: dict[str, Any] = {"connect_timeout": 5, "application_name": "axme-celery", "options": options}
        arguments |= {"keepalives_idle": 30, "keepalives_interval": 5, "keepalives_count": 3}
        # What the user says in the URL goes before what we would say.
        arguments = {k: v for k, v in arguments.items() if k not in self.url.query}
        return create_engine(
            self.url, connect_args=arguments, pool_size=5, max_overflow=20, pool_use_lifo=True, pool_recycle=1800
        )


def _sqlite_engine(url: URL, *, in_memory: bool) -> Engine:
    arguments = {"timeout": SQLITE_BUSY_SECONDS, "check_same_thread": False}
    engine = (
        create_engine(url, connect_args=arguments, poolclass=StaticPool)
        if in_memory
        else create_engine(url, connect_args=arguments, pool_size=5, max_overflow=20, pool_use_lifo=True)
    )

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _: Any) -> None:
        # The driver must not begin transactions by itself: it would begin them deferred.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A deferred transaction that reads and then writes fails with "database is locked" whatever the
        # timeout. Taking the write lock first makes writers queue instead.
        if not connection.get_execution_options().get("axme_read"):
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine
