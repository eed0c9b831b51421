"""The page of webhook deliveries: who was told what, every try, and sending again."""

from __future__ import annotations

import pytest

from axme_celery import subscriptions
from axme_celery.webhook import Answer

from .conftest import PAGE, post

URL = "https://crm.example/hooks"


@pytest.fixture
def told(stage):
    """A subscription that was told of an intent and could not be reached."""
    stage.answer_webhook = lambda *_: Answer(status=410, milliseconds=12)
    made = subscriptions.subscribe(stage.axme.runtime, URL, ["intent.completed"])
    stage.submit(stage.axme.app.tasks["doors.add"].s(1, 2))
    return made


def text_of(client, path):
    answer = client.get(path, headers=PAGE)
    assert answer.status_code == 200, answer.text
    return answer.text


def test_deliveries_are_shown_with_every_try(told, sign_in):
    page = text_of(sign_in("ana", role="viewer"), "/webhooks")

    assert "intent.completed" in page and "410 in 12 ms" in page and URL in page
    assert "Send those chosen again" not in page and "Enable" not in page
    assert "/webhooks" in text_of(sign_in("bo", role="viewer"), "/deliveries")


def test_an_operator_enables_it_and_sends_again(stage, told, sign_in):
    client = sign_in("ops", role="operator")
    assert "disabled: it answered 410 Gone" in text_of(client, "/webhooks?status=DEAD")

    stage.answer_webhook = lambda *_: Answer(status=200)
    assert post(client, f"/webhooks/subscriptions/{told.id}/enable", {}, page="/webhooks").status_code == 303
    (parcel,) = subscriptions.deliveries(stage.axme.runtime)
    sent = post(client, "/webhooks/redeliver", {"delivery": parcel.delivery.id}, page="/webhooks")
    stage.run()

    assert sent.status_code == 303
    page = text_of(client, f"/webhooks?status=DELIVERED&subscription={told.id}")
    assert "410 in 12 ms" in page and "200 in 0 ms" in page
    assert post(client, "/webhooks/redeliver", {}, page="/webhooks").status_code == 422


def test_only_operators_send_again_and_only_their_owners(stage, told, sign_in):
    (parcel,) = subscriptions.deliveries(stage.axme.runtime)
    viewer, other = sign_in("eve", role="viewer"), sign_in("bot", role="operator", owner="acme")

    assert post(viewer, "/webhooks/redeliver", {"delivery": parcel.delivery.id}, page="/inbox").status_code == 403
    assert "No webhook deliveries here" in text_of(other, "/webhooks")
    assert post(other, "/webhooks/redeliver", {"delivery": parcel.delivery.id}, page="/inbox").status_code == 404
    assert post(other, f"/webhooks/subscriptions/{told.id}/enable", {}, page="/inbox").status_code == 404


def test_what_a_url_or_an_answer_says_is_only_text(stage, sign_in):
    stage.answer_webhook = lambda *_: Answer(status=None, error="<script>alert(1)</script>")
    subscriptions.subscribe(stage.axme.runtime, "https://a.example/?<b>", ["intent.*"])
    stage.submit(stage.axme.app.tasks["doors.add"].s(1, 2))
    page = text_of(sign_in("ana"), "/webhooks")

    assert "<script>alert" not in page and "<b>" not in page
