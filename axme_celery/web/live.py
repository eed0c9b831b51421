"""Live streams: what happens, as it happens, to however many pages look on.

Each stream is written by its request's own thread, which reads the ledger from the last event it sent: so a client
gets every event once and in order, however often its line is cut, and a slow one piles up nothing here. What many
look at is read once: threads that are told of the same intent share a ``_Topic``.

Where the tracker pushes (Redis), threads sleep on the process's one subscription. Elsewhere one thread of the process
looks at the ledger for all of them.

A stream holds a thread of the web server for as long as its page is open. So there is a cap below their number
(``axme_live_clients``), beyond which a page is told to come back, and polls meanwhile.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import random
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, TypeVar

from ..beats import INBOXES
from ..errors import AxmeError, TrackerUnavailable
from ..model import Event

if TYPE_CHECKING:
    from ..ports import Runtime

log = logging.getLogger(__name__)

#: A silent stream says something this often; only then is a client that is gone noticed, and its thread free.
HEARTBEAT_SECONDS = 15.0
#: A stream ends after about this long, and its client comes back: a redeploy, a revoked key, a full server evens out.
LIFE_SECONDS = 600.0
#: One person's streams, all in all: one with many tabs leaves room for others.
MOST_OF_ONE = 20
#: Where nothing pushes, the ledger is looked at this often, for all streams of the process together.
LOOK_SECONDS = 0.5
#: What happens to inboxes within this time is looked at together.
GATHER_SECONDS = 0.1
#: A notice may be lost with its Redis: at a heartbeat the ledger is read unless it was within this time.
FRESH_SECONDS = 5.0
#: So many events of an intent are kept for streams that are a little behind.
KEPT_EVENTS = 256
#: Events read from the ledger at once.
PAGE = 500

T = TypeVar("T", bound="_Topic")

_hubs: weakref.WeakSet[Hub] = weakref.WeakSet()


class Full(AxmeError):
    """No more streams here now; come back after ``retry_seconds``, and poll meanwhile."""

    retry_seconds = 60


def close_all() -> None:
    """Have every stream of this process end soon: the server is asked to stop."""
    for hub in list(_hubs):
        hub.close()


class Hub:
    """The streams of one process.

    most:  how many at once.
    """

    def __init__(self, runtime: Callable[[], Runtime], most: int) -> None:
        self._runtime = runtime
        self._most = most
        self._lock = threading.RLock()
        self._seats: Counter[str] = Counter()
        self._topics: dict[str, _Topic] = {}
        self._looker: threading.Thread | None = None
        self._watcher: threading.Thread | None = None
        self._closing = False
        _hubs.add(self)

    @property
    def streams(self) -> int:
        """How many are open."""
        return self._seats.total()

    def take_seat(self, who: str) -> Seat:
        """Room for one stream. Raises Full."""
        with self._lock:
            if self._closing or self.streams >= self._most or self._seats[who] >= MOST_OF_ONE:
                raise Full(f"there are {self.streams} live streams here, which is as many as there is room for")
            self._seats[who] += 1
            return Seat(self, who)

    def close(self) -> None:
        """Have all streams end."""
        self._closing = True
        for topic in list(self._topics.values()):
            topic.wake()
        with contextlib.suppress(Exception):  # in a signal handler, where nothing may be raised
            self._runtime().tracker.wake()

    def events(self, intent_id: str, since: int = 0, *, seconds: float | None = None) -> Iterator[Event | None]:
        """An intent's events after ``since``, in order, live until it has ended; None now and then, for a heartbeat.

        seconds:  end after so long; None: after some minutes.
        """
        with self._joined(intent_id, _Events) as topic:
            until = time.monotonic() + (LIFE_SECONDS * random.uniform(0.8, 1.2) if seconds is None else seconds)
            told = True
            while not self._closing:
                page = topic.read(since, told)
                for event in page:
                    yield event
                    since = event.seq
                if topic.has_ended(since) or time.monotonic() > until:
                    return
                if len(page) < PAGE:
                    # Told of something after ``since`` while it was read, this returns at once.
                    told = self._wait(topic, since, min(HEARTBEAT_SECONDS, max(0.0, until - time.monotonic())))
                    if not told and not self._closing:
                        yield None

    def mailbox(self, agent: str, *, seconds: float, beat_seconds: Callable[[], float]) -> Iterator[bool]:
        """True at first, and each time something may have come into the agent's mailbox; False for a heartbeat."""
        with self._joined(agent, _Mailbox) as topic:
            until = time.monotonic() + seconds
            looked_at, told = float("-inf"), True
            while not self._closing and time.monotonic() < until:
                heard = topic.now_heard()
                # A notice may be lost with its Redis; and a lease that ends brings things back.
                due = told or time.monotonic() - looked_at >= FRESH_SECONDS
                looked_at = time.monotonic() if due else looked_at
                yield due
                told = self._wait(topic, heard, min(beat_seconds(), max(0.0, until - time.monotonic())))

    def inbox(self, names: Collection[str], last: str = "") -> Iterator[str | None]:
        """The version of an inbox, each time it has become another one than ``last``; None for a heartbeat.

        names: whose it is, a person and their groups.
        """
        with self._joined(json.dumps(sorted(names)), _Inbox) as topic:
            until = time.monotonic() + LIFE_SECONDS * random.uniform(0.8, 1.2)
            while not self._closing and time.monotonic() < until:
                heard, version = topic.heard, topic.read()
                if version != last:
                    yield version
                    last = version
                elif not topic.wait(HEARTBEAT_SECONDS, heard) and not self._closing:
                    yield None

    # -- inside --

    @contextlib.contextmanager
    def _joined(self, name: str, kind: type[T]) -> Iterator[T]:
        key = f"{kind.__name__}:{name}"
        with self._lock:
            topic = self._topics.get(key)
            if topic is None:
                topic = self._topics[key] = kind(self._runtime(), name)
            topic.listeners += 1
            if kind is _Inbox and self._watcher is None:
                self._watcher = threading.Thread(target=self._watch, name="axme-inboxes", daemon=True)
                self._watcher.start()
            if not topic.rt.tracker.pushes and self._looker is None:
                self._looker = threading.Thread(target=self._look, name="axme-live", daemon=True)
                self._looker.start()
        try:
            assert isinstance(topic, kind)
            yield topic
        finally:
            with self._lock:
                topic.listeners -= 1
                if not topic.listeners:
                    del self._topics[key]

    def _wait(self, topic: _Topic, after: int, seconds: float | None = None) -> bool:
        """Sleep until something may have happened; False when it was only time for a heartbeat."""
        seconds = HEARTBEAT_SECONDS if seconds is None else seconds
        if topic.rt.tracker.pushes:
            try:
                return topic.rt.tracker.listen(topic.channel, seconds, after)
            except TrackerUnavailable:
                # The ledger is the truth: look there, a little later.
                time.sleep(LOOK_SECONDS * random.uniform(1, 2))
                return True
        return topic.wait(seconds, after)

    def _look(self) -> None:
        """Where nothing pushes: see for all topics at once whether they moved. Ends when there are none."""
        while True:
            time.sleep(LOOK_SECONDS)
            with self._lock:
                topics = list(self._topics.values())
                if not topics or self._closing:
                    self._looker = None
                    return
            try:
                moved = self._runtime().ledger.views.seqs([t.name for t in topics if isinstance(t, _Events)])
                for topic in topics:
                    topic.look(moved)
            except AxmeError as error:
                log.warning("live pages cannot be told of anything now: %s", error)

    def _watch(self) -> None:
        """See for all inboxes at once whether they are others: one question, however many look at however many."""
        rt = self._runtime()
        while True:
            heard = rt.tracker.told(INBOXES)
            with self._lock:
                topics = [topic for topic in self._topics.values() if isinstance(topic, _Inbox)]
                if not topics or self._closing:
                    self._watcher = None
                    return
            try:
                marks = rt.ledger.views.inbox_marks({name for topic in topics for name in topic.names})
                for topic in topics:
                    topic.put(marks)
                if rt.tracker.pushes:
                    # Told of something while that was asked, this returns at once.
                    rt.tracker.listen(INBOXES, HEARTBEAT_SECONDS, heard)
                    time.sleep(GATHER_SECONDS)
                    continue
            except AxmeError as error:
                log.warning("live inboxes cannot be told of anything now: %s", error)
            time.sleep(LOOK_SECONDS)

    def _give_back(self, who: str) -> None:
        with self._lock:
            self._seats[who] -= 1
            if not self._seats[who]:
                del self._seats[who]


