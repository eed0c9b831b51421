"""Live notices for this process: one Redis subscription, however many listen.

A thread of its own reads the subscription, and only it touches it. A listener
says which intent it wants and wakes the thread by a notice on a private channel.
No notice falls between reading the ledger and listening: once subscribed, the
thread reads the last seq told, and each listener compares it with what it knows.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from typing import TYPE_CHECKING

from redis.client import PubSub
from redis.exceptions import RedisError

if TYPE_CHECKING:
    from redis import Redis

#: A subscription nobody listens on is kept this long: its listener is mostly just reading the ledger.
LINGER_SECONDS = 10.0
#: The thread ends when nothing was listened to for this long.
IDLE_SECONDS = 60.0
#: The thread tells itself something this often, and gives the connection up when it does not hear it by the next time.
PULSE_SECONDS = 15.0
#: It looks after all this so often.
LOOK_SECONDS = 1.0


class _Channel:
    """What is heard about one intent."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        #: Subscribed, and what was told before is read.
        self.live = False
        #: The highest seq told, 0 before any.
        self.seq = 0
        #: How many notices came.
        self.count = 0
        self.listeners = 0
        self.left_at = 0.0

    def hear(self, seq: int, *, notice: bool) -> None:
        with self.changed:
            self.live = True
            self.seq = max(self.seq, seq)
            self.count += notice
            self.changed.notify_all()


class NoticesLost(RedisError):
    """The subscription is gone; listeners read the ledger and listen anew."""


class Notices:
    """The subscription of one process. It ends at its first trouble and is then replaced, never mended."""

    def __init__(self, client: Redis, prefix: str) -> None:
        self._client = client
        self._prefix = prefix
        self._wake_channel = f"{prefix}wake:{os.getpid()}:{uuid.uuid4().hex}"
        self._lock = threading.Lock()
        self._channels: dict[str, _Channel] = {}
        self._wanted: list[str] = []
        self._ended: RedisError | None = None
        #: How often everybody was asked to look again.
        self._woken = 0
        self._used_at = time.monotonic()
        #: When the thread last spoke to itself and has not heard it yet.
        self._pulse_at: float | None = None
        self._thread = threading.Thread(target=self._run, name="axme-notices", daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        """No use any more: make another."""
        return self._ended is not None

    def listen(self, intent_id: str, timeout_seconds: float, after: int) -> bool:
        """As ``RedisTracker.listen``. Raises RedisError when the subscription is lost."""
        until = time.monotonic() + timeout_seconds
        woken = self._woken
        channel, seen = self._join(intent_id)
        try:
            with channel.changed:

                def told() -> bool:
                    return channel.count > seen or channel.seq > after

                channel.changed.wait_for(
                    lambda: told() or self.ended or self._woken != woken, max(0.0, until - time.monotonic())
                )
                if told():
                    return True
        finally:
            self._leave(channel)
        if self._ended:
            raise NoticesLost(f"live notices stopped: {self._ended}") from self._ended
        return False

    def told(self, intent_id: str) -> int:
        """The highest seq told of an intent that is listened to, or was a moment ago."""
        channel = self._channels.get(intent_id)
        return 0 if channel is None else channel.seq

    def wake(self) -> None:
        """Have everybody who listens return at once, told or not."""
        with self._lock:
            self._woken += 1
            channels = list(self._channels.values())
        for channel in channels:
            with channel.changed:
                channel.changed.notify_all()

    def stop(self) -> None:
        """End the thread and its connection."""
        self._end(NoticesLost("closed"))
        try:
            self._client.publish(self._wake_channel, "")
        except RedisError:
            pass  # It notices by itself, a moment later.
        self._thread.join(LOOK_SECONDS)

    def _join(self, intent_id: str) -> tuple[_Channel, int]:
        """The intent's channel, and how many notices came before: whatever comes from here on was listened to."""
        with self._lock:
            if self._ended:
                raise NoticesLost(f"live notices stopped: {self._ended}")
            channel = self._channels.get(intent_id)
            new = channel is None
            if channel is None:
                channel = self._channels[intent_id] = _Channel()
                self._wanted.append(intent_id)
            channel.listeners += 1
            seen = channel.count
        if new:
            try:
                self._client.publish(self._wake_channel, "")
            except BaseException:
                self._leave(channel)
                raise
        return channel, seen

    def _leave(self, channel: _Channel) -> None:
        with self._lock:
            channel.listeners -= 1
            channel.left_at = time.monotonic()

    # -- the thread --

    def _run(self) -> None:
        try:
            with PubSub(self._client.connection_pool) as subscription:
                subscription.subscribe(self._wake_channel)
                looked_at = heard_at = time.monotonic()
                while not self.ended:
                    message = subscription.get_message(timeout=LOOK_SECONDS)
                    now = time.monotonic()
                    if message:
                        heard_at, self._pulse_at = now, None
                        self._hear(message)
                    self._subscribe(subscription)
                    if now - looked_at >= LOOK_SECONDS:
                        looked_at = now
                        self._unsubscribe(subscription, now)
                        self._feel_pulse(now, heard_at)
        except Exception as error:
            # Whatever it was: a thread that died silently would leave its listeners waiting.
            self._end(NoticesLost(str(error)))

    def _subscribe(self, subscription: PubSub) -> None:
        """To what listeners asked for meanwhile."""
        with self._lock:
            wanted, self._wanted = self._wanted, []
        if wanted:
            subscription.subscribe(*map(self._channel_of, wanted))

    def _unsubscribe(self, subscription: PubSub, now: float) -> None:
        """From what nobody listens to any more; from everything, when that was all for long."""
        with self._lock:
            left = [
                intent_id
                for intent_id, channel in self._channels.items()
                if not channel.listeners and now - channel.left_at > LINGER_SECONDS
            ]
            for intent_id in left:
                del self._channels[intent_id]
            if self._channels:
                self._used_at = now
            elif now - self._used_at > IDLE_SECONDS:
                self._ended = NoticesLost("nobody listened")
        if left:
            subscription.unsubscribe(*map(self._channel_of, left))  # type: ignore[no-untyped-call]

    def _feel_pulse(self, now: float, heard_at: float) -> None:
        """A connection cut without a word is silent like a quiet one: say something, and see whether it is heard."""
        if self._pulse_at is None:
            if now - heard_at > PULSE_SECONDS:
                self._pulse_at = now
                self._client.publish(self._wake_channel, "")
        elif now - self._pulse_at > PULSE_SECONDS:
            raise NoticesLost("the connection went silent")

    def _hear(self, message: dict[str, object]) -> None:
        intent_id = str(message["channel"]).removeprefix(f"{self._prefix}intent:")
        channel = self._channels.get(intent_id)
        if channel is None:
            return  # The wake channel, or one just left.
        if message["type"] == "message":
            channel.hear(int(str(message["data"])), notice=True)
        elif message["type"] == "subscribe":
            # Also after the client library has reconnected: what was told in the gap is read here.
            last = self._client.get(f"{self._prefix}seq:{intent_id}")
            channel.hear(int(str(last or 0)), notice=False)

    def _end(self, error: RedisError) -> None:
        with self._lock:
            self._ended = self._ended or error
            channels = list(self._channels.values())
        for channel in channels:
            with channel.changed:
                channel.changed.notify_all()

    def _channel_of(self, intent_id: str) -> str:
        return f"{self._prefix}intent:{intent_id}"
