"""``/mcp``: the official client and the published SDK use the queue through it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import mcp
import pytest
from axme import AxmeClient, AxmeClientConfig
from mcp.client.streamable_http import streamable_http_client
from werkzeug.serving import make_server

from axme_celery import keys, wait_for_human
from axme_celery.testing import Stage
from axme_celery.web import create_app
from tests.web.conftest import SECRET

BOT = "agent://acme/ops/bot"


@pytest.fixture
def rpc(web, stage, make_key):
    """``rpc("tools/list")``: what a request's answer holds."""
    secrets = {}

    def ask(method, params=None, *, who="ops", role="operator", request_id=1, **more):
        if (who, role) not in secrets:
            secrets[who, role] = make_key(who, role=role, **more)
        sent = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params or {}}
        answer = web.test_client().post("/mcp", json=sent, headers={"x-api-key": secrets[who, role]})
        assert answer.status_code == 200, answer.text
        stage.run()
        return answer.json

    return ask


@pytest.fixture
def tool(rpc):
    """``tool("axme.inbox", limit=1)``: the result of a call."""

    def call(name, *, who="ops", role="operator", groups=(), **arguments):
        more = {"groups": groups} if groups else {}
        return rpc("tools/call", {"name": name, "arguments": arguments}, who=who, role=role, **more)["result"]

    return call


@pytest.fixture
def served(app, tmp_path):
    """A real server on a stage: (its address, the stage)."""
    with Stage(app, ledger_url=f"sqlite:///{tmp_path}/ledger.db") as stage:
        server = make_server("127.0.0.1", 0, create_app(stage.axme, secret_key=SECRET), threaded=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.port}", stage
        server.shutdown()
        thread.join(5)
        server.server_close()


# -- clients nobody here wrote -------------------------------------------------------


def test_the_official_client_submits_follows_answers_and_cancels(served):
    """Streamable HTTP, as it is on PyPI."""
    url, stage = served
    _, secret = keys.create(stage.axme.runtime, name="assistant", role="approver", groups=["analysts"])

    @stage.axme.handles("intent.report.v1")
    @stage.axme.task
    def report(payload):
        return wait_for_human(f"Publish {payload['month']}?", to="analysts").outcome

    async def talk():
        async with contextlib.AsyncExitStack() as stack:
            http = await stack.enter_async_context(httpx2.AsyncClient(headers={"x-api-key": secret}))
            client = await stack.enter_async_context(mcp.Client(streamable_http_client(f"{url}/mcp", http_client=http)))
            names = {tool.name for tool in (await client.list_tools()).tools}
            sent = await client.call_tool(
                "axme.intents_send",
                {"intent_type": "intent.report.v1", "to_agent": BOT, "payload": {"month": "2026-10"}},
            )
            intent_id = sent.structured_content["intent_id"]
            await asyncio.to_thread(stage.run)
            asked = (await client.call_tool("axme.inbox", {})).structured_content["tasks"]
            await client.call_tool(
                "axme.tasks_answer", {"intent_id": intent_id, "outcome": "approved", "comment": "fine"}
            )
            await asyncio.to_thread(stage.run)
            told = (await client.call_tool("axme.intents_follow", {"intent_id": intent_id})).structured_content
            late = await client.call_tool("axme.intents_cancel", {"intent_id": intent_id})
            return names, asked, told, late

    # In a thread of its own: a browser's driver may have left a loop in this one.
    with ThreadPoolExecutor(1) as pool:
        names, asked, told, late = pool.submit(asyncio.run, talk()).result(60)

    assert {"axme.intents_send", "axme.intents_follow", "axme.intents_list", "axme.inbox"} <= names
    assert [task["human_task"]["title"] for task in asked] == ["Publish 2026-10?"]
    assert (told["ended"], told["events"][-1]["result"]) == (True, "approved")
    assert late.is_error and "ended COMPLETED" in late.content[0].text


