"""Making and identifying a ledger, and deleting what is old."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Sequence

from sqlalchemy import Connection, delete, insert, inspect, select

from ..errors import LedgerNotMigrated
from . import tables as t
from .engine import Engines

_making = threading.Lock()


def create_sqlite(engines: Engines) -> str:
    """Make the tables of a SQLite ledger unless they are there; returns its id."""
    with _making, engines.connect() as connection, connection.begin():
        # BEGIN IMMEDIATE: of several processes that start at once, one makes the tables.
        if not inspect(connection).has_table(t.meta.name):
            t.metadata.create_all(connection)
            stamp(connection)
        return ledger_id(connection)


def stamp(connection: Connection) -> None:
    """Give a new ledger its id, and note that it has every migration up to now."""
    connection.execute(insert(t.meta).values(key="ledger_id", value=uuid.uuid4().hex))


def ledger_id(connection: Connection) -> str:
    """The id given at the ledger's making."""
    found = connection.scalar(select(t.meta.c.value).where(t.meta.c.key == "ledger_id"))
    if found is None:
        raise LedgerNotMigrated("the ledger has tables but no id; run: axme-celery -A yourproject migrate")
    return str(found)


def delete_intents(connection: Connection, intent_ids: Sequence[str]) -> int:
    """Delete intents with their legs, checkpoints, waits, events and letters."""
    ids = sorted(intent_ids)
    if not ids:
        return 0
    legs_of = select(t.legs.c.id).where(t.legs.c.intent_id.in_(ids))
    waits_of = select(t.waits.c.id).where(t.waits.c.intent_id.in_(ids))
    connection.execute(delete(t.checkpoints).where(t.checkpoints.c.leg_id.in_(legs_of)))
    connection.execute(delete(t.wait_owners).where(t.wait_owners.c.wait_id.in_(waits_of)))
    connection.execute(delete(t.early_answers).where(t.early_answers.c.wait_id.in_(waits_of)))
    for table in (t.waits, t.legs, t.events, t.tags, t.dead_letters, t.outbox):
        connection.execute(delete(table).where(table.c.intent_id.in_(ids)))
    return int(connection.execute(delete(t.intents).where(t.intents.c.id.in_(ids))).rowcount)
