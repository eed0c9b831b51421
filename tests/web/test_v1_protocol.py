"""What holds for every request: who asks, whose things exist, limits, ids, traces, repeats."""

from __future__ import annotations

import re
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from opentelemetry import trace as otel
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from axme_celery import LedgerUnavailable, keys, trace, wait_for_human
from axme_celery.sweep import forget_requests
from axme_celery.testing import Stage
from axme_celery.web import create_app
from axme_celery.web.v1.rates import Buckets

from .conftest import BOT, SECRET

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def routes(web):
    """(method, path) of every route below /v1, with ids that are nobody's."""
    found = []
    for rule in web.url_map.iter_rules():
        if rule.rule.startswith("/v1/"):
            path = re.sub(r"<any\((\w+)[^>]*>", r"\1", rule.rule)
            path = re.sub(r"<path:\w+>", "acme/ops/bot", path)
            path = re.sub(r"<[^>]+>", str(uuid.UUID(int=7)), path)
            found += [(method, path) for method in sorted(rule.methods - {"HEAD", "OPTIONS"})]
    return sorted(set(found))


# -- who ------------------------------------------------------------------------------------


def test_nothing_is_open_without_a_key(web):
    """Every route says so, in the one shape; only /health answers."""
    client = web.test_client()
    assert len(routes(web)) > 30
    for method, path in routes(web):
        answer = client.open(path, method=method, json={} if method != "GET" else None)
        assert (method, path, answer.status_code) == (method, path, 401)
        assert answer.json["error"]["code"] == "missing_platform_api_key", path
        assert answer.headers["WWW-Authenticate"]
    assert client.get("/health").json["ok"] is True


@pytest.mark.parametrize(
    "headers", [{"x-api-key": "axk_no"}, {"Authorization": "Bearer axk_no"}, {"x-api-key": ""}, {"x-api-key": "\x7f"}]
)
def test_a_key_that_is_none_is_nobody(web, headers):
    """Whatever it looks like."""
    answer = web.test_client().get("/v1/intents", headers=headers)
    assert (answer.status_code, answer.json["error"]["code"]) == (401, "invalid_platform_api_key")


def test_a_key_is_shown_in_either_header(web, make_key):
    """As published clients do; beside an x-api-key another token changes nothing."""
    secret, client = make_key("ops", role="operator"), web.test_client()
    for headers in (
        {"x-api-key": secret}, {"Authorization": f"Bearer {secret}"}, {"x-api-key": secret, "Authorization": "Bearer eyJ"},
    ):  # fmt: skip
        assert client.get("/v1/intents", headers=headers).status_code == 200


def test_a_revoked_key_is_dead_at_once(web, axme, stage):
    """At the very next request."""
    key, secret = keys.create(axme.runtime, name="ops", role="operator")
    client = web.test_client()
    assert client.get("/v1/intents", headers={"x-api-key": secret}).status_code == 200
    keys.revoke(axme.runtime, key.id)
    assert client.get("/v1/intents", headers={"x-api-key": secret}).status_code == 401


def test_a_viewer_changes_nothing(api, create):
    """Every write is refused."""
    intent_id = create(human_task={"title": "?", "assignees": ["vera"]})
    vera = {"who": "vera", "role": "viewer"}
    assert api("GET", f"/intents/{intent_id}", **vera).status_code == 200
    for path in ("/intents", f"/intents/{intent_id}/resolve", f"/intents/{intent_id}/resume",
                 f"/intents/{intent_id}/controls", f"/intents/{intent_id}/policy", f"/intents/{intent_id}/cancel",
                 f"/intents/{intent_id}/transfer", f"/intents/{intent_id}/lease", "/intents/bulk-cancel",
                 f"/approvals/{intent_id}/decision", f"/inbox/{intent_id}/approve", f"/inbox/{intent_id}/reply"):  # fmt: skip
        answer = api("POST", path, json={"decision": "approve", "message": "x"}, **vera)
        assert (path, answer.status_code, answer.json["error"]["code"]) == (path, 403, "policy_denied")


# -- whose ------------------------------------------------------------------------------------


