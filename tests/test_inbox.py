"""Inboxes: what somebody may answer is what they find there, in the order in which it is wanted."""

from __future__ import annotations

import contextlib
import random

import pytest

from axme_celery import BadInput, NotAllowed, WaitClosed, inbox, wait_for_human
from axme_celery.ledger import people
from axme_celery.lifecycle import may_answer
from axme_celery.model import WaitStatus

NAMES = ("ana", "ben", "cara", "Dan", "analysts", "managers")


@pytest.fixture
def stage(stage_on_each_database):
    """On SQLite, and on PostgreSQL."""
    return stage_on_each_database


@pytest.fixture
def ask(stage, axme):
    """``ask(title, **arguments)``: an intent that waits for a person."""

    @axme.task
    def asking(arguments):
        return wait_for_human(**({"to": "ana"} | arguments)).outcome

    def submit(title="?", details=None, **arguments):
        return stage.submit(asking.s({"title": title} | arguments), **(details or {}))

    return submit


def found(stage, by=None, groups=(), **wanted):
    """The titles in an inbox, read in pages of three, which is as many as it counts."""
    rt, limit = stage.axme.runtime, 3
    query = inbox.query(rt, by, groups, **wanted)
    titles, after = [], None
    while True:
        page = inbox.page(rt, query, after=after, limit=limit)
        assert len(page.items) == limit or page.next is None
        titles += [item.wait.title for item in page.items]
        if page.next is None:
            break
        after = page.next
    assert inbox.count(rt, query) == len(titles)
    return titles


def test_an_inbox_has_what_is_asked_of_a_person_and_of_their_groups_each_once(stage, ask):
    """In pages; what others are asked is not in it, and what is asked twice over is in it once."""
    ask("one", to="ana")
    ask("two", to=["analysts", "ana", "managers"])
    ask("three", to="managers")
    ask("four", to="ben")

    assert found(stage, "ana") == ["one", "two"]
    assert found(stage, "ana", ["analysts", "managers"]) == ["one", "two", "three"]
    assert found(stage, "eve") == []
    assert found(stage) == ["one", "two", "three", "four"], "everybody's"


def test_what_is_overdue_comes_first_and_what_nobody_waits_for_last(stage, ask):
    """Then as answers are wanted; equal ones as they were opened."""
    ask("whenever")
    ask("in three hours", due="3h")
    ask("in an hour", due="1h", timeout="9h")
    ask("in two hours", timeout="2h")
    ask("whenever, too")
    stage.pass_time("90m")

    page = inbox.page(stage.axme.runtime, inbox.query(stage.axme.runtime, "ana"))

    assert [item.wait.title for item in page.items] == [
        "in an hour", "in two hours", "in three hours", "whenever", "whenever, too",
    ]  # fmt: skip
    assert [item.overdue for item in page.items] == [True, False, False, False, False]
    assert found(stage, "ana", overdue=True) == ["in an hour"]
    assert found(stage, "ana", sort="opened")[0] == "whenever"
    assert found(stage, "ana", sort="newest")[0] == "whenever, too"


@pytest.mark.parametrize("few", [0, 5000])
def test_an_inbox_can_be_narrowed_down(stage, axme, ask, few, monkeypatch):
    """By the intent's type, owner and tag, be it a rare one or one of many; and by what kind of answer is asked for."""
    monkeypatch.setattr(people, "FEW", few)
    ask("a", type="review", details={"tags": ["eu"], "type": "report"})
    ask("b", details={"tags": ["eu", "us"], "type": "refund"})
    ask("c", type="form", form={"type": "object"}, details={"type": "report"})

    assert found(stage, "ana", tag="eu") == found(stage, "ana", ["x", "analysts"], tag="eu") == ["a", "b"]
    assert found(stage, "ana", type="report") == ["a", "c"]
    assert found(stage, "ana", type="report", tag="eu") == ["a"]
    assert found(stage, "ana", task_type="form") == ["c"]
    assert found(stage, "ana", task_type="override") == found(stage, "ana", owner="acme") == []


def test_who_has_answered_or_given_it_away_does_not_find_it_any_more(stage, axme, ask):
    """Others do, until it is closed; then it is among what was closed."""
    intent = ask("quorum", to="analysts", quorum=2)
    axme.answer(intent, "approved", by="ana", groups=["analysts"])
    axme.delegate(intent, "dan", by="ben", groups=["analysts"])

    assert [found(stage, who, ["analysts"]) for who in ("ana", "Ana", "ben", "cara")] == [[], [], [], ["quorum"]]
    assert found(stage, "dan") == ["quorum"]
    stage.answer(intent, "approved", by="cara")
    assert found(stage, "cara", ["analysts"]) == found(stage) == []
    assert found(stage, "ana", ["analysts"], closed=True) == found(stage, closed=True) == ["quorum"]


