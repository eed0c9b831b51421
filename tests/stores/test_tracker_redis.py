"""The Redis tracker when Redis is lost, hung, full or refusing, across forks, and its live notices."""

from __future__ import annotations

import json
import os
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
import redis

from axme_celery.errors import BadSetting, TrackerUnavailable
from axme_celery.tracker import Lease, Timer, notices
from axme_celery.tracker.redis import RedisTracker

from ..servers import PrivateRedis

NOW = datetime(2026, 10, 5, tzinfo=UTC)

#: Every method that asks Redis something.
CALLS: dict[str, Callable[[RedisTracker], object]] = {
    "hold": lambda tracker: tracker.hold([Lease("a", 1)], 5),
    "seed": lambda tracker: tracker.seed([Lease("a", 1)], 5),
    "release": lambda tracker: tracker.release([Lease("a", 1)]),
    "end": lambda tracker: tracker.tell({"intent": 1}, [Lease("a", 1)]),
    "lapsed": lambda tracker: tracker.lapsed(1),
    "schedule": lambda tracker: tracker.schedule([Timer("wait", "w", NOW)]),
    "refill": lambda tracker: tracker.refill([Timer("wait", "w", NOW)]),
    "unschedule": lambda tracker: tracker.unschedule([("wait", "w")]),
    "take": lambda tracker: tracker.take(NOW, 30, 10),
    "tell": lambda tracker: tracker.tell({"intent": 1}),
    "listen": lambda tracker: tracker.listen("intent", 5, after=0),
    "put_progress": lambda tracker: tracker.put_progress("a", 1, 2, None),
    "progress": lambda tracker: tracker.progress(["a"]),
    "tick": lambda tracker: tracker.tick("beat"),
    "ticks": lambda tracker: tracker.ticks(),
    "lock": lambda tracker: tracker.lock("timers", "one", 5),
    "ping": lambda tracker: tracker.ping(),
    "clear": lambda tracker: tracker.clear(),
    "eviction_policy": lambda tracker: tracker.eviction_policy(),
}


@pytest.fixture
def tracker(private_redis: PrivateRedis) -> Iterator[RedisTracker]:
    """On a Redis this test may harm."""
    tracker = RedisTracker(private_redis.url, "test")
    yield tracker
    tracker.close()


# -- lost, hung, full, refusing --


def test_after_flushall_seeding_gives_a_last_term_and_holding_revives(
    tracker: RedisTracker, private_redis: PrivateRedis
) -> None:
    """The real flush, on Redis' own clock."""
    alive, dead = Lease("alive", 1), Lease("dead", 1)
    tracker.hold([alive, dead], 60)
    private_redis.admin.flushall()
    assert tracker.lapsed(10) == []

    tracker.seed([alive, dead], 0.2)
    assert tracker.lapsed(10) == []
    tracker.hold([alive], 60)
    time.sleep(0.25)

    assert tracker.lapsed(10) == [dead]


@pytest.mark.parametrize("call", CALLS)
def test_a_dead_redis_is_tracker_unavailable(call: str, tracker: RedisTracker, private_redis: PrivateRedis) -> None:
    """Whatever is asked, the error is ours, names the server, and comes at once."""
    tracker.ping()
    private_redis.kill()

    began = time.monotonic()
    with pytest.raises(TrackerUnavailable, match=str(private_redis.port)):
        CALLS[call](tracker)
    assert time.monotonic() - began < 1


def test_a_restarted_redis_is_used_at_once(tracker: RedisTracker, private_redis: PrivateRedis) -> None:
    """Connections cut by the restart, and scripts it forgot, cost nobody an error."""
    for call in CALLS.values():
        call(tracker) if call is not CALLS["listen"] else None
    private_redis.kill()
    private_redis.start()

    tracker.hold([Lease("a", 1)], 60)
    tracker.schedule([Timer("wait", "w", NOW)])
    assert tracker.take(NOW, 30, 10) == [Timer("wait", "w", NOW)]


