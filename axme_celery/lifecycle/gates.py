"""A human task before an intent's first leg, and how an intent ends that no worker is running."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..errors import IntentEnded
from ..model import Change, Intent, JsonDict, Leg, LegStatus, Status, Wait, WaitStatus
from .moves import Occasion, Story
from .outgoing import dead_letter, dead_notice, notice_delivery, present, tell_parent, text_of
from .shown import shown_hash
from .voters import without_requester

#: The name of the wait that stands before an intent's first leg.
GATE = "human_task"


def gated(change: Change, wait: Wait, *, on: Occasion) -> Change:
    """The change that submits an intent, with this wait before its first leg: nothing runs until it is answered well."""
    intent, (_, leg) = change.intent, change.legs[0]
    assert intent is not None
    wait = replace(
        wait,
        request=without_requester(wait.request, intent.requester),
        payload_hash=shown_hash(wait.title, wait.request, intent.payload),
    )
    resting = replace(leg, status=LegStatus.WAITING, due_at=None, has_history=True)
    story = Story(intent, on.now)
    story.tell(
        "intent.waiting", leg_id=leg.id, waiting_reason=wait.kind.waiting_reason, wait_id=wait.id, title=wait.title,
        pending_with=list(wait.to) or None, timeout_at=text_of(wait.timeout_at),
    )  # fmt: skip
    story.tell(
        "intent.human_task_assigned", leg_id=leg.id, wait_id=wait.id, to=list(wait.to), title=wait.title,
        task_type=wait.request.get("task_type"), outcomes=wait.request.get("outcomes"), payload_hash=wait.payload_hash,
    )  # fmt: skip
    return replace(
        change,
        intent=story.intent,
        events=(*change.events, *story.events),
        legs=((None, resting), *change.legs[1:]),
        waits=(*change.waits, (None, wait)),
        outbox=(notice_delivery(story.intent, wait, "wait_opened", wait.to, on),),
    )


def after_gate(intent: Intent, leg: Leg, was: Wait, closed: Wait, *, on: Occasion) -> Change | None:
    """What a closed gate means; None where the leg now runs.

    A no, or no answer, fails the intent. A yes ends it too where nobody else was asked for (``then`` is "complete").
    """
    if lets_through(closed):
        return None
    said_yes = _said_yes(closed)
    story = Story(intent, on.now)
    error = None
    if said_yes:
        begun(story, closed.answered_by, wait_id=closed.id, outcome=closed.outcome, comment=closed.comment)
        story.tell("intent.completed", actor=closed.answered_by, wait_id=closed.id)
        story.intent = replace(story.intent, result=_as_result(closed))
    elif closed.status is WaitStatus.ANSWERED:
        error = present(
            code="rejected", message=f"{closed.answered_by} answered {closed.outcome} to {closed.title!r}",
            outcome=closed.outcome, by=closed.answered_by, comment=closed.comment,
        )  # fmt: skip
    else:
        story.tell("intent.timeout", actor="clock", leg_id=leg.id, wait_id=closed.id, outcome=closed.outcome)
        error = {"code": "wait_timeout", "message": f"nobody answered {closed.title!r} in time"}
    if error is not None:
        story.tell("intent.failed", actor=closed.answered_by, leg_id=leg.id, error=error, wait_id=closed.id)
        story.intent = replace(story.intent, error=error)
    return closing(story, [leg], ((was, closed),), on, result=story.intent.result, error=error)


def lets_through(gate: Wait) -> bool:
    """Whether this human task has been answered so that what stands behind it may run."""
    return _said_yes(gate) and gate.request.get("then") != "complete"


def stands_anew(wait: Wait, upto: int | None) -> bool:
    """Whether this wait is a human task that must be asked again where its intent is repeated up to this position.

    upto: as ``repeat`` has it; before everything else (below 0) is before the human task.
    """
    return wait.name == GATE and ((upto is not None and upto < 0) or not lets_through(wait))


def _said_yes(gate: Wait) -> bool:
    refusals = gate.request.get("refusals", gate.request["outcomes"][1:])
    return gate.status is WaitStatus.ANSWERED and gate.outcome not in refusals


def begun(story: Story, by: str | None, **details: Any) -> None:
    """Tell that somebody is at work on it, unless that is told; legally from any open status. Raises IntentEnded."""
    status = story.intent.status
    if status.is_final:
        raise IntentEnded(story.intent.id, status.value, story.intent.ended_at)
    if status is Status.CREATED:
        story.tell("intent.submitted", actor=by)
    if status is not Status.IN_PROGRESS:
        story.tell("intent.in_progress", actor=by, **details)


def closing(
    story: Story,
    legs: Sequence[Leg],
    waits: tuple[tuple[Wait, Wait], ...],
    on: Occasion,
    *,
    result: str | None = None,
    error: JsonDict | None = None,
) -> Change:
    """The end of an intent that no worker is running: its legs end with it. ``waits``: what closes with it."""
    status = LegStatus.DONE if error is None else LegStatus.FAILED
    outbox = tell_parent(story.intent, on)
    if error is not None:
        outbox.append(dead_notice(story.intent, error, on))
    return story.change(
        legs=tuple(
            (
                leg,
                replace(
                    leg,
                    status=status,
                    result=result if error is None else None,
                    error=error,
                    ended_at=on.now,
                    due_at=None,
                    token=on.new_id(),
                ),
            )
            for leg in legs
            if not leg.status.is_final
        ),
        waits=waits,
        outbox=tuple(outbox),
        dead=() if error is None else (dead_letter(story.intent, "intent", error, on),),
    )


def _as_result(closed: Wait) -> str:
    data = None if closed.data is None else json.loads(closed.data)
    said = present(outcome=closed.outcome, by=closed.answered_by, comment=closed.comment, data=data)
    return json.dumps(said, ensure_ascii=False, separators=(",", ":"))
