"""``/v1/intents``: created once and durably, read, followed, decided; refusals in one shape."""

from __future__ import annotations

import json
import uuid

import pytest

from axme_celery import wait_for_human, wait_for_tool
from axme_celery.model import Status

BOT = "agent://acme/ops/bot"


def body(**fields):
    return {"intent_type": "intent.demo.v1", "to_agent": BOT, "correlation_id": str(uuid.uuid4()), **fields}


# -- create -------------------------------------------------------------------------------


def test_an_intent_is_created_with_two_events_to_be_seen_at_once(api, create):
    """200, a UUID, and it is durable when it is answered."""
    intent_id = create(payload={"n": 1})

    assert uuid.UUID(intent_id)
    events = api("GET", f"/intents/{intent_id}/events").json["events"]
    assert [event["event_type"] for event in events] == ["intent.created", "intent.submitted"]
    assert api("GET", f"/intents/{intent_id}").json["intent"]["payload"] == {"n": 1}


def test_the_same_key_and_body_bring_back_the_same_answer(api):
    """Byte for byte, and nothing is made twice."""
    sent, headers = body(payload={"n": 1}), {"Idempotency-Key": "order-1"}

    first = api("POST", "/intents", json=sent, headers=headers)
    again = api("POST", "/intents", data=json.dumps(sent, indent=3), headers=headers)

    assert (again.data, again.headers["Idempotency-Replayed"]) == (first.data, "true")
    assert len(api("GET", "/intents").json["intents"]) == 1


def test_the_same_key_with_another_body_is_refused(api):
    """With the words published clients look for."""
    headers = {"Idempotency-Key": "order-1"}
    sent = body()
    api("POST", "/intents", json=sent, headers=headers)

    refused = api("POST", "/intents", json={**sent, "payload": {"other": 1}}, headers=headers)

    assert (refused.status_code, refused.json["detail"]) == (409, "idempotency key reused with different payload")
    assert refused.json["error"]["code"] == "idempotency_conflict"


def test_a_key_is_its_senders_own(api):
    """Two who choose the same one have nothing to do with each other."""
    headers = {"Idempotency-Key": "order-1"}
    one = api("POST", "/intents", json=body(), headers=headers, who="one")
    two = api("POST", "/intents", json=body(), headers=headers, who="two")
    assert one.json["intent_id"] != two.json["intent_id"]


def test_a_refused_request_leaves_its_key_free(api):
    """What was wrong can be put right and sent again."""
    headers = {"Idempotency-Key": "order-1"}
    assert api("POST", "/intents", json={"intent_type": "no"}, headers=headers).status_code == 422
    assert api("POST", "/intents", json=body(), headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"intent_type": "Export"}, 422, "schema_invalid"),
        ({"intent_type": None}, 422, "schema_invalid"),
        ({"to_agent": None}, 422, "schema_invalid"),
        ({"to_agent": "not an agent"}, 422, "invalid_agent_address"),
        ({"correlation_id": "x"}, 422, "schema_invalid"),
        ({"payload": []}, 422, "schema_invalid"),
        ({"payload": {"x": "\0"}}, 400, "malformed_request"),
        ({"payload": {"x": "y" * 131072}}, 413, "payload_too_large"),
        ({"deadline_at": "2001-01-01T00:00:00Z"}, 422, "schema_invalid"),
        ({"deadline_at": "soon"}, 422, "schema_invalid"),
        ({"ttl_seconds": 5}, 422, "schema_invalid"),
        ({"max_delivery_attempts": 0}, 422, "schema_invalid"),
        ({"max_reminders": True}, 422, "schema_invalid"),
        ({"human_task": {"task_type": "dance"}}, 422, "schema_invalid"),
        ({"human_task": {"form_schema": {"type": "string"}}}, 422, "schema_invalid"),
        ({"human_task": []}, 422, "schema_invalid"),
    ],
    ids=str,
)
def test_what_is_wrong_is_refused_and_leaves_nothing(api, change, status, code):
    """In one shape: the error with its code, and the detail beside it."""
    refused = api("POST", "/intents", json=body(**change))

    assert (refused.status_code, refused.json["error"]["code"]) == (status, code)
    assert refused.json["detail"] == refused.json["error"]["message"]
    assert set(refused.json["error"]) >= {"code", "message", "category", "retryable", "details"}
    assert api("GET", "/intents").json["intents"] == []


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b'{"payload": NaN}', 400),
        (b'{"payload": {"x": 1e999}}', 400),
        (b'"\\ud800"', 400),
        (b"[]", 422),
        (b"3", 422),
        (b"[" * 100000, 400),
        (b'{"payload":' + b'{"a":' * 60 + b"1" + b"}" * 61, 422),
        (b" " * 200000, 413),
        (b"", 422),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(api, data, status):
    """Whatever it is, never with a 5xx."""
    assert api("POST", "/intents", data=data).status_code == status


