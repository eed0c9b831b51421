"""Submit an intent, cancel it, and start one again from recorded work."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from . import again, lifecycle
from .beats import announce, occasion
from .begin import Gate as Gate
from .begin import Submission as Submission
from .begin import gated, new_intent
from .errors import BadInput, IntentEnded, KeyConflict, LedgerUnavailable, NotFound, StaleChange
from .model import (
    Change,
    Checkpoint,
    DeadLetter,
    Delivery,
    Intent,
    Leg,
    LegStatus,
    Status,
    Wait,
)
from .onward import carry_out
from .ports import Runtime
from .recorded import cut_before, is_pipeline, recorded_of
from .texts import line, text

#: How often a submission in the caller's own transaction is decided anew.
TRIES_WITHIN = 3
#: Names of recorded steps that a refusal lists; of more, the nearest to what was asked for.
MOST_NAMES = 20
#: A caller that sends its message itself has this long to do so; then the outbox does.
CALLER_SENDS = timedelta(seconds=10)
#: Options of a signature that one life of an intent used up: how often it was retried, when its message was too old.
_OF_ONE_LIFE = frozenset({"retries", "expires"})


def submit(rt: Runtime, submissions: Sequence[Submission], connection: Any = None) -> list[Intent]:
    """Keep these intents, all or none, and return once they are in the ledger.

    A key that is known already brings back its intent, if the work is the same. With ``connection`` they are
    written in the caller's transaction and start only if that commits.
    """
    decided: list[tuple[Intent, Sequence[Change]]] = []

    def decide() -> list[Change]:
        decided[:] = _decide_all(rt, submissions, connection)
        return [change for _, changes in decided for change in changes]

    if connection is not None:
        changes = _within(rt, decide, connection)
        rt.relay.send_if_committed([d.id for change in changes for d in change.outbox])
    else:
        changes = carry_out(rt, decide)
    written = {change.intent.id: change.intent for change in changes if change.intent is not None}
    return [written.get(intent.id, intent) for intent, _ in decided]


@dataclass(frozen=True)
class KeptCall:
    """A call that is an intent now."""

    intent: Intent
    #: The outbox row of its message, which the caller is to send itself, now, and then to remove; should it die before,
    #: the outbox sends it. None when there is nothing to send: the call is known already, or starts much later.
    row: Delivery | None


def keep_call(rt: Runtime, submission: Submission) -> KeptCall:
    """Keep the intent of a call whose caller sends the message itself.

    A call that starts later than ``axme_eta_threshold_seconds`` from now is kept as a timer, and has no message yet.
    Raises KeyConflict when its task id is that of another call, LedgerUnavailable when it cannot be kept.
    """
    kept: list[KeptCall] = []

    def decide() -> Sequence[Change]:
        ((intent, changes),) = _decide_all(rt, [submission])
        kept[:] = [KeptCall(intent, None)]
        if not changes:
            return ()
        # Of a single task: nothing else begins with it.
        on, (change,) = occasion(rt), changes
        start_at = submission.work.start_at or on.now
        if start_at - on.now <= timedelta(seconds=rt.settings.eta_threshold_seconds):
            sent_by = max(on.now + CALLER_SENDS, start_at)
            change = replace(change, outbox=tuple(replace(row, next_at=sent_by) for row in change.outbox))
            kept[:] = [KeptCall(intent, change.outbox[0])]
        return [change]

    carry_out(rt, decide)
    return kept[0]


def _within(rt: Runtime, decide: Callable[[], list[Change]], connection: Any) -> tuple[Change, ...]:
    """Write in the caller's transaction; decide again when another one has just taken a key, as far as this one sees."""
    for _ in range(TRIES_WITHIN):
        try:
            return rt.ledger.commit(*decide(), connection=connection)
        except StaleChange:
            continue
    raise LedgerUnavailable(
        "another transaction has just submitted under the same key, and yours cannot see it; roll back and try again"
    )


