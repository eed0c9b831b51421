"""Agents outside Celery: their legs are handed out under a lease, come back when that ends, and are finished from outside.

Such a leg is like any other, only that no worker runs it: it is QUEUED while it lies in the agent's mailbox, RUNNING
while a listener has it. Its lease is kept in the ledger, as ``due_at``, for agents outlive trackers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from ..errors import StaleChange
from ..model import Change, Intent, JsonDict, Leg, LegStatus, Status, Wait, WaitStatus
from .gates import begun, closing
from .moves import Occasion, Story
from .outgoing import closed_wait, leg_delivery
from .runs import next_run


def hand_out(
    intent: Intent, leg: Leg, run: int, *, to: str, by: str | None, token: str, until: datetime, on: Occasion
) -> Change:
    """An agent's listener takes the leg: it is this one's until the lease ends. Raises StaleChange when it is not to be had."""
    if intent.status.is_final or leg.status is not LegStatus.QUEUED or leg.run != run:
        raise StaleChange(f"leg {leg.id} is {leg.status.value} at run {leg.run}; run {run} is not to be had")
    taken = replace(
        leg, status=LegStatus.RUNNING, attempts=leg.attempts + 1, worker=by, token=token, due_at=until,
        started_at=leg.started_at or on.now,
    )  # fmt: skip
    story = Story(intent, on.now)
    # Later hand-outs take no step back: what was begun stays begun.
    event = "intent.delivered" if intent.status is Status.SUBMITTED else "intent.handed_out"
    story.tell(event, actor=by, leg_id=leg.id, run=run, handler=to, delivery_attempt=taken.attempts)
    story.intent = replace(story.intent, handler=to)
    return story.change(legs=((leg, taken),))


def acknowledge(intent: Intent, leg: Leg, *, by: str | None, until: datetime, on: Occasion) -> Change:
    """The agent says that it has it, which renews its lease. Raises StaleChange when nobody holds the leg."""
    renewed = renew(leg, until=until)
    if intent.status is not Status.DELIVERED:
        return renewed
    story = Story(intent, on.now)
    story.tell("intent.acknowledged", actor=by, leg_id=leg.id, run=leg.run)
    return story.change(legs=renewed.legs)


def renew(leg: Leg, *, until: datetime) -> Change:
    """Put off the moment at which the next listener gets the leg. Raises StaleChange when nobody holds it."""
    if leg.status is not LegStatus.RUNNING:
        raise StaleChange(f"leg {leg.id} is {leg.status.value}; nobody holds it")
    later = max(until, leg.due_at) if leg.due_at is not None else until
    return Change(legs=((leg, replace(leg, due_at=later)),))


def give_back(intent: Intent, leg: Leg, *, cause: str, on: Occasion) -> Change:
    """A listener went away before it had begun: the next one gets the leg at once. No attempt was made."""
    if leg.status is not LegStatus.RUNNING or intent.status is not Status.DELIVERED:
        raise StaleChange(f"leg {leg.id} is {leg.status.value}; it is not given back")
    queued = next_run(leg, on, attempts=leg.attempts - 1)
    story = Story(intent, on.now)
    story.tell("intent.handed_back", actor=leg.worker, leg_id=leg.id, run=leg.run, cause=cause)
    return story.change(legs=((leg, queued),), outbox=(leg_delivery(queued, on.new_id(), on.now),))


def lapse(intent: Intent, legs: Sequence[Leg], waits: Sequence[Wait], leg: Leg, run: int, *, on: Occasion) -> Change:
    """The lease of an agent has ended: the next listener gets the leg, or its tries are used up and the intent fails."""
    if leg.status is not LegStatus.RUNNING or leg.run != run or leg.due_at is None or leg.due_at > on.now:
        raise StaleChange(f"leg {leg.id} is {leg.status.value} at run {leg.run}; its lease has not ended")
    if leg.attempts < leg.max_attempts:
        queued = next_run(leg, on)
        story = Story(intent, on.now)
        story.tell("intent.leg_lost", actor="sweep", leg_id=leg.id, run=run, worker=leg.worker, cause="its lease ended")
        return story.change(legs=((leg, queued),), outbox=(leg_delivery(queued, on.new_id(), on.now),))
    error = {
        "code": "delivery_failed",
        "message": f"{leg.task} was given it {leg.attempts} times and never finished it",
        "delivery_attempt": leg.attempts,
    }
    story = Story(intent, on.now)
    story.tell("intent.delivery_failed", actor="sweep", leg_id=leg.id, error=error, delivery_attempt=leg.attempts)
    story.intent = replace(story.intent, error=error)
    return closing(story, legs, _closed(waits, "sweep", on), on, error=error)


def transfer(intent: Intent, leg: Leg, *, to: str, by: str, reason: str | None, on: Occasion) -> Change:
    """Another agent gets the leg, from its beginning. Raises StaleChange for a leg that nobody could have."""
    if leg.status not in (LegStatus.QUEUED, LegStatus.RUNNING):
        raise StaleChange(f"leg {leg.id} is {leg.status.value}; it cannot be transferred")
    queued = next_run(leg, on, attempts=0, task=to, signature={**leg.signature, "task": to})
    story = Story(intent, on.now)
    story.tell(
        "intent.transfer", actor=by, leg_id=leg.id, run=leg.run, reason=reason,
        handler=intent.handler or leg.task, next_handler=to,
    )  # fmt: skip
    story.intent = replace(story.intent, handler=to)
    return story.change(legs=((leg, queued),), outbox=(leg_delivery(queued, on.new_id(), on.now),))


def begin(intent: Intent, *, by: str | None, on: Occasion) -> Change:
    """Somebody outside is at work on it: it is IN_PROGRESS, unless it is already."""
    story = Story(intent, on.now)
    begun(story, by)
    return story.change()


def retermed(
    intent: Intent, terms: JsonDict, *, event: str, patch: JsonDict, by: str | None, reason: str | None, on: Occasion
) -> Change:
    """What was asked besides the work has changed; the log says what and why."""
    story = Story(intent, on.now)
    story.tell(event, actor=by, patch=patch, reason=reason, policy_generation=terms["generation"])
    story.intent = replace(story.intent, terms=terms)
    return story.change()


def note(intent: Intent, event: str, *, by: str | None, on: Occasion, **details: Any) -> Change:
    """A line in the intent's log that moves nothing. Raises IntentEnded."""
    story = Story(intent, on.now)
    story.tell(event, actor=by, **details)
    return story.change()


def finish(
    intent: Intent, legs: Sequence[Leg], waits: Sequence[Wait], *, result: str | None, error: JsonDict | None,
    by: str | None, on: Occasion,
) -> Change:  # fmt: skip
    """An intent of outside agents ends COMPLETED (``result``) or FAILED (``error``), from any open status.

    Whatever it was, ``intent.in_progress`` comes first, so that its log is one the lifecycle knows.
    """
    story = Story(intent, on.now)
    if error is None:
        begun(story, by)
        story.tell("intent.completed", actor=by)
        story.intent = replace(story.intent, result=result or "null")
    else:
        story.tell("intent.failed", actor=by, error=error)
        story.intent = replace(story.intent, error=error)
    return closing(story, legs, _closed(waits, by, on), on, result=result or "null", error=error)


def _closed(waits: Sequence[Wait], by: str | None, on: Occasion) -> tuple[tuple[Wait, Wait], ...]:
    return tuple(
        (w, closed_wait(w, WaitStatus.CANCELED, on.now, outcome=None, answered_by=by))
        for w in waits
        if w.status is WaitStatus.OPEN
    )
