"""The inbox: one thread for each intent that people or agents are asked about, write about, or are told the end of.

A thread's id is its intent's. Its timeline is the intent's log, with the messages that were written beside it; the end
of an intent stands there as the very event every other door tells.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from flask import Response

from ... import agents, handover, wire
from ...durations import utc_iso
from ...errors import BadInput, IntentEnded, NotFound
from ...model import Event, Intent, JsonDict, Wait, WaitKind
from ...parties import SCHEME, Message
from ...texts import line
from ...who import Actor
from ..house import house
from . import blueprint
from .problems import Problem
from .repeats import writes
from .requests import Fields, body, query_int, query_line, reply
from .resume import decide, open_human_wait, outcome_for
from .rights import Role, answers_for, find, narrowed, need
from .tasks import names_of

#: What is changed is shown in the feed of changes after so long: then nothing that was decided earlier is still to come.
SETTLE = timedelta(seconds=0.5)
#: Events of one thread in a list.
MOST_EVENTS = 100
_CURSOR = re.compile(r"([0-9]{1,17}):([0-9a-f-]{36})")
_NAMESPACE = uuid.UUID("7f1d3c52-6f0b-4f0e-9d53-51a7b1c0a9e4")


@blueprint.get("/inbox")
def list_threads() -> Response:
    """Threads, the last changed first."""
    actor, names = _whose()
    limit = query_int("limit", 50, least=1, most=200, clip=True)
    status = query_line("status", longest=16)
    if status not in (None, "pending", "active", "done"):
        raise BadInput("status must be pending, active or done")
    found = house().rt.ledger.exchange.threads(
        owner=actor.owner, names=names, status=status, after=None, until=None, limit=limit
    )
    return reply({"ok": True, "threads": _threads(found, actor)})


@blueprint.get("/inbox/changes")
def list_changes() -> Response:
    """Threads changed since a cursor, in the order of their changes; each as it is now."""
    actor, names = _whose()
    rt, cursor = house().rt, query_line("cursor", longest=128)
    limit = query_int("limit", 50, least=1, most=200, clip=True)
    after = _after(cursor) if cursor else (datetime.fromtimestamp(0, UTC), "")
    asked_at = rt.ledger.now(fresh=True)

    def read(until: datetime) -> list[Intent]:
        return rt.ledger.exchange.threads(
            owner=actor.owner, names=names, status=None, after=after, until=until, limit=limit + 1
        )

    found = read(asked_at - SETTLE)
    if len(found) <= limit and len(read(asked_at)) > len(found):
        # Something has just changed. A change decided before it may still be on its way to the ledger: let that come.
        time.sleep(SETTLE.total_seconds())
        found = read(asked_at)
    page, has_more = found[:limit], len(found) > limit
    shown = [
        {"cursor": _cursor(one), "thread": thread} for one, thread in zip(page, _threads(page, actor), strict=True)
    ]
    return reply(
        {"ok": True, "changes": shown, "next_cursor": shown[-1]["cursor"] if shown else cursor, "has_more": has_more}
    )


@blueprint.get("/inbox/<thread_id>")
def get_thread(thread_id: str) -> Response:
    """One thread."""
    return reply({"ok": True, "thread": _one(_find(thread_id, need()), need())})


@blueprint.post("/inbox/<thread_id>/reply")
@writes
def reply_to_thread(thread_id: str) -> JsonDict:
    """Write a message in a thread."""
    actor = need(Role.APPROVER)
    intent = _find(thread_id, actor)
    message = Fields(body()).text("message", longest=131072, required=True) or ""
    if not message.strip():
        raise BadInput("message is empty")
    agents.send_message(house().rt, intent.id, message, by=actor.id)
    return _shown(thread_id, actor)


@blueprint.post("/inbox/<thread_id>/approve")
@writes
def approve_thread(thread_id: str) -> JsonDict:
    """Say yes to what the thread's intent waits for."""
    return _decided(thread_id, yes=True)


@blueprint.post("/inbox/<thread_id>/reject")
@writes
def reject_thread(thread_id: str) -> JsonDict:
    """Say no to it."""
    return _decided(thread_id, yes=False)


def _decided(thread_id: str, *, yes: bool) -> JsonDict:
    actor = need(Role.APPROVER)
    comment = Fields(body()).text("comment", longest=2000)
    wait = _asked(_find(thread_id, actor))
    decide(actor, wait, {"outcome": outcome_for(wait, yes=yes)}, comment)
    return _shown(thread_id, actor)


