"""inbox, answer, approve, reject, complete-tool: whoever closes a wait from the command line."""

from __future__ import annotations

import json
import re
import uuid

import pytest

from .command_line import desk_fixture, served_fixture  # noqa: F401

# -- inbox --


def test_the_inbox_lists_the_open_waits_of_an_owner(served):
    """Of several owners, too; a closed one is gone from it."""
    me, us = uuid.uuid4().hex, uuid.uuid4().hex
    first = served.waiting("doors.ask", {"title": "Mine?", "to": me})
    second = served.waiting("doors.ask", {"title": "Ours?", "to": [us, "others"], "timeout": "2d"})

    def titles(*words: str) -> list[str]:
        return [wait["title"] for wait in served.json("inbox", *words)]

    assert titles("--owner", me) == ["Mine?"]
    assert titles("--owner", me, "--owner", us) == ["Ours?", "Mine?"], "one is wanted within two days"
    assert titles("--owner", me, "--owner", us, "--limit", "1") == ["Ours?"]
    assert titles("--owner", me, "--owner", us, "--sort", "opened") == ["Mine?", "Ours?"]
    (wait,) = served.json("inbox", "--owner", us)
    assert wait["intent_id"] == second.id and wait["to"] == [us, "others"] and wait["timeout_at"]
    assert wait["request"]["outcomes"] == ["approved", "rejected"]
    served.axme.answer(first.id, "approved", by="ana")
    assert titles("--owner", me) == []
    assert titles("--owner", me, "--closed") == ["Mine?"]


def test_the_inbox_is_a_table_for_people(served):
    me = uuid.uuid4().hex
    intent = served.waiting("doors.ask", {"title": "Publish?", "to": me})

    _, row = served.run("inbox", "--owner", me).stdout.splitlines()

    assert row.startswith(intent.waits()[0].id) and "Publish?" in row and "approved|rejected" in row
    assert served.run("inbox", "--owner", "nobody").stdout == "nobody waits for an answer\n"


def test_the_inbox_says_when_there_is_more_than_it_shows(served):
    me = uuid.uuid4().hex
    for title in ("one", "two"):
        served.waiting("doors.ask", {"to": me, "title": title})

    first = served.run("inbox", "--owner", me, "--limit", "1", "--sort", "opened", "--json")
    place = re.search(r"more than 1; say --after (\S+),", first.stderr)[1]
    second = served.json("inbox", "--owner", me, "--limit", "1", "--sort", "opened", "--after", place)

    assert [json.loads(first.stdout)[0]["title"], second[0]["title"]] == ["one", "two"]


# -- answer --


def test_an_answer_closes_the_wait_and_the_intent_goes_on(served, tmp_path):
    """With who, words and form; by the wait's id or the intent's."""
    form = {"type": "object", "properties": {"rows": {"type": "integer"}}, "required": ["rows"]}
    intent = served.waiting("doors.ask", {"type": "review", "form": form})
    (tmp_path / "form.json").write_text('{"rows": 7}')

    out = served.run(
        "answer", intent.id, "approved", "--by", "ana", "--comment", "fine", "--data", f"@{tmp_path}/form.json"
    ).stdout

    assert out == f"approved by ana; intent {intent.id} goes on\n"
    result = served.reach(intent, "COMPLETED").result
    assert result == {"outcome": "approved", "by": "ana", "comment": "fine", "data": {"rows": 7}}
    again = served.run(
        "approve", intent.id, "--by", "ana", "--comment", "fine", "--data", f"@{tmp_path}/form.json"
    ).stdout
    assert again == f"approved by ana; intent {intent.id} is COMPLETED\n", "it does not go on any more"


def test_a_second_answer_is_told_who_was_first(served):
    """Code 5, and nothing is changed."""
    intent = served.waiting("doors.ask", {})
    (wait,) = intent.waits()
    served.run("approve", wait.id, "--by", "ana")

    said = served.run("answer", wait.id, "rejected", "--by", "bob", code=5).stderr

    assert "already answered by ana" in said
    assert served.reach(intent, "COMPLETED").result["outcome"] == "approved"


@pytest.mark.parametrize(
    ("options", "words", "code", "said"),
    [
        ({}, ["maybe"], 1, "approved, rejected"),
        ({"require_comment": True}, ["approved"], 1, "comment"),
        ({"not_by": "olga"}, ["approved"], 1, "may not answer"),
        ({"form": {"type": "object", "required": ["rows"]}}, ["approved", "--data", "{}"], 1, "rows"),
        ({}, ["approved", "--data", "{"], 2, "no JSON"),
    ],
)
def test_an_answer_that_does_not_fit_is_refused_and_the_wait_stays_open(served, options, words, code, said):
    intent = served.waiting("doors.ask", options)

    assert said in served.run("answer", intent.id, *words, code=code).stderr

    assert intent.waits()[0].status == "OPEN"


