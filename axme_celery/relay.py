"""The relay thread: sends what this process committed, soon and in the background.

The caller of a verb never talks to the broker: publishing blocks for as long
as a broker hangs. What this thread does not get done (the process dies, the
queue is full, the broker is away) stays in the outbox, where the sweep finds it.
"""

from __future__ import annotations

import atexit
import heapq
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .beats import tell_tracker
from .courier import Courier
from .deliver import send_all
from .errors import AxmeError, TrackerUnavailable
from .forkgate import ForkGate
from .model import Change, Delivery, DeliveryKind, Lease
from .ports import Runtime, Sender

log = logging.getLogger(__name__)

#: What is due later than this is left to the sweep.
HORIZON_SECONDS = 3.0
#: More than this many unsent deliveries are left to the sweep: memory must not grow while a broker is away.
CAPACITY = 20_000
#: Sent in one go, and settled in one go.
BATCH = 100
#: What was sent stays in the outbox this long, to be removed together with others.
LINGER_SECONDS = 0.2
#: What the tracker is to know is told it with whatever else comes up within this long, and no more often than that: a
#: wake-up and a round trip for each leg's claim and end would cost a busy worker a tenth of its time.
NEWS_LINGER_SECONDS, NEWS_EVERY_SECONDS = 0.002, 0.05
#: After the tracker failed it is left alone for so long: what it was not told, the sweep puts in.
TRACKER_REST_SECONDS = 5.0
#: How soon after the call a caller's transaction is looked for; then after three times as long, up to a second.
FIRST_LOOK_SECONDS = 0.02
#: How long a process that ends waits for its last deliveries.
EXIT_SECONDS = 3.0


@dataclass(frozen=True)
class _Late:
    """Deliveries of a transaction that may not have committed yet."""

    at: float
    delivery_ids: list[str]
    pause: float


