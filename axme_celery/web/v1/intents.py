"""Intents: create, get, list, their events, resolve, controls, policy, transfer, cancel."""

from __future__ import annotations

from datetime import datetime, timedelta

from flask import Response

from ... import agents, schemas, submit, wire
from ...durations import moment, utc_iso
from ...errors import BadInput, IntentEnded
from ...handle import IntentHandle
from ...model import Intent, JsonDict, Status, Wait, WaitStatus
from ...outbound import check_url
from ...parties import Addressed, address, is_address
from ...submit import Submission
from ...trace import carried
from ...who import Actor
from ..house import house
from . import blueprint
from .human import gate
from .problems import Problem
from .repeats import request_key, writes, writes_results
from .requests import Fields, body, query_int, query_line, reply
from .rights import Role, find, need, needs_decider

TYPE_LONGEST = 255
#: What of a creation is kept as the intent's terms.
_TERMS = ("remind_after_seconds", "remind_interval_seconds", "max_reminders", "escalate_to", "max_delivery_attempts")
_ENDS = {
    "COMPLETED": Status.COMPLETED,
    "FAILED": Status.FAILED,
    "CANCELED": Status.CANCELED,
    "CANCELLED": Status.CANCELED,
}


@blueprint.post("/intents")
@writes
def create_intent() -> JsonDict:
    """Keep an intent; when this is answered it cannot be lost any more."""
    actor, rt = need(Role.APPROVER), house().rt
    made = submit.submit(rt, [submission(actor, body(), key=request_key())])[0]
    return {
        "ok": True, "intent_id": made.id, "status": made.status.value, "created_at": utc_iso(made.created_at),
        "correlation_id": made.correlation_id,
    }  # fmt: skip


def submission(actor: Actor, given: JsonDict, *, key: str | None) -> Submission:
    """The submission a request describes, checked. Raises BadInput, Problem."""
    from ...bindings import TYPE

    fields, rt = Fields(given), house().rt
    kind = fields.line("intent_type", longest=TYPE_LONGEST, required=True)
    if not TYPE.fullmatch(kind or ""):
        raise BadInput("intent_type must be dotted lower-case words and a version, like 'intent.analytics.export.v1'")
    sent_to = fields.line("to_agent", longest=383, required=True)
    to = addressed(sent_to or "", "to_agent")
    payload = fields.object("payload") or {}
    schemas.check_payload(rt, kind or "", payload, owner=actor.owner)
    sender = actor.agent or fields.line("from_agent", longest=383)
    refuse_unwanted(sender, to)
    terms = {name: fields.integer(name) for name in _TERMS if name != "escalate_to"}
    human = fields.object("human_task")
    kept: JsonDict = {k: v for k, v in terms.items() if v is not None}
    escalate_to = fields.line("escalate_to", longest=383)
    if escalate_to is not None:
        kept["escalate_to"] = escalate_to
    if human is not None:
        kept["human_task"] = human
    work = house().axme.read_work(Addressed(to, payload, kind, kept.get("max_delivery_attempts")))
    return Submission(
        work=work,
        key=key,
        type=kind,
        payload=rt.codec.encode(
            payload, what="payload", limit_bytes=rt.settings.payload_bytes, setting="axme_payload_bytes"
        ),
        deadline_seconds=_deadline(fields, rt.ledger.now()),
        reply_to=fields.line("reply_to", longest=383),
        notify=_notify(fields),
        requester=actor.id,
        correlation_id=fields.uuid("correlation_id") or rt.new_id(),
        owner=actor.owner,
        from_agent=sender,
        to_agent=sent_to,
        terms=kept or None,
        trace=carried(),
        gate=None if human is None else gate(actor, kind or "", human, kept, known=is_known(to, work.task)),
    )


def addressed(given: str, what: str) -> str:
    """An agent's address in its one form; a bare name is the one agent of that name. Raises Problem 422."""
    try:
        found = address(given, what)
    except BadInput as wrong:
        raise Problem(422, "invalid_agent_address", str(wrong)) from None
    return found


def is_known(to: str, task: str) -> bool:
    """Whether a task or an agent serves this address: somebody the intent goes to after its human task."""
    if not is_address(task):
        return True
    known = house().rt.ledger.mailboxes.agent(to)
    return known is not None and known.seen_at is not None and known.status != "deleted"


