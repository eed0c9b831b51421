"""Sweep: one pass over what time has made due. Each broom is one function, safe to run twice at once.

Quick brooms run at every tick: leases that lapsed, timers that fall due, the
outbox. Slow ones, every few ticks, refill the tracker from the ledger and look
for what no index would show: messages that were lost, early answers whose wait
has opened, and what may be pruned. They never trust the tracker; whatever it
says only makes them look at the ledger, where the change is decided and fenced.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from . import agents, begin, lifecycle
from .beats import SLOW_TICKS, announce, best_effort, each, occasion, soon
from .deliver import send_all, settle
from .durations import seconds
from .errors import AxmeError, LedgerUnavailable, StaleChange, TrackerUnavailable
from .model import Change, DeliveryKind, EarlyAnswer, Lease, LegStatus, Timer
from .nodes import Ending, endings
from .onward import after, carry_out, match_early, pass_join
from .ports import Runtime, Sender

log = logging.getLogger(__name__)

#: Timers are taken this many ticks ahead, so that a wake-up is committed before its moment and leaves at it.
AHEAD_TICKS = 2
#: ... but never further ahead than a relay keeps a delivery in mind.
AHEAD_SECONDS = 2.5
#: Changes committed together, and rows looked at in one query.
BATCH = 500
#: A taken timer, or a delivery in the works, comes back after this long if the sweeper dies with it.
HOLD_SECONDS = 10.0

#: How long the answer to a request is kept, to be given again under the same key.
REMEMBER_REQUESTS = timedelta(hours=48)

#: When so long has passed, a sweep leaves to the next what is still due: however much falls due at once, leases are looked
#: at meanwhile, and the worker's slot, or its keeper, is free again.
PASS_SECONDS = 1.0

#: Rows a refill reads at most: all that may fall due within the tracker's horizon.
REFILL = 200_000

Counts = dict[str, int]


def sweep(
    rt: Runtime,
    senders: Mapping[DeliveryKind, Sender],
    sweeper: str,
    *,
    slow: bool | None = None,
    at_most_seconds: float = PASS_SECONDS,
) -> Counts:
    """One pass. ``slow``: also the slow brooms; None lets one sweeper in so many ticks do them.

    at_most_seconds: a broom that is not done by then leaves the rest to the next sweep, once it has done a batch.

    Returns what each broom did, for the log. A broom that fails does not keep the others from their work, nor does one
    intent that cannot be gone on with keep the broom from the others.
    """
    best_effort(lambda: rt.tracker.tick(sweeper))
    counts: Counts = {}
    ends_at = time.monotonic() + at_most_seconds
    _broom(counts, "leases", lambda: lapsed_leases(rt, ends_at))
    _broom(counts, "unleased", lambda: unleased(rt))
    _broom(counts, "agents", lambda: agents.lapsed_leases(rt, ends_at))
    _broom(counts, "timers", lambda: due_timers(rt, ends_at))
    _broom(counts, "joins", lambda: full_joins(rt))
    _broom(counts, "outbox", lambda: undelivered(rt, senders, ends_at))
    _broom(counts, "webhooks", lambda: due_webhooks(rt))
    if slow or (slow is None and _slow_turn(rt, sweeper)):
        _broom(counts, "refilled", lambda: refill(rt))
        _broom(counts, "resent", lambda: lost_messages(rt, ends_at))
        _broom(counts, "matched", lambda: early_answers(rt))
        _broom(counts, "chords", lambda: waiting_chords(rt))
        _broom(counts, "forgotten", lambda: forget_requests(rt))
        if rt.settings.retention is not None:
            _broom(counts, "pruned", lambda: prune(rt, BATCH))
    return counts


def _broom(counts: Counts, name: str, run: Callable[[], int]) -> None:
    try:
        done = run()
    except AxmeError as error:
        log.warning("broom %s stopped: %s", name, error)
        return
    except Exception:
        log.exception("broom %s stopped", name)
        return
    if done:
        counts[name] = done


def _slow_turn(rt: Runtime, sweeper: str) -> bool:
    # A fresh owner each time: the lock is not for excluding others but for letting one through per period.
    try:
        return rt.tracker.lock("slow", rt.new_id(), SLOW_TICKS * rt.settings.tick_seconds)
    except TrackerUnavailable:
        return True


# -- quick brooms ---------------------------------------------------------------


#: Before a leg's id in a lease: its message is in a worker's hands, which has not begun it.
_RECEIVED = "received/"


def received(lease: Lease) -> Lease:
    """The lease a worker holds on what it has received and not begun: should it die, the message is sent again."""
    return Lease(_RECEIVED + lease.leg_id, lease.run)


def lapsed_leases(rt: Runtime, ends_at: float = math.inf) -> int:
    """Legs whose worker has been silent for longer than its lease are queued again; what it had received, sent again."""
    moved = 0
    while lapsed := rt.tracker.lapsed(BATCH):
        running = rt.ledger.running([one for one in lapsed if not one.leg_id.startswith(_RECEIVED)], BATCH)
        moved += each("run", running, lambda lease: lose(rt, lease, "its worker fell silent"))
        held = [
            Lease(one.leg_id.removeprefix(_RECEIVED), one.run) for one in lapsed if one.leg_id.startswith(_RECEIVED)
        ]
        moved += each("message", held, lambda lease: _send_again(rt, lease))
        rt.tracker.release(lapsed)
        if len(lapsed) < BATCH or time.monotonic() >= ends_at:
            break
    return moved


def unleased(rt: Runtime) -> int:
    """Give a term to runs that the tracker knows no lease of: their worker died as it claimed them, or the tracker was lost.

    A worker that lives renews it long before its end. It is a tick short, for that long ago the worker may have died.
    """
    term = max(rt.settings.lease_seconds - rt.settings.tick_seconds, rt.settings.lease_seconds / 2)
    running = rt.ledger.running(None, REFILL)
    return sum(rt.tracker.seed(running[start : start + BATCH], term) for start in range(0, len(running), BATCH))


def lose(rt: Runtime, lease: Lease, cause: str) -> int:
    """Queue a leg again whose run has died; or fail it when it has died too often. 1 when it was so."""

    def decide() -> Sequence[Change]:
        record = rt.ledger.leg_record(lease.leg_id, history=False)
        if record is None or record.leg.status is not LegStatus.RUNNING or record.leg.run != lease.run:
            return ()
        if record.leg.due_at is not None:
            # An agent outside Celery has it; that lease is the ledger's.
            return ()
        on, falls = occasion(rt), list[lifecycle.Fallout]()

        def fallout(_: object) -> lifecycle.Fallout:
            falls.append(begin.fallout(rt, record.intent, record.leg, on))
            return falls[0]

        change = lifecycle.lose(record.intent, record.leg, lease.run, cause=cause, fallout=fallout, on=on)
        return [change, *(child for one in falls for child in one.children)]

    return min(len(carry_out(rt, decide)), 1)


def _send_again(rt: Runtime, lease: Lease) -> int:
    """Send a leg's message again, if nobody has begun this run yet: it is lost with the worker that had it."""

    def decide() -> Sequence[Change]:
        record = rt.ledger.leg_record(lease.leg_id, history=False)
        if record is None or record.intent.status.is_final:
            return ()
        if record.leg.status is not LegStatus.QUEUED or record.leg.run != lease.run:
            return ()
        return [lifecycle.resend(record.leg, on=occasion(rt))]

    return len(carry_out(rt, decide))


