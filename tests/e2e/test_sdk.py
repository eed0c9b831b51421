"""The published SDK against a real server with a real worker: a client that nobody here wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator

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