class Seat:
    """Room for one stream, until it is given back."""

    def __init__(self, hub: Hub, who: str) -> None:
        self._hub = hub
        self._who = who
        self._given_back = False

    def give_back(self) -> None:
        """Again is fine."""
        if not self._given_back:
            self._given_back = True
            self._hub._give_back(self._who)


class _Topic:
    """What several streams look at."""

    def __init__(self, rt: Runtime, name: str) -> None:
        self.rt = rt
        self.name = name
        self.listeners = 0
        #: Higher whenever there may be something new.
        self.heard = 0
        self._changed = threading.Condition()
        self._reading = threading.Lock()
        self._read_at = float("-inf")

    @property
    def channel(self) -> str:
        """What the tracker tells of it under."""
        return self.name

    def look(self, moved: dict[str, int]) -> None:
        """See whether there is something new; only where the tracker does not push."""

    def wait(self, seconds: float, after: int) -> bool:
        """Sleep until ``heard`` is higher than this."""
        with self._changed:
            woken = self.heard > after or self._changed.wait_for(lambda: self.heard > after or self._woken, seconds)
            return bool(woken)

    _woken = False

    def wake(self) -> None:
        """Have everybody return from ``wait``, for good."""
        self._woken = True
        # In a signal handler the lock may be held by the very thread that was interrupted: then do without.
        if self._changed.acquire(timeout=0.1):
            try:
                self._changed.notify_all()
            finally:
                self._changed.release()

    def _hear(self, heard: int) -> None:
        with self._changed:
            if heard > self.heard:
                self.heard = heard
                self._changed.notify_all()


