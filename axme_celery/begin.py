"""Begin: new intents, and the legs of a pipeline whose turn has come.

What is begun here is only decided; the verb that asked for it commits it with its own change.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from . import lifecycle
from .errors import BadInput
from .lifecycle import Fallout, Turn
from .model import Change, Intent, JsonDict, Leg, Status, Wait, WaitKind, Work
from .parties import is_address
from .ports import Runtime

log = logging.getLogger(__name__)

#: Legs that are started in one commit; a join starts more in several.
BATCH = 500


@dataclass(frozen=True, kw_only=True)
class Submission:
    """One thing to submit: the work and what is said of it."""

    work: Work
    key: str | None = None
    type: str | None = None
    #: JSON text; None: the work's own arguments.
    payload: str | None = None
    deadline_seconds: float | None = None
    notify: str | None = None
    reply_to: str | None = None
    requester: str | None = None
    correlation_id: str | None = None
    tags: tuple[str, ...] = ()
    parent_wait_id: str | None = None
    owner: str | None = None
    from_agent: str | None = None
    to_agent: str | None = None
    terms: JsonDict | None = None
    trace: JsonDict | None = None
    #: A human task to be answered before anything runs.
    gate: Gate | None = None


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A person's yes that stands before an intent's first leg."""

    title: str
    to: tuple[str, ...]
    request: JsonDict


def new_intent(rt: Runtime, submission: Submission, on: lifecycle.Occasion) -> tuple[Change, ...]:
    """The change that makes this intent, and those of the intents that begin with it: agents' of a pipeline's first nodes.

    To be committed together, and with what asks for it.
    """
    work = submission.work
    seconds = submission.deadline_seconds if submission.deadline_seconds is not None else work.deadline_seconds
    intent = Intent(
        id=rt.new_id(),
        type=submission.type or work.type or work.task,
        status=Status.CREATED,
        key=submission.key,
        work_hash=work.work_hash,
        payload=submission.payload if submission.payload is not None else work.payload,
        deadline_at=None if seconds is None else on.now + timedelta(seconds=seconds),
        created_at=on.now,
        updated_at=on.now,
        requester=submission.requester,
        correlation_id=submission.correlation_id,
        reply_to=submission.reply_to,
        notify=submission.notify or work.notify,
        tags=submission.tags,
        parent_wait_id=submission.parent_wait_id,
        owner=submission.owner,
        from_agent=submission.from_agent,
        to_agent=submission.to_agent or (work.task if is_address(work.task) else None),
        terms=submission.terms,
        threaded=submission.reply_to is not None or submission.to_agent is not None or is_address(work.task),
        trace=submission.trace,
    )
    if work.legs:
        if submission.gate is not None:
            raise BadInput("a pipeline cannot stand behind a human task; put wait_for_human.s(...) at its head")
        return _new_pipeline(rt, intent, work, on)
    change = lifecycle.submit(intent, new_leg(work, intent.id, on.now), start_at=work.start_at, on=on)
    return (change if submission.gate is None else gated(rt, submission.gate, change, on),)


def _new_pipeline(rt: Runtime, intent: Intent, work: Work, on: lifecycle.Occasion) -> tuple[Change, ...]:
    legs = [replace(leg, intent_id=intent.id, created_at=on.now) for leg in work.legs]
    joins = [replace(join, intent_id=intent.id) for join in work.joins]
    first = [turn(rt, intent, leg, None, None, on) for leg in legs if leg.after is None]
    return tuple(with_children(lifecycle.submit_plan(intent, legs, joins, first, on=on), first))


def gated(rt: Runtime, gate: Gate, change: Change, on: lifecycle.Occasion) -> Change:
    """The same intent, resting on a person's answer before its first leg."""
    leg = change.legs[0][1]
    wait = lifecycle.with_moments(
        Wait(
            id=rt.new_id(), intent_id=leg.intent_id, leg_id=leg.id, name=lifecycle.GATE, nth=1, position=-1, run=0,
            kind=WaitKind.HUMAN, title=gate.title, request=gate.request, to=gate.to, opened_at=on.now,
        )
    )  # fmt: skip
    return lifecycle.gated(change, replace(wait, due_at=lifecycle.due(wait)), on=on)


def new_leg(work: Work, intent_id: str, now: datetime) -> Leg:
    """The leg this work becomes."""
    return Leg(
        id=work.leg_id,
        intent_id=intent_id,
        task=work.task,
        signature=work.signature,
        max_attempts=work.max_attempts,
        on_drift=work.on_drift,
        created_at=now,
        in_chord=work.in_chord,
    )


# -- the legs of a pipeline ------------------------------------------------------------


