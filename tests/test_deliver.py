"""Delivering: each row is sent until it was sent, and whatever is sent twice is heard once."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import timedelta

import pytest

from axme_celery import BadInput, wait_for_human, wait_for_tool
from axme_celery.deliver import LONGEST_PAUSE_SECONDS, RESULT_TRIES, pause, send_all, settle
from axme_celery.ledger import tables
from axme_celery.model import Delivery, DeliveryKind, Status
from axme_celery.notifiers import Notice


@pytest.fixture
def asking(axme):
    @axme.task
    def asking():
        return wait_for_human("Publish?", to="ana").outcome

    return asking


def delivery(stage, kind=DeliveryKind.NOTICE, **fields) -> Delivery:
    return Delivery(**({"id": f"d-{id(object())}", "kind": kind, "intent_id": "i", "next_at": stage.now} | fields))


def failing(error):
    def send(_):
        raise error

    return send


def rows(stage):
    with stage.engine.connect() as connection:
        return connection.execute(tables.outbox.select()).all()


# -- sending ------------------------------------------------------------------------------


def test_a_sender_that_fails_spoils_only_its_own_delivery(stage, axme):
    """The others are sent."""
    sent = []
    senders = {DeliveryKind.NOTICE: failing(OSError("mail is down")), DeliveryKind.CANCEL: sent.append}
    notice, cancel = delivery(stage), delivery(stage, DeliveryKind.CANCEL)

    outcome = send_all(axme.runtime, senders, [notice, cancel, replace(notice, id="n2")])

    assert (outcome.sent, sent) == ([cancel.id], [cancel])
    assert [(d.id, d.attempts, d.last_error) for d in outcome.failed] == [
        (notice.id, 1, "OSError: mail is down"), ("n2", 1, "OSError: mail is down"),
    ]  # fmt: skip
    assert all(d.next_at > stage.now for d in outcome.failed)


def test_a_broker_that_is_down_is_asked_once_a_batch(stage, axme):
    """Not a thousand times, each with its timeout."""
    asked = []

    def publish(one):
        asked.append(one.id)
        raise OSError("refused")

    legs = [delivery(stage, DeliveryKind.LEG, id=f"leg-{n}") for n in range(50)]
    outcome = send_all(axme.runtime, {DeliveryKind.LEG: publish}, legs)

    assert asked == ["leg-0"]
    assert len(outcome.failed) == 50


def test_a_leg_that_cannot_be_published_does_not_keep_back_the_others(stage, axme):
    """A refusal of ours is about this one leg; only trouble with the broker is about all."""
    sent = []

    def publish(one):
        if one.id == "leg-0":
            raise BadInput("its options cannot be sent")
        sent.append(one.id)

    legs = [delivery(stage, DeliveryKind.LEG, id=f"leg-{n}") for n in range(3)]
    outcome = send_all(axme.runtime, {DeliveryKind.LEG: publish}, legs)

    assert sent == outcome.sent == ["leg-1", "leg-2"]


def test_what_an_intent_needs_to_go_on_is_never_given_up(stage, axme):
    """However long the broker is away: after the first minute, twice a minute."""
    for kind in (DeliveryKind.LEG, DeliveryKind.COMPLETION, DeliveryKind.CANCEL):
        for tries in (1, 10, 1000, 10**6):
            again_in = pause(kind, tries, ())
            assert timedelta(0) < again_in <= timedelta(seconds=LONGEST_PAUSE_SECONDS)


def test_pauses_grow_and_differ(stage):
    """Doubling, with jitter, so that many that failed together do not come back together."""
    firsts = [pause(DeliveryKind.LEG, 1, ()).total_seconds() for _ in range(50)]
    fourths = [pause(DeliveryKind.LEG, 4, ()).total_seconds() for _ in range(50)]

    assert min(firsts) >= 0.5 and max(firsts) <= 1 and len(set(firsts)) > 40
    assert min(fourths) >= 4 and max(fourths) <= 8


def test_a_notice_is_tried_on_its_schedule_and_then_filed_as_a_dead_letter(stage, axme, asking):
    """With its reason; the intent is not held up by it."""
    schedule = (60.0, 3600.0)
    axme._runtime = replace(axme.runtime, settings=replace(axme.settings, webhook_retry_seconds=schedule))
    tried = []

    def notify(one):
        tried.append((one.id, stage.now))
        raise OSError("mail is down")

    stage._senders[DeliveryKind.NOTICE] = notify
    intent = stage.submit(asking.s())
    stage.pass_time("1d")

    pauses = [(b[1] - a[1]).total_seconds() for a, b in itertools.pairwise(tried)]
    assert len({id for id, _ in tried}) == 1
    assert [30 <= pauses[0] <= 60, 1800 <= pauses[1] <= 3600, len(pauses)] == [True, True, 2]
    (letter,) = stage.dead_letters()
    assert (letter.kind, letter.code, letter.reason) == ("delivery", "notice_undeliverable", "OSError: mail is down")
    assert stage.answer(intent, "approved", by="ana").status is Status.COMPLETED


def test_telling_celery_of_an_end_is_given_up_in_the_end(stage):
    """After some days its result backend is somebody else's affair."""
    assert pause(DeliveryKind.RESULT, RESULT_TRIES - 1, ()) is not None
    assert pause(DeliveryKind.RESULT, RESULT_TRIES, ()) is None