def test_forgotten_scripts_are_loaded_again(tracker: RedisTracker, private_redis: PrivateRedis) -> None:
    """SCRIPT FLUSH is not noticed."""
    tracker.hold([Lease("a", 1)], 0.001)
    private_redis.admin.script_flush()
    time.sleep(0.01)
    assert tracker.lapsed(10) == [Lease("a", 1)]
    private_redis.admin.script_flush()
    assert tracker.lock("timers", "one", 5)


def test_a_hung_redis_is_tracker_unavailable_within_its_timeout(
    tracker: RedisTracker, private_redis: PrivateRedis
) -> None:
    """Not down but silent: each call gives up after two seconds, and later ones get no earlier one's answer."""
    tracker.put_progress("a", 1, 10, "said before")
    tracker.put_progress("b", 2, 10, "of another")
    private_redis.pause()

    for ask in (lambda: tracker.progress(["a"]), lambda: tracker.hold([Lease("a", 1)], 60)):
        began = time.monotonic()
        with pytest.raises(TrackerUnavailable):
            ask()
        assert 1.5 < time.monotonic() - began < 3.5

    private_redis.resume()
    assert tracker.progress(["b"])["b"].note == "of another"
    assert tracker.lapsed(10) == []


def test_a_full_redis_refuses_and_keeps_what_it_has(tracker: RedisTracker, private_redis: PrivateRedis) -> None:
    """Out of memory under noeviction: nothing half-done, releasing still works, and all is well when there is room."""
    tracker.hold([Lease("a", 1), Lease("b", 1)], 0.001)
    tracker.schedule([Timer("wait", "w", NOW), Timer("wait", "hidden", NOW - timedelta(1))])
    tracker.take(NOW - timedelta(1), 0.001, 10)
    private_redis.admin.config_set("maxmemory", 1)

    for call in ("hold", "seed", "schedule", "take", "put_progress", "tick", "lock", "tell"):
        with pytest.raises(TrackerUnavailable, match="maxmemory"):
            CALLS[call](tracker)
    with pytest.raises(TrackerUnavailable):
        tracker.tell({"intent": 1}, [Lease("b", 1)])
    assert tracker.lapsed(10) == [Lease("a", 1)]
    tracker.release([Lease("a", 1)])
    assert tracker.lapsed(10) == []

    private_redis.admin.config_set("maxmemory", 0)
    assert [timer.id for timer in tracker.take(NOW, 30, 10)] == ["hidden", "w"]


def test_a_replica_refuses_writes(tracker: RedisTracker, private_redis: PrivateRedis) -> None:
    """After a failover, until the client is sent to the new master."""
    private_redis.admin.replicaof("127.0.0.1", 1)

    with pytest.raises(TrackerUnavailable, match=r"(?i)read.?only"):
        tracker.hold([Lease("a", 1)], 5)
    private_redis.admin.replicaof("NO", "ONE")
    tracker.hold([Lease("a", 1)], 5)


@pytest.mark.parametrize(
    "answer", [b"-LOADING Redis is loading the dataset in memory\r\n", b"-MOVED 1 x:1\r\n", b"?", b""]
)
def test_what_is_no_answer_is_tracker_unavailable(answer: bytes) -> None:
    """Loading, not a plain Redis, not Redis at all, or cut in the middle of a word."""
    connections = 0

    class Answer(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            nonlocal connections
            connections += 1
            while answer and self.request.recv(65536):
                self.request.sendall(answer * 3)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answer) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"redis://127.0.0.1:{server.server_address[1]}/0"
        tracker = RedisTracker(url, "test", client_options={"socket_timeout": 0.2})
        for call in ("hold", "take", "tell", "progress", "listen"):
            with pytest.raises(TrackerUnavailable):
                CALLS[call](tracker)
        tracker.close()
        server.shutdown()
    assert connections <= 5 * 6, "tries again and again"


def test_an_evicting_redis_is_told(tracker: RedisTracker, private_redis: PrivateRedis) -> None:
    """So that doctor can refuse it."""
    private_redis.admin.config_set("maxmemory-policy", "allkeys-lru")
    assert tracker.eviction_policy() == "allkeys-lru"


