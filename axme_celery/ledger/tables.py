"""The ledger's tables, on PostgreSQL and SQLite alike.

Open rows are few and looked for often, so every index the sweep uses is
partial: it holds open rows only and stays small whatever has ended.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from kombu.utils import json
from sqlalchemy import (
    Boolean,
    Column,
    DateTime,
    Dialect,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    text,
)
from sqlalchemy.types import TypeDecorator

from ..tracker.tables import tracker_tables
from .tables_http import http_tables
from .tables_people import people_tables


class Moment(TypeDecorator[datetime]):
    """An aware UTC datetime; ``timestamptz`` on PostgreSQL, sortable text on SQLite."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any] | None:
        return _sqlite_moment if dialect.name == "sqlite" else super().bind_processor(dialect)

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _sqlite_moment(value: datetime | None) -> str | None:
    """As SQLAlchemy would write it, in half the time: every step has one."""
    return None if value is None else value.astimezone(UTC).isoformat(" ", "microseconds")[:26]


class JsonText(TypeDecorator[Any]):
    """A small JSON value of our own, kept as text: what was written is read back to the letter."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else json.dumps(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else json.loads(value)


metadata = MetaData()

#: Rows of these are rewritten with every move. PostgreSQL's usual fifth of a large table is too late to clean up:
#: the small partial indexes the sweep reads would be full of rows that are gone.
_REWRITTEN = {"autovacuum_vacuum_scale_factor": 0.02}

intents = Table(
    "axme_intents",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("type", String(255), nullable=False),
    Column("status", String(16), nullable=False),
    Column("waiting_reason", String(20)),
    Column("seq", Integer, nullable=False),
    Column("key", String(255), unique=True),
    Column("work_hash", String(64), nullable=False),
    Column("payload", Text, nullable=False),
    Column("result", Text),
    Column("error", JsonText),
    Column("deadline_at", Moment),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    Column("ended_at", Moment),
    Column("requester", String(255)),
    Column("correlation_id", String(255)),
    Column("reply_to", String(400)),
    Column("notify", Text),
    Column("tags", JsonText, nullable=False),
    Column("parent_wait_id", String(36)),
    Column("replay_of", String(36)),
    Column("owner", String(255)),
    Column("from_agent", String(383)),
    Column("to_agent", String(383)),
    Column("handler", String(383)),
    Column("terms", JsonText),
    Column("threaded", Boolean, nullable=False),
    Column("trace", JsonText),
    Column("called_open", Integer, nullable=False),
    Column("head_hash", String(66), nullable=False),
    postgresql_with=_REWRITTEN,
)
_OPEN_INTENT, _ENDED_INTENT = text("ended_at IS NULL"), text("ended_at IS NOT NULL")
Index("axme_intents_by_age", intents.c.created_at, intents.c.id)
Index("axme_intents_by_status", intents.c.status, intents.c.created_at, intents.c.id)
Index("axme_intents_by_type", intents.c.type, intents.c.created_at, intents.c.id)
_OWNED, _SENT = text("owner IS NOT NULL"), text("to_agent IS NOT NULL")
Index(
    "axme_intents_by_owner", intents.c.owner, intents.c.created_at, intents.c.id,
    postgresql_where=_OWNED, sqlite_where=_OWNED,
)  # fmt: skip
Index(
    "axme_intents_by_agent", intents.c.to_agent, intents.c.created_at, intents.c.id,
    postgresql_where=_SENT, sqlite_where=_SENT,
)  # fmt: skip
_THREADED = text("threaded")
Index("axme_intents_threads", intents.c.updated_at, intents.c.id, postgresql_where=_THREADED, sqlite_where=_THREADED)
Index("axme_intents_deadline", intents.c.deadline_at, postgresql_where=_OPEN_INTENT, sqlite_where=_OPEN_INTENT)
Index("axme_intents_ended", intents.c.ended_at, postgresql_where=_ENDED_INTENT, sqlite_where=_ENDED_INTENT)

tags = Table(
    "axme_tags",
    metadata,
    Column("tag", String(128), nullable=False),
    Column("intent_id", String(36), nullable=False),
    PrimaryKeyConstraint("tag", "intent_id"),
)
Index("axme_tags_by_intent", tags.c.intent_id)

legs = Table(
    "axme_legs",
    metadata,
    Column("id", String(255), primary_key=True),
    Column("intent_id", String(36), nullable=False),
    Column("task", String(255), nullable=False),
    Column("signature", JsonText, nullable=False),
    Column("status", String(16), nullable=False),
    Column("run", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("max_attempts", Integer, nullable=False),
    Column("worker", String(255)),
    Column("token", String(36), nullable=False),
    Column("due_at", Moment),
    Column("resends", Integer, nullable=False),
    Column("has_history", Boolean, nullable=False),
    Column("on_drift", String(16), nullable=False),
    Column("drift_accepted_run", Integer, nullable=False),
    Column("parked", Text),
    Column("result", Text),
    Column("error", JsonText),
    Column("created_at", Moment, nullable=False),
    Column("started_at", Moment),
    Column("ended_at", Moment),
    Column("in_chord", Boolean, nullable=False),
    Column("called_by", String(255)),
    # Its place in a pipeline.
    Column("node", Text, nullable=False),
    Column("position", Integer, nullable=False),
    Column("after", String(255)),
    Column("turn", String(16), nullable=False),
    Column("join_id", String(36)),
    Column("join_index", Integer, nullable=False),
    Column("within", String(36)),
    Column("followers", Integer, nullable=False),
    Column("plan", JsonText, nullable=False),
    postgresql_with=_REWRITTEN,
)
Index("axme_legs_by_intent", legs.c.intent_id)
_RUNNING, _QUEUED = text("status = 'RUNNING'"), text("status = 'QUEUED'")
Index("axme_legs_running", legs.c.intent_id, postgresql_where=_RUNNING, sqlite_where=_RUNNING)
Index("axme_legs_queued", legs.c.due_at, postgresql_where=_QUEUED, sqlite_where=_QUEUED)
_COUNTED_BY_CELERY = text("in_chord AND ended_at IS NULL")
Index("axme_legs_in_chord", legs.c.id, postgresql_where=_COUNTED_BY_CELERY, sqlite_where=_COUNTED_BY_CELERY)

_PENDING, _MEMBER = text("status = 'PENDING'"), text("join_id IS NOT NULL")
Index("axme_legs_following", legs.c.after, postgresql_where=_PENDING, sqlite_where=_PENDING)
Index("axme_legs_of_join", legs.c.join_id, postgresql_where=_MEMBER, sqlite_where=_MEMBER)

joins = Table(
    "axme_joins",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("intent_id", String(36), nullable=False),
    Column("node", Text, nullable=False),
    Column("size", Integer, nullable=False),
    Column("left", Integer, nullable=False),
    Column("status", String(8), nullable=False),
    Column("gives", String(8), nullable=False),
    Column("join_id", String(36)),
    Column("join_index", Integer, nullable=False),
    Column("within", String(36)),
    Column("followers", Integer, nullable=False),
    Column("result", Text),
    # Rewritten once for every member: with room on its page, PostgreSQL need not touch an index for that.
    postgresql_with={**_REWRITTEN, "fillfactor": 40},
)
_FULL = text("status = 'OPEN' AND \"left\" = 0")
Index("axme_joins_by_intent", joins.c.intent_id)
Index("axme_joins_of_join", joins.c.join_id, postgresql_where=_MEMBER, sqlite_where=_MEMBER)
Index("axme_joins_full", joins.c.id, postgresql_where=_FULL, sqlite_where=_FULL)

checkpoints = Table(
    "axme_checkpoints",
    metadata,
    Column("leg_id", String(255), nullable=False),
    Column("name", String(255), nullable=False),
    Column("nth", Integer, nullable=False),
    Column("position", Integer, nullable=False),
    Column("run", Integer, nullable=False),
    Column("recorded", String(8), nullable=False),
    Column("value", Text, nullable=False),
    Column("at", Moment),
    PrimaryKeyConstraint("leg_id", "name", "nth"),
)

waits = Table(
    "axme_waits",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("intent_id", String(36), nullable=False),
    Column("leg_id", String(255), nullable=False),
    Column("name", String(255), nullable=False),
    Column("nth", Integer, nullable=False),
    Column("position", Integer, nullable=False),
    Column("run", Integer, nullable=False),
    Column("kind", String(8), nullable=False),
    Column("status", String(8), nullable=False),
    Column("title", Text, nullable=False),
    Column("request", JsonText, nullable=False),
    Column("to", JsonText, nullable=False),
    Column("tool", String(255)),
    Column("job_id", String(255)),
    Column("opened_at", Moment, nullable=False),
    Column("timeout_at", Moment),
    Column("remind_at", Moment),
    Column("reminders", Integer, nullable=False),
    Column("escalate_at", Moment),
    Column("escalated_at", Moment),
    Column("escalations", Integer, nullable=False),
    Column("fell_back_at", Moment),
    Column("heartbeat_at", Moment),
    Column("poll_at", Moment),
    Column("due_at", Moment),
    Column("votes", JsonText, nullable=False),
    Column("delegations", JsonText, nullable=False),
    Column("wanted_at", Moment),
    Column("payload_hash", String(64)),
    Column("outcome", String(255)),
    Column("answered_by", String(255)),
    Column("comment", Text),
    Column("data", Text),
    Column("closed_at", Moment),
    postgresql_with=_REWRITTEN,
)
_OPEN = text("status = 'OPEN'")
_OPEN_HUMAN = text("status = 'OPEN' AND kind = 'HUMAN'")
Index("axme_waits_by_intent", waits.c.intent_id)
Index("axme_waits_once", waits.c.leg_id, waits.c.name, waits.c.nth, unique=True)
Index("axme_waits_due", waits.c.due_at, postgresql_where=_OPEN, sqlite_where=_OPEN)
Index("axme_waits_by_job", waits.c.tool, waits.c.job_id)
Index("axme_waits_inbox", waits.c.opened_at, waits.c.id, postgresql_where=_OPEN_HUMAN, sqlite_where=_OPEN_HUMAN)

# -- what lies on people's desks --

_people = people_tables(metadata, Moment, JsonText)
wait_owners, wait_barred, links = _people.owners, _people.barred, _people.links

events = Table(
    "axme_events",
    metadata,
    Column("intent_id", String(36), nullable=False),
    Column("seq", Integer, nullable=False),
    Column("type", String(64), nullable=False),
    Column("status", String(16), nullable=False),
    Column("waiting_reason", String(20)),
    Column("at", Moment, nullable=False),
    Column("actor", String(255)),
    Column("leg_id", String(255)),
    Column("details", JsonText, nullable=False),
    Column("prev_hash", String(66), nullable=False),
    Column("hash", String(66), nullable=False),
    PrimaryKeyConstraint("intent_id", "seq"),
)

outbox = Table(
    "axme_outbox",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("intent_id", String(36), nullable=False),
    Column("leg_id", String(255)),
    Column("run", Integer, nullable=False),
    Column("body", JsonText, nullable=False),
    Column("next_at", Moment, nullable=False),
    # Another relay has it until then. Set at the insert for what the committing process sends itself.
    Column("held_until", Moment),
    Column("attempts", Integer, nullable=False),
    Column("last_error", Text),
    postgresql_with=_REWRITTEN,
)
Index("axme_outbox_due", outbox.c.next_at)
Index("axme_outbox_by_intent", outbox.c.intent_id)

early_answers = Table(
    "axme_early_answers",
    metadata,
    Column("tool", String(255), nullable=False),
    Column("job_id", String(255), nullable=False),
    Column("answer", Text, nullable=False),
    Column("at", Moment, nullable=False),
    Column("wait_id", String(36)),
    PrimaryKeyConstraint("tool", "job_id"),
)
_UNMATCHED = text("wait_id IS NULL")
Index("axme_early_answers_unmatched", early_answers.c.at, postgresql_where=_UNMATCHED, sqlite_where=_UNMATCHED)

dead_letters = Table(
    "axme_dead_letters",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("intent_id", String(36), nullable=False),
    Column("leg_id", String(255)),
    Column("delivery_id", String(36)),
    Column("code", String(255), nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Moment, nullable=False),
    Column("state", String(16), nullable=False),
    Column("replayed_as", String(36)),
    Column("closed_by", String(255)),
    Column("closed_at", Moment),
    Column("closed_reason", Text),
)
Index("axme_dead_letters_by_state", dead_letters.c.state, dead_letters.c.id)
Index("axme_dead_letters_by_intent", dead_letters.c.intent_id)

# -- who may come in --

keys = Table(
    "axme_keys",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("name", String(255), nullable=False),
    Column("hash", String(64), nullable=False, unique=True),
    Column("role", String(16), nullable=False),
    Column("groups", JsonText, nullable=False),
    Column("owner", String(255)),
    Column("agent", String(255)),
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment),
    Column("revoked_at", Moment),
    Column("last_used_at", Moment),
)

#: "ledger_id": this ledger's identity, the namespace of its tracker.
meta = Table("axme_meta", metadata, Column("key", String(64), primary_key=True), Column("value", Text, nullable=False))

tracker = tracker_tables(metadata)

# -- those who take part over HTTP --
_http = http_tables(metadata, Moment, JsonText)
agents, offers, requests, messages = _http.agents, _http.offers, _http.requests, _http.messages
