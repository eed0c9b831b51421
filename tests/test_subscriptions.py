"""Subscriptions: whoever subscribed is told everything that happens from then on, and nothing of others."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from sqlalchemy import select
from standardwebhooks import Webhook

from axme_celery import BadInput, NotFound, subscriptions, wait_for_human, wire
from axme_celery.fanout import fan_out
from axme_celery.hooks import HookStatus
from axme_celery.ledger import tables
from axme_celery.model import Delivery, DeliveryKind
from axme_celery.webhook import Answer

URL = "https://ops.example/hooks"


@pytest.fixture
def work(axme):
    @axme.task
    def work(fails=False):
        if fails:
            raise ValueError("no")
        return {"rows": 47}

    return work


@pytest.fixture
def asking(axme):
    @axme.task
    def asking():
        return wait_for_human("Publish?", to="ana").outcome

    return asking


def bodies(stage):
    return [json.loads(body) for _, body, _ in stage.webhooks]


def answers(stage, *given, then=200):
    """Receivers answer like this, one after the other, and then always the same."""
    left = list(given)
    stage.answer_webhook = lambda *_: left.pop(0) if left else Answer(status=then)


def all_deliveries(axme, **filters):
    return [one.delivery for one in subscriptions.deliveries(axme.runtime, **filters)]


# -- notify --------------------------------------------------------------------


def test_the_url_an_intent_names_is_told_of_its_end_and_of_nothing_else(stage, axme, asking):
    intent = stage.submit(asking.s(), notify=URL)
    assert stage.webhooks == []
    stage.answer(intent, "approved", by="ana")

    ((url, body, headers),) = stage.webhooks
    told = stage.history(intent)[-1]
    assert url == URL
    assert body.endswith(b'"data":' + wire.event_text(told, axme.runtime.ledger.intent(intent.id)).encode() + b"}")
    secret = subscriptions.subscription_of_url(axme.runtime, URL).secret
    assert Webhook(secret).verify(body, headers)["data"]["result"] == "approved"


def test_a_task_may_name_it_for_all_its_intents(stage, axme):
    @axme.task(notify=URL)
    def work():
        return 1

    stage.submit(work.s())
    stage.submit(work.s(), notify="https://other.example/")

    assert [url for url, _, _ in stage.webhooks] == [URL, "https://other.example/"]


@pytest.mark.parametrize("wrong", ["ftp://x.example", "https://u:p@x.example/", "nothing", "https:///x", 7])
def test_what_is_no_url_is_refused_before_anything_is_kept(stage, axme, work, wrong):
    with pytest.raises(BadInput):
        axme.submit(work.s(), notify=wrong)

    assert list(axme.intents()) == []


def test_every_way_to_end_is_told(stage, axme, work, asking):
    stage.submit(work.s(fails=True), notify=URL)
    axme.cancel(stage.submit(asking.s(), notify=URL).id, "enough")
    stage.submit(asking.s(), notify=URL, deadline="1h")
    stage.pass_time("2h")

    assert [b["type"] for b in bodies(stage)] == ["intent.failed", "intent.canceled", "intent.timed_out"]


# -- subscriptions -----------------------------------------------------------------


def test_a_subscription_is_told_every_event_once_in_order_with_ids_of_their_own(stage, axme, asking):
    subscriptions.subscribe(axme.runtime, URL)
    intent = stage.submit(asking.s())
    stage.answer(intent, "approved", by="ana")

    told = sorted(bodies(stage), key=lambda b: b["data"]["seq"])
    record = axme.runtime.ledger.intent(intent.id)
    assert [json.dumps(b["data"]) for b in told] == [json.dumps(wire.event(e, record)) for e in stage.history(intent)]
    assert len({b["id"] for b in told}) == len(told) == intent.refresh().seq


def test_only_the_types_asked_for_are_told(stage, axme, work, asking):
    subscriptions.subscribe(axme.runtime, URL, ["intent.failed", "inbox.*"])
    stage.submit(work.s())
    stage.submit(work.s(fails=True))
    stage.submit(asking.s())

    assert [b["type"] for b in bodies(stage)] == ["intent.failed", "inbox.thread_created"]


def test_what_happened_before_is_not_told(stage, axme, work):
    stage.submit(work.s())
    subscriptions.subscribe(axme.runtime, URL)
    stage.pass_time("1h")

    assert stage.webhooks == []


def test_where_nobody_subscribed_no_row_is_written_for_it(stage, axme, work):
    """The promise costs those nothing who do not ask for it."""
    axme.submit(work.s())

    with stage.engine.connect() as c:
        kinds = c.scalars(select(tables.outbox.c.kind)).all()
    assert kinds == ["LEG"]


def test_an_intent_in_the_callers_transaction_is_told_once_it_commits(stage, axme, work):
    subscriptions.subscribe(axme.runtime, URL, ["intent.created"])
    with stage.engine.connect() as connection:
        with connection.begin() as transaction:
            axme.submit(work.s(), connection=connection)
            transaction.rollback()
        with connection.begin():
            kept = axme.submit(work.s(), connection=connection)
    stage.pass_time("10s")

    assert [b["intent_id"] for b in bodies(stage)] == [kept.id]


def test_fanning_out_twice_tells_once(stage, axme, work):
    """A relay died after it had made the deliveries and before anybody knew."""
    rt = axme.runtime
    subscriptions.subscribe(rt, URL)
    intent = stage.submit(work.s())
    before = len(stage.webhooks)
    again = Delivery(
        id="again", kind=DeliveryKind.FANOUT, intent_id=intent.id, next_at=stage.now, body={"since": 0, "until": 99}
    )
    fan_out(rt, [again])
    stage.run()

    assert len(stage.webhooks) == before == len(all_deliveries(axme))


def test_subscribing_again_changes_the_types_and_keeps_the_secret(stage, axme):
    rt = axme.runtime
    first = subscriptions.subscribe(rt, URL, ["intent.failed"])
    second = subscriptions.subscribe(rt, URL, ["intent.*"], description="ops")
    other = subscriptions.subscribe(rt, URL, owner="acme")

    assert (second.id, second.secret, second.event_types) == (first.id, first.secret, ("intent.*",))
    assert other.id != first.id
    assert {s.id for s in subscriptions.subscriptions(rt)} == {first.id, other.id}
    assert [s.id for s in subscriptions.subscriptions(rt, owner="acme")] == [other.id]


def test_a_revoked_subscription_is_told_nothing_and_comes_back_with_a_new_secret(stage, axme, work):
    rt = axme.runtime
    first = subscriptions.subscribe(rt, URL)
    answers(stage, then=500)
    stage.submit(work.s())
    subscriptions.revoke(rt, first.id)
    count = len(stage.webhooks)
    stage.submit(work.s())
    stage.pass_time("2d")

    assert len(stage.webhooks) == count
    assert {d.status for d in all_deliveries(axme)} == {HookStatus.DEAD}
    assert list(subscriptions.subscriptions(rt)) == []
    again = subscriptions.subscribe(rt, URL)
    assert (again.id, again.revoked_at) == (first.id, None) and again.secret != first.secret


def test_another_owners_subscription_is_not_found(stage, axme):
    mine = subscriptions.subscribe(axme.runtime, URL, owner="acme")

    for verb in (subscriptions.subscription, subscriptions.revoke, subscriptions.enable, subscriptions.rotate):
        with pytest.raises(NotFound):
            verb(axme.runtime, mine.id, owner="other")


def test_a_rotation_loses_no_delivery_whichever_secret_the_receiver_knows(stage, axme, work):
    """One that checks Standard Webhooks takes either signature; one that checks the plain one is asked by both."""
    rt = axme.runtime
    sub = subscriptions.subscribe(rt, URL, ["intent.completed"])
    old = sub.secret
    new = subscriptions.rotate(rt, sub.id, overlap="1h").secret

    def knows_only_the_old(_, body, headers):
        import hashlib
        import hmac

        right = "sha256=" + hmac.new(old.encode(), body, hashlib.sha256).hexdigest()
        return Answer(status=200 if headers["X-Axme-Signature"] == right else 401)

    stage.answer_webhook = knows_only_the_old
    stage.submit(work.s())

    (delivery,) = all_deliveries(axme)
    assert (delivery.status, delivery.attempts) == (HookStatus.DELIVERED, 1)
    for secret in (old, new):
        Webhook(secret).verify(*stage.webhooks[-1][1:])
    stage.pass_time("2h")
    stage.submit(work.s())
    assert all_deliveries(axme, status="PENDING")[0].last_error.startswith("answered 401")


# -- tries ---------------------------------------------------------------------------


def test_a_receiver_down_for_a_day_gets_it_the_next_with_the_same_id_and_body(stage, axme, work):
    stage.submit(work.s(), notify=URL)
    count = len(stage.webhooks)
    assert count == 1
    answers(stage, *[Answer(status=None, error="refused")] * 6)
    stage.submit(work.s(), notify=URL)
    stage.pass_time("2d")

    tried = stage.webhooks[1:]
    assert len(tried) == 7
    assert len({body for _, body, _ in tried}) == len({h["webhook-id"] for _, _, h in tried}) == 1
    delivery = all_deliveries(axme)[0]
    assert (delivery.status, [t.get("status") for t in delivery.tries]) == (HookStatus.DELIVERED, [None] * 6 + [200])


def test_given_up_it_is_a_dead_letter_and_can_be_sent_again(stage, axme, work):
    rt = axme.runtime
    answers(stage, then=500)
    stage.submit(work.s(), notify=URL)
    stage.pass_time("10d")
    (letter,) = stage.dead_letters()
    (dead,) = all_deliveries(axme)
    assert (dead.status, dead.attempts, letter.delivery_id) == (HookStatus.DEAD, 10, dead.id)

    answers(stage)
    subscriptions.redeliver(rt, dead.id, by="ops")
    stage.run()

    assert all_deliveries(axme)[0].status is HookStatus.DELIVERED
    assert stage.dead_letters() == []
    closed = rt.ledger.dead_letter(letter.id)
    assert (closed.state, closed.closed_by) == ("REPLAYED", "ops")
    assert len({h["webhook-id"] for _, _, h in stage.webhooks}) == 1


def test_gone_disables_and_what_happens_meanwhile_is_caught_up_with(stage, axme, work):
    rt = axme.runtime
    sub = subscriptions.subscribe(rt, URL, ["intent.completed"])
    answers(stage, then=410)
    stage.submit(work.s())
    stage.submit(work.s())
    assert len(stage.webhooks) == 1
    assert subscriptions.subscription(rt, sub.id).disabled_reason == "disabled: it answered 410 Gone"
    with pytest.raises(BadInput, match="410"):
        subscriptions.redeliver_range(rt, subscription_id=sub.id)

    answers(stage)
    subscriptions.enable(rt, sub.id)
    count = subscriptions.redeliver_range(rt, subscription_id=sub.id, since=stage.now - timedelta(hours=1), by="ops")
    stage.run()

    assert count == 2
    assert {d.status for d in all_deliveries(axme)} == {HookStatus.DELIVERED}
    assert stage.dead_letters() == []


def test_a_range_is_sent_again_even_if_received(stage, axme, work):
    subscriptions.subscribe(axme.runtime, URL, ["intent.completed"])
    stage.submit(work.s())
    stage.pass_time("1h")
    since = stage.now
    stage.submit(work.s())

    assert subscriptions.redeliver_range(axme.runtime, since=since, status="DELIVERED") == 1
    stage.run()

    ids = [h["webhook-id"] for _, _, h in stage.webhooks]
    assert len(ids) == 3 and ids[1] == ids[2] != ids[0]


def test_one_that_asks_for_time_is_left_alone_with_all_its_deliveries(stage, axme, work):
    subscriptions.subscribe(axme.runtime, URL, ["intent.completed"])
    subscriptions.subscribe(axme.runtime, "https://other.example/", ["intent.completed"])
    slow = [Answer(status=429, retry_after="3600")]
    stage.answer_webhook = lambda url, *_: slow.pop() if url == URL and slow else Answer(status=200)
    stage.submit(work.s())
    stage.submit(work.s())
    heard = [url for url, _, _ in stage.webhooks]
    assert (heard.count(URL), heard.count("https://other.example/")) == (1, 2)

    stage.pass_time("61m")
    assert [url for url, _, _ in stage.webhooks].count(URL) == 3


def test_an_intent_stays_until_its_webhooks_are_through(stage, axme, work):
    """Pruning takes what was told along, and nothing that is still to be told."""
    rt = axme.runtime
    answers(stage, Answer(status=500))
    intent = stage.submit(work.s(), notify=URL)
    later = stage.now + timedelta(days=1)
    assert rt.ledger.prunable(later, 10) == []
    stage.pass_time("1h")

    assert [one.id for one in rt.ledger.prunable(later, 10)] == [intent.id]
    rt.ledger.prune([intent.id])
    assert all_deliveries(axme) == []


# -- events of one's own ----------------------------------------------------------------


def test_an_event_can_be_told_that_is_of_no_intent(stage, axme):
    rt = axme.runtime
    subscriptions.subscribe(rt, URL, ["inbox.*"], owner="acme")
    subscriptions.subscribe(rt, "https://b.example/", ["inbox.*"], owner="other")
    event = subscriptions.tell(rt, "inbox.reply_received", {"text": "né"}, source="crm", owner="acme")
    stage.run()

    assert [(b["id"], b["data"]) for b in bodies(stage)] == [(event.id, {"text": "né"})]
    found, parcels = subscriptions.event(rt, event.id, owner="acme")
    assert (found.source, [p.delivery.status for p in parcels]) == ("crm", [HookStatus.DELIVERED])
    with pytest.raises(NotFound):
        subscriptions.event(rt, event.id, owner="other")


def test_a_told_event_is_pruned_by_its_age(stage, axme):
    rt = axme.runtime
    subscriptions.subscribe(rt, URL, ["*"])
    event = subscriptions.tell(rt, "a.b", {}, source="me")
    stage.run()
    rt.ledger.hooks.prune(stage.now + timedelta(seconds=1))

    with pytest.raises(NotFound):
        subscriptions.event(rt, event.id)
    assert all_deliveries(axme) == []


@pytest.mark.parametrize(
    ("type", "payload"), [("a.*", {}), ("*", {}), ("", {}), ("a.b", {"x": object()}), ("a.b", "x" * 200_000)]
)
def test_an_event_that_cannot_be_told_is_refused(stage, axme, type, payload):
    with pytest.raises(BadInput):
        subscriptions.tell(axme.runtime, type, payload, source="me")
