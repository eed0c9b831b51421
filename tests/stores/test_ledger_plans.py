"""Pipelines in the ledger, on both databases: what follows what, joins that count, and all that ends with an intent."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from axme_celery import lifecycle
from axme_celery.errors import StaleChange
from axme_celery.graph import Join, JoinStatus
from axme_celery.ids import uuid7
from axme_celery.ledger import SqlLedger
from axme_celery.model import Change, Checkpoint, Intent, Leg, LegStatus, Status

from .ledgers import claim, held, human_wait, occasion, recorded


def chord(ledger: SqlLedger, members: int, **fields: object) -> tuple[Intent, list[Leg], Join]:
    """A submitted chord: so many members, queued, and a body that follows their join."""
    on, intent_id = occasion(ledger), uuid7()
    intent = Intent(
        id=intent_id, type="export", status=Status.CREATED, created_at=on.now, updated_at=on.now, work_hash="w" * 64
    )
    join = Join(id=uuid7(), intent_id=intent_id, node="header", size=members, left=members, followers=1)
    legs = [leg_of(intent_id, n, join_id=join.id, join_index=n, within=join.id) for n in range(members)]
    body = leg_of(intent_id, members, after=join.id, plan={"takes": True})
    ledger.commit(
        lifecycle.submit_plan(intent, [*legs, body], [join], [lifecycle.Turn(leg=leg) for leg in legs], on=on)
    )
    written = ledger.intent(intent_id)
    assert written is not None
    return written, ledger.legs(intent_id), join


def leg_of(intent_id: str, position: int, **fields: object) -> Leg:
    leg_id = uuid7()
    return Leg(
        id=leg_id, intent_id=intent_id, task="export", status=LegStatus.PENDING, position=position,
        node=f"[{position}]", created_at=uuid_moment(),
        signature={"task": "export", "args": [], "kwargs": {}, "options": {"task_id": leg_id}}, **fields,  # type: ignore[arg-type]
    )  # fmt: skip


def uuid_moment():  # type: ignore[no-untyped-def]
    from datetime import UTC, datetime

    return datetime(2026, 10, 5, tzinfo=UTC)


def ends(ledger: SqlLedger, leg: Leg) -> Change:
    """A member is claimed, and ends."""
    ledger.commit(claim(ledger, leg.id))
    record = recorded(ledger, leg.id)
    (written,) = ledger.commit(
        lifecycle.complete(
            record.intent, record.leg, str(leg.position), guard_at=None, token=uuid7(), on=occasion(ledger)
        )
    )
    return written


def passed(ledger: SqlLedger, join_id: str) -> Sequence[Change]:
    record = ledger.join_record(join_id)
    assert record is not None
    result = f"[{','.join(ledger.members(join_id))}]"
    turns = [lifecycle.Turn(leg=leg, value=result) for leg in ledger.following(join_id, 10)]
    return ledger.commit(
        lifecycle.pass_join(record.intent, record.join, result, turns, more=False, busy=False, on=occasion(ledger))
    )


def test_a_pipeline_is_written_whole_and_only_its_first_legs_are_queued(ledger: SqlLedger) -> None:
    """The others are there from the beginning, waiting for their turn."""
    intent, legs, join = chord(ledger, 3)

    assert [leg.status for leg in legs] == [LegStatus.QUEUED] * 3 + [LegStatus.PENDING]
    assert [leg.position for leg in legs] == [0, 1, 2, 3]
    assert ledger.joins(intent.id) == [join]
    assert [leg.id for leg in ledger.following(join.id, 10)] == [legs[3].id]


def test_what_follows_many_is_told_of_each_as_if_it_were_asked_alone(ledger: SqlLedger) -> None:
    """The first so many of each in the order of the canvas, and none whose turn has been."""
    on, intent_id = occasion(ledger), uuid7()
    intent = Intent(
        id=intent_id, type="export", status=Status.CREATED, created_at=on.now, updated_at=on.now, work_hash="w" * 64
    )
    heads = [leg_of(intent_id, n, followers=n) for n in range(4)]
    # Written in another order than that of the canvas, and those of one head not side by side.
    places = [(head, 10 * turn + head.position) for turn in (2, 0, 1) for head in heads if turn < head.position]
    tails = [leg_of(intent_id, place, after=head.id, plan={"takes": True}) for head, place in places]
    begun = [*heads, next(tail for tail in tails if tail.position == 2)]
    ledger.commit(
        lifecycle.submit_plan(intent, [*heads, *tails], [], [lifecycle.Turn(leg=leg) for leg in begun], on=on)
    )
    afters = [*(head.id for head in reversed(heads)), "nobody"]

    for limit in (1, 2, 10):
        alone = {after: ledger.following(after, limit) for after in afters}
        assert ledger.following_each(afters, limit) == {after: legs for after, legs in alone.items() if legs}
    assert [[leg.position for leg in ledger.following(head.id, 2)] for head in heads] == [[], [1], [12], [3, 13]]
    assert ledger.following_each([], 10) == {}


def test_the_last_member_of_a_join_is_told_that_it_was_the_last(ledger: SqlLedger) -> None:
    """And nobody else."""
    _, legs, join = chord(ledger, 3)

    assert [ends(ledger, leg).reached for leg in legs[:3]] == [(), (), (join.id,)]
    assert ledger.full_joins(10) == [join.id]
    assert ledger.members(join.id) == ["0", "1", "2"]


def test_members_that_end_at_once_are_all_counted_and_one_is_the_last(ledger: SqlLedger) -> None:
    """However many at a time; their intent's own row is touched by none."""
    intent, legs, join = chord(ledger, 40)
    ends(ledger, legs[0])
    before = ledger.intent(intent.id)
    with ThreadPoolExecutor(8) as threads:
        reached = [change.reached for change in threads.map(lambda leg: ends(ledger, leg), legs[1:40])]

    assert [one for one in reached if one] == [(join.id,)]
    assert ledger.intent(intent.id) == before
    assert len(ledger.members(join.id)) == 40


