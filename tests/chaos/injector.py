"""Crash points, from outside: every commit and every publish of this process is counted, and any can be hit.

Nothing of the package takes part. What is wrapped is SQLAlchemy's commit, the drivers' own execute where a statement
commits by itself (the hot path and the SQL tracker run so), and kombu's publish. The count is kept in shared memory,
so that it runs on through all processes of one trial.

At a point a fault may be:

    before    the process ends, nothing was done
    after     the process ends, it was done
    unknown   it was done, and the caller is told that the connection broke
    refused   it was not done, and the caller is told that the connection broke
"""

from __future__ import annotations

import mmap
import os
import sqlite3
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import psycopg
from kombu.exceptions import OperationalError as BrokerError
from kombu.messaging import Producer
from sqlalchemy import Engine, event
from sqlalchemy.engine.default import DefaultDialect

KILLED = 137


class Mode(StrEnum):
    """What happens at a point that is hit."""

    BEFORE = "before"
    AFTER = "after"
    UNKNOWN = "unknown"
    REFUSED = "refused"

    @property
    def kills(self) -> bool:
        """True where the process ends."""
        return self in (Mode.BEFORE, Mode.AFTER)


MODES = tuple(Mode)


@dataclass(frozen=True)
class Fault:
    """Hit the ``at``-th point of the trial, from 1."""

    at: int
    mode: Mode

    def __str__(self) -> str:
        return f"{self.at}:{self.mode}"

    @classmethod
    def parse(cls, text: str) -> Fault:
        at, _, mode = text.partition(":")
        return cls(int(at), Mode(mode))


class Control:
    """The count and the targets of one trial, shared by its processes; and the log of the points reached."""

    _LAYOUT = struct.Struct("qq")

    def __init__(self, log: Path) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)
        self._log = log
        self._faults: dict[int, Mode] = {}

    def arm(self, faults: tuple[Fault, ...]) -> None:
        """Start a trial: count from 1, with these faults."""
        self._LAYOUT.pack_into(self._memory, 0, 0, 0)
        self._faults = {fault.at: fault.mode for fault in faults}
        self._log.write_text("")

    @property
    def count(self) -> int:
        """Points reached."""
        return int(self._LAYOUT.unpack_from(self._memory)[0])

    @property
    def hit(self) -> int:
        """Faults that happened."""
        return int(self._LAYOUT.unpack_from(self._memory)[1])

    def places(self) -> list[str]:
        """Where each point was, in order: "commit submit.submit"."""
        return self._log.read_text().splitlines()

    def reach(self, kind: str) -> Mode | None:
        """One more point; the fault that is due at it."""
        count, hit = self._LAYOUT.unpack_from(self._memory)
        mode = self._faults.get(count + 1)
        self._LAYOUT.pack_into(self._memory, 0, count + 1, hit + (mode is not None))
        with self._log.open("a") as log:
            log.write(f"{kind} {_place()}\n")
        return mode


_control: Control | None = None


def watch(control: Control | None) -> None:
    """Count the points of this process (and of those forked from it) there; None: leave it alone again."""
    global _control
    _install()
    _control = control


def _at_point(kind: str, act: Callable[[], Any], lose: Callable[[], Exception]) -> Any:
    """Do what the point is for, with the fault that is due. ``lose`` breaks the connection and says so."""
    mode = None if _control is None else _control.reach(kind)
    if mode is Mode.BEFORE:
        os._exit(KILLED)
    if mode is Mode.REFUSED:
        raise lose()
    done = act()
    if mode is Mode.AFTER:
        os._exit(KILLED)
    if mode is Mode.UNKNOWN:
        raise lose()
    return done


def _place() -> str:
    """The innermost function of the package, and the verb it works for: "tracker.sql.hold leg.claim"."""
    frame, found = sys._getframe(2), []
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name.startswith("axme_celery.") and "<" not in frame.f_code.co_name:
            found.append((name.removeprefix("axme_celery."), frame.f_code.co_name))
        frame = frame.f_back  # type: ignore[assignment]
    stores = ("ledger", "tracker")
    parts = [next((f"{m}.{f}" for m, f in found if m.startswith("tracker") and not f.startswith("_")), "")]
    parts.append(
        next((f"{m}.{f}" for m, f in found if not m.startswith((*stores, "beats")) and f != "decide"), "the test")
    )
    return " ".join(part for part in parts if part)


# -- what is wrapped -----------------------------------------------------------------

_installed = False


def _install() -> None:
    global _installed
    if _installed:
        return
    _installed = True
    commit, publish, execute = DefaultDialect.do_commit, Producer.publish, psycopg.Connection.execute

    def do_commit(self: DefaultDialect, connection: Any) -> None:
        _at_point("commit", lambda: commit(self, connection), lambda: _broken(connection))

    def watched_publish(self: Producer, *args: Any, **kwargs: Any) -> Any:
        return _at_point(
            "publish", lambda: publish(self, *args, **kwargs), lambda: BrokerError("connection reset (injected)")
        )

    def watched_execute(self: psycopg.Connection[Any], query: Any, *args: Any, **kwargs: Any) -> Any:
        if not (self.autocommit and _writes(query)):
            return execute(self, query, *args, **kwargs)
        return _at_point("autocommit", lambda: execute(self, query, *args, **kwargs), lambda: _broken(self))

    DefaultDialect.do_commit = do_commit  # type: ignore[method-assign]
    Producer.publish = watched_publish
    psycopg.Connection.execute = watched_execute  # type: ignore[method-assign]
    event.listen(Engine, "do_connect", _connect_watched)
    event.listen(Engine, "before_cursor_execute", _before_statement)
    event.listen(Engine, "after_cursor_execute", _after_statement)


class WatchedSqlite(sqlite3.Connection):
    """What SQLite's driver gives out here. The hot path executes on the connection, SQLAlchemy on cursors."""

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        def act() -> sqlite3.Cursor:
            return sqlite3.Connection.execute(self, sql, *parameters)

        if self.in_transaction or not _writes(sql):
            return act()
        return _at_point("autocommit", act, lambda: _broken(self))  # type: ignore[no-any-return]


def _connect_watched(dialect: Any, record: Any, arguments: Any, options: dict[str, Any]) -> None:
    if dialect.name == "sqlite":
        options.setdefault("factory", WatchedSqlite)


def _before_statement(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
    """SQLAlchemy's statements that commit by themselves: PostgreSQL in AUTOCOMMIT."""
    if _control is None or not getattr(cursor.connection, "autocommit", False) or not _writes(statement):
        return
    if connection.dialect.name != "postgresql":
        return
    mode = _control.reach("autocommit")
    if mode is Mode.BEFORE:
        os._exit(KILLED)
    if mode is Mode.REFUSED:
        raise _broken(cursor.connection)
    context.chaos_mode = mode


def _after_statement(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
    mode = getattr(context, "chaos_mode", None)
    if mode is Mode.AFTER:
        os._exit(KILLED)
    if mode is Mode.UNKNOWN:
        raise _broken(cursor.connection)


def _writes(statement: object) -> bool:
    return isinstance(statement, str) and statement.lstrip()[:6].upper() in ("INSERT", "UPDATE", "DELETE", "WITH F")


def _broken(connection: Any) -> Exception:
    """Really break the connection, and what its driver says to whoever uses it."""
    connection = getattr(connection, "dbapi_connection", connection)  # not the pool's stand-in for it
    connection.close()
    if isinstance(connection, sqlite3.Connection):
        return sqlite3.ProgrammingError("Cannot operate on a closed database.")
    return psycopg.OperationalError("server closed the connection unexpectedly (injected)")
