"""The audit chain: each event carries the hash of the one before.

An edited, removed or reordered event breaks the chain at its place. A removed
tail is noticed because the intent row names the last seq and hash. With a
secret key the hashes are HMACs, so that whoever can write the database but
does not know the key cannot rebuild the chain either.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable
from dataclasses import replace

from .model import Event, Intent

#: Where a chain starts.
GENESIS = ""


def seal(event: Event, prev_hash: str, key: bytes | None) -> Event:
    """The event with its place in the chain filled in."""
    return replace(event, prev_hash=prev_hash, hash=_digest(event, prev_hash, key))


def seal_all(events: Iterable[Event], head: str, key: bytes | None) -> tuple[Event, ...]:
    """Seal events in order, from the chain's present head."""
    sealed = []
    for event in events:
        event = seal(event, head, key)
        head = event.hash
        sealed.append(event)
    return tuple(sealed)


def verify(intent: Intent, events: Iterable[Event], key: bytes | None) -> str | None:
    """What is wrong with an intent's history, naming the first bad event; None when it holds."""
    head, seq = GENESIS, 0
    for event in events:
        seq += 1
        if event.seq != seq:
            return f"event {seq} of intent {intent.id} is missing (found seq {event.seq} in its place)"
        if event.prev_hash != head:
            return f"event {seq} of intent {intent.id} does not follow the one before it"
        if not hmac.compare_digest(event.hash, _digest(event, head, _key_of(event, key))):
            return f"event {seq} ({event.type}) of intent {intent.id} was altered after it was written"
        head = event.hash
    if intent.seq != seq:
        return f"intent {intent.id} is at seq {intent.seq} but its history ends at {seq}: the tail is missing"
    if intent.head_hash != head:
        return f"intent {intent.id} names another last event than its history has"
    return None


def _key_of(event: Event, key: bytes | None) -> bytes | None:
    # "h:" marks a chain link made with a key; without one anybody may check it.
    if event.hash.startswith("h:"):
        return key if key is not None else b""
    return None


def _digest(event: Event, prev_hash: str, key: bytes | None) -> str:
    body = json.dumps(
        [
            prev_hash,
            event.intent_id,
            event.seq,
            event.type,
            event.status.value,
            event.waiting_reason,
            event.at.isoformat(),
            event.actor,
            event.leg_id,
            event.details,
        ],
        sort_keys=True,
        separators=(",", ":"),
    ).encode()
    if key is None:
        return hashlib.sha256(body).hexdigest()
    return "h:" + hmac.new(key, body, hashlib.sha256).hexdigest()
