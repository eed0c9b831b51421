"""Webhooks: subscriptions, events of one's own, and the deliveries with their tries."""

from __future__ import annotations

from datetime import datetime

from flask import Response, request

from ... import subscriptions
from ...durations import moment, utc_iso
from ...errors import BadInput
from ...hooks import HookEvent, HookStatus, Parcel, Subscription
from ...model import JsonDict
from ...webhook import hint
from ...who import Actor
from ..house import house
from . import blueprint, routing
from .problems import Problem
from .repeats import writes
from .requests import Fields, body, query_flag, query_int, query_line, reply
from .rights import Role, need

#: AXP's words for where a delivery stands.
_STATUS = {HookStatus.PENDING: "pending", HookStatus.DELIVERED: "delivered", HookStatus.DEAD: "dead_lettered"}


@blueprint.post("/webhooks/subscriptions")
@writes
def put_subscription() -> JsonDict:
    """Tell a URL of events from now on. Its secret is in the answer, unless the request brought it."""
    actor, fields = need(Role.APPROVER), Fields(body())
    url = fields.line("callback_url", longest=2048, required=True) or ""
    secret = fields.line("secret", longest=128)
    made = subscriptions.subscribe(
        house().rt, url, fields.lines("event_types", most=32, longest=120) or ["intent.*"], owner=actor.owner,
        secret=secret, thin=fields.flag("thin", False), active=fields.flag("active", True),
        description=fields.text("description", longest=255),
    )  # fmt: skip
    shown = _subscription(made)
    return {"ok": True, "subscription": shown if secret else {**shown, "secret": made.secret}}


@blueprint.get("/webhooks/subscriptions")
def list_subscriptions() -> Response:
    """Subscriptions, newest first; with ``include_inactive`` also ended ones."""
    actor = need(Role.APPROVER)
    every = query_flag("include_inactive")
    found = subscriptions.subscriptions(house().rt, owner=actor.owner, revoked=every)
    shown = [_subscription(one) for one in found if every or one.disabled_at is None]
    return reply({"ok": True, "subscriptions": shown})


@blueprint.get("/webhooks/subscriptions/<subscription_id>")
def get_subscription(subscription_id: str) -> Response:
    """One subscription."""
    actor = need(Role.APPROVER)
    found = subscriptions.subscription(house().rt, subscription_id, owner=actor.owner)
    return reply({"ok": True, "subscription": _subscription(found)})


@blueprint.delete("/webhooks/subscriptions/<subscription_id>")
@writes
def delete_subscription(subscription_id: str) -> JsonDict:
    """End a subscription; what was pending for it is given up."""
    actor = need(Role.APPROVER)
    ended = subscriptions.revoke(house().rt, subscription_id, owner=actor.owner)
    assert ended.revoked_at is not None
    return {"ok": True, "subscription_id": ended.id, "revoked_at": utc_iso(ended.revoked_at)}


@blueprint.post("/webhooks/subscriptions/<subscription_id>/rotate")
@writes
def rotate_secret(subscription_id: str) -> JsonDict:
    """Give it a new secret; for a while deliveries are signed with both."""
    actor, fields = need(Role.APPROVER), Fields(body())
    _must_live(subscription_id, actor)
    overlap = fields.integer("overlap_seconds", least=0, most=30 * 86400)
    turned = subscriptions.rotate(
        house().rt, subscription_id, owner=actor.owner, secret=fields.line("secret", longest=128),
        overlap=86400 if overlap is None else overlap,
    )  # fmt: skip
    return {"ok": True, "subscription": {**_subscription(turned), "secret": turned.secret}}


@blueprint.post("/webhooks/subscriptions/<subscription_id>/enable")
@writes
def enable_subscription(subscription_id: str) -> JsonDict:
    """Send to it again after it was disabled."""
    actor = need(Role.APPROVER)
    _must_live(subscription_id, actor)
    return {
        "ok": True,
        "subscription": _subscription(subscriptions.enable(house().rt, subscription_id, owner=actor.owner)),
    }


def _must_live(subscription_id: str, actor: Actor) -> None:
    """Raises NotFound, or Problem 409 where it has ended."""
    if subscriptions.subscription(house().rt, subscription_id, owner=actor.owner).revoked_at is not None:
        raise Problem(409, "subscription_inactive", "this subscription has ended; subscribe its URL again")


@blueprint.post("/webhooks/events")
@writes
def tell_event() -> JsonDict:
    """Tell subscriptions an event that is of no intent."""
    actor, fields = need(Role.APPROVER), Fields(body())
    payload = fields.object("payload", required=True)
    told = subscriptions.tell(
        house().rt, fields.line("event_type", longest=120, required=True) or "", payload,
        source=fields.line("source", longest=100, shortest=2, required=True) or "", owner=actor.owner,
    )  # fmt: skip
    _, parcels = subscriptions.event(house().rt, told.id, owner=actor.owner)
    return {**_told(told, parcels), "source": told.source, "accepted_at": utc_iso(told.at)}


@blueprint.post("/webhooks/events/<event_id>/replay")
@writes
def replay_event(event_id: str) -> JsonDict:
    """Send an event's deliveries again, with the id and the body they had."""
    actor, rt = need(Role.APPROVER), house().rt
    found, parcels = subscriptions.event(rt, event_id, owner=actor.owner)
    able = [p for p in parcels if p.subscription.disabled_at is None and p.subscription.revoked_at is None]
    if not able:
        raise Problem(409, "nothing_to_replay", "no subscription that can be sent to was told of this event")
    for one in able:
        subscriptions.redeliver(rt, one.delivery.id, by=actor.id, owner=actor.owner)
    _, parcels = subscriptions.event(rt, event_id, owner=actor.owner)
    return {**_told(found, parcels), "replayed_at": utc_iso(rt.ledger.now())}