def test_nothing_is_left_of_what_is_over(tracker: RedisTracker, private_redis: PrivateRedis) -> None:
    """Taken, come back, moved while hidden, released: when all is done, Redis is empty."""
    timers = [Timer("wait", str(n), NOW) for n in range(3)]
    for _ in range(2):
        tracker.schedule(timers)
        tracker.take(NOW, 0.001, 10)
        time.sleep(0.01)
        assert len(tracker.take(NOW, 30, 10)) == 3
        tracker.schedule(timers[:1])
    assert private_redis.admin.zrange("axme:{test}:hidden", 0, -1) == [b"wait|1", b"wait|2"]
    assert sorted(private_redis.admin.hkeys("axme:{test}:hidden_due")) == [b"wait|1", b"wait|2"]
    tracker.unschedule([("wait", timer.id) for timer in timers])
    tracker.hold([Lease("a", 1)], 5)
    tracker.release([Lease("a", 1)])

    assert private_redis.admin.keys() == []


# -- its name and its namespace --


def test_two_namespaces_on_one_redis_do_not_meet(private_redis: PrivateRedis) -> None:
    """Nor does clearing one touch the other, or a stranger's keys."""
    one, other = (RedisTracker(private_redis.url, namespace) for namespace in ("shop[1]*", "shop[1]**"))
    private_redis.admin.set("axme:stranger", 1)
    for tracker, leg_id in ((one, "one"), (other, "other")):
        tracker.hold([Lease(leg_id, 1)], 0.001)
        tracker.schedule([Timer("wait", leg_id, NOW)])
    time.sleep(0.01)

    assert one.lapsed(10) == [Lease("one", 1)]
    one.clear()
    assert [timer.id for timer in other.take(NOW, 30, 10)] == ["other"]
    assert other.lapsed(10) == [Lease("other", 1)]
    other.clear()

    assert not list(private_redis.admin.scan_iter(match="axme:{shop*"))
    assert private_redis.admin.getdel("axme:stranger")
    one.close()
    other.close()


def test_a_url_as_celery_writes_it_is_understood(private_redis: PrivateRedis) -> None:
    """A socket with a virtual host, which redis-py writes otherwise."""
    tracker = RedisTracker(f"redis+socket://{private_redis.socket_path}?virtual_host=3", "test")
    tracker.tick("beat")

    with redis.Redis(port=private_redis.port, db=3, decode_responses=True) as admin:
        assert admin.keys() == ["axme:{test}:ticks"]
        admin.flushdb()
    tracker.close()
    RedisTracker("rediss://host/0?ssl_cert_reqs=CERT_REQUIRED", "test")


@pytest.mark.parametrize(
    "url",
    [
        "amqp://guest:secret@host//",
        "redis://:secret@host/0?visibility=3",
        "host:6379",
        "redis://:secret@host:port/0",
        "redis://:secret@[host",
    ],
)
def test_a_url_that_is_no_redis_is_refused_at_once(url: str) -> None:
    """When the setting is read, not at the first crash; and the password stays out of the log."""
    with pytest.raises(BadSetting, match="axme_redis_url") as refused:
        RedisTracker(url, "test")
    assert "secret" not in str(refused.value)


def test_errors_do_not_show_the_password() -> None:
    """They name host, port and database."""
    tracker = RedisTracker("redis://user:secret@127.0.0.1:1/5", "test")
    with pytest.raises(TrackerUnavailable, match=r"Redis at 127\.0\.0\.1:1/5 did not") as failed:
        tracker.ping()
    assert "secret" not in str(failed.value)


# -- forks --


