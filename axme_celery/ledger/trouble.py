"""What an error of the database or its driver means: try again, decide again, or tell the caller."""

from __future__ import annotations

import random

from sqlalchemy.exc import DBAPIError, OperationalError

from ..errors import AxmeError, BadInput, LedgerNotMigrated, LedgerUnavailable

#: SQLSTATEs that mean "try the whole transaction again": serialization, deadlock, lock not available.
_TRY_AGAIN = {"40001", "40P01", "55P03"}
#: ... and those of a server that is going down, coming up or has no place left.
_GOING_AWAY = {"57P01", "57P02", "57P03", "08000", "08001", "08003", "08004", "08006", "53300", "25P03"}
#: A value that no column takes: too long, or with a character the database does not keep.
_UNFIT = {"22001", "22021", "22P05", "54000"}
#: What SQLite says of a place where it can make no file, and of a file that is none of its own.
_CANNOT_OPEN = ("SQLITE_CANTOPEN", "SQLITE_NOTADB")
#: What PostgreSQL says, in English, to whom it lets in nowhere; psycopg hands its SQLSTATE on only once it is connected.
#: In another language the caller is told to try again, and of the setting all the same.
_NOT_LET_IN = ("does not exist", "authentication failed", "no pg_hba.conf entry")
_UNIQUE = {"SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY"}


def is_transient(error: BaseException) -> bool:
    """Whether the same thing may succeed if tried again: connection gone, deadlock, busy."""
    original = _original(error)
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    state = getattr(original, "sqlstate", None)
    if state is not None:
        return state in _TRY_AGAIN or state in _GOING_AWAY
    name = getattr(original, "sqlite_errorname", None)
    if name is not None:
        return str(name).startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))
    # No SQLSTATE: psycopg's own report of a connection that broke or was never made.
    kind = type(original)
    return kind.__module__.split(".")[0] == "psycopg" and kind.__name__ == "OperationalError"


def is_gone(error: BaseException) -> bool:
    """Whether the database went away, rather than refused a statement: whatever was under way is undone."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    return getattr(_original(error), "sqlstate", None) in _GOING_AWAY


def is_refusal(error: BaseException) -> bool:
    """Whether the database refused what it was asked to do, and would again, rather than being unable to do anything.

    The latter (no connection, no space, no memory, no time) is what the DB-API calls operational errors.
    """
    return isinstance(error, DBAPIError) and not isinstance(error, OperationalError)


def is_taken(error: BaseException) -> bool:
    """Whether a key that must be unique is another row's already."""
    original = _original(error)
    if getattr(original, "sqlstate", None) == "23505":
        return True
    return getattr(original, "sqlite_errorname", None) in _UNIQUE


def told(error: BaseException, *, at: str = "", unknown: bool = False) -> AxmeError:
    """The error the caller is told.

    at:      which database, as people are told it.
    unknown: the reply to a commit was lost, and what became of it is not known.
    """
    original = _original(error)
    words = (str(original).strip() or type(original).__name__).splitlines()[0]
    state = getattr(original, "sqlstate", None)
    if state == "42P01" or "no such table" in words:
        return LedgerNotMigrated(f"the ledger lacks a table ({words}); run: axme-celery -A yourproject migrate")
    if state in _UNFIT or type(original).__name__ == "DataError":
        return BadInput(f"the ledger's database cannot keep a value: {words}; nothing was written")
    if unknown:
        return LedgerUnavailable(
            f"the ledger's database was lost at the commit: {words}; it is whole or not there at all: "
            f"look for it before you try again"
        )
    which = f"{at} (axme_ledger_url)" if at else "(axme_ledger_url)"
    if _is_not_there(original, words):
        return LedgerUnavailable(
            f"the ledger's database {which} cannot be opened: {words}; nothing was done: correct the setting, "
            f"or create what it names"
        )
    return LedgerUnavailable(f"the ledger's database {which} did not take this: {words}; nothing half-done, try again")


def pause_seconds(attempt: int) -> float:
    """How long to wait before the next try: doubling from 50 ms, with jitter."""
    return random.uniform(0.2, 1.0) * 0.05 * 2.0**attempt


def _is_not_there(original: BaseException, words: str) -> bool:
    """Whether there is no such database for us: trying again finds none either."""
    if str(getattr(original, "sqlite_errorname", None)).startswith(_CANNOT_OPEN):
        return True
    is_psycopg = type(original).__module__.split(".")[0] == "psycopg"
    return is_psycopg and getattr(original, "sqlstate", None) is None and any(part in words for part in _NOT_LET_IN)


def _original(error: BaseException) -> BaseException:
    if isinstance(error, DBAPIError) and error.orig is not None:
        return error.orig
    return error
