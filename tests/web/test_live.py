"""Live streams: every event once and in order, whatever is cut, and never more of them than there are threads for."""

from __future__ import annotations

import itertools
import random
import threading
import time

import pytest

from axme_celery.web import live
from axme_celery.web.live import Full, Hub

from .conftest import PAGE


@pytest.fixture
def hub(stage, monkeypatch):
    """A hub that looks often and beats fast."""
    monkeypatch.setattr(live, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(live, "HEARTBEAT_SECONDS", 0.2)
    hub = Hub(lambda: stage.axme.runtime, 10)
    yield hub
    hub.close()


def listening(messages):
    """What comes, as it comes, and the thread that reads it."""
    heard: list = []

    def read():
        for one in messages:
            heard.append(one)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return heard, thread


def until(condition, seconds=10.0):
    give_up_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.005)


def test_a_stream_replays_and_goes_on_until_the_intent_has_ended(stage, hub):
    """Every event once, in order; then it ends by itself."""
    intent = stage.submit(stage.axme.app.tasks["doors.report"].s(2))
    heard, thread = listening(hub.events(intent.id))
    until(lambda: len([e for e in heard if e]) == intent.seq)

    stage.answer(intent.id, "approved", by="ana")

    thread.join(10)
    assert not thread.is_alive()
    assert [e.seq for e in heard if e] == list(range(1, intent.refresh().seq + 1))
    assert hub._topics == {}


def test_a_stream_goes_on_after_the_last_event_its_client_has(stage, hub):
    """Also for one that has them all already."""
    intent = stage.submit(stage.axme.app.tasks["doors.add"].s(1, 2))

    for since in range(intent.seq + 1):
        assert [e.seq for e in hub.events(intent.id, since)] == list(range(since + 1, intent.seq + 1))


def test_a_thousand_random_cuts_lose_nothing_and_double_nothing(stage, hub, monkeypatch):
    """Clients that are cut off at any moment, and come back with the number of the last event they had."""
    monkeypatch.setattr(live, "KEPT_EVENTS", 7)
    monkeypatch.setattr(live, "PAGE", 5)
    monkeypatch.setattr(live, "HEARTBEAT_SECONDS", 0.002)
    dice, cuts = random.Random(7), itertools.count()
    intent = stage.submit(stage.axme.app.tasks["doors.votes"].s(2, 20))
    had: list[list[int]] = [[] for _ in range(6)]
    ended = [threading.Event() for _ in had]

    def client(mine, at_its_end):
        while True:
            stream, left = hub.events(intent.id, mine[-1] if mine else 0), dice.randrange(4)
            for event in stream:
                if event is not None:
                    mine.append(event.seq)
                if left == 0:
                    break
                left -= 1
            else:
                at_its_end.set()
                return
            stream.close()
            next(cuts)

    for mine, at_its_end in zip(had, ended, strict=True):
        threading.Thread(target=client, args=(mine, at_its_end), daemon=True).start()
    for number in range(40):
        until(lambda number=number: next(cuts) > number * 30)
        stage.answer(intent.id, "approved", by=f"person-{number}")

    assert all(at_its_end.wait(20) for at_its_end in ended)
    last = intent.refresh().seq
    assert intent.status == "COMPLETED" and last > 40 and next(cuts) > 1000
    assert had == [list(range(1, last + 1))] * 6


def test_many_that_look_at_one_intent_read_it_once(stage, hub, monkeypatch):
    """Not the ledger a hundred times."""
    intent = stage.submit(stage.axme.app.tasks["doors.report"].s(1))
    reads = []
    ledger = stage.axme.runtime.ledger
    whole = ledger.events

    def counted(*args):
        reads.append(args)
        return whole(*args)

    streams = [listening(hub.events(intent.id)) for _ in range(8)]
    until(lambda: all(len([e for e in heard if e]) == intent.seq for heard, _ in streams))
    monkeypatch.setattr(type(ledger), "events", lambda self, *args: counted(*args), raising=False)
    stage.answer(intent.id, "approved", by="ana")
    for _, thread in streams:
        thread.join(10)

    assert all([e.seq for e in heard if e] == list(range(1, intent.refresh().seq + 1)) for heard, _ in streams)
    assert len(reads) <= 4


def test_a_silent_stream_has_a_heartbeat(stage, hub):
    """So that a client that is gone is noticed."""
    intent = stage.submit(stage.axme.app.tasks["doors.report"].s(1))

    heard, _ = listening(hub.events(intent.id, intent.seq))

    until(lambda: heard.count(None) >= 2)
    assert set(heard) == {None}