def test_what_is_anothers_does_not_exist(web, api, create, stage, axme):
    """Every route with an id answers the stranger as it answers for what never was."""
    intent_id = create(
        owner="acme", who="acme-app", role="operator", human_task={"title": "?", "assignees": ["acme-app"]},
        reply_to="agent://other/x",
    )  # fmt: skip
    plain = create(owner="acme", who="acme-app", role="operator")
    wait_id = stage.waits(intent_id)[0].id
    stranger = {"who": "other-admin", "role": "admin", "owner": "other"}
    nobodys = str(uuid.UUID(int=7))
    before = [stage.intent(one).seq for one in (intent_id, plain)]

    for method, path in routes(web):
        if nobodys not in path or "/agents/" in path or "/tools/" in path:
            continue
        sent = {
            "status": "CANCELED", "task_result": {"outcome": "approved"}, "decision": "approve", "message": "x",
            "delegate_to": "eve", "controls_patch": {}, "grants_patch": {}, "next_handler": "acme/x",
        }  # fmt: skip
        for known in (intent_id, plain, wait_id):
            theirs = api(method, path.removeprefix("/v1").replace(nobodys, known), json=sent, **stranger)
            missing = api(method, path.removeprefix("/v1"), json=sent, **stranger)
            assert (path, theirs.status_code) == (path, 404)
            assert strip(theirs.json) == strip(missing.json), path

    for path in (
        "/intents",
        "/inbox",
        "/inbox/changes",
        "/me/tasks",
        "/me/tasks?all=1",
        "/inbox?owner_agent=agent://other/x",
    ):
        found = api("GET", path, **stranger).json
        assert not any(found.get(name) for name in ("intents", "threads", "changes", "tasks")), path
    assert api("POST", "/intents/bulk-cancel", json={}, **stranger).json["canceled"] == 0
    assert [stage.intent(one).seq for one in (intent_id, plain)] == before


def strip(body):
    return {**body, "error": {**body["error"], "request_id": None}}


def test_an_owner_sees_its_own_and_the_house_sees_all(api, create):
    """And what an owner makes is the owner's."""
    mine = create(owner="acme", who="a", role="operator")
    create(owner="other", who="b", role="operator")
    assert [i["intent_id"] for i in api("GET", "/intents", who="a", role="operator", owner="acme").json["intents"]] == [
        mine
    ]
    assert len(api("GET", "/intents").json["intents"]) == 2


def test_an_agent_sees_what_is_sent_to_it_whoevers_it_is(api, create):
    """Its sender's owner and its own are two."""
    intent_id = create(owner="acme", who="a", role="operator")
    bot = {"who": "bot", "role": "approver", "owner": "bots", "agent": BOT}
    assert api("GET", f"/intents/{intent_id}", **bot).status_code == 200
    assert len(api("GET", "/agents/acme/ops/bot/intents", **bot).json["intents"]) == 1
    assert api("POST", f"/intents/{intent_id}/resume", json={"action": "complete"}, **bot).status_code == 200
    eve = {"who": "eve", "role": "approver", "owner": "bots", "agent": "agent://acme/eve"}
    assert api("GET", f"/intents/{intent_id}", **eve).status_code == 404


def test_who_has_no_part_in_it_decides_nothing(api, create):
    """Seeing is not deciding: the requester, the handler and operators do."""
    intent_id = create(who="app", role="approver")
    eve = {"who": "eve", "role": "approver"}
    for path, sent in (("resolve", {"status": "CANCELED"}), ("resume", {"action": "complete"}), ("cancel", {}),
                       ("controls", {"controls_patch": {}}), ("transfer", {"to_agent": "x/y"}), ("lease", {})):  # fmt: skip
        assert api("POST", f"/intents/{intent_id}/{path}", json=sent, **eve).status_code == 403
    assert (
        api(
            "POST", f"/intents/{intent_id}/resolve", json={"status": "CANCELED"}, who="app", role="approver"
        ).status_code
        == 200
    )


# -- limits, ids ---------------------------------------------------------------------------------


def test_a_bucket_refills():
    """So many at once, then as many a minute."""
    now = [0.0]
    buckets = Buckets(lambda: now[0])
    assert [buckets.take("a", "x", 3)[0] for _ in range(3)] == [2, 1, 0]
    left, pause = buckets.take("a", "x", 3)
    assert (left, round(pause)) == (0, 20)
    assert buckets.take("b", "x", 3) == (2, 0.0) and buckets.take("a", "y", 3) == (2, 0.0)
    now[0] = 21.0
    assert buckets.take("a", "x", 3)[1] == 0.0


def test_too_many_requests_are_told_to_wait(app):
    """429, how long, and how much is left in every answer; another key and endpoint have their own."""
    with Stage(app, requests_per_minute=2) as stage:
        client = create_app(stage.axme, secret_key=SECRET).test_client()
        one, two = ({"x-api-key": keys.create(stage.axme.runtime, name=n, role="operator")[1]} for n in "ab")
        answers = [client.get("/v1/intents", headers=one) for _ in range(3)]
        assert [a.status_code for a in answers] == [200, 200, 429]
        assert [a.headers["X-RateLimit-Remaining"] for a in answers] == ["1", "0", "0"]
        assert answers[0].headers["X-RateLimit-Limit"] == "2" and answers[0].headers["X-RateLimit-Reset"]
        assert 1 <= int(answers[2].headers["Retry-After"]) <= 30
        assert (answers[2].json["error"]["code"], answers[2].json["error"]["retryable"]) == (
            "rate_limit_exceeded",
            True,
        )
        assert client.get("/v1/intents", headers=two).status_code == 200
        assert client.get("/v1/inbox", headers=one).status_code == 200
        assert client.get("/health").status_code == 200


