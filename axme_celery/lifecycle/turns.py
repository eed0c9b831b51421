"""A pipeline's turns: what starts when a leg or a join ends, and how the whole falls with one of them.

Legs that run side by side touch their own rows and their join's counter; the
intent's row changes only when its status does, or when a wait opens or closes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from ..durations import moment
from ..graph import Join, JoinStatus
from ..model import Change, DeadLetter, Delivery, Intent, JsonDict, Leg, LegStatus, Rest, Status, Wait, WaitStatus
from .moves import Occasion, Story
from .opening import opened, tell_opened
from .outgoing import cancel_children, closed_wait, dead_letter, dead_notice, leg_delivery, rest_delivery, tell_parent


@dataclass(frozen=True, kw_only=True, slots=True)
class Fallout:
    """What falls with a leg that fails."""

    #: The intent's open waits.
    waits: tuple[Wait, ...] = ()
    #: Errbacks as intents of their own.
    children: tuple[Change, ...] = ()
    #: Legs that will never run and whose errbacks Celery calls in place: bodies of chords.
    called: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """A leg whose turn has come, with what was found out for it."""

    leg: Leg
    #: What it takes before its arguments.
    value: Any = None
    #: The leg before it, as Celery's ``parent_id``.
    parent_id: str | None = None
    #: A wait node's wait, or why it cannot be opened.
    wait: Wait | None = None
    #: The intents that begin with that: an agent's.
    children: tuple[Change, ...] = ()
    refused: JsonDict | None = None
    fallout: Fallout = field(default_factory=Fallout)


@dataclass(slots=True)
class Rows:
    """What a decision writes besides the intent; gathered part by part."""

    legs: list[tuple[Leg | None, Leg]] = field(default_factory=list)
    waits: list[tuple[Wait | None, Wait]] = field(default_factory=list)
    joins: list[tuple[Join | None, Join]] = field(default_factory=list)
    counts: list[str] = field(default_factory=list)
    outbox: list[Delivery] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)
    rest: Rest | None = None

    def change(self, story: Story) -> Change:
        """All of it as one change; of the intent too, if anything was told of it."""
        rows = {
            "legs": tuple(self.legs), "waits": tuple(self.waits), "joins": tuple(self.joins),
            "counts": tuple(self.counts), "outbox": tuple(self.outbox), "dead": tuple(self.dead), "rest": self.rest,
        }  # fmt: skip
        return story.change(**rows) if story.events else Change(**rows)  # type: ignore[arg-type]


def take(story: Story, rows: Rows, turns: Sequence[Turn], *, at: datetime, busy: bool, on: Occasion) -> None:
    """Start these legs at ``at``: tasks are queued, waits are opened.

    busy: whether anything else of the intent goes on, so that an open wait does not make it WAITING.
    """
    refused = next((turn for turn in turns if turn.refused is not None), None)
    if refused is not None:
        assert refused.refused is not None
        failed = replace(refused.leg, status=LegStatus.FAILED, error=refused.refused, ended_at=on.now)
        rows.legs.append((refused.leg, failed))
        fall(story, rows, failed, refused.refused, refused.fallout, on=on)
        return
    tasks = [turn for turn in turns if turn.wait is None]
    if tasks and story.intent.status is Status.WAITING:
        story.tell("intent.in_progress", leg_id=tasks[0].leg.id)
    for turn in tasks:
        queued, starts_at = queue(turn, at, on)
        rows.legs.append((turn.leg, queued))
        rows.outbox.append(leg_delivery(queued, on.new_id(), starts_at))
    for turn in turns:
        if turn.wait is not None:
            wait = opened(story.intent, turn.wait, on.now)
            given = {"given": turn.value} if turn.leg.plan.get("takes") else {}
            resting = replace(
                turn.leg, status=LegStatus.WAITING, started_at=on.now, has_history=True, plan={**turn.leg.plan, **given}
            )
            rows.legs.append((turn.leg, resting))
            rows.waits.append((None, wait))
            rows.outbox += tell_opened(story, resting, wait, rests=not (tasks or busy), on=on)


def queue(turn: Turn, at: datetime, on: Occasion) -> tuple[Leg, datetime]:
    """A task's leg, queued with what it takes, and when it starts: as ``apply_async`` at ``at`` would have it."""
    leg, plan = turn.leg, turn.leg.plan
    options = dict(leg.signature.get("options") or {})
    if turn.parent_id is not None:
        options["parent_id"] = turn.parent_id
    starts_at = at
    if plan.get("countdown") is not None:
        starts_at = at + timedelta(seconds=plan["countdown"])
    elif plan.get("eta") is not None:
        starts_at = max(at, moment(plan["eta"], "eta"))
    if isinstance(plan.get("expires"), int | float):
        options["expires"] = (at + timedelta(seconds=plan["expires"])).isoformat()
    args = list(leg.signature.get("args") or ())
    if plan.get("takes"):
        args = [turn.value, *args]
    signature = {**leg.signature, "args": args, "options": options}
    # Whoever repeats it must know that it has its argument.
    plan = {**plan, "turned": True}
    due_at = starts_at + on.requeue
    return replace(leg, status=LegStatus.QUEUED, signature=signature, plan=plan, due_at=due_at), starts_at