def test_a_task_bound_to_the_type_runs_it(api, create, axme, stage):
    """And its result is in the last event, where clients look for it."""

    @axme.handles("intent.double.v1")
    @axme.task
    def double(payload):
        return {"n": payload["n"] * 2}

    intent_id = create(intent_type="intent.double.v1", payload={"n": 4})

    last = api("GET", f"/intents/{intent_id}/events").json["events"][-1]
    assert (last["event_type"], last["status"]) == ("intent.completed", "COMPLETED")
    assert last["result"] == last["details"]["result"] == {"n": 8}


def test_a_deadline_ends_it(api, create, stage):
    """As TIMED_OUT."""
    intent_id = create(ttl_seconds=60)
    stage.pass_time("61s")
    assert api("GET", f"/intents/{intent_id}").json["intent"]["lifecycle_status"] == "TIMED_OUT"


def test_a_url_is_told_of_the_end(api, create, stage):
    """Only one that could be called is taken."""
    intent_id = create(notify="https://ops.example/hook")
    api("POST", f"/intents/{intent_id}/resolve", json={"status": "CANCELED"})
    ((url, told, _),) = stage.webhooks
    assert (url, json.loads(told)["intent_id"]) == ("https://ops.example/hook", intent_id)
    assert api("POST", "/intents", json=body(notify="ftp://x")).status_code == 422


# -- read ---------------------------------------------------------------------------------


def test_an_intent_has_all_the_names_clients_read(api, create):
    """Canonical and legacy beside each other."""
    found = api("GET", f"/intents/{create(reply_to='acme/me', remind_after_seconds=5)}").json["intent"]
    assert found["status"] == found["lifecycle_status"] == "SUBMITTED"
    assert (found["legacy_status"], found["to_agent"], found["reply_to"]) == ("accepted", BOT, "acme/me")
    assert (found["from_agent"], found["policy_generation"], found["remind_after_seconds"]) == ("ops", 0, 5)
    assert {"intent_id", "created_at", "intent_type", "correlation_id", "payload"} <= set(found)


def test_an_intent_of_no_ones_is_not_found(api):
    """As any other that does not exist."""
    for path in ("", "/events", "/events/stream"):
        missing = api("GET", f"/intents/{uuid.uuid4()}{path}")
        assert (missing.status_code, missing.json["error"]["code"]) == (404, "intent_not_found")


def test_since_is_exclusive(api, create):
    """Every event after the number given, and no other."""
    intent_id = create()
    assert [e["seq"] for e in api("GET", f"/intents/{intent_id}/events?since=1").json["events"]] == [2]
    assert api("GET", f"/intents/{intent_id}/events?since=2").json["events"] == []
    assert api("GET", f"/intents/{intent_id}/events?since=x").status_code == 422


