"""``/v1``: webhooks, deliveries, scenarios, capabilities, schemas, as published clients ask for them."""

from __future__ import annotations

import json
import uuid

import pytest
from standardwebhooks import Webhook

from axme_celery import agents
from axme_celery.webhook import Answer
from tests.bundles import approve, bundle, check

BOT = "agent://acme/ops/bot"
URL = "https://crm.example/hooks"


@pytest.fixture
def subscribe(api):
    """``subscribe(**fields)``: a new subscription."""

    def make(who="ops", **fields):
        details = {name: fields.pop(name) for name in ("owner", "role") if name in fields}
        sent = {"callback_url": URL, "event_types": ["intent.*"], **fields}
        answer = api("POST", "/webhooks/subscriptions", json=sent, who=who, **details)
        assert answer.status_code == 200, answer.text
        return answer.json["subscription"]

    return make


# -- webhooks ------------------------------------------------------------------------


def test_a_subscription_is_made_listed_and_ended(api, subscribe):
    made = subscribe(description="crm")
    assert uuid.UUID(made["subscription_id"])
    assert made["secret"].startswith("whsec_") and made["secret_hint"].endswith(made["secret"][-4:])
    assert (made["active"], made["revoked_at"], made["description"]) == (True, None, "crm")

    (listed,) = api("GET", "/webhooks/subscriptions").json["subscriptions"]
    assert listed == {name: value for name, value in made.items() if name != "secret"}
    path = f"/webhooks/subscriptions/{made['subscription_id']}"
    assert api("GET", path).json["subscription"] == listed
    ended = api("DELETE", path).json
    assert (ended["subscription_id"], bool(ended["revoked_at"])) == (made["subscription_id"], True)
    assert api("GET", "/webhooks/subscriptions").json["subscriptions"] == []
    assert len(api("GET", "/webhooks/subscriptions?include_inactive=true").json["subscriptions"]) == 1


def test_a_secret_that_was_brought_is_not_told_again(subscribe):
    made = subscribe(secret="a secret from another hand")

    assert "secret" not in made
    assert made["secret_hint"] == "…hand"


def test_an_intents_events_go_out_and_are_listed_with_their_tries(api, create, stage, subscribe):
    """What goes out is what ``/events`` gives, byte for byte."""
    made = subscribe()
    stage.answer_webhook = lambda *_: Answer(status=503, milliseconds=7)
    intent_id = create(payload={"n": 1})

    events = api("GET", f"/intents/{intent_id}/events")
    for _, body, headers in stage.webhooks:
        told = Webhook(made["secret"]).verify(body, headers)
        seq = told["data"]["seq"]
        assert told["data"] == events.json["events"][seq - 1]
        assert body.split(b'"data":', 1)[1][:-1] in events.data
    listed = api("GET", f"/deliveries?intent_id={intent_id}").json["deliveries"]
    assert [d["status"] for d in listed] == ["pending"] * 2
    (tried,) = listed[0]["tries"]
    assert (tried["status"], tried["ms"]) == (503, 7) and listed[0]["next_try_at"]

    stage.answer_webhook = lambda *_: Answer(status=200)
    one = listed[0]["delivery_id"]
    assert api("POST", f"/deliveries/{one}/replay").json["delivery"]["status"] in ("pending", "delivered")
    assert api("GET", f"/deliveries/{one}").json["delivery"]["status"] == "delivered"
    assert api("GET", "/deliveries-operations").json["counts"]["delivered"] >= 1