def arrive(story: Story, rows: Rows, one: Leg | Join) -> None:
    """What ended counts in its join, if it is a member of one."""
    if one.join_id is not None:
        rows.counts.append(one.join_id)


def end(story: Story, rows: Rows, result: str, *, leg: Leg | None, on: Occasion) -> None:
    """The last leg or join has ended: the intent is COMPLETED. Whatever way was not taken is closed."""
    if story.intent.status is not Status.IN_PROGRESS:
        # It was waiting; or nothing of it had to run, all of it being brought along from an earlier one.
        story.tell("intent.in_progress")
    about: dict[str, Any] = {
        "actor": None if leg is None else leg.worker,
        "leg_id": None if leg is None else leg.id,
        "run": None if leg is None else leg.run,
    }
    if story.intent.called_open:
        # What its tasks have called goes on; the last of that ends the intent.
        story.tell("intent.work_done", **about)
        story.intent = replace(story.intent, result=result)
        return
    story.tell("intent.completed", **about)
    story.intent = replace(story.intent, result=result)
    rows.outbox += tell_parent(story.intent, on)
    if leg is None or leg.node:
        rows.rest = Rest(story.intent.id, on.now)


def fall(story: Story, rows: Rows, leg: Leg, error: JsonDict, fallout: Fallout, *, on: Occasion) -> None:
    """A leg has failed: so has the intent, and what else is open of it is CANCELED."""
    _failed(story, rows, error, on, actor=leg.worker, leg_id=leg.id, run=leg.run, node=leg.node or None)
    rows.dead.append(dead_letter(story.intent, "leg", error, on, leg_id=leg.id))
    if leg.is_last:
        return
    why = {"code": "pipeline_failed", "message": f"leg {leg.id} failed before it"}
    rows.rest = Rest(story.intent.id, on.now, why, called_too=False)
    rows.outbox.append(rest_delivery(story.intent, "FAILURE", error, on, errbacks=fallout.called))
    # The one that has just closed, and led to this, was still open when these were read.
    closing = {wait.id for _, wait in rows.waits}
    for wait in fallout.waits:
        if wait.leg_id != leg.id and wait.id not in closing:
            closed = closed_wait(wait, WaitStatus.CANCELED, on.now, outcome=None, answered_by=None)
            rows.waits.append((wait, closed))
            rows.outbox += cancel_children([wait], None, on)


def pass_join(
    intent: Intent, join: Join, result: str, turns: Sequence[Turn], *, more: bool, busy: bool, on: Occasion
) -> Change:
    """Everything has arrived at a join: what follows starts, or what it is a member of counts it, or the intent ends.

    more: these are not all that follow; the join stays open for the next batch.
    """
    story, rows = Story(intent, on.now), Rows()
    if not more:
        kept = result if join.join_id is not None else None
        rows.joins.append((join, replace(join, status=JoinStatus.PASSED, result=kept)))
    if turns:
        take(story, rows, turns, at=on.now, busy=busy, on=on)
    elif join.join_id is not None:
        arrive(story, rows, join)
    elif not join.followers:
        end(story, rows, result, leg=None, on=on)
    return rows.change(story)


def join_too_large(intent: Intent, join: Join, error: JsonDict, waits: Sequence[Wait], *, on: Occasion) -> Change:
    """The results that came together are more than one message may carry: the intent has failed."""
    story, rows = Story(intent, on.now), Rows()
    _failed(story, rows, error, on, node=join.node or None)
    rows.outbox.append(rest_delivery(story.intent, "FAILURE", error, on))
    rows.dead.append(dead_letter(story.intent, "intent", error, on))
    rows.rest = Rest(intent.id, on.now, error, called_too=False)
    rows.waits += [(w, closed_wait(w, WaitStatus.CANCELED, on.now, outcome=None, answered_by=None)) for w in waits]
    rows.outbox += cancel_children(waits, None, on)
    return rows.change(story)


def _failed(story: Story, rows: Rows, error: JsonDict, on: Occasion, **about: Any) -> None:
    """The work the intent was submitted with has failed: so has the intent, once what that called has ended."""
    story.tell("intent.work_failed" if story.intent.called_open else "intent.failed", error=error, **about)
    story.intent = replace(story.intent, error=error)
    if not story.intent.called_open:
        rows.outbox += tell_parent(story.intent, on)
    rows.outbox.append(dead_notice(story.intent, error, on))


def rest(intent: Intent, waits: Sequence[Wait], *, on: Occasion) -> Change:
    """Nothing of the intent goes on any more but what it waits for: it is WAITING."""
    story = Story(intent, on.now)
    first = waits[0]
    story.tell(
        "intent.waiting", leg_id=first.leg_id, waiting_reason=first.kind.waiting_reason, wait_id=first.id,
        title=first.title, pending_with=list(first.to) or None, tool=first.tool, job_id=first.job_id,
    )  # fmt: skip
    return story.change()
