"""Calls of ordinary tasks that ``axme_tasks`` names: each becomes an intent, and its message leaves as ever.

Every way to call a task ends in ``app.send_task``: ``.delay()``, ``apply_async``,
signatures, a chain's next link, a chord's members and body, retries, beat. So
that method of this one app is what we stand in. The signal
``before_task_publish`` would not do: Celery logs and swallows what its handlers
raise, so a call whose promise could not be kept would go out as if it had been;
and it cannot hold a message back, which is what becomes of a long countdown
(kept in the ledger, as no message at all).

The caller's own thread publishes, right after the ledger's commit, so that all
who look at a message as it leaves (tracing, above all) see it in the caller's
context, and a broker that refuses it is noticed where it always was.
"""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from celery import Celery
from celery.app.task import Context
from celery.result import AsyncResult
from kombu.exceptions import OperationalError

from . import calling, leg, submit, trace, work
from .begin import Submission
from .errors import AxmeError, BadSetting
from .model import Work

if TYPE_CHECKING:
    from .extension import Axme

log = logging.getLogger(__name__)

#: Tasks whose names begin so are Celery's and ours, and never become intents.
NEVER = ("celery.", "axme.")
#: Attribute of a request whose task's body has ended.
LEFT = "axme_left"

#: True while this thread sends a message that is not to be looked at.
_as_it_is: ContextVar[bool] = ContextVar("axme_as_it_is", default=False)


@lru_cache(maxsize=4096)
def matches(patterns: tuple[str, ...], name: str) -> bool:
    """Whether a task of this name is one of those the patterns name (shell style, "reports.*")."""
    return not name.startswith(NEVER) and any(fnmatchcase(name, pattern) for pattern in patterns)


