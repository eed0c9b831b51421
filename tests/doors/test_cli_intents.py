"""submit, list, show, cancel, replay, fork, unpark: what they do, and what they refuse."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta

import pytest

from axme_celery import BadInput

from .command_line import desk_fixture, served_fixture  # noqa: F401

# -- submit --


def test_submit_prints_the_id_of_an_intent_that_is_kept(desk):
    """And nothing else on standard output: it is for scripts."""
    out = desk.run("submit", "doors.add", "--args", "[2, 3]", "--key", "sum", "--tag", "a", "--tag", "b").stdout

    intent = desk.axme.intent(out.strip())
    assert (intent.type, intent.key, intent.tags, intent.requester) == ("doors.add", "sum", ("a", "b"), "olga")
    assert intent.payload == {"task": "doors.add", "args": [2, 3], "kwargs": {}}
    assert desk.axme.runtime.ledger.outbox_due(desk.axme.runtime.ledger.now(), 10, 1) == [], "its message has left"


def test_submit_with_wait_prints_the_result(served):
    """The id first, then the result as JSON."""
    out = served.run("submit", "doors.add", "--kwargs", '{"x": 2, "y": 3}', "--wait", "--timeout", "30").stdout

    assert out.splitlines()[1] == "5"


def test_submit_with_wait_and_json_prints_one_document(served):
    document = served.json("submit", "doors.add", "--args", "[2, 3]", "--wait")

    assert (document["status"], document["result"]) == ("COMPLETED", 5)


def test_submit_with_wait_fails_when_the_intent_does(served, tmp_path):
    """Exit code 1 and the cause on stderr; the id is out all the same."""
    result = served.run("submit", "doors.needs", "--args", json.dumps([str(tmp_path / "no")]), "--wait", code=1)

    assert served.axme.intent(result.stdout.strip()).status == "FAILED"
    assert "ValueError" in result.stderr


def test_submit_gives_up_waiting_and_says_that_the_intent_goes_on(desk):
    """Exit code 1, and nothing is canceled."""
    result = desk.run("submit", "doors.add", "--args", "[1, 1]", "--wait", "--timeout", "50ms", code=1)

    assert "it goes on" in result.stderr
    assert desk.axme.intent(result.stdout.strip()).status == "SUBMITTED"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["doors.ad"], 1, "did you mean doors.add?"),
        (["doors.add", "--args", "[1]"], 1, "do not fit"),
        (["doors.add", "--args", "{}"], 2, "--args is a JSON list"),
        (["doors.add", "--args", "[1, 2"], 2, "no JSON"),
        (["doors.add", "--args", "[1, 2]", "--deadline", "soon"], 2, "no duration"),
        (["doors.add", "--args", "[1, 2]", "--deadline", "0s"], 1, "longer than nothing"),
        (["doors.add", "--args", "[1, 2]", "--timeout", "3"], 2, "belongs to --wait"),
        (["doors.add", "--args", "[1, NaN]"], 1, "is nan"),
        (["doors.add", "--args", "@/no/such/file"], 2, "cannot read /no/such/file"),
    ],
)
def test_what_cannot_be_submitted_is_refused_and_nothing_is_kept(desk, words, code, said):
    result = desk.run("submit", *words, code=code)

    assert said in result.stderr
    assert list(desk.axme.intents()) == []


def test_the_same_key_with_other_work_is_refused_with_code_5(desk):
    """The first intent is named, and untouched."""
    first = desk.run("submit", "doors.add", "--args", "[2, 3]", "--key", "sum").stdout.strip()

    assert desk.run("submit", "doors.add", "--args", "[2, 3]", "--key", "sum").stdout.strip() == first
    assert first in desk.run("submit", "doors.add", "--args", "[2, 4]", "--key", "sum", code=5).stderr


def test_a_task_that_only_workers_know_is_submitted_when_one_says_so(desk):
    intent = desk.json("submit", "elsewhere.task", "--unregistered", "--queue", "elsewhere")

    assert intent["type"] == "elsewhere.task"
    assert desk.axme.intent(intent["id"]).legs()[0].signature["options"]["queue"] == "elsewhere"


def test_arguments_come_from_a_file_or_from_standard_input(desk, tmp_path):
    (tmp_path / "args.json").write_text('["ü", 1]', encoding="utf-8")

    desk.run("submit", "doors.add", "--args", f"@{tmp_path}/args.json", "--key", "file")
    desk.run("submit", "doors.add", "--args", "@-", "--key", "stdin", stdin="[3, 4]")

    given = {intent.key: intent.payload["args"] for intent in desk.axme.intents()}
    assert given == {"file": ["ü", 1], "stdin": [3, 4]}


# -- list --


def test_list_filters_and_is_newest_first(desk):
    """Every filter of ``axme.intents``; one document with --json."""
    first = desk.submit("doors.add", 1, 1, tags=["x"], requester="ana", correlation_id="c-1")
    second = desk.submit("doors.report", 1, key="mine")
    second.cancel("no")

    def ids(*words: str) -> list[str]:
        return [one["id"] for one in desk.json("list", *words)]

    assert ids() == [second.id, first.id]
    assert ids("--status", "canceled") == [second.id]
    assert ids("--status", "SUBMITTED", "--status", "CANCELED") == [second.id, first.id]
    assert ids("--type", "doors.add") == [first.id]
    assert ids("--tag", "x") == [first.id]
    assert ids("--key", "mine") == [second.id]
    assert ids("--requester", "ana") == [first.id]
    assert ids("--correlation-id", "c-1") == [first.id]
    assert ids("--waiting-for", "human") == []
    assert ids("--since", "1h") == [second.id, first.id]
    assert ids("--since", second.created_at.isoformat()) == [second.id]
    assert ids("--limit", "1") == [second.id]


def test_list_says_when_there_is_more_than_it_shows(desk):
    """On stderr: standard output stays one document."""
    for number in range(3):
        desk.submit("doors.add", number, 0)

    result = desk.run("list", "--limit", "2", "--json")

    assert len(json.loads(result.stdout)) == 2
    assert "more than 2" in result.stderr
    assert "more than" not in desk.run("list", "--limit", "3").stderr


def test_list_is_an_aligned_table_for_people(served):
    intent = served.waiting("doors.report", 0, key="table", tags=["t1", "t2"])

    header, row = served.run("list", "--key", "table").stdout.splitlines()

    assert row.startswith(intent.id) and "WAITING for human" in row and row.endswith("t1, t2")
    assert header.index("STATUS") == row.index("WAITING")


def test_an_empty_list_says_so(desk):
    assert desk.run("list").stdout == "no intents\n"
    assert desk.json("list") == []


def test_a_tag_that_would_move_the_cursor_of_who_lists_it_is_refused(desk):
    """Control characters do not get in, so no terminal has to be saved from them."""
    with pytest.raises(BadInput, match="printable"):
        desk.submit("doors.add", 1, 2, tags=["\x1b[2Jgone\x07"])


@pytest.mark.parametrize("words", [["--since", "yesterday"], ["--status", "DONE"], ["--limit", "0"]])
def test_a_filter_that_means_nothing_is_refused(desk, words):
    desk.run("list", *words, code=2)


# -- show --


def test_show_has_facts_legs_steps_waits_and_history(served):
    intent = served.waiting("doors.report", 2, key="shown")

    document = served.json("show", intent.id)

    assert (document["id"], document["status"], document["key"]) == (intent.id, "WAITING", "shown")
    assert document["payload"]["args"] == [2]
    (leg,) = document["legs"]
    assert (leg["status"], leg["run"], leg["attempts"], leg["max_attempts"]) == ("WAITING", 1, 0, 5)
    assert leg["worker"] and leg["progress"]["done"] == 2
    assert [(s["name"], s["nth"], s["run"], s["value"]) for s in document["steps"]] == [
        ("fetch_page", 1, 1, {"page": 1, "rows": 10}),
        ("fetch_page", 2, 1, {"page": 2, "rows": 20}),
    ]
    assert document["steps"][0]["size_bytes"] == len('{"page":1,"rows":10}')
    (wait,) = document["waits"]
    assert (wait["status"], wait["title"], wait["to"]) == ("OPEN", "Publish?", ["analysts", "ana"])
    assert [e["seq"] for e in document["events"]] == list(range(1, document["seq"] + 1))

    text = served.run("show", intent.id).stdout
    for word in ("WAITING for human", "shown", "2/2 page 2", "fetch_page", "analysts, ana", "Publish?", "STEPS (2)"):
        assert word in text
    assert "the last 1 of 2" in served.run("show", intent.id, "--limit", "1").stdout


def test_show_has_open_waits_first_and_says_who_answered(served):
    """With the answer, and its words."""
    intent = served.waiting("doors.ask", {"title": "One?"})
    served.axme.answer(intent.id, "approved", by="ana", comment="fine")
    served.reach(intent, "COMPLETED")

    text = served.run("show", intent.id).stdout

    assert "approved by ana: fine" in text
    assert '"comment": "fine"' in text


def test_show_names_the_cause_of_a_failure(served, tmp_path):
    intent = served.reach(served.submit("doors.needs", str(tmp_path / "no")), "FAILED")

    assert "[ValueError]" in served.run("show", intent.id).stdout


def test_an_unknown_intent_is_code_3(desk):
    """For every verb that takes one."""
    for words in (["show", "x"], ["watch", "x"], ["cancel", "x", "--reason", "r"], ["replay", "x"], ["unpark", "x"]):
        assert "x in this ledger" in desk.run(*words, code=3).stderr
    desk.run("fork", "x", "--before", "a", code=3)


# -- cancel --


def test_cancel_ends_an_intent_and_keeps_who_and_why(served):
    intent = served.waiting("doors.report", 0)

    out = served.run("cancel", intent.id, "--reason", "wrong month", "--by", "ana").stdout

    assert out == f"{intent.id} canceled\n"
    event = intent.refresh().events()[-1]
    assert (intent.status, event.actor, event.details["reason"]) == ("CANCELED", "ana", "wrong month")


def test_an_ended_intent_cannot_be_canceled(served):
    """Code 5: too late."""
    intent = served.reach(served.submit("doors.add", 1, 1), "COMPLETED")

    assert "COMPLETED" in served.run("cancel", intent.id, "--reason", "late", code=5).stderr


def test_cancel_asks_for_a_reason(desk):
    assert "--reason" in desk.run("cancel", "x", code=2).stderr


# -- replay, fork, unpark --


def test_replay_starts_a_failed_intent_again_with_its_finished_work(served, tmp_path):
    """The step it had done is not done again."""
    path = tmp_path / "there"
    failed = served.reach(served.submit("doors.needs", str(path)), "FAILED")
    path.touch()

    again = served.axme.intent(served.run("replay", failed.id).stdout.strip())

    assert served.reach(again, "COMPLETED").replay_of == failed.id
    # Run 0: it came with the intent.
    assert (failed.steps()[0].run, again.steps()[0].run) == (1, 0)
    assert again.requester == "olga"


def test_a_completed_intent_is_not_replayed(served):
    intent = served.reach(served.submit("doors.add", 1, 1), "COMPLETED")

    served.run("replay", intent.id, code=5)


def test_fork_starts_from_another_s_recorded_work(served):
    """The steps before the one named are taken over, the rest is done anew."""
    intent = served.waiting("doors.report", 3)

    fork = served.axme.intent(served.run("fork", intent.id, "--before", "fetch_page#3").stdout.strip())

    served.reach(fork, "WAITING")
    assert [(s.nth, s.value) for s in fork.steps()] == [(s.nth, s.value) for s in intent.steps()]
    assert fork.id != intent.id and fork.replay_of == intent.id


def test_fork_names_the_steps_there_are_when_there_is_none_of_that_name(served):
    intent = served.waiting("doors.report", 1)

    said = served.run("fork", intent.id, "--before", "nothing", code=3).stderr

    assert "fetch_page#1" in said


def test_an_intent_that_starts_later_says_when(desk):
    """That its leg is QUEUED alone would look like a queue that nobody takes from."""
    later = desk.run("submit", "doors.add", "--args", "[2, 3]", "--countdown", "1h").stdout.strip()
    at_once = desk.submit("doors.add", 1, 2)

    document = desk.json("show", later)
    shown = desk.run("show", later).stdout

    starts_at = datetime.fromisoformat(document["legs"][0]["starts_at"])
    assert abs(starts_at - datetime.fromisoformat(document["created_at"]) - timedelta(hours=1)) < timedelta(seconds=5)
    assert re.search(rf"^starts +{starts_at:%Y-%m-%d %H:%M:%S}Z, in (1h|59m)", shown, re.MULTILINE)
    assert f"QUEUED until {starts_at:%Y-%m-%d %H:%M:%S}Z" in shown
    assert desk.json("show", at_once.id)["legs"][0]["starts_at"] is None
    assert "starts" not in desk.run("show", at_once.id).stdout


def test_a_parked_intent_is_marked_wherever_its_status_is_told(served):
    """Its status is what it was, IN_PROGRESS, yet nobody works on it until an operator has decided."""
    (intent, _), other = served.parked(), served.reach(served.submit("doors.add", 1, 2), "COMPLETED")
    intent.refresh()

    lines = {line.split()[0]: line for line in served.run("list").stdout.splitlines()}
    listed = {document["id"]: document["parked"] for document in served.json("list")}

    assert "IN_PROGRESS (parked)" in lines[intent.id] and "parked" not in lines[other.id]
    assert (listed[intent.id], listed[other.id]) == (True, False)
    assert re.search(r"^status +IN_PROGRESS \(parked\)$", served.run("show", intent.id).stdout, re.MULTILINE)
    assert served.json("show", intent.id)["parked"] is True


def test_a_parked_intent_goes_on_when_its_drift_is_accepted(served):
    """And without accepting it, once the old code is back."""
    intent, _ = served.parked()
    assert "parked: " in served.run("show", intent.id).stdout

    assert served.run("unpark", intent.id, "--accept-drift").stdout == f"{intent.id} goes on\n"

    assert served.reach(intent, "COMPLETED").result == ["new", "approved"]


def test_a_parked_intent_goes_on_after_a_roll_back(served):
    intent, changed = served.parked()
    changed.unlink()

    served.run("unpark", intent.id)

    assert served.reach(intent, "COMPLETED").result == ["old", "approved"]


def test_unpark_refuses_what_is_not_parked(served):
    intent = served.waiting("doors.report", 0)

    assert "no leg" in served.run("unpark", intent.id, code=1).stderr


def test_who_acts_is_the_login_name_unless_said(desk, monkeypatch):
    """AXME_ACTOR goes before it, --by before both; a user without a name must say one."""
    monkeypatch.setattr("getpass.getuser", lambda: "login")
    desk.run("submit", "doors.add", "--args", "[1, 2]", "--key", "a", actor=None)
    desk.run("submit", "doors.add", "--args", "[1, 2]", "--key", "b", actor="actor")
    desk.run("submit", "doors.add", "--args", "[1, 2]", "--key", "c", "--requester", "said", actor="actor")

    assert {i.key: i.requester for i in desk.axme.intents()} == {"a": "login", "b": "actor", "c": "said"}

    def nameless() -> str:
        raise OSError("no username set in the environment")

    monkeypatch.setattr("getpass.getuser", nameless)
    assert "AXME_ACTOR" in desk.run("cancel", "x", "--reason", "r", actor=None, code=2).stderr