def test_the_end_of_an_intent_is_the_same_bytes_by_webhook_stream_poll_and_inbox(api, create, stage, subscribe):
    """One form for every door: whoever hears of it twice can tell that it is the same."""
    subscribe()
    stage.answer_webhook = lambda *_: Answer(status=200)
    intent_id = create(reply_to="agent://acme/me")
    ended = api("POST", f"/intents/{intent_id}/resolve", json={"status": "COMPLETED", "result": {"pages": 50}})
    assert ended.status_code == 200, ended.text
    stage.run()

    stream = api("GET", f"/intents/{intent_id}/events/stream?wait_seconds=1").text
    (frame,) = [each for each in stream.split("\n\n") if "event: intent.completed" in each]
    line = next(each for each in frame.split("\n") if each.startswith("data: ")).removeprefix("data: ")
    polled = api("GET", f"/intents/{intent_id}/events")
    inbox = api("GET", f"/inbox/{intent_id}")
    hooked = [body.split(b'"data":', 1)[1][:-1] for _, body, _ in stage.webhooks if b"intent.completed" in body]

    assert json.loads(line)["details"]["result"] == {"pages": 50}
    assert hooked == [line.encode()]
    assert line in polled.text and polled.json["events"][-1] == json.loads(line)
    assert line in inbox.text


def test_deliveries_are_listed_page_by_page(api, create, subscribe):
    subscribe()
    for _ in range(3):
        create()
    seen, cursor = [], ""
    while cursor is not None:
        page = api("GET", f"/deliveries?limit=2&status=delivered{cursor and '&cursor=' + cursor}").json
        seen += [d["delivery_id"] for d in page["deliveries"]]
        cursor = page["next_cursor"]
        assert len(seen) < 20

    assert len(seen) == len(set(seen)) == 6


def test_a_secret_is_rotated_and_a_disabled_subscription_enabled(api, create, stage, subscribe):
    made = subscribe()
    path = f"/webhooks/subscriptions/{made['subscription_id']}"
    turned = api("POST", f"{path}/rotate", json={"overlap_seconds": 60}).json["subscription"]
    stage.answer_webhook = lambda *_: Answer(status=410)
    create()
    _, body, headers = stage.webhooks[-1]
    for secret in (made["secret"], turned["secret"]):
        Webhook(secret).verify(body, headers)

    gone = api("GET", path).json["subscription"]
    assert (gone["active"], gone["disabled_reason"]) == (False, "disabled: it answered 410 Gone")
    (dead, *_) = api("GET", "/deliveries").json["deliveries"]
    assert api("POST", f"/deliveries/{dead['delivery_id']}/replay").status_code == 409
    assert api("POST", f"{path}/enable").json["subscription"]["active"] is True
    assert api("POST", f"/deliveries/{dead['delivery_id']}/replay").status_code == 200


def test_one_that_has_ended_is_not_changed_any_more(api, subscribe):
    path = f"/webhooks/subscriptions/{subscribe()['subscription_id']}"
    api("DELETE", path)

    for verb in ("enable", "rotate"):
        assert api("POST", f"{path}/{verb}").status_code == 409


def test_an_event_of_ones_own_is_told_and_replayed(api, subscribe):
    subscribe(event_types=["inbox.reply_received"])
    sent = {"event_type": "inbox.reply_received", "source": "crm", "payload": {"text": "hi"}}
    told = api("POST", "/webhooks/events", json=sent).json
    assert (told["queued_deliveries"], told["pending"], told["dead_lettered"]) == (1, 1, 0)

    again = api("POST", f"/webhooks/events/{told['event_id']}/replay").json
    assert (again["event_id"], again["queued_deliveries"], bool(again["replayed_at"])) == (told["event_id"], 1, True)
    nobody = api("POST", "/webhooks/events", json={**sent, "event_type": "a.b"}).json
    assert nobody["queued_deliveries"] == 0
    assert api("POST", f"/webhooks/events/{nobody['event_id']}/replay").status_code == 409


