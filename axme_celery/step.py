"""Steps: functions done once inside a leg, their results kept.

A step whose result was recorded never runs again, in any run of its leg. A step
that was running when its worker died runs again: hand ``idempotency_key`` to
the outside system, or say ``at_most_once``.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar, overload

from .errors import (
    BadInput,
    LeaseLost,
    LedgerUnavailable,
    NotJson,
    OutsideIntent,
    StaleChange,
    StepFailed,
    StepInterrupted,
    TooLarge,
)
from .failure import revive
from .leg import RunningLeg, current, lost
from .model import Change, Checkpoint, Recorded

P = ParamSpec("P")
R = TypeVar("R")

#: The longest pause between two tries of a step inside one run.
LONGEST_BACKOFF_SECONDS = 60.0


@dataclass(frozen=True)
class StepCall:
    """What a step may know of its own call: ``current_step()``."""

    name: str
    #: Which call of that name in this leg, from 1.
    nth: int
    #: The leg's run.
    run: int
    #: Which try within this run, from 1 (see ``retries``).
    attempt: int
    #: The same in every run and try of this call: give it to the outside system, so that a repeat is recognised.
    idempotency_key: str


_call: ContextVar[StepCall | None] = ContextVar("axme_step", default=None)


def current_step() -> StepCall:
    """The step running here. Raises OutsideIntent where there is none."""
    call = _call.get()
    if call is None:
        raise OutsideIntent("current_step()")
    return call


def in_step() -> bool:
    """True while a step's function runs: what it calls belongs to its own result."""
    return _call.get() is not None


