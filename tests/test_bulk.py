"""One answer to many: each is decided on its own, and what spoils one spoils no other."""

from __future__ import annotations

import pytest

from axme_celery import BadInput, NotAllowed, NotFound, ShownChanged, WaitClosed, bulk, wait_for_human
from axme_celery.model import Status


@pytest.fixture
def ask(stage, axme):
    """``ask(**arguments)``: an intent that waits for a person, and returns who answered what."""

    @axme.task
    def asking(arguments):
        decision = wait_for_human(**({"title": "Refund?", "to": "ana", "bulk": True} | arguments))
        return [decision.outcome, decision.by, decision.comment]

    return lambda **arguments: stage.submit(asking.s(arguments))


def waits_of(stage, intents):
    return [stage.waits(intent)[0].id for intent in intents]


def test_many_waits_are_answered_at_once_with_an_event_for_each(stage, axme, ask):
    """And each intent goes on."""
    intents = [ask(title=f"Refund {n}?") for n in range(5)]

    rows = axme.answer_many(waits_of(stage, intents), "approved", by="ana", comment="all fine")
    stage.run()

    assert [(row.title, row.intent_id, row.error) for row in rows] == [
        (f"Refund {n}?", intent.id, None) for n, intent in enumerate(intents)
    ]
    for intent in intents:
        assert stage.intent(intent.id).result == ["approved", "ana", "all fine"]
        assert [e.actor for e in stage.history(intent) if e.details.get("outcome") == "approved"] == ["ana"]


def test_what_spoils_one_spoils_no_other(stage, axme, ask):
    """Each row says what became of it."""
    good, closed, others, excluded, alone, seen = (
        ask(), ask(), ask(to="ben"), ask(not_by="ana"), ask(bulk=False), ask(),
    )  # fmt: skip
    stage.answer(closed, "rejected", by="ben")
    ids = waits_of(stage, (good, closed, others, excluded, alone, seen))

    rows = bulk.answer(
        axme.runtime, [*ids, "nothing"], "approved", by="ana", groups=(), expected_hashes={ids[-1]: "0" * 64}
    )
    stage.run()

    assert [type(row.error) for row in rows] == [
        type(None), WaitClosed, NotAllowed, NotAllowed, NotAllowed, ShownChanged, NotFound,
    ]  # fmt: skip
    assert [row.error.why for row in rows[2:5]] == ["not_assigned", "excluded", "not_bulk"]
    assert stage.intent(good.id).status is Status.COMPLETED
    assert {stage.intent(i.id).status for i in (others, excluded, alone, seen)} == {Status.WAITING}


def test_an_answer_to_many_again_stands(stage, axme, ask):
    """A double click."""
    ids = waits_of(stage, [ask(quorum=2), ask()])

    first, again = (axme.answer_many(ids, "approved", by="ana") for _ in range(2))

    assert [row.error for row in (*first, *again)] == [None] * 4


def test_only_one_kind_is_answered_at_a_time(stage, axme, ask):
    """Nothing is answered where the waits are of several kinds, too many, or twice the same."""
    intents = [ask(), ask(type="review")]
    ids = waits_of(stage, intents)

    for given, words in [
        (ids, "2 kinds .approval: approved, rejected; review:"), ([], "0 waits"), ([ids[0]] * 2, "each once"),
        ([str(n) for n in range(201)], "201 waits"),
    ]:  # fmt: skip
        with pytest.raises(BadInput, match=words):
            axme.answer_many(given, "approved", by="ana")

    assert {stage.intent(intent.id).status for intent in intents} == {Status.WAITING}
