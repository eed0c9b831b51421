"""The courier: many receivers at once, none of whom can hold up another, or what it is not about."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import replace

import pytest
from standardwebhooks import Webhook

from axme_celery import LedgerUnavailable, courier, subscriptions
from axme_celery.courier import PER_SUBSCRIPTION, Courier
from axme_celery.hooks import HookStatus
from axme_celery.ledger import SqlLedger
from axme_celery.model import DeliveryKind
from axme_celery.relay import RelayThread
from axme_celery.tracker import open_tracker
from axme_celery.webhook import Answer

from .sinks import HttpSink, status


class House:
    """A ledger in a file, a courier on it, and receivers that are functions of the test."""

    def __init__(self, axme, path, **settings) -> None:
        url = f"sqlite:///{path}/ledger.db"
        self.ledger = SqlLedger(url)
        assert self.ledger.id
        self.calls: list[tuple[str, bytes, dict[str, str]]] = []
        self.changed = threading.Condition()
        self.answer = lambda url: Answer(status=200)
        self.courier = Courier(lambda: self.runtime, self.call)
        relay = RelayThread(lambda: self.runtime, {}, self.courier)
        settings = {"webhook_retry_seconds": [0.01] * 20, "webhook_deadline_seconds": 1, **settings}
        read = axme.read_settings(ledger_url=url, redis_url=None, **settings)
        tracker = open_tracker(None, "courier", lambda: self.ledger.engines.durable)
        self.runtime = axme.assemble(read, self.ledger, tracker, relay)

    def call(self, url, body, headers):
        with self.changed:
            self.calls.append((url, body, headers))
            self.changed.notify_all()
        return self.answer(url)

    def tell(self, count: int) -> None:
        for n in range(count):
            subscriptions.tell(self.runtime, "test.told", {"n": n}, source="test")

    def statuses(self) -> Counter[str]:
        found = subscriptions.deliveries(self.runtime)
        return Counter(f"{p.subscription.url}: {p.delivery.status.value}" for p in found)

    def until(self, so) -> None:
        """Wait until it is so, nudging as the sweep does; at most ten seconds."""
        end = time.monotonic() + 10
        while not so():
            assert time.monotonic() < end, f"not so in time: {self.statuses()}"
            self.courier.wake()
            time.sleep(0.02)


@pytest.fixture
def house(axme, tmp_path):
    house = House(axme, tmp_path)
    yield house
    house.courier.drain(5)
    house.ledger.close()


def test_everything_due_is_sent_in_the_background(house):
    subscriptions.subscribe(house.runtime, "https://a.example/", ["test.*"])
    house.tell(40)
    house.until(lambda: house.statuses() == {"https://a.example/: DELIVERED": 40})

    assert len({headers["webhook-id"] for _, _, headers in house.calls}) == len(house.calls) == 40


def test_a_receiver_that_hangs_holds_up_no_other(house):
    """It has a few calls under way and no more; the rest of the pool is everybody's."""
    release = threading.Event()
    for name in ("slow", "quick"):
        subscriptions.subscribe(house.runtime, f"https://{name}.example/", ["test.*"])
    house.answer = lambda url: Answer(status=200 if "quick" in url or release.wait(20) else 500)
    house.tell(30)

    house.until(lambda: house.statuses()["https://quick.example/: DELIVERED"] == 30)

    under_way = [url for url, _, _ in house.calls if "slow" in url]
    assert len(under_way) == PER_SUBSCRIPTION
    release.set()
    house.until(lambda: house.statuses()["https://slow.example/: DELIVERED"] == 30)


def test_one_that_keeps_failing_is_asked_one_call_at_a_time(house):
    now, most, lock = [0], [0], threading.Lock()
    sub = subscriptions.subscribe(house.runtime, "https://a.example/", ["test.*"])
    house.ledger.hooks.change(sub.id, {"failures": 5})

    def counted(url):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.01)
        with lock:
            now[0] -= 1
        return Answer(status=500)

    house.answer = counted
    house.tell(5)
    house.until(lambda: len(house.calls) >= 2)

    assert most[0] == 1


def test_what_comes_up_while_a_process_is_drained_is_sent_when_it_goes_on(house, monkeypatch):
    """A program may drain in its middle; nothing else would send it before the next sweep."""
    monkeypatch.setattr(courier, "PAUSE_SECONDS", 0.05)
    subscriptions.subscribe(house.runtime, "https://a.example/", ["test.*"])
    house.courier._closing = True  # as drain() has it for as long as it takes

    house.tell(1)
    until = time.monotonic() + 10
    while not house.courier._put_off and time.monotonic() < until:
        time.sleep(0.01)
    assert not house.calls

    house.courier._closing = False
    while not house.calls and time.monotonic() < until:
        time.sleep(0.01)
    house.until(lambda: house.statuses() == {"https://a.example/: DELIVERED": 1})
    assert time.monotonic() < until


