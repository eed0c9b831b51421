"""Bring a ledger's tables up to this version. The only module that needs Alembic."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, func, select
from sqlalchemy.exc import SQLAlchemyError

from ..errors import LedgerUnavailable
from . import schema
from .engine import Engines

#: Of PostgreSQL's advisory locks: whoever has it migrates. "axme" in ASCII.
LOCK = 0x61786D65
#: Alembic keeps what it is at in global variables.
_one_at_a_time = threading.Lock()


def upgrade(url: str, *, sql: bool = False) -> str:
    """Make the ledger's tables, or bring them up to this version; harmless to run again, and by two at once.

    Everything happens in one transaction. Workers may go on meanwhile: migrations only add.

    sql: change nothing, only return the SQL that an empty database would need, for someone else to run.

    Returns the revision the ledger is at now, or the SQL. Raises LedgerUnavailable, BadSetting.
    """
    engines = Engines(url)
    if sql:
        return _as_sql("sqlite" if engines.is_sqlite else "postgresql")
    with _one_at_a_time, _connected(engines) as connection:
        # On SQLite the transaction itself is the lock: it begins as a writer's.
        if not engines.is_sqlite:
            connection.execute(select(func.pg_advisory_xact_lock(LOCK)))
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        revision = schema.revision(connection)
    return revision or ""


def current(url: str) -> str | None:
    """The revision the ledger at this URL is at; None when it has no tables. Raises LedgerUnavailable, BadSetting."""
    with _connected(Engines(url)) as connection:
        return schema.revision(connection)


def head() -> str:
    """The revision this version of the code brings a ledger to."""
    return str(ScriptDirectory.from_config(_config()).get_current_head())


def _as_sql(dialect: str) -> str:
    config, text = _config(), io.StringIO()
    config.output_buffer = text
    config.attributes["dialect"] = dialect
    with _one_at_a_time:
        command.upgrade(config, "head", sql=True)
    return text.getvalue()


@contextmanager
def _connected(engines: Engines) -> Iterator[Connection]:
    try:
        with engines.connect() as connection, connection.begin():
            yield connection
    except SQLAlchemyError as error:
        raise LedgerUnavailable(f"the ledger at {engines.named} was not migrated, and is as it was: {error}") from error
    finally:
        engines.dispose()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    return config


__all__ = ["current", "head", "upgrade"]