def refuse_unwanted(sender: str | None, to: str) -> None:
    """Raises Problem 403 where the sender's policy or the receiver's says no."""
    try:
        of = None if sender is None else address(sender)
    except BadInput:
        of = None
    code = agents.refusal(house().rt, of, to)
    if code is not None:
        raise Problem(403, code, f"{sender or 'somebody who is no agent'} may not send to {to}")


def _notify(fields: Fields) -> str | None:
    """The URL that is told of the intent's end."""
    url = fields.line("notify", longest=2048)
    if url is not None:
        check_url(url)
    return url


def _deadline(fields: Fields, now: datetime) -> float | None:
    at, ttl = fields.moment("deadline_at"), fields.integer("ttl_seconds", least=60, most=604800)
    spans = [float(ttl)] if ttl is not None else []
    if at is not None:
        spans.append((at - now).total_seconds())
    if spans and min(spans) <= 0:
        raise BadInput("deadline_at has passed already")
    return min(spans, default=None)


# -- reading ------------------------------------------------------------------------------


@blueprint.get("/intents/<intent_id>")
def get_intent(intent_id: str) -> Response:
    """An intent as it stands."""
    return reply({"ok": True, "intent": shown(find(intent_id, need()))})


@blueprint.get("/intents")
def list_intents() -> Response:
    """Intents, newest first: by status, type, agent; read page by page with ``cursor``."""
    actor = need()
    limit = query_int("limit", 50, least=1, most=200, clip=True)
    filters: JsonDict = {
        "type": query_line("intent_type"), "to_agent": query_line("to_agent"), "from_agent": query_line("from_agent"),
        "correlation_id": query_line("correlation_id"), "owner": actor.owner,
    }  # fmt: skip
    status = query_line("status")
    if status:
        filters["status"] = statuses(status)
    found = house().rt.ledger.intents(filters, _after(), limit)
    cursor = f"{utc_iso(found[-1].created_at)}~{found[-1].id}" if len(found) == limit else None
    return reply({"ok": True, "intents": [wire.intent(one) for one in found], "next_cursor": cursor})


def statuses(given: str) -> list[str]:
    """The statuses a list of words names. Raises BadInput."""
    words = [word.strip().upper() for word in given.split(",") if word.strip()]
    if words == ["PENDING"]:
        # An older word for what nobody has finished.
        return [one.value for one in Status if not one.is_final]
    words = ["CANCELED" if word == "CANCELLED" else word for word in words]
    unknown = [word for word in words if word not in Status.__members__]
    if unknown:
        raise BadInput(f"status is none of {', '.join(Status)}")
    return words


def _after() -> tuple[datetime, str] | None:
    cursor = query_line("cursor", longest=128)
    if cursor is None:
        return None
    at, _, intent_id = cursor.partition("~")
    return moment(at, "cursor"), intent_id


@blueprint.get("/intents/<intent_id>/events")
def list_events(intent_id: str) -> Response:
    """An intent's events after ``since``, in order."""
    intent = find(intent_id, need())
    since = query_int("since", 0, least=0, most=2**31 - 1)
    found = IntentHandle(house().rt, intent).events(since)
    # Read after its events, so that an end among them finds its result.
    intent = house().rt.ledger.intent(intent_id) or intent
    return reply({"ok": True, "events": [wire.event(one, intent) for one in found]})


def shown(intent: Intent) -> JsonDict:
    """An intent with what its legs and waits say of it."""
    ledger = house().rt.ledger
    waits = ledger.waits(intent.id) if intent.status is Status.WAITING else []
    pending = next((w for w in waits if w.status is WaitStatus.OPEN), None)
    found = wire.intent(intent, pending=None if pending is None else _pending(pending))
    if pending is not None:
        found["wait_id"] = pending.id
        found["remind_count"] = pending.reminders
    if intent.to_agent is not None:
        attempts = [leg.attempts for leg in ledger.legs(intent.id) if is_address(leg.task)]
        if attempts:
            found["delivery_attempt"] = max(attempts)
    return found


def _pending(wait: Wait) -> JsonDict:
    return {"title": wait.title, "pending_with": list(wait.to), "tool": wait.tool, "job_id": wait.job_id}


# -- deciding --------------------------------------------------------------------------------


