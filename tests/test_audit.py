"""The audit chain: any edit, removal, reordering or truncation of a history is found, and named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from axme_celery import audit
from axme_celery.model import Event, Intent, Status

NOW = datetime(2026, 10, 5, 8, 30, tzinfo=UTC)
KEY = b"a secret of the house"

#: What one event was sealed as, without a key and with it.
PLAIN = "2481f3b46a8196701f2f5512817f78b2712326ffd8350acc2f3ef372bd3cbd19"
KEYED = "h:dd4497334504edc4eabfb18924290bd7313f2ab58b296b228664d85a4d7809fe"


def event(seq: int, **fields: object) -> Event:
    given = {
        "intent_id": "i", "seq": seq, "type": "intent.reminder", "status": Status.WAITING,
        "waiting_reason": "WAITING_FOR_HUMAN", "at": NOW + timedelta(seconds=seq), "actor": "ana", "leg_id": "l",
        "details": {"number": seq, "to": ["ana", "ben"]},
    }  # fmt: skip
    return Event(**{**given, **fields})  # type: ignore[arg-type]


def history(key: bytes | None, length: int = 6) -> tuple[Intent, tuple[Event, ...]]:
    events = audit.seal_all([event(n) for n in range(1, length + 1)], audit.GENESIS, key)
    intent = Intent(
        id="i", type="t", status=Status.WAITING, seq=length, created_at=NOW, updated_at=NOW, head_hash=events[-1].hash
    )
    return intent, events


@pytest.fixture(params=[None, KEY], ids=["plain", "keyed"])
def key(request: pytest.FixtureRequest) -> bytes | None:
    found: bytes | None = request.param
    return found


def test_an_untouched_history_holds(key: bytes | None) -> None:
    intent, events = history(key)
    assert audit.verify(intent, events, key) is None


def test_an_intent_without_events_holds(key: bytes | None) -> None:
    """One that was never written."""
    assert audit.verify(replace(history(key)[0], seq=0, head_hash=audit.GENESIS), [], key) is None


@pytest.mark.parametrize("seq", range(1, 7))
@pytest.mark.parametrize(
    "altered",
    [
        {"type": "intent.voted"},
        {"status": Status.IN_PROGRESS},
        {"waiting_reason": None},
        {"at": NOW},
        {"actor": "ben"},
        {"actor": None},
        {"leg_id": None},
        {"details": {}},
        {"details": {"number": 99, "to": ["ana", "ben"]}},
        {"details": {"number": 1, "to": ["ben", "ana"]}},
    ],
    ids=str,
)
def test_an_edited_event_is_named(key: bytes | None, seq: int, altered: dict[str, object]) -> None:
    """Whichever field of whichever event."""
    intent, events = history(key)
    edited = [replace(one, **altered) if one.seq == seq else one for one in events]  # type: ignore[arg-type]
    wrong = audit.verify(intent, edited, key)
    assert wrong is not None
    assert wrong.startswith(f"event {seq} (")
    assert "was altered" in wrong


def removed(events: Sequence[Event]) -> list[Event]:
    return [one for one in events if one.seq != 3]


def removed_and_renumbered(events: Sequence[Event]) -> list[Event]:
    return [replace(one, seq=n) for n, one in enumerate(removed(events), 1)]


def swapped(events: Sequence[Event]) -> list[Event]:
    return [*events[:2], events[3], events[2], *events[4:]]


def swapped_and_renumbered(events: Sequence[Event]) -> list[Event]:
    return [replace(one, seq=n) for n, one in enumerate(swapped(events), 1)]


def doubled(events: Sequence[Event]) -> list[Event]:
    return [*events[:3], *events[2:]]


def inserted(events: Sequence[Event]) -> list[Event]:
    forged = audit.seal(event(3, actor="mallory"), events[1].hash, None)
    return [*events[:2], forged, *(replace(one, seq=one.seq + 1) for one in events[2:])]


@pytest.mark.parametrize(
    "tamper", [removed, removed_and_renumbered, swapped, swapped_and_renumbered, doubled, inserted]
)
def test_a_broken_chain_is_named_at_its_place(
    key: bytes | None, tamper: Callable[[Sequence[Event]], list[Event]]
) -> None:
    """Events that were taken out, put in or moved: found where the chain breaks, at the third or fourth."""
    intent, events = history(key)
    wrong = audit.verify(intent, tamper(events), key)
    assert wrong is not None
    assert wrong.split()[1] in {"3", "4"}


@pytest.mark.parametrize("left", range(6))
def test_a_missing_tail_is_found(key: bytes | None, left: int) -> None:
    """The chain itself cannot tell; the intent's row does."""
    intent, events = history(key)
    wrong = audit.verify(intent, events[:left], key)
    assert wrong == f"intent i is at seq 6 but its history ends at {left}: the tail is missing"


