"""The page on which a person decides: what will happen, until when, and what happens if nobody says anything."""

from __future__ import annotations

from typing import Any

from flask import redirect, request, session, url_for
from werkzeug import Response

from ... import answer as verbs
from ... import forms, handover, lifecycle, links
from ...errors import BadInput, LinkInvalid, NotAllowed, NotFound, ShownChanged, WaitClosed
from ...model import Event, JsonDict, WaitKind, WaitRecord, WaitStatus
from ...who import Actor, Role
from .. import fields, values
from ..guard import require_token
from ..house import house, need
from . import blueprint
from .shown import page, part_wanted, reason_given, shown, visible

#: What a button says, and how it looks.
_BUTTONS = {
    "approved": ("Approve", "yes"), "rejected": ("Reject", "no"), "confirmed": ("Confirm", "yes"),
    "denied": ("Deny", "no"), "changes_requested": ("Request changes", "maybe"), "assigned": ("Accept", "yes"),
    "declined": ("Decline", "no"), "submitted": ("Submit", "yes"), "provided": ("Send", "yes"),
    "completed": ("Done", "yes"), "failed": ("It failed", "no"), "override_approved": ("Override", "yes"),
}  # fmt: skip
#: Why a link shows, and does not decide.
_HINDRANCES = {
    "used": "You have answered by this link. It decides once.",
    "view_only": "This link shows, and does not decide.",
}
#: Links that one browser keeps at once.
MOST_LINKS = 5
#: Parts of a context that are shown in their own way.
_OWN_WAY = ("description", "summary", "links", "attachments", "before", "after")


@blueprint.get("/waits/<wait_id>")
def wait(wait_id: str) -> Any:
    """Look. Nothing a GET does changes anything."""
    actor = need()
    record = _record(wait_id, actor)
    if record.wait.kind is not WaitKind.HUMAN:
        return redirect(url_for("axme.pages.intent", intent_id=record.intent.id))
    return _page(record, actor)


@blueprint.post("/waits/<wait_id>")
def decide(wait_id: str) -> Any:
    """A person's answer."""
    actor = need(Role.APPROVER)
    record = _record(wait_id, actor)
    if record.wait.kind is not WaitKind.HUMAN:
        raise NotFound("wait", wait_id)
    outcome, comment = request.form.get("outcome", ""), request.form.get("comment", "").strip() or None
    asked = _form_of(record)
    return _decide(record, actor, asked, outcome, comment, None)


def _decide(
    record: WaitRecord,
    actor: Actor,
    asked: list[fields.Field],
    outcome: str,
    comment: str | None,
    link: links.Linked | None,
) -> Any:
    """Send the answer, and show what came of it."""
    wait_id, shown_hash = record.wait.id, request.form.get("payload_hash") or None
    data, errors = _filled_in(record, asked, outcome)
    if lifecycle.needs_comment(record.wait, outcome) and not comment:
        errors["comment"] = "Say why: this answer needs a few words."
    if errors:
        return _page(record, actor, link=link, form=asked, typed=comment, errors=errors), 422
    try:
        if link is not None:
            links.answer(
                house().rt, _secret_of(wait_id), outcome, comment=comment, data=data, expected_hash=shown_hash
            )  # fmt: skip
        else:
            verbs.answer(
                house().rt, wait_id, outcome, by=actor.id, comment=comment, data=data, groups=_names(record, actor),
                expected_hash=shown_hash, via=actor.via,
            )  # fmt: skip
    except ShownChanged:
        words = "What is asked has changed since you opened this page. Look at it again: nothing was decided."
        return _page(_record(wait_id, actor), actor, link=link, form=asked, typed=comment, notice=("wait", words)), 409
    except WaitClosed:
        return _page(_record(wait_id, actor), actor, link=link, typed=comment, late=True), 409
    except NotAllowed as refused:
        return _page(
            _record(wait_id, actor), actor, link=link, form=asked, typed=comment, notice=("bad", str(refused))
        ), 403
    except BadInput as refused:
        return _page(record, actor, link=link, form=asked, typed=comment, notice=("bad", str(refused))), 422
    return _back(wait_id, by_link=link is not None)


# -- by a link in a notice: no login, one wait, as the one it was sent to --


@blueprint.get("/a/<secret>")
def follow_link(secret: str) -> Response:
    """Take the secret out of the address, where it would stay in histories and logs. Changes nothing in the house."""
    linked = links.look_up(house().rt, secret)
    kept = session.get("axme-links")
    others = list(kept.items())[-MOST_LINKS + 1 :] if isinstance(kept, dict) else []
    session["axme-links"] = {**dict(others), linked.record.wait.id: secret}
    response = redirect(url_for("axme.pages.linked_wait", wait_id=linked.record.wait.id), 303)
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


