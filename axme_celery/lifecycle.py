"""The rules: which event may follow which status, and what each decision writes.

Pure: no clock, no store, no randomness. A decision takes what was loaded, the
moment and any new ids, and returns a ``Change``; or it refuses by raising.
Everything that may alter an intent's status is in this file, and which status
an event leads to is said once, in ``MOVES``.

Source: AXP Intent Lifecycle v1, with TIMED_OUT reachable from every open status.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from .errors import IntentEnded, NotAllowed, StaleChange, WaitClosed
from .model import (
    Change,
    Checkpoint,
    DeadLetter,
    Delivery,
    DeliveryKind,
    Event,
    Intent,
    JsonDict,
    Leg,
    LegStatus,
    Recorded,
    Status,
    Wait,
    WaitKind,
    WaitRecord,
    WaitStatus,
)


@dataclass(frozen=True, slots=True)
class Occasion:
    """What a decision may know of the world: the moment, fresh ids, and one setting."""

    #: The ledger's present time.
    now: datetime
    #: A new UUIDv7.
    new_id: Callable[[], str]
    #: After this long a queued leg nobody started is published again.
    requeue: timedelta


_ENDS = {
    "intent.failed": Status.FAILED,
    "intent.canceled": Status.CANCELED,
    "intent.timed_out": Status.TIMED_OUT,
}

#: status -> event -> status. A missing entry is an illegal move.
MOVES: dict[Status, dict[str, Status]] = {
    Status.CREATED: {"intent.submitted": Status.SUBMITTED, **_ENDS},
    Status.SUBMITTED: {
        "intent.delivered": Status.DELIVERED,
        "intent.in_progress": Status.IN_PROGRESS,
        "intent.waiting": Status.WAITING,
        **_ENDS,
    },
    Status.DELIVERED: {
        "intent.acknowledged": Status.ACKNOWLEDGED,
        "intent.in_progress": Status.IN_PROGRESS,
        "intent.waiting": Status.WAITING,
        **_ENDS,
    },
    Status.ACKNOWLEDGED: {"intent.in_progress": Status.IN_PROGRESS, "intent.waiting": Status.WAITING, **_ENDS},
    Status.IN_PROGRESS: {"intent.waiting": Status.WAITING, "intent.completed": Status.COMPLETED, **_ENDS},
    Status.WAITING: {"intent.in_progress": Status.IN_PROGRESS, "intent.waiting": Status.WAITING, **_ENDS},
    Status.COMPLETED: {},
    Status.FAILED: {},
    Status.CANCELED: {},
    Status.TIMED_OUT: {},
}

#: Events that are worth a line but move nothing; legal in every open status.
NOTES = frozenset(
    {
        "intent.human_task_assigned",
        "intent.voted",
        "intent.reminder",
        "intent.escalated",
        "intent.timeout",
        "intent.wait_closed",
        "intent.leg_lost",
        "intent.leg_retried",
        "intent.handed_back",
        "intent.parked",
        "intent.unparked",
    }
)

_UNSTARTED = frozenset({Status.SUBMITTED, Status.DELIVERED, Status.ACKNOWLEDGED})


class _Story:
    """An intent being moved: collects events and advances status and seq by the table."""

    def __init__(self, intent: Intent, now: datetime) -> None:
        self.was, self.now, self.intent = intent, now, intent
        self.events: list[Event] = []

    def tell(
        self,
        type: str,
        *,
        actor: str | None = None,
        leg_id: str | None = None,
        waiting_reason: str | None = None,
        **details: object,
    ) -> None:
        status = self.intent.status
        if type in NOTES:
            if status.is_final:
                raise IntentEnded(self.intent.id, status.value, self.intent.ended_at)
            reason = self.intent.waiting_reason
        else:
            moved = MOVES[status].get(type)
            if moved is None:
                if status.is_final:
                    raise IntentEnded(self.intent.id, status.value, self.intent.ended_at)
                raise StaleChange(f"{type} may not follow {status.value} (intent {self.intent.id})")
            status, reason = moved, waiting_reason
        seq = self.intent.seq + 1
        self.events.append(
            Event(
                intent_id=self.intent.id,
                seq=seq,
                type=type,
                status=status,
                waiting_reason=reason,
                at=self.now,
                actor=actor,
                leg_id=leg_id,
                details={k: v for k, v in details.items() if v is not None},
            )
        )
        ended_at = self.now if status.is_final else None
        self.intent = replace(
            self.intent, status=status, waiting_reason=reason, seq=seq, updated_at=self.now, ended_at=ended_at
        )

    def change(self, **rows: object) -> Change:
        """A Change of this intent, with the other rows given."""
        return Change(
            intent=self.intent,
            was=self.was,
            before=self.was.seq,
            events=tuple(self.events),
            **rows,  # type: ignore[arg-type]
        )


def leg_delivery(leg: Leg, delivery_id: str, at: datetime) -> Delivery:
    """The outbox row that publishes this leg's message for its present run."""
    return Delivery(
        id=delivery_id,
        kind=DeliveryKind.LEG,
        intent_id=leg.intent_id,
        leg_id=leg.id,
        run=leg.run,
        next_at=at,
        leg=leg,
    )


