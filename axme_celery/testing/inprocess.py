"""Celery in this process: what an app publishes is kept in a list here, and run here by Celery's own tracer.

No broker, no worker, no result server. Everything between publishing and
running is Celery's own and ours, as in a worker: signals, routing,
serialization, retries, links and chains, and the wrapper that carries legs.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from celery import Celery
from celery.app.task import Task
from celery.app.trace import build_tracer
from celery.backends.cache import CacheBackend
from celery.result import denied_join_result
from kombu.serialization import dumps, loads, prepare_accept_content

from .. import signals, work
from ..extension import Axme

log = logging.getLogger(__name__)

_MISSING = object()


@dataclass(frozen=True)
class Message:
    """One published Celery message."""

    headers: dict[str, Any]
    properties: dict[str, Any]
    #: Serialized, with its content type and encoding.
    body: tuple[str, str, Any]


class InProcess:
    """An app's broker, worker and result backend. ``with`` it, the app publishes to it; afterwards as before.

    now: tells the time; a message with a countdown is run when that has passed.
    """

    def __init__(self, axme: Axme, now: Callable[[], datetime]) -> None:
        self._axme, self._app, self._now = axme, axme.app, now
        self._order = itertools.count()
        self._messages: list[tuple[datetime, int, Message]] = []
        self._undo = ExitStack()

    def __enter__(self) -> InProcess:
        app = self._app
        app.finalize()
        self._undo.enter_context(_set(app, "producer_or_acquire", lambda producer=None: nullcontext(_Producer(self))))
        # In memory, for every thread, whatever backend this thread already uses.
        self._undo.enter_context(_set(app, "_backend_cache", CacheBackend(app=app, url="memory://")))
        # Not Celery's eager mode: that runs a task where it is called, and what runs there cannot wait.
        was_eager = app.conf.task_always_eager
        app.conf.task_always_eager = False
        self._undo.callback(setattr, app.conf, "task_always_eager", was_eager)
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def next_moment(self) -> datetime | None:
        """When the next message is due; None when there is none."""
        return self._messages[0][0] if self._messages else None

    def lose_messages(self) -> int:
        """Forget all messages, as a broker does that is restarted empty. How many there were."""
        lost, self._messages = len(self._messages), []
        return lost

    def copy_messages(self) -> None:
        """Deliver every message once more, as a broker does that thinks its consumer died."""
        self._messages += [(at, next(self._order), message) for at, _, message in self._messages]
        heapq.heapify(self._messages)

    def run_next(self) -> bool:
        """Run the task of the next message that is due; False when there is none."""
        if not self._messages or self._messages[0][0] > self._now():
            return False
        message = heapq.heappop(self._messages)[2]
        name, task_id = message.headers["task"], message.headers["id"]
        task: Task | None = self._app.tasks.get(name)
        if task is None:
            self._unknown(message, name, task_id)
            return True
        if "__axme_wrapped__" not in vars(task):
            for attribute in ("run", "replace", "add_to_chord", "Request", "apply_async", "__axme_wrapped__"):
                self._undo.callback(_put_back, task, attribute, vars(task).get(attribute, _MISSING))
            signals.wrap(self._axme, task)
        content_type, encoding, data = message.body
        args, kwargs, embed = loads(
            data, content_type, encoding, accept=prepare_accept_content(self._app.conf.accept_content)
        )
        sent = message.properties
        request = {
            **message.headers, "properties": sent, "reply_to": sent.get("reply_to"),
            "correlation_id": sent.get("correlation_id"), "hostname": socket.gethostname(),
            "delivery_info": {"exchange": "", "routing_key": sent.get("routing_key"), "redelivered": False},
            "args": args, "kwargs": kwargs, "is_eager": False, **(embed or {}),
        }  # fmt: skip
        trace = build_tracer(name, task, self._app.loader, app=self._app)
        with denied_join_result():
            trace(task_id, args, kwargs, request)
        return True

    def publish(self, body: Any, headers: dict[str, Any], serializer: str | None, properties: dict[str, Any]) -> None:
        """Take one message."""
        if "task" not in headers:
            # One of Celery's events, which nobody listens to here.
            return
        content_type, encoding, data = dumps(body, serializer=serializer)
        due_at = self._now()
        if headers.get("eta"):
            # Celery reckons it by the host's clock, which may be far from the one that is moved here.
            due_at += max(datetime.fromisoformat(headers["eta"]) - datetime.now(UTC), due_at - due_at)
        message = Message(headers, properties, (content_type, encoding, data))
        heapq.heappush(self._messages, (due_at, next(self._order), message))

    def _unknown(self, message: Message, name: str, task_id: str) -> None:
        mark = work.own_header(message.headers)
        if mark is None:
            log.error("task %s is not registered in this app; its message is dropped", name)
            return
        self._axme.keeper.park(task_id, mark["run"], name)


class _Producer:
    """As much of kombu's Producer as publishing a task asks for."""

    def __init__(self, here: InProcess) -> None:
        self._here = here
        self.connection = _Connection()

    def publish(
        self, body: Any, *, headers: dict[str, Any] | None = None, serializer: str | None = None, **properties: Any
    ) -> None:
        self._here.publish(body, headers or {}, serializer, properties)

    def revive(self, connection: Any) -> None:
        """Nothing: it does not die."""


class _Connection:
    """It never fails."""

    connection_errors = channel_errors = recoverable_connection_errors = recoverable_channel_errors = ()

    @contextmanager
    def _reraise_as_library_errors(self) -> Iterator[None]:
        yield


@contextmanager
def _set(owner: Celery, name: str, value: Any) -> Iterator[None]:
    was = vars(owner).get(name, _MISSING)
    setattr(owner, name, value)
    try:
        yield
    finally:
        _put_back(owner, name, was)


def _put_back(owner: Any, name: str, was: Any) -> None:
    if was is _MISSING:
        vars(owner).pop(name, None)
    else:
        setattr(owner, name, was)
