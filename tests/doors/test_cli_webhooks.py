"""webhooks and deliveries: who is told, how that went, and telling them again."""

from __future__ import annotations

import pytest
from standardwebhooks import Webhook

from axme_celery import subscriptions
from tests.sinks import HttpSink, status

from .command_line import Desk, desk_fixture, until  # noqa: F401


@pytest.fixture
def sink():
    """A receiver that is down until told otherwise."""
    with HttpSink(status("500 Down")).running() as sink:
        yield sink


@pytest.fixture
def shop(desk: Desk):
    """A project that may call this machine, and gives up after one try."""
    shop = desk.another(axme_webhook_allow_cidrs=["127.0.0.0/8"], axme_webhook_retry_seconds=[])
    yield shop
    shop.axme.drain()
    shop.axme.close()


@pytest.fixture
def subscribed(shop, sink):
    """A subscription, and a delivery to it that is dead."""
    made = shop.json("webhooks", "subscribe", f"http://127.0.0.1:{sink.port}/hook", "--event", "shop.*")
    subscriptions.tell(shop.axme.runtime, "shop.sold", {"n": 1}, source="test")
    until(lambda: shop.json("deliveries", "list", "--status", "dead"), "dead delivery")
    return made


def test_a_subscription_is_made_listed_and_ended(desk):
    made = desk.json("webhooks", "subscribe", "https://a.example/", "--owner", "acme", "--description", "ops")
    assert made["secret"].startswith("whsec_")
    assert made["event_types"] == ["intent.*"]
    assert desk.run("webhooks", "secret", made["id"]).stdout.strip() == made["secret"]
    (listed,) = desk.json("webhooks", "list")
    assert (listed["id"], listed["owner"], "secret" in listed) == (made["id"], "acme", False)
    assert made["id"] in desk.run("webhooks", "list").stdout

    desk.run("webhooks", "revoke", made["id"])
    assert desk.json("webhooks", "list") == []
    assert "revoked" in desk.run("webhooks", "list", "--all").stdout
    assert desk.run("webhooks", "list").stdout == "nobody is subscribed\n"


def test_a_rotation_prints_the_new_secret_and_keeps_the_old_for_a_while(desk):
    made = desk.json("webhooks", "subscribe", "https://a.example/")
    new = desk.run("webhooks", "rotate", made["id"], "--overlap", "1h").stdout.strip()

    found = subscriptions.subscription(desk.axme.runtime, made["id"])
    assert (found.secret, found.old_secret) == (new, made["secret"])


def test_the_secret_of_a_url_that_intents_name_can_be_asked_for(desk):
    first = desk.run("webhooks", "secret", "https://ops.example/hooks").stdout
    assert first == desk.run("webhooks", "secret", "https://ops.example/hooks").stdout
    Webhook(first.strip())
    assert desk.json("webhooks", "list") == []


def test_a_dead_delivery_is_listed_shown_and_sent_again(shop, sink, subscribed):
    (dead,) = shop.json("deliveries", "list", "--subscription", subscribed["id"])
    assert (dead["status"], dead["type"], dead["attempts"]) == ("DEAD", "shop.sold", 1)
    assert dead["id"] in shop.run("deliveries", "list").stdout
    shown = shop.run("deliveries", "show", dead["id"]).stdout
    assert "500" in shown and "only 2xx counts as received" in shown

    sink.answer = status("204 Received")
    assert shop.run("deliveries", "redeliver", dead["id"]).stdout == f"{dead['id']}  queued\n"
    until(lambda: shop.json("deliveries", "list", "--status", "delivered"), "delivered delivery")

    ids = {request.headers["webhook-id"] for request in sink.requests}
    assert ids == {dead["webhook_id"]}
    (tried,) = shop.json("deliveries", "list")
    assert [t["status"] for t in tried["tries"]] == [500, 204]
    assert shop.json("deliveries", "show", tried["id"])["data"] == '{"n":1}'


def test_all_that_are_dead_are_sent_again_at_once(shop, sink, subscribed):
    sink.answer = status("204 Received")
    out = shop.run("deliveries", "redeliver", "--all", "--subscription", subscribed["id"], "--since", "1h").stdout
    assert out == "1 deliveries queued\n"
    until(lambda: shop.json("deliveries", "list", "--status", "delivered"), "delivered delivery")
    assert shop.run("deliveries", "redeliver", "--all").stdout == "0 deliveries queued\n"
    assert shop.run("deliveries", "redeliver", "--all", "--delivered").stdout == "1 deliveries queued\n"
    shop.run("deliveries", "redeliver", code=2)


def test_one_that_is_gone_can_be_enabled(shop, sink):
    sink.answer = status("410 Gone")
    made = shop.json("webhooks", "subscribe", f"http://127.0.0.1:{sink.port}/", "--event", "*")
    subscriptions.tell(shop.axme.runtime, "shop.sold", {}, source="test")
    until(lambda: "410" in shop.run("webhooks", "list").stdout, "disabled subscription")
    assert "410" in shop.run("deliveries", "redeliver", shop.json("deliveries", "list")[0]["id"], code=1).stderr

    shop.run("webhooks", "enable", made["id"])
    assert "good" in shop.run("webhooks", "list").stdout


def test_a_sweep_sends_what_is_due_before_it_ends(shop, sink):
    """For cron: nobody else in this house sends."""
    sink.answer = status("204 Received")
    shop.run("webhooks", "subscribe", f"http://127.0.0.1:{sink.port}/", "--event", "*")
    rt = shop.axme.runtime
    wake, rt.relay._courier.wake = rt.relay._courier.wake, lambda: None
    subscriptions.tell(rt, "shop.sold", {}, source="test")
    rt.relay._courier.wake = wake
    assert sink.requests == []

    assert "webhooks" in shop.run("sweep").stdout
    assert len(sink.requests) == 1


def test_what_there_is_not_is_said(desk):
    for words in (["deliveries", "show", "x"], ["webhooks", "rotate", "x"], ["deliveries", "redeliver", "x"]):
        desk.run(*words, code=3)
    assert desk.run("deliveries", "list").stdout == "no deliveries\n"