def test_the_published_sdk_calls_tools(served):
    url, stage = served
    _, secret = keys.create(stage.axme.runtime, name="sdk", role="approver")
    with AxmeClient(AxmeClientConfig(base_url=url, api_key=secret)) as client:
        begun = client.mcp_initialize()
        tools = client.mcp_list_tools()
        called = client.mcp_call_tool("axme.check_nick", arguments={"nick": "@ana"})
        sent = {"intent_type": "intent.demo.v1", "to_agent": BOT}
        first, again = (
            client.mcp_call_tool("axme.intents_send", arguments=dict(sent), idempotency_key="once") for _ in range(2)
        )

    assert begun["protocolVersion"] == "2024-11-05"
    assert len(tools["tools"]) >= 10
    assert (called["ok"], called["tool"], called["status"]) == (True, "axme.check_nick", "ok")
    assert first["data"]["intent_id"] == again["data"]["intent_id"]


# -- tools ---------------------------------------------------------------------------------


@pytest.fixture
def asking(axme):
    @axme.task
    def asking():
        return wait_for_human("Well?", to="analysts").outcome

    return asking


def test_an_intent_is_listed_shown_and_canceled(tool, stage):
    made = tool("axme.intents_send", intent_type="intent.demo.v1", to_agent=BOT, payload={"n": 1})["data"]
    listed = tool("axme.intents_list", status="SUBMITTED", to_agent=BOT)["data"]["intents"]
    shown = tool("axme.intents_get", intent_id=made["intent_id"])["data"]["intent"]
    ended = tool("axme.intents_cancel", intent_id=made["intent_id"], reason="enough")["data"]["intent"]

    assert [one["intent_id"] for one in listed] == [made["intent_id"]]
    assert (shown["payload"], ended["status"]) == ({"n": 1}, "CANCELED")
    assert stage.intent(made["intent_id"]).error["message"] == "enough"


def test_questions_are_answered_by_those_who_are_asked(tool, stage, asking):
    first, second, third = (stage.submit(asking.s()) for _ in range(3))
    ana = {"who": "ana", "role": "approver", "groups": ["analysts"]}
    assert len(tool("axme.inbox", **ana)["data"]["tasks"]) == 3
    assert tool("axme.inbox", who="eve", role="approver")["data"]["tasks"] == []

    tool("axme.tasks_approve", intent_id=first.id, **ana)
    tool("axme.tasks_reject", intent_id=second.id, comment="no", **ana)
    wrong = tool("axme.tasks_answer", intent_id=third.id, outcome="maybe", **ana)
    missing = tool("axme.tasks_answer", intent_id=third.id, **ana)
    eve = tool("axme.tasks_approve", intent_id=third.id, who="eve", role="approver")

    assert (first.refresh().result, second.refresh().result) == ("approved", "rejected")
    assert (wrong["isError"], wrong["status"]) == (True, "invalid_arguments")
    assert "approved, rejected" in missing["content"][0]["text"]
    assert eve["isError"] and third.refresh().status == "WAITING"


def test_following_waits_for_what_comes_next(tool, stage, asking):
    intent = stage.submit(asking.s())
    told = tool("axme.intents_follow", intent_id=intent.id)["data"]
    began = time.monotonic()
    nothing = tool("axme.intents_follow", intent_id=intent.id, since=told["next_since"], wait_seconds=1)["data"]

    assert [e["seq"] for e in told["events"]] == list(range(1, told["next_since"] + 1))
    assert (nothing["events"], nothing["ended"]) == ([], False)
    assert time.monotonic() - began >= 0.9


def test_rights_are_those_of_the_key(tool, stage, asking):
    """A viewer looks; another owner's intents are not there."""
    intent = stage.submit(asking.s())
    low = tool("axme.intents_cancel", intent_id=intent.id, who="eve", role="viewer")
    gone = tool("axme.intents_get", intent_id="00000000-0000-7000-8000-000000000000")

    assert (low["isError"], low["status"]) == (True, "policy_denied")
    assert (gone["isError"], gone["status"]) == (True, "not_found")
    assert tool("axme.whoami", who="eve", role="viewer")["data"]["role"] == "viewer"