def test_a_join_is_passed_once(ledger: SqlLedger) -> None:
    """By whoever comes first; the other is told that it is stale."""
    _, legs, join = chord(ledger, 2)
    for leg in legs[:2]:
        ends(ledger, leg)
    record = ledger.join_record(join.id)
    assert record is not None
    turns = [lifecycle.Turn(leg=legs[2], value="[0,1]")]
    on = occasion(ledger)
    twice = [
        lifecycle.pass_join(record.intent, record.join, "[0,1]", turns, more=False, busy=False, on=on) for _ in range(2)
    ]
    ledger.commit(twice[0])

    with pytest.raises(StaleChange):
        ledger.commit(twice[1])
    assert ledger.full_joins(10) == []
    body = recorded(ledger, legs[2].id).leg
    assert (body.status, body.signature["args"]) == (LegStatus.QUEUED, ["[0,1]"])


def test_a_member_that_was_counted_cannot_be_counted_again(ledger: SqlLedger) -> None:
    """The end of its leg and the count are one commit."""
    _, legs, join = chord(ledger, 2)
    ledger.commit(claim(ledger, legs[0].id))
    record = recorded(ledger, legs[0].id)
    same = lifecycle.complete(record.intent, record.leg, "0", guard_at=None, token=uuid7(), on=occasion(ledger))
    ledger.commit(same)

    with pytest.raises(StaleChange):
        ledger.commit(same)
    found = ledger.join_record(join.id)
    assert found is not None and found.join.left == 1


def test_whatever_is_open_ends_with_the_intent_however_much_it_is(ledger: SqlLedger) -> None:
    """Legs and joins; what is done stays done, and what runs can record nothing more."""
    intent, legs, _ = chord(ledger, 5)
    ends(ledger, legs[0])
    ledger.commit(claim(ledger, legs[1].id))
    running = recorded(ledger, legs[1].id)
    current = ledger.intent(intent.id)
    assert current is not None
    ledger.commit(lifecycle.cancel(current, legs[:2], [], reason="no need", by="ana", on=occasion(ledger)))

    assert [leg.status for leg in ledger.legs(intent.id)] == [LegStatus.DONE] + [LegStatus.CANCELED] * 5
    assert [join.status for join in ledger.joins(intent.id)] == [JoinStatus.CANCELED]
    with pytest.raises(StaleChange):
        ledger.commit(
            lifecycle.complete(running.intent, running.leg, "1", guard_at=None, token=uuid7(), on=occasion(ledger))
        )
    pages = [ledger.canceled_legs(intent.id, "", 3)]
    pages.append(ledger.canceled_legs(intent.id, pages[0][-1].id, 3))
    assert sorted(leg.position for page in pages for leg in page) == [1, 2, 3, 4, 5]


