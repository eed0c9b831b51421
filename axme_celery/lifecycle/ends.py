"""Ends from outside: an intent is canceled, or its deadline passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..model import Change, Intent, JsonDict, Leg, LegStatus, Wait, WaitStatus
from .moves import Occasion, Story
from .outgoing import cancel_children, dead_letter, dead_notice, present, result_delivery, tell_parent, text_of
from .waits import closed_wait


def cancel(
    intent: Intent,
    legs: Sequence[Leg],
    waits: Sequence[Wait],
    *,
    reason: str,
    by: str | None,
    on: Occasion,
) -> Change:
    """Somebody cancels the intent: what waits or is queued ends here, what runs is stopped by its fence."""
    error = present(code="canceled", message=reason or "canceled", by=by)
    return _end_all(intent, legs, waits, "intent.canceled", error, by, on, dead=False)


def fail(
    intent: Intent, legs: Sequence[Leg], waits: Sequence[Wait], *, error: JsonDict, by: str | None, on: Occasion
) -> Change:
    """Somebody outside says that it has failed: what waits or is queued ends here, what runs is stopped by its fence."""
    return _end_all(intent, legs, waits, "intent.failed", error, by, on, dead=True)


def time_out(intent: Intent, legs: Sequence[Leg], waits: Sequence[Wait], *, on: Occasion) -> Change:
    """The intent's deadline passed."""
    error = {"code": "deadline", "message": f"the deadline {text_of(intent.deadline_at)} passed"}
    return _end_all(intent, legs, waits, "intent.timed_out", error, "clock", on, dead=True)


def _end_all(
    intent: Intent,
    legs: Sequence[Leg],
    waits: Sequence[Wait],
    event: str,
    error: JsonDict,
    by: str | None,
    on: Occasion,
    *,
    dead: bool,
) -> Change:
    story = Story(intent, on.now)
    story.tell(event, actor=by, reason=str(error.get("message", "")) or None, error=error)
    story.intent = replace(story.intent, error=error)
    open_legs = [leg for leg in legs if not leg.status.is_final]
    open_waits = [w for w in waits if w.status is WaitStatus.OPEN]
    outbox = tell_parent(story.intent, on)
    state = "REVOKED" if event == "intent.canceled" else "FAILURE"
    outbox += [result_delivery(leg, state, error, on.now, on) for leg in open_legs]
    outbox += cancel_children(open_waits, by, on)
    if dead:
        outbox.append(dead_notice(story.intent, error, on))
    return story.change(
        legs=tuple(
            (leg, replace(leg, status=LegStatus.CANCELED, ended_at=on.now, due_at=None, error=error))
            for leg in open_legs
        ),
        waits=tuple((w, closed_wait(w, WaitStatus.CANCELED, on.now, outcome=None, answered_by=by)) for w in open_waits),
        outbox=tuple(outbox),
        dead=(dead_letter(story.intent, "intent", error, on),) if dead else (),
    )
