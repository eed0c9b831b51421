"""An intent and its events as AXP writes them: the one form for every door.

Whoever follows an intent by webhook, stream, poll or inbox gets the same event, byte for byte. So an event is written
from what never changes: its own row, and of the intent only what was fixed by the time the event was told (its
result, once it is COMPLETED). ``event_text`` is that text; a door puts it into its frame and adds nothing within.

Source: AXP Intent Lifecycle v1; the published clients read the extra names beside it.
"""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from .durations import utc_iso
from .model import Event, Intent, JsonDict, Status

#: Words of an older scheme, which some clients still read.
LEGACY_STATUS = {
    Status.CREATED: "accepted",
    Status.SUBMITTED: "accepted",
    Status.DELIVERED: "accepted",
    Status.ACKNOWLEDGED: "accepted",
    Status.IN_PROGRESS: "running",
    Status.WAITING: "blocked",
    Status.COMPLETED: "done",
    Status.FAILED: "failed",
    Status.CANCELED: "failed",
    Status.TIMED_OUT: "failed",
}

#: Who sent an intent, and to whom, where that was the house itself.
CELERY = "agent://celery"

#: What was asked besides the work, as it is shown.
_TERMS = (
    "remind_after_seconds", "remind_interval_seconds", "max_reminders", "escalate_to", "max_delivery_attempts",
    "human_task", "controls", "grants", "envelope",
)  # fmt: skip

#: Who holds a waiting intent up, in AXP's three kinds.
_HOLDER = {"WAITING_FOR_HUMAN": "human", "WAITING_FOR_AGENT": "agent"}


def text_of(value: Any) -> str:
    """Compact JSON: what stands in every frame."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def plain(text: str | None) -> Any:
    """A stored value as JSON that needs no Python to read: a datetime is its ISO text, a UUID its usual form."""
    return None if text is None else _decoder.decode(text)


def event(told: Event, intent: Intent) -> JsonDict:
    """One event. ``intent``: the intent it belongs to, loaded with the event or later."""
    details = dict(told.details)
    if isinstance(details.get("error"), dict):
        details["error"] = error(details["error"])
    if told.type == "intent.completed" and intent.result is not None:
        details["result"] = plain(intent.result)
    body: JsonDict = {
        "intent_id": told.intent_id,
        "seq": told.seq,
        "event_type": told.type,
        "status": told.status.value,
        "at": utc_iso(told.at),
        "actor": told.actor,
        "waiting_reason": told.waiting_reason,
        "lifecycle_waiting_reason": told.waiting_reason,
        "pending_with": pending_with(told.waiting_reason, details) if told.status is Status.WAITING else None,
        "human_task": _human_task(details) if told.type == "intent.human_task_assigned" else None,
        "handler": details.get("handler"),
        "reason": details.get("reason"),
        "error": details.get("error"),
    }
    # Some readers forbid null where a name is optional.
    body = {name: value for name, value in body.items() if value is not None}
    if "result" in details:
        body["result"] = details["result"]
    return {**body, "details": details}


def event_text(told: Event, intent: Intent) -> str:
    """The event as JSON on one line, the same through every door."""
    return text_of(event(told, intent))


def intent(record: Intent, *, pending: JsonDict | None = None) -> JsonDict:
    """An intent as it stands. ``pending``: details of what it waits for, where it waits (``title``, ``pending_with``)."""
    waiting = pending_with(record.waiting_reason, pending or {}) if record.status is Status.WAITING else None
    body: JsonDict = {
        "intent_id": record.id,
        "intent_type": record.type,
        "status": record.status.value,
        "lifecycle_status": record.status.value,
        "legacy_status": LEGACY_STATUS[record.status],
        "created_at": utc_iso(record.created_at),
        "updated_at": utc_iso(record.updated_at),
        "correlation_id": record.correlation_id or record.id,
        "from_agent": record.from_agent or record.requester or CELERY,
        "to_agent": record.to_agent or CELERY,
        "handler": record.handler,
        "seq": record.seq,
        "waiting_reason": record.waiting_reason,
        "lifecycle_waiting_reason": record.waiting_reason,
        "pending_with": waiting,
        "reply_to": record.reply_to,
        "deadline_at": None if record.deadline_at is None else utc_iso(record.deadline_at),
        "ended_at": None if record.ended_at is None else utc_iso(record.ended_at),
        "error": None if record.error is None else error(record.error),
        "replay_of": record.replay_of,
        "tags": list(record.tags),
        "policy_generation": int((record.terms or {}).get("generation", 0)),
        **{name: (record.terms or {}).get(name) for name in _TERMS},
    }
    body = {name: value for name, value in body.items() if value is not None}
    if record.status is Status.COMPLETED:
        body["result"] = plain(record.result)
    return {**body, "payload": plain(record.payload)}


def error(described: JsonDict) -> JsonDict:
    """An error as outsiders are told it: what happened, not where in the code and with what in hand."""
    return {name: value for name, value in described.items() if name not in ("traceback", "args", "attributes")}


def pending_with(waiting_reason: str | None, details: JsonDict) -> JsonDict | None:
    """Who or what holds up an intent that waits, as {"type", "ref", "name"}; None when it waits for nothing.

    details: of its ``intent.waiting`` event, or the same names of its wait.
    """
    if waiting_reason is None:
        return None
    people = details.get("pending_with") or details.get("to") or []
    tool = ":".join(str(details[name]) for name in ("tool", "job_id") if details.get(name))
    ref = ", ".join(map(str, people)) or tool or waiting_reason.removeprefix("WAITING_FOR_").lower()
    return {"type": _HOLDER.get(waiting_reason, "internal"), "ref": ref, "name": str(details.get("title") or ref)}


def _human_task(details: JsonDict) -> JsonDict:
    task = {
        "title": details.get("title"),
        "task_type": details.get("task_type"),
        "allowed_outcomes": details.get("outcomes"),
        "assignees": details.get("to"),
    }
    return {name: value for name, value in task.items() if value}


def _unmarked(found: JsonDict) -> Any:
    """What kombu's JSON wraps a value in that JSON does not know, taken off."""
    if found.keys() != {"__type__", "__value__"}:
        return found
    kind, value = found["__type__"], found["__value__"]
    if kind == "uuid" and isinstance(value, dict) and "hex" in value:
        return str(UUID(hex=value["hex"]))
    return value


_decoder = json.JSONDecoder(object_hook=_unmarked)