@blueprint.get("/a/wait/<wait_id>")
def linked_wait(wait_id: str) -> Any:
    """The page of the wait, for whom the link was sent to."""
    linked = _linked(wait_id)
    return _page(linked.record, _bearer(linked), link=linked)


@blueprint.post("/a/wait/<wait_id>")
def decide_by_link(wait_id: str) -> Any:
    """Their answer, which uses the link up."""
    require_token()
    linked = _linked(wait_id)
    outcome, comment = request.form.get("outcome", ""), request.form.get("comment", "").strip() or None
    try:
        return _decide(linked.record, _bearer(linked), _form_of(linked.record), outcome, comment, linked)
    except LinkInvalid:
        linked = _linked(wait_id)
        words = "This link was used already, or does not decide any more."
        return _page(linked.record, _bearer(linked), link=linked, notice=("bad", words)), 409


def _linked(wait_id: str) -> links.Linked:
    """What the link to this wait, opened in this browser before, leads to. Raises LinkInvalid."""
    linked = links.look_up(house().rt, _secret_of(wait_id))
    if linked.record.wait.id != wait_id:
        raise LinkInvalid("unknown")
    return linked


def _secret_of(wait_id: str) -> str:
    kept = session.get("axme-links")
    return str(kept.get(wait_id, "")) if isinstance(kept, dict) else ""


def _bearer(linked: links.Linked) -> Actor:
    return Actor(linked.link.recipient, owner=linked.record.intent.owner, via="link")


# -- what else can be done with a wait --


@blueprint.post("/waits/<wait_id>/delegate")
def delegate(wait_id: str) -> Response:
    """Leave the answer to somebody else."""
    actor = need(Role.APPROVER)
    _record(wait_id, actor)
    to = request.form.get("to", "").strip()
    handover.delegate(house().rt, wait_id, to, by=actor.id, reason=reason_given(), groups=sorted(actor.names))
    return _back(wait_id)


@blueprint.post("/waits/<wait_id>/reassign")
def reassign(wait_id: str) -> Response:
    """Put others in the place of those it is for."""
    actor = need(Role.OPERATOR)
    _record(wait_id, actor)
    to = [name for each in request.form.get("to", "").split(",") if (name := each.strip())]
    handover.reassign(house().rt, wait_id, to, by=actor.id, reason=reason_given())
    return _back(wait_id)


@blueprint.post("/waits/<wait_id>/extend")
def extend_wait(wait_id: str) -> Response:
    """Give it more time."""
    actor = need(Role.OPERATOR)
    _record(wait_id, actor)
    handover.extend(house().rt, wait_id, request.form.get("duration", ""), by=actor.id, reason=reason_given())
    return _back(wait_id)


def _back(wait_id: str, *, by_link: bool = False) -> Response:
    endpoint = "axme.pages.linked_wait" if by_link else "axme.pages.wait"
    return redirect(url_for(endpoint, wait_id=wait_id, done=1), 303)


def _record(wait_id: str, actor: Actor) -> WaitRecord:
    """The wait, if it exists for them. Raises NotFound, the same for one that is not theirs to see."""
    record = house().rt.ledger.wait(wait_id)
    if record is None or not actor.sees(record.intent.owner):
        raise NotFound("wait", wait_id)
    return record


def _names(record: WaitRecord, actor: Actor) -> list[str] | None:
    """Who they are, to be matched with whom the wait is for; None for an admin, who may answer for anybody."""
    refusal = lifecycle.may_answer(record.wait, actor.names, actor.id)
    is_for_others = refusal is not None and refusal.code == "not_assigned"
    return None if is_for_others and actor.may(Role.ADMIN) else sorted(actor.names)


def _refusal(record: WaitRecord, actor: Actor) -> str | None:
    """Why they see buttons that cannot be pressed; None where they may decide."""
    refusal = lifecycle.may_answer(record.wait, _names(record, actor), actor.id)
    if refusal is not None:
        return {
            "not_assigned": "This is not for you to decide.",
            "voted": "You have answered. It needs others now.",
            "delegated": "You left this to somebody else.",
            "excluded": "You may not decide this: you asked for it, or are kept out of it for another reason.",
        }.get(refusal.code, refusal.reason)
    return None if actor.may(Role.APPROVER) else f"Your role is {actor.role}. To decide, you need to be an approver."


def _form_of(record: WaitRecord) -> list[fields.Field]:
    schema = record.wait.request.get("form")
    return fields.fields_of(schema) if schema else []


def _filled_in(record: WaitRecord, asked: list[fields.Field], outcome: str) -> tuple[Any, JsonDict]:
    """The form's data, and what is wrong with it. Only saying yes asks for it."""
    schema = record.wait.request.get("form")
    if schema is None:
        return None, {}
    fields.fill(asked, request.form)
    if outcome != record.wait.request["outcomes"][0]:
        return None, {}
    data = fields.data_of(asked, request.form)
    wrong = forms.form_errors(schema, data)
    if not wrong:
        return data, {}
    left = fields.blame(asked, wrong)
    return data, {"form": "; ".join(str(each) for each in left) or "Some fields need another look."}


