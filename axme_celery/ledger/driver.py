"""A connection as its driver gives it, and statements compiled once for it.

SQLAlchemy's own begin, execute and commit cost several times what the database
does with a row. What every leg and step does goes this way instead: built with
SQLAlchemy Core, compiled once, run by the driver.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import Dialect, Executable, Select
from sqlalchemy.dialects import postgresql, sqlite

from ..errors import StaleChange

Row = Mapping[str, Any]

_PARAMETER = re.compile(r"\$(\d+)")
_RETURNING = re.compile(r' RETURNING [a-z_]+\."?([a-z_]+)"?$')


class Prepared:
    """A statement compiled once. Every ``bindparam`` in it is a key of the rows it is run with."""

    def __init__(self, statement: Executable, is_sqlite: bool) -> None:
        #: The same for SQLAlchemy, where the connection is the caller's.
        self.statement = statement
        dialect = _dialect(is_sqlite)
        compiled: Any = statement.compile(dialect=dialect)  # type: ignore[attr-defined]
        self.sql = str(compiled)
        binds = {name: bind for bind, name in compiled.bind_names.items()}
        names = tuple(compiled.positiontup or ())
        #: How many parameters it has.
        self.width = len(names)
        self._values = _picker(names)
        changes = [_to_driver(binds[name].type, dialect) for name in names]
        self._changes = [(place, change) for place, change in enumerate(changes) if change is not None]
        #: Values written in the statement itself.
        self._fixed = {name: bind.value for name, bind in binds.items() if not bind.required}
        self.results = (
            [_from_driver(column.type, dialect) for column in statement.selected_columns]
            if isinstance(statement, Select)
            else []
        )

    def parameters(self, row: Row) -> list[Any]:
        """What the driver is given for a row."""
        if self._fixed:
            row = {**self._fixed, **row}
        values = list(self._values(row))
        for place, change in self._changes:
            values[place] = change(values[place])
        return values


class Whole:
    """A whole transaction in one statement, for PostgreSQL: one round trip where there would be six or more.

    Each part writes one row, and they are carried out in the order given. Where a part must find its row and does not,
    a division by zero refuses the statement, and so the transaction.
    """

    #: What PostgreSQL says of a division by zero. No statement of ours divides otherwise.
    REFUSED = "22012"

    def __init__(
        self,
        parts: Sequence[tuple[Prepared, Row, bool]],
        refusal: str,
        note: Callable[[Prepared, int], None],
        counted: Sequence[Prepared] = (),
        *,
        durable: bool,
    ) -> None:
        shape = tuple((prepared, must_hit) for prepared, _, must_hit in parts)
        self._counted = tuple(n for n, (prepared, _) in enumerate(shape) if prepared in counted)
        self._note, self._shape = note, shape
        self.sql = _whole_sql(shape, self._counted, durable)
        #: What the driver is given.
        self.parameters = [value for prepared, row, _ in parts for value in prepared.parameters(row)]
        #: What no longer holds when it is refused.
        self.refusal = refusal

    def done(self, counts: Sequence[int]) -> None:
        """It was run. By those parts whose rows were to be counted it wrote so many, or gave this value of one."""
        for number, count in zip(self._counted, counts, strict=True):
            self._note(self._shape[number][0], count)


class Driver:
    """One borrowed connection. Outside ``begin`` each statement is a transaction of its own."""

    __slots__ = ("_connection", "_is_sqlite", "_statements")

    def __init__(self, connection: Any, is_sqlite: bool) -> None:
        self._connection = connection
        self._is_sqlite = is_sqlite
        # A raw cursor takes a statement as PostgreSQL does, with $1: any other of psycopg's reads through all of a long
        # one each time, which takes longer than the database does. SQLite's cursor would keep a statement open.
        self._statements = connection if is_sqlite else _raw_cursor(connection)

    def autocommit(self, on: bool) -> None:
        """Whether the driver leaves transactions to us, or begins them itself, as SQLAlchemy expects (PostgreSQL)."""
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
            return int(self._statements.execute(prepared.sql, prepared.parameters(rows[0])).rowcount)
        cursor = self._connection.cursor() if self._is_sqlite else _raw_cursor(self._connection)
        try:
            cursor.executemany(prepared.sql, [prepared.parameters(row) for row in rows])
            return int(cursor.rowcount)
        finally:
            cursor.close()

    def run_whole(self, whole: Whole) -> None:
        """Run and commit a whole transaction. If this raises anything but StaleChange, whether it did may be unknown."""
        try:
            _, *counts = self._statements.execute(whole.sql, whole.parameters).fetchone()
        except Exception as error:
            if getattr(error, "sqlstate", None) == Whole.REFUSED:
                raise StaleChange(whole.refusal) from None
            raise
        whole.done(counts)

    def fetch(self, prepared: Prepared, row: Row) -> list[tuple[Any, ...]]:
        """Run a query. Values are as the driver gives them; ``prepared.results`` changes them to ours."""
        found: list[tuple[Any, ...]] = self._statements.execute(prepared.sql, prepared.parameters(row)).fetchall()
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


@functools.lru_cache(maxsize=512)
def _whole_sql(shape: tuple[tuple[Prepared, bool], ...], counted: tuple[int, ...], durable: bool) -> str:
    parts: list[str] = []
    first = 0
    for number, (prepared, _) in enumerate(shape):
        sql = _PARAMETER.sub(lambda found, first=first: f"${first + int(found[1])}", prepared.sql)  # type: ignore[misc]
        first += prepared.width
        parts.append(f"w{number} AS ({sql})" if _gives(prepared) else f"w{number} AS ({sql} RETURNING 1)")
    demands = [f"(SELECT count(*) FROM w{number}) = 1" for number, (_, must_hit) in enumerate(shape) if must_hit]
    results = [f"1 / ({' AND '.join(demands) or 'true'})::int"]
    if not durable:
        # Until the end of this transaction, which is this statement.
        results[0] += " + length(set_config('synchronous_commit', 'off', true))"
    for number in counted:
        given = _gives(shape[number][0])
        results.append(f"(SELECT {f'max({given})' if given else 'count(*)'} FROM w{number})")
    return f"WITH {', '.join(parts)} SELECT {', '.join(results)}"


def _gives(prepared: Prepared) -> str | None:
    """The one column that a statement returns of its own accord, quoted; None where it returns nothing."""
    found = _RETURNING.search(prepared.sql)
    return None if found is None else f'"{found[1]}"'


@functools.cache
def _dialect(is_sqlite: bool) -> Dialect:
    if is_sqlite:
        return sqlite.dialect(paramstyle="qmark")
    return postgresql.psycopg.dialect(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]


def _raw_cursor(connection: Any) -> Any:
    # Imported here: a ledger on SQLite has no use for it.
    from psycopg import RawCursor

    return RawCursor(connection)


def _picker(names: tuple[str, ...]) -> Callable[[Row], tuple[Any, ...]]:
    """Takes these of a row, all at once: in half the time of one after the other."""
    return itemgetter(*names) if len(names) > 1 else lambda row: tuple(row[name] for name in names)


def _to_driver(of: Any, dialect: Dialect) -> Callable[[Any], Any] | None:
    change: Callable[[Any], Any] | None = of.dialect_impl(dialect).bind_processor(dialect)
    return change


def _from_driver(of: Any, dialect: Dialect) -> Callable[[Any], Any] | None:
    change: Callable[[Any], Any] | None = of.dialect_impl(dialect).result_processor(dialect, None)
    return change