def due_timers(rt: Runtime, ends_at: float = math.inf) -> int:
    """Waits that wake, time out, remind, escalate or poll; intents whose deadline passed."""
    ahead = timedelta(seconds=min(rt.settings.tick_seconds * AHEAD_TICKS, AHEAD_SECONDS))
    done = 0
    # What is not due yet must be seen again at the next tick, not when its hold ends; but not by this sweep.
    early: list[Timer] = []
    while True:
        now = rt.ledger.now(fresh=True)
        taken = _take(rt, now, ahead)
        done += _fire(rt, [t for t in taken if t.kind == "wait"], ahead, early)
        deadlines = [t for t in taken if t.kind == "intent"]
        done += each("intent", [t.id for t in deadlines if t.due_at <= now], lambda intent_id: time_out(rt, intent_id))
        early += [t for t in deadlines if t.due_at > now]
        if len(taken) < BATCH or time.monotonic() >= ends_at:
            break
    if early:
        best_effort(lambda: rt.tracker.schedule(early))
    return done


def _take(rt: Runtime, now: datetime, ahead: timedelta) -> list[Timer]:
    try:
        return rt.tracker.take(now + ahead, HOLD_SECONDS, BATCH)
    except TrackerUnavailable as error:
        log.warning("tracker unavailable, timers are read from the ledger: %s", error)
        # Only what is due: the ledger hides nothing that was taken, and would give the rest again at once.
        return [*rt.ledger.due_waits(now, BATCH), *rt.ledger.due_intents(now, BATCH)]


