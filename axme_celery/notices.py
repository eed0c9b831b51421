"""Notices, composed: what a delivery tells people, and where its links lead."""

from __future__ import annotations

import functools
from typing import cast

from . import links
from .durations import moment
from .errors import AxmeError
from .model import Delivery, JsonDict, WaitRecord
from .notifiers import Kind, Notice
from .ports import Runtime


def notice(rt: Runtime, delivery: Delivery) -> Notice | None:
    """What a delivery tells people; None when it has nothing to tell them any more."""
    body, base = delivery.body, rt.settings.base_url
    record = rt.ledger.wait(body["wait_id"]) if body.get("wait_id") else None
    to = tuple(body.get("to", ()))
    if record is not None and body["kind"] != "dead_letter":
        if record.wait.closed_at is not None:
            # It was answered while this notice was on its way.
            return None
        # So was what has been given to others since.
        to = tuple(who for who in to if who in record.wait.to)
        if not to:
            return None
    page = f"waits/{record.wait.id}" if record is not None else f"intents/{delivery.intent_id}"
    return Notice(
        id=delivery.id, kind=cast(Kind, body["kind"]), intent_id=delivery.intent_id, wait_id=body.get("wait_id"), to=to,
        title=body["title"], text=_text(body, delivery.intent_id, record),
        url=f"{base.rstrip('/')}/{page}" if base else None, at=moment(body["at"], "at"),
        link=functools.partial(_link, rt, record),
    )  # fmt: skip


def _link(rt: Runtime, record: WaitRecord | None, who: str) -> str | None:
    """A link for this recipient alone; None where there is none to be had."""
    purpose = rt.settings.notice_links
    if record is None or purpose == "none" or rt.settings.base_url is None:
        return None
    try:
        return links.url(rt, links.issue(rt, record.wait.id, who, purpose=purpose))
    except AxmeError:
        # It closed, or went to others, in this moment. The page says so.
        return None


def _text(body: JsonDict, intent_id: str, record: WaitRecord | None) -> str:
    if body["kind"] == "dead_letter":
        return f"{body['reason']}\nIntent {intent_id} ({body['type']}): see it with `axme-celery show {intent_id}`."
    first = {
        "wait_opened": "Your decision is needed",
        "reminder": f"Reminder {body.get('number', 1)}: your decision is still needed",
        "escalation": "This was escalated to you: a decision is needed",
        "delegated": "This was left to you: your decision is needed",
        "reassigned": "This was assigned to you: your decision is needed",
    }.get(body["kind"], body["kind"])
    lines = [f"{first}: {body['title']}", f"Intent {intent_id} ({body['type']})."]
    if body.get("timeout_at"):
        lines.append(f"It waits until {moment(body['timeout_at'], 'timeout_at'):%Y-%m-%d %H:%M} UTC{_then(record)}.")
    return "\n".join(lines)


def _then(record: WaitRecord | None) -> str:
    """What happens when nobody has answered by then."""
    if record is None:
        return ""
    request = record.wait.request
    if request.get("fallback") and record.wait.fell_back_at is None:
        return f", then {', '.join(request['fallback'])} will be asked"
    decided = request.get("on_timeout", "fail")
    return ", then it fails" if decided == "fail" else f", then it counts as {decided.replace('_', ' ')}"


__all__ = ["notice"]
