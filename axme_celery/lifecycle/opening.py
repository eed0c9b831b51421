"""A wait as it opens: its first moment, what its people are shown, what is told of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from ..model import Delivery, Intent, Leg, Wait, WaitKind
from .moves import Occasion, Story
from .nudges import due, may_fall_back, pending
from .outgoing import notice_delivery, text_of
from .shown import shown_hash
from .voters import without_requester


def opened(intent: Intent, wait: Wait, now: datetime) -> Wait:
    """The wait as it is kept."""
    wait = replace(wait, due_at=due(wait))
    if wait.kind is not WaitKind.HUMAN:
        return wait
    wait = replace(
        wait,
        request=without_requester(wait.request, intent.requester),
        payload_hash=shown_hash(wait.title, wait.request, intent.payload),
    )
    if not pending(wait) and may_fall_back(wait):
        # Nobody it is for may answer it.
        wait = replace(wait, to=tuple(wait.request["fallback"]), fell_back_at=now)
    return wait


def tell_opened(story: Story, leg: Leg, wait: Wait, *, rests: bool, on: Occasion) -> tuple[Delivery, ...]:
    """Tell of an opened wait. ``rests``: nothing else of the intent goes on, so that the intent is WAITING now."""
    story.tell(
        "intent.waiting" if rests else "intent.wait_opened",
        leg_id=leg.id,
        waiting_reason=wait.kind.waiting_reason if rests else None,
        wait_id=wait.id,
        title=wait.title,
        pending_with=list(wait.to) or None,
        tool=wait.tool,
        job_id=wait.job_id,
        timeout_at=text_of(wait.timeout_at),
    )
    if wait.kind is not WaitKind.HUMAN:
        return ()
    story.tell(
        "intent.human_task_assigned",
        leg_id=leg.id,
        wait_id=wait.id,
        to=list(wait.to),
        task_type=wait.request.get("task_type"),
        payload_hash=wait.payload_hash,
        title=wait.title,
        outcomes=wait.request.get("outcomes"),
    )
    return (notice_delivery(story.intent, wait, "wait_opened", wait.to, on),)
