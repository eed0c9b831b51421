"""Agents outside Celery over HTTP: listening, polling, leases, handing on, and whom they may talk to."""

from __future__ import annotations

import json

import pytest

from axme_celery import keys
from axme_celery.web import create_app

from .conftest import BOT, SECRET

LISTENER = {"who": "bot", "role": "approver", "agent": BOT}


def frames(text):
    """The data of a stream's frames, but its end."""
    return [
        json.loads(line.removeprefix("data: "))
        for frame in text.split("\n\n")
        for line in frame.splitlines()
        if line.startswith("data: ") and "event: stream.timeout" not in frame
    ]


def listen(api, where="acme/ops/bot", **more):
    query = {"wait_seconds": 1, **more.pop("query", {})}
    return api("GET", f"/agents/{where}/intents/stream", query_string=query, **{**LISTENER, **more})


# -- listening ----------------------------------------------------------------------------


def test_an_agent_is_handed_what_is_sent_to_it(api, create):
    """With a number of its own count in both places, and enough to begin with."""
    intent_id = create(payload={"n": 1})

    answer = listen(api)

    (told,) = frames(answer.text)
    assert answer.mimetype == "text/event-stream"
    assert "id: 1\nevent: intent.delivered\ndata: " in answer.text
    assert answer.text.endswith('event: stream.timeout\ndata: {"ok":true,"next_seq":1}\n\n')
    assert (told["intent_id"], told["seq"], told["status"], told["payload"]) == (intent_id, 1, "DELIVERED", {"n": 1})
    assert api("GET", f"/intents/{intent_id}").json["intent"]["lifecycle_status"] == "DELIVERED"
    assert frames(listen(api).text) == [], "while its lease lasts it is nobody else's"


def test_ended_intents_are_not_handed_out(api, create):
    """Nobody can do anything about them."""
    api("POST", f"/intents/{create()}/resolve", json={"status": "CANCELED"})
    assert frames(listen(api).text) == []


@pytest.mark.parametrize("where", ["acme/ops/bot", "agent%3A%2F%2Facme%2Fops%2Fbot", "bot"])
def test_an_agent_is_found_under_all_its_names(api, create, where):
    """With or without its scheme, and by its bare name."""
    create()
    assert len(frames(listen(api, where).text)) == 1
    assert api("GET", f"/agents/{where}", **LISTENER).json["agent"]["address"] == BOT


def test_a_bare_name_is_an_address_too(api, create):
    """Where no agent of that name is known."""
    create(to_agent="solo")
    assert len(frames(listen(api, "solo", who="ops", role="operator", agent=None).text)) == 1


def test_an_agent_whose_lease_ended_sees_its_intent_again(api, create, stage):
    """Under a new number, whatever it had seen."""
    create()
    listen(api, query={"lease_seconds": 30})
    stage.pass_time("31s")
    (told,) = frames(listen(api, query={"since": 1}).text)
    assert (told["seq"], told["delivery_attempt"]) == (2, 2)


def test_a_lease_is_renewed(api, create, stage):
    """By saying so, and by acknowledging."""
    intent_id = create()
    listen(api, query={"lease_seconds": 30})
    done = api("POST", f"/intents/{intent_id}/acknowledge", json={"lease_seconds": 100}, **LISTENER).json
    assert (done["status"], done["lease_seconds"]) == ("ACKNOWLEDGED", 100)
    stage.pass_time("90s")
    assert api("POST", f"/intents/{intent_id}/lease", json={}, **LISTENER).status_code == 200
    stage.pass_time("50s")
    assert frames(listen(api).text) == []
    stage.pass_time("50s")
    refused = api("POST", f"/intents/{intent_id}/lease", json={}, **LISTENER)
    assert (refused.status_code, refused.json["error"]["code"]) == (409, "not_held")