def test_what_is_anothers_is_not_there(api, create, subscribe):
    """The same 404 as for what does not exist."""
    mine = subscribe(owner="acme", who="acme-bot")
    create(owner="acme", who="acme-bot")
    delivery = api("GET", "/deliveries", owner="acme", who="acme-bot").json["deliveries"][0]
    other = {"owner": "globex", "who": "globex-bot"}
    sub, one, event = mine["subscription_id"], delivery["delivery_id"], delivery["event_id"]

    assert api("GET", "/deliveries", **other).json["deliveries"] == []
    assert api("GET", "/webhooks/subscriptions", **other).json["subscriptions"] == []
    for method, path in (
        ("GET", f"/webhooks/subscriptions/{sub}"), ("DELETE", f"/webhooks/subscriptions/{sub}"),
        ("POST", f"/webhooks/subscriptions/{sub}/rotate"), ("POST", f"/webhooks/subscriptions/{sub}/enable"),
        ("GET", f"/deliveries/{one}"), ("POST", f"/deliveries/{one}/replay"),
        ("POST", f"/webhooks/events/{event}/replay"),
    ):  # fmt: skip
        theirs = api(method, path, **other)
        nothing = api(method, path.replace(sub, str(uuid.uuid4())).replace(one, "x").replace(event, "x"), **other)
        assert theirs.status_code == nothing.status_code == 404, path
        assert theirs.json["detail"] == nothing.json["detail"]
    assert api("GET", "/deliveries-operations", **other).status_code == 403
    assert api("GET", "/deliveries", role="viewer", who="eve").status_code == 403


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("subscriptions", {}), ("subscriptions", {"callback_url": "x"}), ("subscriptions", {"callback_url": 7}),
        ("subscriptions", {"callback_url": "ftp://x.example"}), ("subscriptions", {"callback_url": URL, "secret": "x"}),
        ("subscriptions", {"callback_url": URL, "event_types": []}),
        ("subscriptions", {"callback_url": URL, "event_types": ["a b"]}),
        ("subscriptions", {"callback_url": URL, "active": 7}), ("events", {}),
        ("events", {"event_type": "a.*", "source": "crm", "payload": {}}),
        ("events", {"event_type": "a.b", "source": "c", "payload": {}}),
        ("events", {"event_type": "a.b", "source": "crm", "payload": 7}),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(api, path, sent):
    answer = api("POST", f"/webhooks/{path}", json=sent)

    assert answer.status_code == 422, answer.text
    assert answer.json["detail"] == answer.json["error"]["message"]


# -- routed deliveries ------------------------------------------------------------------


def routed(**fields):
    ids = {"org_id": "00000000-0000-4000-8000-00000000000a", "workspace_id": "00000000-0000-4000-8000-00000000000b"}
    return {**ids, "payload": {"n": 1}, "alias": "billing", **fields}


def test_a_payload_is_routed_to_the_agent_of_that_name(api, axme, stage):
    """As an intent to it; what becomes of the one becomes of the other."""
    made = api("POST", "/deliveries", json=routed(correlation_id="c-1")).json["delivery"]
    at = f"agent://{made['org_id']}/{made['workspace_id']}/billing"
    assert (made["transport_type"], made["status"], made["route_id"]) == ("queue", "submitted", at)

    (one,), _ = agents.take(axme.runtime, at, since=0, by="billing")
    assert api("GET", f"/deliveries/{made['delivery_id']}").json["delivery"]["status"] == "delivered"
    agents.complete(axme.runtime, one.intent.id, error={"code": "no", "message": "no such account"}, by=at)
    failed = api("GET", f"/deliveries/{made['delivery_id']}").json["delivery"]
    assert (failed["status"], failed["error_detail"]) == ("failed", "no such account")

    again = api("POST", f"/deliveries/{made['delivery_id']}/replay").json["delivery"]
    assert (again["replay_of_delivery_id"], again["payload"]) == (made["delivery_id"], {"n": 1})
    where = f"org_id={made['org_id']}&workspace_id={made['workspace_id']}"
    listed = api("GET", f"/deliveries?{where}").json["deliveries"]
    assert [d["delivery_id"] for d in listed] == [again["delivery_id"], made["delivery_id"]]
    assert [d["status"] for d in api("GET", f"/deliveries?{where}&status=failed").json["deliveries"]] == ["failed"]
    assert api("GET", f"/deliveries?{where}", owner="acme", who="a").json["deliveries"] == []
    assert api("GET", f"/deliveries/{made['delivery_id']}", owner="acme", who="a").status_code == 404