def _decide_all(
    rt: Runtime, submissions: Sequence[Submission], connection: Any = None
) -> list[tuple[Intent, Sequence[Change]]]:
    """Each one's intent, and what makes it; nothing for one that is known already."""
    on = occasion(rt)
    made: dict[str, Intent] = {}
    made_legs: dict[str, Intent] = {}
    decided: list[tuple[Intent, Sequence[Change]]] = []
    for submission in submissions:
        key = submission.key
        known = None if key is None else made.get(key) or rt.ledger.intent_by_key(key, connection)
        if known is not None:
            if known.work_hash != submission.work.work_hash:
                raise KeyConflict(known.key or "", known.id)
            decided.append((known, ()))
            continue
        leg_id = submission.work.leg_id
        namesake = made_legs.get(leg_id)
        if namesake is None and submission.work.named:
            namesake = rt.ledger.intent_of_leg(leg_id, connection)
        if namesake is not None:
            if namesake.work_hash != submission.work.work_hash:
                raise KeyConflict(leg_id, namesake.id)
            decided.append((namesake, ()))
            continue
        changes = new_intent(rt, submission, on)
        intent = changes[0].intent
        assert intent is not None
        made_legs[leg_id] = intent
        if key is not None:
            made[key] = intent
        decided.append((intent, changes))
    return decided


def cancel(rt: Runtime, intent_id: str, *, reason: str, by: str | None) -> Intent:
    """End an intent as CANCELED. What runs of it is stopped at its next checkpoint.

    Raises IntentEnded when it has ended already, NotFound when there is none.
    """
    text(reason, "reason", longest=2000)
    _who(by)

    def decide() -> Sequence[Change]:
        intent = _known(rt, intent_id)
        return [
            lifecycle.cancel(
                intent, rt.ledger.legs(intent_id, 2), rt.ledger.waits(intent_id), reason=reason, by=by, on=occasion(rt)
            )
        ]

    return _intent_of(carry_out(rt, decide))


def replay(rt: Runtime, id: str, *, by: str | None, reason: str | None = None) -> Intent:
    """Start a dead letter (or an intent that failed, timed out or was canceled) again as a new intent.

    The new one starts from the finished steps and answered waits of the old one.
    Raises NotFound, IntentEnded for a completed one, BadInput for one that is still open or was replayed already.
    """
    _who(by)
    letter = rt.ledger.dead_letter(id)
    if letter is not None and letter.kind == "delivery":
        raise BadInput(
            f"dead letter {id} is of a delivery that could not be sent ({letter.code}), not of work that could not go on; "
            f"send it again with `deliveries redeliver` if it is a webhook, or discard it; "
            f"replay its intent {letter.intent_id} by that id if it has failed too"
        )
    intent = _known(rt, letter.intent_id if letter is not None else id)
    called = None if letter is None or letter.leg_id is None else rt.ledger.leg_record(letter.leg_id, history=False)
    if letter is not None and called is not None and called.leg.called_by is not None:
        return _repeat_called(rt, intent, called.leg, letter, by=by, reason=reason)
    if intent.status is Status.COMPLETED:
        hint = "only what did not complete is replayed; fork it to have its work, or a part of it, done anew"
        raise IntentEnded(intent.id, intent.status.value, intent.ended_at, hint)
    if not intent.status.is_final:
        raise BadInput(f"intent {intent.id} is still {intent.status.value}; cancel it first, or unpark its leg")
    letters = [letter] if letter is not None else rt.ledger.dead_letters_of(intent.id)
    done = next((x for x in letters if x.state == "REPLAYED" and x.replayed_as != intent.id), None)
    if done is not None:
        raise BadInput(
            f"dead letter {done.id} of intent {intent.id} was already replayed by {done.closed_by}, as intent "
            f"{done.replayed_as}; fork the intent if its work is to be done once more"
        )
    return _repeat(rt, intent, before=None, by=by, reason=reason, letters=[x for x in letters if x.state == "OPEN"])


def fork(rt: Runtime, intent_id: str, *, before: str, by: str | None, reason: str | None = None) -> Intent:
    """A new intent with the recorded work of another up to (not including) a step or wait.

    before: a step's name, or "name#2" for its second call; also a wait's ("wait_for_human#1"), or a leg's id.
    Raises NotFound when nothing of that name was recorded.
    """
    _who(by)
    return _repeat(rt, _known(rt, intent_id), before=before, by=by, reason=reason, letters=[])


