"""A running leg's task calls another, ``.delay()`` in its body: one leg more of the same intent.

A body may run several times: after a crash, after each wait. What it calls
outside of a step is called once all the same, for the id of a call is made of
where it is made: the same place in the next run finds the leg there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid5

from . import begin, lifecycle
from .beats import carry_out, occasion
from .errors import LeaseLost
from .leg import RunningLeg, settle
from .model import Change, Intent, Leg, LegStatus, Work
from .step import current_step, in_step
from .submit import CALLER_SENDS, KeptCall

#: The name space of the ids of calls.
_CALLS = UUID("6f1d9c1e-6c52-4b6e-9f0b-9d0d6b0f2a77")


def placed(running: RunningLeg, work: Work) -> Work:
    """The same work under the id of this very call, unless it was given one of its own."""
    if work.named:
        return work
    # A retry is a new execution, asked for, and calls anew; a step that is repeated calls what it called before.
    options = running.leg.signature.get("options") or {}
    place = current_step().idempotency_key if in_step() else f"{running.leg.id}/{options.get('retries') or 0}"
    nth = running.nth_call(place, work.work_hash)
    leg_id = str(uuid5(_CALLS, f"{place}/{work.work_hash}/{nth}"))
    options = {**work.signature["options"], "task_id": leg_id}
    return replace(work, leg_id=leg_id, named=True, signature={**work.signature, "options": options})


def call(running: RunningLeg, work: Work) -> KeptCall:
    """Keep a call as a leg of the running leg's intent; its caller sends the message itself, as in ``submit.keep_call``.

    Raises LeaseLost when the run was replaced or its intent has ended: it may call nothing any more.
    """
    rt = running.rt
    known = rt.ledger.intent_of_leg(work.leg_id)
    if known is not None:
        return KeptCall(known, None)

    def decide(intent: Intent, leg: Leg) -> Sequence[Change]:
        on = occasion(rt)
        change = lifecycle.call(intent, leg, begin.new_leg(work, intent.id, on.now), start_at=work.start_at, on=on)
        if not _starts_much_later(running, work):
            sent_by = max(on.now + CALLER_SENDS, work.start_at or on.now)
            change = replace(change, outbox=tuple(replace(row, next_at=sent_by) for row in change.outbox))
        return [change]

    try:
        (change,) = settle(rt, running.intent, running.leg, decide)
    except LeaseLost as why:
        raise running.leaves(why) from None
    assert change.intent is not None
    # What this run decides next is decided on this.
    running.intent = change.intent
    return KeptCall(change.intent, None if _starts_much_later(running, work) else change.outbox[0])


def take_back(running: RunningLeg, leg_id: str, reason: str) -> None:
    """The call could not be made into a message: it was none."""
    rt = running.rt
    error = {"code": "not_sent", "message": reason}

    def decide() -> Sequence[Change]:
        record = rt.ledger.leg_record(leg_id, history=False)
        if record is None or record.leg.status is not LegStatus.QUEUED or record.intent.status.is_final:
            return ()
        return [lifecycle.uncall(record.intent, record.leg, error, on=occasion(rt))]

    for change in carry_out(rt, decide):
        assert change.intent is not None
        running.intent = change.intent


def _starts_much_later(running: RunningLeg, work: Work) -> bool:
    threshold = timedelta(seconds=running.rt.settings.eta_threshold_seconds)
    return work.start_at is not None and work.start_at - running.rt.ledger.now() > threshold
