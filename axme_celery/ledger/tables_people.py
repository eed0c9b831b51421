"""Tables of what lies on people's desks: whose inbox a wait is in, who may not answer it, and the links that lead to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Boolean, Column, Index, MetaData, PrimaryKeyConstraint, String, Table, text


@dataclass(frozen=True)
class PeopleTables:
    """The three tables."""

    owners: Table
    barred: Table
    links: Table


def people_tables(metadata: MetaData, moment: Callable[[], Any], json_text: Callable[[], Any]) -> PeopleTables:
    """Define the tables on a MetaData, which creates them like its own."""
    tables = PeopleTables(
        owners=Table(
            "axme_wait_owners",
            metadata,
            # A person or group; "" is everybody, so that the inbox of the whole house is read like any other.
            Column("owner", String(255), nullable=False),
            Column("wait_id", String(36), nullable=False),
            Column("task_type", String(32)),
            # The intent's, so that an inbox is narrowed down without looking at each.
            Column("intent_type", String(255)),
            Column("intent_owner", String(255)),
            # When an answer is wanted; far off where nobody said. Open rows are read in this order.
            Column("wanted_at", moment(), nullable=False),
            Column("closed_at", moment()),
            PrimaryKeyConstraint("owner", "wait_id"),
        ),
        barred=Table(
            "axme_wait_barred",
            metadata,
            Column("wait_id", String(36), nullable=False),
            # Folded: no other spelling of it gets in.
            Column("name", String(255), nullable=False),
            # This person alone, who has answered or given it away; else also everybody in a group of this name.
            Column("personal", Boolean, nullable=False),
            PrimaryKeyConstraint("wait_id", "name"),
        ),
        links=Table(
            "axme_links",
            metadata,
            # SHA-256 of the link's secret, which is kept nowhere.
            Column("hash", String(64), primary_key=True),
            Column("wait_id", String(36), nullable=False),
            Column("intent_id", String(36), nullable=False),
            Column("recipient", String(255), nullable=False),
            Column("purpose", String(8), nullable=False),
            Column("outcomes", json_text(), nullable=False),
            Column("state", String(8), nullable=False),
            Column("created_at", moment(), nullable=False),
            Column("expires_at", moment(), nullable=False),
            Column("closed_at", moment()),
        ),
    )
    c, is_open, is_closed = tables.owners.c, text("closed_at IS NULL"), text("closed_at IS NOT NULL")
    Index("axme_wait_owners_by_wait", c.wait_id)
    Index("axme_wait_owners_wanted", c.owner, c.wanted_at, c.wait_id, postgresql_where=is_open, sqlite_where=is_open)
    Index("axme_wait_owners_opened", c.owner, c.wait_id, postgresql_where=is_open, sqlite_where=is_open)
    Index(
        "axme_wait_owners_closed", c.owner, c.closed_at, c.wait_id, postgresql_where=is_closed, sqlite_where=is_closed
    )
    Index("axme_links_by_wait", tables.links.c.wait_id)
    Index("axme_links_by_intent", tables.links.c.intent_id)
    return tables
