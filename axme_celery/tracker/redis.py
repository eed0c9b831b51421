"""The tracker in Redis.

Keys, all under one hash tag, ``axme:{<namespace>}:`` (moments are microseconds since 1970):

    leases           zset    "<leg id>|<run>" -> its end
    timers           zset    "<kind>|<id>" -> its due moment, by the ledger's clock
    hidden           zset    a taken timer -> the moment it comes back
    hidden_due       hash    a taken timer -> its due moment
    progress:<leg>   string  "<moment> <JSON>", kept a day
    ticks            zset    sweeper -> its last sweep
    lock:<name>      string  "<end> <owner>"
    seq:<intent>     string  the last seq told, kept a minute
    intent:<intent>  channel the seq told

What depends on the time runs as Lua on Redis' own clock, so that no two workers' clocks are compared.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any, TypeVar, cast
from urllib.parse import parse_qsl, urlencode, urlsplit

from redis import BlockingConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, RedisError
from redis.retry import Retry

from axme_celery.errors import BadSetting, TrackerUnavailable
from axme_celery.model import Lease, Progress, Timer
from axme_celery.tracker.clock import DAY, HOUR, Clock, length, to_microseconds, to_moment
from axme_celery.tracker.notices import Notices

_SCRIPTS = ("hold", "lapsed", "refill", "take", "progress", "tick", "lock")

#: Members sent in one command. More go in several, so that one command never holds Redis up for long.
_BATCH = 1000
#: The last seq of an intent is kept this long: far longer than anybody takes from reading the ledger to listening.
_SEQ_SECONDS = 60

_CLIENT_OPTIONS: dict[str, Any] = {
    "socket_connect_timeout": 2.0,
    "socket_timeout": 2.0,
    "health_check_interval": 15,
    # A process waits for a free connection rather than open ever more of them to a Redis that is slow.
    "max_connections": 50,
    "timeout": 2.0,
}

_T = TypeVar("_T")


class RedisTracker:
    """Leases, timers and live notices in Redis. Promises are those of the ``Tracker`` port.

    url:             redis://, rediss:// or unix://, or redis+socket:// as Celery writes it.
    namespace:       names this ledger's keys on that Redis.
    client_options:  over redis-py's own connection options, such as ``ssl_ca_certs``.
    clock:           replaces Redis' clock; tests move it.

    One object may be used by any number of threads and by children forked at any time: a process
    opens connections of its own at its first call.

    Every method raises TrackerUnavailable, and nothing else, when Redis cannot be reached, does
    not answer within two seconds, or refuses (out of memory, read-only, loading).
    """

    #: ``listen`` blocks until something is told; nobody need poll.
    pushes = True

    def __init__(
        self,
        url: str,
        namespace: str,
        client_options: Mapping[str, Any] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._prefix = f"axme:{{{namespace}}}:"
        self._clock = clock
        try:
            self._url = _client_url(url)
            self._options = {
                **_CLIENT_OPTIONS,
                **({} if self._url.startswith("unix:") else {"socket_keepalive": True}),
                # One more try where a connection was cut, at once; none where Redis is silent.
                "retry": Retry(NoBackoff(), 1, supported_errors=(ConnectionError,)),
                **(client_options or {}),
                "decode_responses": True,
                "protocol": 2,
            }
            self._own = _Connections(self._url, self._options)
            # Not connected: it only shows that these options are known.
            sample = self._own.pool.connection_class(**self._own.pool.connection_kwargs)
        except (TypeError, ValueError, RedisError) as error:
            raise BadSetting(
                f"axme_redis_url {_without_password(url)} cannot be used: {error}; "
                f"give redis://host:port/db, rediss:// for TLS, or unix:///path, "
                f"or None to keep the tracker in the ledger's database"
            ) from error
        pieces = dict(sample.repr_pieces())
        self._where = f"{pieces.get('path') or '{host}:{port}'.format(**pieces)}/{pieces['db']}"

    # -- leases --

    def hold(self, leases: Sequence[Lease], seconds: float) -> None:
        """Take or renew leases for so long from now, in one command. Whether they were there does not matter."""
        self._hold(leases, seconds, "all")

    def seed(self, leases: Sequence[Lease], seconds: float) -> int:
        """Give one term to those leases the tracker knows nothing of: their workers may live. Returns how many."""
        return self._hold(leases, seconds, "unknown")

    def _hold(self, leases: Sequence[Lease], seconds: float, which: str) -> int:
        with self._asked("hold leases"):
            return sum(
                int(self._script("hold", ["leases"], length(seconds), which, *map(_lease_member, batch)))
                for batch in _batches(leases)
            )

    def release(self, leases: Sequence[Lease]) -> None:
        """Drop leases, lapsed or not."""
        with self._asked("release leases"):
            for batch in _batches(leases):
                self._redis.zrem(self._key("leases"), *map(_lease_member, batch))

    def lapsed(self, limit: int) -> list[Lease]:
        """Leases past their end by Redis' clock, the longest past first. They stay until released."""
        with self._asked("list lapsed leases"):
            members: list[str] = self._script("lapsed", ["leases"], limit)
        return [_lease(member) for member in members]

    # -- timers --

    def schedule(self, timers: Sequence[Timer]) -> None:
        """Set timers, or move them, also those just taken."""
        with self._asked("schedule timers"):
            for batch in _batches(timers):
                moments: dict[str, float] = {
                    f"{timer.kind}|{timer.id}": to_microseconds(timer.due_at) for timer in batch
                }
                with self._redis.pipeline(transaction=True) as pipeline:
                    pipeline.zadd(self._key("timers"), moments)
                    pipeline.zrem(self._key("hidden"), *moments)
                    pipeline.hdel(self._key("hidden_due"), *moments)
                    pipeline.execute()

    def refill(self, timers: Sequence[Timer]) -> None:
        """Set those timers the tracker knows nothing of; one that was taken stays hidden."""
        with self._asked("refill timers"):
            for batch in _batches(timers):
                flat = [x for t in batch for x in (f"{t.kind}|{t.id}", to_microseconds(t.due_at))]
                self._script("refill", ["timers", "hidden"], *flat)

    def unschedule(self, timers: Sequence[tuple[str, str]]) -> None:
        """Drop timers by (kind, id), also those just taken."""
        with self._asked("unschedule timers"):
            for batch in _batches(timers):
                members = [f"{kind}|{id}" for kind, id in batch]
                with self._redis.pipeline(transaction=True) as pipeline:
                    pipeline.zrem(self._key("timers"), *members)
                    pipeline.zrem(self._key("hidden"), *members)
                    pipeline.hdel(self._key("hidden_due"), *members)
                    pipeline.execute()

    def take(self, until: datetime, hold_seconds: float, limit: int) -> list[Timer]:
        """Take timers due at or before ``until``, the earliest first, each by one taker.

        until:         by the ledger's clock.
        hold_seconds:  a taken timer is hidden so long, by Redis' clock, and then comes back
                       unless it was unscheduled or scheduled again.
        """
        with self._asked("take timers"):
            keys = ["timers", "hidden", "hidden_due"]
            flat: list[str] = self._script("take", keys, to_microseconds(until), length(hold_seconds), limit)
        return [_timer(member, due) for member, due in zip(flat[::2], flat[1::2], strict=True)]

    # -- live notices --

    def tell(self, seqs: Mapping[str, int], ended: Sequence[Lease] = ()) -> None:
        """Say where intents are (id -> seq), to whoever listens now or read the ledger within the last minute.

        ended:  drop these leases as well; all in one round trip.
        """
        with self._asked("tell a notice"), self._redis.pipeline(transaction=False) as pipeline:
            for batch in _batches(ended):
                pipeline.zrem(self._key("leases"), *map(_lease_member, batch))
            for intent_id, seq in seqs.items():
                pipeline.set(self._key(f"seq:{intent_id}"), seq, ex=_SEQ_SECONDS)
                pipeline.publish(self._key(f"intent:{intent_id}"), seq)
            pipeline.execute()

    def listen(self, intent_id: str, timeout_seconds: float, after: int) -> bool:
        """Block until something is told about the intent, or the timeout; True when told.

        after:  the seq just read from the ledger: a notice of a later one, told since that
                read, is not missed.
        """
        with self._asked("listen"):
            return self._connections.notices(self._prefix).listen(intent_id, timeout_seconds, after)

    def told(self, intent_id: str) -> int:
        """The highest seq that somebody in this process who listens to the intent was told; 0 for none."""
        return self._connections.told(intent_id)

    def wake(self) -> None:
        """Have everybody who listens in this process return at once."""
        self._connections.wake()

    # -- progress --

    def put_progress(self, leg_id: str, done: float, total: float | None, note: str | None) -> None:
        """Keep how far a leg says it is, for a day."""
        with self._asked("keep progress"):
            self._script("progress", [f"progress:{leg_id}"], json.dumps([done, total, note]), DAY // 1_000_000)

    def progress(self, leg_ids: Sequence[str]) -> dict[str, Progress]:
        """What these legs last said within a day, by leg id; silent ones are left out."""
        found: dict[str, Progress] = {}
        with self._asked("read progress"):
            for batch in _batches(leg_ids):
                keys = [self._key(f"progress:{leg_id}") for leg_id in batch]
                values = cast("list[str | None]", self._redis.mget(keys))
                for leg_id, value in zip(batch, values, strict=True):
                    if value:
                        moment, said = value.split(" ", 1)
                        done, total, note = json.loads(said)
                        found[leg_id] = Progress(done, total, note, to_moment(moment))
        if self._clock:
            oldest = to_microseconds(self._clock()) - DAY
            found = {leg_id: one for leg_id, one in found.items() if to_microseconds(one.at) > oldest}
        return found

    # -- sweepers --

    def tick(self, sweeper: str) -> None:
        """Note that this sweeper swept just now."""
        with self._asked("note a tick"):
            self._script("tick", ["ticks"], sweeper, HOUR)

    def ticks(self) -> dict[str, datetime]:
        """Who swept within the last hour, and when last."""
        with self._asked("read the ticks"):
            flat: list[str] = self._script("tick", ["ticks"], "", HOUR)
        return {sweeper: to_moment(moment) for sweeper, moment in zip(flat[::2], flat[1::2], strict=True)}

    def lock(self, name: str, owner: str, seconds: float) -> bool:
        """Take a lock for so long, or renew one's own; False when another has it."""
        with self._asked("take a lock"):
            return bool(self._script("lock", [f"lock:{name}"], owner, length(seconds)))

    # -- the store --

    def ping(self) -> None:
        """Return when Redis answers."""
        with self._asked("answer a ping"):
            self._redis.ping()

    def clear(self) -> None:
        """Forget everything of this namespace. For tests and ``reindex``: it walks all keys of that Redis."""
        pattern = "".join(f"[{char}]" if char in "*?[\\" else char for char in self._prefix) + "*"
        with self._asked("clear"):
            batch: list[str] = []
            for key in self._redis.scan_iter(match=pattern, count=_BATCH):
                batch.append(key)
                if len(batch) == _BATCH:
                    self._redis.unlink(*batch)
                    batch = []
            if batch:
                self._redis.unlink(*batch)

    def eviction_policy(self) -> str | None:
        """What Redis does when its memory is full, None if it does not say. All but "noeviction" throw timers away."""
        with self._asked("read its policy"):
            policy = self._redis.info("memory").get("maxmemory_policy")
        return str(policy) if policy else None

    def close(self) -> None:
        """Close this process's connections. A later call opens new ones."""
        own = self._own
        if own.pid == os.getpid():
            own.close()

    # -- inside --

    @property
    def _connections(self) -> _Connections:
        """This process's own: a child that used its parent's sockets would read its parent's answers."""
        own = self._own
        if own.pid != os.getpid():
            own = self._own = _Connections(self._url, self._options)
        return own

    @property
    def _redis(self) -> Redis:
        return self._connections.client

    def _key(self, name: str) -> str:
        return self._prefix + name

    def _script(self, name: str, keys: Sequence[str], *args: Any) -> Any:
        """Run a script: the clock's moment, or "" for Redis' own, is the first argument of each."""
        now = to_microseconds(self._clock()) if self._clock else ""
        return self._connections.scripts[name](keys=[self._key(key) for key in keys], args=[now, *args])

    @contextmanager
    def _asked(self, verb: str) -> Iterator[None]:
        try:
            yield
        except (RedisError, OSError, RecursionError) as error:
            # RecursionError: redis-py before 6.4 on a server that closes while it is being connected to.
            raise TrackerUnavailable(
                f"Redis at {self._where} did not {verb}: {error}; nothing is lost, the ledger is the truth: "
                f"check that it runs, is reachable, writable and not out of memory"
            ) from error


class _Connections:
    """What one process has open. Opens nothing by itself."""

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self.pid = os.getpid()
        self.pool = BlockingConnectionPool.from_url(url, **options)
        self.client = Redis(connection_pool=self.pool)
        self.scripts = {name: self.client.register_script(_lua(name)) for name in _SCRIPTS}
        self._notices: Notices | None = None
        self._lock = threading.Lock()

    def notices(self, prefix: str) -> Notices:
        with self._lock:
            if self._notices is None or self._notices.ended:
                self._notices = Notices(self.client, prefix)
            return self._notices

    def told(self, intent_id: str) -> int:
        notices = self._notices
        return 0 if notices is None else notices.told(intent_id)

    def wake(self) -> None:
        # No lock: this may be called in a signal handler, of the thread that holds it.
        notices = self._notices
        if notices is not None:
            notices.wake()

    def close(self) -> None:
        with self._lock:
            notices, self._notices = self._notices, None
        if notices:
            notices.stop()
        self.pool.disconnect()


@cache
def _lua(name: str) -> str:
    return files("axme_celery.tracker").joinpath(f"{name}.lua").read_text("utf-8")


def _batches(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), _BATCH):
        yield items[start : start + _BATCH]


def _lease_member(lease: Lease) -> str:
    return f"{lease.leg_id}|{lease.run}"


def _lease(member: str) -> Lease:
    # From the right: a leg id is a Celery task id, which its caller may have chosen.
    leg_id, _, run = member.rpartition("|")
    return Lease(leg_id, int(run))


def _timer(member: str, due: str) -> Timer:
    kind, _, id = member.partition("|")
    return Timer(kind, id, to_moment(due))


def _client_url(url: str) -> str:
    """A Redis URL as Celery writes it, as redis-py reads it."""
    parts = urlsplit(url)
    scheme, query = parts.scheme, dict(parse_qsl(parts.query))
    if scheme == "redis+socket":
        scheme = "unix"
        if "virtual_host" in query:
            query["db"] = query.pop("virtual_host").strip("/") or "0"
    if "ssl_cert_reqs" in query:
        query["ssl_cert_reqs"] = query["ssl_cert_reqs"].removeprefix("CERT_").lower()
    return f"{scheme}://{parts.netloc}{parts.path}" + (f"?{urlencode(query)}" if query else "")


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("?")[0].rpartition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if scheme else rest.rpartition("@")[2]