def test_an_intent_rests_when_it_waits_and_nothing_of_it_goes_on(ledger: SqlLedger) -> None:
    """Neither queued nor running nor about to be."""
    intent, legs, join = chord(ledger, 2)
    assert (ledger.rests(intent.id), ledger.is_busy(intent.id)) == (False, True)
    ledger.commit(claim(ledger, legs[0].id))
    record = recorded(ledger, legs[0].id)
    wait = human_wait(ledger, record.leg)
    ledger.commit(*lifecycle.open_wait(record.intent, record.leg, wait, busy=True, on=occasion(ledger)))
    beside = ledger.rests(intent.id)
    ends(ledger, legs[1])

    assert (beside, ledger.rests(intent.id), ledger.is_busy(intent.id)) == (False, True, False)
    assert [one.id for one in ledger.open_waits(intent.id)] == [wait.id]
    assert ledger.full_joins(10) == [] and join.left == 2


def test_a_join_grows_only_while_it_has_not_all_its_members(ledger: SqlLedger) -> None:
    """By one, and as decided on."""
    intent, legs, join = chord(ledger, 1)
    ledger.commit(claim(ledger, legs[0].id))
    more = leg_of(intent.id, 9, join_id=join.id, join_index=1, within=join.id)
    added = lifecycle.add_member(intent_now(ledger, intent), join.id, 1, [more], [], [lifecycle.Turn(leg=more)],
                                 on=occasion(ledger))  # fmt: skip
    checkpoint = Checkpoint(leg_id=legs[0].id, name="add_to_chord", nth=1, position=0, run=1)
    ledger.commit(replace(added, fence=held(legs[0].id), checkpoints=(checkpoint,)))
    found = ledger.join_record(join.id)
    assert found is not None and (found.join.size, found.join.left) == (2, 2)
    another = leg_of(intent.id, 10, join_id=join.id, join_index=1, within=join.id)
    stale = lifecycle.add_member(intent_now(ledger, intent), join.id, 1, [another], [], [lifecycle.Turn(leg=another)],
                                 on=occasion(ledger))  # fmt: skip
    with pytest.raises(StaleChange):
        ledger.commit(stale)


def intent_now(ledger: SqlLedger, intent: Intent) -> Intent:
    found = ledger.intent(intent.id)
    assert found is not None
    return found


def test_what_a_replaced_leg_had_recorded_moves_to_the_leg_that_stands_for_it(ledger: SqlLedger) -> None:
    """In the commit that replaces it."""
    _, legs, _ = chord(ledger, 1)
    ledger.commit(claim(ledger, legs[0].id))
    ledger.commit(
        Change(fence=held(legs[0].id), checkpoints=(Checkpoint(leg_id=legs[0].id, name="s", nth=1, position=0, run=1),))
    )
    record = recorded(ledger, legs[0].id)
    before = replace(record.leg, id=uuid7(), status=LegStatus.DONE, join_id=None)
    becomes = replace(record.leg, status=LegStatus.PENDING, run=2, token="", task="other")
    ledger.commit(
        lifecycle.replace_leg(
            record.intent, record.leg, before, [becomes], [], [lifecycle.Turn(leg=becomes)], on=occasion(ledger)
        )
    )

    assert recorded(ledger, before.id).leg.task == "export"
    assert [one.name for one in ledger.checkpoints(record.intent.id)] == ["s"]
    assert ledger.checkpoint(before.id, "s", 1) is not None and ledger.checkpoint(legs[0].id, "s", 1) is None
    assert recorded(ledger, legs[0].id).leg.task == "other"


def test_a_pruned_pipeline_leaves_nothing(ledger: SqlLedger) -> None:
    """Neither legs nor joins."""
    intent, _, join = chord(ledger, 2)
    ledger.prune([intent.id])

    assert (ledger.legs(intent.id), ledger.join_record(join.id)) == ([], None)


def test_ten_thousand_legs_are_written_in_one_transaction(ledger: SqlLedger) -> None:
    """And counted like any other."""
    intent, legs, join = chord(ledger, 10_000)

    assert len(legs) == 10_001
    assert ends(ledger, legs[5000]).reached == ()
    found = ledger.join_record(join.id)
    assert found is not None and found.join.left == 9_999 and found.intent.id == intent.id
