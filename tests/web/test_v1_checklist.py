"""What makes published clients work, one by one."""

from __future__ import annotations

import hashlib
import hmac
import json
import uuid

import pytest

from axme_celery.subscriptions import subscription_of_url

from .conftest import BOT


def told(api, intent_id):
    return api("GET", f"/intents/{intent_id}/events").json["events"]


def shown(api, intent_id):
    return api("GET", f"/intents/{intent_id}").json["intent"]


@pytest.mark.parametrize("header", ["x-api-key", "Authorization"])
def test_a_key_in_either_header(web, make_key, header):
    secret = make_key("ops", role="operator")
    value = secret if header == "x-api-key" else f"Bearer {secret}"
    assert web.test_client().get("/v1/capabilities", headers={header: value}).status_code == 200


def test_200_on_create_with_two_events_and_uuid_ids(api, create):
    intent_id = create()
    assert len(told(api, intent_id)) >= 2
    assert str(uuid.UUID(intent_id)) == intent_id
    assert uuid.UUID(shown(api, intent_id)["correlation_id"])


def test_since_excludes_what_was_seen(api, create):
    intent_id = create()
    assert all(event["seq"] > 1 for event in api("GET", f"/intents/{intent_id}/events?since=1").json["events"])


def test_a_framed_stream_that_holds_and_then_ends(api, create):
    text = api("GET", f"/intents/{create()}/events/stream?wait_seconds=1").text
    frames = [frame for frame in text.split("\n\n") if frame and not frame.startswith(":")]
    assert [line.split(": ")[0] for line in frames[0].split("\n")] == ["id", "event", "data"]
    assert frames[0].split("\n")[1].startswith("event: intent.")
    assert frames[-1].startswith("event: stream.timeout\ndata: {") and text.endswith("\n\n")
    assert all(len(frame) < 65536 for frame in frames)


def test_an_agents_cursor_is_its_own_and_the_same_in_both_places(api, create):
    for _ in range(2):
        create()
    text = api("GET", "/agents/acme/ops/bot/intents/stream?wait_seconds=1").text
    frames = [frame.split("\n") for frame in text.split("\n\n") if frame.startswith("id")]
    assert [lines[0] for lines in frames] == ["id: 1", "id: 2"]
    assert [json.loads(lines[2].removeprefix("data: "))["seq"] for lines in frames] == [1, 2]


def test_the_default_filter_hides_what_has_ended(api, create):
    api("POST", f"/intents/{create()}/resolve", json={"status": "FAILED", "error": {"code": "x"}})
    assert api("GET", "/agents/acme/ops/bot/intents").json["intents"] == []


@pytest.mark.parametrize("status", ["SUBMITTED", "DELIVERED", "ACKNOWLEDGED", "IN_PROGRESS", "WAITING"])
def test_resolve_is_legal_from_any_open_status_and_409_after_the_end(api, create, status):
    intent_id = create(**({"human_task": {"title": "?", "assignees": ["ana"]}} if status == "WAITING" else {}))
    if status in ("DELIVERED", "ACKNOWLEDGED"):
        api("GET", "/agents/acme/ops/bot/intents")
    if status == "ACKNOWLEDGED":
        api("POST", f"/intents/{intent_id}/acknowledge", json={})
    if status == "IN_PROGRESS":
        api("POST", f"/intents/{intent_id}/resume", json={"approve_current_step": True})
    assert shown(api, intent_id)["status"] == status
    for code in (200, 409):
        answer = api("POST", f"/intents/{intent_id}/resolve", json={"status": "COMPLETED", "result": {"n": 1}})
        assert answer.status_code == code
    assert [event["seq"] for event in told(api, intent_id)] == list(range(1, len(told(api, intent_id)) + 1))


def test_the_result_is_in_the_event_twice(api, create):
    intent_id = create()
    api("POST", f"/intents/{intent_id}/resume", json={"action": "complete", "n": 1})
    assert told(api, intent_id)[-1]["details"]["result"] == told(api, intent_id)[-1]["result"] == {"n": 1}


def test_three_names_for_a_status_and_two_for_a_waiting_reason(api, create):
    found = shown(api, create(human_task={"title": "?", "assignees": ["ana"]}))
    assert (found["status"], found["lifecycle_status"], found["legacy_status"]) == ("WAITING", "WAITING", "blocked")
    assert found["waiting_reason"] == found["lifecycle_waiting_reason"] == "WAITING_FOR_HUMAN"
    assert found["pending_with"] == {"type": "human", "ref": "ana", "name": "?"}


def test_canceled_has_one_l(api, create):
    intent_id = create()
    api("POST", f"/intents/{intent_id}/resolve", json={"status": "CANCELLED", "reason": "no"})
    assert (told(api, intent_id)[-1]["event_type"], told(api, intent_id)[-1]["status"]) == (
        "intent.canceled",
        "CANCELED",
    )
    assert api("GET", "/intents?status=CANCELLED").json["intents"][0]["status"] == "CANCELED"


def test_a_deadline_is_timed_out(api, create, stage):
    intent_id = create(ttl_seconds=60)
    stage.pass_time("2m")
    assert (told(api, intent_id)[-1]["event_type"], told(api, intent_id)[-1]["status"]) == (
        "intent.timed_out",
        "TIMED_OUT",
    )