def test_what_was_closed_is_found_last_closed_first(stage, axme, ask):
    """Answered, timed out or canceled."""
    answered, _, canceled = ask("answered"), ask("timed out", timeout="1h"), ask("canceled")
    stage.pass_time("1h")
    axme.cancel(canceled.id, "r", by="ops")
    stage.pass_time("1h")
    stage.answer(answered, "approved", by="ana")

    assert found(stage, "ana", closed=True) == ["answered", "canceled", "timed out"]
    assert found(stage, "ana") == []


def test_more_time_moves_it_down_and_escalation_puts_it_on_another_desk(stage, axme, ask):
    """What the wait says now is where it is."""
    soon = ask("soon", timeout="2h")
    ask("later", timeout="3h", escalate_to="boss", escalate_after="150m")
    before = found(stage, "ana")

    axme.extend(stage.waits(soon)[0], "9h", by="ops")
    stage.pass_time("150m")

    assert (before, found(stage, "ana")) == (["soon", "later"], ["later", "soon"])
    assert found(stage, "boss") == ["later"]


def test_counting_stops_where_nobody_counts_any_further(stage, ask):
    """A title says "3+" without every row being looked at."""
    for _ in range(5):
        ask()

    assert inbox.count(stage.axme.runtime, inbox.query(stage.axme.runtime, "ana"), most=3) == 3


@pytest.mark.parametrize("after", ["", "x", "bm90IGpzb24", "W10", "WzEsIDJd", "WyIyMDI2LTAxLTAxIiwgIngiXQ"])
def test_a_place_no_page_gave_out_is_refused(stage, after):
    """As is one of a list in another order."""
    rt = stage.axme.runtime

    with pytest.raises(BadInput, match="no place in an inbox"):
        inbox.page(rt, inbox.query(rt, "ana"), after=after)
    with pytest.raises(BadInput, match="sort is"):
        inbox.query(rt, "ana", sort="title; DROP TABLE axme_waits")


def test_the_inbox_and_the_rule_agree_on_who_may_answer(stage, axme, ask):
    """Whoever somebody is and whatever was done before: a wait is in their inbox exactly when they may answer it."""
    dice = random.Random(5)
    intents = []
    for n in range(25):
        to = dice.sample(NAMES, dice.randint(1, 3))
        not_by = dice.sample([*NAMES, "ANA", "Managers"], dice.randint(0, 2))
        intents.append(ask(f"w{n}", to=to, not_by=not_by, quorum=3))
    for intent in intents:
        for _ in range(dice.randint(0, 3)):
            who, groups = dice.choice(NAMES[:4]), dice.sample(NAMES[4:], dice.randint(0, 2))
            with contextlib.suppress(NotAllowed, WaitClosed, BadInput):
                if dice.random() < 0.5:
                    axme.answer(intent, dice.choice(["approved", "rejected"]), by=who, groups=groups)
                else:
                    axme.delegate(intent, dice.choice([*NAMES, "eve"]), by=who, groups=groups)

    waits = [stage.waits(intent)[0] for intent in intents]
    compared = 0
    for who in (*NAMES, "eve", "ANA", "dan"):
        for groups in ((), ("analysts",), ("managers",), ("analysts", "managers"), ("Analysts", "eve")):
            expected = [w.title for w in waits if may_answer(w, groups, who) is None]
            assert found(stage, who, groups, sort="opened") == expected
            compared += len(expected)
    assert {w.status for w in waits} == {WaitStatus.OPEN, WaitStatus.ANSWERED}
    assert compared > 50


def test_the_extension_gives_pages_of_an_inbox(stage, axme, ask):
    """With the intent of each wait, and where to go on."""
    for n in range(3):
        ask(f"w{n}", to="analysts")

    first = axme.inbox("ana", groups=["analysts"], limit=2)
    second = axme.inbox("ana", groups=["analysts"], limit=2, after=first.next)

    assert [item.wait.title for item in (*first.items, *second.items)] == ["w0", "w1", "w2"]
    assert (first.items[0].intent.id, second.next) == (first.items[0].wait.intent_id, None)
