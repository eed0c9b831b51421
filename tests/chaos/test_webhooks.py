"""The test suite's share of the webhooks under trouble, and that its checker sees what is wrong."""

from __future__ import annotations

import pytest

from axme_celery import subscriptions

from .receiver import Manners, Receiver
from .sender import project
from .webhooks import WebhookFigures, _check, run_webhooks


@pytest.mark.slow
@pytest.mark.xdist_group("chaos-webhooks")
def test_every_event_arrives_whatever_the_receiver_does_and_whoever_is_killed():
    """150 events, senders killed five times; ``make chaos`` does 5,000 and a hundred."""
    figures = run_webhooks(7, events=150, kills=5, ledger="sqlite", manners=Manners(busy=0.02, gone=0.005))

    assert figures.findings == []
    assert (figures.events, figures.kills) == (150, 5)


def test_what_is_lost_changed_or_unsigned_is_found(tmp_path):
    axme = project(f"sqlite:///{tmp_path}/ledger.db", schedule=[])
    rt, receiver = axme.runtime, Receiver(Manners(), 1)
    sub = subscriptions.subscribe(rt, "http://127.0.0.1:1/full")
    receiver.secrets["/full"] = sub.secret
    for body in (b"a", b"b"):
        receiver.take("/full", {"webhook-id": "x", "webhook-timestamp": "1", "webhook-signature": "v1,AAAA"}, body, 0.9)
    figures = WebhookFigures()
    _check(rt, receiver, {"i:1"}, figures, {"/full": sub.id})
    rt.ledger.close()

    said = "\n".join(figures.findings)
    for wrong in (
        "never received",
        "never told",
        "different bodies",
        "the ledger says",
        "did not verify",
        "never hangs",
    ):
        assert wrong in said, said
