"""A connection as its driver gives it, and statements compiled once for it.

SQLAlchemy's own begin, execute and commit cost several times what the database
does with a row. What every leg and step does goes this way instead: built with
SQLAlchemy Core, compiled once, run by the driver.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Dialect, Executable, Select
from sqlalchemy.dialects import postgresql, sqlite

Row = Mapping[str, Any]


class Prepared:
    """A statement compiled once. Every ``bindparam`` in it is a key of the rows it is run with."""

    def __init__(self, statement: Executable, is_sqlite: bool) -> None:
        #: The same for SQLAlchemy, where the connection is the caller's.
        self.statement = statement
        dialect = _dialect(is_sqlite)
        compiled: Any = statement.compile(dialect=dialect)  # type: ignore[attr-defined]
        self.sql = str(compiled)
        binds = {name: bind for bind, name in compiled.bind_names.items()}
        names: Sequence[str] = compiled.positiontup if is_sqlite else list(binds)
        self._is_sqlite = is_sqlite
        self._binds = [(name, _to_driver(binds[name].type, dialect)) for name in names]
        #: Values written in the statement itself.
        self._fixed = {name: bind.value for name, bind in binds.items() if not bind.required}
        self.results = (
            [_from_driver(column.type, dialect) for column in statement.selected_columns]
            if isinstance(statement, Select)
            else []
        )

    def parameters(self, row: Row) -> Any:
        """What the driver is given for a row."""
        if self._fixed:
            row = {**self._fixed, **row}
        if self._is_sqlite:
            return [row[name] if change is None else change(row[name]) for name, change in self._binds]
        return {name: row[name] if change is None else change(row[name]) for name, change in self._binds}


class Driver:
    """One borrowed connection. Outside ``begin`` each statement is a transaction of its own."""

    __slots__ = ("_connection", "_is_sqlite")

    def __init__(self, connection: Any, is_sqlite: bool) -> None:
        self._connection = connection
        self._is_sqlite = is_sqlite

    def autocommit(self, on: bool) -> None:
        """Whether the driver leaves transactions to us, or begins them itself, as SQLAlchemy expects (psycopg)."""
        if not self._is_sqlite:
            self._connection.autocommit = on

    def begin(self, *, durable: bool) -> None:
        """Begin to write. Unless ``durable``, the commit will not wait for the disk (PostgreSQL)."""
        if self._is_sqlite:
            # Deferred, it could fail with "database is locked" at its first write whatever the timeout.
            self._connection.execute("BEGIN IMMEDIATE")
        else:
            # Each change says itself what it was decided on, so more isolation than this would only cost retries.
            relaxed = "" if durable else "; SET LOCAL synchronous_commit TO OFF"
            self._connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED" + relaxed, prepare=False)

    def commit(self) -> None:
        """Commit. If this raises, whether it did is unknown."""
        self._plain("COMMIT")

    def roll_back(self) -> None:
        """Undo what was begun; on a connection that is gone the database has done so."""
        if not self.is_idle and not self.is_broken:
            self._plain("ROLLBACK")

    def run(self, prepared: Prepared, rows: Sequence[Row]) -> int:
        """Run a statement for each row; returns how many rows it wrote in all."""
        if len(rows) == 1:
            return int(self._connection.execute(prepared.sql, prepared.parameters(rows[0])).rowcount)
        cursor = self._connection.cursor()
        try:
            cursor.executemany(prepared.sql, [prepared.parameters(row) for row in rows])
            return int(cursor.rowcount)
        finally:
            cursor.close()

    def fetch(self, prepared: Prepared, row: Row) -> list[tuple[Any, ...]]:
        """Run a query. Values are as the driver gives them; ``prepared.results`` changes them to ours."""
        found: list[tuple[Any, ...]] = self._connection.execute(prepared.sql, prepared.parameters(row)).fetchall()
        return found

    @property
    def is_broken(self) -> bool:
        """True when the database is no longer at the other end."""
        return not self._is_sqlite and bool(self._connection.closed)

    @property
    def is_idle(self) -> bool:
        """True when no transaction is open and no statement is under way."""
        if self._is_sqlite:
            return not self._connection.in_transaction
        return int(self._connection.info.transaction_status) == 0

    def _plain(self, sql: str) -> None:
        if self._is_sqlite:
            self._connection.execute(sql)
        else:
            self._connection.execute(sql, prepare=False)


@functools.cache
def _dialect(is_sqlite: bool) -> Dialect:
    if is_sqlite:
        return sqlite.dialect(paramstyle="qmark")
    return postgresql.psycopg.dialect()  # type: ignore[no-untyped-call]


def _to_driver(of: Any, dialect: Dialect) -> Callable[[Any], Any] | None:
    change: Callable[[Any], Any] | None = of.dialect_impl(dialect).bind_processor(dialect)
    return change


def _from_driver(of: Any, dialect: Dialect) -> Callable[[Any], Any] | None:
    change: Callable[[Any], Any] | None = of.dialect_impl(dialect).result_processor(dialect, None)
    return change
