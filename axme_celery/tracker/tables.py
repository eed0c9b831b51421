"""The tracker's tables, for a ledger's database where there is no Redis.

Moments are whole microseconds since 1970: the same arithmetic on every database.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import DDL, BigInteger, Column, Double, Index, Integer, MetaData, Table, Text, event


@dataclass(frozen=True)
class TrackerTables:
    """The five tables."""

    leases: Table
    timers: Table
    progress: Table
    ticks: Table
    locks: Table


def tracker_tables(metadata: MetaData) -> TrackerTables:
    """Define the tables on a MetaData, which creates them like its own.

    On PostgreSQL they are UNLOGGED: a crash of the database empties them, which is what a
    tracker may do, and a commit to them waits for no disk.
    """
    tables = TrackerTables(
        # No index on ends_at: there are as many rows as legs running, and renewing one
        # then writes no index, but the row once more into its page, which has room for it.
        leases=Table(
            "axme_leases",
            metadata,
            Column("leg_id", Text, primary_key=True),
            Column("run", Integer, primary_key=True, autoincrement=False),
            Column("ends_at", BigInteger, nullable=False),
        ),
        timers=Table(
            "axme_timers",
            metadata,
            Column("kind", Text, primary_key=True),
            Column("id", Text, primary_key=True),
            # By the ledger's clock.
            Column("due_at", BigInteger, nullable=False),
            # A taken timer is not seen until then; null when it is not taken.
            Column("hidden_until", BigInteger),
        ),
        progress=Table(
            "axme_progress",
            metadata,
            Column("leg_id", Text, primary_key=True),
            Column("done", Double, nullable=False),
            Column("total", Double),
            Column("note", Text),
            Column("said_at", BigInteger, nullable=False, index=True),
        ),
        ticks=Table(
            "axme_ticks",
            metadata,
            Column("sweeper", Text, primary_key=True),
            Column("swept_at", BigInteger, nullable=False),
        ),
        locks=Table(
            "axme_locks",
            metadata,
            Column("name", Text, primary_key=True),
            Column("owner", Text, nullable=False),
            Column("ends_at", BigInteger, nullable=False),
        ),
    )
    timers = tables.timers.c
    # Two partial indexes, so that a hundred thousand hidden timers are not walked over to find the next seen one.
    seen, hidden = timers.hidden_until.is_(None), timers.hidden_until.is_not(None)
    Index("ix_axme_timers_due", timers.due_at, postgresql_where=seen, sqlite_where=seen)
    Index("ix_axme_timers_hidden", timers.hidden_until, postgresql_where=hidden, sqlite_where=hidden)

    changes = dict.fromkeys(vars(tables).values(), "SET UNLOGGED")
    changes[tables.leases] += ", SET (fillfactor = 50)"
    for table, change in changes.items():
        alter = DDL(f"ALTER TABLE %(fullname)s {change}")  # type: ignore[no-untyped-call]
        event.listen(table, "after_create", alter.execute_if(dialect="postgresql"))
    return tables
