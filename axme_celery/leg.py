"""Run one leg: claim it, call its body, settle it.

The body runs with a ``RunningLeg`` as its context, which ``step`` and the waits
use to find what earlier runs recorded. A leg leaves its body in one of three
ways: it returns (DONE), it raises an exception (FAILED), or a ``LegInterrupt``
carries it out (it waits, is handed back, was lost, has drifted, is to be retried).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from . import beats, begin, lifecycle
from .beats import occasion
from .errors import Drifted, HandedBack, LeaseLost, LedgerUnavailable, LegInterrupt, OutsideIntent, StaleChange
from .failure import describe
from .model import (
    Change,
    Checkpoint,
    Delivery,
    DeliveryKind,
    Fence,
    Intent,
    JsonDict,
    Lease,
    Leg,
    LegRecord,
    LegStatus,
    Recorded,
    Wait,
)
from .onward import carry_out
from .ports import Runtime
from .substitute import replaced

log = logging.getLogger(__name__)

#: How long Celery's own bookkeeping after a settled leg may take before the outbox repeats it.
GUARD = timedelta(seconds=10)


#: Decides on an intent and its leg as they are.
Decide = Callable[[Intent, Leg], Sequence[Change]]


class RetryAsked(LegInterrupt):
    """The task asked Celery to retry it."""

    def __init__(self, signature: JsonDict, start_at: datetime | None, cause: str) -> None:
        super().__init__(cause)
        #: What the next run is to be called with.
        self.signature = signature
        self.start_at = start_at
        self.cause = cause


class ReplaceAsked(LegInterrupt):
    """The task puts other work in its place."""

    def __init__(self, canvas: JsonDict) -> None:
        super().__init__("the task was replaced")
        #: The canvas, as plain dicts.
        self.canvas = canvas


class NotToBeHad(Exception):
    """The message is a duplicate, is late, or its intent has ended: nothing to run."""


@dataclass
class RunningLeg:
    """The leg whose body is running: what was recorded before, and where in that the body is now."""

    rt: Runtime
    intent: Intent
    leg: Leg
    #: What earlier runs recorded, by (name, nth).
    journal: dict[tuple[str, int], Checkpoint | Wait]
    #: Called with the state AsyncResult is to show, before a wait is opened.
    show_waiting: Callable[[], None]
    #: Recorded, and not asked for by this run so far.
    _unasked: set[tuple[str, int]] = field(default_factory=set)
    _calls: dict[str, int] = field(default_factory=dict)
    #: How often the same task was called with the same arguments, by place.
    _made: dict[tuple[str, str], int] = field(default_factory=dict)
    _positions: int = 0
    #: Steps that raised in this run, not recorded: the task may be retried and do them again.
    _raised: list[tuple[tuple[str, int], int, Exception]] = field(default_factory=list)
    #: Set once this run is leaving its body: nothing new may begin in it then, not in a ``finally`` either.
    _left: LegInterrupt | None = None

    @property
    def fence(self) -> Fence:
        """What every write of this run demands."""
        return Fence(self.leg.id, self.leg.run, self.leg.token)

    def ask(self, name: str) -> tuple[tuple[str, int], int]:
        """The key of the next step or wait of this name, and its position among all."""
        nth = self._calls.get(name, 0) + 1
        self._calls[name] = nth
        self._unasked.discard((name, nth))
        self._positions += 1
        return (name, nth), self._positions - 1

    def nth_call(self, place: str, work_hash: str) -> int:
        """Which call of this very work this is in that place, from 1."""
        nth = self._made[place, work_hash] = self._made.get((place, work_hash), 0) + 1
        return nth

    def raised(self, key: tuple[str, int], position: int, error: Exception) -> None:
        """A step raised. Should the body handle that and go on, the failure becomes part of the record."""
        self._raised.append((key, position, error))

    def record_failure(self, key: tuple[str, int], position: int, error: Exception) -> None:
        """Record a step as failed: later runs raise the same again instead of running it."""
        described = describe(error, attributes=True)
        value = self.rt.codec.encode(described, what="error", limit_bytes=1 << 20, setting="axme_result_bytes")
        checkpoint = Checkpoint(
            leg_id=self.leg.id, name=key[0], nth=key[1], position=position, run=self.leg.run,
            recorded=Recorded.FAILED, value=value,
        )  # fmt: skip
        self.rt.ledger.commit(Change(fence=self.fence, checkpoints=(checkpoint,)))

    def leaves(self, interrupt: LegInterrupt) -> LegInterrupt:
        """Note that this run leaves its body by this interrupt, which is then raised."""
        self._left = self._left or interrupt
        return self._left

    def before_new(self, key: tuple[str, int]) -> None:
        """Called before anything happens that no earlier run recorded. Leaves the body if it must not happen here.

        Raises HandedBack when the worker is stopping, LeaseLost when this run has been replaced, Drifted when
        earlier runs recorded what the code has not asked for: then it is other code than they ran.
        """
        if self._left is not None:
            raise self._left
        if self._unasked:
            self._refuse_drift(key)
        if self.rt.stopping():
            raise self.leaves(HandedBack(f"leg {self.leg.id} goes back to the queue: its worker is stopping"))
        if self.rt.lease_age_seconds() > self.rt.settings.lease_seconds:
            # This process was held up for longer than its lease. Ask before causing any more effects.
            lease = Lease(self.leg.id, self.leg.run)
            if not self.rt.ledger.running([lease], 1):
                raise self.leaves(lost(self.leg))
        while self._raised:
            # The body went on past these: a later run must take the same way.
            self.record_failure(*self._raised.pop(0))

    def refuse_other_than_approved(self, wait: Wait) -> None:
        """The code asks for something else than what was said yes to: leave the body before it goes on with that.

        Raises Drifted, unless the task goes on whatever has drifted, or an operator has accepted it.
        """
        if self.leg.on_drift == "continue" or wait.run < self.leg.drift_accepted_run:
            return
        raise self.leaves(
            Drifted(
                f"{wait.answered_by} said {wait.outcome} to {wait.title!r} as it was shown when wait {wait.id} opened; the "
                f"code of {self.leg.task} now asks it with another title, context or form. Nothing new was run. Take what "
                f"it shows from a @step, so that it stays the same, and `unpark`; or `unpark --accept-drift` to go on"
            )
        )

    def __post_init__(self) -> None:
        self._unasked = set(self.journal)

    def forget(self) -> None:
        """The body has ended. Drop its exceptions: their tracebacks hold its frames, and those hold this."""
        self._left = None
        self._raised.clear()

    def _refuse_drift(self, key: tuple[str, int]) -> None:
        forgiven_before = self.leg.drift_accepted_run
        unasked = [known for known in self._unasked if self.journal[known].run >= forgiven_before]
        if not unasked or self.leg.on_drift == "continue":
            return
        name, nth = min(unasked, key=lambda known: self.journal[known].position)
        drifted = Drifted(
            f"the code of {self.leg.task} has changed: it came to {key[0]!r} (call {key[1]}), which no run recorded, "
            f"without asking for {name!r} (call {nth}), which one did. Nothing new was run. Put the old code back and "
            f"`unpark`, or `unpark --accept-drift` to go on with this code"
        )
        raise self.leaves(drifted)


_current: ContextVar[RunningLeg | None] = ContextVar("axme_leg", default=None)


def current() -> RunningLeg | None:
    """The leg running here, if any."""
    return _current.get()


def required(what: str) -> RunningLeg:
    """The leg running here. Raises OutsideIntent."""
    running = _current.get()
    if running is None:
        raise OutsideIntent(what)
    return running


def run(
    rt: Runtime,
    leg_id: str,
    run: int,
    body: Callable[[RunningLeg], Any],
    *,
    guarded: bool,
    show_waiting: Callable[[], None],
) -> Any:
    """Run this leg's body and settle it; returns what the body returned, already in the ledger.

    guarded: Celery has bookkeeping to do after the body (a result to store, a chain to continue), which the outbox
    is to repeat should the worker die in between.

    Raises NotToBeHad when there is nothing to run, a LegInterrupt when the leg left its body (recorded), or the
    body's own exception (recorded as the intent's failure).
    """
    record = claim(rt, leg_id, run)
    leg = record.leg
    journal: dict[tuple[str, int], Checkpoint | Wait] = {(c.name, c.nth): c for c in record.checkpoints}
    # The code knows nothing of the human task before it, nor is that to be taken for a step of that name.
    journal |= {(w.name, w.nth): w for w in record.waits if w.name != lifecycle.GATE}
    running = RunningLeg(rt, record.intent, leg, journal, show_waiting)
    token = _current.set(running)
    settled = False
    try:
        try:
            value = body(running)
        finally:
            _current.reset(token)
            running.forget()
        _complete(rt, record.intent, leg, value, guarded)
        settled = True
        return value
    except LegInterrupt as interrupt:
        settled = _settle_interrupt(rt, record.intent, leg, interrupt)
        raise
    except LedgerUnavailable as error:
        raise LeaseLost(f"run {run} of leg {leg_id} could not be settled: {error}") from error
    except Exception as error:
        _fail(rt, record.intent, leg, error, guarded)
        settled = True
        raise
    finally:
        # A run the ledger could not take the end of has not ended: its lease stays, runs out, and it is run again.
        if settled:
            rt.relay.tell((), [Lease(leg_id, run)])


def finished(rt: Runtime, leg_id: str, run: int) -> tuple[Any] | None:
    """The recorded result of a DONE leg, in a tuple; None when it is not DONE. For the message that repeats Celery's part."""
    record = rt.ledger.leg_record(leg_id, history=False)
    if record is None or record.leg.run != run or record.leg.result is None:
        return None
    return (rt.codec.decode(record.leg.result),)


