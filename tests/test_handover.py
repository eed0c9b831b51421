"""Waits passed on, and given more time: by whom, to whom, and what the history says of it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from axme_celery import (
    BadInput,
    IntentEnded,
    NotAllowed,
    NotFound,
    ShownChanged,
    WaitClosed,
    wait_for_human,
    wait_for_time,
)
from axme_celery.model import Status


@pytest.fixture
def ask(stage, axme):
    """``ask(**arguments)``: an intent that waits for a person, and returns who answered what."""

    @axme.task
    def asking(arguments):
        decision = wait_for_human(**({"title": "Publish?", "to": "ana"} | arguments))
        return [decision.outcome, decision.by]

    return lambda arguments=None, **details: stage.submit(asking.s(arguments or {}), **details)


def wait_of(stage, intent):
    return stage.waits(intent)[0]


def last_event(stage, intent):
    return stage.history(intent)[-1]


# -- delegating ---------------------------------------------------------------------------


def test_whoever_delegates_is_replaced_and_cannot_answer_any_more(stage, axme, ask):
    """It leaves their inbox for the other's; the history says who, to whom and why."""
    intent = ask({"to": ["ana", "ben"]})

    axme.delegate(intent, "cara", by="ana", reason="on leave")
    stage.run()
    with pytest.raises(NotAllowed, match="has delegated"):
        stage.answer(intent, "approved", by="ana")

    assert wait_of(stage, intent).to == ("cara", "ben")
    assert [len(stage.inbox(who)) for who in ("ana", "ben", "cara")] == [0, 1, 1]
    told = last_event(stage, intent)
    assert (told.type, told.actor) == ("intent.delegated", "ana")
    assert (told.details["to"], told.details["reason"]) == ("cara", "on leave")
    assert [(n.kind, n.to) for n in stage.notices][-1] == ("delegated", ("cara",))
    assert stage.answer(intent, "approved", by="cara").result == ["approved", "cara"]


def test_one_of_a_group_adds_whom_they_delegate_to(stage, axme, ask):
    """The others of the group may still answer; who delegated may not, though they are in it."""
    intent = ask({"to": "analysts"})

    axme.delegate(intent, "cara", by="ana", groups=["analysts"])
    with pytest.raises(NotAllowed, match="has delegated"):
        axme.answer(intent, "approved", by="ana", groups=["analysts"])

    assert wait_of(stage, intent).to == ("analysts", "cara")
    axme.answer(intent, "approved", by="ben", groups=["analysts"])


@pytest.mark.parametrize(
    ("asked", "to", "by", "groups", "error", "words"),
    [
        ({}, "cara", "ben", (), NotAllowed, "ben may not delegate: .* none of them"),
        ({"not_by": "cara"}, "cara", "ana", None, NotAllowed, "cara may not answer"),
        ({"not_by": "cara"}, "Cara", "ana", None, NotAllowed, "Cara may not answer"),
        ({"not_by": "ana"}, "cara", "ana", None, NotAllowed, "ana may not delegate"),
        ({}, "ana", "ana", None, NotAllowed, "ana may not answer"),
        ({"to": ["ana", "ben"]}, "ben", "ana", None, BadInput, "for ben already"),
        ({"delegates": False}, "cara", "ana", None, NotAllowed, "to nobody, not to cara"),
        ({"delegates": ["ben", "dan"]}, "cara", "ana", None, NotAllowed, "only to ben, dan, not to cara"),
        ({}, "not a name", "ana", None, BadInput, "no assignee"),
        ({}, "cara", "", None, BadInput, "by is ''"),
    ],
)
def test_a_delegation_that_may_not_be_changes_nothing(stage, axme, ask, asked, to, by, groups, error, words):
    """Neither by who may not answer, nor to who may not."""
    intent = ask(asked)
    before = wait_of(stage, intent), stage.intent(intent.id).seq

    with pytest.raises(error, match=words):
        axme.delegate(intent, to, by=by, groups=groups)

    assert (wait_of(stage, intent), stage.intent(intent.id).seq) == before


def test_what_was_delegated_cannot_be_given_back(stage, axme, ask):
    """Else two people could pass a quorum to and fro between them."""
    intent = ask({"quorum": 2, "to": ["ana", "ben"]})
    axme.delegate(intent, "cara", by="ana")

    with pytest.raises(NotAllowed, match="ana may not answer"):
        axme.delegate(intent, "ana", by="cara")
    axme.answer(intent, "approved", by="cara")
    with pytest.raises(NotAllowed, match=r"cara may not delegate: .*already answered"):
        axme.delegate(intent, "dan", by="cara")