@pytest.mark.parametrize(
    "sent",
    [
        {}, routed(alias=None), routed(principal_id="x"), routed(org_id="acme"), routed(payload=7), routed(alias="a b"),
        routed(idempotency_key="abc"),
    ],
)  # fmt: skip
def test_a_payload_that_cannot_be_routed_is_refused(api, sent):
    assert api("POST", "/deliveries", json=sent).status_code == 422


# -- scenarios ------------------------------------------------------------------------


def test_a_bundle_is_applied_with_everything_clients_look_for(api, stage):
    answer = api("POST", "/scenarios/apply", json=bundle(), owner="acme", who="acme-ops").json

    assert answer["scenario_id"] == "deploy.approval.v1"
    assert answer["status"] in ("DELIVERED", "IN_PROGRESS", "WAITING")
    assert answer["compile_id"] == answer["workflow_compile_id"]
    assert answer["pending_with"] == "agent://change-checker"
    assert answer["agents"] == [{"role": "checker", "address": "agent://change-checker", "created": True}]
    assert answer["agents_provisioned"][0]["address"] == "agent://change-checker"
    assert answer["idempotent"] is False
    assert stage.intent(answer["intent_id"]).status == "WAITING"
    assert api("GET", f"/intents/{answer['intent_id']}", owner="other", who="eve").status_code == 404


def test_the_same_key_is_the_same_scenario_for_each_owner(api):
    """In the header or in the bundle, as clients send it in both."""
    given = bundle(approve(), idempotency_key="k-1")
    headers = {"Idempotency-Key": "k-1"}
    first = api("POST", "/scenarios/apply", json=given, headers=headers, owner="acme", who="a")
    again = api("POST", "/scenarios/apply", json=given, headers=headers, owner="acme", who="a")
    body_only = [api("POST", "/scenarios/apply", json=given, owner="acme", who="a").json for _ in range(2)]
    other = api("POST", "/scenarios/apply", json=given, owner="globex", who="b").json

    assert first.data == again.data
    assert [one["idempotent"] for one in body_only] == [False, True]
    assert body_only[0]["intent_id"] == body_only[1]["intent_id"] != other["intent_id"]
    changed = api("POST", "/scenarios/apply", json=bundle(idempotency_key="k-1"), owner="acme", who="a")
    assert changed.status_code == 409


def test_a_bundle_is_validated_without_doing_anything(api):
    assert api("POST", "/scenarios/validate", json=bundle()).json == {
        "ok": True, "valid": True, "errors": [], "warnings": [],
    }  # fmt: skip
    wrong = api("POST", "/scenarios/validate", json=bundle(check(assigned_to="x"))).json
    assert (wrong["valid"], len(wrong["errors"])) == (False, 1)
    assert api("GET", "/intents").json["intents"] == []
    refused = api("POST", "/scenarios/apply", json=bundle(check(assigned_to="x")))
    assert refused.status_code == 422
    assert refused.json["error"]["details"]["errors"] == wrong["errors"]


def test_there_are_no_macros(api):
    assert api("GET", "/tool-registry/macros").json == {"ok": True, "macros": []}


# -- capabilities and schemas ------------------------------------------------------------


def test_capabilities_name_the_types_that_tasks_serve(api, axme):
    assert api("GET", "/capabilities").json["supported_intent_types"]

    @axme.handles("intent.report.v1")
    @axme.task
    def report(payload):
        return payload

    found = api("GET", "/capabilities").json
    assert found["supported_intent_types"] == ["intent.report.v1"]
    assert "intents.create" in found["capabilities"]


SCHEMA = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}


