"""Who may answer: one rule, asked by every door."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from axme_celery import BadInput, NotAllowed, wait_for_agent, wait_for_human
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


def test_neither_who_asked_for_it_nor_who_repeated_it_approves_it(stage, ask, axme):
    """Nobody gets to approve their own request by having it replayed, were it twice, nor does who replayed it."""
    intent = ask("ana", not_by="requester", timeout="1h")
    for operator in ("cem", "dora"):
        stage.pass_time("2h")
        intent = axme.replay(intent.id, by=operator)
        stage.run()

    for name in ("ana", "Cem", "dora"):
        with pytest.raises(NotAllowed, match="its not_by excludes them"):
            stage.answer(intent, "approved", by=name)

    assert stage.answer(intent, "approved", by="ben").result == "approved"


@pytest.mark.parametrize("way", ["agent", "node", "callback"])
def test_who_asked_for_an_intent_does_not_approve_what_it_has_begun(stage, axme, way):
    """Neither as the work of an agent that it gives work to, nor as a callback."""

    @axme.task
    def approving(*_):
        return wait_for_human("Pay?", to=["ana", "ben"], not_by="requester").by

    @axme.task
    def parent(*_):
        return wait_for_agent(approving.s()) if way == "agent" else 1

    work = parent.s()
    if way == "node":
        work |= wait_for_agent.s(approving.s())
    elif way == "callback":
        work.link(approving.s())
        work |= parent.s()
    stage.submit(work, requester="ana")

    (wait,) = stage.inbox("ben")
    assert axme.inbox("ana").items == []
    with pytest.raises(NotAllowed, match="its not_by excludes them"):
        stage.answer(wait, "approved", by="ana")
    assert stage.answer(wait, "approved", by="ben").result == "ben"


def test_what_was_begun_by_an_intent_of_nobody_in_particular_keeps_nobody_out_either(stage, axme, ask):
    """Nor does it help that an operator replays it, or that the intent it goes back to has been pruned."""

    @axme.task
    def approving():
        return wait_for_human("Pay?", to="ana", not_by="requester").by

    @axme.task
    def parent():
        return wait_for_agent(approving.s())

    begun = stage.submit(parent.s())
    replayed = axme.replay(ask(None, not_by="requester").id, by="cem")
    expired = ask("ana", not_by="requester", timeout="1h")
    stage.pass_time("1h")
    orphan = axme.replay(expired.id, by="cem")
    axme.runtime.ledger.prune([expired.id])
    stage.run()

    assert begun.error["code"] == "agent_failed" and "requester=" in str(begun.error)
    assert "requester=" in replayed.refresh().error["message"]
    assert f"{expired.id}, which this one goes back to, is not in this ledger" in orphan.refresh().error["message"]
