"""A COMMIT that SQLite refuses, keeping the transaction open: nothing of it may be seen or committed afterwards."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, insert, text
from sqlalchemy.exc import OperationalError

from axme_celery.errors import LedgerUnavailable
from axme_celery.ledger import SqlLedger, tables
from axme_celery.ledger.rows import to_row
from axme_celery.model import Checkpoint, Fence, Leg, LegStatus


class Refusing(sqlite3.Connection):
    """Refuses its next commits, as SQLite does when it cannot get at its file."""

    refusals = 0

    def commit(self) -> None:
        if Refusing.refusals:
            Refusing.refusals -= 1
            raise sqlite3.OperationalError("database or disk is full")
        super().commit()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqlLedger]:
    def connect(dialect: Any, record: Any, arguments: Any, options: dict[str, Any]) -> None:
        options["factory"] = Refusing

    event.listen(Engine, "do_connect", connect)
    ledger = SqlLedger(f"sqlite:///{tmp_path}/axme.db")
    assert ledger.id
    yield ledger
    ledger.close()
    event.remove(Engine, "do_connect", connect)
    Refusing.refusals = 0


def test_what_a_refused_commit_wrote_is_gone(ledger: SqlLedger):
    """The connection comes back to the pool without the transaction, and whoever borrows it next sees the truth."""
    with ledger.engines.connect() as connection, connection.begin():
        connection.execute(text("CREATE TABLE mine (n INTEGER)"))
    Refusing.refusals = 1

    with pytest.raises(OperationalError, match="disk is full"), ledger.engines.connect() as connection:
        connection.execute(text("INSERT INTO mine VALUES (1)"))
        connection.commit()

    with ledger.engines.connect() as connection:
        assert not connection.connection.driver_connection.in_transaction
        assert connection.scalar(text("SELECT count(*) FROM mine")) == 0


def test_a_transaction_step_whose_commit_was_refused_is_not_taken_for_recorded(ledger: SqlLedger):
    """Its record, still in the open transaction, would have been found by the look that follows a lost reply."""
    recorded = Checkpoint(leg_id="leg", name="book", nth=1, position=0, run=1, value='"done"')
    with ledger.engines.connect() as connection, connection.begin():
        leg = Leg(
            id="leg",
            intent_id="i",
            task="t",
            signature={},
            status=LegStatus.RUNNING,
            token="claim",
            created_at=datetime.now(UTC),
        )
        connection.execute(insert(tables.legs), to_row(leg))
    Refusing.refusals = 1

    with pytest.raises(LedgerUnavailable):
        ledger.transaction(lambda connection: recorded, Fence("leg", 1, "claim"))

    assert ledger.checkpoint("leg", "book", 1) is None