def discard(rt: Runtime, dead_letter_id: str, *, by: str | None, reason: str | None = None) -> None:
    """Close a dead letter without replaying it."""
    _who(by)
    letter = rt.ledger.dead_letter(dead_letter_id)
    if letter is None:
        raise NotFound("dead letter", dead_letter_id)
    try:
        rt.ledger.commit(Change(closes=((letter.id, "DISCARDED", None, by, _why(reason)),)))
    except StaleChange:
        raise BadInput(f"dead letter {letter.id} was already {letter.state.lower()} by {letter.closed_by}") from None


def unpark(rt: Runtime, intent_id: str, *, accept_drift: bool, by: str, reason: str | None = None) -> Intent:
    """Let the parked legs of an intent go on: with the code as it is now, or after a roll-back.

    Raises BadInput when none of its legs is parked.
    """
    _who(by)
    done: list[Intent] = []

    def decide() -> Sequence[Change]:
        intent = _known(rt, intent_id)
        parked = [leg for leg in rt.ledger.legs(intent_id) if leg.status is LegStatus.PARKED]
        # What was let go on may already have come to its end.
        if done and (intent.status.is_final or not parked):
            return ()
        if intent.status.is_final:
            raise IntentEnded(intent.id, intent.status.value, intent.ended_at)
        if not parked:
            raise BadInput(f"no leg of intent {intent_id} is parked; it is {intent.status.value}")
        change = lifecycle.unpark(
            intent, parked[0], accept_drift=accept_drift, by=by, reason=_why(reason), on=occasion(rt)
        )
        letters = [x for x in _open_letters(rt, intent_id) if x.leg_id == parked[0].id]
        return [replace(change, closes=tuple((x.id, "REPLAYED", intent_id, by, _why(reason)) for x in letters))]

    # One by one: each is a line in the intent's history.
    while changes := carry_out(rt, decide):
        done.append(_intent_of(changes))
    return done[-1]


def _repeat(
    rt: Runtime,
    old: Intent,
    *,
    before: str | None,
    by: str | None,
    reason: str | None,
    letters: Sequence[DeadLetter],
) -> Intent:
    on, intent_id = occasion(rt), rt.new_id()
    span = None if old.deadline_at is None else old.deadline_at - old.created_at
    intent = replace(
        old,
        id=intent_id, key=None, status=Status.CREATED, waiting_reason=None, seq=0, result=None, error=None,
        deadline_at=None if span is None else on.now + span, created_at=on.now, updated_at=on.now, ended_at=None,
        requester=by or old.requester, parent_wait_id=None, replay_of=old.id, handler=None, called_open=0, head_hash="",
    )  # fmt: skip
    # What these have called, they call again.
    legs = [leg for leg in rt.ledger.legs(old.id) if leg.called_by is None]
    if is_pipeline(legs):
        found = recorded_of(rt, old.id, legs)
        cut = None if before is None else cut_before(old, found, before)
        return again.repeat(rt, old, intent, found, cut, letters, by=by, reason=_why(reason))
    return _repeat_leg(rt, old, intent, legs[0], before=before, by=by, reason=reason, letters=letters, on=on)


def _repeat_called(
    rt: Runtime, old: Intent, leg: Leg, letter: DeadLetter, *, by: str | None, reason: str | None
) -> Intent:
    """A called leg that failed, as an intent of its own: the one it belonged to has its outcome, or will."""
    if letter.state != "OPEN":
        raise BadInput(f"dead letter {letter.id} was already {letter.state.lower()} by {letter.closed_by}")
    on, signature = occasion(rt), leg.signature
    payload = rt.codec.encode(
        {"task": leg.task, "args": signature.get("args"), "kwargs": signature.get("kwargs")}, what="payload",
        limit_bytes=8 * rt.settings.payload_bytes, setting="axme_payload_bytes",
    )  # fmt: skip
    intent = Intent(
        id=rt.new_id(), type=leg.task, status=Status.CREATED, payload=payload, created_at=on.now, updated_at=on.now,
        requester=by or old.requester, correlation_id=old.correlation_id, tags=old.tags, owner=old.owner, trace=old.trace,
        replay_of=old.id,
    )  # fmt: skip
    return _repeat_leg(rt, old, intent, leg, before=None, by=by, reason=reason, letters=[letter], on=on)