# -- submit ---------------------------------------------------------------


def submit(intent: Intent, leg: Leg, *, start_at: datetime | None, on: Occasion) -> Change:
    """A new intent with its one leg, queued to start now or at ``start_at``."""
    story = _Story(replace(intent, seq=1, status=Status.CREATED), on.now)
    leg = replace(leg, due_at=(start_at or on.now) + on.requeue)
    created = Event(
        intent_id=intent.id,
        seq=1,
        type="intent.created",
        status=Status.CREATED,
        at=on.now,
        actor=intent.requester,
        details=_present(intent_type=intent.type, key=intent.key, tags=list(intent.tags), replay_of=intent.replay_of),
    )
    story.tell("intent.submitted", actor=intent.requester, leg_id=leg.id, task=leg.task)
    return Change(
        intent=story.intent,
        events=(created, *story.events),
        legs=((None, leg),),
        outbox=(leg_delivery(leg, on.new_id(), start_at or on.now),),
    )


def repeat(
    intent: Intent,
    leg: Leg,
    checkpoints: Sequence[Checkpoint],
    waits: Sequence[Wait],
    *,
    upto: int | None,
    on: Occasion,
) -> Change:
    """A new intent that starts from recorded work: journal entries before position ``upto``, or all (None)."""
    change = submit(intent, leg, start_at=None, on=on)
    kept = tuple(replace(c, leg_id=leg.id) for c in checkpoints if upto is None or c.position < upto)
    kept_waits = tuple(
        (None, replace(w, id=on.new_id(), intent_id=intent.id, leg_id=leg.id, tool=None, job_id=None, due_at=None))
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


def replay_from(checkpoints: Sequence[Checkpoint], waits: Sequence[Wait]) -> int | None:
    """Where a replay starts anew: at the last thing recorded, if that is what failed; else after everything (None)."""
    last = max([*(c.position for c in checkpoints), *(w.position for w in waits)], default=-1)
    failed = [c.position for c in checkpoints if c.recorded is Recorded.FAILED]
    failed += [w.position for w in waits if w.status is not WaitStatus.ANSWERED]
    return last if last in failed else None


# -- a leg's runs -----------------------------------------------------------


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
    if intent.status not in _UNSTARTED:
        return Change(legs=((leg, claimed),), durable=False)
    story = _Story(intent, on.now)
    story.tell("intent.in_progress", actor=worker, leg_id=leg.id, run=run)
    return story.change(legs=((leg, claimed),), durable=False)


def complete(intent: Intent, leg: Leg, result: str, *, guard_at: datetime | None, token: str, on: Occasion) -> Change:
    """The leg's body returned: leg DONE, intent COMPLETED.

    ``guard_at``: when set, an outbox row repeats the leg's message then, so that Celery's own bookkeeping
    (result, chain, callbacks) is done even if the worker dies between this commit and that.
    """
    done = replace(leg, status=LegStatus.DONE, result=result, token=token, ended_at=on.now)
    story = _Story(intent, on.now)
    story.tell("intent.completed", actor=leg.worker, leg_id=leg.id, run=leg.run)
    story.intent = replace(story.intent, result=result)
    outbox: list[Delivery] = []
    if guard_at is not None:
        outbox.append(replace(leg_delivery(done, on.new_id(), guard_at), body={"finish": True}))
    outbox += _tell_parent(story.intent, on)
    return story.change(legs=((leg, done),), outbox=tuple(outbox))


def fail(
    intent: Intent,
    leg: Leg,
    error: JsonDict,
    *,
    seen_by_celery: bool,
    guard_at: datetime | None,
    token: str,
    on: Occasion,
) -> Change:
    """The leg cannot succeed: leg FAILED, intent FAILED, a dead letter with the reason.

    ``seen_by_celery``: True when the exception goes on through Celery's own handling, which stores FAILURE;
    then the RESULT row waits until ``guard_at`` and is only the guard against a crash in between.
    """
    failed = replace(leg, status=LegStatus.FAILED, error=error, token=token, ended_at=on.now, due_at=None)
    story = _Story(intent, on.now)
    story.tell("intent.failed", actor=leg.worker, leg_id=leg.id, run=leg.run, error=error)
    story.intent = replace(story.intent, error=error)
    outbox = _tell_parent(story.intent, on)
    tell_celery_at = guard_at if seen_by_celery else on.now
    if tell_celery_at is not None:
        outbox.append(_result_delivery(leg, "FAILURE", error, tell_celery_at, on))
    return story.change(
        legs=((leg, failed),),
        outbox=tuple(outbox),
        dead=(_dead(story.intent, "leg", error, on, leg_id=leg.id),),
    )


def retry(intent: Intent, leg: Leg, signature: JsonDict, *, cause: str, start_at: datetime, on: Occasion) -> Change:
    """The task asked Celery to retry it: the leg is queued again as its next run.

    Not held against ``max_attempts``: Celery's own ``max_retries`` bounds these.
    """
    queued = _next_run(leg, on, at=start_at, signature=signature, attempts=leg.attempts - 1)
    story = _Story(intent, on.now)
    story.tell("intent.leg_retried", actor=leg.worker, leg_id=leg.id, run=leg.run, cause=cause)
    return story.change(legs=((leg, queued),), outbox=(leg_delivery(queued, on.new_id(), start_at),))


def hand_back(intent: Intent, leg: Leg, *, on: Occasion) -> Change:
    """The worker is stopping: the leg goes back to the queue. Not an attempt."""
    queued = _next_run(leg, on, attempts=leg.attempts - 1)
    story = _Story(intent, on.now)
    story.tell("intent.handed_back", actor=leg.worker, leg_id=leg.id, run=leg.run)
    return story.change(legs=((leg, queued),), outbox=(leg_delivery(queued, on.new_id(), on.now),))


def lose(intent: Intent, leg: Leg, run: int, *, cause: str, on: Occasion) -> Change:
    """The worker of this run is dead or silent: run the leg again, or give up after ``max_attempts``."""
    if leg.status is not LegStatus.RUNNING or leg.run != run:
        raise StaleChange(f"leg {leg.id} is {leg.status.value} at run {leg.run}; run {run} was not lost")
    if leg.attempts >= leg.max_attempts:
        error = {
            "code": "worker_lost",
            "message": f"{leg.attempts} runs of {leg.task} ended with their worker; "
            f"the last on {leg.worker or 'an unknown worker'} ({cause})",
        }
        return fail(intent, leg, error, seen_by_celery=False, guard_at=None, token=on.new_id(), on=on)
    queued = _next_run(leg, on)
    story = _Story(intent, on.now)
    story.tell("intent.leg_lost", actor="sweep", leg_id=leg.id, run=run, worker=leg.worker, cause=cause)
    return story.change(legs=((leg, queued),), outbox=(leg_delivery(queued, on.new_id(), on.now),))


def resend(leg: Leg, *, on: Occasion) -> Change:
    """Nobody started the leg in time: publish the same run again and look again after twice as long.

    The run stays the same: should the first message only be slow, whichever comes first is claimed.
    """
    again = replace(
        leg,
        resends=leg.resends + 1,
        due_at=on.now + on.requeue * 2 ** min(leg.resends + 1, 10),
    )
    return Change(legs=((leg, again),), outbox=(leg_delivery(again, on.new_id(), on.now),))


def park(intent: Intent, leg: Leg, *, code: str, reason: str, on: Occasion) -> Change:
    """The leg cannot go on as the code is now; it rests until an operator decides."""
    parked = replace(leg, status=LegStatus.PARKED, parked=reason, due_at=None)
    story = _Story(intent, on.now)
    story.tell("intent.parked", leg_id=leg.id, run=leg.run, code=code, reason=reason)
    dead = _dead(story.intent, "leg", {"code": code, "message": reason}, on, leg_id=leg.id)
    return story.change(legs=((leg, parked),), dead=(dead,))


def unpark(intent: Intent, leg: Leg, *, accept_drift: bool, by: str, on: Occasion) -> Change:
    """An operator lets a parked leg go on: with the code as it is (accept_drift), or after a roll-back."""
    if leg.status is not LegStatus.PARKED:
        raise StaleChange(f"leg {leg.id} is {leg.status.value}, not PARKED")
    queued = _next_run(leg, on, attempts=max(leg.attempts - 1, 0), parked=None)
    if accept_drift:
        queued = replace(queued, drift_accepted_run=queued.run)
    story = _Story(intent, on.now)
    story.tell("intent.unparked", actor=by, leg_id=leg.id, run=queued.run, accept_drift=accept_drift)
    return story.change(legs=((leg, queued),), outbox=(leg_delivery(queued, on.new_id(), on.now),))


# -- waits ------------------------------------------------------------------


def open_wait(intent: Intent, leg: Leg, wait: Wait, *, child: Change | None, on: Occasion) -> tuple[Change, ...]:
    """The leg comes to rest on a wait. ``child``: the intent an agent is given, written in the same transaction."""
    wait = replace(wait, due_at=due(wait))
    resting = replace(leg, status=LegStatus.WAITING, attempts=leg.attempts - 1, has_history=True)
    story = _Story(intent, on.now)
    story.tell(
        "intent.waiting",
        leg_id=leg.id,
        waiting_reason=wait.kind.waiting_reason,
        wait_id=wait.id,
        title=wait.title,
        pending_with=list(wait.to) or None,
        tool=wait.tool,
        job_id=wait.job_id,
        timeout_at=_text(wait.timeout_at),
    )
    outbox: tuple[Delivery, ...] = ()
    if wait.kind is WaitKind.HUMAN:
        story.tell(
            "intent.human_task_assigned",
            leg_id=leg.id,
            wait_id=wait.id,
            to=list(wait.to),
            task_type=wait.request.get("task_type"),
        )
        outbox = (_notice(story.intent, wait, "wait_opened", wait.to, on),)
    change = story.change(legs=((leg, resting),), waits=((None, wait),), outbox=outbox)
    return (change,) if child is None else (change, child)


def rest_again(intent: Intent, leg: Leg, wait: Wait, *, on: Occasion) -> Change:
    """A run came back to a wait that is still open (it was unparked, or handed on early): rest on it again."""
    resting = replace(leg, status=LegStatus.WAITING, attempts=leg.attempts - 1)
    if intent.status is Status.WAITING:
        return Change(legs=((leg, resting),))
    story = _Story(intent, on.now)
    story.tell("intent.waiting", leg_id=leg.id, waiting_reason=wait.kind.waiting_reason, wait_id=wait.id)
    return story.change(legs=((leg, resting),))


def answer(
    record: WaitRecord,
    *,
    outcome: str | None,
    by: str | None,
    comment: str | None = None,
    data: str | None = None,
    on: Occasion,
) -> Change:
    """An answer from outside: it closes the wait and the leg runs on, or it is one vote of several.

    ``outcome`` is a person's choice; tools and agents answer with "completed" or "failed".
    Raises WaitClosed for a closed wait, NotAllowed for a person who may not or already did.
    """
    wait = record.wait
    _must_be_open(wait)
    if wait.kind is WaitKind.HUMAN:
        if by in wait.request.get("not_by", ()):
            raise NotAllowed(f"{by} may not answer wait {wait.id}: its not_by excludes them; someone else must")
        if any(vote["by"] == by for vote in wait.votes):
            raise NotAllowed(f"{by} has already answered wait {wait.id}; it needs other people")
        vote = _present(by=by, outcome=outcome, comment=comment, at=_text(on.now))
        wait = replace(wait, votes=(*wait.votes, vote))
        quorum = int(wait.request.get("quorum", 1))
        agreeing = sum(1 for v in wait.votes if v["outcome"] == outcome)
        # A quorum is asked of the first outcome, the one that says yes; any other outcome closes at once.
        if outcome == wait.request["outcomes"][0] and agreeing < quorum:
            story = _Story(record.intent, on.now)
            story.tell(
                "intent.voted", actor=by, leg_id=wait.leg_id, wait_id=wait.id, outcome=outcome, comment=comment,
                votes=agreeing, quorum=quorum,
            )  # fmt: skip
            return story.change(waits=((record.wait, wait),))
    closed = _closed(wait, WaitStatus.ANSWERED, on.now, outcome=outcome, answered_by=by, comment=comment, data=data)
    return _resume(record, closed, at=on.now, on=on)


def fire(record: WaitRecord, *, ahead: timedelta, on: Occasion) -> Change | None:
    """What a wait's moments ask for now: wake up, time out, escalate, remind, poll; or nothing (None).

    ``ahead``: a ``wait_for_time`` may be closed this much early; its message still leaves at the very moment.
    """
    wait = record.wait
    if wait.status is not WaitStatus.OPEN or record.intent.status.is_final:
        return None
    if wait.kind is WaitKind.TIME:
        if wait.timeout_at is None or wait.timeout_at > on.now + ahead:
            return None
        closed = _closed(wait, WaitStatus.ANSWERED, max(on.now, wait.timeout_at), outcome="woke", answered_by="clock")
        return _resume(record, closed, at=wait.timeout_at, on=on)
    if wait.timeout_at is not None and wait.timeout_at <= on.now:
        return _expire(record, "timeout", on)
    if wait.heartbeat_at is not None and wait.heartbeat_at <= on.now:
        return _expire(record, "heartbeat_missed", on)
    return _nudge(record, on)


def _nudge(record: WaitRecord, on: Occasion) -> Change | None:
    """Escalation, reminder and poll: the wait stays open, its next moment moves on."""
    wait, story, outbox = record.wait, _Story(record.intent, on.now), list[Delivery]()
    request = wait.request
    if wait.escalate_at is not None and wait.escalate_at <= on.now:
        added = tuple(request.get("escalate_to", ()))
        wait = replace(
            wait, to=tuple(dict.fromkeys((*wait.to, *added))), escalate_at=None, escalated_at=on.now, remind_at=None
        )
        story.tell("intent.escalated", actor="clock", leg_id=wait.leg_id, wait_id=wait.id, escalated_to=list(added))
        outbox.append(_notice(story.intent, wait, "escalation", added, on))
    elif wait.remind_at is not None and wait.remind_at <= on.now:
        every = timedelta(seconds=request["remind_every_seconds"])
        count = wait.reminders + 1
        last = count >= request.get("max_reminders", 3)
        following = max(wait.remind_at + every, on.now + every / 2)
        escalate_at = wait.escalate_at
        if last and request.get("escalate_to") and escalate_at is None:
            escalate_at = following
        wait = replace(wait, reminders=count, remind_at=None if last else following, escalate_at=escalate_at)
        story.tell(
            "intent.reminder",
            actor="clock",
            leg_id=wait.leg_id,
            wait_id=wait.id,
            number=count,
            pending_with=list(wait.to),
        )
        outbox.append(_notice(story.intent, wait, "reminder", wait.to, on))
    if wait.poll_at is not None and wait.poll_at <= on.now:
        wait = replace(wait, poll_at=on.now + timedelta(seconds=request["poll_every_seconds"]))
        outbox.append(
            Delivery(
                id=on.new_id(),
                kind=DeliveryKind.POLL,
                intent_id=wait.intent_id,
                leg_id=wait.leg_id,
                body={"wait_id": wait.id},
                next_at=on.now,
            )
        )
    if wait is record.wait:
        return None
    wait = replace(wait, due_at=due(wait))
    if not story.events:
        return Change(waits=((record.wait, wait),), outbox=tuple(outbox))
    return story.change(waits=((record.wait, wait),), outbox=tuple(outbox))


def heartbeat(wait: Wait, *, on: Occasion) -> Change:
    """The tool is alive: put off the moment it is presumed dead. No event: this may come every second."""
    _must_be_open(wait)
    silence = wait.request.get("heartbeat_seconds")
    if silence is None:
        return Change()
    later = replace(wait, heartbeat_at=on.now + timedelta(seconds=silence))
    return Change(waits=((wait, replace(later, due_at=due(later))),), durable=False)


def due(wait: Wait) -> datetime | None:
    """The next moment anybody must look at a wait; None when closed or timeless."""
    if wait.status is not WaitStatus.OPEN:
        return None
    moments = (wait.timeout_at, wait.remind_at, wait.escalate_at, wait.heartbeat_at, wait.poll_at)
    return min((m for m in moments if m is not None), default=None)


# -- ends from outside --------------------------------------------------------


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
    error = _present(code="canceled", message=reason or "canceled", by=by)
    return _end_all(intent, legs, waits, "intent.canceled", error, by, on, dead=False)


def time_out(intent: Intent, legs: Sequence[Leg], waits: Sequence[Wait], *, on: Occasion) -> Change:
    """The intent's deadline passed."""
    error = {"code": "deadline", "message": f"the deadline {_text(intent.deadline_at)} passed"}
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
    story = _Story(intent, on.now)
    story.tell(event, actor=by, reason=error["message"], error=error)
    story.intent = replace(story.intent, error=error)
    open_legs = [leg for leg in legs if not leg.status.is_final]
    open_waits = [w for w in waits if w.status is WaitStatus.OPEN]
    outbox = _tell_parent(story.intent, on)
    state = "REVOKED" if event == "intent.canceled" else "FAILURE"
    outbox += [_result_delivery(leg, state, error, on.now, on) for leg in open_legs]
    outbox += _cancel_children(open_waits, by, on)
    return story.change(
        legs=tuple(
            (leg, replace(leg, status=LegStatus.CANCELED, ended_at=on.now, due_at=None, error=error))
            for leg in open_legs
        ),
        waits=tuple((w, _closed(w, WaitStatus.CANCELED, on.now, outcome=None, answered_by=by)) for w in open_waits),
        outbox=tuple(outbox),
        dead=(_dead(story.intent, "intent", error, on),) if dead else (),
    )


# -- small parts --------------------------------------------------------------


def _resume(record: WaitRecord, closed: Wait, *, at: datetime, on: Occasion) -> Change:
    """The wait has closed: the leg is queued as its next run, its message leaving at ``at``."""
    story = _Story(record.intent, on.now)
    if closed.status is WaitStatus.EXPIRED:
        story.tell("intent.timeout", actor="clock", leg_id=closed.leg_id, wait_id=closed.id, outcome=closed.outcome)
    leg = record.leg
    if leg.status is not LegStatus.WAITING:
        # Parked: the closed wait is found when the leg runs next.
        story.tell(
            "intent.wait_closed", actor=closed.answered_by, leg_id=leg.id, wait_id=closed.id, outcome=closed.outcome
        )
        return story.change(waits=((record.wait, closed),))
    queued = _next_run(leg, on, at=at)
    story.tell(
        "intent.in_progress",
        actor=closed.answered_by,
        leg_id=leg.id,
        wait_id=closed.id,
        outcome=closed.outcome,
        comment=closed.comment,
    )
    return story.change(
        waits=((record.wait, closed),), legs=((leg, queued),), outbox=(leg_delivery(queued, on.new_id(), at),)
    )


def _expire(record: WaitRecord, cause: str, on: Occasion) -> Change:
    on_timeout = record.wait.request.get("on_timeout", "fail")
    outcome = cause if on_timeout == "fail" else on_timeout
    closed = _closed(record.wait, WaitStatus.EXPIRED, on.now, outcome=outcome, answered_by="clock")
    change = _resume(record, closed, at=on.now, on=on)
    return replace(change, outbox=(*change.outbox, *_cancel_children([record.wait], "clock", on)))


def _closed(
    wait: Wait,
    status: WaitStatus,
    now: datetime,
    *,
    outcome: str | None,
    answered_by: str | None,
    comment: str | None = None,
    data: str | None = None,
) -> Wait:
    return replace(
        wait,
        status=status,
        outcome=outcome,
        answered_by=answered_by,
        comment=comment,
        data=data,
        closed_at=now,
        due_at=None,
    )


def _next_run(leg: Leg, on: Occasion, *, at: datetime | None = None, **fields: object) -> Leg:
    queued = replace(leg, status=LegStatus.QUEUED, run=leg.run + 1, resends=0, **fields)  # type: ignore[arg-type]
    return replace(queued, due_at=(at or on.now) + on.requeue)


def _must_be_open(wait: Wait) -> None:
    if wait.status is not WaitStatus.OPEN:
        raise WaitClosed(wait.id, wait.status.value, wait.closed_at, wait.answered_by)


def _tell_parent(intent: Intent, on: Occasion) -> list[Delivery]:
    if intent.parent_wait_id is None:
        return []
    body = {"wait_id": intent.parent_wait_id}
    return [Delivery(id=on.new_id(), kind=DeliveryKind.COMPLETION, intent_id=intent.id, body=body, next_at=on.now)]


def _cancel_children(waits: Sequence[Wait], by: str | None, on: Occasion) -> list[Delivery]:
    """Nobody waits for these child intents any more."""
    return [
        Delivery(
            id=on.new_id(), kind=DeliveryKind.CANCEL, intent_id=w.intent_id, next_at=on.now,
            body=_present(intent_id=w.job_id, reason=f"intent {w.intent_id} waits for it no longer", by=by),
        )
        for w in waits
        if w.kind is WaitKind.AGENT and w.job_id
    ]  # fmt: skip


def _result_delivery(leg: Leg, state: str, error: JsonDict, at: datetime, on: Occasion) -> Delivery:
    return Delivery(
        id=on.new_id(), kind=DeliveryKind.RESULT, intent_id=leg.intent_id, leg_id=leg.id, run=leg.run,
        body={"state": state, "error": error}, next_at=at, leg=leg,
    )  # fmt: skip


def _notice(intent: Intent, wait: Wait, kind: str, to: Sequence[str], on: Occasion) -> Delivery:
    return Delivery(
        id=on.new_id(), kind=DeliveryKind.NOTICE, intent_id=intent.id, leg_id=wait.leg_id, next_at=on.now,
        body=_present(
            kind=kind, wait_id=wait.id, to=list(to), title=wait.title, type=intent.type,
            number=wait.reminders or None, timeout_at=_text(wait.timeout_at), at=_text(on.now),
        ),
    )  # fmt: skip


def _dead(intent: Intent, kind: str, error: JsonDict, on: Occasion, *, leg_id: str | None = None) -> DeadLetter:
    return DeadLetter(
        id=on.new_id(), kind=kind, intent_id=intent.id, leg_id=leg_id, at=on.now,
        code=str(error["code"]), reason=str(error["message"]),
    )  # fmt: skip


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _present(**fields: object) -> JsonDict:
    return {k: v for k, v in fields.items() if v is not None and v != []}