def claim(rt: Runtime, leg_id: str, run: int) -> LegRecord:
    """Take the leg for this run. Raises NotToBeHad."""
    token, loaded = rt.new_id(), list[LegRecord]()

    def decide() -> Sequence[Change]:
        record = rt.ledger.leg_record(leg_id)
        if record is None:
            raise NotToBeHad(f"leg {leg_id} is not in this ledger")
        try:
            change = lifecycle.claim(
                record.intent, record.leg, run, worker=rt.worker_name(), token=token, on=occasion(rt)
            )
        except StaleChange as why:
            raise NotToBeHad(str(why)) from None
        loaded[:] = [record]
        return [change]

    # The tracker is told of the lease as of all else, a moment after the commit. Should this whole worker die between
    # the two, the next sweep finds the leg running without one.
    (change,) = beats.carry_out(rt, decide)
    (record,) = loaded
    return LegRecord(change.intent or record.intent, change.legs[0][1], record.checkpoints, record.waits)


def lost(leg: Leg) -> LeaseLost:
    """What a run raises when it finds that it was replaced."""
    return LeaseLost(f"run {leg.run} of leg {leg.id} was replaced or its intent has ended; it may record nothing more")


def settle(rt: Runtime, intent: Intent, leg: Leg, decide: Decide) -> tuple[Change, ...]:
    """Commit what ends this run: decided on the intent and leg as known, and anew from the ledger if that is stale.

    Raises LeaseLost when the run was replaced or its intent ended meanwhile.
    """
    known = [(intent, leg)]

    def on_loaded() -> Sequence[Change]:
        if known:
            return decide(*known.pop())
        record = rt.ledger.leg_record(leg.id, history=False)
        if record is None or record.leg.status is not LegStatus.RUNNING:
            raise lost(leg)
        if (record.leg.run, record.leg.token) != (leg.run, leg.token):
            raise lost(leg)
        return decide(record.intent, record.leg)

    return carry_out(rt, on_loaded)