def test_parent_and_forked_children_never_read_each_other_s_answers(private_redis: PrivateRedis) -> None:
    """One object, opened before the fork and busy at its moment, used by all of them afterwards."""
    tracker = RedisTracker(private_redis.url, "fork")

    def all_well(me: str) -> list[str]:
        wrong = []
        for n in range(200):
            tracker.put_progress(me, n, None, me)
            said = tracker.progress([me]).get(me)
            if said is None or (said.done, said.note) != (n, me):
                wrong.append(f"{me} said {n}, read {said}")
        return wrong

    # Every connection of the pool is open, some are busy, and a thread listens, when the fork comes.
    with ThreadPoolExecutor(8) as pool:
        busy = [pool.submit(all_well, f"parent-{n}") for n in range(7)]
        listening = pool.submit(tracker.listen, "intent", 20, 0)
        time.sleep(0.1)
        children = []
        for n in range(4):
            reads, writes = os.pipe()
            pid = os.fork()
            if pid == 0:
                try:
                    wrong = all_well(f"child-{n}")
                    with ThreadPoolExecutor(1) as one:
                        heard = one.submit(tracker.listen, f"for-child-{n}", 10, 0)
                        tracker.tell({f"for-child-{n}": 1})
                        wrong += [] if heard.result() else [f"child-{n} heard nothing"]
                    os.write(writes, json.dumps(wrong).encode())
                finally:
                    os._exit(0)
            os.close(writes)
            children.append((pid, reads))

        wrong = [line for one in busy for line in one.result()]
        tracker.tell({"intent": 1})
        assert listening.result() is True
    for pid, reads in children:
        with os.fdopen(reads) as pipe:
            wrong += json.loads(pipe.read() or '["a child died"]')
        os.waitpid(pid, 0)

    assert wrong == []
    assert all_well("parent afterwards") == []
    tracker.clear()
    tracker.close()


# -- live notices --


@contextmanager
def listening(tracker: RedisTracker, intent_id: str) -> Iterator[Callable[[], bool]]:
    """Listens in a thread, already subscribed when the block begins; call what is yielded for its end."""
    with ThreadPoolExecutor(1) as pool:
        heard = pool.submit(tracker.listen, intent_id, 20, 0)
        channel = f"axme:{{test}}:intent:{intent_id}"
        with redis.Redis.from_url(tracker._url) as admin:
            until = time.monotonic() + 10
            while not dict(admin.pubsub_numsub(channel))[channel.encode()]:
                assert time.monotonic() < until, "did not subscribe"
                time.sleep(0.005)
        yield heard.result


def test_a_listener_is_woken_by_a_notice_about_its_intent_only(
    tracker: RedisTracker, private_redis: PrivateRedis
) -> None:
    """From another process, at once."""
    elsewhere = RedisTracker(private_redis.url, "test")
    with listening(tracker, "mine") as heard:
        elsewhere.tell({"other": 1})
        time.sleep(0.05)
        told_at = time.monotonic()
        elsewhere.tell({"mine": 7})
        assert heard() is True
        assert time.monotonic() - told_at < 0.5
    elsewhere.close()


def test_settling_a_leg_wakes_a_listener(tracker: RedisTracker) -> None:
    """Whoever waits for the result sees it without polling."""
    with listening(tracker, "mine") as heard:
        tracker.tell({"mine": 3}, [Lease("a", 1)])
        assert heard() is True


