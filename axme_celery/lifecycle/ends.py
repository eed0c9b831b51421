"""Ends from outside: an intent is canceled, or its deadline passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..model import Change, Intent, JsonDict, Rest, Wait, WaitStatus
from .moves import Occasion, Story
from .outgoing import (
    cancel_children,
    closed_wait,
    dead_letter,
    dead_notice,
    present,
    rest_delivery,
    tell_parent,
    text_of,
)


def cancel(
    intent: Intent,
    waits: Sequence[Wait],
    *,
    reason: str,
    by: str | None,
    on: Occasion,
) -> Change:
    """Somebody cancels the intent: what waits or is queued ends here, what runs is stopped by its fence."""
    error = present(code="canceled", message=reason or "canceled", by=by)
    return _end_all(intent, waits, "intent.canceled", error, by, on, dead=False)


def time_out(intent: Intent, waits: Sequence[Wait], *, on: Occasion) -> Change:
    """The intent's deadline passed."""
    error = {"code": "deadline", "message": f"the deadline {text_of(intent.deadline_at)} passed"}
    return _end_all(intent, waits, "intent.timed_out", error, "clock", on, dead=True)


def _end_all(
    intent: Intent,
    waits: Sequence[Wait],
    event: str,
    error: JsonDict,
    by: str | None,
    on: Occasion,
    *,
    dead: bool,
) -> Change:
    story = Story(intent, on.now)
    story.tell(event, actor=by, reason=error["message"], error=error)
    story.intent = replace(story.intent, error=error)
    open_waits = [w for w in waits if w.status is WaitStatus.OPEN]
    outbox = tell_parent(story.intent, on)
    state = "REVOKED" if event == "intent.canceled" else "FAILURE"
    outbox.append(rest_delivery(story.intent, state, error, on))
    outbox += cancel_children(open_waits, by, on)
    if dead:
        outbox.append(dead_notice(story.intent, error, on))
    return story.change(
        rest=Rest(intent.id, on.now, error),
        waits=tuple((w, closed_wait(w, WaitStatus.CANCELED, on.now, outcome=None, answered_by=by)) for w in open_waits),
        outbox=tuple(outbox),
        dead=(dead_letter(story.intent, "intent", error, on),) if dead else (),
    )