def _complete(rt: Runtime, intent: Intent, leg: Leg, value: Any, guarded: bool) -> None:
    result = rt.codec.encode(
        value, what=f"result of {leg.task}", limit_bytes=rt.settings.result_bytes, setting="axme_result_bytes"
    )
    on, token = occasion(rt), rt.new_id()
    guard_at = on.now + GUARD if guarded else None

    def decide(now: Intent, now_leg: Leg) -> Sequence[Change]:
        turns = begin.turns(rt, now, leg.id, result, parent_id=leg.id, on=on) if leg.followers else []
        waits_next = any(turn.wait is not None for turn in turns)
        change = lifecycle.complete(
            now, now_leg, result, guard_at=guard_at, token=token, turns=turns,
            busy=waits_next and leg.within is not None and rt.ledger.is_busy(now.id, [leg.id]), on=on,
        )  # fmt: skip
        return begin.with_children(change, turns, begin.callbacks(rt, now, leg, result, on))

    _remember_guards(settle(rt, intent, leg, decide))


def _fail(rt: Runtime, intent: Intent, leg: Leg, error: Exception, guarded: bool) -> None:
    on, token = occasion(rt), rt.new_id()
    described = describe(error)

    def decide(now: Intent, now_leg: Leg) -> Sequence[Change]:
        falls = begin.fallout(rt, now, leg, on)
        change = lifecycle.fail(
            now, now_leg, described, seen_by_celery=True, guard_at=on.now + GUARD if guarded else None, token=token,
            fallout=falls, on=on,
        )  # fmt: skip
        return [change, *falls.children]

    try:
        changes = settle(rt, intent, leg, decide)
    except LedgerUnavailable as away:
        raise LeaseLost(f"run {leg.run} of leg {leg.id} could not be settled: {away}") from error
    _remember_guards(changes)


