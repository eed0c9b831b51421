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
from dataclasses import dataclass, field, replace
from datetime import timedelta

from .errors import AxmeError, LedgerUnavailable
from .failure import storable
from .fanout import fan_out
from .model import DeadLetter, Delivery, DeliveryKind
from .ports import Runtime, Sender

log = logging.getLogger(__name__)

#: What an intent needs to go on is never given up: tried again after at most so long.
LONGEST_PAUSE_SECONDS = 30.0
#: Telling Celery's result backend of an end: tried for some days.
RESULT_TRIES, RESULT_LONGEST_PAUSE_SECONDS = 200, 3600.0


@dataclass(frozen=True)
class Outcome:
    """How sending went; ``settle`` writes it to the outbox."""

    sent: list[str] = field(default_factory=list)
    failed: list[Delivery] = field(default_factory=list)
    dead: list[tuple[Delivery, DeadLetter]] = field(default_factory=list)


def settle(rt: Runtime, outcome: Outcome) -> None:
    """Remove what was sent, put back what failed, file what ran out of tries."""
    rt.ledger.outbox_settle(outcome.sent, outcome.failed, outcome.dead)


def send_all(rt: Runtime, senders: Mapping[DeliveryKind, Sender], deliveries: Sequence[Delivery]) -> Outcome:
    """Send each delivery. The caller settles the outcome: until then, whatever was sent would be sent again.

    A sender that fails spoils only its own delivery, except that after one failure to publish the rest of that
    kind are put back at once: a broker that is down is not asked a thousand times.
    """
    outcome = Outcome()
    fanouts = [delivery for delivery in deliveries if delivery.kind is DeliveryKind.FANOUT]
    deliveries = [delivery for delivery in deliveries if delivery.kind is not DeliveryKind.FANOUT]
    broken: dict[DeliveryKind, str] = {}
    for delivery in deliveries:
        why = broken.get(delivery.kind)
        if why is None:
            try:
                senders[delivery.kind](delivery)
                outcome.sent.append(delivery.id)
                continue
            except Exception as error:
                why = storable(f"{type(error).__name__}: {error}")[:1000]
                log.warning(
                    "%s delivery %s of intent %s failed (try %d): %s",
                    delivery.kind.value, delivery.id, delivery.intent_id, delivery.attempts + 1, why,
                    extra={"intent": delivery.intent_id, "delivery": delivery.id},
                )  # fmt: skip
                if delivery.kind is DeliveryKind.LEG and not isinstance(error, AxmeError):
                    broken[delivery.kind] = why
        if delivery.kind is DeliveryKind.POLL:
            # Not worth a second try: the wait's next poll asks anew.
            outcome.sent.append(delivery.id)
        else:
            _sort_failed(rt, delivery, why, outcome)
    # Last, and all at once: it is the ledger's work alone, and what waits for a broker goes first.
    if fanouts:
        _fan_out(rt, fanouts, outcome)
    return outcome


def _fan_out(rt: Runtime, fanouts: Sequence[Delivery], outcome: Outcome) -> None:
    try:
        fan_out(rt, fanouts)
    except LedgerUnavailable:
        raise
    except Exception as error:
        if len(fanouts) > 1:
            # One that cannot be told must not keep the others from it.
            for one in fanouts:
                _fan_out(rt, [one], outcome)
            return
        log.exception("events of intent %s could not be told", fanouts[0].intent_id)
        _sort_failed(rt, fanouts[0], storable(f"{type(error).__name__}: {error}")[:1000], outcome)


def _sort_failed(rt: Runtime, delivery: Delivery, why: str, outcome: Outcome) -> None:
    tries = delivery.attempts + 1
    now = rt.ledger.now()
    again_in = pause(delivery.kind, tries, rt.settings.webhook_retry_seconds)
    if again_in is None:
        letter = DeadLetter(
            id=rt.new_id(), kind="delivery", intent_id=delivery.intent_id, leg_id=delivery.leg_id,
            delivery_id=delivery.id, code=f"{delivery.kind.value.lower()}_undeliverable", reason=why, at=now,
        )  # fmt: skip
        outcome.dead.append((delivery, letter))
        return
    outcome.failed.append(replace(delivery, attempts=tries, last_error=why, next_at=now + again_in))


def pause(kind: DeliveryKind, tries: int, notice_seconds: Sequence[float]) -> timedelta | None:
    """How long to wait after this many failed tries, with jitter; None when it is given up."""
    match kind:
        case DeliveryKind.NOTICE:
            longest = notice_seconds[tries - 1] if tries <= len(notice_seconds) else None
        case DeliveryKind.RESULT:
            longest = min(RESULT_LONGEST_PAUSE_SECONDS, 2.0 ** min(tries, 20)) if tries < RESULT_TRIES else None
        case _:
            longest = min(LONGEST_PAUSE_SECONDS, 2.0 ** min(tries - 1, 20))
    return None if longest is None else timedelta(seconds=longest * random.uniform(0.5, 1.0))
