"""A webhook as it goes out: its body, its signatures, and what an answer to it means.

Bodies and headers are Standard Webhooks 1.0.0 (``webhook-id``, ``webhook-timestamp``, ``webhook-signature``), with
``X-Axme-Signature: sha256=<hex>`` over the raw body beside them for receivers that know AXP's scheme.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import random
import re
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime

from .durations import utc_iso
from .errors import BadInput
from .hooks import HookDelivery, HookEvent, HookStatus, Parcel, Settlement, Subscription
from .model import DeadLetter, JsonDict

#: A receiver may ask for this long a pause, and no longer.
LONGEST_PAUSE_SECONDS = 86400.0
#: A subscription that failed so often in a row rests between tries, twice as long each time, up to a limit.
PATIENCE, LONGEST_REST_SECONDS = 5, 300.0
#: Answers that mean "not now".
_BUSY = frozenset({429, 502, 503, 504})

#: Tries of one delivery that are kept on record.
_RECORDED = 20

_TYPE = re.compile(r"(\*|[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*(\.\*)?)")


# -- who is told of what -------------------------------------------------------


def patterns(given: Iterable[str]) -> tuple[str, ...]:
    """Event types as they are kept: "intent.completed", "intent.*" or "*". Raises BadInput."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise BadInput(f'event types are {str(given)[:80]!r}; give a list, like ["intent.*"]')
    kept = tuple(dict.fromkeys(given))
    if not 1 <= len(kept) <= 32:
        raise BadInput(f"there are {len(kept)} event types; give 1 to 32")
    for each in kept:
        if not isinstance(each, str) or len(each) > 120 or not _TYPE.fullmatch(each):
            raise BadInput(
                f'{str(each)[:80]!r} is no event type; write "intent.completed", "intent.*" for all below, or "*"'
            )
    return kept


def matches(wanted: Sequence[str], type: str) -> bool:
    """Whether one of these patterns is for events of this type."""
    return any(each in ("*", type) or (each.endswith(".*") and type.startswith(each[:-1])) for each in wanted)


# -- what is sent --------------------------------------------------------------


def body(event: HookEvent, *, thin: bool) -> bytes:
    """The bytes of a delivery: the same at every try.

    ``data`` is the event, byte for byte as every other door writes it; thin, only what is needed to go and fetch it.
    """
    data = event.data
    if thin:
        names = ("intent_id", "seq", "event_type", "status", "at")
        whole = json.loads(data)
        data = _compact({name: whole[name] for name in names if name in whole} if isinstance(whole, dict) else {})
    head = {"id": event.id, "type": event.type, "timestamp": utc_iso(event.at)}
    if event.intent_id is not None:
        head["intent_id"] = event.intent_id
    # Put together as text: reading and writing the event again could change its bytes.
    return (_compact(head)[:-1] + ',"data":' + data + "}").encode()


def headers(
    event: HookEvent, subscription: Subscription, payload: bytes, now: datetime, *, by_old: bool = False
) -> dict[str, str]:
    """What goes before the body at a try made now.

    While a rotation is under way ``webhook-signature`` carries both secrets' signatures. ``X-Axme-Signature`` has
    room for one: the new secret's, or with ``by_old`` the one's before it.
    """
    from standardwebhooks import Webhook

    keys = [subscription.secret]
    old = usable_old_secret(subscription, now)
    if old is not None:
        keys.append(old)
    text = payload.decode()
    signatures = " ".join(Webhook(_standard(key)).sign(event.id, now, text) for key in keys)
    plain = keys[-1] if by_old else keys[0]
    return {
        "Content-Type": "application/json",
        "webhook-id": event.id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signatures,
        "X-Axme-Signature": "sha256=" + hmac.new(plain.encode(), payload, hashlib.sha256).hexdigest(),
    }


def usable_old_secret(subscription: Subscription, now: datetime) -> str | None:
    """The secret before the rotation, while that is under way."""
    until = subscription.old_secret_until
    return subscription.old_secret if until is not None and until > now else None