def _settle_interrupt(rt: Runtime, intent: Intent, leg: Leg, interrupt: LegInterrupt) -> bool:
    """Record why the leg left its body; False when that cannot be. A suspended leg is recorded already."""
    if isinstance(interrupt, LeaseLost):
        return False
    on = occasion(rt)

    def decide(now: Intent, now_leg: Leg) -> Sequence[Change]:
        match interrupt:
            case HandedBack():
                return [lifecycle.hand_back(now, now_leg, on=on)]
            case Drifted():
                return [lifecycle.park(now, now_leg, code="drift", reason=str(interrupt), on=on)]
            case RetryAsked():
                start_at = interrupt.start_at or on.now
                return [
                    lifecycle.retry(now, now_leg, interrupt.signature, cause=interrupt.cause, start_at=start_at, on=on)
                ]
            case ReplaceAsked():
                return replaced(rt, now, now_leg, interrupt.canvas, on)
            case _:
                return ()

    try:
        settle(rt, intent, leg, decide)
    except (LeaseLost, LedgerUnavailable) as why:
        log.warning("leg %s left its body but that was not recorded: %s", leg.id, why, extra={"leg": leg.id})
        return False
    return True


# -- the guards of what this thread has just settled -----------------------------

_guards: ContextVar[tuple[str, ...]] = ContextVar("axme_guards", default=())


def _remember_guards(changes: Sequence[Change]) -> None:
    kept = [d.id for c in changes for d in c.outbox if is_guard(d)]
    if kept:
        _guards.set((*_guards.get(), *kept))


def is_guard(delivery: Delivery) -> bool:
    """True for an outbox row that only repeats what Celery is about to do itself."""
    if delivery.kind is DeliveryKind.RESULT:
        return delivery.attempts == 0 and delivery.leg_id is not None and delivery.body.get("state") == "FAILURE"
    return bool(delivery.body.get("finish"))


def take_guards() -> tuple[str, ...]:
    """The guards of what was settled here since the last call: Celery has done its part, they may go."""
    guards = _guards.get()
    if guards:
        _guards.set(())
    return guards


__all__ = [
    "NotToBeHad",
    "ReplaceAsked",
    "RetryAsked",
    "RunningLeg",
    "current",
    "finished",
    "required",
    "run",
    "take_guards",
]
