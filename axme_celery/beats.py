"""The four beats of every verb: load, decide, commit, relay.

A verb hands ``carry_out`` a function that loads and decides. If the ledger says
that what it was decided on has changed meanwhile, it is asked again. What the
commit put in the outbox is handed to the relay, and the tracker is told; both
are best effort, for the sweep repeats them from the ledger.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

from .errors import LedgerUnavailable, StaleChange, TrackerUnavailable
from .lifecycle import Occasion
from .model import Change, Lease, LegStatus, Timer, WaitKind, WaitStatus
from .ports import Runtime

log = logging.getLogger(__name__)

T = TypeVar("T")

#: How often a verb decides anew before it gives up: far more than writers of one intent ever are.
TRIES = 50
#: What is told when an inbox may have changed, in the place of an intent's id; its seq is the moment, in microseconds.
INBOXES = "inboxes"
#: The sweep reads from the ledger what falls due soon once in so many ticks.
SLOW_TICKS = 10
#: Timers due later than this are left for the sweep to put into the tracker ...
HORIZON = timedelta(seconds=60)


def soon(rt: Runtime, now: datetime) -> datetime:
    """The moment before which the tracker must know what falls due: later than the sweep next reads it in the ledger."""
    # ... or, with long ticks, than this: two more, for a sweep takes some time and may come a tick late.
    return now + max(HORIZON, timedelta(seconds=(SLOW_TICKS + 2) * rt.settings.tick_seconds))


def occasion(rt: Runtime) -> Occasion:
    """What a decision made now may know."""
    return Occasion(now=rt.ledger.now(), new_id=rt.new_id, requeue=timedelta(seconds=rt.settings.requeue_seconds))


def carry_out(rt: Runtime, decide: Callable[[], Sequence[Change]]) -> tuple[Change, ...]:
    """Decide, commit, relay; decide again as long as another writer was faster. Nothing to do is ().

    Whatever ``decide`` raises ends the verb: a refusal is final, only a lost race is run again.
    """
    for attempt in range(TRIES):
        changes = tuple(decide())
        if not changes:
            return ()
        try:
            changes = rt.ledger.commit(*changes)
        except StaleChange:
            if attempt == TRIES - 1:
                raise
            time.sleep(random.uniform(0, 0.001 * min(2**attempt, 64)))
            continue
        announce(rt, changes)
        return changes
    raise AssertionError("unreachable")


def each(what: str, items: Iterable[T], do: Callable[[T], int]) -> int:
    """Do this with each; one that it cannot be done with is told in the log, and the others have their turn.

    Returns the sum of what it did. Raises LedgerUnavailable, which the others would meet as well.
    """
    done = 0
    for item in items:
        try:
            done += do(item)
        except LedgerUnavailable:
            raise
        except Exception:
            log.exception("%s %s could not be gone on with; the sweep tries again", what, item)
    return done


def announce(rt: Runtime, changes: Sequence[Change]) -> None:
    """After a commit: hand the outbox to the relay, tell the tracker what is due and what moved."""
    deliveries = [d for change in changes for d in change.outbox]
    if deliveries:
        rt.relay.send(deliveries)
    rt.relay.tell(changes)


def best_effort(tell: Callable[[], None]) -> None:
    """Do something with the tracker that may fail: it is an index, and the sweep refills it."""
    try:
        tell()
    except TrackerUnavailable as error:
        log.warning("tracker unavailable, going on without: %s", error)


def tell_tracker(rt: Runtime, changes: Sequence[Change], ended: Sequence[Lease] = ()) -> None:
    """Timers that fall due soon or are gone, where the intents are now, which runs have begun and which have ended.

    A run that has ended already needs no lease, so one that is short costs the tracker nothing when it begins.

    Raises TrackerUnavailable.
    """
    horizon = soon(rt, rt.ledger.now())
    timers, gone = [], []
    for change in changes:
        for was, wait in change.waits:
            if wait.due_at is not None and wait.due_at <= horizon:
                timers.append(Timer("wait", wait.id, wait.due_at))
            elif was is not None and was.status is WaitStatus.OPEN and was.due_at is not None:
                gone.append(("wait", wait.id))
        intent = change.intent
        if intent is not None and intent.deadline_at is not None and intent.deadline_at <= horizon:
            if intent.status.is_final:
                gone.append(("intent", intent.id))
            elif change.was is None or change.was.deadline_at != intent.deadline_at:
                timers.append(Timer("intent", intent.id, intent.deadline_at))
        elif intent is not None and change.was is not None and change.was.deadline_at != intent.deadline_at:
            gone.append(("intent", intent.id))
    if timers:
        rt.tracker.schedule(timers)
    if gone:
        rt.tracker.unschedule(gone)
    over = set(ended)
    begun = [lease for change in changes for lease in _claimed(change) if lease not in over]
    if begun:
        rt.tracker.hold(begun, rt.settings.lease_seconds)
    told = {change.intent.id: change.intent.seq for change in changes if change.intent is not None}
    if any(wait.kind is WaitKind.HUMAN for change in changes for _, wait in change.waits):
        told[INBOXES] = int(rt.ledger.now().timestamp() * 1_000_000)
    rt.tracker.tell(told, ended)


def _claimed(change: Change) -> list[Lease]:
    """The runs this change has begun. Not an agent's outside Celery: that lease is in the ledger."""
    return [
        Lease(leg.id, leg.run)
        for was, leg in change.legs
        if leg.status is LegStatus.RUNNING and leg.due_at is None and was is not None and was.status is LegStatus.QUEUED
    ]
