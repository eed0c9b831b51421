"""A wait as it opens: its first moment, what its people are shown, what is told of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from ..model import Delivery, Intent, Leg, Wait, WaitKind, WaitStatus
from .moves import Occasion, Story
from .outgoing import notice_delivery, text_of
from .shown import shown_hash
from .voters import without_requester


def due(wait: Wait) -> datetime | None:
    """The next moment anybody must look at a wait; None when closed or timeless."""
    if wait.status is not WaitStatus.OPEN:
        return None
    moments = (wait.timeout_at, wait.remind_at, wait.escalate_at, wait.heartbeat_at, wait.poll_at)
    return min((m for m in moments if m is not None), default=None)


def opened(intent: Intent, wait: Wait) -> Wait:
    """The wait as it is kept."""
    wait = replace(wait, due_at=due(wait))
    if wait.kind is not WaitKind.HUMAN:
        return wait
    return replace(
        wait,
        request=without_requester(wait.request, intent.requester),
        payload_hash=shown_hash(wait.title, wait.request, intent.payload),
    )


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