@pytest.mark.parametrize(
    "sent",
    [
        {"approve_current_step": True, "reason": "ok"},
        {"action": "complete", "reason": "ok", "n": 1},
        {"n": 1},
        {"task_result": {"outcome": "approved", "comment": "ok", "n": 1}},
        {"outcome": "approved", "task_result": {"approved": True}},
    ],
    ids=str,
)
def test_all_five_bodies_of_resume(api, create, sent):
    asks = {"human_task": {"title": "?", "assignees": ["ops"]}} if "task_result" in sent else {}
    answer = api("POST", f"/intents/{create(**asks)}/resume", json=sent).json
    assert (answer["ok"], answer["applied"]) == (True, True)
    assert {"policy_generation", "intent"} <= set(answer)


def test_scenarios_as_examples_write_them_and_the_union_of_responses(api):
    bundle = {
        "scenario_id": "quarterly-report.v1", "title": "Quarterly report",
        "agents": [{"role": "writer", "address": BOT, "delivery_mode": "http", "callback_url": "https://bot.example/hook"}],
        "humans": [{"role": "boss", "contact": "ana", "display_name": "Ana"}],
        "workflow": {
            "steps": [
                {"step_id": "sign", "tool_id": "tool.approval.human_signoff", "assigned_to": "boss", "requires_approval": True,
                 "human_task": {"title": "Sign?", "task_type": "form", "notify_email": "ana@x.example"}},
            ]
        },
        "intent": {"type": "intent.report.v1", "payload": {}},
    }  # fmt: skip
    answer = api("POST", "/scenarios/apply", json=bundle)
    assert answer.status_code == 200, answer.text
    assert {
        "intent_id",
        "scenario_id",
        "status",
        "compile_id",
        "workflow_compile_id",
        "agents",
        "agents_provisioned",
    } <= set(answer.json)
    assert api("POST", "/scenarios/validate", json=bundle).json["errors"] == []


@pytest.mark.parametrize("task", [{"task_type": "form"}, {"notify_email": "a@b.example"}, {"task_type": "approval"}])
def test_human_tasks_as_examples_write_them(api, create, task):
    found = shown(api, create(human_task=task))
    assert (found["status"], found["human_task"]) == ("WAITING", task)


def test_a_completions_thread_is_its_intent(api, create):
    intent_id = create(reply_to="agent://acme/me")
    done = api("POST", f"/intents/{intent_id}/resolve", json={"status": "COMPLETED", "result": {}}).json
    assert done["completion_delivery"]["thread_id"] == intent_id
    (thread,) = api("GET", "/inbox?owner_agent=agent://acme/me").json["threads"]
    assert thread["thread_id"] == thread["intent_id"] == intent_id
    assert thread["timeline"][-1]["event_type"] == "intent_completion_delivered"


def test_an_approvals_answer_has_its_four_names(api, create):
    intent_id = create(human_task={"title": "?", "assignees": ["ops"]})
    answer = api("POST", f"/approvals/{intent_id}/decision", json={"decision": "approve"}).json
    assert (answer["ok"], set(answer["approval"])) == (True, {"approval_id", "decision", "comment", "decided_at"})


def test_refusals_have_error_and_detail(api):
    body = api("GET", f"/intents/{uuid.uuid4()}").json
    assert {"code", "message", "category", "retryable", "details"} <= set(body["error"])
    assert body["detail"] == body["error"]["message"]


def test_json_on_every_success(api, create):
    for method, path in (
        ("DELETE", None),
        ("POST", f"/inbox/{create()}/read"),
        ("GET", "/inbox"),
        ("GET", "/me/tasks"),
    ):
        if path is None:
            sent = {"callback_url": "https://x.example/hook", "event_types": ["intent.*"]}
            made = api("POST", "/webhooks/subscriptions", json=sent).json["subscription"]["subscription_id"]
            path = f"/webhooks/subscriptions/{made}"
        answer = api(method, path)
        assert (answer.status_code, answer.json["ok"]) == (200, True)


def test_the_stub_of_an_older_tool(web, make_key):
    call = {"name": "axme.check_nick", "arguments": {"nick": "@ana", "owner_agent": BOT}}
    sent = {"jsonrpc": "2.0", "id": "1", "method": "tools/call", "params": call}
    answer = web.test_client().post("/mcp", json=sent, headers={"x-api-key": make_key("ops", role="operator")})
    assert isinstance(answer.json["result"]["tool"], str) and isinstance(answer.json["result"]["status"], str)


@pytest.mark.parametrize("to", ["bot", "acme/bot", "acme/ops/bot", "agent://bot", "agent://acme/ops/bot"])
def test_addresses_of_one_two_and_three_parts(api, create, to):
    intent_id = create(to_agent=to)
    assert shown(api, intent_id)["to_agent"] == to
    (found,) = api("GET", f"/agents/{to.removeprefix('agent://')}/intents").json["intents"]
    assert found["intent_id"] == intent_id


def test_pushes_are_signed_over_their_raw_body(api, create, stage, axme):
    bot = {"who": "bot", "role": "approver", "agent": BOT}
    sent = {"delivery_mode": "http", "callback_url": "https://bot.example/hook"}
    secret = api("PUT", "/agents/acme/ops/bot", json=sent, **bot).json["callback_secret"]
    intent_id = create()
    stage.run()
    ((url, body, headers),) = stage.webhooks
    assert (url, json.loads(body)["intent_id"]) == ("https://bot.example/hook", intent_id)
    assert headers["X-Axme-Signature"] == "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    assert {"webhook-id", "webhook-timestamp", "webhook-signature"} <= set(headers)
    assert secret == subscription_of_url(axme.runtime, url).secret
