"""The rules of the live part are themselves shown bad histories, and must say so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from axme_celery.model import Intent, Leg, Status, Wait, WaitKind

from .checker import Finding, Rule
from .facts import History, IntentFacts
from .live import Times, kept_once, reclaimed_after_crash, timed
from .nemeses import ALL, BY_NAME, Act, Hand, Nemesis, done, least

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def facts(id: str, key: str | None = None, parent_wait: str | None = None, waits: Sequence[str] = ()) -> IntentFacts:
    """An intent that completed, with waits for agents of these ids."""
    intent = Intent(
        id=id, type="chaos.reference", status=Status.COMPLETED, key=key, parent_wait_id=parent_wait, created_at=NOW,
        updated_at=NOW, ended_at=NOW,
    )  # fmt: skip
    leg = Leg(
        id=f"leg-{id}", intent_id=id, task="chaos.reference", signature={"args": [key or "child"]}, created_at=NOW
    )
    made = tuple(
        Wait(
            id=wait, intent_id=id, leg_id=leg.id, name="wait_for_agent", nth=n, position=n, run=1, kind=WaitKind.AGENT,
            title="agent", opened_at=NOW,
        )
        for n, wait in enumerate(waits)
    )  # fmt: skip
    return IntentFacts(intent=intent, events=(), leg=leg, waits=made)


def history(*intents: IntentFacts, lines: Sequence[dict[str, Any]] = ()) -> History:
    return History(lines=lines, intents={f.intent.id: f for f in intents})


def body(intent: str, run: int, second: float) -> dict[str, Any]:
    return {"ev": "B", "intent": intent, "run": run, "t": round(second * 1e9)}


def call(op: str, id: str, began: float, ended: float, ev: str = "ok") -> list[dict[str, Any]]:
    return [
        {"ev": "invoke", "op": op, "id": id, "t": round(began * 1e9)},
        {"ev": ev, "op": op, "id": id, "t": round(ended * 1e9)},
    ]


# -- each submission is one intent -----------------------------------------------


def test_intents_of_their_own_and_children_of_a_wait_are_in_order():
    """One intent a key, one child a wait."""
    family = facts("a", "intent-1", waits=["w"])
    assert list(kept_once(history(family, facts("b", "intent-2"), facts("c", parent_wait="w")))) == []


@pytest.mark.parametrize(
    ("intents", "said"),
    [
        ([facts("a", "intent-1"), facts("b", "intent-1")], "2 intents have the key intent-1"),
        ([facts("a", None)], "1 intents have the key None"),
        (
            [facts("a", "intent-1", waits=["w"]), facts("b", parent_wait="w"), facts("c", parent_wait="w")],
            "2 child intents for wait w, which is there",
        ),
        ([facts("b", parent_wait="w")], "1 child intents for wait w, which is not there"),
    ],
    ids=["twice", "without a key", "two children", "orphan"],
)
def test_a_submission_or_a_child_made_twice_is_found(intents, said):
    """A retried submit that made a second intent, a wait that made a second child."""
    assert Finding(Rule.LOST, "", said) in list(kept_once(history(*intents)))


def test_a_refused_submission_is_found():
    """The crowd submits nothing that may be refused."""
    refused = {"ev": "fail", "op": "submit", "key": "intent-1", "why": "KeyConflict", "t": 1}
    assert [f.rule for f in kept_once(history(lines=[refused]))] == [Rule.LOST]


# -- runs that start twice ----------------------------------------------------------


def test_a_run_that_starts_again_after_the_database_crashed_is_known_as_such():
    """Its claim may have been forgotten; a run that starts twice without a crash in between is none of these."""
    crash = Act("crash postgres", began=10.0, ended=12.0, count=1)
    lines = [body("forgotten", 1, 9.5), body("twice", 1, 13.0), body("forgotten", 1, 14.0), body("twice", 1, 15.0)]
    assert reclaimed_after_crash(lines, [crash]) == {"forgotten"}


def test_one_crash_does_not_excuse_three_starts():
    """Each pair of starts needs a crash of its own."""
    crash = Act("crash postgres", began=10.0, ended=12.0, count=1)
    lines = [body("a", 1, 9.0), body("a", 1, 13.0), body("a", 1, 14.0), body("b", 1, 9.0), body("b", 2, 13.0)]
    assert reclaimed_after_crash(lines, [crash]) == set()


# -- times and counts -----------------------------------------------------------------


def test_calls_are_timed_apart_that_were_under_way_while_the_broker_hung():
    """Begun before and ended within counts as well; unknown outcomes are timed like the others."""
    hang = Act("hang redis", began=10.0, ended=13.0, count=1)
    lines = [
        *call("submit", "1", 1.0, 1.25),
        *call("submit", "2", 9.9, 10.4, "info"),
        *call("answer", "3", 11.0, 11.1, "fail"),
        *call("cancel", "4", 11.0, 12.9),
    ]
    hung, usual = timed(lines, [hang])

    assert (hung["submit"].count, round(hung["submit"].longest)) == (1, 500)
    assert (hung["answer"].count, round(hung["answer"].longest)) == (1, 100)
    assert hung["complete_tool"] == Times(0, 0.0, 0.0, 0.0)
    assert (usual["submit"].count, round(usual["submit"].p50)) == (1, 250)
    assert set(hung) == set(usual) == {"submit", "answer", "complete_tool"}


def test_the_99th_of_a_hundred_is_the_second_longest():
    """And the longest is said too."""
    times = Times.of([n / 1000 for n in range(1, 101)])
    assert (times.count, round(times.p50), round(times.p99), round(times.longest)) == (100, 51, 99, 100)


def test_what_each_nemesis_must_have_done_grows_with_the_time():
    """Rounded up: one that must act every two minutes acts in half a minute too."""
    some = [replace(ALL[0], least=0.5), replace(ALL[1], least=4)]
    assert least(some, 30) == {ALL[0].name: 1, ALL[1].name: 2}
    assert least(some, 300) == {ALL[0].name: 3, ALL[1].name: 20}


def test_acts_that_found_nothing_to_act_on_do_not_count():
    """A kill without a child to kill is no kill."""
    acts = [Act("kill child", 1, 2, 1), Act("kill child", 2, 3, 0), Act("copy messages", 3, 4, 7)]
    assert done(acts) == {"kill child": 1, "copy messages": 7}


def test_every_nemesis_is_listed_once_and_has_to_act():
    """A nemesis that need not act could be broken for ever."""
    assert len({n.name for n in ALL}) == len(ALL)
    assert all(isinstance(n, Nemesis) and n.least > 0 and n.weight > 0 for n in ALL)


def test_each_nemesis_comes_once_before_any_comes_again():
    """On a slow machine, too, a run reaches all that it means to."""
    hand = Hand(None, ALL, "1", 0.0)

    first = [nemesis.name for nemesis, _ in zip(hand._order(), ALL, strict=False)]

    assert sorted(first) == sorted(BY_NAME)