def test_allowed_delegates_are_taken(stage, axme, ask):
    """``delegates`` names whom it may be left to."""
    intent = ask({"delegates": ["ben", "dan"]})

    axme.delegate(intent, "dan", by="ana")

    assert wait_of(stage, intent).to == ("dan",)


# -- reassigning --------------------------------------------------------------------------


def test_an_operator_puts_others_in_the_place_of_all(stage, axme, ask):
    """Those who are new hear of it; votes that were given stay."""
    intent = ask({"to": ["ana", "ben"], "quorum": 2})
    stage.answer(intent, "approved", by="ana")

    axme.reassign(intent, ["ben", "managers"], by="ops", reason="ana left")
    stage.run()

    told = last_event(stage, intent)
    assert (told.type, told.actor, told.details["was"]) == ("intent.reassigned", "ops", ["ana", "ben"])
    assert (told.details["to"], told.details["reason"]) == (["ben", "managers"], "ana left")
    assert [(n.kind, n.to) for n in stage.notices][-1] == ("reassigned", ("managers",))
    assert [len(stage.inbox(who)) for who in ("ana", "ben", "managers")] == [0, 1, 1]
    assert stage.answer(intent, "approved", by="ben").result == ["approved", "ben"]


@pytest.mark.parametrize(
    ("to", "error", "words"),
    [("ana", BadInput, "for ana already"), ("eve", NotAllowed, "none of eve"), ([], BadInput, "1 to 20 names")],
)
def test_nobody_is_put_in_charge_who_could_not_answer(stage, axme, ask, to, error, words):
    """And to whom it is assigned already, it is not assigned again."""
    intent = ask({"not_by": "eve"})

    with pytest.raises(error, match=words):
        axme.reassign(intent, to, by="ops")

    assert wait_of(stage, intent).to == ("ana",)


# -- more time ----------------------------------------------------------------------------


def test_a_wait_is_given_more_time(stage, axme, ask):
    """It times out at the later moment and not at the earlier one."""
    intent = ask({"timeout": "1h", "on_timeout": "rejected"})
    first = wait_of(stage, intent).timeout_at

    axme.extend(wait_of(stage, intent), "2h", by="ops", reason="ana is in a meeting")
    told = last_event(stage, intent)
    stage.pass_time("2h")
    still = stage.intent(intent.id).status
    stage.pass_time("1h")

    assert (told.type, told.actor, told.details["reason"]) == ("intent.extended", "ops", "ana is in a meeting")
    assert told.details["was"] == first.isoformat()
    assert still is Status.WAITING
    assert stage.intent(intent.id).result == ["rejected", "clock"]


def test_an_intent_is_given_a_later_deadline(stage, axme, ask):
    """By a moment, as well as by a span."""
    intent = ask({}, deadline="1h")

    axme.extend(intent.id, until=stage.now + timedelta(hours=3), by="ops")
    stage.pass_time("2h")
    still = stage.intent(intent.id).status
    axme.extend(intent.id, "30m", by="ops")
    stage.pass_time("80m")
    then = stage.intent(intent.id).status
    stage.pass_time("10m")

    assert (still, then) == (Status.WAITING, Status.WAITING)
    assert stage.intent(intent.id).status is Status.TIMED_OUT
    with pytest.raises(IntentEnded):
        axme.extend(intent.id, "1h", by="ops")


def test_only_what_ends_can_be_put_off_and_only_to_later(stage, axme, ask):
    """Each refusal says why."""
    endless, short = ask(), ask({"timeout": "1h"})

    for target, span, words in [
        (endless.id, {"duration": "1h"}, "no deadline"),
        (wait_of(stage, endless), {"duration": "1h"}, "no timeout"),
        (wait_of(stage, short), {"until": stage.now + timedelta(minutes=5)}, "later moment"),
        (wait_of(stage, short), {"duration": "0s"}, "longer than nothing"),
        (wait_of(stage, short), {}, "one of them"),
        (wait_of(stage, short), {"duration": "1h", "until": stage.now}, "one of them"),
    ]:
        with pytest.raises(BadInput, match=words):
            axme.extend(target, by="ops", **span)
    with pytest.raises(NotFound):
        axme.extend("nothing", "1h", by="ops")