def _fire(rt: Runtime, timers: Sequence[Timer], ahead: timedelta, early: list[Timer]) -> int:
    """Fire what is due of these waits, together if that can be done; ``early`` receives what is not due yet."""
    if not timers:
        return 0
    try:
        return _fire_together(rt, timers, ahead, early)
    except LedgerUnavailable:
        raise
    except Exception:
        if len(timers) == 1:
            log.exception("wait %s could not be fired; the sweep tries again", timers[0].id)
            return 0
        # One that cannot be decided must not keep the others from their moment. What was done of them is found done.
        return sum(_fire(rt, [timer], ahead, early) for timer in timers)


def _fire_together(rt: Runtime, timers: Sequence[Timer], ahead: timedelta, early: list[Timer]) -> int:
    """Fire what is due of these waits, many in one transaction; one by one those that lost a race."""
    on = occasion(rt)
    changes: dict[str, Change] = {}
    children: list[Change] = []
    again: list[str] = []
    gone: list[tuple[str, str]] = []
    records = rt.ledger.wait_records([t.id for t in timers])
    by_wait = {ending.record.wait.id: ending for ending in endings(rt, records, ahead=ahead, on=on)}
    for timer in timers:
        ending = by_wait.get(timer.id)
        if ending is None:
            gone.append(("wait", timer.id))
            continue
        record = ending.record
        change = lifecycle.fire(record, ahead=ahead, finish=ending.finish, on=on)
        if change is None:
            if record.wait.due_at is not None:
                early.append(Timer("wait", timer.id, record.wait.due_at))
            else:
                gone.append(("wait", timer.id))
        elif record.intent.id in changes:
            again.append(timer.id)
        else:
            changes[record.intent.id] = change
            children += ending.children
    done = _commit_many(rt, list(changes.values()), children, again)
    for wait_id in again:
        done += fire_one(rt, wait_id, ahead)
    still_open = _open_after(changes, again)
    gone += [("wait", wait.id) for change in changes.values() for _, wait in change.waits if wait.id not in still_open]
    best_effort(lambda: rt.tracker.unschedule(gone))
    return done


def _open_after(changes: Mapping[str, Change], again: Sequence[str]) -> set[str]:
    """Waits that stay open with a later moment: ``announce`` has scheduled that already."""
    still = {wait.id for change in changes.values() for _, wait in change.waits if wait.due_at is not None}
    return still | set(again)


def _commit_many(rt: Runtime, changes: Sequence[Change], children: Sequence[Change], again: list[str]) -> int:
    """All in one transaction; if one of them was too late, they are all left to be fired one by one."""
    if not changes:
        return 0
    try:
        written = rt.ledger.commit(*changes, *children)
    except StaleChange:
        again += [wait.id for change in changes for was, wait in change.waits if was is not None]
        return 0
    announce(rt, written)
    after(rt, written)
    return len(changes)


def fire_one(rt: Runtime, wait_id: str, ahead: timedelta = timedelta(0)) -> int:
    """Fire what is due of one wait. 1 when something was."""

    def decide() -> Sequence[Change]:
        record, on = rt.ledger.wait(wait_id), occasion(rt)
        if record is None:
            return ()
        ending = Ending(rt, record, on)
        change = lifecycle.fire(record, ahead=ahead, finish=ending.finish, on=on)
        return () if change is None else [change, *ending.children]

    return min(len(carry_out(rt, decide)), 1)