class Calls:
    """The calls of one application."""

    def __init__(self, axme: Axme) -> None:
        self._axme = axme
        self._send: Callable[..., Any] = _not_installed
        self._parameters = inspect.signature(_not_installed)
        self._refused = False
        #: The thread in which this process is a beat.
        self.beat_thread: int | None = None

    def install(self, app: Celery) -> None:
        """Stand in ``app.send_task``. Twice is once."""
        if getattr(app.send_task, "__axme__", None) is not None:
            return
        theirs = vars(app).get("send_task")

        def send(*args: Any, **options: Any) -> Any:
            if theirs is not None:
                return theirs(*args, **options)
            # Looked up at every call: others (Sentry, a test's mock) may put theirs into the class after us.
            method = type(app).send_task
            return (method.__get__(app) if hasattr(method, "__get__") else method)(*args, **options)

        self._send, self._parameters = send, inspect.signature(app.send_task)
        strange = work.HEADER

        def send_task(name: str, *args: Any, **options: Any) -> Any:
            headers = options.get("headers")
            if headers and strange in headers and not _as_it_is.get():
                # Copied from a leg's own request: it is that leg's, of no other message.
                options["headers"] = {k: v for k, v in headers.items() if k != strange}
            if not self.takes(name) or _as_it_is.get():
                return send(name, *args, **options)
            return self._call(name, *args, **options)

        send_task.__doc__ = send.__doc__
        send_task.__axme__ = self  # type: ignore[attr-defined]
        app.send_task = send_task

    def takes(self, name: str) -> bool:
        """Whether calls of this ordinary task become intents.

        Raises BadSetting when ``axme_tasks`` is given and the settings are refused: which calls are promises is
        not known then. If they are refused and it is not given, no call is.
        """
        try:
            patterns = self._axme.settings.tasks
        except BadSetting as refused:
            if self._axme.names_tasks:
                raise
            if not self._refused:
                self._refused = True
                log.error("no call becomes an intent: %s", refused)
            return False
        return bool(patterns) and matches(patterns, name)

    # -- one call ------------------------------------------------------------------

    def _call(self, name: str, *args: Any, **options: Any) -> Any:
        given = self._bound(name, args, options)
        try:
            read = self._read(given)
            running = leg.current()
            if running is None:
                kept = submit.keep_call(self._axme.runtime, Submission(work=read, trace=trace.carried()))
            else:
                read = calling.placed(running, read)
                kept = calling.call(running, read)
        except AxmeError as refused:
            if not self.is_celerys_own():
                raise
            # A chain must not end, nor a beat leave something out, because the ledger is away. The worker that
            # gets the message makes the intent of it, or fails the task, where that can be seen.
            log.warning("the message of %s leaves without an intent: %s", name, refused)
            return self._send(**given)
        intent, row = kept.intent, kept.row
        if row is None:
            return self._result(given, read.leg_id, intent.id)
        mark = {"intent": intent.id, "run": row.run}
        # With the trace it was called in, as every later message of this leg.
        headers = {**(read.signature["options"].get("headers") or {}), work.HEADER: mark}
        given = {**given, "task_id": read.leg_id, "headers": headers}
        try:
            result = self._send(**given)
        except (OperationalError, OSError) as error:
            # The promise is kept already: raising would have the caller call again, and the work be done twice.
            log.warning("the broker did not take %s %s, it is sent again: %s", name, read.leg_id, error)
            # At its moment, for the relay's message says nothing of a countdown.
            self._axme.runtime.relay.send([replace(row, next_at=read.start_at or intent.created_at)])
            return self._result(given, read.leg_id, intent.id)
        except BaseException as error:
            self._axme.runtime.relay.settled([row.id])
            self._take_back(intent.id, read.leg_id, error)
            raise
        self._axme.runtime.relay.settled([row.id])
        result.intent_id = intent.id
        return result

    def _bound(self, name: str, args: tuple[Any, ...], options: dict[str, Any]) -> dict[str, Any]:
        """What ``send_task`` was given, by name."""
        bound = dict(self._parameters.bind(name, *args, **options).arguments)
        return {**bound, **bound.pop("options", {})}

    def _read(self, given: dict[str, Any]) -> Work:
        options = {k: v for k, v in given.items() if k not in ("name", "args", "kwargs")}
        return self._axme.read_work(
            {"task": given["name"], "args": given.get("args"), "kwargs": given.get("kwargs"), "options": options,
             "subtask_type": None, "immutable": False}
        )  # fmt: skip

    def _result(self, given: dict[str, Any], leg_id: str, intent_id: str) -> AsyncResult:
        """What ``send_task`` returns, where it was not called."""
        app = self._axme.app
        result = (given.get("result_cls") or app.AsyncResult)(leg_id)
        result.ignored = given.get("ignore_result")
        result.intent_id = intent_id
        caller = app.current_worker_task
        if caller and given.get("add_to_parent", True):
            caller.add_trail(result)
        return result

    def _take_back(self, intent_id: str, leg_id: str, error: BaseException) -> None:
        """The message cannot be made (an unknown queue, a wrong option): the caller is told, and there is no promise."""
        reason, running = f"its message could not be sent: {type(error).__name__}: {error}"[:2000], leg.current()
        try:
            if running is not None:
                calling.take_back(running, leg_id, reason)
            else:
                submit.cancel(self._axme.runtime, intent_id, reason=reason, by=None)
        except AxmeError as away:
            log.warning("intent %s of a call that failed was not canceled: %s", intent_id, away)

    # -- who calls -------------------------------------------------------------------

    def is_celerys_own(self) -> bool:
        """True when Celery itself sends and nobody would catch an error.

        So it is for a chain's next link, callbacks and a chord's body, all sent when a task's body has ended, for
        what Celery's own tasks send, and for a beat.
        """
        if self.beat_thread == threading.get_ident():
            return True
        caller = self._axme.app.current_worker_task
        return caller is not None and (caller.name.startswith("celery.") or LEFT in vars(caller.request))


@contextmanager
def as_it_is() -> Iterator[None]:
    """What is sent meanwhile by this thread is sent as it is, with our header if it has one."""
    token = _as_it_is.set(True)
    try:
        yield
    finally:
        _as_it_is.reset(token)


def left(request: Context) -> None:
    """Note that the body of this request's task has ended: what is sent from now on, Celery sends."""
    setattr(request, LEFT, True)


def _not_installed(*_: Any, **__: Any) -> Any:
    raise RuntimeError("this Axme has no app yet")