@blueprint.post("/inbox/<thread_id>/delegate")
@writes
def delegate_thread(thread_id: str) -> JsonDict:
    """Leave the answer to somebody else; with a note alone, only that is written."""
    actor, fields, rt = need(Role.APPROVER), Fields(body()), house().rt
    intent = _find(thread_id, actor)
    to, note = fields.line("delegate_to"), fields.text("note", longest=2000)
    if to is None and note is None:
        raise BadInput("give delegate_to, or a note")
    if to is not None:
        wait = _asked(intent)
        handover.delegate(rt, wait.id, to, by=actor.id, reason=note, groups=answers_for(actor))
    elif note is not None:
        agents.send_message(rt, intent.id, note, by=actor.id)
    return _shown(thread_id, actor)


@blueprint.post("/inbox/<thread_id>/messages/delete")
@writes
def delete_messages(thread_id: str) -> JsonDict:
    """Take one's own messages out of a thread: for oneself (``mode: self``), or for everybody (``both``)."""
    actor, fields, exchange = need(Role.APPROVER), Fields(body()), house().rt.ledger.exchange
    intent = _find(thread_id, actor)
    mode = fields.line("mode", longest=8) or "self"
    if mode not in ("self", "both"):
        raise BadInput("mode must be self or both")
    ids, limit = fields.lines("message_ids", most=100, longest=64), fields.integer("limit", most=100) or 100
    known = [one for one in exchange.messages([intent.id]) if one.event_type == "message.sent"]
    chosen = [one for one in known if ids is None or one.id in ids]
    if mode == "both":
        chosen = [one for one in chosen if one.actor == actor.id or actor.may(Role.OPERATOR)][-limit:]
        exchange.delete_messages(intent.id, [one.id for one in chosen])
    else:
        chosen = [one for one in chosen if actor.id not in one.details.get("hidden_for", ())][-limit:]
        for one in chosen:
            hidden = [*one.details.get("hidden_for", ()), actor.id]
            exchange.say(replace(one, details={**one.details, "hidden_for": hidden}))
    return {
        **_shown(thread_id, actor), "mode": mode, "deleted_count": len(chosen),
        "message_ids": [one.id for one in chosen],
    }  # fmt: skip


@blueprint.post("/inbox/<thread_id>/read")
@writes
def read_thread(thread_id: str) -> JsonDict:
    """Note that the thread was read up to now."""
    actor, rt = need(), house().rt
    intent = _find(thread_id, actor)
    known = str(uuid.uuid5(_NAMESPACE, f"read:{intent.id}:{actor.id}"))
    rt.ledger.exchange.say(
        Message(id=known, intent_id=intent.id, event_type="thread.read", actor=actor.id, details={"seq": intent.seq},
                at=rt.ledger.now())
    )  # fmt: skip
    return _shown(thread_id, actor)


# -- whose, and which ------------------------------------------------------------------------


def _whose() -> tuple[Actor, list[str] | None]:
    """Who asks, and whose threads: as narrowed by the request; else their own, or for an operator everybody's."""
    actor, asked = need(), narrowed()
    if asked is not None:
        asked = line(asked, "owner_agent", longest=383)
        bare = asked.removeprefix(SCHEME)
        names = {asked, bare, SCHEME + bare}
        if not actor.may(Role.OPERATOR) and not names & names_of(actor):
            # Within what they may see, their own is all there is.
            return actor, []
        return actor, sorted(names)
    return actor, None if actor.may(Role.OPERATOR) else sorted(names_of(actor))


def _find(thread_id: str, actor: Actor) -> Intent:
    """The thread's intent, where it is a thread for them. Raises NotFound."""
    try:
        intent = find(thread_id, actor)
    except NotFound:
        raise NotFound("thread", thread_id) from None
    if not intent.threaded or not (actor.may(Role.OPERATOR) or _takes_part(actor, intent)):
        raise NotFound("thread", thread_id)
    return intent


def _takes_part(actor: Actor, intent: Intent) -> bool:
    names = names_of(actor)
    if names & {intent.reply_to, intent.to_agent, intent.from_agent, intent.handler, intent.requester}:
        return True
    waits = house().rt.ledger.waits(intent.id)
    return any(
        names & {*wait.to, wait.answered_by, *(one["by"] for one in (*wait.votes, *wait.delegations))} for wait in waits
    )


