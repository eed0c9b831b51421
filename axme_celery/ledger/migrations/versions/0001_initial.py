"""The ledger as first released: intents, their legs, checkpoints, waits and events, the outbox, and the tracker's tables."""

from __future__ import annotations

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

REWRITTEN = {"autovacuum_vacuum_scale_factor": 0.02}


def upgrade() -> None:
    """Make every table and give the ledger its id."""
    _ledger()
    _people()
    _hooks()
    _http()
    _keys()
    _tracker()
    meta = sa.table("axme_meta", sa.column("key", sa.String), sa.column("value", sa.Text))
    op.bulk_insert(meta, [{"key": "ledger_id", "value": uuid.uuid4().hex}])


def _ledger() -> None:
    op.create_table(
        "axme_intents",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("type", sa.String(255), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("waiting_reason", sa.String(20)),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(255)),
        sa.Column("work_hash", sa.String(64), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("result", sa.Text()),
        sa.Column("error", sa.Text()),
        sa.Column("deadline_at", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("requester", sa.String(255)),
        sa.Column("correlation_id", sa.String(255)),
        sa.Column("reply_to", sa.String(400)),
        sa.Column("notify", sa.Text()),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("parent_wait_id", sa.String(36)),
        sa.Column("replay_of", sa.String(36)),
        sa.Column("owner", sa.String(255)),
        sa.Column("from_agent", sa.String(383)),
        sa.Column("to_agent", sa.String(383)),
        sa.Column("handler", sa.String(383)),
        sa.Column("terms", sa.Text()),
        sa.Column("threaded", sa.Boolean(), nullable=False),
        sa.Column("trace", sa.Text()),
        sa.Column("called_open", sa.Integer(), nullable=False),
        sa.Column("head_hash", sa.String(66), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("key"),
        postgresql_with=REWRITTEN,
    )
    op.create_index("axme_intents_by_age", "axme_intents", ["created_at", "id"])
    op.create_index("axme_intents_by_status", "axme_intents", ["status", "created_at", "id"])
    op.create_index("axme_intents_by_type", "axme_intents", ["type", "created_at", "id"])
    _index("axme_intents_by_owner", "axme_intents", ["owner", "created_at", "id"], where="owner IS NOT NULL")
    _index("axme_intents_by_agent", "axme_intents", ["to_agent", "created_at", "id"], where="to_agent IS NOT NULL")
    _index("axme_intents_threads", "axme_intents", ["updated_at", "id"], where="threaded")
    _index("axme_intents_deadline", "axme_intents", ["deadline_at"], where="ended_at IS NULL")
    _index("axme_intents_ended", "axme_intents", ["ended_at"], where="ended_at IS NOT NULL")
    op.create_table(
        "axme_tags",
        sa.Column("tag", sa.String(128), nullable=False),
        sa.Column("intent_id", sa.String(36), nullable=False),
        sa.PrimaryKeyConstraint("tag", "intent_id"),
    )
    op.create_index("axme_tags_by_intent", "axme_tags", ["intent_id"])
    op.create_table(
        "axme_legs",
        sa.Column("id", sa.String(255), nullable=False),
        sa.Column("intent_id", sa.String(36), nullable=False),
        sa.Column("task", sa.String(255), nullable=False),
        sa.Column("signature", sa.Text(), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("worker", sa.String(255)),
        sa.Column("token", sa.String(36), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True)),
        sa.Column("resends", sa.Integer(), nullable=False),
        sa.Column("has_history", sa.Boolean(), nullable=False),
        sa.Column("on_drift", sa.String(16), nullable=False),
        sa.Column("drift_accepted_run", sa.Integer(), nullable=False),
        sa.Column("parked", sa.Text()),
        sa.Column("result", sa.Text()),
        sa.Column("error", sa.Text()),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("in_chord", sa.Boolean(), nullable=False),
        sa.Column("called_by", sa.String(255)),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("after", sa.String(255)),
        sa.Column("turn", sa.String(16), nullable=False),
        sa.Column("join_id", sa.String(36)),
        sa.Column("join_index", sa.Integer(), nullable=False),
        sa.Column("within", sa.String(36)),
        sa.Column("followers", sa.Integer(), nullable=False),
        sa.Column("plan", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        postgresql_with=REWRITTEN,
    )
    op.create_index("axme_legs_by_intent", "axme_legs", ["intent_id"])
    _index("axme_legs_in_chord", "axme_legs", ["id"], where="in_chord AND ended_at IS NULL")
    _index("axme_legs_queued", "axme_legs", ["due_at"], where="status = 'QUEUED'")
    _index("axme_legs_running", "axme_legs", ["intent_id"], where="status = 'RUNNING'")
    _index("axme_legs_following", "axme_legs", ["after"], where="status = 'PENDING'")
    _index("axme_legs_of_join", "axme_legs", ["join_id"], where="join_id IS NOT NULL")
    _joins()
    op.create_table(
        "axme_checkpoints",
        sa.Column("leg_id", sa.String(255), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("nth", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("recorded", sa.String(8), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("leg_id", "name", "nth"),
    )
    op.create_table(
        "axme_waits",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("intent_id", sa.String(36), nullable=False),
        sa.Column("leg_id", sa.String(255), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("nth", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("status", sa.String(8), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("to", sa.Text(), nullable=False),
        sa.Column("tool", sa.String(255)),
        sa.Column("job_id", sa.String(255)),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("timeout_at", sa.DateTime(timezone=True)),
        sa.Column("remind_at", sa.DateTime(timezone=True)),
        sa.Column("reminders", sa.Integer(), nullable=False),
        sa.Column("escalate_at", sa.DateTime(timezone=True)),
        sa.Column("escalated_at", sa.DateTime(timezone=True)),
        sa.Column("escalations", sa.Integer(), nullable=False),
        sa.Column("fell_back_at", sa.DateTime(timezone=True)),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True)),
        sa.Column("poll_at", sa.DateTime(timezone=True)),
        sa.Column("due_at", sa.DateTime(timezone=True)),
        sa.Column("votes", sa.Text(), nullable=False),
        sa.Column("delegations", sa.Text(), nullable=False),
        sa.Column("wanted_at", sa.DateTime(timezone=True)),
        sa.Column("payload_hash", sa.String(64)),
        sa.Column("outcome", sa.String(255)),
        sa.Column("answered_by", sa.String(255)),
        sa.Column("comment", sa.Text()),
        sa.Column("data", sa.Text()),
        sa.Column("closed_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id"),
        postgresql_with=REWRITTEN,
    )
    op.create_index("axme_waits_by_intent", "axme_waits", ["intent_id"])
    op.create_index("axme_waits_by_job", "axme_waits", ["tool", "job_id"])
    _index("axme_waits_due", "axme_waits", ["due_at"], where="status = 'OPEN'")
    _index("axme_waits_inbox", "axme_waits", ["opened_at", "id"], where="status = 'OPEN' AND kind = 'HUMAN'")
    op.create_index("axme_waits_once", "axme_waits", ["leg_id", "name", "nth"], unique=True)
    op.create_table(
        "axme_events",
        sa.Column("intent_id", sa.String(36), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("type", sa.String(64), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("waiting_reason", sa.String(20)),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.String(255)),
        sa.Column("leg_id", sa.String(255)),
        sa.Column("details", sa.Text(), nullable=False),
        sa.Column("prev_hash", sa.String(66), nullable=False),
        sa.Column("hash", sa.String(66), nullable=False),
        sa.PrimaryKeyConstraint("intent_id", "seq"),
    )
    op.create_table(
        "axme_outbox",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("intent_id", sa.String(36), nullable=False),
        sa.Column("leg_id", sa.String(255)),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("held_until", sa.DateTime(timezone=True)),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("last_error", sa.Text()),
        sa.PrimaryKeyConstraint("id"),
        postgresql_with=REWRITTEN,
    )
    op.create_index("axme_outbox_by_intent", "axme_outbox", ["intent_id"])
    op.create_index("axme_outbox_due", "axme_outbox", ["next_at"])
    op.create_table(
        "axme_early_answers",
        sa.Column("tool", sa.String(255), nullable=False),
        sa.Column("job_id", sa.String(255), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("wait_id", sa.String(36)),
        sa.PrimaryKeyConstraint("tool", "job_id"),
    )
    _index("axme_early_answers_unmatched", "axme_early_answers", ["at"], where="wait_id IS NULL")
    op.create_table(
        "axme_dead_letters",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("intent_id", sa.String(36), nullable=False),
        sa.Column("leg_id", sa.String(255)),
        sa.Column("delivery_id", sa.String(36)),
        sa.Column("code", sa.String(255), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("replayed_as", sa.String(36)),
        sa.Column("closed_by", sa.String(255)),
        sa.Column("closed_at", sa.DateTime(timezone=True)),
        sa.Column("closed_reason", sa.Text()),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("axme_dead_letters_by_intent", "axme_dead_letters", ["intent_id"])
    op.create_index("axme_dead_letters_by_state", "axme_dead_letters", ["state", "id"])
    op.create_table(
        "axme_meta",
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )


def _hooks() -> None:
    op.create_table(
        "axme_subscriptions",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("owner", sa.String(255)),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("event_types", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("old_secret", sa.Text()),
        sa.Column("old_secret_until", sa.DateTime(timezone=True)),
        sa.Column("thin", sa.Boolean(), nullable=False),
        sa.Column("description", sa.String(255)),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True)),
        sa.Column("disabled_at", sa.DateTime(timezone=True)),
        sa.Column("disabled_reason", sa.Text()),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("rests_until", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id"),
        postgresql_with=REWRITTEN,
    )
    live = "revoked_at IS NULL AND kind = 'subscription'"
    _index("axme_subscriptions_live", "axme_subscriptions", ["id"], where=live)
    op.create_table(
        "axme_hook_events",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("type", sa.String(128), nullable=False),
        sa.Column("owner", sa.String(255)),
        sa.Column("intent_id", sa.String(36)),
        sa.Column("seq", sa.Integer()),
        sa.Column("source", sa.String(100), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("axme_hook_events_by_intent", "axme_hook_events", ["intent_id"])
    op.create_index("axme_hook_events_by_age", "axme_hook_events", ["at", "id"])
    op.create_table(
        "axme_hook_deliveries",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("event_id", sa.String(36), nullable=False),
        sa.Column("subscription_id", sa.String(36), nullable=False),
        sa.Column("intent_id", sa.String(36)),
        sa.Column("type", sa.String(128), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("tries", sa.Text(), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True)),
        sa.Column("held_until", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("last_error", sa.Text()),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("event_id", "subscription_id"),
        postgresql_with=REWRITTEN,
    )
    pending = "status = 'PENDING'"
    _index("axme_hook_deliveries_due", "axme_hook_deliveries", ["subscription_id", "next_at"], where=pending)
    op.create_index("axme_hook_deliveries_by_age", "axme_hook_deliveries", ["created_at", "id"])
    op.create_index("axme_hook_deliveries_by_intent", "axme_hook_deliveries", ["intent_id"])
    op.create_table(
        "axme_schemas",
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("semantic_type", sa.String(255), nullable=False),
        sa.Column("schema_json", sa.Text(), nullable=False),
        sa.Column("schema_hash", sa.String(64), nullable=False),
        sa.Column("schema_ref", sa.String(600), nullable=False),
        sa.Column("compatibility_mode", sa.String(16), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("owner", "semantic_type"),
    )


def _http() -> None:
    op.create_table(
        "axme_agents",
        sa.Column("address", sa.String(383), nullable=False),
        sa.Column("owner", sa.String(255)),
        sa.Column("display_name", sa.String(255)),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("delivery_mode", sa.String(16), nullable=False),
        sa.Column("callback_url", sa.Text()),
        sa.Column("cursor", sa.Integer(), nullable=False),
        sa.Column("send", sa.Text(), nullable=False),
        sa.Column("receive", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("address"),
    )
    op.create_index("axme_agents_by_owner", "axme_agents", ["owner"])
    op.create_table(
        "axme_offers",
        sa.Column("agent", sa.String(383), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("intent_id", sa.String(36), nullable=False),
        sa.Column("leg_id", sa.String(255), nullable=False),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(8), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("agent", "seq"),
    )
    op.create_index("axme_offers_once", "axme_offers", ["leg_id", "run"], unique=True)
    op.create_index("axme_offers_by_intent", "axme_offers", ["intent_id"])
    _index("axme_offers_open", "axme_offers", ["agent", "seq"], where="status = 'OPEN'")
    op.create_table(
        "axme_requests",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("body_hash", sa.String(64), nullable=False),
        sa.Column("status", sa.Integer()),
        sa.Column("answer", sa.Text()),
        sa.Column("held_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("axme_requests_by_age", "axme_requests", ["at"])
    op.create_table(
        "axme_messages",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("intent_id", sa.String(36), nullable=False),
        sa.Column("event_type", sa.String(64), nullable=False),
        sa.Column("actor", sa.String(255)),
        sa.Column("details", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("axme_messages_by_intent", "axme_messages", ["intent_id", "id"])


def _keys() -> None:
    op.create_table(
        "axme_keys",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("groups", sa.Text(), nullable=False),
        sa.Column("owner", sa.String(255)),
        sa.Column("agent", sa.String(255)),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True)),
        sa.Column("revoked_at", sa.DateTime(timezone=True)),
        sa.Column("last_used_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("hash"),
    )


def _joins() -> None:
    op.create_table(
        "axme_joins",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("intent_id", sa.String(36), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("left", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(8), nullable=False),
        sa.Column("gives", sa.String(8), nullable=False),
        sa.Column("join_id", sa.String(36)),
        sa.Column("join_index", sa.Integer(), nullable=False),
        sa.Column("within", sa.String(36)),
        sa.Column("followers", sa.Integer(), nullable=False),
        sa.Column("result", sa.Text()),
        sa.PrimaryKeyConstraint("id"),
        postgresql_with={**REWRITTEN, "fillfactor": 40},
    )
    op.create_index("axme_joins_by_intent", "axme_joins", ["intent_id"])
    _index("axme_joins_of_join", "axme_joins", ["join_id"], where="join_id IS NOT NULL")
    _index("axme_joins_full", "axme_joins", ["id"], where="status = 'OPEN' AND \"left\" = 0")


def _people() -> None:
    op.create_table(
        "axme_wait_owners",
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("wait_id", sa.String(36), nullable=False),
        sa.Column("task_type", sa.String(32)),
        sa.Column("intent_type", sa.String(255)),
        sa.Column("intent_owner", sa.String(255)),
        sa.Column("wanted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("owner", "wait_id"),
    )
    op.create_index("axme_wait_owners_by_wait", "axme_wait_owners", ["wait_id"])
    _index("axme_wait_owners_wanted", "axme_wait_owners", ["owner", "wanted_at", "wait_id"], where="closed_at IS NULL")
    _index("axme_wait_owners_opened", "axme_wait_owners", ["owner", "wait_id"], where="closed_at IS NULL")
    _index(
        "axme_wait_owners_closed", "axme_wait_owners", ["owner", "closed_at", "wait_id"], where="closed_at IS NOT NULL"
    )
    op.create_table(
        "axme_wait_barred",
        sa.Column("wait_id", sa.String(36), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("personal", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("wait_id", "name"),
    )
    op.create_table(
        "axme_links",
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("wait_id", sa.String(36), nullable=False),
        sa.Column("intent_id", sa.String(36), nullable=False),
        sa.Column("recipient", sa.String(255), nullable=False),
        sa.Column("purpose", sa.String(8), nullable=False),
        sa.Column("outcomes", sa.Text(), nullable=False),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("hash"),
    )
    op.create_index("axme_links_by_wait", "axme_links", ["wait_id"])
    op.create_index("axme_links_by_intent", "axme_links", ["intent_id"])


def _tracker() -> None:
    # A crash of the database empties these, which is what a tracker may do; no commit to them waits for a disk.
    unlogged = ["UNLOGGED"] if op.get_context().dialect.name == "postgresql" else []
    op.create_table(
        "axme_leases",
        sa.Column("leg_id", sa.Text(), nullable=False),
        sa.Column("run", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("ends_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("leg_id", "run"),
        postgresql_with={"fillfactor": 50},
        prefixes=unlogged,
    )
    op.create_table(
        "axme_timers",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.Column("hidden_until", sa.BigInteger()),
        sa.PrimaryKeyConstraint("kind", "id"),
        prefixes=unlogged,
    )
    _index("ix_axme_timers_due", "axme_timers", ["due_at"], where="hidden_until IS NULL")
    _index("ix_axme_timers_hidden", "axme_timers", ["hidden_until"], where="hidden_until IS NOT NULL")
    op.create_table(
        "axme_progress",
        sa.Column("leg_id", sa.Text(), nullable=False),
        sa.Column("done", sa.Double(), nullable=False),
        sa.Column("total", sa.Double()),
        sa.Column("note", sa.Text()),
        sa.Column("said_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("leg_id"),
        prefixes=unlogged,
    )
    op.create_index("ix_axme_progress_said_at", "axme_progress", ["said_at"])
    op.create_table(
        "axme_ticks",
        sa.Column("sweeper", sa.Text(), nullable=False),
        sa.Column("swept_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("sweeper"),
        prefixes=unlogged,
    )
    op.create_table(
        "axme_locks",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("ends_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
        prefixes=unlogged,
    )


def _index(name: str, table: str, columns: list[str], *, where: str) -> None:
    """An index of some rows only."""
    op.create_index(name, table, columns, postgresql_where=sa.text(where), sqlite_where=sa.text(where))