def _repeat_leg(
    rt: Runtime, old: Intent, intent: Intent, leg: Leg, *, before: str | None, by: str | None, reason: str | None,
    letters: Sequence[DeadLetter], on: lifecycle.Occasion,
) -> Intent:  # fmt: skip
    """This new intent, with what was recorded of one leg of an old one."""
    checkpoints = [one for one in rt.ledger.checkpoints(old.id) if one.leg_id == leg.id]
    waits = [one for one in rt.ledger.waits(old.id) if one.leg_id == leg.id]
    if before is None:
        position = lifecycle.replay_from(checkpoints, waits)
    else:
        position = 0 if before == leg.id else _position(old, before, checkpoints, waits)
    gate = next((one for one in waits if lifecycle.stands_anew(one, position)), None)
    leg_id = rt.new_id()
    options = {k: v for k, v in (leg.signature.get("options") or {}).items() if k not in _OF_ONE_LIFE}
    signature = {**leg.signature, "options": {**options, "task_id": leg_id}}
    new = Leg(
        id=leg_id, intent_id=intent.id, task=leg.task, signature=signature, max_attempts=leg.max_attempts,
        on_drift=leg.on_drift, created_at=on.now, in_chord=leg.in_chord,
    )  # fmt: skip
    kept = [lifecycle.shown_with(one, old.payload, intent.payload) for one in waits if one is not gate]
    change = lifecycle.repeat(intent, new, checkpoints, kept, upto=position, by=by, reason=_why(reason), on=on)
    if gate is not None:
        # Of those whom it was for in the end: it may have been left, or reassigned, to others.
        change = gated(rt, Gate(title=gate.title, to=gate.to, request=gate.request), change, on)
    change = replace(change, closes=tuple((x.id, "REPLAYED", intent.id, by, _why(reason)) for x in letters))
    try:
        (change,) = rt.ledger.commit(change)
    except StaleChange:
        raise BadInput(
            f"the dead letter of intent {old.id} was replayed or discarded by someone else meanwhile"
        ) from None
    announce(rt, [change])
    assert change.intent is not None
    return change.intent


def _position(old: Intent, before: str, checkpoints: Sequence[Checkpoint], waits: Sequence[Wait]) -> int:
    """Where among the recorded steps and waits "name" or "name#2" is. Raises NotFound."""
    places = {(e.name, e.nth): e.position for e in checkpoints} | {(w.name, w.nth): w.position for w in waits}
    name, _, call = before.rpartition("#")
    # A step's own name may have such an ending too.
    keys = [(before, 1), *([(name, int(call))] if call.isdecimal() else [])]
    for key in keys:
        if key in places:
            return places[key]
    names = [f"{n}#{k}" for n, k in sorted(places, key=places.__getitem__)]
    if len(names) > MOST_NAMES:
        nearest = difflib.get_close_matches(before, names, n=MOST_NAMES // 2, cutoff=0.4) or names[: MOST_NAMES // 2]
        names = [*nearest, f"... ({len(names)} in all)"]
    recorded = ", ".join(names) or "nothing"
    raise NotFound("step or wait", f"{before!r} of intent {old.id}", hint=f"recorded there: {recorded}")


def _open_letters(rt: Runtime, intent_id: str) -> list[DeadLetter]:
    return [x for x in rt.ledger.dead_letters_of(intent_id) if x.state == "OPEN"]


def _why(reason: str | None) -> str | None:
    return None if reason is None else text(reason, "reason", longest=2000)


def _who(by: str | None) -> None:
    if by is not None:
        line(by, "by")


def _known(rt: Runtime, intent_id: str) -> Intent:
    intent = rt.ledger.intent(intent_id)
    if intent is None:
        raise NotFound("intent", intent_id)
    return intent


def _intent_of(changes: Sequence[Change]) -> Intent:
    intent = changes[0].intent
    assert intent is not None
    return intent
