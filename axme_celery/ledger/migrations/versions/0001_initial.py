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
        sa.Column("head_hash", sa.String(66), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("key"),
        postgresql_with=REWRITTEN,
    )
    op.create_index("axme_intents_by_age", "axme_intents", ["created_at", "id"])
    op.create_index("axme_intents_by_status", "axme_intents", ["status", "created_at", "id"])
    op.create_index("axme_intents_by_type", "axme_intents", ["type", "created_at", "id"])
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
        sa.PrimaryKeyConstraint("id"),
        postgresql_with=REWRITTEN,
    )
    op.create_index("axme_legs_by_intent", "axme_legs", ["intent_id"])
    _index("axme_legs_queued", "axme_legs", ["due_at"], where="status = 'QUEUED'")
    _index("axme_legs_running", "axme_legs", ["id"], where="status = 'RUNNING'")
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
        "axme_wait_owners",
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("wait_id", sa.String(36), nullable=False),
        sa.PrimaryKeyConstraint("owner", "wait_id"),
    )
    op.create_index("axme_wait_owners_by_wait", "axme_wait_owners", ["wait_id"])
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
