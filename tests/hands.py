"""A worker's hands without its processes: Celery's own request, tracer and acknowledgement, in the caller's thread."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from celery import Celery
from celery.worker.request import Request


class _OwnThread:
    """A pool that runs what it is handed at once."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def apply_async(
        self, target: Callable[..., Any], args: Any, accept_callback: Any, callback: Any, **_: Any
    ) -> None:
        accept_callback(os.getpid(), time.monotonic())
        callback(target(*args, app=self._app))


def work_on(app: Celery, message: Any, tell: Callable[[str], None] = lambda word: None) -> str:
    """Run a message as a worker does; what the broker is told of it: "acknowledged", "requeued" or "rejected".

    tell: called with that in the moment in which the broker is told.
    """
    told: list[str] = []

    def telling(word: str) -> None:
        told.append(word)
        tell(word)

    Request(
        message, app=app, task=app.tasks[message.headers["task"]], hostname="hands",
        on_ack=lambda *_: telling("acknowledged"),
        on_reject=lambda log, errors, requeue: telling("requeued" if requeue else "rejected"),
    ).execute_using_pool(_OwnThread(app))  # fmt: skip
    (only,) = told
    return only
