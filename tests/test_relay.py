"""The relay thread: soon, in the background, and never the only one who knows."""

from __future__ import annotations

import os
import threading
import time
from datetime import timedelta

import pytest

from axme_celery import LedgerUnavailable, relay
from axme_celery.ledger import SqlLedger, tables
from axme_celery.model import Change, Delivery, DeliveryKind, Intent, Lease, Status
from axme_celery.relay import RelayThread
from axme_celery.tracker import open_tracker


class Post:
    """A ledger, a relay on it, and what it sent."""

    def __init__(self, axme) -> None:
        self.ledger = SqlLedger("sqlite://")
        assert self.ledger.id
        self.sent: list[tuple[str, float]] = []
        self.arrived = threading.Condition()
        self.troubles: list[Exception] = []
        self.relay = RelayThread(lambda: self.runtime, dict.fromkeys(DeliveryKind, self.send))
        settings = axme.read_settings(ledger_url="sqlite://", redis_url=None)
        tracker = open_tracker(None, "post", lambda: self.ledger.engines.durable)
        self.runtime = axme.assemble(settings, self.ledger, tracker, self.relay)

    def send(self, delivery: Delivery) -> None:
        if self.troubles:
            raise self.troubles.pop()
        with self.arrived:
            self.sent.append((delivery.id, time.monotonic()))
            self.arrived.notify_all()

    def written(self, *names: str, in_seconds: float = 0, connection=None) -> list[Delivery]:
        """Deliveries, in the ledger's outbox."""
        now = self.ledger.now()
        due = [
            Delivery(id=n, kind=DeliveryKind.NOTICE, intent_id="i", next_at=now + timedelta(seconds=in_seconds))
            for n in names
        ]
        self.ledger.commit(Change(outbox=tuple(due)), connection=connection)
        return due

    def wait_for(self, *names: str) -> list[str]:
        """The ids sent, once these are among them; at most five seconds."""
        with self.arrived:
            self.arrived.wait_for(lambda: {id for id, _ in self.sent} >= set(names), timeout=5)
            return [id for id, _ in self.sent]

    def in_outbox(self) -> set[str]:
        with self.ledger.engines.connect() as connection:
            return {row.id for row in connection.execute(tables.outbox.select())}


@pytest.fixture
def post(axme):
    post = Post(axme)
    yield post
    post.relay.drain(2)
    post.ledger.close()


def test_what_is_handed_over_is_sent_in_the_background_and_then_removed(post):
    """The caller does not wait for the broker."""
    due = post.written("a", "b")
    gate = threading.Event()
    post.relay._senders = dict.fromkeys(DeliveryKind, lambda d: (gate.wait(5), post.send(d)))

    began = time.monotonic()
    post.relay.send(due)
    handed_over_in = time.monotonic() - began
    gate.set()
    sent = post.wait_for("a", "b")

    assert handed_over_in < 0.2
    assert sent == ["a", "b"]
    assert post.relay.drain(5)
    assert post.in_outbox() == set()


def test_each_is_sent_at_its_own_moment(post):
    """A wake-up written ahead leaves on time, not before what is due earlier."""
    later, sooner = post.written("later", in_seconds=0.3), post.written("sooner", in_seconds=0.05)
    began = time.monotonic()

    post.relay.send([*later, *sooner])
    sent = post.wait_for("later", "sooner")

    assert sent == ["sooner", "later"]
    moments = {id: at - began for id, at in post.sent}
    assert moments["sooner"] >= 0.04 and moments["later"] >= 0.29


def test_what_is_due_much_later_is_left_to_the_sweep(post):
    """The outbox has it; no thread remembers it for days, or is even woken."""
    post.relay.send(post.written("days", in_seconds=86400))
    assert post.relay._thread is None

    post.relay.send(post.written("now"))

    assert post.wait_for("now") == ["now"]
    assert post.relay.drain(5)
    assert post.in_outbox() == {"days"}


def test_more_than_a_relay_holds_is_left_to_the_sweep(post, monkeypatch):
    """Memory does not grow while a broker is away."""
    monkeypatch.setattr(relay, "CAPACITY", 3)
    due = post.written(*"abcdefgh", in_seconds=0.2)

    post.relay.send(due)
    post.relay.drain(5)
    time.sleep(0.25)
    post.relay.drain(5)

    assert [id for id, _ in post.sent] == ["a", "b", "c"]
    assert post.in_outbox() == set("defgh")


def test_what_could_not_be_sent_stays_in_the_outbox_with_its_reason(post):
    """Put back for later; the sweep takes it from there."""
    post.troubles = [OSError("refused")]

    post.relay.send(post.written("a"))
    post.relay.send(post.written("b"))
    post.wait_for("b")
    post.relay.drain(5)

    assert post.in_outbox() == {"a"}
    (left,) = post.ledger.outbox_by_ids(["a"])
    assert (left.attempts, left.last_error) == (1, "OSError: refused")


