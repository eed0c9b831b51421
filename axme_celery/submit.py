"""Submit an intent, cancel it, and start one again from recorded work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from . import lifecycle
from .beats import announce, carry_out, occasion
from .errors import BadInput, IntentEnded, KeyConflict, NotFound, StaleChange
from .model import Change, DeadLetter, Intent, Leg, LegStatus, Status, Work
from .ports import Runtime


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


def submit(rt: Runtime, submissions: Sequence[Submission], connection: Any = None) -> list[Intent]:
    """Keep these intents, all or none, and return once they are in the ledger.

    A key that is known already brings back its intent, if the work is the same. With ``connection`` they are
    written in the caller's transaction and start only if that commits.
    """
    decided: list[tuple[Intent, Change | None]] = []

    def decide() -> list[Change]:
        decided[:] = _decide_all(rt, submissions)
        return [change for _, change in decided if change is not None]

    if connection is not None:
        changes = rt.ledger.commit(*decide(), connection=connection)
        rt.relay.send_if_committed([d.id for change in changes for d in change.outbox])
    else:
        changes = carry_out(rt, decide)
    written = {change.intent.id: change.intent for change in changes if change.intent is not None}
    return [written.get(intent.id, intent) for intent, _ in decided]


def _decide_all(rt: Runtime, submissions: Sequence[Submission]) -> list[tuple[Intent, Change | None]]:
    on = occasion(rt)
    made: dict[str, Intent] = {}
    decided: list[tuple[Intent, Change | None]] = []
    for submission in submissions:
        key = submission.key
        known = None if key is None else made.get(key) or rt.ledger.intent_by_key(key)
        if known is not None:
            if known.work_hash != submission.work.work_hash:
                raise KeyConflict(known.key or "", known.id)
            decided.append((known, None))
            continue
        namesake = rt.ledger.leg_record(submission.work.leg_id, history=False) if submission.work.named else None
        if namesake is not None:
            if namesake.intent.work_hash != submission.work.work_hash:
                raise KeyConflict(submission.work.leg_id, namesake.intent.id)
            decided.append((namesake.intent, None))
            continue
        change = _new(rt, submission, on)
        assert change.intent is not None
        if key is not None:
            made[key] = change.intent
        decided.append((change.intent, change))
    return decided


def _new(rt: Runtime, submission: Submission, on: lifecycle.Occasion) -> Change:
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
        notify=submission.notify,
        tags=submission.tags,
        parent_wait_id=submission.parent_wait_id,
    )
    return lifecycle.submit(intent, new_leg(work, intent.id, on.now), start_at=work.start_at, on=on)


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
    )


def child_change(rt: Runtime, submission: Submission, on: lifecycle.Occasion) -> Change:
    """The change that makes a child intent, to be committed together with its parent's wait."""
    return _new(rt, submission, on)


def cancel(rt: Runtime, intent_id: str, *, reason: str, by: str | None) -> Intent:
    """End an intent as CANCELED. What runs of it is stopped at its next checkpoint.

    Raises IntentEnded when it has ended already, NotFound when there is none.
    """

    def decide() -> Sequence[Change]:
        intent = _known(rt, intent_id)
        return [
            lifecycle.cancel(
                intent, rt.ledger.legs(intent_id), rt.ledger.waits(intent_id), reason=reason, by=by, on=occasion(rt)
            )
        ]

    return _intent_of(carry_out(rt, decide))


def replay(rt: Runtime, id: str, *, by: str | None) -> Intent:
    """Start a dead letter (or an intent that failed, timed out or was canceled) again as a new intent.

    The new one starts from the finished steps and answered waits of the old one.
    Raises NotFound, IntentEnded for a completed one, BadInput for one that is still open.
    """
    letter = rt.ledger.dead_letter(id)
    if letter is not None and letter.kind == "delivery":
        raise BadInput(
            f"dead letter {id} is of a delivery that could not be sent ({letter.code}), not of work that could not go on; "
            f"discard it, or replay its intent {letter.intent_id} by that id if it has failed too"
        )
    intent = _known(rt, letter.intent_id if letter is not None else id)
    if intent.status is Status.COMPLETED:
        raise IntentEnded(intent.id, intent.status.value, intent.ended_at)
    if not intent.status.is_final:
        raise BadInput(f"intent {intent.id} is still {intent.status.value}; cancel it first, or unpark its leg")
    letters = [letter] if letter is not None else _open_letters(rt, intent.id)
    return _repeat(rt, intent, upto="failed", by=by, letters=[x for x in letters if x.state == "OPEN"])