def turns(
    rt: Runtime,
    intent: Intent,
    after: str,
    result: str,
    *,
    parent_id: str | None,
    way: str = "",
    limit: int = BATCH,
    followers: Sequence[Leg] | None = None,
    on: lifecycle.Occasion,
) -> list[Turn]:
    """The legs that follow this leg or join, with what each takes.

    result:    JSON text of what it gives.
    parent_id: the leg that Celery would have sent them.
    way:       which way out of a wait was taken.
    followers: what the ledger says follows, whatever the way, where that was read already.
    """
    found = rt.ledger.following(after, limit) if followers is None else followers
    legs = [leg for leg in found if leg.turn == way]
    value = rt.codec.decode(result) if any(leg.plan.get("takes") for leg in legs) else None
    return [turn(rt, intent, leg, value, parent_id, on) for leg in legs]


def turn(rt: Runtime, intent: Intent, leg: Leg, value: Any, parent_id: str | None, on: lifecycle.Occasion) -> Turn:
    """The leg with what it takes; a wait node with the wait that it opens, or why it cannot."""
    if not leg.plan.get("waits"):
        return Turn(leg=leg, value=value, parent_id=parent_id)
    try:
        wait, children = rt.open_node(intent, leg, value, on)
    except BadInput as refused:
        error = {"code": "bad_wait", "message": f"{leg.task} at {leg.node or 'the top'} cannot be opened: {refused}"}
        return Turn(leg=leg, value=value, refused=error, fallout=fallout(rt, intent, leg, on))
    return Turn(leg=leg, value=value, wait=wait, children=tuple(children))


def with_children(change: Change, turns: Sequence[Turn], children: Sequence[Change] = ()) -> list[Change]:
    """A change together with the intents that begin with it: agents' of these turns, callbacks and errbacks."""
    refused = [turn.fallout for turn in turns if turn.refused is not None][:1]
    agents = [] if refused else [child for turn in turns for child in turn.children]
    return [change, *agents, *(child for one in refused for child in one.children), *children]


def fallout(rt: Runtime, intent: Intent, leg: Leg, on: lifecycle.Occasion) -> Fallout:
    """What falls with this leg: waits beside it, its errbacks, and those of the chords it would have come to."""
    children = [
        one for errback in leg.plan.get("link_error", ()) for one in _called(rt, intent, leg, errback, leg.id, on)
    ]
    called: list[str] = []
    within = leg.within
    while within is not None:
        for body in rt.ledger.following(within, BATCH):
            for errback in body.plan.get("link_error", ()):
                children += _called(rt, intent, body, errback, body.id, on)
            if (body.signature.get("options") or {}).get("link_error"):
                called.append(body.id)
        record = rt.ledger.join_record(within)
        within = None if record is None else record.join.within
    waits = () if leg.is_last else falling_waits(rt, intent)
    return Fallout(waits=waits, children=tuple(children), called=tuple(called))


def falling_waits(rt: Runtime, intent: Intent) -> tuple[Wait, ...]:
    """The open waits that fall with the intent's work. Those of legs that its tasks called do not: what was called goes on."""
    waits = tuple(rt.ledger.open_waits(intent.id))
    if waits and intent.called_open:
        theirs = {one.id for one in rt.ledger.legs(intent.id) if one.called_by is not None}
        waits = tuple(wait for wait in waits if wait.leg_id not in theirs)
    return waits


def callbacks(rt: Runtime, intent: Intent, leg: Leg, result: str, on: lifecycle.Occasion) -> list[Change]:
    """A leg's callbacks, as intents of their own that begin with its end."""
    links = leg.plan.get("link", ())
    if not links:
        return []
    value = rt.codec.decode(result)
    return [one for link in links for one in _called(rt, intent, leg, link, value, on)]


def _called(
    rt: Runtime, intent: Intent, leg: Leg, signature: JsonDict, value: Any, on: lifecycle.Occasion
) -> tuple[Change, ...]:
    """A leg's callback or errback as an intent: called with the value, unless it is immutable."""
    args = list(signature.get("args") or ())
    called = signature if signature.get("immutable") else {**signature, "args": [value, *args]}
    try:
        work = rt.read_called(called)
    except (BadInput, TypeError) as refused:
        # It was checked when the pipeline was submitted; what has changed since must not hold up the rest.
        log.error("callback %s of intent %s is not called: %s", signature.get("task"), intent.id, refused)
        reason = f"callback {signature.get('task')} of leg {leg.id} is not called: {refused}"
        return (lifecycle.not_called(intent, leg, {"code": "callback_refused", "message": reason}, on=on),)
    submission = Submission(
        work=work, requester=f"intent:{intent.id}", correlation_id=intent.correlation_id, tags=intent.tags,
        owner=intent.owner, trace=intent.trace,
    )  # fmt: skip
    return new_intent(rt, submission, on)