def test_intents_are_listed_page_by_page(api, create):
    """Newest first, by status and type."""
    made = [create() for _ in range(3)]
    first = api("GET", "/intents?limit=2").json
    second = api("GET", f"/intents?limit=2&cursor={first['next_cursor']}").json
    listed = [one["intent_id"] for one in [*first["intents"], *second["intents"]]]
    assert sorted(listed) == sorted(made) and second["next_cursor"] is None
    assert len(api("GET", "/intents?status=pending").json["intents"]) == 3
    assert api("GET", "/intents?status=COMPLETED").json["intents"] == []
    assert api("GET", "/intents?status=odd").status_code == 422


def frames(text):
    """The frames of a stream: (id, event, data)."""
    found = []
    for frame in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in frame.splitlines() if not line.startswith(":"))
        if lines:
            found.append((lines.get("id"), lines["event"], json.loads(lines["data"])))
    return found


def test_a_stream_has_the_same_events_and_ends_by_itself(api, create):
    """Frames with their number and type; the window ends with ``stream.timeout``."""
    intent_id = create()
    listed = api("GET", f"/intents/{intent_id}/events").json["events"]

    said = frames(api("GET", f"/intents/{intent_id}/events/stream?wait_seconds=1").text)

    assert [(n, data) for n, _, data in said[:-1]] == [(str(e["seq"]), e) for e in listed]
    assert said[0][1] == "intent.created"
    assert (said[-1][1], said[-1][2]) == ("stream.timeout", {"ok": True, "next_seq": 2})


def test_a_stream_of_an_ended_intent_ends_at_its_end(api, create):
    """With the result, and from where the reader was: ``since`` and ``Last-Event-ID`` are the same."""
    intent_id = create()
    api("POST", f"/intents/{intent_id}/resolve", json={"status": "COMPLETED", "result": {"n": 1}})
    by_query = frames(api("GET", f"/intents/{intent_id}/events/stream?since=2").text)
    by_header = frames(api("GET", f"/intents/{intent_id}/events/stream", headers={"Last-Event-ID": "2"}).text)
    assert by_query == by_header
    assert [event for _, event, _ in by_query] == ["intent.in_progress", "intent.completed"]
    assert by_query[-1][2]["details"]["result"] == {"n": 1}


def test_the_published_command_line_counts_from_the_next_one(api, create):
    """It sends the last number plus one, and would lose an event otherwise."""
    intent_id = create()
    told = api(
        "GET", f"/intents/{intent_id}/events/stream?since=2&wait_seconds=1", headers={"X-Axme-Client": "axme-cli/1"}
    )
    assert [n for n, _, _ in frames(told.text)] == ["2", None]


# -- decide --------------------------------------------------------------------------------


def test_resolve_ends_an_intent_from_any_open_status(api, create):
    """With its event, and says where the end was delivered."""
    intent_id = create(reply_to="agent://acme/me")
    done = api("POST", f"/intents/{intent_id}/resolve", json={"status": "COMPLETED", "result": {"rows": 2}}).json

    assert (done["intent"]["status"], done["event"]["event_type"]) == ("COMPLETED", "intent.completed")
    assert done["event"]["details"]["result"] == done["intent"]["result"] == {"rows": 2}
    assert done["completion_delivery"]["delivered"] is True
    assert done["completion_delivery"]["thread_id"] == intent_id
    again = api("POST", f"/intents/{intent_id}/resolve", json={"status": "FAILED", "error": {"code": "x"}})
    assert (again.status_code, again.json["error"]["code"]) == (409, "intent_terminal")


