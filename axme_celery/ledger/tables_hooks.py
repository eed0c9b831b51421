"""The tables of webhooks: who is told, of what, and the deliveries; and those of registered schemas."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Index, Integer, String, Table, Text, UniqueConstraint, text

from .tables import _REWRITTEN, JsonText, Moment, metadata

subscriptions = Table(
    "axme_subscriptions",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("owner", String(255)),
    Column("kind", String(16), nullable=False),
    Column("url", Text, nullable=False),
    Column("event_types", JsonText, nullable=False),
    Column("secret", Text, nullable=False),
    Column("old_secret", Text),
    Column("old_secret_until", Moment),
    Column("thin", Boolean, nullable=False),
    Column("description", String(255)),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    Column("revoked_at", Moment),
    Column("disabled_at", Moment),
    Column("disabled_reason", Text),
    Column("failures", Integer, nullable=False),
    Column("rests_until", Moment),
    postgresql_with=_REWRITTEN,
)
# Looked at by every commit that writes an event: it holds only what is to be told of all intents.
_LIVE = text("revoked_at IS NULL AND kind = 'subscription'")
Index("axme_subscriptions_live", subscriptions.c.id, postgresql_where=_LIVE, sqlite_where=_LIVE)

hook_events = Table(
    "axme_hook_events",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("type", String(128), nullable=False),
    Column("owner", String(255)),
    Column("intent_id", String(36)),
    Column("seq", Integer),
    Column("source", String(100), nullable=False),
    Column("data", Text, nullable=False),
    Column("at", Moment, nullable=False),
)
Index("axme_hook_events_by_intent", hook_events.c.intent_id)
Index("axme_hook_events_by_age", hook_events.c.at, hook_events.c.id)

hook_deliveries = Table(
    "axme_hook_deliveries",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("event_id", String(36), nullable=False),
    Column("subscription_id", String(36), nullable=False),
    Column("intent_id", String(36)),
    Column("type", String(128), nullable=False),
    Column("status", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("tries", JsonText, nullable=False),
    Column("next_at", Moment),
    # A courier has it until then.
    Column("held_until", Moment),
    Column("created_at", Moment, nullable=False),
    Column("ended_at", Moment),
    Column("last_error", Text),
    UniqueConstraint("event_id", "subscription_id"),
    postgresql_with=_REWRITTEN,
)
_PENDING = text("status = 'PENDING'")
Index(
    "axme_hook_deliveries_due", hook_deliveries.c.subscription_id, hook_deliveries.c.next_at,
    postgresql_where=_PENDING, sqlite_where=_PENDING,
)  # fmt: skip
Index("axme_hook_deliveries_by_age", hook_deliveries.c.created_at, hook_deliveries.c.id)
Index("axme_hook_deliveries_by_intent", hook_deliveries.c.intent_id)

schemas = Table(
    "axme_schemas",
    metadata,
    # "" for the whole house: a key has no NULL.
    Column("owner", String(255), primary_key=True),
    Column("semantic_type", String(255), primary_key=True),
    Column("schema_json", Text, nullable=False),
    Column("schema_hash", String(64), nullable=False),
    Column("schema_ref", String(600), nullable=False),
    Column("compatibility_mode", String(16), nullable=False),
    Column("active", Boolean, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
)
