"""Webhook nouns: who is told, of what, and how telling them went."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from .model import DeadLetter, JsonDict


class HookStatus(StrEnum):
    """Where a webhook delivery stands."""

    PENDING = "PENDING"  # to be sent, or to be tried again
    DELIVERED = "DELIVERED"  # the receiver said 2xx
    DEAD = "DEAD"  # given up: out of tries, refused address, or its subscription disabled; can be redelivered


@dataclass(frozen=True, kw_only=True, slots=True)
class Subscription:
    """A URL that is told of events: somebody subscribed it, or an intent named it (``notify=``)."""

    id: str
    #: Only this owner's intents; None for those of the whole house.
    owner: str | None = None
    #: "subscription", or "notify" for a URL that intents name.
    kind: str = "subscription"
    url: str
    #: Event types: exact ("intent.completed"), or all below a name ("intent.*"), or "*".
    event_types: tuple[str, ...] = ("intent.*",)
    #: What its deliveries are signed with.
    secret: str
    #: The secret before the last rotation, and until when deliveries are signed with both.
    old_secret: str | None = None
    old_secret_until: datetime | None = None
    #: True: deliveries name the event and leave its details to be fetched.
    thin: bool = False
    description: str | None = None
    created_at: datetime
    updated_at: datetime
    #: Ended by its owner: nothing is recorded for it any more.
    revoked_at: datetime | None = None
    #: Nothing is sent until it is enabled again, but what happens is recorded, to be redelivered.
    disabled_at: datetime | None = None
    disabled_reason: str | None = None
    #: Tries that failed in a row, of whatever delivery.
    failures: int = 0
    #: Nothing is sent before: it asked for time (Retry-After), or failed too often in a row.
    rests_until: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class HookEvent:
    """An event as it is told: the same for every subscription and every try."""

    #: The ``webhook-id`` of all its deliveries.
    id: str
    type: str
    owner: str | None = None
    #: The intent it is of, and its seq there; None for one that was posted.
    intent_id: str | None = None
    seq: int | None = None
    #: "ledger", or who posted it.
    source: str = "ledger"
    #: JSON text: the event as every door writes it.
    data: str
    at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class HookDelivery:
    """One event for one subscription, and its tries."""

    id: str
    event_id: str
    subscription_id: str
    intent_id: str | None = None
    type: str
    status: HookStatus = HookStatus.PENDING
    #: Tries since it was last queued; at the end of the schedule it is DEAD.
    attempts: int = 0
    #: [{"at", "status", "ms", "error"}], the last ones, oldest first.
    tries: tuple[JsonDict, ...] = ()
    #: PENDING: not before.
    next_at: datetime | None = None
    created_at: datetime
    ended_at: datetime | None = None
    last_error: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Parcel:
    """A delivery with what is needed to send it, read together."""

    delivery: HookDelivery
    event: HookEvent
    subscription: Subscription


@dataclass(frozen=True, kw_only=True, slots=True)
class Settlement:
    """What is to be written of one try."""

    was: HookDelivery
    now: HookDelivery
    #: Columns of its subscription that change with it.
    subscription: JsonDict
    letter: DeadLetter | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Schema:
    """What payloads of a type must look like."""

    #: "" for the whole house.
    owner: str = ""
    semantic_type: str
    #: JSON text.
    schema_json: str
    #: SHA-256, in hex.
    schema_hash: str
    schema_ref: str
    #: "strict", "backward" or "warn".
    compatibility_mode: str
    active: bool = True
    created_at: datetime
    updated_at: datetime
