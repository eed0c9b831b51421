"""What an AI agent can do here over MCP: each tool is a verb, with the same rights as over HTTP."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from flask import g

from .. import submit, wire
from ..errors import BadInput
from ..handle import LOOK_SECONDS, IntentHandle
from ..model import JsonDict, Wait
from ..who import Actor, Role
from ..wire import text_of
from .house import RoleNeeded, house
from .v1 import human, intents, resume, rights, tasks
from .v1.requests import Fields

#: How long ``intents_follow`` may hold a request.
LONGEST_WAIT_SECONDS = 50


class Refused(Exception):
    """A tool says no, with a word for why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Tool:
    """One tool."""

    name: str
    what: str
    properties: JsonDict
    required: tuple[str, ...]
    call: Callable[[Actor, JsonDict], JsonDict]
    changes: bool = False

    @property
    def described(self) -> JsonDict:
        """As ``tools/list`` has it."""
        schema = {"type": "object", "properties": {**self.properties, **_COMMON}, "required": list(self.required)}
        if not self.changes:
            schema["properties"] = dict(self.properties)
        return {
            "name": self.name, "description": self.what, "inputSchema": schema,
            "annotations": {"readOnlyHint": not self.changes, "destructiveHint": self.name.endswith("cancel")},
        }  # fmt: skip


_COMMON: JsonDict = {"idempotency_key": {"type": "string", "description": "Called again with it, it is done once."}}
_ID: JsonDict = {"intent_id": {"type": "string", "description": "The intent's id, a UUID."}}
_TEXT: JsonDict = {"type": "string"}


def _need(actor: Actor, role: Role) -> None:
    if not actor.may(role):
        raise RoleNeeded(actor, role)


def _named(arguments: JsonDict) -> str:
    found = Fields(arguments).line("intent_id", required=True)
    assert found is not None
    return found


# -- intents ---------------------------------------------------------------------------


def _send(actor: Actor, arguments: JsonDict) -> JsonDict:
    _need(actor, Role.APPROVER)
    key = None
    if g.get("axme_mcp_key") is not None:
        given = Fields({"idempotency_key": g.axme_mcp_key}).line("idempotency_key")
        key = "mcp:" + hashlib.sha256(text_of([actor.id, actor.owner or "", given]).encode()).hexdigest()
    made = submit.submit(house().rt, [intents.submission(actor, arguments, key=key)])[0]
    return {"intent_id": made.id, "status": made.status.value}


def _get(actor: Actor, arguments: JsonDict) -> JsonDict:
    return {"intent": intents.shown(rights.find(_named(arguments), actor))}


def _list(actor: Actor, arguments: JsonDict) -> JsonDict:
    fields = Fields(arguments)
    limit = fields.integer("limit", most=200) or 20
    status = fields.line("status", longest=200)
    filters: JsonDict = {
        "owner": actor.owner, "type": fields.line("intent_type"), "to_agent": fields.line("to_agent", longest=383),
        "status": intents.statuses(status) if status else None,
    }  # fmt: skip
    found = house().rt.ledger.intents(filters, None, limit)
    return {"intents": [wire.intent(one) for one in found]}


def _follow(actor: Actor, arguments: JsonDict) -> JsonDict:
    fields, rt = Fields(arguments), house().rt
    since = fields.integer("since", least=0) or 0
    seconds = fields.integer("wait_seconds", least=0, most=LONGEST_WAIT_SECONDS) or 0
    intent = rights.find(_named(arguments), actor)
    handle, until = IntentHandle(rt, intent), time.monotonic() + seconds
    while True:
        events = handle.events(since)
        handle.refresh()
        left = until - time.monotonic()
        if events or handle.status.is_final or left <= 0:
            break
        handle.listen(min(left, LOOK_SECONDS))
    record = rt.ledger.intent(intent.id) or intent
    shown = [wire.event(one, record) for one in events]
    return {
        "status": record.status.value, "ended": record.status.is_final, "events": shown,
        "next_since": events[-1].seq if events else since,
    }  # fmt: skip


def _cancel(actor: Actor, arguments: JsonDict) -> JsonDict:
    _need(actor, Role.APPROVER)
    intent = rights.find(_named(arguments), actor)
    rights.needs_decider(actor, intent)
    reason = Fields(arguments).text("reason", longest=2000) or "canceled"
    return {"intent": intents.shown(submit.cancel(house().rt, intent.id, reason=reason, by=actor.id))}


# -- people ------------------------------------------------------------------------------


def _inbox(actor: Actor, arguments: JsonDict) -> JsonDict:
    rt = house().rt
    limit = Fields(arguments).integer("limit", most=200) or 20
    found: list[JsonDict] = []
    for wait in rt.ledger.inbox(sorted(tasks.names_of(actor)), None, 200):
        intent = rt.ledger.intent(wait.intent_id)
        if intent is not None and rights.sees(actor, intent) and len(found) < limit:
            found.append({**tasks.task(intent, wait), "wait_id": wait.id, "payload": wire.plain(intent.payload)})
    return {"tasks": found}