def test_trouble_with_the_ledger_ends_no_relay(post, caplog):
    """Its rows are still there, and so is the thread, for the next ones."""
    settle = post.ledger.outbox_settle
    failures = [LedgerUnavailable("away"), RuntimeError("a bug")]

    def outbox_settle(*arguments):
        if failures:
            raise failures.pop()
        settle(*arguments)

    post.ledger.outbox_settle = outbox_settle
    for name in ("a", "b"):
        post.relay.send(post.written(name))
        post.wait_for(name)
        post.relay.drain(5)
    post.relay.send(post.written("c"))
    post.wait_for("c")
    post.relay.drain(5)

    assert [id for id, _ in post.sent] == ["a", "b", "c"]
    assert post.in_outbox() == {"a", "b"}
    assert len([r for r in caplog.records if "leaves" in r.msg]) == 2


def test_what_celery_has_done_itself_is_removed_unsent(post):
    """A guard is there for the case of a crash only."""
    post.written("guard", "other")

    post.relay.settled(["guard"])
    post.relay.drain(5)

    assert (post.sent, post.in_outbox()) == ([], {"other"})


def test_what_a_callers_transaction_wrote_is_sent_once_it_commits(post):
    """Looked for again as long as that is likely to happen soon."""
    with post.ledger.engines.connect() as connection, connection.begin():
        post.written("theirs", connection=connection)
        post.relay.send_if_committed(["theirs"])
        time.sleep(0.1)
        meanwhile = list(post.sent)

    assert meanwhile == []
    assert post.wait_for("theirs") == ["theirs"]


def test_what_a_callers_transaction_rolled_back_is_never_sent(post):
    """There is nothing to be found."""
    with post.ledger.engines.connect() as connection:
        transaction = connection.begin()
        post.written("never", connection=connection)
        post.relay.send_if_committed(["never"])
        transaction.rollback()

    post.relay.send(post.written("other"))
    post.wait_for("other")
    assert post.relay.drain(5)
    assert [id for id, _ in post.sent] == ["other"]


def told_of(post, *, refuses: bool = False) -> list[object]:
    """What the tracker is told from now on."""
    told: list[object] = []

    class Tracker:
        def tell(self, seqs, ended):
            told.append((seqs, ended))
            if refuses:
                raise relay.TrackerUnavailable("gone")

    object.__setattr__(post.runtime, "tracker", Tracker())
    return told


def news(post, seq: int) -> list[Change]:
    now = post.ledger.now()
    intent = Intent(id="i", type="t", status=Status.IN_PROGRESS, seq=seq, created_at=now, updated_at=now)
    return [Change(intent=intent)]


def test_the_tracker_is_told_in_the_background_and_its_failure_harms_nobody(post, monkeypatch):
    """A hung Redis does not hold up a verb."""
    monkeypatch.setattr(relay, "NEWS_LINGER_SECONDS", 5.0)
    told = told_of(post, refuses=True)

    post.relay.tell(news(post, 3))
    post.relay.tell((), [Lease("leg", 1)])
    post.relay.drain(5)
    post.relay.tell(news(post, 4))
    post.relay.send(post.written("a"))

    assert post.wait_for("a") == ["a"]
    # Both in one go; and not again so soon after it failed.
    assert told == [({"i": 3}, [Lease("leg", 1)])]


def test_the_tracker_is_told_at_once_and_then_only_so_often(post, monkeypatch):
    """Whoever looks at a quiet system sees it move; a busy one saves the round trips."""
    monkeypatch.setattr(relay, "NEWS_LINGER_SECONDS", 0.0)
    monkeypatch.setattr(relay, "NEWS_EVERY_SECONDS", 60.0)
    told = told_of(post)

    post.relay.tell(news(post, 3))
    until = time.monotonic() + 5
    while not told and time.monotonic() < until:
        time.sleep(0.005)
    post.relay.tell(news(post, 4))
    post.relay.tell(news(post, 5))
    post.relay.send(post.written("a"))
    post.wait_for("a")
    assert told == [({"i": 3}, [])]

    assert post.relay.drain(5)
    assert told == [({"i": 3}, []), ({"i": 5}, [])]


def test_draining_waits_for_what_is_due_but_not_for_ever(post):
    """A process that ends gives its last deliveries a moment."""
    stuck = threading.Event()
    post.relay._senders = dict.fromkeys(DeliveryKind, lambda _: stuck.wait(5))
    post.relay.send(post.written("a"))

    began = time.monotonic()
    left = post.relay.drain(0.2)
    took = time.monotonic() - began
    stuck.set()

    assert (left, 0.2 <= took < 2) == (False, True)
    assert post.relay.drain(5)


def test_a_relay_that_was_never_used_has_nothing_to_drain(post):
    """And no thread."""
    assert post.relay.drain(0)
    assert post.relay._thread is None


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_starts_with_an_empty_relay_of_its_own(post):
    """What the parent has to send is the parent's; the child's first delivery starts the child's own thread."""
    post.relay.send(post.written("parents", in_seconds=0.5))
    read, write = os.pipe()

    pid = os.fork()
    if pid == 0:
        try:
            state = (len(post.relay._heap), post.relay._thread is None)
            os.write(write, repr(state).encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)

    assert os.read(read, 100).decode() == "(0, True)"
    assert post.wait_for("parents") == ["parents"]