@overload
def step(fn: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def step(
    *,
    name: str | None = None,
    retries: int = 0,
    backoff: float = 1.0,
    transaction: bool = False,
    at_most_once: bool = False,
) -> Callable[[Callable[..., R]], Callable[..., R]]: ...
def step(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    retries: int = 0,
    backoff: float = 1.0,
    transaction: bool = False,
    at_most_once: bool = False,
) -> Any:
    """Make a function a step: inside a leg its result is recorded, and never computed again.

    Outside an intent, and inside another step, it is an ordinary call.

    name:          what it is recorded under; the function's name unless given. Calls of one name are told apart by
                   their order: keep names when you change code that intents are waiting in.
    retries:       how many more times to try in this run when it raises; then the exception goes on to the task.
    backoff:       seconds before the first retry, doubling each time up to a minute, with jitter.
    transaction:   the function is given the ledger's SQLAlchemy connection first; what it writes there commits
                   together with the record of the step, once. Do not commit it yourself.
    at_most_once:  the start is recorded first; if the end is not known, later runs raise StepInterrupted instead of
                   running it again.

    The result must be JSON (datetime, UUID and Decimal survive, a tuple comes back as a list) within
    ``axme_result_bytes``; otherwise the step has failed for good and raises StepFailed, now and in later runs.
    """
    if fn is None:
        return functools.partial(
            step, name=name, retries=retries, backoff=backoff, transaction=transaction, at_most_once=at_most_once
        )
    if retries < 0 or backoff < 0:
        raise BadInput(f"step {name or fn.__name__!r}: retries and backoff must not be negative ({retries}, {backoff})")
    if transaction and at_most_once:
        raise BadInput(f"step {name or fn.__name__!r}: a transaction step happens once already; drop at_most_once")
    recorded_as = str(name or getattr(fn, "__name__", "step"))
    if len(recorded_as) > 255:
        raise BadInput(f"step name of {len(recorded_as)} characters; the limit is 255")

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        leg = current()
        if leg is None or _call.get() is not None:
            return fn(*args, **kwargs)
        try:
            key, position = leg.ask(recorded_as)
            entry = leg.journal.get(key)
            if isinstance(entry, Checkpoint):
                known = _recorded(leg, entry)
                if known is not None:
                    return known[0]
            else:
                leg.before_new(key)
                if at_most_once:
                    _mark_started(leg, key, position)
            try:
                return _do(leg, key, position, fn, args, kwargs, retries, backoff, transaction)
            except (StepFailed, StaleChange, LedgerUnavailable):
                raise
            except Exception as error:
                if at_most_once:
                    leg.record_failure(key, position, error)
                else:
                    leg.raised(key, position, error)
                raise
        except StaleChange:
            raise leg.leaves(lost(leg.leg)) from None
        except LedgerUnavailable as away:
            # What was done cannot be recorded, so this run ends here; the next one does it again.
            raise leg.leaves(LeaseLost(f"step {recorded_as!r} could not be recorded: {away}")) from away

    return call


def _recorded(leg: RunningLeg, entry: Checkpoint) -> tuple[Any] | None:
    """The recorded result in a tuple; raises what is recorded as failed or interrupted."""
    if entry.recorded is Recorded.DONE:
        return (leg.rt.codec.decode(entry.value),)
    if entry.recorded is Recorded.FAILED:
        described = leg.rt.codec.decode(entry.value)
        raise revive(described) or StepFailed(entry.name, described["message"])
    raise StepInterrupted(entry.name, entry.nth, entry.run)


def _mark_started(leg: RunningLeg, key: tuple[str, int], position: int) -> None:
    _record(leg, _checkpoint(leg, key, position, Recorded.STARTED, "null"))


def _do(
    leg: RunningLeg,
    key: tuple[str, int],
    position: int,
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    retries: int,
    backoff: float,
    transaction: bool,
) -> Any:
    for attempt in range(1, retries + 2):
        call = StepCall(key[0], key[1], leg.leg.run, attempt, f"{leg.leg.id}:{key[0]}:{key[1]}")
        token = _call.set(call)
        try:
            if transaction:
                return _in_transaction(leg, key, position, fn, args, kwargs)
            value = fn(*args, **kwargs)
            break
        except (StepFailed, StaleChange, LedgerUnavailable):
            raise
        except Exception:
            if attempt > retries:
                raise
        finally:
            _call.reset(token)
        leg.rt.sleep(min(backoff * 2.0 ** (attempt - 1), LONGEST_BACKOFF_SECONDS) * random.uniform(0.5, 1.0))
        # A pause may be long: do not go on for a worker that is stopping or a run that was replaced.
        leg.before_new(key)
    _record(leg, _encoded(leg, key, position, value))
    return value


def _in_transaction(
    leg: RunningLeg,
    key: tuple[str, int],
    position: int,
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    kept: list[Any] = []

    def within(connection: Any) -> Checkpoint:
        value = fn(connection, *args, **kwargs)
        kept[:] = [value]
        return _checkpoint(leg, key, position, Recorded.DONE, _encode(leg, key[0], value))

    try:
        leg.rt.ledger.transaction(within, leg.fence)
    except (NotJson, TooLarge) as why:
        # Its SQL was rolled back with it; recorded as failed so that it is not done over and over.
        raise _unrecordable(leg, key, position, why) from why
    return kept[0]


def _encoded(leg: RunningLeg, key: tuple[str, int], position: int, value: Any) -> Checkpoint:
    try:
        return _checkpoint(leg, key, position, Recorded.DONE, _encode(leg, key[0], value))
    except (NotJson, TooLarge) as why:
        # Its effects have happened: recorded as failed, so that they do not happen at every run.
        raise _unrecordable(leg, key, position, why) from why


def _encode(leg: RunningLeg, name: str, value: Any) -> str:
    return leg.rt.codec.encode(
        value,
        what=f"result of step {name!r}",
        limit_bytes=leg.rt.settings.result_bytes,
        setting="axme_result_bytes",
    )


def _unrecordable(leg: RunningLeg, key: tuple[str, int], position: int, why: Exception) -> StepFailed:
    failure = StepFailed(key[0], str(why))
    leg.record_failure(key, position, failure)
    return failure


def _checkpoint(leg: RunningLeg, key: tuple[str, int], position: int, recorded: Recorded, value: str) -> Checkpoint:
    return Checkpoint(
        leg_id=leg.leg.id, name=key[0], nth=key[1], position=position, run=leg.leg.run, recorded=recorded, value=value
    )


def _record(leg: RunningLeg, checkpoint: Checkpoint) -> None:
    leg.rt.ledger.commit(Change(fence=leg.fence, checkpoints=(checkpoint,)))
