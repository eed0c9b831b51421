"""Ends from outside: an intent is canceled, or its deadline passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..model import Change, Intent, JsonDict, Leg, LegStatus, Rest, Wait, WaitStatus
from .moves import Occasion, Story
from .outgoing import (
    cancel_children,
    closed_wait,
    dead_letter,
    dead_notice,
    present,
    rest_delivery,
    result_delivery,
    tell_parent,
    text_of,
)


def cancel(
    intent: Intent,
    legs: Sequence[Leg],
    waits: Sequence[Wait],
    *,
    reason: str,
    by: str | None,
    on: Occasion,
) -> Change:
    """Somebody cancels the intent: what waits or is queued ends here, what runs is stopped by its fence.

    legs: its one leg; of a pipeline any two of them, or none.
    """
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
    story.intent = replace(story.intent, error=error, result=None)
    open_waits = [w for w in waits if w.status is WaitStatus.OPEN]
    outbox = tell_parent(story.intent, on)
    state = "REVOKED" if event == "intent.canceled" else "FAILURE"
    # A pipeline's legs may be very many: they are closed by the ledger in one statement.
    alone = legs[0] if len(legs) == 1 and not legs[0].node else None
    ended = () if alone is None or alone.status.is_final else ((alone, _canceled(alone, error, on)),)
    if alone is None:
        outbox.append(rest_delivery(story.intent, state, error, on))
    else:
        outbox += [result_delivery(leg, state, error, on.now, on) for leg, _ in ended]
    outbox += cancel_children(open_waits, by, on)
    if dead:
        outbox.append(dead_notice(story.intent, error, on))
    return story.change(
        legs=ended,
        rest=Rest(intent.id, on.now, error) if alone is None else None,
        waits=tuple((w, closed_wait(w, WaitStatus.CANCELED, on.now, outcome=None, answered_by=by)) for w in open_waits),
        outbox=tuple(outbox),
        dead=(dead_letter(story.intent, "intent", error, on),) if dead else (),
    )


def _canceled(leg: Leg, error: JsonDict, on: Occasion) -> Leg:
    return replace(leg, status=LegStatus.CANCELED, ended_at=on.now, due_at=None, error=error)
