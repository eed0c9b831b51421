"""Crash points, from outside: every commit and every publish of this process is counted, and any can be hit.

Nothing of the package takes part. What is wrapped are the database drivers, where they commit (in whatever words, also
where a statement commits by itself), and kombu's publish. A commit that changes nothing is no point. The count is kept
in shared memory, so that it runs on through all processes of one trial.

At a point a fault may be:

    before    the process ends, nothing was done
    after     the process ends, it was done
    unknown   it was done, and the caller is told that the connection broke
    refused   it was not done, and the caller is told that the connection broke
    away      not done either; and the database is away for a while, whoever asks

On SQLite, which has no connection to break, "busy" is what the caller is told.
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
from psycopg.pq import TransactionStatus
from sqlalchemy import Engine, event

KILLED = 137


class Mode(StrEnum):
    """What happens at a point that is hit."""

    BEFORE = "before"
    AFTER = "after"
    UNKNOWN = "unknown"
    REFUSED = "refused"
    AWAY = "away"

    @property
    def kills(self) -> bool:
        """True where the process ends."""
        return self in (Mode.BEFORE, Mode.AFTER)


MODES = tuple(Mode)
#: How long the database is away, by the trial's clock: longer than anybody tries again, and longer than a lease.
AWAY_SECONDS = 20.0


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

    _LAYOUT = struct.Struct("qqqd")

    def __init__(self, log: Path, passed_seconds: Callable[[], float]) -> None:
        # Points reached, faults that happened, processes held up, until when the database is away.
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)
        self._passed_seconds = passed_seconds
        self._log = log
        self._faults: dict[int, Mode] = {}

    def arm(self, faults: tuple[Fault, ...]) -> None:
        """Start a trial: count from 1, with these faults."""
        self._LAYOUT.pack_into(self._memory, 0, 0, 0, 0, 0.0)
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

    @property
    def held_up(self) -> int:
        """Processes that were held up (``stalls.py``)."""
        return int(self._LAYOUT.unpack_from(self._memory)[2])

    def hold_up(self) -> None:
        """Note that a process is held up now."""
        count, hit, held_up, away_until = self._LAYOUT.unpack_from(self._memory)
        self._LAYOUT.pack_into(self._memory, 0, count, hit, held_up + 1, away_until)

    @property
    def is_away(self) -> bool:
        """Whether the database is away now."""
        return self._passed_seconds() < float(self._LAYOUT.unpack_from(self._memory)[3])

    def places(self) -> list[str]:
        """Where each point was, in order: "commit submit.submit"."""
        return self._log.read_text().splitlines()

    def reach(self, kind: str) -> Mode | None:
        """One more point; the fault that is due at it."""
        count, hit, held_up, away_until = self._LAYOUT.unpack_from(self._memory)
        mode = self._faults.get(count + 1)
        if mode is Mode.AWAY:
            away_until = self._passed_seconds() + AWAY_SECONDS
        self._LAYOUT.pack_into(self._memory, 0, count + 1, hit + (mode is not None), held_up, away_until)
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
    if mode in (Mode.REFUSED, Mode.AWAY):
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
    publish, commit = Producer.publish, psycopg.Connection.commit
    execute, execute_many = psycopg.Cursor.execute, psycopg.Cursor.executemany

    def watched_publish(self: Producer, *args: Any, **kwargs: Any) -> Any:
        return _at_point(
            "publish", lambda: publish(self, *args, **kwargs), lambda: BrokerError("connection reset (injected)")
        )

    def watched_commit(self: Any) -> None:
        _Postgres(self).ends(lambda: commit(self))

    def watched_execute(self: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        return _Postgres(self.connection).runs(query, lambda: execute(self, query, *args, **kwargs), self)

    def watched_execute_many(self: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        return _Postgres(self.connection).runs(query, lambda: execute_many(self, query, *args, **kwargs), self)

    Producer.publish = watched_publish
    psycopg.Connection.commit = watched_commit  # type: ignore[method-assign]
    psycopg.Cursor.execute = watched_execute  # type: ignore[method-assign]
    psycopg.Cursor.executemany = watched_execute_many  # type: ignore[method-assign]
    event.listen(Engine, "do_connect", _connect_watched)


#: How statements begin that write. "WITH F" is a tracker's, "WITH W" a whole transaction of the ledger's.
_WRITE = ("INSERT", "UPDATE", "DELETE", "WITH F", "WITH W")


class _Database:
    """What a connection does, as far as it concerns us: it runs a statement, or ends a transaction."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    in_transaction: bool
    #: Whether this transaction has changed anything.
    wrote: bool

    def runs(self, query: object, act: Callable[[], Any], cursor: Any) -> Any:
        """A statement: "COMMIT", or one that commits by itself, is a point."""
        verb = str(query).lstrip()[:6].upper()
        if self.refuses(verb):
            raise self.broken()
        if verb == "COMMIT":
            return self.ends(act)
        writes = verb in _WRITE
        if writes and not self.in_transaction:
            return _at_point("autocommit", act, self.broken)
        done = act()
        if writes and cursor.rowcount != 0:
            self.wrote = True
        return done

    def ends(self, act: Callable[[], Any]) -> Any:
        """A commit. Of nothing, it is no point."""
        if self.refuses("COMMIT"):
            raise self.broken()
        if not self.wrote:
            return act()
        self.wrote = False
        return _at_point("commit", act, self.broken)

    def refuses(self, verb: str) -> bool:
        """Whether the database is away, for what begins with this word."""
        return _control is not None and _control.is_away

    def broken(self) -> Exception:
        """Break the connection, as far as it can be broken; what its driver says to whoever uses it."""
        raise NotImplementedError