def fork(rt: Runtime, intent_id: str, *, before: str, by: str | None) -> Intent:
    """A new intent with the recorded work of another up to (not including) a step or wait.

    before: a step's name, or "name#2" for its second call; also a wait's ("wait_for_human#1").
    Raises NotFound when nothing of that name was recorded.
    """
    return _repeat(rt, _known(rt, intent_id), upto=before, by=by, letters=[])


def discard(rt: Runtime, dead_letter_id: str, *, by: str | None) -> None:
    """Close a dead letter without replaying it."""
    letter = rt.ledger.dead_letter(dead_letter_id)
    if letter is None:
        raise NotFound("dead letter", dead_letter_id)
    try:
        rt.ledger.commit(Change(closes=((letter.id, "DISCARDED", None, by),)))
    except StaleChange:
        raise BadInput(f"dead letter {letter.id} was already {letter.state.lower()} by {letter.closed_by}") from None


def unpark(rt: Runtime, intent_id: str, *, accept_drift: bool, by: str) -> Intent:
    """Let the parked legs of an intent go on: with the code as it is now, or after a roll-back.

    Raises BadInput when none of its legs is parked.
    """

    def decide() -> Sequence[Change]:
        intent = _known(rt, intent_id)
        parked = [leg for leg in rt.ledger.legs(intent_id) if leg.status is LegStatus.PARKED]
        if intent.status.is_final:
            raise IntentEnded(intent.id, intent.status.value, intent.ended_at)
        if not parked:
            raise BadInput(f"no leg of intent {intent_id} is parked; it is {intent.status.value}")
        change = lifecycle.unpark(intent, parked[0], accept_drift=accept_drift, by=by, on=occasion(rt))
        letters = [x for x in _open_letters(rt, intent_id) if x.leg_id == parked[0].id]
        return [replace(change, closes=tuple((x.id, "REPLAYED", intent_id, by) for x in letters))]

    return _intent_of(carry_out(rt, decide))


def _repeat(rt: Runtime, old: Intent, *, upto: str, by: str | None, letters: Sequence[DeadLetter]) -> Intent:
    leg = rt.ledger.legs(old.id)[0]
    checkpoints, waits = rt.ledger.checkpoints(old.id), rt.ledger.waits(old.id)
    if upto == "failed":
        position = lifecycle.replay_from(checkpoints, waits)
    else:
        name, _, call = upto.partition("#")
        nth = int(call) if call.isdigit() else 1
        places = {(e.name, e.nth): e.position for e in checkpoints} | {(w.name, w.nth): w.position for w in waits}
        if (name, nth) not in places:
            known = ", ".join(f"{n}#{k}" for n, k in sorted(places, key=places.__getitem__)) or "nothing"
            raise NotFound(f"step or wait {upto!r} in intent {old.id} (recorded: {known});", upto)
        position = places[name, nth]

    on = occasion(rt)
    intent_id, leg_id = rt.new_id(), rt.new_id()
    signature = {**leg.signature, "options": {**leg.signature.get("options", {}), "task_id": leg_id}}
    span = None if old.deadline_at is None else old.deadline_at - old.created_at
    intent = replace(
        old,
        id=intent_id, key=None, status=Status.CREATED, waiting_reason=None, seq=0, result=None, error=None,
        deadline_at=None if span is None else on.now + span, created_at=on.now, updated_at=on.now, ended_at=None,
        requester=by or old.requester, parent_wait_id=None, replay_of=old.id, head_hash="",
    )  # fmt: skip
    new = Leg(
        id=leg_id, intent_id=intent_id, task=leg.task, signature=signature, max_attempts=leg.max_attempts,
        on_drift=leg.on_drift, created_at=on.now,
    )  # fmt: skip
    change = lifecycle.repeat(intent, new, checkpoints, waits, upto=position, on=on)
    change = replace(change, closes=tuple((x.id, "REPLAYED", intent_id, by) for x in letters))
    try:
        (change,) = rt.ledger.commit(change)
    except StaleChange:
        raise BadInput(
            f"the dead letter of intent {old.id} was replayed or discarded by someone else meanwhile"
        ) from None
    announce(rt, [change])
    assert change.intent is not None
    return change.intent


def _open_letters(rt: Runtime, intent_id: str) -> list[DeadLetter]:
    return [x for x in rt.ledger.dead_letters_of(intent_id) if x.state == "OPEN"]


def _known(rt: Runtime, intent_id: str) -> Intent:
    intent = rt.ledger.intent(intent_id)
    if intent is None:
        raise NotFound("intent", intent_id)
    return intent


def _intent_of(changes: Sequence[Change]) -> Intent:
    intent = changes[0].intent
    assert intent is not None
    return intent
