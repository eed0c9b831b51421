"""Relay the outbox: hand each delivery to the sender of its kind, and settle how that went.

Deliveries are rows with ids, removed only once sent, so whatever happens
between sending and removing is a repeat, never a loss. Every receiver can take
a repeat: a leg's second message finds its run taken, a parent's wait is closed
once, a notice carries a stable id.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

from .errors import AxmeError
from .model import DeadLetter, Delivery, DeliveryKind
from .ports import Runtime, Sender

log = logging.getLogger(__name__)

#: Tries before a delivery becomes a dead letter; None is for ever: what an intent needs to go on is never given up.
MAX_TRIES: dict[DeliveryKind, int | None] = {
    DeliveryKind.LEG: None,
    DeliveryKind.RESULT: 50,
    DeliveryKind.NOTICE: 12,
    DeliveryKind.COMPLETION: None,
    DeliveryKind.CANCEL: None,
    DeliveryKind.POLL: 1,
}
#: The longest pause between two tries.
LONGEST_PAUSE_SECONDS = {DeliveryKind.NOTICE: 3600.0, DeliveryKind.RESULT: 600.0}
USUAL_LONGEST_PAUSE_SECONDS = 30.0


def send_all(rt: Runtime, senders: Mapping[DeliveryKind, Sender], deliveries: Sequence[Delivery]) -> int:
    """Send each delivery and settle all of them in the outbox. Returns how many were sent.

    A sender that fails spoils only its own delivery, except that after one failure to publish the rest of that
    kind are put back at once: a broker that is down is not asked a thousand times.
    """
    sent: list[str] = []
    failed: list[Delivery] = []
    dead: list[tuple[Delivery, DeadLetter]] = []
    broken: dict[DeliveryKind, str] = {}
    for delivery in deliveries:
        why = broken.get(delivery.kind)
        if why is None:
            try:
                senders[delivery.kind](delivery)
                sent.append(delivery.id)
                continue
            except Exception as error:
                why = f"{type(error).__name__}: {error}"[:1000]
                log.warning(
                    "%s delivery %s of intent %s failed (try %d): %s",
                    delivery.kind.value, delivery.id, delivery.intent_id, delivery.attempts + 1, why,
                    extra={"intent": delivery.intent_id, "delivery": delivery.id},
                )  # fmt: skip
                if delivery.kind is DeliveryKind.LEG and not isinstance(error, AxmeError):
                    broken[delivery.kind] = why
        _sort_failed(rt, delivery, why, failed, dead)
    rt.ledger.outbox_settle(sent, failed, dead)
    return len(sent)


def _sort_failed(
    rt: Runtime, delivery: Delivery, why: str, failed: list[Delivery], dead: list[tuple[Delivery, DeadLetter]]
) -> None:
    tries = delivery.attempts + 1
    limit = MAX_TRIES[delivery.kind]
    now = rt.ledger.now()
    if limit is not None and tries >= limit:
        letter = DeadLetter(
            id=rt.new_id(), kind="delivery", intent_id=delivery.intent_id, leg_id=delivery.leg_id,
            delivery_id=delivery.id, code=f"{delivery.kind.value.lower()}_undeliverable", reason=why, at=now,
        )  # fmt: skip
        dead.append((delivery, letter))
        return
    failed.append(replace(delivery, attempts=tries, last_error=why, next_at=now + pause(delivery.kind, tries)))


def pause(kind: DeliveryKind, tries: int) -> timedelta:
    """How long to wait after this many failed tries: doubling from one second, with full jitter above half."""
    longest = LONGEST_PAUSE_SECONDS.get(kind, USUAL_LONGEST_PAUSE_SECONDS)
    return timedelta(seconds=min(longest, 2.0 ** min(tries - 1, 20)) * random.uniform(0.5, 1.0))