def registered(**fields):
    return {"semantic_type": "intent.demo.v1", "schema_json": SCHEMA, "compatibility_mode": "strict", **fields}


def test_a_registered_schema_holds_payloads_to_it(api, create):
    made = api("POST", "/schemas", json=registered()).json["schema"]
    assert len(made["schema_hash"]) == 64 and made["schema_ref"].startswith("registry://house/intent.demo.v1@")
    found = api("GET", "/schemas/intent.demo.v1").json["schema"]
    assert (found["schema_json"], found["schema_hash"]) == (SCHEMA, made["schema_hash"])

    create(payload={"n": 1})
    sent = {
        "intent_type": "intent.demo.v1",
        "to_agent": BOT,
        "correlation_id": str(uuid.uuid4()),
        "payload": {"n": "x"},
    }
    refused = api("POST", "/intents", json=sent)
    assert (refused.status_code, refused.json["error"]["code"]) == (422, "schema_invalid")
    api("POST", "/schemas", json=registered(compatibility_mode="warn"))
    assert api("POST", "/intents", json=sent).status_code == 200


def test_an_owners_schema_is_theirs_and_the_houses_is_everybodys(api):
    api("POST", "/schemas", json=registered(), owner="acme", who="a")
    assert api("GET", "/schemas/intent.demo.v1", owner="globex", who="b").status_code == 404
    api("POST", "/schemas", json=registered())
    assert api("GET", "/schemas/intent.demo.v1", owner="globex", who="b").json["schema"]["owner_agent"] is None


def test_backward_refuses_what_asks_for_more(api):
    api("POST", "/schemas", json=registered(compatibility_mode="backward"))
    more = {**SCHEMA, "required": ["n", "m"]}
    refused = api("POST", "/schemas", json=registered(schema_json=more, compatibility_mode="backward"))

    assert refused.status_code == 422 and "requires m" in refused.json["detail"]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (registered(semantic_type="demo"), 422), (registered(compatibility_mode="x"), 422), (registered(scope="core"), 403),
        (registered(schema_json={"type": "nonsense"}), 422), (registered(schema_json=7), 422), ({}, 422),
    ],
)  # fmt: skip
def test_what_is_no_schema_is_refused(api, sent, status):
    assert api("POST", "/schemas", json=sent).status_code == status


def test_every_answer_is_json(api, subscribe):
    """Clients read every body as JSON, also of a deletion."""
    made = subscribe()
    for method, path in (("DELETE", f"/webhooks/subscriptions/{made['subscription_id']}"), ("GET", "/nothing")):
        assert json.loads(api(method, path).data)


# -- one event, every door ---------------------------------------------------------------


def test_the_last_event_is_the_same_bytes_by_webhook_stream_poll_and_inbox(api, axme, stage, subscribe, web, make_key):
    """With a result that has what JSON writers like to write differently."""

    @axme.handles("intent.report.v1")
    @axme.task
    def report(payload):
        return {
            "naïve": "é \u2028 </script>",
            "amount": 1.50,
            "big": 2**53 + 1,
            "at": stage.now,
            "none": None,
            "b": [],
            "a": {},
        }

    subscribe(event_types=["intent.completed"])
    sent = {"intent_type": "intent.report.v1", "to_agent": BOT, "reply_to": "agent://acme/ops/requester"}
    intent_id = api("POST", "/intents", json=sent).json["intent_id"]
    ((_, body, _),) = stage.webhooks
    event = body.split(b'"data":', 1)[1][:-1]

    assert json.loads(event)["result"]["amount"] == 1.5
    polled = api("GET", f"/intents/{intent_id}/events").data
    streamed = api("GET", f"/intents/{intent_id}/events/stream?wait_seconds=1").data
    thread = api("GET", f"/inbox/{intent_id}").data
    assert polled.count(event) == 1 and polled.endswith(event + b"]}")
    assert b"data: " + event + b"\n\n" in streamed
    assert thread.count(event) == 1