@pytest.mark.parametrize(
    ("sent", "status", "event"),
    [
        ({"status": "FAILED", "error": {"code": "no_disk", "message": "full"}}, "FAILED", "intent.failed"),
        ({"status": "FAILED", "reason": "because"}, "FAILED", "intent.failed"),
        ({"status": "CANCELED", "reason": "no need"}, "CANCELED", "intent.canceled"),
        ({"status": "CANCELLED"}, "CANCELED", "intent.canceled"),
    ],
)
def test_resolve_knows_three_ends(api, create, sent, status, event):
    """Without a ``reply_to`` it says that nobody was told."""
    done = api("POST", f"/intents/{create()}/resolve", json=sent).json
    assert (done["intent"]["status"], done["event"]["event_type"]) == (status, event)
    assert done["completion_delivery"] == {"delivered": False, "reason": "reply_to_not_set"}


@pytest.mark.parametrize(
    "sent", [{}, {"status": "TIMED_OUT"}, {"status": "FAILED"}, {"status": "COMPLETED", "result": [1]}, {"status": 3}]
)
def test_resolve_refuses_what_is_no_end(api, create, sent):
    """And leaves the intent as it was."""
    intent_id = create()
    assert api("POST", f"/intents/{intent_id}/resolve", json=sent).status_code == 422
    assert api("GET", f"/intents/{intent_id}").json["intent"]["status"] == "SUBMITTED"


def test_resolve_does_not_complete_what_celery_runs(api, stage, axme):
    """It may be canceled or failed, which stops its tasks."""

    @axme.task
    def asking():
        return wait_for_human("Go on?", to="ana").outcome

    intent = stage.submit(asking.s())
    refused = api("POST", f"/intents/{intent.id}/resolve", json={"status": "COMPLETED", "result": {}})
    assert (refused.status_code, refused.json["error"]["code"]) == (409, "handled_by_queue")
    failed = api("POST", f"/intents/{intent.id}/resolve", json={"status": "FAILED", "error": {"code": "stop"}})
    assert failed.json["intent"]["status"] == "FAILED"


def test_controls_and_policy_change_by_generations(api, create):
    """A stale one changes nothing and says so."""
    intent_id = create()
    one = api("POST", f"/intents/{intent_id}/controls", json={"controls_patch": {"timeout_seconds": 5}}).json
    assert (one["applied"], one["policy_generation"], one["controls"]) == (True, 1, {"timeout_seconds": 5})
    grants = {"delegate:agent://acme/deputy": {"allow": ["resume"]}}
    patch = {"grants_patch": grants, "expected_policy_generation": 1}
    assert api("POST", f"/intents/{intent_id}/policy", json=patch).json["policy_generation"] == 2

    stale = api("POST", f"/intents/{intent_id}/policy", json=patch)
    assert stale.status_code == 409
    assert (stale.json["applied"], stale.json["policy_generation"]) == (False, 2)
    stale = api("POST", f"/intents/{intent_id}/resume", json={"action": "complete", "expected_policy_generation": 1})
    assert (stale.status_code, stale.json["applied"]) == (409, False)
    for wrong in ({}, {"controls_patch": {"timeout_seconds": -1}}, {"controls_patch": 1}):
        assert api("POST", f"/intents/{intent_id}/controls", json=wrong).status_code == 422
    assert api("POST", f"/intents/{intent_id}/policy", json={"grants_patch": {"x": {}}}).status_code == 422


def test_a_granted_agent_may_resume(api, create):
    """And nobody else's agent."""
    intent_id = create()
    deputy = {"who": "deputy", "role": "approver", "agent": "agent://acme/deputy"}
    assert api("POST", f"/intents/{intent_id}/resume", json={"action": "complete"}, **deputy).status_code == 403
    grants = {"delegate:agent://acme/deputy": {"allow": ["resume"]}}
    api("POST", f"/intents/{intent_id}/policy", json={"grants_patch": grants})
    assert api("POST", f"/intents/{intent_id}/resume", json={"action": "complete"}, **deputy).status_code == 200