def test_a_poll_that_could_not_be_sent_is_not_tried_again(stage, app, axme):
    """The wait's next poll asks anew, soon enough."""

    @app.task(shared=False)
    def is_ready():
        return 7

    @axme.task
    def work():
        return wait_for_tool("warehouse", "job-1", poll=is_ready.s(), every="1m")

    send_poll, tries = stage._senders[DeliveryKind.POLL], []

    def flaky(one):
        tries.append(stage.now)
        if len(tries) == 1:
            raise OSError("refused")
        send_poll(one)

    stage._senders[DeliveryKind.POLL] = flaky
    intent = stage.submit(work.s())
    stage.pass_time("5m")

    assert [(b - a).total_seconds() for a, b in itertools.pairwise(tries)] == [60]
    assert intent.refresh().result == 7


def test_the_words_of_a_failure_are_kept_whatever_they_are(stage, axme, asking):
    """An error message with a NUL in it must not keep the whole outbox from being settled."""
    axme._runtime = replace(axme.runtime, settings=replace(axme.settings, webhook_retry_seconds=()))
    stage._senders[DeliveryKind.NOTICE] = failing(OSError("bad\x00bytes \ud800 " + "x" * 5000))

    stage.submit(asking.s())

    (letter,) = stage.dead_letters()
    assert letter.reason.startswith("OSError: bad\\x00bytes \\ud800 xxx")
    assert len(letter.reason) == 1000


# -- settling ------------------------------------------------------------------------------


def test_what_was_sent_leaves_the_outbox_and_what_failed_stays_for_later(stage, axme, asking):
    """A row is removed only once it was sent."""
    axme.submit_many([asking.s(), asking.s()])
    due = axme.runtime.ledger.outbox_by_ids([row.id for row in rows(stage)])
    refused = []

    def publish(one):
        if not refused:
            refused.append(one.id)
            raise BadInput("not this one")

    settle(axme.runtime, send_all(axme.runtime, {DeliveryKind.LEG: publish}, due))

    (left,) = rows(stage)
    assert (left.id, left.attempts, left.held_until) == (refused[0], 1, None)
    assert left.next_at > stage.now


def test_a_delivery_sent_twice_is_heard_once(stage, axme, asking):
    """The sender died before the row was removed: legs, ends of children and cancels can all take a repeat."""
    intent = axme.submit(asking.s())
    (row,) = rows(stage)
    due = axme.runtime.ledger.outbox_by_ids([row.id])

    for _ in range(3):
        send_all(axme.runtime, stage._senders, due)
    stage.run()
    history = stage.history(intent)
    send_all(axme.runtime, stage._senders, due)
    stage.run()

    assert [n.kind for n in stage.notices] == ["wait_opened"]
    assert stage.history(intent) == history


def test_a_notice_keeps_its_id_on_every_try(stage, axme, asking):
    """So that whoever hears it twice can tell."""
    heard: list[Notice] = []

    def notify(one):
        heard.append(axme.notice(one))
        if len(heard) < 3:
            raise OSError("the reply was lost")

    stage._senders[DeliveryKind.NOTICE] = notify
    stage.submit(asking.s())
    stage.pass_time("1d")

    assert len(heard) == 3
    assert len({notice.id for notice in heard}) == 1
    assert heard[0] == heard[2]


def test_a_notice_of_a_wait_that_closed_meanwhile_is_not_sent(stage, axme, asking):
    """Nobody is asked for what was decided while the mail server was down."""
    told = []

    def notify(one):
        notice = axme.notice(one)
        if stage.now < began + timedelta(hours=1):
            raise OSError("mail is down")
        if notice is not None:
            told.append(notice)

    began = stage.now
    stage._senders[DeliveryKind.NOTICE] = notify
    intent = stage.submit(asking.s())
    stage.answer(intent, "approved", by="ana")
    stage.pass_time("2d")

    assert told == []
    assert rows(stage) == []
