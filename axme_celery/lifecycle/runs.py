"""A leg's life: submitted, claimed, and every way one of its runs can end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from ..errors import StaleChange
from ..graph import Join
from ..model import (
    Change,
    Checkpoint,
    Event,
    Intent,
    JsonDict,
    Leg,
    LegStatus,
    Recorded,
    Status,
    Wait,
    WaitKind,
    WaitStatus,
)
from .called import called_ended
from .moves import UNSTARTED, Occasion, Story
from .outgoing import dead_letter, dead_notice, leg_delivery, present, result_delivery
from .turns import Fallout, Rows, Turn, arrive, end, fall, take

#: The pause before a message is sent again doubles so often and no more. A long pause spares a long queue some copies,
#: but that the last messages were lost does not mean that the next will be picked up, and a leg must not sleep for days.
RESEND_DOUBLINGS = 3


def submit(
    intent: Intent,
    leg: Leg,
    *,
    start_at: datetime | None,
    on: Occasion,
) -> Change:
    """A new intent with its one leg, queued to start now or at ``start_at``."""
    leg = replace(leg, due_at=(start_at or on.now) + on.requeue)
    created, story = _submitted(intent, leg, None, on)
    return Change(
        intent=story.intent,
        events=(created, *story.events),
        legs=((None, leg),),
        outbox=(leg_delivery(leg, on.new_id(), start_at or on.now),),
    )


def submit_plan(
    intent: Intent, legs: Sequence[Leg], joins: Sequence[Join], turns: Sequence[Turn], *, on: Occasion
) -> Change:
    """A new intent with a pipeline: every leg and join is written, and the first ones start."""
    created, story = _submitted(intent, legs[0], len(legs), on)
    change = _with_new(story, legs, joins, turns, on=on)
    return replace(change, was=None, before=0, events=(created, *change.events))


def replace_leg(
    intent: Intent,
    leg: Leg,
    before: Leg,
    legs: Sequence[Leg],
    joins: Sequence[Join],
    turns: Sequence[Turn],
    *,
    on: Occasion,
) -> Change:
    """A running leg puts others in its place.

    before: the leg under which stays what it recorded itself.
    legs:   what takes its place, among them the leg itself as what it is to be from here on.
    """
    story = Story(intent, on.now)
    story.tell("intent.leg_replaced", actor=leg.worker, leg_id=leg.id, run=leg.run, task=leg.task, legs=len(legs))
    change = _with_new(story, legs, joins, turns, on=on)
    pairs = tuple((leg if now.id == leg.id else None, now) for _, now in change.legs)
    return replace(change, legs=(*pairs, (None, before)), moves=((leg.id, before.id),))


def add_member(
    intent: Intent,
    join_id: str,
    size: int,
    legs: Sequence[Leg],
    joins: Sequence[Join],
    turns: Sequence[Turn],
    *,
    on: Occasion,
) -> Change:
    """A running member of a join adds another. ``size``: how many the join has had so far."""
    story = Story(intent, on.now)
    story.tell("intent.leg_added", leg_id=legs[0].id, task=legs[0].task)
    return replace(_with_new(story, legs, joins, turns, on=on), grows=((join_id, size),))


def _with_new(
    story: Story, legs: Sequence[Leg], joins: Sequence[Join], turns: Sequence[Turn], *, on: Occasion
) -> Change:
    """New legs and joins, of which some start now."""
    rows, started, first = Rows(), Rows(), {turn.leg.id for turn in turns}
    take(story, started, turns, at=on.now, busy=False, on=on)
    there = {leg.id for _, leg in started.legs}
    # Should a wait be refused, those beside it do not start.
    rows.legs = [(None, leg) for leg in legs if leg.id not in first or leg.id not in there]
    rows.legs += [(None, leg) for _, leg in started.legs]
    rows.joins = [(None, join) for join in joins]
    rows.waits, rows.outbox, rows.dead, rows.rest = started.waits, started.outbox, started.dead, started.rest
    return rows.change(story)


def _submitted(intent: Intent, leg: Leg, legs: int | None, on: Occasion) -> tuple[Event, Story]:
    """The event of its making, and its story from there: submitted."""
    story = Story(replace(intent, seq=1, status=Status.CREATED), on.now)
    created = Event(
        intent_id=intent.id,
        seq=1,
        type="intent.created",
        status=Status.CREATED,
        at=on.now,
        actor=intent.requester,
        details=present(intent_type=intent.type, key=intent.key, tags=list(intent.tags), replay_of=intent.replay_of),
    )
    story.tell("intent.submitted", actor=intent.requester, leg_id=leg.id, task=leg.task, legs=legs)
    return created, story


def repeat(
    intent: Intent,
    leg: Leg,
    checkpoints: Sequence[Checkpoint],
    waits: Sequence[Wait],
    *,
    upto: int | None,
    by: str | None = None,
    reason: str | None = None,
    on: Occasion,
) -> Change:
    """A new intent that starts from recorded work: journal entries before position ``upto``, or all (None)."""
    change = told_why(submit(intent, leg, start_at=None, on=on), by=by, reason=reason)
    # Run 0: before every run of this leg. An operator who accepts drift in it accepts what came before.
    kept = tuple(replace(c, leg_id=leg.id, run=0) for c in checkpoints if upto is None or c.position < upto)
    kept_waits = tuple(
        (
            None,
            replace(w, id=on.new_id(), intent_id=intent.id, leg_id=leg.id, run=0, tool=None, job_id=None, due_at=None),
        )
        for w in waits
        if w.status is not WaitStatus.OPEN and (upto is None or w.position < upto)
    )
    history = replace(change.legs[0][1], has_history=bool(kept or kept_waits))
    return replace(
        change,
        legs=((None, history),),
        outbox=tuple(replace(d, leg=history) for d in change.outbox),
        checkpoints=kept,
        waits=kept_waits,
    )


def told_why(change: Change, *, by: str | None, reason: str | None) -> Change:
    """The change that makes an intent, its first event telling who wanted it and why."""
    first, *others = change.events
    told = first.details | present(reason=reason)
    return replace(change, events=(replace(first, actor=by or first.actor, details=told), *others))


def replay_from(checkpoints: Sequence[Checkpoint], waits: Sequence[Wait]) -> int | None:
    """Where a replay starts anew: at the last thing recorded, if that is what failed; else after everything (None)."""
    last = max([*(c.position for c in checkpoints), *(w.position for w in waits)], default=-1)
    failed = [c.position for c in checkpoints if c.recorded is Recorded.FAILED]
    failed += [w.position for w in waits if w.status is not WaitStatus.ANSWERED or _reported_failed(w)]
    return last if last in failed else None


def _reported_failed(wait: Wait) -> bool:
    # What a person decided stays decided; what a tool or an agent could not do, it may do now.
    return wait.kind in (WaitKind.TOOL, WaitKind.AGENT) and wait.outcome != "completed"


def claim(intent: Intent, leg: Leg, run: int, *, worker: str, token: str, on: Occasion) -> Change:
    """QUEUED -> RUNNING on (leg, run). The attempt is counted here, before any code runs.

    Raises StaleChange when this run is not the one to be had: a duplicate, an old message, an ended intent.
    """
    if intent.status.is_final or leg.status is not LegStatus.QUEUED or leg.run != run:
        raise StaleChange(f"leg {leg.id} is {leg.status.value} at run {leg.run}; run {run} is not to be had")
    claimed = replace(
        leg,
        status=LegStatus.RUNNING,
        attempts=leg.attempts + 1,
        worker=worker,
        token=token,
        due_at=None,
        started_at=leg.started_at or on.now,
    )
    if intent.status not in UNSTARTED:
        return Change(legs=((leg, claimed),), durable=False)
    story = Story(intent, on.now)
    story.tell("intent.in_progress", actor=worker, leg_id=leg.id, run=run)
    return story.change(legs=((leg, claimed),), durable=False)


def complete(
    intent: Intent,
    leg: Leg,
    result: str,
    *,
    guard_at: datetime | None,
    token: str,
    turns: Sequence[Turn] = (),
    busy: bool = False,
    on: Occasion,
) -> Change:
    """The leg's body returned: leg DONE. What follows starts, its join counts it, or the intent is COMPLETED.

    guard_at: when set, an outbox row repeats the leg's message then, so that Celery's own bookkeeping
              (result, chain, callbacks) is done even if the worker dies between this commit and that.
    turns:    the legs that follow it.
    busy:     whether anything else of the intent goes on, should one of those be a wait.
    """
    done = replace(leg, status=LegStatus.DONE, result=result, token=token, ended_at=on.now)
    story, rows = Story(intent, on.now), Rows(legs=[(leg, done)])
    if guard_at is not None:
        rows.outbox.append(replace(leg_delivery(done, on.new_id(), guard_at), body={"finish": True}))
    if turns:
        take(story, rows, turns, at=on.now, busy=busy, on=on)
    elif leg.called_by is not None:
        called_ended(story, rows, done, None, on=on)
    elif leg.is_last:
        end(story, rows, result, leg=done, on=on)
    else:
        arrive(story, rows, leg)
    return rows.change(story)


def fail(
    intent: Intent,
    leg: Leg,
    error: JsonDict,
    *,
    seen_by_celery: bool,
    guard_at: datetime | None,
    token: str,
    fallout: Fallout | None = None,
    on: Occasion,
) -> Change:
    """The leg cannot succeed: leg FAILED, intent FAILED, a dead letter with the reason.

    ``seen_by_celery``: True when the exception goes on through Celery's own handling, which stores FAILURE;
    then the RESULT row waits until ``guard_at`` and is only the guard against a crash in between.
    """
    failed = replace(leg, status=LegStatus.FAILED, error=error, token=token, ended_at=on.now, due_at=None)
    story, rows = Story(intent, on.now), Rows(legs=[(leg, failed)])
    if leg.called_by is not None:
        called_ended(story, rows, failed, error, on=on)
    else:
        fall(story, rows, failed, error, fallout or Fallout(), on=on)
    tell_celery_at = guard_at if seen_by_celery else on.now
    if tell_celery_at is not None:
        rows.outbox.append(result_delivery(leg, "FAILURE", error, tell_celery_at, on))
    return rows.change(story)


def retry(intent: Intent, leg: Leg, signature: JsonDict, *, cause: str, start_at: datetime, on: Occasion) -> Change:
    """The task asked Celery to retry it: the leg is queued again as its next run.

    Not held against ``max_attempts``: Celery's own ``max_retries`` bounds these.
    """
    queued = next_run(leg, on, at=start_at, signature=signature, attempts=leg.attempts - 1)
    story = Story(intent, on.now)
    story.tell("intent.leg_retried", actor=leg.worker, leg_id=leg.id, run=leg.run, cause=cause)
    return story.change(legs=((leg, queued),), outbox=(leg_delivery(queued, on.new_id(), start_at),))


def hand_back(intent: Intent, leg: Leg, *, on: Occasion) -> Change:
    """The worker is stopping: the leg goes back to the queue. Not an attempt."""
    queued = next_run(leg, on, attempts=leg.attempts - 1)
    story = Story(intent, on.now)
    story.tell("intent.handed_back", actor=leg.worker, leg_id=leg.id, run=leg.run)
    return story.change(legs=((leg, queued),), outbox=(leg_delivery(queued, on.new_id(), on.now),))


def lose(
    intent: Intent,
    leg: Leg,
    run: int,
    *,
    cause: str,
    fallout: Callable[[JsonDict], Fallout] | None = None,
    on: Occasion,
) -> Change:
    """The worker of this run is dead or silent: run the leg again, or give up after ``max_attempts``."""
    if leg.status is not LegStatus.RUNNING or leg.run != run:
        raise StaleChange(f"leg {leg.id} is {leg.status.value} at run {leg.run}; run {run} was not lost")
    if leg.attempts >= leg.max_attempts:
        error = {
            "code": "worker_lost",
            "message": f"{leg.attempts} runs of {leg.task} ended with their worker; "
            f"the last on {leg.worker or 'an unknown worker'} ({cause})",
        }
        return fail(
            intent, leg, error, seen_by_celery=False, guard_at=None, token=on.new_id(),
            fallout=None if fallout is None else fallout(error), on=on,
        )  # fmt: skip
    queued = next_run(leg, on)
    story = Story(intent, on.now)
    story.tell("intent.leg_lost", actor="sweep", leg_id=leg.id, run=run, worker=leg.worker, cause=cause)
    return story.change(legs=((leg, queued),), outbox=(leg_delivery(queued, on.new_id(), on.now),))


def resend(leg: Leg, *, on: Occasion) -> Change:
    """Nobody started the leg in time: publish the same run again and look again after twice as long, within limits.

    The run stays the same: should the first message only be slow, whichever comes first is claimed.
    """
    again = replace(
        leg,
        resends=leg.resends + 1,
        due_at=on.now + on.requeue * 2 ** min(leg.resends + 1, RESEND_DOUBLINGS),
    )
    return Change(legs=((leg, again),), outbox=(leg_delivery(again, on.new_id(), on.now),))


def park(intent: Intent, leg: Leg, *, code: str, reason: str, on: Occasion) -> Change:
    """The leg cannot go on as the code is now; it rests until an operator decides."""
    parked = replace(leg, status=LegStatus.PARKED, parked=reason, due_at=None)
    story = Story(intent, on.now)
    story.tell("intent.parked", leg_id=leg.id, run=leg.run, code=code, reason=reason)
    dead = dead_letter(story.intent, "leg", {"code": code, "message": reason}, on, leg_id=leg.id)
    notice = dead_notice(story.intent, {"code": code, "message": reason}, on)
    return story.change(legs=((leg, parked),), outbox=(notice,), dead=(dead,))


def unpark(intent: Intent, leg: Leg, *, accept_drift: bool, by: str, reason: str | None = None, on: Occasion) -> Change:
    """An operator lets a parked leg go on: with the code as it is (accept_drift), or after a roll-back."""
    if leg.status is not LegStatus.PARKED:
        raise StaleChange(f"leg {leg.id} is {leg.status.value}, not PARKED")
    queued = next_run(leg, on, attempts=max(leg.attempts - 1, 0), parked=None)
    if accept_drift:
        queued = replace(queued, drift_accepted_run=queued.run)
    story = Story(intent, on.now)
    story.tell("intent.unparked", actor=by, leg_id=leg.id, run=queued.run, accept_drift=accept_drift, reason=reason)
    return story.change(legs=((leg, queued),), outbox=(leg_delivery(queued, on.new_id(), on.now),))


def next_run(leg: Leg, on: Occasion, *, at: datetime | None = None, **fields: object) -> Leg:
    queued = replace(leg, status=LegStatus.QUEUED, run=leg.run + 1, resends=0, **fields)  # type: ignore[arg-type]
    return replace(queued, due_at=(at or on.now) + on.requeue)