def test_ids_come_back_and_are_made_where_there_are_none(web, make_key):
    """Also on refusals; what is no id is not repeated."""
    secret, client = make_key("ops", role="operator"), web.test_client()
    named = {"x-api-key": secret, "X-Request-Id": "req-1", "X-Trace-Id": "trace-1"}
    for path in ("/v1/intents", f"/v1/intents/{uuid.uuid4()}"):
        answer = client.get(path, headers=named)
        assert (answer.headers["X-Request-Id"], answer.headers["X-Trace-Id"]) == ("req-1", "trace-1")
    assert answer.json["error"]["request_id"] == "req-1"
    made = client.get("/v1/intents", headers={"x-api-key": secret, "X-Request-Id": "a b<script>"})
    assert uuid.UUID(made.headers["X-Request-Id"])
    assert made.headers["Cache-Control"] == "no-store"


def test_what_is_not_there_is_told_in_the_same_shape(web, make_key):
    """Paths and methods too."""
    headers, client = {"x-api-key": make_key("ops", role="operator")}, web.test_client()
    for answer, status in (
        (client.get("/v1/nothing", headers=headers), 404), (client.delete("/v1/intents", headers=headers), 405),
    ):  # fmt: skip
        assert answer.status_code == status
        assert answer.json["error"]["message"] == answer.json["detail"]
        assert answer.mimetype == "application/json"


def test_what_breaks_says_nothing_of_itself(stage, make_key, monkeypatch):
    """A 500 has a request id, and no more; a ledger that is away is a 503 that says when to come back."""
    headers = {"x-api-key": make_key("ops", role="operator")}
    client = create_app(stage.axme, secret_key=SECRET).test_client()
    errors = {"the secret is 42": (RuntimeError, 500), "away": (LedgerUnavailable, 503)}
    for words, (kind, status) in errors.items():

        def broken(*args, kind=kind, words=words, **kwargs):
            raise kind(words)

        monkeypatch.setattr("axme_celery.web.v1.intents.wire.intent", broken)
        sent = {"intent_type": "intent.a.v1", "to_agent": "x"}
        made = client.post("/v1/intents", json=sent, headers=headers).json["intent_id"]
        answer = client.get(f"/v1/intents/{made}", headers=headers)
        assert (answer.status_code, answer.json["error"]["retryable"]) == (status, True)
        assert words not in answer.text or status == 503
    assert answer.headers["Retry-After"]


# -- repeats ---------------------------------------------------------------------------------------


def test_many_equal_requests_at_once_are_one(app, tmp_path):
    """All get the first one's answer."""
    with Stage(app, ledger_url=f"sqlite:///{tmp_path}/ledger.db") as stage:
        web = create_app(stage.axme, secret_key=SECRET)
        headers = {
            "x-api-key": keys.create(stage.axme.runtime, name="ops", role="operator")[1], "Idempotency-Key": "one"
        }  # fmt: skip
        sent = {"intent_type": "intent.a.v1", "to_agent": BOT, "payload": {"n": 1}}

        def post(_):
            return web.test_client().post("/v1/intents", json=sent, headers=headers)

        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(post, range(12)))
        assert {a.status_code for a in answers} == {200}
        assert len({a.data for a in answers}) == 1
        assert len(list(stage.axme.intents())) == 1


def test_a_request_whose_process_died_is_answered_by_the_next(app, stage, web, api, axme):
    """And makes nothing twice: the intent is found by its key."""
    sent, headers = {"intent_type": "intent.a.v1", "to_agent": BOT}, {"Idempotency-Key": "one"}
    exchange = axme.runtime.ledger.exchange
    finish, died = type(exchange).finish, []

    def die(self, *args):
        died.append(args)
        raise SystemExit

    drop = type(exchange).drop
    type(exchange).finish, type(exchange).drop = die, lambda self, *args: None
    try:
        with pytest.raises(SystemExit):
            api("POST", "/intents", json=sent, headers=headers)
    finally:
        type(exchange).finish, type(exchange).drop = finish, drop
    stage.pass_time("61s")

    again = api("POST", "/intents", json=sent, headers=headers)

    assert died and again.status_code == 200
    assert [i["intent_id"] for i in api("GET", "/intents").json["intents"]] == [again.json["intent_id"]]