def test_many_are_canceled_at_once(api, create, stage):
    """A dry run only says which."""
    old = create()
    stage.pass_time("3h")
    create()
    asked = {"older_than_hours": 2, "status_filter": ["SUBMITTED"]}

    dry = api("POST", "/intents/bulk-cancel", json={**asked, "dry_run": True}).json
    assert (dry["would_cancel"], dry["intent_ids"]) == (1, [old])
    done = api("POST", "/intents/bulk-cancel", json={**asked, "reason": "old"}).json
    assert (done["canceled"], stage.intent(old).status) == (1, Status.CANCELED)
    assert api("POST", "/intents/bulk-cancel", json={}, role="approver").status_code == 403


# -- resume, in all its forms ------------------------------------------------------------------


def test_resume_by_action_ends_it(api, create):
    """The agent's word; the fields beside it are the result, or the error's details."""
    done = api("POST", f"/intents/{create()}/resume", json={"action": "complete", "rows": 3, "reason": "ok"}).json
    assert (done["applied"], done["intent"]["status"], done["intent"]["result"]) == (True, "COMPLETED", {"rows": 3})
    failed = api("POST", f"/intents/{create()}/resume", json={"action": "fail", "reason": "no disk", "at": 3}).json
    error = failed["intent"]["error"]
    assert (failed["intent"]["status"], error["message"], error["details"]) == ("FAILED", "no disk", {"at": 3})


def test_resume_with_a_result_and_no_action_completes_it(api, create):
    """As the shortest examples do it."""
    done = api("POST", f"/intents/{create()}/resume", json={"report": "done"}).json
    assert (done["intent"]["status"], done["intent"]["result"]) == ("COMPLETED", {"report": "done"})


def test_resume_without_anything_goes_on(api, create):
    """It is then in progress, which may be said again."""
    intent_id = create()
    for _ in range(2):
        on = api("POST", f"/intents/{intent_id}/resume", json={"approve_current_step": True, "reason": "go"}).json
        assert (on["applied"], on["intent"]["status"]) == (True, "IN_PROGRESS")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"task_result": {"outcome": "approved", "comment": "fine"}}, "COMPLETED"),
        ({"outcome": "approved", "task_result": {"approved": True}}, "COMPLETED"),
        ({"task_result": {"approved": False}}, "FAILED"),
        ({"approve_current_step": True, "reason": "fine"}, "COMPLETED"),
        ({"approve_current_step": False}, "FAILED"),
        ({"action": "approve"}, "COMPLETED"),
        ({"action": "reject"}, "FAILED"),
        ({"outcome": "rejected"}, "FAILED"),
    ],
    ids=str,
)
def test_resume_answers_for_a_person(api, create, sent, status):
    """All the forms in circulation mean the same wait."""
    intent_id = create(human_task={"title": "Ship it?", "assignees": ["ops"]})
    answered = api("POST", f"/intents/{intent_id}/resume", json=sent).json
    assert (answered["applied"], answered["intent"]["status"]) == (True, status)
    if status == "FAILED":
        assert answered["intent"]["error"]["code"] == "rejected"


def test_a_form_is_checked_flat_or_within_data(api, create):
    """As clients send it; what does not fit is refused."""
    form = {"type": "object", "properties": {"amount": {"type": "integer"}}, "required": ["amount"]}
    task = {"title": "How much?", "task_type": "form", "form_schema": form, "assignees": ["ops"]}
    for sent in ({"outcome": "submitted", "amount": 3}, {"outcome": "submitted", "data": {"amount": 3}}, {"amount": 3}):
        intent_id = create(human_task=task)
        refused = api(
            "POST", f"/intents/{intent_id}/resume", json={"task_result": {**sent, "amount": "x", "data": None}}
        )
        assert (refused.status_code, refused.json["error"]["code"]) == (422, "schema_invalid")
        answered = api("POST", f"/intents/{intent_id}/resume", json={"task_result": sent}).json
        assert answered["intent"]["result"]["data"] == {"amount": 3}


