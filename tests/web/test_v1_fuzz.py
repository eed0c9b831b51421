"""Whatever is sent, the answer is a clear one, and nothing is half stored."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from axme_celery import keys
from axme_celery.testing import Stage
from axme_celery.web import create_app
from tests.doors.project import make_app

from .conftest import BOT, SECRET

#: More with AXME_FUZZ=2000.
MANY = settings(
    max_examples=int(os.environ.get("AXME_FUZZ", "40")), deadline=None, suppress_health_check=list(HealthCheck)
)

#: Values that have gone wrong somewhere.
ODD = st.sampled_from(
    [
        None, True, False, 0, -1, 1, 2**31, 2**63, 10**400, 1.5, -0.0, "", " ", "\n", "\0", "\u202e", "é" * 300,
        "x" * 5000, "null", "CANCELLED", "agent://", "agent://a/../b", "../..", "%00", "{{7*7}}", "' OR 1=1 --",
        "<script>", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2026-02-30T00:00:00Z", [], {}, [[]], {"": ""},
        {"$ref": "#"}, {"__type__": "datetime", "__value__": "x"}, {"__type__": "bytes", "__value__": "\ud7ff"},
    ]
)  # fmt: skip
JSON = st.recursive(
    st.one_of(ODD, st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=40)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=12), inner, max_size=4)),
    max_leaves=12,
)


def body_of(**fields: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with some of these fields, each as it should be or odd; and with others."""
    named = st.fixed_dictionaries({}, optional={name: st.one_of(good, JSON) for name, good in fields.items()})
    return st.builds(
        lambda one, other: {**other, **one}, named, st.dictionaries(st.text(max_size=10), JSON, max_size=2)
    )


COUNT = st.integers(1, 100)
HUMAN = body_of(
    title=st.just("Ship it?"), task_type=st.sampled_from(["approval", "form", "attach_file"]),
    form_schema=st.just({"type": "object"}),
    allowed_outcomes=st.just(["approved", "rejected"]), assignees=st.just(["ops"]), required_comment=st.booleans(),
    notify_email=st.just("a@b.example"), evidence_required=st.booleans(), description=st.text(max_size=20),
)  # fmt: skip
CREATE = body_of(
    intent_type=st.just("intent.a.v1"), to_agent=st.just(BOT), payload=st.just({"n": 1}), from_agent=st.just("me"),
    correlation_id=st.uuids().map(str), reply_to=st.just("me"), deadline_at=st.just("2099-01-01T00:00:00Z"),
    ttl_seconds=st.integers(60, 1000), remind_after_seconds=COUNT, remind_interval_seconds=COUNT, max_reminders=COUNT,
    escalate_to=st.just("boss"), max_delivery_attempts=COUNT, human_task=HUMAN,
)  # fmt: skip
RESUME = body_of(
    action=st.sampled_from(["complete", "fail", "approve", "continue"]), reason=st.text(max_size=20),
    task_result=body_of(outcome=st.just("approved"), comment=st.text(max_size=9), data=JSON), outcome=st.just("approved"),
    approve_current_step=st.booleans(), expected_policy_generation=st.just(0), actor=st.just("me"),
)  # fmt: skip
RESOLVE = body_of(
    status=st.sampled_from(["COMPLETED", "FAILED", "CANCELED"]), result=st.just({"n": 1}), error=st.just({"code": "x"}),
    reason=st.text(max_size=9), actor=st.just("me"), expected_policy_generation=st.just(0),
)  # fmt: skip
PATCH = body_of(
    controls_patch=body_of(timeout_seconds=COUNT), grants_patch=st.just({"delegate:agent://a": {"allow": ["resume"]}}),
    envelope_patch=body_of(expires_at=st.just("2099-01-01T00:00:00Z")), expected_policy_generation=st.just(0),
    reason=st.text(max_size=9),
)  # fmt: skip
AGENT = body_of(
    display_name=st.just("Bot"), delivery_mode=st.just("poll"), callback_url=st.just("https://x.example/"),
    status=st.just("active"), send=body_of(mode=st.just("open"), entries=st.just(["agent://a/*"])),
    receive=body_of(mode=st.just("allowlist"), entries=st.just(["agent://a/*"])),
)  # fmt: skip