def _page(
    record: WaitRecord,
    actor: Actor,
    *,
    form: list[fields.Field] | None = None,
    typed: str | None = None,
    errors: JsonDict | None = None,
    notice: tuple[str, str] | None = None,
    late: bool = False,
    link: links.Linked | None = None,
) -> str:
    wait, intent, here = record.wait, record.intent, house()
    is_open = wait.status is WaitStatus.OPEN
    refusal = _refusal(record, actor) if is_open else None
    if link is not None and is_open and link.hindrance is not None:
        refusal = _HINDRANCES.get(link.hindrance, refusal)
    context = wait.request.get("context") or {}
    told = visible(context)
    events = [event for event in here.rt.ledger.events(intent.id, 0, 1000) if event.details.get("wait_id") == wait.id]
    return page(
        {"top": "_wait_top.html", "live": "_wait_live.html"}.get(part_wanted(), "wait.html"),
        tab="inbox",
        actor=actor,
        link=link,
        address=url_for("axme.pages.linked_wait" if link else "axme.pages.wait", wait_id=wait.id),
        record=record,
        wait=wait,
        intent=intent,
        is_open=is_open,
        refusal=refusal,
        late=late,
        notice=notice,
        errors=errors or {},
        typed=typed or "",
        form=_form_of(record) if form is None else form,
        buttons=[
            (each, *_button(each))
            for each in wait.request.get("outcomes", ())
            if link is None or each in link.link.outcomes
        ],
        quorum=int(wait.request.get("quorum", 1)),
        agreeing=[vote for vote in wait.votes if vote["outcome"] == wait.request.get("outcomes", [""])[0]],
        description=context.get("description") or context.get("summary"),
        links=_links(context),
        change=_change(told),
        details=values.rows({name: each for name, each in told.items() if name not in _OWN_WAY}),
        payload=values.rows(shown(intent.payload)),
        answered=values.rows(shown(wait.data)),
        history=[(event, _said(event)) for event in events],
        done="done" in request.args,
        needs_comment=[each for each in wait.request.get("outcomes", ()) if lifecycle.needs_comment(wait, each)],
        may_delegate=link is None and is_open and refusal is None and wait.request.get("delegates", True) is not False
        and lifecycle.may_answer(wait, actor.names, actor.id) is None,
        verb=_verb_of(wait.outcome),
    )  # fmt: skip


def _button(outcome: str) -> tuple[str, str]:
    return _BUTTONS.get(outcome, (outcome.replace("_", " ").capitalize(), "maybe"))


def _verb_of(outcome: str | None) -> str:
    return (outcome or "closed").replace("_", " ").capitalize()


def _links(context: JsonDict) -> list[tuple[str, str]]:
    """Links and attachments of a context as (address, words); those that lead nowhere safe are left out."""
    found = []
    for name in ("links", "attachments"):
        given = context.get(name) or []
        for each in given if isinstance(given, list) else [given]:
            target = each.get("url") if isinstance(each, dict) else each
            words = each.get("title") if isinstance(each, dict) else None
            safe = values.safe_link(target)
            if safe is not None:
                found.append((safe, str(words or safe)))
    return found


def _change(told: JsonDict) -> list[tuple[str, str]]:
    """What the context says was before and will be after, as a difference."""
    return values.difference(told["before"], told["after"]) if {"before", "after"} <= set(told) else []


def _said(event: Event) -> str:
    """An event of the wait as a sentence."""
    details, who = event.details, event.actor or "somebody"
    to = details.get("to") or details.get("escalated_to") or details.get("pending_with") or []
    people = to if isinstance(to, str) else ", ".join(map(str, to))
    words = {
        "intent.waiting": "The question was asked",
        "intent.human_task_assigned": f"It went to {people}",
        "intent.voted": f"{who}: {_verb_of(details.get('outcome'))} ({details.get('votes')} of {details.get('quorum')})",
        "intent.reminder": f"Reminder {details.get('number', '')} to {people}",
        "intent.escalated": f"It was escalated to {people}",
        "intent.delegated": f"{who} left it to {people}",
        "intent.reassigned": f"{who} gave it to {people}",
        "intent.extended": f"{who} gave it more time",
        "intent.timeout": "Time ran out",
        "intent.in_progress": f"{who}: {_verb_of(details.get('outcome'))}",
        "intent.wait_closed": f"{who}: {_verb_of(details.get('outcome'))}",
    }.get(event.type, event.type.removeprefix("intent.").replace("_", " "))
    said = details.get("comment") or details.get("reason")
    return f"{words}: “{said}”" if said else words
