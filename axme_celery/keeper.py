"""The keeper: a thread in a worker's parent that keeps what its legs are owed.

It renews the leases of all legs this worker runs, in one command, so that a
busy child cannot starve its own heartbeat. It queues again at once the leg of
a pool child that died, hands back what a stopping worker still holds, and
sweeps when no beat has for a while. The parent's own thread never waits for it.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

from celery.bootsteps import StartStopStep
from celery.worker import state as worker_state

from . import begin, leg, lifecycle, submit, work
from .beats import occasion
from .errors import AxmeError, IntentEnded, LeaseLost
from .forkgate import ForkGate
from .model import Change, Intent, Lease, Leg, LegStatus
from .onward import carry_out
from .sweep import lose, received, sweep

if TYPE_CHECKING:
    from .extension import Axme

log = logging.getLogger(__name__)

#: How long a stopping worker waits for its keeper's last writes.
STOP_SECONDS = 5.0
#: How long a dead pool child may go unnoticed.
WATCH_SECONDS = 0.2
#: A worker sweeps by itself when nobody has for this many ticks, or this many seconds if that is longer.
QUIET_TICKS, QUIET_SECONDS = 3, 5.0


class Keeper:
    """One per application; does nothing before ``start``, which a worker calls."""

    def __init__(self, axme: Axme) -> None:
        self._axme = axme
        self._jobs: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._gate = ForkGate()
        #: Leases on what this worker has received and not begun.
        self._received: set[Lease] = set()

    # -- told by the worker -----------------------------------------------------

    def start(self) -> None:
        """This process is a worker's parent from now on."""
        self._axme.worker.start()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="axme-keeper", daemon=True)
            self._thread.start()

    def stopping(self) -> None:
        """The worker was asked to stop. Called in a signal handler: only notes it."""
        self._axme.worker.stop()

    def stop(self) -> None:
        """The worker has stopped: finish what is noted, then end."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        for leg_id, run in active_legs():
            self.canceled(leg_id, run)
        self._jobs.put(self._let_go)
        self._jobs.put(None)
        thread.join(STOP_SECONDS)
        self._axme.drain(STOP_SECONDS)

    def lost(self, leg_id: str, run: int, cause: str) -> None:
        """A pool child died with this leg."""
        self._jobs.put(lambda: lose(self._axme.runtime, Lease(leg_id, run), cause))

    def canceled(self, leg_id: str, run: int) -> None:
        """The worker gives this leg up: it stops without waiting for it, or has lost its broker."""
        self._jobs.put(lambda: self._hand_back(leg_id, run))

    def overran(self, leg_id: str, run: int, limit_seconds: float) -> None:
        """This leg overran its hard time limit; Celery has killed its child and stores FAILURE."""
        self._jobs.put(lambda: self._fail(leg_id, run, limit_seconds))

    def revoked(self, intent_id: str, reason: str) -> None:
        """Somebody revoked the leg's task through Celery, or it expired: that cancels the intent."""
        self._jobs.put(lambda: self._cancel(intent_id, reason))

    def unknown(self, leg_id: str, run: int, task: str) -> None:
        """This worker does not know the leg's task."""
        self._jobs.put(lambda: self.park(leg_id, run, task))

    # -- the thread ----------------------------------------------------------------

    def _run(self) -> None:
        settings = self._axme.settings
        every = settings.lease_seconds / 3
        next_renewal = time.monotonic()
        while True:
            job: Callable[[], object] | None = self._keep
            # Renewing goes before everything else: jobs that wait for a ledger that is away must not cost leases.
            left = next_renewal - time.monotonic()
            if left > 0:
                try:
                    job = self._jobs.get(timeout=left)
                except queue.Empty:
                    continue
            else:
                next_renewal = time.monotonic() + every
            if job is None:
                return
            with self._gate:
                try:
                    job()
                except AxmeError as error:
                    log.warning("keeper: %s", error)
                except Exception:
                    log.exception("keeper")

    def _keep(self) -> None:
        self._renew()
        self._sweep_if_quiet()

    def _renew(self) -> None:
        held = [Lease(leg_id, run) for leg_id, run in active_legs()]
        waiting = {received(Lease(leg_id, run)) for leg_id, run in waiting_legs()}
        before, self._received = self._received, waiting
        if held or waiting:
            self._axme.runtime.tracker.hold([*held, *waiting], self._axme.settings.lease_seconds)
        if before - waiting:
            # Begun meanwhile, or given back.
            self._axme.runtime.tracker.release(list(before - waiting))
        self._axme.worker.renewed()

    def _let_go(self) -> None:
        """What was received and not begun goes back to the broker with the worker's end."""
        before, self._received = self._received, set()
        if before:
            self._axme.runtime.tracker.release(list(before))

    def _sweep_if_quiet(self) -> None:
        """Beat is how sweeps are meant to happen; without one, things go slower but they go."""
        rt = self._axme.runtime
        quiet = max(QUIET_SECONDS, QUIET_TICKS * rt.settings.tick_seconds)
        last = max(rt.tracker.ticks().values(), default=None)
        if last is None or (rt.ledger.now() - last).total_seconds() > quiet:
            # Much shorter than the time between two renewals, which wait for it.
            at_most = rt.settings.lease_seconds / 6
            sweep(rt, self._axme.senders, f"keeper@{rt.worker_name()}", at_most_seconds=at_most)

    def _hand_back(self, leg_id: str, run: int) -> None:
        self._settle(leg_id, run, lambda intent, now_leg, on: [lifecycle.hand_back(intent, now_leg, on=on)])

    def _fail(self, leg_id: str, run: int, limit_seconds: float) -> None:
        error = {
            "code": "time_limit",
            "message": f"ran for longer than its hard time limit of {limit_seconds:g} seconds",
        }

        def decide(intent: Intent, now_leg: Leg, on: lifecycle.Occasion) -> list[Change]:
            falls = begin.fallout(self._axme.runtime, intent, now_leg, on)
            change = lifecycle.fail(
                intent, now_leg, error, seen_by_celery=True, guard_at=None, token=on.new_id(), fallout=falls, on=on
            )
            return [change, *falls.children]

        self._settle(leg_id, run, decide)

    def _settle(self, leg_id: str, run: int, decide: Callable[..., Sequence[Change]]) -> None:
        rt = self._axme.runtime
        record = rt.ledger.leg_record(leg_id, history=False)
        if record is None or record.leg.run != run or record.leg.status is not LegStatus.RUNNING:
            return
        try:
            leg.settle(rt, record.intent, record.leg, lambda now, now_leg: decide(now, now_leg, occasion(rt)))
        except LeaseLost:
            # It has ended by itself meanwhile.
            return

    def _cancel(self, intent_id: str, reason: str) -> None:
        try:
            submit.cancel(self._axme.runtime, intent_id, reason=reason, by="celery")
        except IntentEnded:
            return

    def park(self, leg_id: str, run: int, task: str) -> None:
        """Put a leg aside whose task this process does not know."""
        rt = self._axme.runtime
        reason = (
            f"worker {rt.worker_name()} does not know the task {task!r}; "
            f"deploy code that has it (or route it to workers that do), then `unpark`"
        )

        def decide() -> Sequence[Change]:
            record = rt.ledger.leg_record(leg_id, history=False)
            if record is None or record.leg.run != run or record.leg.status is not LegStatus.QUEUED:
                return ()
            if record.intent.status.is_final:
                return ()
            return [lifecycle.park(record.intent, record.leg, code="unknown_task", reason=reason, on=occasion(rt))]

        carry_out(rt, decide)