def _answer(actor: Actor, arguments: JsonDict) -> JsonDict:
    _need(actor, Role.APPROVER)
    fields = Fields(arguments)
    _, wait = tasks.approval(_named(arguments), actor)
    said: JsonDict = {
        name: arguments[name] for name in ("outcome", "comment", "data") if arguments.get(name) is not None
    }
    if fields.line("outcome", longest=64) is None:
        raise BadInput(f"outcome is required: one of {', '.join(human.spec(wait).get('allowed_outcomes') or [])}")
    decided = resume.decide(actor, wait, said)
    return {"intent": intents.shown(house().rt.ledger.intent(decided.id) or decided)}


def _approve(yes: bool) -> Callable[[Actor, JsonDict], JsonDict]:
    def decide(actor: Actor, arguments: JsonDict) -> JsonDict:
        _need(actor, Role.APPROVER)
        wait: Wait
        _, wait = tasks.approval(_named(arguments), actor)
        comment = Fields(arguments).text("comment", longest=2000)
        decided = resume.decide(actor, wait, {"outcome": resume.outcome_for(wait, yes=yes)}, comment)
        return {"intent": intents.shown(house().rt.ledger.intent(decided.id) or decided)}

    return decide


# -- who and what ---------------------------------------------------------------------------


def _whoami(actor: Actor, _: JsonDict) -> JsonDict:
    return {
        "id": actor.id, "role": actor.role.value, "groups": sorted(actor.groups), "owner": actor.owner,
        "agent": actor.agent,
    }  # fmt: skip


def _check_nick(_: Actor, arguments: JsonDict) -> JsonDict:
    # Nicks belong to AXP's messenger, which is not here: none is taken, and none can be.
    nick = Fields(arguments).line("nick", longest=64, required=True)
    return {"nick": nick, "available": False, "reason": "there are no nicks here"}


_SEND: JsonDict = {
    "intent_type": {"type": "string", "description": "Dotted lower-case words and a version: intent.report.monthly.v1"},
    "to_agent": {"type": "string", "description": "Who does it: agent://org/workspace/name"},
    "payload": {"type": "object", "description": "What it is about."},
    "deadline_at": {"type": "string", "description": "RFC 3339; not ended by then, it ends TIMED_OUT."},
    "correlation_id": {"type": "string", "description": "A UUID of yours."},
    "reply_to": _TEXT,
    "human_task": {"type": "object", "description": "A question somebody must answer first."},
}
_TOOLS = (
    Tool(
        "axme.intents_send", "Submit an intent. Kept durably when this answers.", _SEND, ("intent_type", "to_agent"),
        _send, True,
    ),
    Tool("axme.intents_get", "One intent as it stands.", _ID, ("intent_id",), _get),
    Tool(
        "axme.intents_list", "Intents, newest first.",
        {"status": {"type": "string", "description": "One or several, with commas: WAITING,IN_PROGRESS"},
         "intent_type": _TEXT, "to_agent": _TEXT, "limit": {"type": "integer", "minimum": 1, "maximum": 200}}, (), _list,
    ),
    Tool(
        "axme.intents_follow", "An intent's events after a number; waits for the next ones where there are none.",
        {**_ID, "since": {"type": "integer", "minimum": 0},
         "wait_seconds": {"type": "integer", "minimum": 0, "maximum": LONGEST_WAIT_SECONDS}}, ("intent_id",), _follow,
    ),
    Tool("axme.intents_cancel", "End an intent as CANCELED.", {**_ID, "reason": _TEXT}, ("intent_id",), _cancel, True),
    Tool(
        "axme.inbox", "What this key is asked: open questions for it and its groups, oldest first.",
        {"limit": {"type": "integer", "minimum": 1, "maximum": 200}}, (), _inbox,
    ),
    Tool(
        "axme.tasks_answer", "Answer a question with one of its outcomes, and its form's data where it has one.",
        {**_ID, "outcome": _TEXT, "comment": _TEXT, "data": {"type": "object"}}, ("intent_id", "outcome"), _answer, True,
    ),
    Tool("axme.tasks_approve", "Say yes to a question.", {**_ID, "comment": _TEXT}, ("intent_id",), _approve(True), True),
    Tool("axme.tasks_reject", "Say no to a question.", {**_ID, "comment": _TEXT}, ("intent_id",), _approve(False), True),
    Tool("axme.whoami", "Who this key is, and what it may do.", {}, (), _whoami),
    Tool("axme.check_nick", "Whether a nick is free. There are no nicks here.", {"nick": _TEXT}, ("nick",), _check_nick),
)  # fmt: skip
TOOLS = {tool.name: tool for tool in _TOOLS}