@blueprint.post("/intents/<intent_id>/resolve")
@writes_results
def resolve_intent(intent_id: str) -> JsonDict:
    """Say how an intent ended: COMPLETED with a result, FAILED with an error, CANCELED for a reason."""
    actor, rt, fields = need(Role.APPROVER), house().rt, Fields(body())
    intent = find(intent_id, actor)
    needs_decider(actor, intent)
    status = _ENDS.get(str(fields.line("status", required=True)).upper())
    if status is None:
        raise BadInput("status must be COMPLETED, FAILED or CANCELED")
    fields.line("actor", longest=255)
    expected = fields.integer("expected_policy_generation", least=0)
    result, error = fields.object("result"), fields.object("error")
    reason = fields.text("reason", longest=2000)
    if status is Status.CANCELED:
        agents.check_generation(intent, expected)
        ended = submit.cancel(rt, intent_id, reason=reason or "canceled", by=actor.id)
    elif status is Status.FAILED:
        if error is None and reason is None:
            raise BadInput('FAILED needs an error, an object such as {"code": ..., "message": ...}')
        ended = agents.complete(rt, intent_id, error=error_of(error, reason), by=actor.id, expected_generation=expected)
    else:
        ended = agents.complete(
            rt,
            intent_id,
            result={} if result is None else result,
            by=actor.id,
            holder=actor.agent or actor.id,
            expected_generation=expected,
        )
    return ended_reply(ended)


def error_of(error: JsonDict | None, reason: str | None) -> JsonDict:
    """An error with the two names every error has."""
    given = dict(error or {})
    code, message = given.get("code"), given.get("message")
    given["code"] = code if isinstance(code, str) and code.strip() and len(code) <= 255 else "failed"
    given["message"] = message if isinstance(message, str) and message else reason or "failed"
    return given


def ended_reply(ended: Intent) -> JsonDict:
    """What is answered to whoever ended an intent: it, its last event, and where that was told."""
    last = house().rt.ledger.events(ended.id, ended.seq - 1, 1)
    return {
        "ok": True, "applied": True, "intent": shown(ended), "event": wire.event(last[0], ended),
        "completion_delivery": completion(ended), "policy_generation": agents.generation(ended),
    }  # fmt: skip


def completion(intent: Intent) -> JsonDict:
    """Where the end of an intent was delivered: the inbox it was to reply to."""
    if intent.reply_to is None:
        return {"delivered": False, "reason": "reply_to_not_set"}
    said = {"type": "intent.completion", "intent_id": intent.id, "status": intent.status.value}
    return {"delivered": True, "reply_to": intent.reply_to, "thread_id": intent.id, "completion": said}


@blueprint.post("/intents/<intent_id>/controls")
@writes
def change_controls(intent_id: str) -> JsonDict:
    """Lay a patch over an intent's controls. ``timeout_seconds`` moves its deadline."""
    return _retermed(intent_id, "update_controls", "intent.controls_changed", {"controls_patch": "controls"})


@blueprint.post("/intents/<intent_id>/policy")
@writes
def change_policy(intent_id: str) -> JsonDict:
    """Lay patches over an intent's grants and envelope."""
    names = {"grants_patch": "grants", "envelope_patch": "envelope"}
    return _retermed(intent_id, "update_policy", "intent.policy_changed", names)


def _retermed(intent_id: str, right: str, event: str, names: dict[str, str]) -> JsonDict:
    actor, fields = need(Role.APPROVER), Fields(body())
    needs_decider(actor, find(intent_id, actor), right)
    patch = {kept: found for given, kept in names.items() if (found := fields.object(given)) is not None}
    if not patch:
        raise BadInput(f"give {' or '.join(names)}, an object")
    _check_patch(patch)
    fields.line("actor")
    changed = agents.change_terms(
        house().rt, intent_id, event=event, patch=patch, by=actor.id, reason=fields.text("reason", longest=2000),
        expected=fields.integer("expected_policy_generation", least=0),
    )  # fmt: skip
    terms = changed.terms or {}
    return {
        "ok": True, "applied": True, "policy_generation": agents.generation(changed),
        **{kept: terms.get(kept, {}) for kept in names.values()},
    }  # fmt: skip