class _Events(_Topic):
    """One intent's history. ``heard`` is the highest seq known of."""

    def __init__(self, rt: Runtime, name: str) -> None:
        super().__init__(rt, name)
        #: The newest events, without a gap.
        self._kept: deque[Event] = deque(maxlen=KEPT_EVENTS)
        self._final_seq: int | None = None
        self._looked = False

    def read(self, since: int, told: bool) -> list[Event]:
        """Events after ``since``, a page of them. What one stream read of the ledger is there for all.

        told:  there is something new, for all this stream knows; else it only makes sure.
        """
        with self._reading:
            if self._covers(since):
                later = [event for event in self._kept if event.seq > since]
                if later or (not told and time.monotonic() - self._read_at < FRESH_SECONDS):
                    return later
            started_at = time.monotonic()
            page = self.rt.ledger.events(self.name, since, PAGE)
            if len(page) < PAGE:
                self._keep(page)
                self._read_at = started_at
            return page

    def has_ended(self, since: int) -> bool:
        """Whether nothing can come after that any more."""
        if not self._looked and not self._kept:
            self._looked = True
            intent = self.rt.ledger.intent(self.name)
            self._final_seq = 0 if intent is None else intent.seq if intent.status.is_final else None
        return self._final_seq is not None and since >= self._final_seq

    def look(self, moved: dict[str, int]) -> None:
        self._hear(moved.get(self.name, 0))

    def _keep(self, page: list[Event]) -> None:
        if not page:
            return
        if self._kept and page[0].seq > self._kept[-1].seq + 1:
            self._kept.clear()
        newest = self._kept[-1].seq if self._kept else 0
        self._kept.extend(event for event in page if event.seq > newest)
        if page[-1].status.is_final:
            self._final_seq = page[-1].seq

    def _covers(self, since: int) -> bool:
        return bool(self._kept) and self._kept[0].seq <= since + 1


class _Inbox(_Topic):
    """One inbox. ``heard`` counts how often it has become another."""

    def __init__(self, rt: Runtime, name: str) -> None:
        super().__init__(rt, name)
        self.names: list[str] = json.loads(name)
        self._version = ""

    def read(self) -> str:
        """Its version."""
        with self._reading:
            self._version = self._version or inbox_version(self.rt, self.names)
            return self._version

    def put(self, marks: dict[str, list[str]]) -> None:
        """What it is now, as one stream found it for all."""
        version = _version_of(marks, self.names)
        with self._reading:
            is_another = bool(self._version) and version != self._version
            self._version = version
        if is_another:
            self._hear(self.heard + 1)


class _Mailbox(_Topic):
    """What lies there for one agent. ``heard`` is the highest number known of."""

    def now_heard(self) -> int:
        """What was told until now."""
        return self.rt.tracker.told(self.name) if self.rt.tracker.pushes else self.heard

    def look(self, moved: dict[str, int]) -> None:
        self._hear(self.rt.ledger.mailboxes.cursor(self.name))


def inbox_version(rt: Runtime, names: Collection[str]) -> str:
    """A short text that is another one whenever something in the inbox of these names is."""
    return _version_of(rt.ledger.views.inbox_marks(names), names)


def _version_of(marks: dict[str, list[str]], names: Collection[str]) -> str:
    own = sorted({mark for name in names for mark in marks.get(name, ())})
    return hashlib.sha256("\n".join(own).encode()).hexdigest()[:16]


__all__ = ["Full", "Hub", "Seat", "close_all", "inbox_version"]