def test_a_row_that_names_another_head_is_found(key: bytes | None) -> None:
    """As when the last event was replaced by one that fits the chain."""
    intent, events = history(key)
    assert "another last event" in str(audit.verify(replace(intent, head_hash="0" * 64), events, key))
    forged = audit.seal(event(6, actor="mallory"), events[4].hash, key)
    assert "another last event" in str(audit.verify(intent, [*events[:5], forged], key))


def test_whoever_lacks_the_key_cannot_rebuild_a_keyed_chain() -> None:
    """The whole history written anew, and the head in the intent's row: with another key it does not hold."""
    intent, events = history(KEY)
    forged = audit.seal_all([replace(one, actor="mallory") for one in events], audit.GENESIS, b"a guess")
    assert "was altered" in str(audit.verify(replace(intent, head_hash=forged[-1].hash), forged, KEY))


def test_a_keyed_chain_rebuilt_without_a_key_does_not_hold() -> None:
    """Nor may it, or a part of it, be passed off as written before there was a key."""
    intent, events = history(KEY)
    forged = audit.seal_all([replace(one, actor="mallory") for one in events], audit.GENESIS, None)
    assert "without the key" in str(audit.verify(replace(intent, head_hash=forged[-1].hash), forged, KEY))

    tail = audit.seal_all([replace(one, actor="mallory") for one in events[4:]], events[3].hash, None)
    mixed = [*events[:4], *tail]
    assert "event 5 of intent i was sealed without the key" in str(
        audit.verify(replace(intent, head_hash=tail[-1].hash), mixed, KEY)
    )

    cut = forged[:2]
    assert "without the key" in str(audit.verify(replace(intent, seq=2, head_hash=cut[-1].hash), cut, KEY))


def test_what_was_written_before_there_was_a_key_is_covered_by_what_came_after() -> None:
    """A team that sets a key later keeps its histories, and from the next event on they are safe."""
    intent, events = history(None)
    later = audit.seal(event(7), events[-1].hash, KEY)
    grown, intent = (*events, later), replace(intent, seq=7, head_hash=later.hash)
    assert audit.verify(intent, grown, KEY) is None

    forged = audit.seal_all([replace(one, actor="mallory") for one in events], audit.GENESIS, None)
    assert "event 7 of intent i does not follow" in str(audit.verify(intent, [*forged, later], KEY))


def test_a_keyed_chain_cannot_be_checked_without_its_key() -> None:
    """It says so; with another key it is broken."""
    intent, events = history(KEY)
    assert "give axme_secret_key" in str(audit.verify(intent, events, None))
    assert "was altered" in str(audit.verify(intent, events, b"another key"))


def test_a_hash_of_any_characters_is_only_wrong() -> None:
    """Somebody may have written anything into the database."""
    intent, events = history(None)
    strange = [replace(events[0], hash="ü☃"), *events[1:]]
    assert "was altered" in str(audit.verify(intent, strange, None))


def test_a_hash_is_the_same_in_every_version() -> None:
    """What was sealed years ago must still hold: these were."""
    first = event(1, details={"error": {"code": "full", "share": 0.1, "why": "\u2603"}, "to": [], "none": None})
    assert audit.seal(first, audit.GENESIS, None).hash == PLAIN
    assert audit.seal(first, audit.GENESIS, KEY).hash == KEYED


def test_the_chain_does_not_depend_on_how_a_moment_is_written() -> None:
    """A ledger may give moments back in another zone or an equal form."""
    plain = audit.seal(event(1), audit.GENESIS, None)
    elsewhere = replace(event(1), at=event(1).at.astimezone(timezone(timedelta(hours=2))))
    assert audit.seal(elsewhere, audit.GENESIS, None).hash == plain.hash


def test_a_chain_goes_on_from_where_it_was(key: bytes | None) -> None:
    """Sealed in one go or change by change: the same."""
    _, events = history(key)
    head, sealed = audit.GENESIS, list[Event]()
    for n in range(1, 7):
        (one,) = audit.seal_all([event(n)], head, key)
        sealed.append(one)
        head = one.hash
    assert tuple(sealed) == events