def test_every_write_may_be_repeated(api, create, stage):
    """Not only the first one: the second answer is the first one, whatever has happened since."""
    intent_id = create(human_task={"title": "?", "assignees": ["ops"]})
    for path, sent in (
        (f"/inbox/{intent_id}/reply", {"message": "why?"}),
        (f"/intents/{intent_id}/controls", {"controls_patch": {"x": 1}, "expected_policy_generation": 0}),
        (f"/intents/{intent_id}/resume", {"task_result": {"outcome": "rejected"}}),
    ):
        headers = {"Idempotency-Key": f"key of {path}"}
        first, again = (api("POST", path, json=sent, headers=headers) for _ in range(2))
        assert (first.status_code, again.data) == (200, first.data)
    assert len([e for e in stage.history(intent_id) if e.type == "intent.message_sent"]) == 1


def test_answers_are_forgotten_after_two_days(api, axme, stage):
    """Not before a day has passed."""
    sent, headers = {"intent_type": "intent.a.v1", "to_agent": BOT}, {"Idempotency-Key": "one"}
    first = api("POST", "/intents", json=sent, headers=headers)
    stage.pass_time("25h")
    assert forget_requests(axme.runtime) == 0
    assert api("POST", "/intents", json=sent, headers=headers).data == first.data
    stage.pass_time("24h")
    assert forget_requests(axme.runtime) >= 1


# -- traces -------------------------------------------------------------------------------------------


def test_a_trace_goes_from_the_request_into_every_leg(api, create, axme, stage):
    """It is kept in the intent, in the messages of its legs, in what they begin, and what agents are handed."""
    seen = []

    @axme.app.task(shared=False, name="inner", bind=True)
    def inner(self, payload):
        seen.append((self.request.get("traceparent"), self.request.get("tracestate")))

    @axme.handles("intent.traced.v1")
    @axme.task(bind=True)
    def traced(self, payload):
        seen.append((self.request.get("traceparent"), self.request.get("tracestate")))
        wait_for_human("Go on?", to="ops")
        axme.submit(inner.s(payload))
        axme.submit(BOT, payload={})

    headers = {"traceparent": PARENT, "tracestate": "vendor=1"}
    sent = {"intent_type": "intent.traced.v1", "to_agent": "x"}
    made = api("POST", "/intents", json=sent, headers=headers).json["intent_id"]
    api("POST", f"/intents/{made}/resume", json={"approve_current_step": True})

    assert stage.intent(made)._record.trace == {"traceparent": PARENT, "tracestate": "vendor=1"}
    assert seen == [(PARENT, "vendor=1")] * 3
    (told,) = api("GET", "/agents/acme/ops/bot/intents").json["intents"]
    assert told["trace"]["traceparent"] == PARENT
    other = api("POST", "/intents", json={**sent, "to_agent": "y"}, headers={"traceparent": "garbage"}).json[
        "intent_id"
    ]
    assert stage.intent(other)._record.trace is None


@pytest.mark.parametrize(
    "parent", ["", "00-" + "0" * 32 + "-b7ad6b7169203331-01", "ff" + PARENT[2:], PARENT.upper(), PARENT + "-x", None, 3]
)
def test_what_is_no_trace_context_is_ignored(parent):
    """It is taken from strangers."""
    assert trace.read({"traceparent": parent}) is None
    assert trace.read({"traceparent": PARENT, "tracestate": "é"}) == {"traceparent": PARENT}


def test_with_opentelemetry_every_run_is_a_span(axme, stage, api):
    """Below the request's; what it begins is below it."""
    spans = InMemorySpanExporter()
    provider = otel.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider()
        otel.set_tracer_provider(provider)
    provider.add_span_processor(SimpleSpanProcessor(spans))

    @axme.handles("intent.spanned.v1")
    @axme.task(name="spanned")
    def spanned(payload):
        axme.submit(BOT, payload={})

    headers = {"traceparent": PARENT}
    api("POST", "/intents", json={"intent_type": "intent.spanned.v1", "to_agent": "x"}, headers=headers)

    (span,) = [one for one in spans.get_finished_spans() if one.name == "axme.leg spanned"]
    assert format(span.context.trace_id, "032x") == PARENT.split("-")[1]
    assert format(span.parent.span_id, "016x") == PARENT.split("-")[2]
    (told,) = api("GET", "/agents/acme/ops/bot/intents").json["intents"]
    assert told["trace"]["traceparent"].split("-")[1:3] == [PARENT.split("-")[1], format(span.context.span_id, "016x")]
