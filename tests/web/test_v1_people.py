"""Inbox, human tasks and approvals: one wait, answered in any way, once."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from axme_celery import WaitClosed, keys, wait_for_human
from axme_celery.cli import axme as command
from axme_celery.testing import Stage
from axme_celery.web import create_app

from .conftest import PAGE, SECRET, post, token_in

TASK = {"title": "Ship it?", "assignees": ["ana", "analysts"], "description": "all of it"}
ANA = {"who": "ana", "role": "approver"}
MEMBER = {"who": "ben", "role": "approver", "groups": ["analysts"]}


@pytest.fixture
def asked(create):
    """``asked(**task)``: an intent that waits for Ana or the analysts."""
    return lambda **task: create(human_task={**TASK, **task}, to_agent="agent://nobody", reply_to="agent://acme/me")


# -- tasks ---------------------------------------------------------------------------------


def test_a_task_is_listed_for_whoever_may_answer(api, asked):
    """With its spec; for nobody else, but for an operator who asks for all."""
    intent_id = asked(task_type="review")
    (task,) = api("GET", "/me/tasks", **ANA).json["tasks"]
    assert set(task) == {"intent_id", "intent_type", "status", "assigned_at", "human_task", "from_agent"}
    assert (task["intent_id"], task["status"]) == (intent_id, "WAITING")
    assert task["human_task"]["allowed_outcomes"] == ["approved", "changes_requested", "rejected"]
    assert (task["human_task"]["title"], task["human_task"]["description"]) == ("Ship it?", "all of it")
    assert len(api("GET", "/me/tasks", **MEMBER).json["tasks"]) == 1
    assert api("GET", "/me/tasks", who="eve", role="approver").json["tasks"] == []
    assert len(api("GET", "/me/tasks?all=1").json["tasks"]) == 1
    assert api("GET", "/me/tasks?all=1", who="eve", role="approver").json["tasks"] == []


def test_every_task_type_has_its_outcomes(api, create):
    """Ours, and those of the published schema that are like one of ours."""
    for kind, first in (("approval", "approved"), ("provide_data", "submitted"), ("override", "override_approved")):
        intent_id = create(human_task={"title": kind, "task_type": kind, "assignees": ["ana"]})
        task = next(t for t in api("GET", "/me/tasks", **ANA).json["tasks"] if t["intent_id"] == intent_id)
        assert (task["human_task"]["task_type"], task["human_task"]["allowed_outcomes"][0]) == (kind, first)


def test_where_nobody_was_named_whoever_asked_may_answer(api, create):
    """As the shortest examples leave it: no title, an address for the mail."""
    intent_id = create(human_task={"task_type": "approval", "notify_email": "a@b.example"}, who="app", role="approver")
    (task,) = api("GET", "/me/tasks", who="app", role="approver").json["tasks"]
    assert (task["intent_id"], task["human_task"]["title"]) == (intent_id, "intent.demo.v1")
    assert task["human_task"]["assignees"] == ["a@b.example", "app"]


def test_reminders_and_escalation_are_those_that_were_asked_for(api, create, stage):
    """The first after its own delay; after the last one others are asked as well."""
    create(
        human_task=TASK, remind_after_seconds=60, remind_interval_seconds=600, max_reminders=2, escalate_to="boss",
    )  # fmt: skip
    stage.pass_time("61s")
    assert [n.kind for n in stage.notices] == ["wait_opened", "reminder"]
    stage.pass_time("25m")
    assert [n.kind for n in stage.notices] == ["wait_opened", "reminder", "reminder", "escalation"]
    assert len(api("GET", "/me/tasks", who="boss", role="approver").json["tasks"]) == 1


# -- approvals --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "status"), [("approve", "COMPLETED"), ("reject", "FAILED"), ("approved", "COMPLETED")]
)
def test_an_approval_is_decided(api, asked, said, status):
    """By the intent's id or the wait's; again it stands, otherwise it is too late."""
    intent_id = asked()
    wait_id = api("GET", f"/intents/{intent_id}").json["intent"]["wait_id"]

    done = api("POST", f"/approvals/{wait_id}/decision", json={"decision": said, "comment": "ok"}, **ANA).json
    assert set(done["approval"]) == {"approval_id", "decision", "comment", "decided_at"}
    assert (done["approval"]["comment"], done["approval"]["approval_id"]) == ("ok", wait_id)
    assert api("GET", f"/intents/{intent_id}").json["intent"]["status"] == status
    again = api("POST", f"/approvals/{intent_id}/decision", json={"decision": said}, **ANA)
    assert (again.status_code, again.json["approval"]["comment"]) == (200, "ok")
    other = {"approve": "reject", "approved": "reject", "reject": "approve"}[said]
    late = api("POST", f"/approvals/{intent_id}/decision", json={"decision": other}, **MEMBER)
    assert (late.status_code, late.json["error"]["code"]) == (409, "already_decided")


def test_an_unknown_approval_is_not_found(api, create):
    """As is one that asks nobody."""
    for approval_id in (str(uuid.uuid4()), create()):
        missing = api("POST", f"/approvals/{approval_id}/decision", json={"decision": "approve"})
        assert (missing.status_code, missing.json["error"]["code"]) == (404, "approval_not_found")


@pytest.mark.parametrize(
    "sent", [{}, {"decision": "maybe"}, {"decision": 1}, {"decision": "approve", "comment": "x" * 1001}]
)
def test_a_decision_must_be_one(api, asked, sent):
    """Nothing is decided by what is not."""
    intent_id = asked()
    assert api("POST", f"/approvals/{intent_id}/decision", json=sent, **ANA).status_code == 422
    assert api("GET", f"/intents/{intent_id}").json["intent"]["status"] == "WAITING"


def test_a_task_that_cannot_be_refused_is_not_rejected(api, create):
    """A form has one outcome."""
    intent_id = create(human_task={"title": "Fill in", "task_type": "form", "assignees": ["ana"]})
    assert api("POST", f"/approvals/{intent_id}/decision", json={"decision": "reject"}, **ANA).status_code == 422


# -- five ways, one answer -----------------------------------------------------------------------


def test_one_wait_answered_in_five_ways_at_once_is_answered_once(app, tmp_path, axme, monkeypatch):
    """Page, command line, Python, ``/resume`` and ``/approvals``: one wins, the others are told that they are late."""

    monkeypatch.setenv("AXME_ACTOR", "olga")

    @axme.task
    def asking():
        return wait_for_human("Publish?", to="analysts").outcome

    with Stage(app, ledger_url=f"sqlite:///{tmp_path}/ledger.db") as stage:
        web = create_app(axme, secret_key=SECRET)
        secrets = [keys.create(axme.runtime, name=f"p{n}", role="approver", groups=["analysts"])[1] for n in range(3)]
        browser = web.test_client()
        post(browser, "/sign-in", {"secret": secrets[2]}, page="/sign-in")

        def send(n, path, body):
            return web.test_client().post(path, json=body, headers={"x-api-key": secrets[n]}).status_code

        def page(wait, token):
            fields = {"csrf_token": token, "outcome": "approved"}
            code = browser.post(f"/waits/{wait.id}", data=fields, headers=PAGE).status_code
            return 200 if code == 303 else code

        def command_line(wait):
            code = command.main(["approve", wait.id], obj=SimpleNamespace(app=app), standalone_mode=False)
            return {None: 200, 5: 409}[code]

        def python(wait):
            try:
                axme.answer(wait.id, "approved", by="python")
            except WaitClosed:
                return 409
            return 200

        def all_ways(intent, wait):
            token = token_in(browser.get(f"/waits/{wait.id}", headers=PAGE).text)
            return [
                lambda: send(0, f"/v1/intents/{intent.id}/resume", {"task_result": {"outcome": "approved"}}),
                lambda: send(1, f"/v1/approvals/{wait.id}/decision", {"decision": "reject"}),
                lambda: page(wait, token),
                lambda: command_line(wait),
                lambda: python(wait),
            ]

        for _ in range(5):
            intent = stage.submit(asking.s())
            with ThreadPoolExecutor(5) as pool:
                codes = sorted(pool.map(lambda way: way(), all_ways(intent, intent.waits()[0])))
            stage.run()

            assert codes == [200, 409, 409, 409, 409]
            assert len([e for e in intent.events() if e.type == "intent.in_progress" and e.details.get("wait_id")]) == 1
            assert intent.refresh().status == "COMPLETED"


# -- inbox -----------------------------------------------------------------------------------------


def test_a_thread_is_an_intent_with_its_timeline(api, asked):
    """For those who take part in it."""
    intent_id = asked()
    (thread,) = api("GET", "/inbox", **ANA).json["threads"]
    assert (thread["thread_id"], thread["intent_id"], thread["status"]) == (intent_id, intent_id, "pending")
    assert (thread["owner_agent"], thread["subject"]) == ("agent://acme/me", "Ship it?")
    kinds = [item["event_type"] for item in thread["timeline"]]
    assert kinds == ["intent_received", "intent.waiting", "intent.human_task_assigned"]
    assert all(uuid.UUID(item["event_id"]) and len(item["actor"]) > 1 for item in thread["timeline"])
    assert api("GET", "/inbox", who="eve", role="approver").json["threads"] == []
    assert api("GET", f"/inbox/{intent_id}", who="eve", role="approver").status_code == 404
    assert api("GET", f"/inbox/{intent_id}", **MEMBER).json["thread"] == thread


def test_the_end_stands_in_the_inbox_it_was_to_reply_to(api, create):
    """As the very event that every other door tells."""
    intent_id = create(reply_to="agent://acme/me")
    other = create()
    api("POST", f"/intents/{intent_id}/resolve", json={"status": "COMPLETED", "result": {"n": 1}})

    (thread,) = api("GET", "/inbox?owner_agent=agent://acme/me").json["threads"]
    last = thread["timeline"][-1]
    assert (thread["thread_id"], thread["status"], last["event_type"]) == (
        intent_id,
        "done",
        "intent_completion_delivered",
    )
    events = api("GET", f"/intents/{intent_id}/events").json["events"]
    assert last["details"]["event"] == events[-1]
    assert len(api("GET", "/inbox").json["threads"]) == 2
    me = {"who": "me", "role": "approver", "agent": "agent://acme/me"}
    assert [t["thread_id"] for t in api("GET", "/inbox", **me).json["threads"]] == [intent_id]
    assert api("GET", "/inbox?owner_agent=agent://acme/ops/bot", **me).json["threads"] == [], "it only narrows"
    assert [t["thread_id"] for t in api("GET", "/inbox?status=active").json["threads"]] == [other]


def test_changes_come_in_order_and_once(api, create, stage):
    """From cursor to cursor, each thread as it is now."""
    first = create()
    stage.pass_time("1s")
    second = create()
    stage.pass_time("1s")
    page = api("GET", "/inbox/changes?limit=1").json
    assert ([c["thread"]["thread_id"] for c in page["changes"]], page["has_more"]) == ([first], True)
    rest = api("GET", f"/inbox/changes?cursor={page['next_cursor']}").json
    assert ([c["thread"]["thread_id"] for c in rest["changes"]], rest["has_more"]) == ([second], False)
    nothing = api("GET", f"/inbox/changes?cursor={rest['next_cursor']}").json
    assert (nothing["changes"], nothing["next_cursor"]) == ([], rest["next_cursor"])

    api("POST", f"/intents/{first}/resolve", json={"status": "CANCELED"})
    stage.pass_time("1s")
    (change,) = api("GET", f"/inbox/changes?cursor={rest['next_cursor']}").json["changes"]
    assert (change["thread"]["thread_id"], change["thread"]["status"]) == (first, "done")
    assert api("GET", "/inbox/changes?cursor=x").status_code == 422


def test_people_write_in_a_thread(api, asked, stage):
    """Messages stand in its timeline, move it to the top, and can be taken back."""
    intent_id = asked()
    asked()
    stage.pass_time("1s")
    api("POST", f"/inbox/{intent_id}/reply", json={"message": "why?"}, **ANA)
    thread = api("POST", f"/inbox/{intent_id}/reply", json={"message": "because"}, **MEMBER).json["thread"]
    assert [(m["role"], m["content"]) for m in thread["messages"]] == [("ana", "why?"), ("ben", "because")]
    assert [i["event_type"] for i in thread["timeline"]][-2:] == ["message.sent", "message.sent"]
    assert api("GET", "/inbox", **ANA).json["threads"][0]["thread_id"] == intent_id

    own = api("POST", f"/inbox/{intent_id}/messages/delete", json={"mode": "both"}, **ANA).json
    assert (own["deleted_count"], len(own["thread"]["messages"])) == (1, 1)
    hidden = api("POST", f"/inbox/{intent_id}/messages/delete", json={}, **ANA).json
    assert (hidden["mode"], hidden["deleted_count"], hidden["thread"]["messages"]) == ("self", 1, [])
    assert len(api("GET", f"/inbox/{intent_id}", **MEMBER).json["thread"]["messages"]) == 1
    assert api("POST", f"/inbox/{intent_id}/read", **ANA).json["thread"]["thread_id"] == intent_id


@pytest.mark.parametrize("sent", [{}, {"message": ""}, {"message": 3}, {"message": "x\0"}])
def test_a_message_must_be_text(api, asked, sent):
    """And not too much of it."""
    assert api("POST", f"/inbox/{asked()}/reply", json=sent, **ANA).status_code in (400, 422)


def test_threads_are_approved_rejected_and_delegated(api, asked):
    """Over the same wait; what has ended takes no more of it."""
    yes, no = asked(), asked()
    assert api("POST", f"/inbox/{yes}/approve", json={"comment": "ok"}, **ANA).json["thread"]["status"] == "done"
    assert api("POST", f"/inbox/{no}/delegate", json={"delegate_to": "cleo", "note": "away"}, **ANA).status_code == 200
    assert api("POST", f"/inbox/{no}/approve", json={}, **ANA).status_code == 403
    assert api("POST", f"/inbox/{no}/reject", json={}, who="cleo", role="approver").json["thread"]["status"] == "done"
    for action in ("approve", "reject", "delegate", "reply"):
        late = api(
            "POST", f"/inbox/{no}/{action}", json={"message": "x", "delegate_to": "d"}, who="cleo", role="approver"
        )
        assert (late.status_code, late.json["error"]["code"]) == (409, "intent_terminal")


def test_a_thread_that_asks_nobody_is_not_decided(api, create):
    """409, while it is open; and what is no thread is not found."""
    thread = create()
    assert api("POST", f"/inbox/{thread}/approve", json={}).json["error"]["code"] == "not_waiting_for_human"
    assert api("POST", f"/inbox/{thread}/delegate", json={}).status_code == 422
    assert api("POST", f"/inbox/{uuid.uuid4()}/approve", json={}).json["error"]["code"] == "thread_not_found"


def test_an_intent_nobody_writes_about_is_no_thread(api, stage, axme):
    """What is only work in Celery is in nobody's inbox until it asks somebody."""

    @axme.task
    def work():
        return 1

    intent = stage.submit(work.s())
    assert api("GET", "/inbox").json["threads"] == []
    assert api("GET", f"/inbox/{intent.id}").status_code == 404
