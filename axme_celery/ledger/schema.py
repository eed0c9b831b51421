"""Making and identifying a ledger, telling its version, and deleting what is old."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Sequence

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    bindparam,
    delete,
    insert,
    inspect,
    select,
    tuple_,
)

from ..errors import LedgerNotMigrated
from . import tables as t
from . import tables_hooks as th
from .driver import Driver, Prepared
from .engine import Engines

#: The last migration this code knows. It works with a ledger that has it, or later ones: those only add.
REVISION = "0001"

#: Alembic's own, under a name of ours: the database may hold other people's migrations.
VERSION_TABLE = Table(
    "axme_alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="axme_alembic_version_pkc"),
)


def create_sqlite(engines: Engines) -> None:
    """Make the tables of a SQLite ledger unless they are there."""
    with engines.connect() as connection:
        connection.execution_options(axme_read=True)
        if inspect(connection).has_table(t.meta.name):
            return
    # BEGIN IMMEDIATE: of several processes that start at once, one makes the tables.
    with engines.connect() as connection, connection.begin():
        if not inspect(connection).has_table(t.meta.name):
            create(connection)


def create(connection: Connection) -> None:
    """Make every table, as the migrations would."""
    t.metadata.create_all(connection)
    VERSION_TABLE.create(connection)
    connection.execute(insert(VERSION_TABLE).values(version_num=REVISION))
    connection.execute(insert(t.meta).values(key="ledger_id", value=uuid.uuid4().hex))


def revision(connection: Connection) -> str | None:
    """The last migration this ledger has had; None when it has no tables."""
    if not inspect(connection).has_table(VERSION_TABLE.name):
        return None
    found = connection.scalar(select(VERSION_TABLE.c.version_num))
    return None if found is None else str(found)


def require(connection: Connection) -> None:
    """Raise LedgerNotMigrated unless the tables are there and new enough for this code."""
    found = revision(connection)
    if found is None:
        raise LedgerNotMigrated("the ledger has no tables yet; run: axme-celery -A yourproject migrate")
    if found < REVISION:
        raise LedgerNotMigrated(
            f"the ledger's tables are at revision {found} and this version needs {REVISION}; "
            f"run: axme-celery -A yourproject migrate"
        )


def ledger_id(connection: Connection) -> str:
    """The id given at the ledger's making."""
    found = connection.scalar(select(t.meta.c.value).where(t.meta.c.key == "ledger_id"))
    if found is None:
        raise LedgerNotMigrated("the ledger has tables but no id; run: axme-celery -A yourproject migrate")
    return str(found)


def delete_intents(driver: Driver, intent_ids: Sequence[str], is_sqlite: bool) -> int:
    """Delete intents with their legs, checkpoints, waits, events and letters. Returns how many there were."""
    rows = [{"intent_id": intent_id} for intent_id in sorted(intent_ids)]
    counts = [driver.run(prepared, rows) for prepared in _deletions(is_sqlite)] if rows else [0]
    return counts[-1]


@functools.cache
def _deletions(is_sqlite: bool) -> tuple[Prepared, ...]:
    """Statements that delete one intent, itself last."""
    intent_id: ColumnElement[str] = bindparam("intent_id")
    legs_of = select(t.legs.c.id).where(t.legs.c.intent_id == intent_id)
    waits_of = select(t.waits.c.id).where(t.waits.c.intent_id == intent_id)
    statements = [
        delete(t.checkpoints).where(t.checkpoints.c.leg_id.in_(legs_of)),
        delete(t.wait_owners).where(t.wait_owners.c.wait_id.in_(waits_of)),
        delete(t.wait_barred).where(t.wait_barred.c.wait_id.in_(waits_of)),
        delete(t.early_answers).where(t.early_answers.c.wait_id.in_(waits_of)),
        # Of jobs that were reported only when nobody waited for them any more.
        delete(t.early_answers).where(
            t.early_answers.c.wait_id.is_(None),
            tuple_(t.early_answers.c.tool, t.early_answers.c.job_id).in_(
                select(t.waits.c.tool, t.waits.c.job_id).where(t.waits.c.intent_id == intent_id)
            ),
        ),
        *(
            delete(table).where(table.c.intent_id == intent_id)
            for table in (
                t.waits,
                t.legs,
                t.joins,
                t.events,
                t.tags,
                t.dead_letters,
                t.outbox,
                t.offers,
                t.messages,
                t.links,
                th.hook_deliveries,
                th.hook_events,
            )
        ),
        delete(t.intents).where(t.intents.c.id == intent_id),
    ]
    return tuple(Prepared(statement, is_sqlite) for statement in statements)
