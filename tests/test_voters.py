"""Who may answer: one rule, asked by every door."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from axme_celery import BadInput, NotAllowed, wait_for_human
from axme_celery.lifecycle import barred, may_answer
from axme_celery.model import Status, Wait, WaitKind, WaitStatus

WAIT = Wait(
    id="w1", intent_id="i1", leg_id="l1", name="wait_for_human", nth=1, position=0, run=1, kind=WaitKind.HUMAN,
    title="Publish?", to=("ana", "analysts"), request={"outcomes": ["approved", "rejected"], "not_by": ["Eve"]},
    opened_at=datetime(2026, 11, 2, tzinfo=UTC),
)  # fmt: skip


@pytest.mark.parametrize(
    ("names", "by", "code"),
    [
        (None, "whoever", None),
        (("ana",), "ana", None),
        (("ben", "analysts"), "ben", None),
        (("ben", "interns"), "ben", "not_assigned"),
        ((), "ana", None),
        ((), "ben", "not_assigned"),
        (None, "Eve", "excluded"),
        (None, "EVE", "excluded"),
        (("eve", "analysts"), "eve", "excluded"),
        (("ben", "eve", "analysts"), "ben", "excluded"),
    ],
)
def test_who_is_named_may_answer_and_who_is_excluded_may_not(names, by, code):
    """By name, by group, and by the word of a caller who vouches for them; being kept out is stronger than either."""
    refusal = may_answer(WAIT, names, by)

    assert (refusal and refusal.code) == code


def test_who_has_answered_or_has_given_it_away_may_not_answer_any_more():
    """Under no spelling of their name, and whatever group they are in."""
    voted = replace(WAIT, votes=({"by": "ben@example.com", "outcome": "approved"},))
    passed_on = replace(WAIT, delegations=({"by": "ana", "to": "cara"},))

    assert may_answer(voted, ("analysts",), "Ben@Example.com").code == "voted"
    assert may_answer(passed_on, ("analysts",), "ana").code == "delegated"
    assert may_answer(passed_on, ("analysts",), "ben") is None
    assert barred(voted) == {"eve", "ben@example.com"}


def test_a_closed_wait_and_one_for_a_tool_are_nobodys_to_answer():
    """With the reason."""
    assert may_answer(replace(WAIT, status=WaitStatus.EXPIRED), None, "ana").code == "closed"
    assert may_answer(replace(WAIT, kind=WaitKind.TOOL), None, "ana").code == "not_for_people"


@pytest.fixture
def ask(stage, axme):
    """``ask(requester, **arguments)``: an intent of theirs that waits for a person, and returns their outcome."""

    @axme.task
    def asking(arguments):
        return wait_for_human(**({"title": "Publish?", "to": ["ana", "analysts"]} | arguments)).outcome

    return lambda requester=None, **arguments: stage.submit(asking.s(arguments), requester=requester)


def test_a_caller_who_says_who_somebody_is_is_held_to_whom_the_wait_is_for(stage, ask, axme):
    """Without groups it vouches for them; with groups, even none, they must be among them."""
    intent = ask()

    with pytest.raises(NotAllowed, match="for ana, analysts, and ben is none of them") as refused:
        axme.answer(intent, "approved", by="ben", groups=["interns"])
    still = stage.intent(intent.id).status
    axme.answer(intent, "approved", by="ben", groups=["analysts"])
    stage.run()

    assert refused.value.why == "not_assigned"
    assert still is Status.WAITING
    assert stage.intent(intent.id).result == "approved"


def test_who_asked_for_it_does_not_approve_it(stage, ask):
    """``not_by="requester"`` is whoever submitted the intent."""
    intent = ask("ana", not_by="requester")

    with pytest.raises(NotAllowed, match="Ana may not answer"):
        stage.answer(intent, "approved", by="Ana")

    assert stage.waits(intent)[0].request["not_by"] == ["ana"]
    assert stage.answer(intent, "approved", by="ben").result == "approved"


def test_an_intent_of_nobody_in_particular_cannot_keep_its_requester_out(stage, ask):
    """It fails instead of letting anybody approve their own request."""
    intent = ask(None, not_by=["requester", "eve"])

    assert intent.status is Status.FAILED
    assert intent.error["code"] == BadInput.__name__
    assert "requester=" in intent.error["message"]