def test_another_owners_intent_is_not_found(rpc, stage):
    send = {"name": "axme.intents_send", "arguments": {"intent_type": "intent.demo.v1", "to_agent": BOT}}
    mine = rpc("tools/call", send, who="a", owner="acme")["result"]["data"]["intent_id"]
    call = {"name": "axme.intents_get", "arguments": {"intent_id": mine}}

    assert rpc("tools/call", call, who="b", owner="globex")["result"]["status"] == "not_found"
    assert rpc("tools/call", call, who="a", owner="acme")["result"]["ok"] is True


# -- the protocol ---------------------------------------------------------------------------


def test_a_version_is_agreed_on(rpc):
    assert rpc("initialize", {"protocolVersion": "2025-06-18"})["result"]["protocolVersion"] == "2025-06-18"
    assert rpc("initialize", {"protocolVersion": "1999-01-01"})["result"]["protocolVersion"] == "2025-11-25"


@pytest.mark.parametrize("method", ["ping", "resources/list", "resources/templates/list", "prompts/list"])
def test_what_clients_ask_in_passing_is_answered(rpc, method):
    assert "result" in rpc(method)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ({"method": "no/such"}, -32601), ({"method": "tools/call", "params": {"name": "nothing"}}, -32602),
        ({"method": "tools/call", "params": {"name": "axme.inbox", "arguments": []}}, -32602),
        ({"method": "ping", "params": []}, -32602), ({"method": 7}, -32600), ({"jsonrpc": "1.0", "method": "ping"}, -32600),
        ({"id": {}, "method": "ping"}, -32600),
    ],
)  # fmt: skip
def test_what_breaks_the_protocol_is_told_by_its_code(web, stage, make_key, sent, code):
    answer = web.test_client().post(
        "/mcp", json={"jsonrpc": "2.0", "id": 1, **sent}, headers={"x-api-key": make_key("x")}
    )

    assert (answer.status_code, answer.json["error"]["code"]) == (200, code)


def test_a_batch_is_answered_as_one_and_notifications_not_at_all(web, stage, make_key):
    headers = {"x-api-key": make_key("x")}
    ping, note = (
        {"jsonrpc": "2.0", "id": 1, "method": "ping"},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
    )
    client = web.test_client()

    assert [a["id"] for a in client.post("/mcp", json=[ping, note, {**ping, "id": "b"}], headers=headers).json] == [
        1,
        "b",
    ]
    assert client.post("/mcp", json=note, headers=headers).status_code == 202
    assert client.post("/mcp", data=b"{", headers=headers).json["error"]["code"] == -32700
    for nothing in ([], 7, "ping"):
        assert client.post("/mcp", json=nothing, headers=headers).json["error"]["code"] == -32600
    assert client.get("/mcp", headers=headers).status_code == 405


def test_without_a_key_nothing_is_answered(web, stage):
    for method in ("initialize", "tools/list", "tools/call"):
        answer = web.test_client().post("/mcp", json={"jsonrpc": "2.0", "id": 1, "method": method})
        assert (answer.status_code, answer.json["error"]["code"]) == (401, -32001)


def test_one_that_calls_too_often_is_told_when_to_come_back(app, tmp_path):
    with Stage(app, requests_per_minute=2) as stage:
        web = create_app(stage.axme, secret_key=SECRET)
        headers = {"x-api-key": keys.create(stage.axme.runtime, name="x")[1]}
        sent = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "axme.whoami"}}
        *_, last = (web.test_client().post("/mcp", json=sent, headers=headers).json for _ in range(3))

    assert last["error"]["code"] == -32004 and last["error"]["data"]["retry_after_seconds"] > 0
