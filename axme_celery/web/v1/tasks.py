"""What people are asked: their open tasks, and decisions on them. The same waits that the pages show."""

from __future__ import annotations

from flask import Response

from ...durations import utc_iso
from ...errors import BadInput, NotFound
from ...model import Intent, JsonDict, Wait, WaitKind
from ...who import Actor
from ..house import house
from . import blueprint
from .human import spec
from .repeats import writes
from .requests import Fields, body, query_flag, query_int, reply
from .resume import decide, outcome_for
from .rights import Role, find, need, sees, voice

#: Pages of open tasks looked through for those of one's owner, at most.
MOST_PAGES = 20
_DECISIONS = {"approve": True, "approved": True, "reject": False, "rejected": False}


@blueprint.get("/me/tasks")
def list_tasks() -> Response:
    """The open tasks of whoever asks and of their groups, oldest first; with ``all=1`` an operator's view of everybody's."""
    actor, rt = need(), house().rt
    limit = query_int("limit", 50, least=1, most=200, clip=True)
    everybody = query_flag("all") and actor.may(Role.OPERATOR)
    names = [] if everybody else sorted(names_of(actor))
    tasks: list[JsonDict] = []
    after = None
    for _ in range(MOST_PAGES):
        page = rt.ledger.inbox(names, after, limit)
        for wait in page:
            intent = rt.ledger.intent(wait.intent_id)
            if intent is not None and sees(actor, intent) and len(tasks) < limit:
                tasks.append(task(intent, wait))
        if len(page) < limit or len(tasks) >= limit:
            break
        after = (page[-1].opened_at, page[-1].id)
    return reply({"ok": True, "tasks": tasks})


@blueprint.post("/approvals/<approval_id>/decision")
@writes
def decide_approval(approval_id: str) -> JsonDict:
    """Approve or reject what an intent waits for; the approval's id is the intent's, or its wait's."""
    actor, fields = need(Role.APPROVER), Fields(body())
    said = _DECISIONS.get((fields.line("decision", longest=32, required=True) or "").lower())
    if said is None:
        raise BadInput("decision must be approve or reject")
    comment = fields.text("comment", longest=1000) or fields.text("reason", longest=1000)
    _, wait = approval(approval_id, actor)
    decide(actor, wait, {"outcome": outcome_for(wait, yes=said)}, comment)
    record = house().rt.ledger.wait(wait.id)
    vote = next((v for v in reversed(record.wait.votes) if v["by"] == actor.id), {}) if record else {}
    return {
        "ok": True,
        "approval": {
            "approval_id": approval_id,
            "decision": "approve" if said else "reject",
            "comment": vote.get("comment", comment),
            "decided_at": vote.get("at") or utc_iso(house().rt.ledger.now()),
        },
    }


def approval(approval_id: str, actor: Actor) -> tuple[Intent, Wait]:
    """The person's wait of this id, or of the intent of this id, where it exists for them. Raises NotFound."""
    ledger = house().rt.ledger
    record = ledger.wait(approval_id)
    intent_id = approval_id if record is None else record.intent.id
    try:
        intent = find(intent_id, actor)
    except NotFound:
        raise NotFound("approval", approval_id) from None
    waits = [w for w in ledger.waits(intent.id) if w.kind is WaitKind.HUMAN]
    if record is not None:
        waits = [w for w in waits if w.id == record.wait.id]
    if not waits:
        raise NotFound("approval", approval_id)
    still_open = [w for w in waits if w.closed_at is None]
    return intent, (still_open or waits[-1:])[0]


def names_of(actor: Actor) -> frozenset[str]:
    """Everything a task may be addressed to this actor by."""
    own = voice(actor)
    return actor.names if own is None else actor.names | {own, own.removeprefix("agent://")}


def task(intent: Intent, wait: Wait) -> JsonDict:
    """A person's task as clients read it."""
    found: JsonDict = {
        "intent_id": intent.id,
        "intent_type": intent.type,
        "status": "WAITING",
        "assigned_at": utc_iso(wait.opened_at),
        "human_task": spec(wait),
        "from_agent": intent.from_agent or intent.requester,
        "due_at": None if wait.timeout_at is None else utc_iso(wait.timeout_at),
    }
    return {name: value for name, value in found.items() if value is not None}
