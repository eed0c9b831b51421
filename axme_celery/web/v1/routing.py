"""Routed deliveries: a payload for whoever has an alias in a workspace, sent as an intent to that agent.

Organisations and workspaces are only names here. The agent is ``agent://<org_id>/<workspace_id>/<alias>``, or the
address itself where a principal is named by one; what becomes of the delivery is what becomes of the intent.
"""

from __future__ import annotations

from flask import request

from ... import submit
from ...durations import utc_iso
from ...errors import BadInput, NotFound
from ...model import Intent, JsonDict, Status
from ...parties import SCHEME, Addressed, address
from ...submit import Submission
from ...who import Actor
from ...wire import plain
from ..house import house
from . import blueprint
from .intents import refuse_unwanted
from .repeats import request_key, writes
from .requests import Fields, body, query_int, query_line
from .rights import Role, find, need

#: What such an intent is of.
TYPE = "delivery.route.v1"
PREFIX = "dlv_"
_STATUS = {
    Status.CREATED: "submitted", Status.SUBMITTED: "submitted", Status.WAITING: "pending",
    Status.FAILED: "failed", Status.CANCELED: "dead_lettered", Status.TIMED_OUT: "dead_lettered",
}  # fmt: skip
_STATUSES = ("submitted", "delivered", "failed", "pending", "dead_lettered")


@blueprint.post("/deliveries")
@writes
def route_delivery() -> JsonDict:
    """Send a payload to the agent that has this alias, or is this principal, in a workspace."""
    actor, fields = need(Role.APPROVER), Fields(body())
    org, workspace = fields.uuid("org_id", required=True), fields.uuid("workspace_id", required=True)
    alias, principal = fields.line("alias"), fields.line("principal_id", longest=383)
    if (alias is None) == (principal is None):
        raise BadInput("give alias or principal_id, one of them")
    named = principal or alias or ""
    to = address(named if named.startswith(SCHEME) else f"{org}/{workspace}/{named}", "alias or principal_id")
    fields.line("idempotency_key", shortest=4)
    meta = {
        "org_id": org, "workspace_id": workspace, "principal_id": principal or to, "alias": alias,
        "idempotency_key": fields.line("idempotency_key"),
    }  # fmt: skip
    payload = fields.object("payload", required=True) or {}
    correlation_id = fields.line("correlation_id")
    sent = _send(actor, to, payload, {"delivery": meta}, correlation_id, key=request_key())
    return {"ok": True, "delivery": shown(sent)}


def _send(
    actor: Actor, to: str, payload: JsonDict, terms: JsonDict, correlation_id: str | None, *, key: str | None
) -> Intent:
    rt = house().rt
    refuse_unwanted(actor.agent, to)
    text = rt.codec.encode(payload, what="payload", limit_bytes=rt.settings.payload_bytes, setting="axme_payload_bytes")
    meta = terms["delivery"]
    submission = Submission(
        work=house().axme.read_work(Addressed(to, payload, TYPE)), key=key, type=TYPE, payload=text, to_agent=to,
        requester=actor.id, owner=actor.owner, from_agent=actor.agent, terms=terms, correlation_id=correlation_id,
        tags=(_tag(meta["org_id"], meta["workspace_id"]),),
    )  # fmt: skip
    (made,) = submit.submit(rt, [submission])
    return made


def routed(actor: Actor) -> JsonDict:
    """The routed deliveries of a workspace, newest first: what ``GET /v1/deliveries`` is asked with an ``org_id``."""
    named = Fields({name: request.args.get(name) for name in ("org_id", "workspace_id")})
    org, workspace = named.uuid("org_id", required=True), named.uuid("workspace_id", required=True)
    principal, status = query_line("principal_id"), query_line("status", longest=32)
    if status is not None and status not in _STATUSES:
        raise BadInput(f"status is none of {', '.join(_STATUSES)}")
    limit = query_int("limit", 200, least=1, most=200, clip=True)
    filters: JsonDict = {"type": TYPE, "tag": _tag(org, workspace), "owner": actor.owner}
    found = [shown(one) for one in house().rt.ledger.intents(filters, None, limit)]
    return {
        "ok": True, "next_cursor": None,
        "deliveries": [
            one for one in found
            if principal in (None, one["principal_id"]) and status in (None, one["status"])
        ],
    }  # fmt: skip


def one_of(delivery_id: str, actor: Actor) -> JsonDict:
    """One routed delivery. Raises NotFound."""
    return shown(_intent_of(delivery_id, actor))


def again(delivery_id: str, actor: Actor) -> JsonDict:
    """Send a routed delivery's payload again, as a delivery of its own."""
    old = _intent_of(delivery_id, actor)
    terms = dict(old.terms or {})
    meta = {**terms["delivery"], "replay_of": delivery_id, "idempotency_key": None}
    sent = _send(
        actor, old.to_agent or "", plain(old.payload), {"delivery": meta}, old.correlation_id, key=request_key()
    )
    return shown(sent)


def _intent_of(delivery_id: str, actor: Actor) -> Intent:
    try:
        found = find(delivery_id.removeprefix(PREFIX), actor)
    except NotFound:
        raise NotFound("delivery", delivery_id) from None
    if found.type != TYPE or "delivery" not in (found.terms or {}):
        raise NotFound("delivery", delivery_id)
    return found


def shown(intent: Intent) -> JsonDict:
    """A routed delivery as clients read it."""
    meta = (intent.terms or {})["delivery"]
    return {
        "delivery_id": PREFIX + intent.id, "replay_of_delivery_id": meta.get("replay_of"), "intent_id": intent.id,
        "org_id": meta["org_id"], "workspace_id": meta["workspace_id"], "principal_id": meta["principal_id"],
        "alias": meta["alias"], "transport_type": "queue", "route_id": intent.to_agent,
        "status": _STATUS.get(intent.status, "delivered"), "correlation_id": intent.correlation_id,
        "idempotency_key": meta["idempotency_key"], "payload": plain(intent.payload),
        "error_detail": None if intent.error is None else str(intent.error.get("message")),
        "created_at": utc_iso(intent.created_at), "updated_at": utc_iso(intent.updated_at),
    }  # fmt: skip


def _tag(org: str | None, workspace: str | None) -> str:
    return f"workspace:{org}/{workspace}"
