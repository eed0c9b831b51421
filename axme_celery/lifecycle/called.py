"""Legs that a leg's task called while it ran, and how they bear on their intent's end.

They belong to the intent, and it does not end before they have: an intent that
is COMPLETED has nothing running any more, and one that is canceled takes them
with it. But its outcome is that of the work it was submitted with. As in Celery,
who calls does not wait for what he called, and neither fails with the other: a
called leg that fails is a dead letter of its own, and when the caller fails,
what it had called is still done.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from ..model import Change, Intent, JsonDict, Leg, LegStatus, Rest, Status
from .moves import Occasion, Story
from .outgoing import dead_letter, dead_notice, leg_delivery, tell_parent
from .turns import Rows


def call(intent: Intent, leg: Leg, called: Leg, *, start_at: datetime | None, on: Occasion) -> Change:
    """The task of a running leg calls another: one leg more, queued to start now or at ``start_at``."""
    starts_at = start_at or on.now
    # Its place is after all there were before, of which the seq is as good a count as any.
    queued = replace(called, intent_id=intent.id, called_by=leg.id, position=intent.seq, due_at=starts_at + on.requeue)
    story = Story(intent, on.now)
    story.intent = replace(intent, called_open=intent.called_open + 1)
    story.tell("intent.leg_called", leg_id=queued.id, task=queued.task, by_leg=leg.id)
    # The caller's own row is written as it is: only a run that still is the one may call.
    return story.change(
        legs=((leg, leg), (None, queued)), outbox=(leg_delivery(queued, on.new_id(), starts_at),)
    )  # fmt: skip


def called_ended(story: Story, rows: Rows, leg: Leg, error: JsonDict | None, *, on: Occasion) -> None:
    """A called leg is DONE or FAILED. If it was the last thing that went on, the intent ends as its own work did."""
    story.intent = replace(story.intent, called_open=story.intent.called_open - 1)
    story.tell("intent.called_ended", actor=leg.worker, leg_id=leg.id, run=leg.run, task=leg.task, error=error)
    if error is not None:
        rows.dead.append(dead_letter(story.intent, "leg", error, on, leg_id=leg.id))
        rows.outbox.append(dead_notice(story.intent, error, on))
    intent = story.intent
    if intent.called_open or (intent.result is None and intent.error is None):
        return
    if intent.status is Status.WAITING:
        story.tell("intent.in_progress")
    story.tell("intent.completed" if intent.error is None else "intent.failed", leg_id=leg.id, error=intent.error)
    rows.outbox += tell_parent(story.intent, on)
    rows.rest = Rest(intent.id, on.now)


def uncall(intent: Intent, called: Leg, error: JsonDict, *, on: Occasion) -> Change:
    """The call's message could not be made, and its caller was told so: the leg ends as if there had been none."""
    story, rows = Story(intent, on.now), Rows()
    rows.legs.append((called, replace(called, status=LegStatus.CANCELED, error=error, ended_at=on.now, due_at=None)))
    story.intent = replace(intent, called_open=intent.called_open - 1)
    story.tell("intent.called_ended", leg_id=called.id, run=called.run, task=called.task, error=error)
    return rows.change(story)


def not_called(intent: Intent, leg: Leg, error: JsonDict, *, on: Occasion) -> Change:
    """A leg's callback or errback cannot be called any more: kept to be seen. Nothing waits for it, so all else goes on."""
    return Change(dead=(dead_letter(intent, "delivery", error, on, leg_id=leg.id),))


__all__ = ["call", "called_ended", "not_called", "uncall"]