def _asked(intent: Intent) -> Wait:
    """What the thread's intent waits for. Raises IntentEnded, Problem 409."""
    if intent.status.is_final:
        raise IntentEnded(intent.id, intent.status.value, intent.ended_at)
    wait = open_human_wait(intent)
    if wait is None:
        raise Problem(409, "not_waiting_for_human", f"intent {intent.id} waits for no person now")
    return wait


def _cursor(intent: Intent) -> str:
    micros = (intent.updated_at - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)
    return f"{micros}:{intent.id}"


def _after(cursor: str) -> tuple[datetime, str]:
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        raise BadInput("cursor is one that /v1/inbox/changes gave")
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=int(found[1])), found[2]


# -- as clients read them -----------------------------------------------------------------------


def _shown(thread_id: str, actor: Actor) -> JsonDict:
    intent = house().rt.ledger.intent(thread_id)
    assert intent is not None
    return {"ok": True, "thread": _one(intent, actor)}


def _one(intent: Intent, actor: Actor) -> JsonDict:
    return _threads([intent], actor)[0]


def _threads(intents: Sequence[Intent], actor: Actor) -> list[JsonDict]:
    ledger = house().rt.ledger
    written: dict[str, list[Message]] = {}
    if intents:
        for one in ledger.exchange.messages([intent.id for intent in intents]):
            written.setdefault(one.intent_id, []).append(one)
    made = []
    for intent in intents:
        since = max(0, intent.seq - MOST_EVENTS)
        events = ledger.events(intent.id, since, MOST_EVENTS)
        waits = [w for w in ledger.waits(intent.id) if w.kind is WaitKind.HUMAN]
        made.append(_thread(intent, events, waits, written.get(intent.id, []), actor))
    return made


def _thread(
    intent: Intent, events: Sequence[Event], waits: Sequence[Wait], messages: Sequence[Message], actor: Actor
) -> JsonDict:
    to = intent.to_agent or next((", ".join(wait.to) for wait in waits), "") or "agent://celery"
    sender = intent.from_agent or intent.requester or "agent://celery"
    visible = [
        one
        for one in messages
        if one.event_type == "message.sent" and actor.id not in one.details.get("hidden_for", ())
    ]
    timeline = [item for event in events for item in _items(event, intent)]
    timeline += [
        {"event_id": one.id, "event_type": one.event_type, "actor": _actor(one.actor), "at": utc_iso(one.at),
         "details": {"message": one.details.get("message", ""), "message_id": one.id}}
        for one in visible
    ]  # fmt: skip
    timeline.sort(key=lambda item: item["at"])
    asked = open_human_wait(intent)
    return {
        "thread_id": intent.id,
        "intent_id": intent.id,
        "intent_type": intent.type,
        "subject": asked.title if asked is not None else intent.type,
        "status": "done" if intent.status.is_final else "pending" if asked is not None else "active",
        "intent_status": intent.status.value,
        "owner_agent": _three(intent.reply_to or to),
        "from_agent": _three(sender),
        "to_agent": _three(to),
        "created_at": utc_iso(intent.created_at),
        "updated_at": utc_iso(intent.updated_at),
        "timeline": timeline,
        "messages": [
            {"message_id": one.id, "role": _actor(one.actor), "content": one.details.get("message", "")}
            for one in visible
        ],
        **({"wait_id": asked.id, "approval_id": asked.id} if asked is not None else {}),
    }


def _items(event: Event, intent: Intent) -> list[JsonDict]:
    """What an event is in a timeline; the end of an intent is told whole."""
    if event.type in ("intent.message_sent", "intent.submitted"):
        return []
    kind, details = event.type, dict(event.details)
    if event.type == "intent.created":
        kind = "intent_received"
    elif event.status.is_final:
        kind = "intent_completion_delivered" if intent.reply_to else event.type
        details = {
            "type": "intent.completion", "intent_id": intent.id, "status": event.status.value,
            "event": wire.event(event, intent),
        }  # fmt: skip
    known = uuid.uuid5(_NAMESPACE, f"{intent.id}:{event.seq}")
    return [
        {"event_id": str(known), "event_type": kind, "actor": _actor(event.actor), "at": utc_iso(event.at),
         "details": details}
    ]  # fmt: skip


def _actor(name: str | None) -> str:
    return (name or "axme-celery")[:120].ljust(2, "-")


def _three(name: str) -> str:
    return name[:255].ljust(3, "-")
