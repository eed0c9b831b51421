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
from datetime import UTC

from .model import Event, Intent

#: Where a chain starts.
GENESIS = ""

_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


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
    """What is wrong with an intent's history, naming the first bad event; None when it holds.

    With a key its end must have been sealed with it. What was written before there was a key is then vouched for by
    what came after, for each link covers all before it.
    """
    head, seq = GENESIS, 0
    for event in events:
        seq += 1
        if event.seq != seq:
            return f"event {seq} of intent {intent.id} is missing (found seq {event.seq} in its place)"
        if event.prev_hash != head:
            return f"event {seq} of intent {intent.id} does not follow the one before it"
        if _is_keyed(event.hash) and key is None:
            return f"event {seq} of intent {intent.id} was sealed with a key; give axme_secret_key to check it"
        if _is_keyed(head) and not _is_keyed(event.hash):
            return f"event {seq} of intent {intent.id} was sealed without the key that those before it were sealed with"
        expected = _digest(event, head, key if _is_keyed(event.hash) else None)
        if not hmac.compare_digest(event.hash.encode(), expected.encode()):
            return f"event {seq} ({event.type}) of intent {intent.id} was altered after it was written"
        head = event.hash
    if intent.seq != seq:
        return f"intent {intent.id} is at seq {intent.seq} but its history ends at {seq}: the tail is missing"
    if intent.head_hash != head:
        return f"intent {intent.id} names another last event than its history has"
    if key is not None and seq and not _is_keyed(head):
        return (
            f"event {seq} of intent {intent.id} was sealed without the key: before axme_secret_key was set, "
            f"or since then by someone who does not have it"
        )
    return None


def _is_keyed(sealed: str) -> bool:
    # "h:" marks a link made with a key; without one anybody may check it.
    return sealed.startswith("h:")


def _digest(event: Event, prev_hash: str, key: bytes | None) -> str:
    body = _canonical(
        [
            prev_hash,
            event.intent_id,
            event.seq,
            event.type,
            event.status.value,
            event.waiting_reason,
            event.at.astimezone(UTC).isoformat(),
            event.actor,
            event.leg_id,
            event.details,
        ]
    ).encode()
    if key is None:
        return hashlib.sha256(body).hexdigest()
    return "h:" + hmac.new(key, body, hashlib.sha256).hexdigest()
