"""The published SDK, unmodified, in a process of its own: ``python -m tests.e2e.sdk agent|client|outward``.

It knows the server's address and a key, and nothing of this repository. What it found out is printed as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import uuid
from typing import Any

from axme import AxmeClient, AxmeClientConfig
from axme.exceptions import AxmeAuthError, AxmeHttpError, AxmeValidationError

BOT = "agent://acme/ops/bot"


def connect(key: str | None = None) -> AxmeClient:
    """The client as its documentation makes it: two settings."""
    return AxmeClient(AxmeClientConfig(base_url=os.environ["AXME_BASE_URL"], api_key=key or os.environ["AXME_API_KEY"]))


def agent(count: int) -> None:
    """Listen, and finish so many intents."""
    client, done = connect(), []
    for delivery in client.listen(BOT, wait_seconds=3, timeout_seconds=60):
        intent = client.get_intent(delivery["intent_id"])["intent"]
        payload = intent["payload"]
        if payload.get("crash"):
            # Its process ends with the intent in its hands.
            print(json.dumps({"crashed": intent["intent_id"]}), flush=True)
            os._exit(9)
        result = {"action": "complete", "summary": f"summary of {payload.get('summarize')}"}
        client.resume_intent(intent["intent_id"], result)
        done.append({"intent_id": intent["intent_id"], "seq": delivery["seq"], "attempt": delivery["delivery_attempt"]})
        if len(done) == count:
            break
    print(json.dumps(done), flush=True)


def new(kind: str, to: str, **fields: Any) -> dict[str, Any]:
    return {"intent_type": kind, "to_agent": to, "payload": {}, **fields}


def client() -> dict[str, Any]:
    """Everything a client does, one thing after another."""
    found: dict[str, Any] = {}
    axme = connect()
    found["health"] = axme.health()["ok"]

    # A task in Celery.
    made = axme.create_intent(
        new("intent.e2e.double.v1", "agent://acme/any", payload={"number": 21}), correlation_id=str(uuid.uuid4()),
        idempotency_key="double-1",
    )  # fmt: skip
    again = axme.create_intent(
        {**new("intent.e2e.double.v1", "agent://acme/any", payload={"number": 21}), "correlation_id": None},
        correlation_id=str(uuid.uuid4()), idempotency_key="double-2",
    )  # fmt: skip
    found["events_at_once"] = len(axme.list_intent_events(made["intent_id"])["events"])
    end = axme.wait_for(made["intent_id"], timeout_seconds=30)
    found["doubled"] = (end["status"], end["details"]["result"]["doubled"], end["result"]["doubled"])
    found["other"] = axme.wait_for(again["intent_id"], timeout_seconds=30)["status"]

    # The same key, and the same with another body.
    sent, correlation = new("intent.e2e.note.v1", "agent://acme/nobody", payload={"n": 1}), str(uuid.uuid4())
    one = axme.create_intent(sent, correlation_id=correlation, idempotency_key="note-1")
    two = axme.create_intent(sent, correlation_id=correlation, idempotency_key="note-1")
    found["idempotent"] = one == two
    try:
        axme.create_intent({**sent, "payload": {"n": 2}}, correlation_id=correlation, idempotency_key="note-1")
    except AxmeValidationError as refused:
        found["conflict"] = (refused.status_code, refused.message)

    # Resolved by hand; observed to its end.
    found["seqs"] = []
    observer = threading.Thread(
        target=lambda: found["seqs"].extend(e["seq"] for e in axme.observe(one["intent_id"], wait_seconds=3))
    )
    observer.start()
    resolved = axme.resolve_intent(one["intent_id"], {"status": "COMPLETED", "result": {"by": "hand"}})
    observer.join(20)
    found["resolved"] = (resolved["intent"]["status"], resolved["event"]["event_type"])
    try:
        axme.resolve_intent(one["intent_id"], {"status": "FAILED", "error": {"code": "x"}})
    except AxmeValidationError as refused:
        found["terminal"] = refused.status_code

    # Controls and policy.
    open_id = axme.send_intent(new("intent.e2e.note.v1", "agent://acme/nobody"))
    axme.update_intent_controls(open_id, {"controls_patch": {"timeout_seconds": 60}})
    patch = {"grants_patch": {"delegate:agent://acme/deputy": {"allow": ["resume"]}}}
    found["generation"] = axme.update_intent_policy(open_id, patch)["policy_generation"]
    axme.resolve_intent(open_id, {"status": "CANCELED", "reason": "seen enough"})

    # An agent outside.
    sent_id = axme.send_intent(new("intent.e2e.summary.v1", BOT, payload={"summarize": "October"}))
    found["summary"] = axme.wait_for(sent_id, timeout_seconds=40)["details"]["result"]["summary"]

    # A Celery task that asks a person and then that agent.
    report_id = axme.send_intent(
        new(
            "intent.e2e.report.v1",
            "agent://acme/ops/reporter",
            payload={"month": "October"},
            reply_to="agent://acme/me",
        )
    )
    for event in axme.observe(report_id, wait_seconds=3, timeout_seconds=30):
        if event["event_type"] == "intent.human_task_assigned":
            break
    thread = axme.get_inbox_thread(report_id)["thread"]
    found["asked"] = (thread["status"], thread["subject"])
    axme.reply_inbox_thread(report_id, message="on it")
    found["decided"] = axme.decide_approval(report_id, decision="approve", comment="good")["approval"]["decision"]
    found["report"] = axme.wait_for(report_id, timeout_seconds=40)["result"]
    changes = axme.list_inbox_changes(owner_agent="agent://acme/me")["changes"]
    item = changes[-1]["thread"]["timeline"][-1]
    found["completion"] = (changes[-1]["thread"]["thread_id"] == report_id, item["event_type"])
    found["same_event"] = item["details"]["event"] == axme.list_intent_events(report_id)["events"][-1]

    # Questions to people alone.
    for decide, expected in ((axme.approve_inbox_thread, "COMPLETED"), (axme.reject_inbox_thread, "FAILED")):
        asked = axme.create_intent(
            new("intent.e2e.approval.v1", "agent://acme/nobody", human_task={"title": "May we?"}),
            correlation_id=str(uuid.uuid4()),
        )["intent_id"]  # fmt: skip
        found[f"inbox_{expected}"] = any(t["thread_id"] == asked for t in axme.list_inbox()["threads"])
        decide(asked, {"comment": "so be it"})
        found[f"human_{expected}"] = axme.wait_for(asked, timeout_seconds=20)["status"]

    # What is refused.
    try:
        axme.get_intent(str(uuid.uuid4()))
    except AxmeHttpError as missing:
        found["missing"] = (missing.status_code, bool(missing.request_id), bool(missing.trace_id))
    try:
        connect("axk_nobody").get_intent(report_id)
    except AxmeAuthError as refused:
        found["stranger"] = refused.status_code
    return found


def outward(sink: str) -> dict[str, Any]:
    """Webhooks, schemas, capabilities, a scenario and MCP."""
    found: dict[str, Any] = {}
    axme = connect()
    types = axme.get_capabilities()["supported_intent_types"]
    found["capabilities"] = all(t.startswith("intent.") and t.endswith(".v1") for t in types)

    made = axme.upsert_webhook_subscription(
        {"callback_url": sink, "event_types": ["intent.*"]}, idempotency_key="hook-1"
    )
    found["subscribed"] = made["subscription"]["active"]
    sent = axme.send_intent(
        new("intent.e2e.double.v1", "agent://acme/any", payload={"number": 4}, reply_to="agent://acme/me")
    )
    end = axme.wait_for(sent, timeout_seconds=30)
    thread = axme.get_inbox_thread(sent)["thread"]
    found["same"] = [
        end == axme.list_intent_events(sent)["events"][-1],
        end == thread["timeline"][-1]["details"]["event"],
    ]
    found["end"] = end

    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    kind = "intent.e2e.typed.v1"
    kept = axme.upsert_schema({"semantic_type": kind, "schema_json": schema, "compatibility_mode": "strict"})
    found["schema"] = (len(kept["schema"]["schema_hash"]), axme.get_schema(kind)["schema"]["schema_json"] == schema)
    try:
        axme.send_intent(new(kind, "agent://acme/nobody", payload={"n": "x"}))
    except AxmeValidationError as refused:
        found["unfit"] = refused.status_code

    bundle = {
        "scenario_id": "e2e.report",
        "agents": [{"role": "writer", "address": BOT, "create_if_missing": True}],
        "humans": [{"role": "boss", "contact": "sdk"}],
        "workflow": {
            "steps": [
                {"step_id": "write", "tool_id": "tool.agent.task.v1", "assigned_to": "writer"},
                {
                    "step_id": "sign",
                    "tool_id": "tool.approval.human_signoff",
                    "assigned_to": "boss",
                    "requires_approval": True,
                },
            ]
        },
        "intent": {"type": "intent.e2e.scenario.v1", "payload": {"summarize": "the year"}},
    }
    found["valid"] = axme.validate_scenario(bundle).get("errors", [])
    applied = axme.apply_scenario(bundle, idempotency_key="scenario-1")["intent_id"]
    for event in axme.observe(applied, wait_seconds=5, timeout_seconds=60):
        if event["event_type"] == "intent.human_task_assigned":
            axme.decide_approval(applied, decision="approve")
        ended = event["status"]
    found["scenario"] = ended

    found["mcp"] = axme.mcp_initialize()["protocolVersion"]
    found["mcp_tools"] = len(axme.mcp_list_tools()["tools"]) > 5
    found["mcp_called"] = axme.mcp_call_tool(
        "axme.check_nick", arguments={"nick": "@ana"}, owner_agent="agent://acme/me"
    )["tool"]
    return found


if __name__ == "__main__":
    if sys.argv[1] == "agent":
        agent(int(sys.argv[2]))
    elif sys.argv[1] == "outward":
        print(json.dumps(outward(sys.argv[2])))
    else:
        print(json.dumps(client()))