def new_secret() -> str:
    """A secret in Standard Webhooks' form: "whsec_" and 32 random bytes."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def checked_secret(secret: str) -> str:
    """A secret somebody chose. Raises BadInput, without showing it."""
    if not isinstance(secret, str) or not 16 <= len(secret) <= 128 or not secret.isascii() or not secret.isprintable():
        raise BadInput("secret must be 16 to 128 printable ASCII characters; leave it out to have one made")
    if secret.startswith("whsec_"):
        try:
            size = len(base64.b64decode(secret[6:], validate=True))
        except ValueError:
            raise BadInput("secret begins with whsec_ and is then not base64") from None
        if size < 16:
            raise BadInput(f"secret has {size} bytes behind whsec_; at least 16 are needed")
    return secret


def hint(secret: str) -> str:
    """As much of a secret as may be shown, to tell it from others."""
    return f"…{secret[-4:]}"


def _standard(secret: str) -> str:
    # The library wants base64; a secret chosen freely is its own bytes.
    return secret if secret.startswith("whsec_") else base64.b64encode(secret.encode()).decode()


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


# -- what an answer means ------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """How one try went."""

    #: HTTP status; None where there was no answer.
    status: int | None
    #: The Retry-After header as it came.
    retry_after: str | None = None
    #: What went wrong, where there was no answer.
    error: str | None = None
    #: Trying again is of no use: the address may not be called.
    refused: bool = False
    milliseconds: int = 0

    @property
    def delivered(self) -> bool:
        """Only 2xx counts as received; a redirect is not followed."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def gone(self) -> bool:
        """410: the receiver wants nothing any more."""
        return self.status == 410

    @property
    def words(self) -> str | None:
        """Why it was not received; None when it was."""
        return None if self.delivered else self.error or f"answered {self.status}; only 2xx counts as received"


def asked_pause(answer: Answer, now: datetime) -> float:
    """Seconds the receiver asked to be left alone, 0 when it did not ask; at most a day."""
    text = (answer.retry_after or "").strip()
    if not text or answer.status not in _BUSY:
        return 0.0
    if re.fullmatch(r"[0-9]{1,9}", text):
        asked = float(text)
    else:
        try:
            asked = (parsedate_to_datetime(text) - now).total_seconds()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return max(0.0, min(asked, LONGEST_PAUSE_SECONDS))


def next_try(attempts: int, schedule: Sequence[float], asked_seconds: float, now: datetime) -> datetime | None:
    """When to try again after so many failed tries: with jitter, and not before the receiver wants; None to give up."""
    if attempts > len(schedule):
        return None
    pause = schedule[attempts - 1] * random.uniform(0.5, 1.0)
    return now + timedelta(seconds=max(pause, asked_seconds))


def rest(failures: int, asked_seconds: float, now: datetime) -> datetime | None:
    """Until when its whole subscription is left alone after this failure; None when it is not."""
    own = min(LONGEST_REST_SECONDS, 2.0 ** min(failures - PATIENCE, 20)) if failures >= PATIENCE else 0.0
    longest = max(own * random.uniform(0.5, 1.0), asked_seconds)
    return now + timedelta(seconds=longest) if longest > 0 else None


def settle(
    parcel: Parcel, answer: Answer, schedule: Sequence[float], now: datetime, new_id: Callable[[], str]
) -> Settlement:
    """What is to be written of this try: received, to be tried again, or given up."""
    was, subscription = parcel.delivery, parcel.subscription
    tried = {"at": utc_iso(now), "status": answer.status, "ms": answer.milliseconds, "error": answer.words}
    tries = (*was.tries, {name: value for name, value in tried.items() if value is not None})[-_RECORDED:]
    done = replace(was, attempts=was.attempts + 1, tries=tries, next_at=None, ended_at=now, last_error=answer.words)
    if answer.delivered:
        calm: JsonDict = {"failures": 0, "rests_until": None} if subscription.failures else {}
        return Settlement(was=was, now=replace(done, status=HookStatus.DELIVERED), subscription=calm)
    asked = asked_pause(answer, now)
    again = None if answer.gone or answer.refused else next_try(done.attempts, schedule, asked, now)
    if answer.gone:
        ended = {"disabled_at": now, "disabled_reason": "disabled: it answered 410 Gone", "updated_at": now}
    else:
        failures = subscription.failures + 1
        ended = {"failures": failures, "rests_until": rest(failures, asked, now)}
    if again is not None:
        pending = replace(done, status=HookStatus.PENDING, next_at=again, ended_at=None)
        return Settlement(was=was, now=pending, subscription=ended)
    dead = replace(done, status=HookStatus.DEAD)
    return Settlement(was=was, now=dead, subscription=ended, letter=_letter(dead, now, new_id))


def _letter(delivery: HookDelivery, now: datetime, new_id: Callable[[], str]) -> DeadLetter | None:
    # One that is of no intent stays on record as the DEAD delivery it is.
    if delivery.intent_id is None:
        return None
    return DeadLetter(
        id=new_id(), kind="delivery", intent_id=delivery.intent_id, delivery_id=delivery.id, at=now,
        code="webhook_undeliverable", reason=f"{delivery.type} after {delivery.attempts} tries: {delivery.last_error}",
    )  # fmt: skip
