"""A wait's life: opened, reminded of, escalated, and closed once, by an answer or by time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from ..errors import NotAllowed, ShownChanged, WaitClosed
from ..model import (
    Change,
    Intent,
    JsonDict,
    Leg,
    LegStatus,
    Status,
    Wait,
    WaitKind,
    WaitRecord,
    WaitStatus,
)
from .gates import GATE, after_gate
from .moves import Occasion, Story
from .nudges import due, fall_back, may_fall_back, nudge
from .opening import opened, tell_opened
from .outgoing import (
    cancel_children,
    closed_wait,
    leg_delivery,
    present,
    result_delivery,
    success_delivery,
    text_of,
)
from .runs import next_run
from .shown import shown_hash
from .turns import Fallout, Rows, Turn, arrive, end, fall, take
from .voters import may_answer


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeEnd:
    """How a wait node ends once its wait has closed."""

    #: JSON text: what it passes on.
    result: str | None = None
    #: Why the pipeline ends here, if it does.
    error: JsonDict | None = None
    fallout: Fallout = field(default_factory=Fallout)
    #: What follows by the way that was taken.
    turns: tuple[Turn, ...] = ()
    #: Whether anything else of the intent goes on.
    busy: bool = False
    #: Whether all that it starts are messages. A wait, a callback, what comes after a join would begin too early.
    may_be_ahead: bool = False


#: The closed wait -> how its node ends. None for the wait of a running task.
Finish = Callable[[Wait], NodeEnd] | None


def _ended(finish: Finish, closed: Wait) -> NodeEnd | None:
    return None if finish is None else finish(closed)


def open_wait(
    intent: Intent, leg: Leg, wait: Wait, *, children: Sequence[Change] = (), busy: bool = False, on: Occasion
) -> tuple[Change, ...]:
    """The leg comes to rest on a wait.

    children: the intents that begin with it, an agent's first; written in the same transaction.
    busy:     whether anything else of the intent goes on; if so it is not WAITING yet.
    """
    wait = opened(intent, wait, on.now)
    resting = replace(leg, status=LegStatus.WAITING, attempts=leg.attempts - 1, has_history=True)
    story = Story(intent, on.now)
    outbox = tell_opened(story, leg, wait, rests=not busy, on=on)
    change = story.change(legs=((leg, resting),), waits=((None, wait),), outbox=outbox)
    return (change, *children)


def rest_again(intent: Intent, leg: Leg, wait: Wait, *, busy: bool = False, on: Occasion) -> Change:
    """A run came back to a wait that is still open (it was unparked, or handed on early): rest on it again."""
    resting = replace(leg, status=LegStatus.WAITING, attempts=leg.attempts - 1)
    if busy or intent.status is Status.WAITING:
        return Change(legs=((leg, resting),))
    story = Story(intent, on.now)
    story.tell("intent.waiting", leg_id=leg.id, waiting_reason=wait.kind.waiting_reason, wait_id=wait.id)
    return story.change(legs=((leg, resting),))


def answer(
    record: WaitRecord,
    *,
    outcome: str | None,
    by: str | None,
    comment: str | None = None,
    data: str | None = None,
    names: Collection[str] | None = None,
    expected_hash: str | None = None,
    via: str | None = None,
    finish: Finish = None,
    on: Occasion,
) -> Change:
    """An answer from outside: it closes the wait and the leg runs on, or it is one vote of several.

    outcome:       a person's choice; tools and agents answer with "completed" or "failed".
    names:         the person's id and groups; None where the caller vouches for them.
    expected_hash: of what the person was shown.
    via:           how they proved who they are.

    Raises WaitClosed for a closed wait, NotAllowed for a person who may not or already did, ShownChanged.
    """
    wait = record.wait
    _must_be_open(wait)
    if wait.kind is WaitKind.HUMAN:
        refusal = may_answer(wait, names, by or "")
        if refusal is not None:
            raise NotAllowed(refusal.reason, refusal.code)
        _shown_as_opened(record, expected_hash)
        vote = present(by=by, outcome=outcome, comment=comment, at=text_of(on.now))
        wait = replace(wait, votes=(*wait.votes, vote))
        quorum = int(wait.request.get("quorum", 1))
        agreeing = sum(1 for v in wait.votes if v["outcome"] == outcome)
        # A quorum is asked of the first outcome, the one that says yes; any other closes at once, unless it needs one too.
        counted = outcome == wait.request["outcomes"][0] or wait.request.get("reject_policy") == "quorum"
        if counted and agreeing < quorum:
            story = Story(record.intent, on.now)
            story.tell(
                "intent.voted", actor=by, leg_id=wait.leg_id, wait_id=wait.id, outcome=outcome, comment=comment,
                votes=agreeing, quorum=quorum, payload_hash=wait.payload_hash, via=via,
            )  # fmt: skip
            return story.change(waits=((record.wait, wait),))
    closed = closed_wait(wait, WaitStatus.ANSWERED, on.now, outcome=outcome, answered_by=by, comment=comment, data=data)
    return _resume(record, closed, _ended(finish, closed), at=on.now, on=on, via=via)


def fire(record: WaitRecord, *, ahead: timedelta, finish: Finish = None, on: Occasion) -> Change | None:
    """What a wait's moments ask for now: wake up, time out, escalate, remind, poll; or nothing (None).

    ``ahead``: a ``wait_for_time`` may be closed this much early where all that it starts are messages, for those still
    leave at the very moment.
    """
    wait = record.wait
    if not _may_fire(record):
        return None
    closed = closed_by_time(record, ahead=ahead, on=on)
    if closed is not None and closed.kind is WaitKind.TIME:
        wakes_at, ended = wait.timeout_at or on.now, _ended(finish, closed)
        if wakes_at > on.now and ended is not None and not ended.may_be_ahead:
            return None
        return _resume(record, closed, ended, at=wakes_at, on=on)
    if closed is not None:
        change = _resume(record, closed, _ended(finish, closed), at=on.now, on=on)
        return replace(change, outbox=(*change.outbox, *cancel_children([wait], "clock", on)))
    if wait.timeout_at is not None and wait.timeout_at <= on.now:
        return fall_back(record, on=on)
    return nudge(record, on)


def closed_by_time(record: WaitRecord, *, ahead: timedelta, on: Occasion) -> Wait | None:
    """The wait as ``fire`` closes it now; None where that leaves it open, or finds it closed."""
    wait = record.wait
    if not _may_fire(record):
        return None
    if wait.kind is WaitKind.TIME:
        if wait.timeout_at is None or wait.timeout_at > on.now + ahead:
            return None
        return closed_wait(wait, WaitStatus.ANSWERED, max(on.now, wait.timeout_at), outcome="woke", answered_by="clock")
    if wait.timeout_at is not None and wait.timeout_at <= on.now:
        return None if may_fall_back(wait) else _expired(wait, "timeout", on)
    if wait.heartbeat_at is not None and wait.heartbeat_at <= on.now:
        return _expired(wait, "heartbeat_missed", on)
    return None


def _may_fire(record: WaitRecord) -> bool:
    return record.wait.status is WaitStatus.OPEN and not record.intent.status.is_final


def _expired(wait: Wait, cause: str, on: Occasion) -> Wait:
    on_timeout = wait.request.get("on_timeout", "fail")
    outcome = cause if on_timeout in ("fail", "detour") else on_timeout
    return closed_wait(wait, WaitStatus.EXPIRED, on.now, outcome=outcome, answered_by="clock")


def heartbeat(wait: Wait, *, on: Occasion) -> Change:
    """The tool is alive: put off the moment it is presumed dead. No event: this may come every second."""
    _must_be_open(wait)
    silence = wait.request.get("heartbeat_seconds")
    if silence is None:
        return Change()
    later = replace(wait, heartbeat_at=on.now + timedelta(seconds=silence))
    return Change(waits=((wait, replace(later, due_at=due(later))),), durable=False)


def _resume(
    record: WaitRecord, closed: Wait, node: NodeEnd | None, *, at: datetime, on: Occasion, via: str | None = None
) -> Change:
    """The wait has closed: the leg is queued as its next run, its message leaving at ``at``."""
    gated = after_gate(record.intent, record.leg, record.wait, closed, on=on) if closed.name == GATE else None
    if gated is not None:
        return gated
    story = Story(record.intent, on.now)
    if closed.status is WaitStatus.EXPIRED:
        story.tell("intent.timeout", actor="clock", leg_id=closed.leg_id, wait_id=closed.id, outcome=closed.outcome)
    leg = record.leg
    if node is not None:
        return _end_node(story, record, closed, node, via=via, at=at, on=on)
    if leg.status is not LegStatus.WAITING:
        # Parked: the closed wait is found when the leg runs next.
        story.tell(
            "intent.wait_closed", actor=closed.answered_by, leg_id=leg.id, wait_id=closed.id, outcome=closed.outcome,
            comment=closed.comment, payload_hash=closed.payload_hash, via=via,
        )  # fmt: skip
        return story.change(waits=((record.wait, closed),))
    queued = next_run(leg, on, at=at)
    # Where other legs run, the intent is in progress already.
    goes_on = record.intent.status is Status.IN_PROGRESS
    story.tell(
        "intent.wait_closed" if goes_on else "intent.in_progress",
        actor=closed.answered_by,
        leg_id=leg.id,
        wait_id=closed.id,
        outcome=closed.outcome,
        comment=closed.comment,
        payload_hash=closed.payload_hash,
        via=via,
    )
    return story.change(
        waits=((record.wait, closed),), legs=((leg, queued),), outbox=(leg_delivery(queued, on.new_id(), at),)
    )


def _end_node(
    story: Story, record: WaitRecord, closed: Wait, ended: NodeEnd, *, via: str | None, at: datetime, on: Occasion
) -> Change:
    """A wait node's wait has closed: the node is DONE, and what follows starts at ``at``; or the pipeline ends here."""
    rows, leg = Rows(waits=[(record.wait, closed)]), record.leg
    told = {
        "actor": closed.answered_by, "leg_id": leg.id, "wait_id": closed.id, "outcome": closed.outcome,
        "comment": closed.comment, "payload_hash": closed.payload_hash, "via": via,
    }  # fmt: skip
    if ended.error is not None:
        failed = replace(leg, status=LegStatus.FAILED, error=ended.error, ended_at=on.now)
        rows.legs.append((leg, failed))
        story.tell("intent.wait_closed", **told)
        fall(story, rows, failed, ended.error, ended.fallout, on=on)
        rows.outbox.append(result_delivery(failed, "FAILURE", ended.error, on.now, on))
        return rows.change(story)
    done = replace(leg, status=LegStatus.DONE, result=ended.result, ended_at=on.now)
    rows.legs.append((leg, done))
    rows.outbox.append(success_delivery(done, on))
    is_last = leg.is_last
    starts = story.intent.status is not Status.IN_PROGRESS and (is_last or any(t.wait is None for t in ended.turns))
    story.tell("intent.in_progress" if starts else "intent.wait_closed", **told)
    if ended.turns:
        take(story, rows, ended.turns, at=at, busy=ended.busy, on=on)
    elif is_last:
        end(story, rows, ended.result or "null", leg=done, on=on)
    else:
        arrive(story, rows, leg)
    return rows.change(story)


def _shown_as_opened(record: WaitRecord, expected: str | None) -> None:
    """What was approved is what runs: what the wait shows must be what it was opened with, and what the person saw."""
    wait = record.wait
    current = shown_hash(wait.title, wait.request, record.intent.payload)
    if expected is not None and expected != current:
        raise ShownChanged(wait.id, expected, current)
    if wait.payload_hash is not None and wait.payload_hash != current:
        raise ShownChanged(wait.id, None, current)


def _must_be_open(wait: Wait) -> None:
    if wait.status is not WaitStatus.OPEN:
        raise WaitClosed(wait.id, wait.status.value, wait.closed_at, wait.answered_by)
