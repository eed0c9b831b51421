"""A webhook's bytes, its signatures, and what answers mean."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from axme_celery import BadInput, webhook
from axme_celery.hooks import HookDelivery, HookEvent, HookStatus, Parcel, Subscription
from axme_celery.webhook import Answer

NOW = datetime.now(UTC)
DATA = '{"intent_id":"i-1","seq":7,"event_type":"intent.completed","status":"COMPLETED","at":"t","details":{"é":1.50}}'
EVENT = HookEvent(id="msg-1", type="intent.completed", intent_id="i-1", seq=7, data=DATA, at=NOW)
SUB = Subscription(
    id="s-1", url="https://a.example/", secret=webhook.new_secret(), created_at=NOW, updated_at=NOW
)  # fmt: skip
DELIVERY = HookDelivery(
    id="d-1", event_id="msg-1", subscription_id="s-1", intent_id="i-1", type=EVENT.type, created_at=NOW
)
SCHEDULE = (5.0, 300.0)


def settled(answer: Answer, **fields):
    """What is written of a try."""
    parcel = Parcel(
        delivery=replace(DELIVERY, attempts=fields.pop("attempts", 0), tries=fields.pop("tries", ())),
        event=EVENT,
        subscription=replace(SUB, **fields),
    )
    return webhook.settle(parcel, answer, SCHEDULE, NOW, lambda: "letter-1")


# -- who ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "type", "is_told"),
    [
        (["intent.completed"], "intent.completed", True), (["intent.completed"], "intent.failed", False),
        (["intent.*"], "intent.completed", True), (["intent.*"], "intention.completed", False),
        (["intent.*"], "inbox.thread_created", False), (["*"], "anything.at_all", True),
        (["a.b.*"], "a.b.c.d", True), (["a.b.*"], "a.b", False),
    ],
)  # fmt: skip
def test_patterns_name_one_type_or_all_below(wanted, type, is_told):
    assert webhook.matches(webhook.patterns(wanted), type) is is_told


@pytest.mark.parametrize("wrong", [[], ["in*"], ["intent.*.x"], [""], "intent.*", ["a b"], [7], ["x"] * 0, ["intent."]])
def test_what_is_no_pattern_is_refused(wrong):
    with pytest.raises(BadInput):
        webhook.patterns(wrong)


# -- what is sent ------------------------------------------------------------------


def test_the_event_stands_in_the_body_byte_for_byte():
    body = webhook.body(EVENT, thin=False)

    assert body.endswith(b',"data":' + DATA.encode() + b"}")
    whole = json.loads(body)
    assert (whole["id"], whole["type"], whole["intent_id"]) == ("msg-1", "intent.completed", "i-1")


def test_a_thin_body_says_where_to_look_and_no_more():
    data = json.loads(webhook.body(EVENT, thin=True))["data"]

    assert data == {"intent_id": "i-1", "seq": 7, "event_type": "intent.completed", "status": "COMPLETED", "at": "t"}


def test_what_is_signed_verifies_with_the_library_receivers_use():
    body = webhook.body(EVENT, thin=False)
    headers = webhook.headers(EVENT, SUB, body, datetime.now(UTC))

    assert Webhook(SUB.secret).verify(body, headers)["data"]["seq"] == 7
    assert headers["webhook-id"] == "msg-1"
    expected = hmac.new(SUB.secret.encode(), body, hashlib.sha256).hexdigest()
    assert headers["X-Axme-Signature"] == f"sha256={expected}"
    with pytest.raises(WebhookVerificationError):
        Webhook(SUB.secret).verify(body + b" ", headers)


def test_a_secret_somebody_chose_is_its_own_bytes():
    sub = replace(SUB, secret="correct horse battery staple")
    body = webhook.body(EVENT, thin=False)

    headers = webhook.headers(EVENT, sub, body, datetime.now(UTC))
    Webhook(base64.b64encode(sub.secret.encode()).decode()).verify(body, headers)


def test_during_a_rotation_both_secrets_verify_and_afterwards_only_the_new():
    body, old = webhook.body(EVENT, thin=False), webhook.new_secret()
    sub = replace(SUB, old_secret=old, old_secret_until=datetime.now(UTC) + timedelta(hours=1))
    during = webhook.headers(EVENT, sub, body, datetime.now(UTC))
    after = webhook.headers(EVENT, replace(sub, old_secret_until=NOW), body, datetime.now(UTC))

    for secret in (SUB.secret, old):
        Webhook(secret).verify(body, during)
    Webhook(SUB.secret).verify(body, after)
    with pytest.raises(WebhookVerificationError):
        Webhook(old).verify(body, after)
    by_old = webhook.headers(EVENT, sub, body, datetime.now(UTC), by_old=True)["X-Axme-Signature"]
    assert by_old == "sha256=" + hmac.new(old.encode(), body, hashlib.sha256).hexdigest()


@pytest.mark.parametrize("wrong", ["short", "x" * 129, "whsec_%%%%%%%%%%%%%%%%%", "whsec_YWJj" + "=" * 8, "ü" * 20, 7])
def test_a_secret_that_cannot_sign_is_refused_without_being_shown(wrong):
    with pytest.raises(BadInput) as refused:
        webhook.checked_secret(wrong)

    assert str(wrong) not in str(refused.value)


# -- what an answer means ------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_only_2xx_is_received(status):
    done = settled(Answer(status=status), failures=3)

    assert (done.now.status, done.now.attempts, done.letter) == (HookStatus.DELIVERED, 1, None)
    assert done.subscription == {"failures": 0, "rests_until": None}


@pytest.mark.parametrize("status", [100, 301, 302, 307, 400, 401, 404, 500, 503, None])
def test_anything_else_is_tried_again_on_the_schedule(status):
    done = settled(Answer(status=status, error=None if status else "timed out"))

    assert done.now.status is HookStatus.PENDING
    assert timedelta(seconds=2.5) <= done.now.next_at - NOW <= timedelta(seconds=5)
    assert done.now.tries[-1]["error"] == done.now.last_error


def test_at_the_end_of_the_schedule_it_is_a_dead_letter():
    done = settled(Answer(status=500), attempts=2)

    assert (done.now.status, done.now.attempts, done.now.next_at) == (HookStatus.DEAD, 3, None)
    assert (done.letter.kind, done.letter.delivery_id, done.letter.code) == ("delivery", "d-1", "webhook_undeliverable")


def test_gone_ends_the_subscription_at_once():
    done = settled(Answer(status=410))

    assert done.now.status is HookStatus.DEAD
    assert done.subscription["disabled_at"] == NOW


def test_an_address_that_may_not_be_called_is_not_called_again():
    done = settled(Answer(status=None, error="not at a public address", refused=True))

    assert done.now.status is HookStatus.DEAD


@pytest.mark.parametrize(
    ("status", "header", "seconds"),
    [
        (429, "60", 60), (503, "7", 7), (429, "999999999", 86400), (429, "-5", 0), (429, "soon", 0), (429, None, 0),
        (500, "60", 0), (429, "٦", 0),
        (429, "Mon, 99 Foo 2026", 0), (429, "Thu, 01 Jan 1970 00:00:00 GMT", 0),
    ],
)  # fmt: skip
def test_a_receiver_may_ask_for_time(status, header, seconds):
    """In seconds or as a date, for a day at most; what cannot be read asks for nothing."""
    asked = webhook.asked_pause(Answer(status=status, retry_after=header), NOW)

    assert abs(asked - seconds) <= 1


def test_it_may_name_the_moment():
    at = (NOW + timedelta(seconds=90)).strftime("%a, %d %b %Y %H:%M:%S GMT")

    assert 88 <= webhook.asked_pause(Answer(status=429, retry_after=at), NOW) <= 90


def test_a_pause_asked_for_holds_for_the_delivery_and_for_its_whole_subscription():
    done = settled(Answer(status=429, retry_after="3600"))

    assert done.now.next_at == done.subscription["rests_until"] == NOW + timedelta(hours=1)


def test_a_subscription_that_keeps_failing_rests_ever_longer_up_to_a_limit():
    rests = [(webhook.rest(n, 0.0, NOW) or NOW) - NOW for n in (1, 4, 5, 10, 10_000)]

    assert rests[:2] == [timedelta(0)] * 2
    assert timedelta(0) < rests[2] <= timedelta(seconds=1)
    assert timedelta(seconds=16) <= rests[3] <= timedelta(seconds=32)
    assert rests[4] <= timedelta(seconds=webhook.LONGEST_REST_SECONDS)


def test_the_last_tries_are_kept_on_record():
    done = settled(Answer(status=500, milliseconds=12), tries=tuple({"n": n} for n in range(30)))

    assert len(done.now.tries) == 20
    assert done.now.tries[-1] == {
        "at": done.now.tries[-1]["at"], "status": 500, "ms": 12, "error": "answered 500; only 2xx counts as received",
    }  # fmt: skip
