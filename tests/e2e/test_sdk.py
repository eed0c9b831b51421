"""The published SDK against a real server with a real worker: a client that nobody here wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from axme_celery import keys
from tests.servers.process import free_port
from tests.sinks import HttpSink

from .conftest import opened
from .harness import ROOT, Stage, until

pytestmark = [pytest.mark.xdist_group("sdk"), pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Stage, str]]:
    """A worker with a beat and a web server of two processes, and where that is."""
    secret, port = "a secret of more than thirty-two characters", free_port()
    url = f"http://127.0.0.1:{port}"
    with opened(
        axme_secret_key=secret,
        axme_base_url=url,
        axme_agent_lease_seconds=4.0,
        axme_webhook_allow_cidrs=["127.0.0.1/32"],
    ) as stage:
        stage.worker(beat=True)
        stage._start("web", ["axme", "web", "--port", str(port), "--workers", "2"], None, "Listening at")
        until(lambda: _healthy(url), "answer of the web server")
        yield stage, url


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def start(url: str, key: str, *arguments: str) -> subprocess.Popen[str]:
    """The SDK in a process of its own."""
    environment = {**os.environ, "AXME_BASE_URL": url, "AXME_API_KEY": key}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.e2e.sdk", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=ROOT, env=environment,
    )  # fmt: skip


def found_by(program: subprocess.Popen[str], code: int = 0) -> object:
    """What it printed."""
    out, err = program.communicate(timeout=120)
    assert program.returncode == code, err[-4000:]
    return json.loads(out)


def test_the_published_sdk_works_unchanged(served: tuple[Stage, str]) -> None:
    """Create, wait, observe, resolve, listen, resume, inbox, approvals, controls and refusals."""
    stage, url = served
    key = keys.create(stage.axme.runtime, name="sdk", role="operator")[1]
    agent = start(url, keys.create(stage.axme.runtime, name="bot", role="approver", agent="agent://acme/ops/bot")[1],
                  "agent", "2")  # fmt: skip

    found = found_by(start(url, key, "client"))

    assert found == {
        "health": True,
        "events_at_once": found["events_at_once"],
        "doubled": ["COMPLETED", 42, 42],
        "other": "COMPLETED",
        "idempotent": True,
        "conflict": [409, "idempotency key reused with different payload"],
        "seqs": [1, 2, 3, 4],
        "resolved": ["COMPLETED", "intent.completed"],
        "terminal": 409,
        "generation": 2,
        "summary": "summary of October",
        "asked": ["pending", "Publish the report?"],
        "decided": "approve",
        "report": {"approved": True, "summary": "summary of October"},
        "completion": [True, "intent_completion_delivered"],
        "same_event": True,
        "inbox_COMPLETED": True,
        "human_COMPLETED": "COMPLETED",
        "inbox_FAILED": True,
        "human_FAILED": "FAILED",
        "missing": [404, True, True],
        "stranger": 401,
    }
    assert found["events_at_once"] >= 2
    assert [one["attempt"] for one in found_by(agent)] == [1, 1]


def test_the_published_sdk_reaches_what_leads_outward(served: tuple[Stage, str]) -> None:
    """Webhooks, schemas, capabilities, scenarios with an agent and a person, and MCP; the end is the same by every way."""
    stage, url = served
    key = keys.create(stage.axme.runtime, name="sdk", role="admin")[1]
    sink = HttpSink(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    with sink.server.running():
        agent = start(
            url,
            keys.create(stage.axme.runtime, name="bot", role="approver", agent="agent://acme/ops/bot")[1],
            "agent",
            "1",
        )
        found = found_by(start(url, key, "outward", f"http://127.0.0.1:{sink.server.port}/hook"))
        found_by(agent)

        def told() -> list[bytes]:
            bodies = [request.body for request in sink.requests]
            return [b for b in bodies if json.loads(b)["data"] == found["end"]]

        (body,) = until(told, "the end by webhook")
    assert json.loads(body)["type"] == "intent.completed"
    assert found == {
        "capabilities": True, "subscribed": True, "same": [True, True], "end": found["end"], "schema": [64, True],
        "unfit": 422, "valid": [], "scenario": "COMPLETED", "mcp": "2024-11-05", "mcp_tools": True,
        "mcp_called": "axme.check_nick",
    }  # fmt: skip


def test_an_intent_of_an_agent_that_died_goes_to_the_next_one(served: tuple[Stage, str]) -> None:
    """At once, for its connection broke; and what it had begun after its lease."""
    stage, url = served
    key = keys.create(stage.axme.runtime, name="bot-2", role="approver", agent="agent://acme/ops/bot")[1]
    first = start(url, key, "agent", "1")
    intent = stage.axme.submit("agent://acme/ops/bot", payload={"crash": True})
    crashed = found_by(first, code=9)
    assert crashed == {"crashed": intent.id}

    # The next agent is more careful: to it the payload is only words.
    def given_back() -> bool:
        return any(e.type == "intent.handed_back" or e.type == "intent.leg_lost" for e in intent.events())

    until(given_back, "its being given back")
    with httpx.Client(base_url=url, headers={"x-api-key": key}) as client:

        def taken() -> list[dict[str, object]]:
            found: list[dict[str, object]] = client.get("/v1/agents/acme/ops/bot/intents").json()["intents"]
            return found

        (delivery,) = until(taken, "its delivery to the next")
        assert delivery["intent_id"] == intent.id
        assert client.post(f"/v1/intents/{intent.id}/resume", json={"action": "complete", "ok": 1}).status_code == 200
    assert intent.wait(10) == {"ok": 1}


@pytest.mark.slow
def test_killed_web_processes_lose_nothing_and_do_nothing_twice(served: tuple[Stage, str]) -> None:
    """Clients that repeat their requests under their keys have one intent for each; all are handed out and finished."""
    stage, url = served
    web = next(program for program in stage.programs if program.name == "web")
    rt = stage.axme.runtime
    sender = {"x-api-key": keys.create(rt, name="sender", role="operator")[1]}
    where = "agent://acme/ops/stormy"
    worker = {"x-api-key": keys.create(rt, name="stormy", role="approver", agent=where)[1]}
    made: dict[str, str] = {}
    stop = threading.Event()

    def persistently(ask: Callable[[httpx.Client], httpx.Response]) -> Any:
        while True:
            try:
                with httpx.Client(base_url=url, timeout=20) as client:
                    answer = ask(client)
            except httpx.TransportError:
                time.sleep(0.05)
                continue
            if answer.status_code == 200:
                return answer.json()
            assert answer.status_code in (409, 503), answer.text
            if answer.json()["error"]["code"] == "intent_terminal":
                return None

    def send(number: int) -> None:
        for n in range(8):
            key = f"storm-{number}-{n}"
            sent = {"intent_type": "intent.e2e.storm.v1", "to_agent": where, "payload": {"key": key}}
            headers = {**sender, "Idempotency-Key": key}
            made[key] = persistently(lambda c, h=headers, s=sent: c.post("/v1/intents", json=s, headers=h))["intent_id"]  # type: ignore[misc]

    def kill() -> None:
        # One after the other, all at once in the end; each time when they are back.
        for number in range(6):
            until(lambda: len(web.children()) == 2 and _healthy(url), "the web processes", 60)
            if stop.wait(0.3):
                return
            for child in web.children()[number % 2 : 2 if number == 5 else number % 2 + 1]:
                child.kill()

    killer = threading.Thread(target=kill)
    senders = [threading.Thread(target=send, args=(number,)) for number in range(4)]
    for thread in (killer, *senders):
        thread.start()
    for thread in senders:
        thread.join()
    done: set[str] = set()

    def work() -> bool:
        found = persistently(lambda c: c.get("/v1/agents/acme/ops/stormy/intents?lease_seconds=2", headers=worker))
        for one in found["intents"]:
            path = f"/v1/intents/{one['intent_id']}/resume"
            persistently(lambda c, p=path: c.post(p, json={"action": "complete"}, headers=worker))  # type: ignore[misc]
            done.add(one["intent_id"])
        return len(done) == len(made)

    until(work, "every intent's end", 90)
    stop.set()
    killer.join()

    found = list(stage.axme.intents(type="intent.e2e.storm.v1"))
    assert sorted(intent.id for intent in found) == sorted(made.values())
    assert {intent.status for intent in found} == {"COMPLETED"}
    for intent in found:
        events = intent.events()
        assert [event.seq for event in events] == list(range(1, intent.seq + 1))
        assert sum(event.status.is_final for event in events) == 1