def test_an_inbox_says_when_it_is_another(stage, hub):
    """Something came, something was answered; nothing in between."""
    heard, _ = listening(hub.inbox({"ana", "analysts"}))
    until(lambda: len([v for v in heard if v]) == 1)

    intent = stage.submit(stage.axme.app.tasks["doors.report"].s(1))
    until(lambda: len([v for v in heard if v]) == 2)
    other = stage.submit(stage.axme.app.tasks["doors.ask"].s({"to": "bob"}))
    stage.answer(intent.id, "approved", by="ana")
    until(lambda: len([v for v in heard if v]) == 3)
    stage.answer(other.id, "approved", by="bob")
    until(lambda: heard.count(None) > 2)

    versions = [v for v in heard if v]
    assert versions[0] == versions[2] != versions[1] and len(versions) == 3


def test_there_are_never_more_streams_than_seats(hub):
    """Of all, and of one person; a seat that is given back is free, once."""
    seats = [hub.take_seat(f"person-{n}") for n in range(10)]
    with pytest.raises(Full):
        hub.take_seat("one more")

    seats[0].give_back()
    seats[0].give_back()

    hub.take_seat("one more")
    with pytest.raises(Full):
        hub.take_seat("yet one more")


def test_closing_ends_every_stream(stage, hub, monkeypatch):
    """A server that is asked to stop does not wait for them."""
    monkeypatch.setattr(live, "HEARTBEAT_SECONDS", 60.0)
    intent = stage.submit(stage.axme.app.tasks["doors.report"].s(1))
    threads = [listening(hub.events(intent.id))[1], listening(hub.inbox({"ana"}))[1]]
    until(lambda: len(hub._topics) == 2)

    live.close_all()

    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    with pytest.raises(Full):
        hub.take_seat("late")


# -- over HTTP --


def test_a_stream_over_http(stage, web, sign_in):
    """Numbers and types, never what is in them; and where it goes on from."""
    client = sign_in("ana", role="viewer")
    intent = stage.submit(stage.axme.app.tasks["doors.add"].s(1, 2))

    answer = client.get(f"/live/intents/{intent.id}", headers={"Last-Event-ID": "2"})
    text = answer.text
    answer.close()

    assert answer.mimetype == "text/event-stream" and answer.headers["X-Accel-Buffering"] == "no"
    assert [line for line in text.splitlines() if line.startswith("id:")] == [
        f"id: {seq}" for seq in range(3, intent.seq + 1)
    ]
    assert "event: end" in text and "doors.add" not in text
    assert web.extensions["axme-web"].live.streams == 0
    late = client.get(f"/live/intents/{intent.id}", headers={"Last-Event-ID": str(intent.seq)})
    assert "event: end" in late.text and "id:" not in late.text, "or a browser would come back for ever"
    late.close()


def test_over_http_too_the_seats_are_counted(stage, web, sign_in):
    """503 with Retry-After; a page polls meanwhile."""
    client = sign_in("ana", role="viewer")
    hub = web.extensions["axme-web"].live
    intent = stage.submit(stage.axme.app.tasks["doors.add"].s(1, 2))
    seats = [hub.take_seat(f"person-{n}") for n in range(stage.axme.settings.live_clients)]

    answer = client.get(f"/live/intents/{intent.id}")

    assert answer.status_code == 503 and int(answer.headers["Retry-After"]) > 0
    assert client.get(f"/live/intents/{intent.id}/state").json["seq"] == intent.seq
    for seat in seats:
        seat.give_back()
    assert client.get(f"/live/intents/{intent.id}").status_code == 200
    assert client.head(f"/live/intents/{intent.id}").status_code == 200


def test_polling_costs_nothing_while_nothing_happens(stage, sign_in):
    """304 to whoever has the version already."""
    client = sign_in("ana", role="viewer")
    intent = stage.submit(stage.axme.app.tasks["doors.report"].s(1))
    path = f"/live/intents/{intent.id}/state"
    first = client.get(path)

    assert client.get(path, headers={"If-None-Match": first.headers["ETag"]}).status_code == 304
    stage.answer(intent.id, "approved", by="ana")
    assert client.get(path, headers={"If-None-Match": first.headers["ETag"]}).status_code == 200

    inbox = client.get("/live/inbox/state")
    assert client.get("/live/inbox/state", headers={"If-None-Match": inbox.headers["ETag"]}).status_code == 304


@pytest.mark.parametrize("path", ["/live/intents/{}", "/live/intents/{}/state"])
def test_no_stream_of_what_is_not_there_and_none_for_nobody(stage, web, sign_in, path):
    """404 and 401."""
    intent = stage.submit(stage.axme.app.tasks["doors.add"].s(1, 2))

    assert sign_in("ana", role="viewer").get(path.format("nothing")).status_code == 404
    assert web.test_client().get(path.format(intent.id)).status_code == 401
    assert web.test_client().get("/live/inbox", headers=PAGE).status_code == 302