def _check_patch(patch: JsonDict) -> None:
    for limit in (patch.get("controls", {}), patch.get("envelope", {})):
        fields = Fields(limit)
        for name in ("timeout_seconds", "execution_timeout_seconds", "ttl_seconds"):
            fields.integer(name)
        fields.moment("expires_at")
    for name, granted in patch.get("grants", {}).items():
        allow = None if granted is None else Fields(granted).lines("allow") if isinstance(granted, dict) else []
        if not name.startswith("delegate:") or allow == []:
            raise BadInput(
                'grants_patch is {"delegate:agent://...": {"allow": ["resume", ...]}}, or null to take one back'
            )


@blueprint.post("/intents/<intent_id>/transfer")
@writes
def transfer_intent(intent_id: str) -> JsonDict:
    """Give an intent to another agent."""
    actor, fields = need(Role.APPROVER), Fields(body())
    needs_decider(actor, find(intent_id, actor))
    to = fields.line("next_handler", longest=383) or fields.line("to_agent", longest=383, required=True)
    to = addressed(to or "", "next_handler")
    refuse_unwanted(actor.agent, to)
    moved = agents.transfer(house().rt, intent_id, to=to, by=actor.id, reason=fields.text("reason", longest=2000))
    return {"ok": True, "applied": True, "intent": shown(moved)}


@blueprint.post("/intents/<intent_id>/acknowledge")
@writes
def acknowledge_intent(intent_id: str) -> JsonDict:
    """An agent says that it has it, which renews its lease."""
    return _renewed(intent_id, acknowledging=True)


@blueprint.post("/intents/<intent_id>/lease")
@writes
def renew_lease(intent_id: str) -> JsonDict:
    """An agent is still at work on it: put off the moment at which the next listener gets it."""
    return _renewed(intent_id, acknowledging=False)


def _renewed(intent_id: str, *, acknowledging: bool) -> JsonDict:
    actor, rt, fields = need(Role.APPROVER), house().rt, Fields(body())
    needs_decider(actor, find(intent_id, actor))
    seconds = fields.integer("lease_seconds", most=86400) or rt.settings.agent_lease_seconds
    try:
        kept = agents.renew(rt, intent_id, by=actor.id, lease_seconds=seconds, acknowledge=acknowledging)
    except BadInput as nobody:
        raise Problem(409, "not_held", str(nobody)) from None
    return {"ok": True, "applied": True, "intent_id": kept.id, "status": kept.status.value, "lease_seconds": seconds}


@blueprint.post("/intents/<intent_id>/cancel")
@writes
def cancel_intent(intent_id: str) -> JsonDict:
    """Cancel an intent: what runs of it is stopped, what waits is closed."""
    actor, fields = need(Role.APPROVER), Fields(body())
    needs_decider(actor, find(intent_id, actor))
    reason = fields.text("reason", longest=2000)
    return ended_reply(submit.cancel(house().rt, intent_id, reason=reason or "canceled", by=actor.id))


@blueprint.route("/intents/bulk-cancel", methods=["OPTIONS"])
def bulk_cancel_options() -> Response:
    """What may be done here: not what may be done with an intent, whose path this also looks like."""
    response = reply({"ok": True})
    response.headers["Allow"] = "POST, OPTIONS"
    return response


@blueprint.post("/intents/bulk-cancel")
@writes
def bulk_cancel() -> JsonDict:
    """Cancel what nobody will finish: intents older than so many hours; ``dry_run`` only tells which."""
    actor, rt, fields = need(Role.OPERATOR), house().rt, Fields(body())
    hours = fields.integer("older_than_hours", least=0, most=24 * 3660)
    limit = fields.integer("limit", most=1000) or 100
    reason = fields.text("reason", longest=2000) or "canceled in bulk"
    named = fields.lines("status_filter", longest=32)
    wanted = statuses(",".join(named)) if named else [one.value for one in Status if not one.is_final]
    before = rt.ledger.now() - timedelta(hours=hours or 0)
    filters: JsonDict = {"status": wanted, "owner": actor.owner, "created_before": before}
    found = [one for one in rt.ledger.intents(filters, None, limit) if not one.status.is_final]
    ids = [one.id for one in found]
    if fields.flag("dry_run", False):
        return {"ok": True, "dry_run": True, "would_cancel": len(ids), "intent_ids": ids}
    canceled = []
    for intent_id in ids:
        try:
            canceled.append(submit.cancel(rt, intent_id, reason=reason, by=actor.id).id)
        except IntentEnded:
            continue
    return {"ok": True, "dry_run": False, "canceled": len(canceled), "intent_ids": canceled}