class _Postgres(_Database):
    @property
    def in_transaction(self) -> bool:  # type: ignore[override]
        # Without autocommit the driver begins one before the statement.
        return not self.connection.autocommit or self.connection.info.transaction_status != TransactionStatus.IDLE

    @property
    def wrote(self) -> bool:  # type: ignore[override]
        return getattr(self.connection, "chaos_wrote", False)

    @wrote.setter
    def wrote(self, wrote: bool) -> None:
        self.connection.chaos_wrote = wrote

    def broken(self) -> Exception:
        self.connection.close()
        return psycopg.OperationalError("server closed the connection unexpectedly (injected)")


class _Sqlite(_Database):
    in_transaction = property(lambda self: self.connection.in_transaction)  # type: ignore[assignment]
    wrote = property(  # type: ignore[assignment]
        lambda self: self.connection.wrote, lambda self, wrote: setattr(self.connection, "wrote", wrote)
    )

    def refuses(self, verb: str) -> bool:
        # Somebody else is writing, all that time; whoever reads is not held up.
        return super().refuses(verb) and verb in (*_WRITE, "BEGIN ")

    def broken(self) -> Exception:
        error = sqlite3.OperationalError("database is locked (injected)")
        error.sqlite_errorname = "SQLITE_BUSY"
        return error


class WatchedSqlite(sqlite3.Connection):
    """What SQLite's driver gives out here: its classes are C, and cannot be patched."""

    wrote = False

    def cursor(self, factory: Any = None) -> Any:
        return super().cursor(factory or WatchedCursor)

    def execute(self, sql: str, *parameters: Any) -> Any:
        return self.cursor().execute(sql, *parameters)

    def executemany(self, sql: str, *parameters: Any) -> Any:
        return self.cursor().executemany(sql, *parameters)

    def commit(self) -> None:
        _Sqlite(self).ends(super().commit)


class WatchedCursor(sqlite3.Cursor):
    def execute(self, sql: str, *parameters: Any) -> Any:
        return _Sqlite(self.connection).runs(sql, lambda: sqlite3.Cursor.execute(self, sql, *parameters), self)

    def executemany(self, sql: str, *parameters: Any) -> Any:
        return _Sqlite(self.connection).runs(sql, lambda: sqlite3.Cursor.executemany(self, sql, *parameters), self)


def _connect_watched(dialect: Any, record: Any, arguments: Any, options: dict[str, Any]) -> None:
    if dialect.name == "sqlite":
        options.setdefault("factory", WatchedSqlite)
    elif _control is not None and _control.is_away:
        raise psycopg.OperationalError("connection refused (injected)")
