"""Webhook deliveries: what was told to whom, every try, and sending again what was not received."""

from __future__ import annotations

from typing import Any

from flask import redirect, request, url_for

from ... import subscriptions
from ...errors import BadInput
from ...hooks import HookStatus
from ...who import Role
from ..house import house, need
from . import blueprint
from .paging import LINES, cut, filters, place
from .shown import page, part_wanted

#: As many are sent again in one request.
MOST_AT_ONCE = 200


@blueprint.get("/webhooks")
def webhooks() -> Any:
    """The deliveries, newest first, and the subscriptions they go to."""
    actor = need()
    rt = house().rt
    given = filters("status", "subscription", "intent")
    asked = {
        "status": given["status"] if given["status"] in list(HookStatus) else None,
        "subscription_id": given["subscription"] or None, "intent_id": given["intent"] or None, "owner": actor.owner,
    }  # fmt: skip
    lines, older, first = cut(
        rt.ledger.hooks.deliveries(asked, place(), LINES + 1),
        lambda each: (each.delivery.created_at, each.delivery.id),
    )
    known = rt.ledger.hooks.subscriptions(owner=actor.owner, kind=None, revoked=False, after=None, limit=LINES)
    return page(
        "_webhooks_live.html" if part_wanted() else "webhooks.html",
        tab="deliveries",
        lines=lines,
        older=older,
        first=first,
        given=given,
        statuses=list(HookStatus),
        known=known,
    )


@blueprint.post("/webhooks/redeliver")
def redeliver_webhooks() -> Any:
    """Send those that are ticked again, with the ids and bodies they had."""
    actor = need(Role.OPERATOR)
    chosen = request.form.getlist("delivery")[:MOST_AT_ONCE]
    if not chosen:
        raise BadInput("Tick the deliveries first.")
    for delivery_id in chosen:
        subscriptions.redeliver(house().rt, delivery_id, by=actor.id, owner=actor.owner)
    return redirect(url_for("axme.pages.webhooks"), 303)


@blueprint.post("/webhooks/subscriptions/<subscription_id>/enable")
def enable_webhook(subscription_id: str) -> Any:
    """Send to a disabled subscription again."""
    actor = need(Role.OPERATOR)
    subscriptions.enable(house().rt, subscription_id, owner=actor.owner)
    return redirect(url_for("axme.pages.webhooks", subscription=subscription_id), 303)