def test_a_notice_that_comes_as_a_listener_lies_down_wakes_it(
    tracker: RedisTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread may be held up between joining and waiting. Also where the seq is one it knew: the clock went back."""
    join = notices.Notices._join

    def held_up(hub: notices.Notices, intent_id: str) -> object:
        channel, seen = join(hub, intent_id)
        until = time.monotonic() + 10
        while channel.count == seen:
            tracker.tell({intent_id: 7})
            assert time.monotonic() < until
            time.sleep(0.01)
        return channel, seen

    monkeypatch.setattr(notices.Notices, "_join", held_up)
    assert tracker.listen("mine", 0.5, after=7) is True


def test_a_notice_between_reading_and_listening_is_not_missed(tracker: RedisTracker) -> None:
    """The ledger said 3; 4 was told before anybody subscribed; listening after 3 ends at once, after 4 it does not."""
    tracker.tell({"mine": 4})

    began = time.monotonic()
    assert tracker.listen("mine", 20, after=3) is True
    assert tracker.listen("mine", 20, after=3) is True
    assert time.monotonic() - began < 2
    assert tracker.listen("mine", 0.05, after=4) is False


def test_a_thousand_listeners_hold_one_connection(tracker: RedisTracker, private_redis: PrivateRedis) -> None:
    """Streams to browsers cost Redis one subscriber a process; all hear their own notice."""
    with ThreadPoolExecutor(1000) as pool:
        ears = [pool.submit(tracker.listen, f"intent-{n % 500}", 60, 0) for n in range(1000)]
        for n in range(500):
            tracker.tell({f"intent-{n}": 1})
        assert all(ear.result() for ear in ears)
        assert len(private_redis.admin.client_list(_type="pubsub")) == 1


def test_listeners_learn_that_redis_died_and_listen_again_when_it_is_back(
    tracker: RedisTracker, private_redis: PrivateRedis
) -> None:
    """They do not sit out their timeout in front of a dead line."""
    with listening(tracker, "mine") as heard:
        private_redis.kill()
        died_at = time.monotonic()
        with pytest.raises(TrackerUnavailable):
            heard()
        assert time.monotonic() - died_at < 5

    private_redis.start()
    with listening(tracker, "mine") as heard:
        tracker.tell({"mine": 1})
        assert heard() is True


def test_a_notice_in_the_moment_of_a_cut_connection_is_read_afterwards(
    tracker: RedisTracker, private_redis: PrivateRedis
) -> None:
    """The subscription's connection is killed, and told while it is gone; who knows the seq hears of it."""
    tracker.listen("mine", 0.01, after=0)
    with ThreadPoolExecutor(1) as pool:
        heard = pool.submit(tracker.listen, "mine", 20, 1)
        time.sleep(0.1)
        with private_redis.admin.pipeline(transaction=True) as at_once:
            at_once.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            at_once.set("axme:{test}:seq:mine", 2)
            at_once.execute()
        try:
            assert heard.result() is True
        except TrackerUnavailable:
            # The line was given up instead of mended: the listener reads the ledger and listens anew.
            assert tracker.listen("mine", 20, after=1) is True


def test_subscriptions_nobody_listens_on_are_dropped_and_the_thread_ends(
    tracker: RedisTracker, private_redis: PrivateRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A web process that showed a million intents does not hold a million channels."""
    monkeypatch.setattr(notices, "LINGER_SECONDS", 0.1)
    monkeypatch.setattr(notices, "IDLE_SECONDS", 0.3)
    monkeypatch.setattr(notices, "LOOK_SECONDS", 0.05)
    others = set(threading.enumerate())
    for n in range(20):
        tracker.listen(f"intent-{n}", 0.001, after=0)

    def listening_threads() -> list[threading.Thread]:
        return [t for t in threading.enumerate() if t.name == "axme-notices" and t not in others]

    until = time.monotonic() + 10
    while private_redis.admin.client_list(_type="pubsub") or listening_threads():
        assert time.monotonic() < until, "still subscribed, or its thread goes on"
        time.sleep(0.02)

    with listening(tracker, "intent-1") as heard:
        tracker.tell({"intent-1": 1})
        assert heard() is True


def test_a_silent_line_is_given_up(
    tracker: RedisTracker, private_redis: PrivateRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that a firewall forgot looks like a quiet one: what the thread tells itself does not come back."""
    monkeypatch.setattr(notices, "PULSE_SECONDS", 0.2)
    monkeypatch.setattr(notices, "LOOK_SECONDS", 0.05)
    with listening(tracker, "mine") as heard:
        time.sleep(0.6)  # Several pulses heard: a quiet line is kept.
        assert len(private_redis.admin.client_list(_type="pubsub")) == 1
        hub = tracker._connections.notices(tracker._prefix)
        monkeypatch.setattr(hub, "_wake_channel", "somewhere else")
        with pytest.raises(TrackerUnavailable, match="silent"):
            heard()