def test_what_was_in_hand_when_a_process_died_is_sent_by_another(house, axme, tmp_path):
    """With the same id and body: it may arrive twice, and the receiver can tell."""
    subscriptions.subscribe(house.runtime, "https://a.example/", ["test.*"])
    house.courier.wake = lambda: None
    house.tell(1)
    (lost,) = house.ledger.hooks.turn((), 10, lambda _: 10, 0.2)
    assert house.ledger.hooks.turn((), 10, lambda _: 10, 0.2) == []

    other = House(axme, tmp_path)
    other.until(lambda: other.statuses() == {"https://a.example/: DELIVERED": 1})

    assert [h["webhook-id"] for _, _, h in other.calls] == [lost.event.id]
    other.ledger.close()


def test_a_ledger_that_is_away_for_a_moment_costs_no_second_call(house, monkeypatch):
    """What was tried is kept in mind until it can be written."""
    monkeypatch.setattr("axme_celery.courier.PAUSE_SECONDS", 0.01)
    subscriptions.subscribe(house.runtime, "https://a.example/", ["test.*"])
    turn, troubles = house.ledger.hooks.turn, [1, 1, 1]

    def flaky(settlements, *rest):
        if settlements and troubles:
            troubles.pop()
            raise LedgerUnavailable("away")
        return turn(settlements, *rest)

    monkeypatch.setattr(house.ledger.hooks, "turn", flaky)
    house.tell(3)
    house.until(lambda: house.statuses() == {"https://a.example/: DELIVERED": 3})

    assert (len(house.calls), troubles) == (3, [])


def test_one_that_was_received_stays_received_whoever_else_failed(house):
    """Two had it in hand, for the first was thought dead."""
    from axme_celery import webhook

    subscriptions.subscribe(house.runtime, "https://a.example/", ["test.*"])
    house.courier.wake = lambda: None
    house.tell(1)
    hooks, now = house.ledger.hooks, house.ledger.now()
    (first,) = hooks.turn((), 1, lambda _: 1, 0)
    (second,) = hooks.turn((), 1, lambda _: 1, 0)
    good, bad = (
        webhook.settle(p, a, [60.0], now, house.runtime.new_id)
        for p, a in ((first, Answer(status=200)), (second, Answer(status=500)))
    )
    hooks.turn([bad], 0, lambda _: 0, 0)
    hooks.turn([good], 0, lambda _: 0, 0)
    hooks.turn([bad], 0, lambda _: 0, 0)

    (parcel,) = subscriptions.deliveries(house.runtime)
    assert parcel.delivery.status is HookStatus.DELIVERED


def test_what_arrives_over_the_network_verifies(house, axme, tmp_path):
    """The whole way: a socket, the headers, the bytes."""
    with HttpSink(status("204 No Content")).running() as sink:
        url = f"http://127.0.0.1:{sink.port}/hook"
        sub = subscriptions.subscribe(house.runtime, url, ["test.*"])
        house.runtime = replace(
            house.runtime, settings=replace(house.runtime.settings, webhook_allow_cidrs=("127.0.0.0/8",))
        )
        house.courier._call = house.courier._post
        house.tell(1)
        house.until(lambda: house.statuses() == {f"{url}: DELIVERED": 1})

    (request,) = sink.requests
    assert Webhook(sub.secret).verify(request.body, request.headers)["data"] == {"n": 0}
    (parcel,) = subscriptions.deliveries(house.runtime)
    assert parcel.delivery.tries[0]["status"] == 204


def test_an_address_inside_is_refused_and_not_called(house):
    subscriptions.subscribe(house.runtime, "https://169.254.169.254/latest", ["test.*"])
    house.courier._call = house.courier._post
    house.tell(1)
    house.until(lambda: house.statuses() == {"https://169.254.169.254/latest: DEAD": 1})

    (parcel,) = subscriptions.deliveries(house.runtime)
    assert "not at a public address" in parcel.delivery.last_error


def test_legs_leave_while_webhooks_hang(axme, tmp_path):
    """Calls are made elsewhere than where messages are published."""
    house, release = House(axme, tmp_path), threading.Event()
    subscriptions.subscribe(house.runtime, "https://slow.example/", ["*"])
    house.answer = lambda url: Answer(status=200 if release.wait(20) else 500)
    published = threading.Event()
    house.runtime.relay._senders = {DeliveryKind.LEG: lambda delivery: published.set()}
    house.tell(10)
    house.until(lambda: len(house.calls) == PER_SUBSCRIPTION)

    from .stores.ledgers import new_intent

    (written,) = house.ledger.commit(new_intent(house.ledger))
    house.runtime.relay.send(written.outbox)

    assert published.wait(5)
    assert [d.kind for d in written.outbox] == [DeliveryKind.LEG, DeliveryKind.FANOUT]
    release.set()
    house.runtime.relay.drain(5)
    house.ledger.close()