def test_a_listener_that_hangs_up_before_its_time_gives_back(web, api, create, make_key, stage):
    """What it had not begun is had at once by the next one."""
    create()
    key = make_key("bot", role="approver", agent=BOT)
    response = web.test_client().get(
        "/v1/agents/acme/ops/bot/intents/stream?wait_seconds=60", headers={"x-api-key": key}
    )
    for chunk in response.iter_encoded():
        if b"intent.delivered" in chunk:
            break
    response.close()
    stage.run()
    (told,) = frames(listen(api, query={"since": 1}).text)
    assert (told["seq"], told["delivery_attempt"]) == (2, 1)


def test_a_listeners_hands_are_full_at_some_point(api, create):
    """It is handed more once it has finished something."""
    for _ in range(3):
        create()
    (told,) = frames(listen(api, query={"max_in_flight": 1}).text)
    api("POST", f"/intents/{told['intent_id']}/resume", json={"action": "complete"}, **LISTENER)
    assert [t["seq"] for t in frames(listen(api, query={"since": 1, "max_in_flight": 5}).text)] == [2, 3]
    assert listen(api, query={"max_in_flight": 0}).status_code == 422


def test_polling_hands_out_the_same(api, create):
    """For agents that hold no connection."""
    first, second = create(), create()
    one = api("GET", "/agents/acme/ops/bot/intents?limit=1", **LISTENER).json
    assert ([i["intent_id"] for i in one["intents"]], one["next_cursor"]) == ([first], 1)
    two = api("GET", f"/agents/acme/ops/bot/intents?since={one['next_cursor']}", **LISTENER).json
    assert [i["intent_id"] for i in two["intents"]] == [second]


def test_looking_at_headers_takes_nothing(api, create, stage, make_key):
    """HEAD is safe, where GET hands out."""
    create()
    client, headers = (
        create_app(stage.axme, secret_key=SECRET).test_client(),
        {"x-api-key": make_key("ops", role="operator")},
    )
    assert client.head("/v1/agents/acme/ops/bot/intents", headers=headers).status_code == 200
    assert len(api("GET", "/agents/acme/ops/bot/intents", **LISTENER).json["intents"]) == 1


def test_a_status_filter_is_kept_to(api, create):
    """What is new is handed out to who asks for the new; nothing to who watches others."""
    create()
    assert frames(listen(api, query={"status": "WAITING,COMPLETED"}).text) == []
    assert len(frames(listen(api, query={"status": "CREATED"}).text)) == 1
    assert listen(api, query={"status": "odd"}).status_code == 422


@pytest.mark.parametrize(
    "query", [{"since": -1}, {"since": "x"}, {"wait_seconds": 0}, {"wait_seconds": 61}, {"lease_seconds": 0}]
)
def test_limits_of_a_listener_are_checked(api, query):
    """Before the stream begins."""
    assert listen(api, query=query).status_code == 422


def test_nobody_listens_as_somebody_else(api, create):
    """A key speaks for its own agent; an operator's for any."""
    create()
    assert listen(api, who="eve", agent="agent://acme/eve").status_code == 403
    assert listen(api, who="eve", agent=None).status_code == 403
    assert api("GET", "/agents/acme/ops/bot/intents", who="eve", role="viewer").status_code == 403
    assert len(frames(listen(api, who="ops", role="operator", agent=None).text)) == 1


def test_a_malformed_address_is_refused(api):
    """As such."""
    refused = listen(api, "a b", who="ops", role="operator", agent=None)
    assert (refused.status_code, refused.json["error"]["code"]) == (422, "invalid_agent_address")


def test_a_revoked_key_ends_its_stream(web, stage, create, axme):
    """At the next sign of life."""
    key, secret = keys.create(axme.runtime, name="bot", role="approver", agent=BOT)
    response = web.test_client().get(
        "/v1/agents/acme/ops/bot/intents/stream?wait_seconds=30", headers={"x-api-key": secret}
    )
    chunks = response.iter_encoded()
    next(chunks)
    keys.revoke(axme.runtime, key.id)
    assert list(chunks) == []


# -- handing on -----------------------------------------------------------------------------


