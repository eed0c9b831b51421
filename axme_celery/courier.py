"""The courier: sends webhook deliveries, many at once, apart from everything else.

It runs in whatever process commits events or sweeps, from one thread that talks to the ledger and a bounded number of
others that each make one call. A receiver that is slow occupies few of those and only for the deadline of a call; one
that keeps failing is given a single call at a time, and rests in between. What is in hand when the process dies is
due again a little after the deadline, with the same id and body.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime

from . import webhook
from .errors import AxmeError, BadInput
from .failure import storable
from .forkgate import ForkGate
from .hooks import Parcel, Settlement, Subscription
from .outbound import post
from .ports import Runtime
from .webhook import Answer

log = logging.getLogger(__name__)

#: Calls under way to one subscription, in one process.
PER_SUBSCRIPTION = 4
#: A delivery in hand is due again this long after its deadline, should its process have died.
MARGIN_SECONDS = 5.0
#: After the ledger failed it is left alone for so long.
PAUSE_SECONDS = 1.0

#: (URL, body, headers) -> how it went.
Call = Callable[[str, bytes, dict[str, str]], Answer]


def attempt(parcel: Parcel, call: Call, now: datetime) -> Answer:
    """One try of a delivery.

    While a secret is being rotated, a receiver that refuses the signature is asked once more with the one before.
    """
    event, subscription = parcel.event, parcel.subscription
    body = webhook.body(event, thin=subscription.thin)
    answer = call(subscription.url, body, webhook.headers(event, subscription, body, now))
    if answer.status in (401, 403) and webhook.usable_old_secret(subscription, now) is not None:
        answer = call(subscription.url, body, webhook.headers(event, subscription, body, now, by_old=True))
    return answer


def room(in_hand: Counter[str]) -> Callable[[Subscription], int]:
    """How many more deliveries of a subscription may be taken in hand."""

    def of(subscription: Subscription) -> int:
        most = 1 if subscription.failures >= webhook.PATIENCE else PER_SUBSCRIPTION
        return most - in_hand[subscription.id]

    return of


class Courier:
    """One per process, started when there is something to deliver; a forked child starts its own."""

    def __init__(self, runtime: Callable[[], Runtime], call: Call | None = None) -> None:
        self._runtime = runtime
        self._call = call or self._post
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._gate = ForkGate()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._woken = self._busy = self._closing = self._put_off = False
        self._in_hand: Counter[str] = Counter()
        self._tried: list[Settlement] = []

    def wake(self) -> None:
        """There may be deliveries to send; returns at once."""
        with self._changed:
            self._woken = True
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="axme-courier", daemon=True)
                self._thread.start()
            self._changed.notify()

    def drain(self, seconds: float, *, everything: bool = False) -> bool:
        """Take nothing more in hand and wait for what is; with ``everything``, for all that is due. True when done."""
        until = time.monotonic() + seconds
        self._closing = not everything
        try:
            while self._is_at_work(everything):
                if time.monotonic() >= until:
                    return False
                time.sleep(0.01)
            return True
        finally:
            self._closing = False

    def _is_at_work(self, everything: bool) -> bool:
        with self._changed:
            if self._thread is None:
                return False
            at_work = self._busy or bool(self._tried) or self._in_hand.total() > 0
            return at_work or (everything and self._woken)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                while not self._woken and not self._tried and (self._closing or not self._put_off):
                    self._changed.wait(PAUSE_SECONDS if self._put_off else None)
                self._busy, self._woken, self._put_off = True, False, False
                tried, self._tried = self._tried, []
            try:
                with self._gate:
                    self._turn(tried)
            except AxmeError as error:
                log.warning("courier: %s; %d tries are made again", error, len(tried))
                time.sleep(PAUSE_SECONDS)
                self._again(tried)
            except Exception:
                log.exception("courier: %d tries are made again", len(tried))
                time.sleep(PAUSE_SECONDS)

    def _turn(self, tried: list[Settlement]) -> None:
        rt = self._runtime()
        most = rt.settings.webhook_concurrency
        # A process that is drained mostly ends, and leaves it to others; this one may go on, and looks again later.
        self._put_off = self._closing
        free = 0 if self._closing else most - self._in_hand.total()
        if not tried and (free <= 0 or not rt.ledger.hooks.is_due()):
            return
        hold = rt.settings.webhook_deadline_seconds + MARGIN_SECONDS
        parcels = rt.ledger.hooks.turn(tried, free, room(self._in_hand), hold)
        with self._changed:
            for parcel in parcels:
                self._in_hand[parcel.subscription.id] += 1
        for parcel in parcels:
            threading.Thread(target=self._deliver, args=(rt, parcel), name="axme-webhook", daemon=True).start()

    def _again(self, tried: list[Settlement]) -> None:
        """The ledger was away: keep in mind what was tried, so that it need not be sent again."""
        with self._changed:
            self._tried = [*tried, *self._tried]

    def _deliver(self, rt: Runtime, parcel: Parcel) -> None:
        settlement: Settlement | None = None
        try:
            now = rt.ledger.now()
            answer = attempt(parcel, self._call, now)
            settlement = webhook.settle(parcel, answer, rt.settings.webhook_retry_seconds, now, rt.new_id)
            if settlement.letter is not None:
                log.error(
                    "webhook delivery %s of intent %s is given up: %s",
                    parcel.delivery.id, parcel.delivery.intent_id, settlement.now.last_error,
                    extra={"intent": parcel.delivery.intent_id, "delivery": parcel.delivery.id},
                )  # fmt: skip
        except Exception:
            # Unsettled it comes back by itself when its hold ends.
            log.exception("webhook delivery %s", parcel.delivery.id)
        finally:
            with self._changed:
                self._in_hand[parcel.subscription.id] -= 1
                if settlement is not None:
                    self._tried.append(settlement)
                self._woken = True
                self._changed.notify()

    def _post(self, url: str, body: bytes, headers: dict[str, str]) -> Answer:
        settings = self._runtime().settings
        began = time.monotonic()
        status = retry_after = error = None
        refused = False
        try:
            reply = post(
                url, body, headers,
                deadline_seconds=settings.webhook_deadline_seconds, allow_cidrs=settings.webhook_allow_cidrs,
            )  # fmt: skip
            status, retry_after = reply.status, reply.retry_after
        except BadInput as wrong:
            error, refused = storable(str(wrong))[:500], True
        except OSError as wrong:
            error = storable(str(wrong))[:500]
        spent = round((time.monotonic() - began) * 1000)
        return Answer(status=status, retry_after=retry_after, error=error, refused=refused, milliseconds=spent)