def test_an_answer_to_nothing_is_code_3(desk):
    desk.run("answer", "nothing", "approved", code=3)
    desk.run("approve", "nothing", code=3)
    desk.run("reject", "nothing", code=3)


# -- approve and reject --


@pytest.mark.parametrize(
    ("type", "yes", "no"),
    [
        ("approval", "approved", "rejected"),
        ("confirmation", "confirmed", "denied"),
        ("review", "approved", "rejected"),
        ("assignment", "assigned", "declined"),
        ("clarification", "provided", "declined"),
        ("manual_action", "completed", "failed"),
        ("override", "override_approved", "rejected"),
    ],
)
def test_approve_and_reject_mean_the_type_s_own_yes_and_no(served, type, yes, no):
    """One verb for every type of human task."""
    first, second = (served.waiting("doors.ask", {"type": type}) for _ in range(2))

    served.run("approve", first.id, "--comment", "because")
    served.run("reject", second.waits()[0].id, "--comment", "because")

    assert served.reach(first, "COMPLETED").result["outcome"] == yes
    assert served.reach(second, "COMPLETED").result["outcome"] == no


def test_a_wait_without_a_no_cannot_be_rejected(served):
    """It says which outcomes there are."""
    form = served.waiting("doors.ask", {"type": "form"})
    custom = served.waiting("doors.ask", {"outcomes": ["ship", "hold"]})

    assert "only submitted" in served.run("reject", form.id, code=1).stderr
    assert "only ship, hold" in served.run("reject", custom.id, code=1).stderr

    served.run("approve", custom.id)
    assert served.reach(custom, "COMPLETED").result["outcome"] == "ship"
    assert form.waits()[0].status == "OPEN"


def test_one_vote_of_several_leaves_the_intent_waiting_and_says_so(served):
    intent = served.waiting("doors.ask", {"quorum": 2})

    out = served.run("approve", intent.id, "--by", "ana").stdout
    assert out == f"approved by ana: 1 of 2; intent {intent.id} still waits\n"
    assert "1 of 2 votes" in served.run("show", intent.id).stdout

    assert "goes on" in served.run("approve", intent.id, "--by", "bob").stdout


def test_a_wait_for_no_person_has_nothing_to_approve(served):
    intent = served.waiting("doors.job", uuid.uuid4().hex)

    assert "waits for no person" in served.run("approve", intent.id, code=1).stderr
    assert "for a tool" in served.run("approve", intent.waits()[0].id, code=1).stderr
    intent.cancel("enough")
    assert "asked no person" in served.run("approve", intent.id, code=5).stderr


# -- complete-tool --


def test_complete_tool_gives_the_job_s_result_to_who_waits_for_it(served):
    job = uuid.uuid4().hex
    intent = served.waiting("doors.job", job)

    out = served.run("complete-tool", "warehouse", job, "--result", '{"rows": 3}').stdout

    assert out == f"warehouse job {job} completed\n"
    assert served.reach(intent, "COMPLETED").result == {"rows": 3}


def test_complete_tool_may_come_before_its_wait(served):
    job = uuid.uuid4().hex
    served.run("complete-tool", "warehouse", job, "--result", "1")

    assert served.reach(served.submit("doors.job", job), "COMPLETED").result == 1


def test_a_failed_job_fails_its_intent(served):
    job = uuid.uuid4().hex
    intent = served.waiting("doors.job", job)

    served.run("complete-tool", "warehouse", job, "--error", "disk full")

    assert "disk full" in served.reach(intent, "FAILED").error["message"]


def test_another_report_of_the_same_job_is_refused(served):
    """Code 5; the same report again is fine."""
    job = uuid.uuid4().hex
    intent = served.waiting("doors.job", job)
    served.run("complete-tool", "warehouse", job, "--result", "1")
    served.reach(intent, "COMPLETED")

    served.run("complete-tool", "warehouse", job, "--result", "1")
    served.run("complete-tool", "warehouse", job, "--result", "2", code=5)
    served.run("complete-tool", "warehouse", job, "--result", "1", "--error", "x", code=2)


def test_json_after_an_answer_is_the_intent(served):
    intent = served.waiting("doors.ask", {})

    document = json.loads(served.run("approve", intent.id, "--json").stdout)

    assert (document["id"], document["status"]) == (intent.id, "IN_PROGRESS")
