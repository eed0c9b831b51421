"""The hot path: one checkpoint in one round trip and one commit.

The statement is built with SQLAlchemy and compiled once, then run by the driver
itself in autocommit: SQLAlchemy's begin, insert and commit cost four times the
bare insert.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine, bindparam, literal_column, select
from sqlalchemy.dialects import postgresql, sqlite

from ..model import Checkpoint
from . import tables

_NAMES = ("leg_id", "name", "nth", "position", "run", "recorded", "value", "at")


class CheckpointWriter:
    """Inserts a checkpoint where its run still is the running one."""

    def __init__(self, is_sqlite: bool) -> None:
        self._is_sqlite = is_sqlite
        self._sql, self._order = _compile(is_sqlite)

    def write(self, engine: Engine, checkpoint: Checkpoint, at: datetime) -> bool:
        """True when inserted; False when this run is no longer the running one, or the key is taken."""
        values = {name: getattr(checkpoint, name) for name in _NAMES}
        values["recorded"] = checkpoint.recorded.value
        values["at"] = at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f") if self._is_sqlite else at
        pooled = engine.raw_connection()
        try:
            connection: Any = pooled.driver_connection
            if self._is_sqlite:
                # isolation_level is None on these connections: each statement is its own transaction.
                return bool(connection.execute(self._sql, [values[n] for n in self._order]).rowcount == 1)
            if not connection.autocommit:
                connection.autocommit = True
            return bool(connection.execute(self._sql, values, prepare=True).rowcount == 1)
        except BaseException:
            # After an error of any kind nobody knows what the connection is in the middle of.
            pooled.invalidate()
            raise
        finally:
            pooled.close()


def _compile(is_sqlite: bool) -> tuple[str, list[str]]:
    """The guarded insert as driver SQL, and the order of its parameters (SQLite)."""
    legs, table = tables.legs, tables.checkpoints
    values = [bindparam(n, type_=table.c[n].type.impl if n == "at" else table.c[n].type) for n in _NAMES]  # type: ignore[attr-defined]
    guard = (
        select(*values)
        .select_from(legs)
        .where(legs.c.id == bindparam("leg_id"), legs.c.run == bindparam("run"), legs.c.status == literal_column("'RUNNING'"))
    )  # fmt: skip
    if is_sqlite:
        statement: Any = sqlite.insert(table).from_select(_NAMES, guard).on_conflict_do_nothing()
        compiled = statement.compile(
            dialect=sqlite.dialect(paramstyle="qmark")
        )
        return str(compiled), list(compiled.positiontup or ())
    statement = postgresql.insert(table).from_select(_NAMES, guard.with_for_update()).on_conflict_do_nothing()
    dialect = postgresql.psycopg.dialect()  # type: ignore[no-untyped-call]
    compiled = statement.compile(dialect=dialect)
    return str(compiled), []