@pytest.mark.parametrize(
    ("task", "wrong", "right"),
    [
        ({"required_comment": True}, {}, {"comment": "because"}),
        ({"evidence_required": True}, {"data": {}}, {"data": {"evidence": "photo"}}),
        ({"allowed_outcomes": ["ship", "hold"]}, {"outcome": "approved"}, {"outcome": "hold"}),
    ],
)
def test_what_a_task_asks_for_must_be_given(api, create, task, wrong, right):
    """A comment, evidence, one of its outcomes."""
    intent_id = create(human_task={"title": "?", "assignees": ["ops"], **task})
    outcome = {} if "allowed_outcomes" in task else {"outcome": "approved"}
    assert api("POST", f"/intents/{intent_id}/resume", json={"task_result": {**outcome, **wrong}}).status_code == 422
    answered = api("POST", f"/intents/{intent_id}/resume", json={"task_result": {**outcome, **right}})
    assert answered.json["intent"]["status"] == "COMPLETED"


def test_an_answer_that_comes_second_is_told_who_was_first(api, create):
    """And nobody who may not answer does."""
    intent_id = create(human_task={"title": "Ship it?", "assignees": ["ops", "analysts"]})
    yes = {"task_result": {"outcome": "approved"}}
    stranger = api("POST", f"/intents/{intent_id}/resume", json=yes, who="eve", role="approver")
    assert (stranger.status_code, stranger.json["error"]["code"]) == (403, "policy_denied")
    member = {"who": "ana", "role": "approver", "groups": ["analysts"]}
    assert api("POST", f"/intents/{intent_id}/resume", json=yes, **member).status_code == 200
    assert api("POST", f"/intents/{intent_id}/resume", json=yes, **member).status_code == 200, "the same again stands"
    late = api("POST", f"/intents/{intent_id}/resume", json={"task_result": {"outcome": "rejected"}})
    assert (late.status_code, late.json["error"]["details"]["closed_by"]) == (409, "ana")


def test_nothing_passes_a_person_by(api, create):
    """A result that comes while a person is asked is no answer."""
    intent_id = create(human_task={"title": "Ship it?", "assignees": ["ana"]})
    refused = api("POST", f"/intents/{intent_id}/resume", json={"report": "done"})
    assert (refused.status_code, refused.json["error"]["code"]) == (409, "waiting_for_human")


def test_answering_what_asks_nobody_is_refused(api, create):
    """409 while it is open, and once it has ended."""
    intent_id = create()
    sent = {"task_result": {"outcome": "approved"}}
    assert api("POST", f"/intents/{intent_id}/resume", json=sent).json["error"]["code"] == "not_waiting_for_human"
    api("POST", f"/intents/{intent_id}/resume", json={"action": "complete"})
    assert api("POST", f"/intents/{intent_id}/resume", json=sent).json["error"]["code"] == "intent_terminal"
    assert api("POST", f"/intents/{intent_id}/resume", json={"action": "complete"}).status_code == 409
    assert api("POST", f"/intents/{intent_id}/resume", json={"action": "dance"}).status_code == 422


def test_a_celery_task_that_waits_is_answered_the_same_way(api, stage, axme):
    """Over the same wait that the pages show."""

    @axme.task
    def asking():
        return wait_for_human("Publish?", to="ops").outcome

    intent = stage.submit(asking.s())
    api("POST", f"/intents/{intent.id}/resume", json={"task_result": {"outcome": "approved"}})
    assert intent.refresh().result == "approved"


def test_what_waits_for_no_person_has_nothing_to_approve(api, stage, axme):
    """A tool's wait is the tool's to end."""

    @axme.task
    def working():
        return wait_for_tool("warehouse", "j1")

    intent = stage.submit(working.s())
    on = api("POST", f"/intents/{intent.id}/resume", json={"approve_current_step": True}).json
    assert (on["applied"], on["reason"], on["intent"]["waiting_reason"]) == (
        False,
        "nothing_to_approve",
        "WAITING_FOR_TOOL",
    )