# -- deliveries ---------------------------------------------------------------------------


@blueprint.get("/deliveries")
def list_deliveries() -> Response:
    """Webhook deliveries, newest first: by status, subscription, intent; page by page with ``cursor``.

    With an ``org_id``: what was routed to agents of a workspace.
    """
    actor = need(Role.APPROVER)
    named = {name: query_line(name) for name in ("subscription_id", "intent_id", "event_type", "principal_id")}
    after = _after()
    if request.args.get("org_id"):
        return reply(routing.routed(actor))
    limit = query_int("limit", 50, least=1, most=200, clip=True)
    status = query_line("status", longest=32)
    words = {word: kept.value for kept, word in _STATUS.items()}
    if status is not None and status not in words:
        raise BadInput(f"status is none of {', '.join(words)}")
    filters: JsonDict = {
        "status": words.get(status or ""), "owner": actor.owner, "subscription_id": named["subscription_id"],
        "intent_id": named["intent_id"], "type": named["event_type"],
    }  # fmt: skip
    found = house().rt.ledger.hooks.deliveries(filters, after, limit)
    last = found[-1].delivery if len(found) == limit else None
    cursor = None if last is None else f"{utc_iso(last.created_at)}~{last.id}"
    return reply({"ok": True, "deliveries": [_delivery(one) for one in found], "next_cursor": cursor})


@blueprint.get("/deliveries/<delivery_id>")
def get_delivery(delivery_id: str) -> Response:
    """One delivery with its tries."""
    actor = need(Role.APPROVER)
    if delivery_id.startswith(routing.PREFIX):
        return reply({"ok": True, "delivery": routing.one_of(delivery_id, actor)})
    found = subscriptions.delivery(house().rt, delivery_id, owner=actor.owner)
    return reply({"ok": True, "delivery": _delivery(found)})


@blueprint.post("/deliveries/<delivery_id>/replay")
@writes
def replay_delivery(delivery_id: str) -> JsonDict:
    """Send a delivery again, with the id and the body it had."""
    actor, rt = need(Role.APPROVER), house().rt
    if delivery_id.startswith(routing.PREFIX):
        return {"ok": True, "delivery": routing.again(delivery_id, actor)}
    found = subscriptions.delivery(rt, delivery_id, owner=actor.owner)
    if found.subscription.disabled_at is not None or found.subscription.revoked_at is not None:
        raise Problem(409, "subscription_inactive", "its subscription is disabled or has ended; enable it first")
    again = subscriptions.redeliver(rt, delivery_id, by=actor.id, owner=actor.owner)
    return {"ok": True, "delivery": _delivery(again)}


@blueprint.get("/deliveries-operations")
def deliveries_operations() -> Response:
    """How many deliveries stand where. For operators of the whole house."""
    actor = need(Role.OPERATOR)
    if actor.owner is not None:
        raise Problem(403, "policy_denied", "this is for keys of the whole house")
    counts = house().rt.ledger.hooks.counts()
    return reply({"ok": True, "counts": {word: counts.get(kept.value, 0) for kept, word in _STATUS.items()}})


def _after() -> tuple[datetime, str] | None:
    cursor = query_line("cursor", longest=128)
    if cursor is None:
        return None
    at, _, delivery_id = cursor.partition("~")
    return moment(at, "cursor"), delivery_id


def _subscription(one: Subscription) -> JsonDict:
    return {
        "subscription_id": one.id,
        "owner_agent": one.owner or "",
        "callback_url": one.url,
        "event_types": list(one.event_types),
        "active": one.revoked_at is None and one.disabled_at is None,
        "thin": one.thin,
        "description": one.description,
        "created_at": utc_iso(one.created_at),
        "updated_at": utc_iso(one.updated_at),
        "revoked_at": None if one.revoked_at is None else utc_iso(one.revoked_at),
        "disabled_reason": one.disabled_reason,
        "secret_hint": hint(one.secret),
    }


def _told(told: HookEvent, parcels: list[Parcel]) -> JsonDict:
    count = {word: sum(1 for p in parcels if p.delivery.status is kept) for kept, word in _STATUS.items()}
    return {
        "ok": True,
        "event_id": told.id,
        "event_type": told.type,
        "owner_agent": told.owner or "",
        "queued_deliveries": len(parcels),
        "processed_deliveries": sum(1 for p in parcels if p.delivery.tries),
        "delivered": count["delivered"],
        "pending": count["pending"],
        "dead_lettered": count["dead_lettered"],
    }


def _delivery(parcel: Parcel) -> JsonDict:
    one = parcel.delivery
    return {
        "delivery_id": one.id,
        "event_id": one.event_id,
        "event_type": one.type,
        "subscription_id": one.subscription_id,
        "intent_id": one.intent_id,
        "callback_url": parcel.subscription.url,
        "transport_type": "webhook",
        "status": _STATUS[one.status],
        "attempts": one.attempts,
        "tries": list(one.tries),
        "next_try_at": None if one.next_at is None else utc_iso(one.next_at),
        "error_detail": one.last_error,
        "created_at": utc_iso(one.created_at),
        "ended_at": None if one.ended_at is None else utc_iso(one.ended_at),
    }