def test_a_sleep_is_not_extended(stage, axme):
    """It waits for a moment, not for somebody who is late."""

    @axme.task
    def sleeping():
        wait_for_time("1h")

    intent = stage.submit(sleeping.s())

    with pytest.raises(BadInput, match="no timeout that could be put off"):
        axme.extend(stage.waits(intent)[0], "1h", by="ops")


def test_a_closed_wait_is_neither_passed_on_nor_extended(stage, axme, ask):
    """Who closed it is told."""
    intent = ask({"timeout": "1d"})
    wait = wait_of(stage, intent)
    stage.answer(intent, "approved", by="ana")

    for late in (
        lambda: axme.delegate(wait, "cara", by="ana"),
        lambda: axme.reassign(wait, "cara", by="ops"),
        lambda: axme.extend(wait, "1h", by="ops"),
    ):
        with pytest.raises(WaitClosed, match="answered by ana"):
            late()


# -- what was approved is what runs ---------------------------------------------------------


def test_an_answer_to_what_was_shown_is_taken_and_to_anything_else_is_not(stage, axme, ask):
    """The hash of what the person saw goes with their answer; it is in the history of both."""
    intent = ask({"context": {"rows": 12}})
    wait = wait_of(stage, intent)

    with pytest.raises(ShownChanged, match="nothing was changed") as changed:
        axme.answer(wait, "approved", by="ana", expected_hash="0" * 64)
    still = stage.intent(intent.id).status
    stage.run()
    axme.answer(wait, "approved", by="ana", expected_hash=wait.payload_hash)

    assert (changed.value.current, still) == (wait.payload_hash, Status.WAITING)
    told = {e.type: e.details.get("payload_hash") for e in stage.history(intent)}
    assert told["intent.human_task_assigned"] == told["intent.in_progress"] == wait.payload_hash


def test_what_was_altered_in_the_ledger_since_it_was_opened_cannot_be_approved(stage, axme, ask):
    """Whoever can write the database cannot have something else approved."""
    from sqlalchemy import update

    from axme_celery.ledger import tables as t

    intent = ask({"context": {"rows": 12}})
    wait = wait_of(stage, intent)
    with stage.engine.connect() as connection, connection.begin():
        connection.execute(update(t.waits).values(request=wait.request | {"context": {"rows": 1_000_000}}))

    with pytest.raises(ShownChanged, match="since it was opened"):
        axme.answer(wait_of(stage, intent), "approved", by="ana")


def test_different_things_to_see_have_different_hashes(stage, axme, ask):
    """The title, the context, the form, the outcomes, the intent's payload: each of them counts."""
    seen = [
        ask({}), ask({"title": "Publish it?"}), ask({"context": {"a": 1}}), ask({"context": {"a": "1"}}),
        ask({"form": {"type": "object"}}), ask({"type": "review"}), ask({}, payload={"other": True}),
    ]  # fmt: skip

    assert len({wait_of(stage, intent).payload_hash for intent in seen}) == len(seen)
    assert wait_of(stage, ask({"to": "ben"})).payload_hash != wait_of(stage, seen[0]).payload_hash, (
        "the payload differs"
    )
    assert wait_of(stage, ask({})).payload_hash == wait_of(stage, seen[0]).payload_hash


def test_code_that_would_go_on_with_something_else_than_was_approved_is_parked(stage, axme):
    """What it shows is reckoned anew by every run; if it is not what was approved, nothing happens with it."""
    rows, done = [12], []

    @axme.task
    def publishing():
        decision = wait_for_human("Publish?", to="ana", context={"rows": rows[0]})
        done.append((decision.outcome, rows[0]))

    refused, approved, accepted = (stage.submit(publishing.s()) for _ in range(3))
    rows[0] = 1_000_000
    stage.answer(refused, "rejected", by="ana")
    parked = [stage.answer(intent, "approved", by="ana").legs()[0].parked for intent in (approved, accepted)]
    before = list(done)
    axme.unpark(accepted.id, by="ops", accept_drift=True)
    rows[0] = 12
    axme.unpark(approved.id, by="ops")
    stage.run()

    assert all("ana said approved to 'Publish?' as it was shown" in why for why in parked)
    assert before == [("rejected", 1_000_000)], "a no authorises nothing, so it goes on"
    assert done[1:] == [("approved", 12)] * 2
    assert {stage.intent(i.id).status for i in (refused, approved, accepted)} == {Status.COMPLETED}