class RelayThread:
    """One daemon thread per process, started at the first delivery; a forked child starts its own."""

    def __init__(
        self, runtime: Callable[[], Runtime], senders: Mapping[DeliveryKind, Sender], courier: Courier | None = None
    ) -> None:
        self._runtime = runtime
        self._senders = senders
        self._courier = courier or Courier(runtime)
        self._order = itertools.count()
        self._reset()
        os.register_at_fork(after_in_child=self._reset)
        atexit.register(self.drain, EXIT_SECONDS)

    def _reset(self) -> None:
        self._heap: list[tuple[float, int, Delivery]] = []
        self._late: list[_Late] = []
        self._settled: list[str] = []
        self._settle_at = 0.0
        self._news: list[Change] = []
        self._ended: list[Lease] = []
        self._news_at = 0.0
        self._told_at = 0.0
        self._tracker_rests_until = 0.0
        self._gate = ForkGate()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._busy = False
        self._draining = False

    def send(self, deliveries: Sequence[Delivery]) -> None:
        """Send these when each is due; returns at once."""
        now, ledger_now = time.monotonic(), self._runtime().ledger.now()
        with self._changed:
            before = len(self._heap)
            for delivery in deliveries:
                wait = max(0.0, (delivery.next_at - ledger_now).total_seconds())
                if wait <= HORIZON_SECONDS and len(self._heap) < CAPACITY:
                    heapq.heappush(self._heap, (now + wait, next(self._order), delivery))
            # The guard of a leg that has just ended is due much later: it wakes nobody.
            if len(self._heap) > before:
                self._wake()

    def send_if_committed(self, delivery_ids: Sequence[str]) -> None:
        """Send these soon after the transaction they were written in commits; after a second the sweep will."""
        with self._changed:
            self._late.append(_Late(time.monotonic() + FIRST_LOOK_SECONDS, list(delivery_ids), FIRST_LOOK_SECONDS))
            self._wake()

    def tell(self, changes: Sequence[Change], ended: Sequence[Lease] = ()) -> None:
        """Let the tracker know of these committed changes and ended runs; returns at once.

        A lease it is not told of runs out, and harms nothing.
        """
        with self._changed:
            now = time.monotonic()
            if len(self._news) + len(self._ended) >= CAPACITY or now < self._tracker_rests_until:
                return
            if not self._news and not self._ended:
                self._news_at = max(now + NEWS_LINGER_SECONDS, self._told_at + NEWS_EVERY_SECONDS)
                self._wake()
            self._news.extend(changes)
            self._ended.extend(ended)

    def settled(self, delivery_ids: Sequence[str]) -> None:
        """These need no sending any more: remove their rows, in one go with others."""
        with self._changed:
            first = not self._settled
            if first:
                self._settle_at = time.monotonic() + LINGER_SECONDS
            self._settled.extend(delivery_ids)
            if first or len(self._settled) >= BATCH:
                self._wake()

    def deliver(self) -> None:
        """Have the courier look for webhook deliveries that are due; returns at once."""
        self._courier.wake()

    def drain(self, seconds: float, *, webhooks: bool = False) -> bool:
        """Wait until everything due is sent, at most this long. True when nothing is left.

        Of webhooks only the calls under way are waited for, unless ``webhooks`` asks for all that are due.
        """
        until = time.monotonic() + seconds
        with self._changed:
            self._draining = True
            self._changed.notify()
        try:
            while self._has_work_now():
                if time.monotonic() >= until:
                    return False
                time.sleep(0.005)
            return self._courier.drain(until - time.monotonic(), everything=webhooks)
        finally:
            self._draining = False

    def _has_work_now(self) -> bool:
        with self._changed:
            due = bool(self._heap) and self._heap[0][0] <= time.monotonic()
            left = due or self._busy or self._settled or self._late or self._news or self._ended
            return self._thread is not None and bool(left)

    def _wake(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="axme-relay", daemon=True)
            self._thread.start()
        self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                while not self._ready():
                    self._changed.wait(self._until_next())
                self._busy = True
                now = time.monotonic()
                batch: list[Delivery] = []
                while self._heap and self._heap[0][0] <= now and len(batch) < BATCH:
                    batch.append(heapq.heappop(self._heap)[2])
                settled: list[str] = []
                if self._settled and (self._settle_at <= now or len(self._settled) >= BATCH or self._draining):
                    settled, self._settled = self._settled, []
                news, ended = list[Change](), list[Lease]()
                if (self._news or self._ended) and (self._news_at <= now or self._draining):
                    news, self._news = self._news, []
                    ended, self._ended = self._ended, []
                    self._told_at = now
                late = [one for one in self._late if one.at <= now]
                self._late = [one for one in self._late if one.at > now]
            try:
                with self._gate:
                    self._work(batch, settled, late, news, ended)
            except AxmeError as error:
                # The ledger is away: the rows are still in the outbox, and so is the work.
                log.warning("relay leaves %d deliveries to the sweep: %s", len(batch), error)
            except Exception:
                log.exception("relay leaves %d deliveries to the sweep", len(batch))

    def _work(
        self,
        batch: list[Delivery],
        settled: list[str],
        late: list[_Late],
        news: list[Change],
        ended: list[Lease],
    ) -> None:
        rt = self._runtime()
        for one in late:
            batch += self._committed(rt, one)
        try:
            outcome = send_all(rt, self._senders, batch)
            if outcome.failed or outcome.dead:
                rt.ledger.outbox_settle((), outcome.failed, outcome.dead)
            if outcome.sent:
                self.settled(outcome.sent)
            if settled:
                rt.ledger.outbox_settle(settled)
        finally:
            if news or ended:
                self._tell(rt, news, ended)

    def _committed(self, rt: Runtime, late: _Late) -> list[Delivery]:
        """Those of a caller's transaction that are there by now; looked for again if it is still under way."""
        found = rt.ledger.outbox_by_ids(late.delivery_ids)
        pause = late.pause * 3
        if len(found) < len(late.delivery_ids) and pause < 1.0:
            there = {d.id for d in found}
            missing = [i for i in late.delivery_ids if i not in there]
            with self._changed:
                self._late.append(_Late(time.monotonic() + pause, missing, pause))
        now = rt.ledger.now()
        return [d for d in found if d.next_at <= now]

    def _tell(self, rt: Runtime, news: list[Change], ended: list[Lease]) -> None:
        try:
            tell_tracker(rt, news, ended)
        except TrackerUnavailable as error:
            log.warning("tracker unavailable, the sweep will tell it: %s", error)
            self._tracker_rests_until = time.monotonic() + TRACKER_REST_SECONDS

    def _ready(self) -> bool:
        next_in = self._until_next()
        full = len(self._settled) >= BATCH
        flush = self._draining and bool(self._settled or self._news or self._ended)
        return full or flush or (next_in is not None and next_in <= 0)

    def _until_next(self) -> float | None:
        moments = [one.at for one in self._late]
        if self._heap:
            moments.append(self._heap[0][0])
        if self._settled:
            moments.append(self._settle_at)
        if self._news or self._ended:
            moments.append(self._news_at)
        return min(moments) - time.monotonic() if moments else None
