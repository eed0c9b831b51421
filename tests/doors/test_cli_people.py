"""delegate, reassign, extend, bulk, and show of a wait: what people do with waits besides answering them."""

from __future__ import annotations

import json
import uuid

import pytest

from .command_line import desk_fixture, served_fixture  # noqa: F401


def wait_of(intent):
    return intent.waits()[0]


def test_a_wait_is_left_to_somebody_else_by_one_it_is_for(served):
    """With the reason in the history; nobody else may give it away."""
    me, you = uuid.uuid4().hex, uuid.uuid4().hex
    intent = served.waiting("doors.ask", {"to": [me, "analysts"]})

    refused = served.run("delegate", intent.id, you, "--by", "eve", "--group", "interns", code=1)
    said = served.run("delegate", intent.id, you, "--by", me, "--reason", "on leave").stdout
    again = served.run("answer", intent.id, "approved", "--by", me, code=1)

    assert "eve is none of them" in refused.stderr
    assert said == f"{me} left it to {you}; intent {intent.id} waits for them\n"
    assert wait_of(intent).to == (you, "analysts")
    assert [(e.actor, e.details["reason"]) for e in intent.events() if e.type == "intent.delegated"] == [
        (me, "on leave")
    ]
    assert "has delegated" in again.stderr
    assert served.json("answer", intent.id, "approved", "--by", you, "--group", "x")["id"] == intent.id


def test_a_wait_is_given_to_others(served):
    """All at once."""
    intent = served.waiting("doors.ask", {"to": "ana"})

    document = served.json("reassign", wait_of(intent).id, "ben", "managers", "--by", "ops", "--reason", "ana left")

    assert document["id"] == intent.id
    assert wait_of(intent).to == ("ben", "managers")
    assert "is for managers, ben already" in served.run("reassign", intent.id, "managers", "ben", code=1).stderr


def test_a_wait_and_an_intent_are_given_more_time(served):
    """By so much, or until a moment."""
    intent = served.waiting("doors.ask", {"timeout": "1h"}, deadline="1d")
    wait, deadline = wait_of(intent), intent.deadline_at

    served.run("extend", wait.id, "2h", "--by", "ops")
    said = served.run("extend", intent.id, "--until", "2999-01-01T00:00:00Z", "--reason", "it takes long").stdout

    assert (wait_of(intent).timeout_at - wait.timeout_at).total_seconds() == 7200
    assert said == "it has until 2999-01-01T00:00:00+00:00 now\n"
    assert intent.refresh().deadline_at > deadline
    for words, code in (
        (["extend", wait.id], 2), (["extend", wait.id, "1h", "--until", "2999-01-01T00:00:00Z"], 2),
        (["extend", wait.id, "--until", "soon"], 2), (["extend", wait.id, "--until", "2001-01-01T00:00:00Z"], 1),
        (["extend", str(uuid.uuid4()), "1h"], 3),
    ):  # fmt: skip
        served.run(*words, code=code)


def test_what_is_closed_is_refused_with_who_closed_it(served):
    """With its own exit code."""
    intent = served.waiting("doors.ask", {"timeout": "1h"})
    served.axme.answer(intent.id, "approved", by="ana")
    wait = wait_of(intent).id

    for words in (["delegate", wait, "ben"], ["reassign", wait, "ben"], ["extend", wait, "1h"]):
        assert "answered by ana" in served.run(*words, code=5).stderr


def test_many_waits_are_answered_at_once(served):
    """It says what became of each, and ends with 1 when one was refused."""
    many = [served.waiting("doors.ask", {"bulk": True, "title": f"Refund {n}?"}) for n in range(2)]
    alone = served.waiting("doors.ask", {"title": "Sell the house?"})
    ids = [wait_of(intent).id for intent in (*many, alone)]

    done = served.run("bulk", "approved", *ids, "--by", "ana", "--comment", "fine", code=1)
    again = served.run("bulk", "approved", many[0].id, ids[1], "--by", "ana", "--json")

    rows = done.stdout.splitlines()[1:]
    assert ["Refund 0?" in rows[0], "Refund 1?" in rows[1], "approved" in rows[1]] == [True] * 3
    assert "refused" in rows[2] and "bulk=True" in rows[2]
    assert "1 of 3 waits were not answered" in done.stderr
    assert [row["answered"] for row in json.loads(again.stdout)] == [True, True]
    assert wait_of(many[0]).comment == "fine" and wait_of(alone).status == "OPEN"


def test_an_answer_may_be_held_to_what_was_shown(served):
    """Something else than was seen is not answered (code 5)."""
    intent = served.waiting("doors.ask", {"context": {"rows": 12}})

    late = served.run("approve", intent.id, "--hash", "0" * 64, code=5)
    served.run("approve", intent.id, "--hash", wait_of(intent).payload_hash)

    assert "look at it again" in late.stderr


def test_a_wait_is_shown_with_what_is_needed_to_decide(served):
    """What is asked, of whom, what happens when nobody answers, who has said what; all of it as JSON."""
    intent = served.waiting(
        "doors.ask",
        {
            "to": ["ana", "ben"], "not_by": "eve", "quorum": 2, "timeout": "2d", "on_timeout": "rejected",
            "context": {"rows": 12, "note": "Ärger\u202e\x1b[31m"}, "fallback": "night",
        },
    )  # fmt: skip
    served.axme.answer(intent.id, "approved", by="ana", comment="fine")
    served.axme.delegate(intent.id, "cyd", by="ben", reason="on leave")
    wait = wait_of(intent)

    shown = served.run("show", wait.id).stdout
    document = served.json("show", wait.id)

    for words in (
        "1 of 2 approved", "eve", "ana, cyd", "then night is asked", wait.payload_hash,
        '"rows": 12', "Ärger", "left it to cyd", "on leave", "fine",
    ):  # fmt: skip
        assert words in shown
    assert "\x1b" not in shown and "\u202e" not in shown
    assert (document["id"], document["payload_hash"], len(document["votes"])) == (wait.id, wait.payload_hash, 1)


@pytest.mark.parametrize("verb", ["delegate", "reassign", "extend", "bulk", "inbox"])
def test_each_verb_says_what_it_is_for(desk, verb):
    """Without asking the ledger."""
    assert desk.run(verb, "--help").stdout.startswith("Usage: ")