def time_out(rt: Runtime, intent_id: str) -> int:
    """End an intent whose deadline has passed. 1 when it was so."""

    def decide() -> Sequence[Change]:
        intent, on = rt.ledger.intent(intent_id), occasion(rt)
        if intent is None or intent.status.is_final or intent.deadline_at is None or intent.deadline_at > on.now:
            return ()
        return [lifecycle.time_out(intent, rt.ledger.legs(intent_id, 2), rt.ledger.waits(intent_id), on=on)]

    done = len(carry_out(rt, decide))
    best_effort(lambda: rt.tracker.unschedule([("intent", intent_id)]))
    return done


def full_joins(rt: Runtime) -> int:
    """Joins that have all their members and were not passed, should the process of the last one have died in between."""
    return each("join", rt.ledger.full_joins(BATCH), lambda join_id: pass_join(rt, join_id))


def undelivered(rt: Runtime, senders: Mapping[DeliveryKind, Sender], ends_at: float = math.inf) -> int:
    """Deliveries that are due and that no process is sending."""
    sent = 0
    while True:
        now = rt.ledger.now(fresh=True)
        due = rt.ledger.outbox_due(now, 100, HOLD_SECONDS)
        if due:
            outcome = send_all(rt, senders, due)
            settle(rt, outcome)
            sent += len(outcome.sent)
        window = timedelta(seconds=min(rt.settings.tick_seconds, AHEAD_SECONDS))
        soon = rt.ledger.outbox_due(now + window, 100, HOLD_SECONDS)
        if soon:
            rt.relay.send(soon)
        if len(due) < 100 or time.monotonic() >= ends_at:
            return sent


def due_webhooks(rt: Runtime) -> int:
    """Webhook deliveries that are due: this process's courier is told. 1 when there are any."""
    if not rt.ledger.hooks.is_due():
        return 0
    rt.relay.deliver()
    return 1


# -- slow brooms ------------------------------------------------------------------


def refill(rt: Runtime) -> int:
    """Put back into the tracker the timers that the ledger says are due soon."""
    until = soon(rt, rt.ledger.now(fresh=True))
    timers = [*rt.ledger.due_waits(until, REFILL), *rt.ledger.due_intents(until, REFILL)]
    for start in range(0, len(timers), BATCH):
        rt.tracker.refill(timers[start : start + BATCH])
    return len(timers)


def lost_messages(rt: Runtime, ends_at: float = math.inf) -> int:
    """Legs whose message was published and that nobody started in time: publish again, waiting twice as long."""
    resent = 0
    while legs := rt.ledger.unstarted_legs(rt.ledger.now(), BATCH):
        for leg in legs:
            change = lifecycle.resend(leg, on=occasion(rt))
            try:
                rt.ledger.commit(change)
            except StaleChange:
                continue
            announce(rt, [change])
            resent += 1
        if len(legs) < BATCH or time.monotonic() >= ends_at:
            break
    return resent


def early_answers(rt: Runtime) -> int:
    """Early answers whose wait has opened, should the process that opened it have died in between."""

    def match(early: EarlyAnswer) -> int:
        match_early(rt, early.tool, early.job_id)
        return 1

    return each("early answer", rt.ledger.unmatched_early_answers(BATCH), match)


def forget_requests(rt: Runtime) -> int:
    """Requests over HTTP that were answered so long ago that nobody repeats them any more."""
    return rt.ledger.exchange.forget(rt.ledger.now() - REMEMBER_REQUESTS)


def waiting_chords(rt: Runtime) -> int:
    """Chords of Celery's own that wait for our legs: their results in the backend must not expire meanwhile."""
    kept, after = 0, None
    while legs := rt.ledger.legs_in_chords(after, BATCH):
        kept += rt.keep_chords(legs)
        after = legs[-1].id
        if len(legs) < BATCH:
            break
    return kept


def prune(rt: Runtime, limit: int) -> int:
    """Delete intents that ended longer ago than ``axme_retention``. Returns how many."""
    if rt.settings.retention is None:
        return 0
    before = rt.ledger.now() - timedelta(seconds=seconds(rt.settings.retention, "axme_retention"))
    rt.ledger.hooks.prune(before)
    old = rt.ledger.prunable(before, limit)
    return rt.ledger.prune([intent.id for intent in old]) if old else 0