class WatchChildren(StartStopStep):  # type: ignore[misc]
    """Has the event loop of a worker's parent look for dead pool children several times a second.

    Celery looks when a child's pipe closes, which may be a moment before its process has ended; having missed it
    then, it looks again after five seconds.
    """

    _timer: Any = None

    def register_with_event_loop(self, consumer: Any, hub: Any) -> None:
        """Called at every (re)connection to the broker."""
        if self._timer is not None:
            self._timer.cancel()
        look = getattr(consumer.pool, "maintain_pool", None)
        if look is not None:
            self._timer = hub.call_repeatedly(WATCH_SECONDS, look)


def active_legs() -> list[tuple[str, int]]:
    """(leg id, run) of every leg this worker's pool is at."""
    return _legs_of(_members(worker_state.active_requests))


def waiting_legs() -> list[tuple[str, int]]:
    """(leg id, run) of every leg this worker has received and whose turn in its pool has not come."""
    begun = {id(request) for request in _members(worker_state.active_requests)}
    return _legs_of([one for one in _members(worker_state.reserved_requests) if id(one) not in begun])


def _legs_of(requests: Sequence[Any]) -> list[tuple[str, int]]:
    marks = ((request.id, work.own_header(request.request_dict)) for request in requests)
    return [(leg_id, mark["run"]) for leg_id, mark in marks if mark is not None]


def _members(requests: Collection[Any]) -> list[Any]:
    """What is in a set that the worker's own thread changes meanwhile."""
    for _ in range(100):
        try:
            return list(requests)
        except RuntimeError:
            continue
    return []
