"""Tables of those who take part over HTTP: agents, what lies in their mailboxes, and the requests already answered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, Index, Integer, MetaData, PrimaryKeyConstraint, String, Table, Text, text


@dataclass(frozen=True)
class HttpTables:
    """The four tables."""

    agents: Table
    offers: Table
    requests: Table
    messages: Table


def http_tables(metadata: MetaData, moment: Callable[[], Any], json_text: Callable[[], Any]) -> HttpTables:
    """Define the tables on a MetaData, which creates them like its own."""
    tables = HttpTables(
        agents=Table(
            "axme_agents",
            metadata,
            Column("address", String(383), primary_key=True),
            Column("owner", String(255)),
            Column("display_name", String(255)),
            Column("status", String(16), nullable=False),
            Column("delivery_mode", String(16), nullable=False),
            Column("callback_url", Text),
            Column("cursor", Integer, nullable=False),
            Column("send", json_text(), nullable=False),
            Column("receive", json_text(), nullable=False),
            Column("created_at", moment(), nullable=False),
            Column("updated_at", moment(), nullable=False),
            Column("seen_at", moment()),
        ),
        offers=Table(
            "axme_offers",
            metadata,
            Column("agent", String(383), nullable=False),
            Column("seq", Integer, nullable=False),
            Column("intent_id", String(36), nullable=False),
            Column("leg_id", String(255), nullable=False),
            Column("run", Integer, nullable=False),
            # OPEN until somebody takes it: a hint for the index below. What decides is the leg.
            Column("status", String(8), nullable=False),
            Column("at", moment(), nullable=False),
            PrimaryKeyConstraint("agent", "seq"),
        ),
        requests=Table(
            "axme_requests",
            metadata,
            # SHA-256 of who asked, for what, under which key.
            Column("id", String(64), primary_key=True),
            Column("body_hash", String(64), nullable=False),
            # None while the first of them is being answered.
            Column("status", Integer),
            Column("answer", Text),
            Column("held_until", moment(), nullable=False),
            Column("at", moment(), nullable=False),
        ),
        messages=Table(
            "axme_messages",
            metadata,
            Column("id", String(36), primary_key=True),
            Column("intent_id", String(36), nullable=False),
            Column("event_type", String(64), nullable=False),
            Column("actor", String(255)),
            Column("details", json_text(), nullable=False),
            Column("at", moment(), nullable=False),
        ),
    )
    c = tables.offers.c
    is_open = text("status = 'OPEN'")
    Index("axme_offers_once", c.leg_id, c.run, unique=True)
    Index("axme_offers_by_intent", c.intent_id)
    Index("axme_offers_open", c.agent, c.seq, postgresql_where=is_open, sqlite_where=is_open)
    Index("axme_agents_by_owner", tables.agents.c.owner)
    Index("axme_requests_by_age", tables.requests.c.at)
    Index("axme_messages_by_intent", tables.messages.c.intent_id, tables.messages.c.id)
    return tables