def test_an_intent_is_handed_on(api, create):
    """To another agent, who finishes it."""
    intent_id = create()
    listen(api)
    moved = api("POST", f"/intents/{intent_id}/transfer", json={"next_handler": "acme/ops/other"}, **LISTENER).json
    assert (moved["applied"], moved["intent"]["handler"]) == (True, "agent://acme/ops/other")
    other = {"who": "other", "role": "approver", "agent": "agent://acme/ops/other"}
    (told,) = frames(listen(api, "acme/ops/other", **other).text)
    assert told["intent_id"] == intent_id
    done = api("POST", f"/intents/{intent_id}/resume", json={"action": "complete"}, **other)
    assert done.json["intent"]["status"] == "COMPLETED"
    assert api("POST", f"/intents/{intent_id}/transfer", json={"to_agent": "x"}).status_code == 409


# -- who they are ------------------------------------------------------------------------------


def test_agents_are_registered_and_listed(api):
    """By those who speak for them."""
    sent = {"display_name": "The bot", "delivery_mode": "http", "callback_url": "https://bot.example/hook"}
    made = api("PUT", "/agents/acme/ops/bot", json=sent, **LISTENER).json["agent"]
    assert {name: made[name] for name in sent} == sent
    assert (
        api("PUT", "/agents/acme/ops/bot", json={"status": "suspended"}, **LISTENER).json["agent"]["status"]
        == "suspended"
    )
    assert [a["address"] for a in api("GET", "/agents?org_id=acme&workspace_id=ops").json["agents"]] == [BOT]
    assert api("GET", "/agents?org_id=other").json["agents"] == []
    assert api("GET", "/agents/nobody/knows").status_code == 404
    for wrong in ({"delivery_mode": "pigeon"}, {"callback_url": "ftp://x"}, {"status": "gone"}):
        assert api("PUT", "/agents/acme/ops/bot", json=wrong, **LISTENER).status_code == 422
    assert api("PUT", "/agents/acme/ops/new", json={"delivery_mode": "http"}).status_code == 422


def test_policies_say_who_may_send_to_whom(api, create):
    """With the codes clients know."""
    allow = {"receive": {"mode": "allowlist", "entries": ["agent://acme/*"]}}
    assert api("PUT", "/agents/acme/ops/bot/policy", json=allow).json["receive"]["mode"] == "allowlist"
    sent = {"intent_type": "intent.demo.v1", "to_agent": BOT}

    refused = api("POST", "/intents", json=sent, who="x", role="approver", agent="agent://other/x")
    assert (refused.status_code, refused.json["error"]["code"]) == (403, "sender_not_in_receive_allowlist")
    assert api("POST", "/intents", json=sent, who="y", role="approver", agent="agent://acme/y").status_code == 200

    api("PUT", "/agents/acme/ops/bot/policy", json={"receive": {"mode": "closed"}})
    refused = api("POST", "/intents", json=sent)
    assert refused.json["error"]["code"] == "receiver_agent_closed"
    api("PUT", "/agents/acme/ops/bot/policy", json={"receive": {"mode": "open"}})
    api("PUT", "/agents/acme/y/policy", json={"send": {"mode": "denylist", "entries": [BOT]}})
    refused = api("POST", "/intents", json=sent, who="y", role="approver", agent="agent://acme/y")
    assert refused.json["error"]["code"] == "policy_denied"
    assert api("GET", "/agents/acme/y/policy").json["send"]["entries"] == [BOT]
    for wrong in ({}, {"send": {"mode": "x"}}, {"send": {"mode": "open", "entries": [3]}}, {"send": 3}):
        assert api("PUT", "/agents/acme/y/policy", json=wrong).status_code == 422


def test_who_sent_it_is_the_keys_agent(api, create):
    """Whatever the body says; without an agent the body is believed."""
    mine = create(from_agent="agent://forged/x", who="y", role="approver", agent="agent://acme/y")
    assert api("GET", f"/intents/{mine}").json["intent"]["from_agent"] == "agent://acme/y"
    assert (
        api("GET", f"/intents/{create(from_agent='agent://acme/z')}").json["intent"]["from_agent"] == "agent://acme/z"
    )