class Door:
    """A project behind its door, for many requests."""

    def __init__(self, stage: Stage, client: FlaskClient, key: str) -> None:
        self.stage, self._client, self._headers = stage, client, {"x-api-key": key}

    def ask(self, method: str, path: str, sent: Any, **headers: str) -> Any:
        """A request whose answer is a clear one: never a 5xx, and every refusal in the one shape."""
        data = sent if isinstance(sent, bytes) else json.dumps(sent).encode()
        answer = self._client.open(path, method=method, data=data, headers={**self._headers, **headers}, buffered=True)
        assert answer.status_code < 500, (path, sent, answer.text)
        assert isinstance(answer.json, dict)
        if answer.status_code != 200:
            assert {"code", "message", "category", "retryable"} <= set(answer.json["error"]), answer.text
            assert isinstance(answer.json["detail"], str)
        return answer

    def everything(self) -> list[tuple[str, int, int, int]]:
        """What is stored: every intent with how far it is, and its events, legs and waits, which must be whole."""
        ledger, found = self.stage.axme.runtime.ledger, []
        for intent in self.stage.axme.intents():
            events = [event.seq for event in intent.events()]
            assert events == list(range(1, intent.seq + 1))
            found.append((intent.id, intent.seq, len(ledger.legs(intent.id)), len(ledger.waits(intent.id))))
        return sorted(found)


@pytest.fixture
def door() -> Iterator[Door]:
    app = make_app(broker_url="amqp://127.0.0.1:1", result_backend="redis://127.0.0.1:1")
    with Stage(app, requests_per_minute=None) as stage:
        key = keys.create(stage.axme.runtime, name="ops", role="admin")[1]
        yield Door(stage, create_app(stage.axme, secret_key=SECRET).test_client(), key)


@MANY
@given(sent=CREATE)
def test_creation_takes_it_whole_or_not_at_all(door: Door, sent: dict[str, Any]) -> None:
    """One intent with its events, leg and wait; or none."""
    before = {one[0] for one in door.everything()}
    answer = door.ask("POST", "/v1/intents", sent)
    after = {one[0] for one in door.everything()}
    new = after - before
    assert len(new) == (1 if answer.status_code == 200 else 0)
    if new:
        assert answer.json["intent_id"] in new
        for path in ("", "/events"):
            assert door.ask("GET", f"/v1/intents/{answer.json['intent_id']}{path}", b"").status_code == 200
        # Not to be met again: the next examples should be about themselves.
        door.stage.axme.cancel(answer.json["intent_id"], "seen")
    door.stage.axme.runtime.ledger.prune(list(after))


@MANY
@given(sent=RESUME, resolve=RESOLVE, patch=PATCH, gate=st.booleans())
def test_decisions_change_an_intent_whole_or_not_at_all(
    door: Door, sent: dict[str, Any], resolve: dict[str, Any], patch: dict[str, Any], gate: bool
) -> None:
    """Refused, it stands as it was; taken, its log says so."""
    made = {"intent_type": "intent.a.v1", "to_agent": BOT}
    if gate:
        made["human_task"] = {"title": "?", "assignees": ["ops"]}
    intent_id = door.ask("POST", "/v1/intents", made).json["intent_id"]
    for path, body in (
        ("policy", patch),
        ("controls", patch),
        ("resume", sent),
        ("resolve", resolve),
        ("cancel", sent),
    ):
        before = door.everything()
        answer = door.ask("POST", f"/v1/intents/{intent_id}/{path}", body)
        if answer.status_code != 200:
            assert door.everything() == before, (path, body)
        else:
            door.everything()
    door.stage.axme.runtime.ledger.prune([intent_id])


@MANY
@given(
    sent=JSON, other=AGENT, text=st.text(max_size=30), raw=st.binary(max_size=200),
    query=st.sampled_from(["limit", "cursor", "since", "status", "owner_agent", "intent_type", "lease_seconds", "org_id"]),
    path=st.sampled_from(["intents", "intents/{}/events", "inbox", "inbox/changes", "me/tasks", "agents",
                          "agents/acme/ops/bot/intents"]),
)  # fmt: skip
def test_nothing_sent_anywhere_breaks_anything(
    door: Door, sent: Any, other: dict[str, Any], text: str, raw: bytes, query: str, path: str
) -> None:
    """Bodies, ids, queries and headers of every kind."""
    intent_id = door.ask("POST", "/v1/intents", {"intent_type": "intent.a.v1", "to_agent": BOT}).json["intent_id"]
    for there in (f"intents/{intent_id}/transfer", f"intents/{intent_id}/lease", f"inbox/{intent_id}/reply",
                 f"inbox/{intent_id}/delegate", f"inbox/{intent_id}/messages/delete", f"approvals/{intent_id}/decision",
                 "tools/warehouse/jobs/1", "intents/bulk-cancel"):  # fmt: skip
        door.ask("POST", f"/v1/{there}", sent)
        door.ask("POST", f"/v1/{there}", raw)
    door.ask("PUT", "/v1/agents/acme/x", other)
    door.ask("PUT", "/v1/agents/acme/x/policy", other)
    answer = door._client.get(f"/v1/{path.format(intent_id)}", query_string={query: text}, headers=door._headers)
    assert answer.status_code < 500, (path, query, text)
    door.stage.axme.runtime.ledger.prune([one[0] for one in door.everything()])
