"""The one table of Celery signals we touch, and the wrapper that carries a leg.

Signals observe and install; they cannot refuse or suspend a task, for Celery
swallows what they raise. So at ``worker_init``, before any tracer is built and
any child is forked, every task's ``run`` is wrapped once. The wrapper costs an
ordinary message one look at its headers; a message with our header it carries
as a leg.
"""

from __future__ import annotations

import functools
import logging
import random
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from billiard.exceptions import WorkerLostError
from celery import signals
from celery.app.task import Context, Task
from celery.exceptions import Ignore, Reject, Retry
from celery.utils.imports import symbol_by_name
from celery.worker.request import Request
from celery.worker.state import task_ready

from . import calls, leg, trace, work
from .errors import (
    AxmeError,
    BadInput,
    BadSetting,
    Drifted,
    HandedBack,
    LeaseLost,
    LedgerUnavailable,
    LegInterrupt,
    OutsideIntent,
)
from .keeper import WatchChildren
from .leg import NotToBeHad, RetryAsked, RunningLeg
from .replacing import adding, replacing

if TYPE_CHECKING:
    from .extension import Axme

log = logging.getLogger(__name__)

#: How long a pool child that ends waits for its last deliveries.
CHILD_EXIT_SECONDS = 2.0
#: A message that came while the ledger was away comes again after so long.
PUT_BACK_SECONDS = (1.0, 5.0)
#: AsyncResult's state while a leg waits.
WAITING = "WAITING"


def connect(axme: Axme) -> None:
    """Touch Celery: everything we hook into is in this table. ``weak=False``, or a closure is never called."""
    uid = f"axme-{id(axme)}"

    def on(signal: Any, handler: Callable[..., None]) -> None:
        signal.connect(handler, weak=False, dispatch_uid=f"{uid}-{handler.__name__}")

    def worker_init(sender: Any = None, **_: Any) -> None:
        if sender is not None and sender.app is axme.app:
            # Loaded before the pool forks, so that its children share it.
            from . import ledger  # noqa: F401

            _check_settings(axme)
            install(axme)
            axme.app.steps["consumer"].add(WatchChildren)
            axme.keeper.start()

    def worker_shutting_down(**_: Any) -> None:
        axme.keeper.stopping()

    def worker_shutdown(sender: Any = None, **_: Any) -> None:
        axme.keeper.stop()

    def worker_process_shutdown(**_: Any) -> None:
        axme.drain(CHILD_EXIT_SECONDS)

    def task_postrun(task: Any = None, retval: Any = None, **_: Any) -> None:
        if isinstance(retval, Ignore) and work.own_header(vars(task.request)) is not None:
            # Celery's frame holds this exception, whose traceback holds that frame and what Celery has copied of it,
            # a fifth of a megabyte: unless they are parted here, that is kept until the next full garbage collection.
            retval.__traceback__ = None
        # Celery has done its part of what this thread settled; its guards are not needed.
        guards = leg.take_guards()
        if guards and task.app is axme.app:
            axme.runtime.relay.settled(guards)

    def task_revoked(sender: Any = None, request: Any = None, expired: bool | None = None, **_: Any) -> None:
        mark = work.own_header(vars(request))
        if mark is not None and sender.app is axme.app:
            axme.keeper.revoked(mark["intent"], "it expired before it was run" if expired else "its task was revoked")

    def task_unknown(sender: Any = None, message: Any = None, name: str = "", id: str = "", **_: Any) -> None:
        mark = work.own_header(message.headers)
        if mark is not None and sender.app is axme.app:
            axme.keeper.unknown(id, mark["run"], name)

    on(signals.worker_init, worker_init)
    on(signals.worker_shutting_down, worker_shutting_down)
    on(signals.worker_shutdown, worker_shutdown)
    on(signals.worker_process_shutdown, worker_process_shutdown)
    on(signals.task_postrun, task_postrun)
    on(signals.task_revoked, task_revoked)
    on(signals.task_unknown, task_unknown)


def _check_settings(axme: Axme) -> None:
    """A worker that cannot read its settings would carry no leg; it does not start, and says why."""
    try:
        _ = axme.settings
    except BadSetting as refused:
        raise SystemExit(f"axme-celery: {refused}") from None


def install(axme: Axme) -> None:
    """Wrap every registered task, once. Celery's own are left alone."""
    axme.app.finalize()
    for task in list(axme.app.tasks.values()):
        wrap(axme, task)


def wrap(axme: Axme, task: Task) -> None:
    """Have this task's messages looked at, and carried when they are a leg's. Twice is once; not for Celery's own."""
    is_celerys = task.name.startswith("celery.") and task.name not in work.CARRIED
    if is_celerys or getattr(task, "__axme_wrapped__", False):
        return
    task.run = _as_leg(axme, task, task.run)
    task.replace = replacing(axme, task.replace)
    task.add_to_chord = adding(axme, task, task.add_to_chord)
    task.Request = _request_class(axme, task.Request)
    task.__axme_wrapped__ = True
    if not isinstance(task, LegTask):
        task.apply_async = _keeping_own_retries(task, task.apply_async)


# -- the wrapper -------------------------------------------------------------------

#: The signature a task of this leg published itself with (``self.retry``), instead of publishing it.
_retried: ContextVar[list[Any] | None] = ContextVar("axme_retried", default=None)


def _as_leg(axme: Axme, task: Task, run: Callable[..., Any]) -> Callable[..., Any]:
    is_ours = isinstance(task, LegTask) or axme.calls.takes(task.name)

    @functools.wraps(run)
    def carried(*args: Any, **kwargs: Any) -> Any:
        request = task.request
        mark = request.get(work.HEADER)
        try:
            if mark is None and not (is_ours and _came_as_message(request)):
                return run(*args, **kwargs)
            return _as_message(axme, task, request, mark, lambda: run(*args, **kwargs))
        finally:
            calls.left(request)

    return carried


def _as_message(axme: Axme, task: Task, request: Context, mark: dict[str, Any] | None, call: Callable[[], Any]) -> Any:
    try:
        if mark is None:
            try:
                mark = _adopt(axme, task, request)
            except BadInput as refused:
                if isinstance(task, LegTask):
                    raise
                # It ran before it was named in axme_tasks, and runs now: nobody was promised more.
                log.error("task %s %s runs without an intent: %s", task.name, request.id, refused)
                return call()
        if mark.get("finish"):
            return _finish(axme, request.id, mark["run"])
        attributes = {"axme.intent": str(mark.get("intent")), "axme.leg": request.id, "axme.run": mark["run"]}
        with trace.span(f"axme.leg {task.name}", trace.read(request), attributes):
            return _carry(axme, task, request, mark["run"], call)
    except LedgerUnavailable as away:
        # Nothing was begun. Left to Celery this would be the task's failure, and that of its whole chain.
        log.warning("leg %s is put back: %s", request.id, away, extra={"leg": request.id})
        if _put_back(task, request, mark):
            raise Ignore from None
        # What is acknowledged late the broker still has, and gives out again; the rest it has forgotten.
        raise Reject(str(away), requeue=True) from None


def _put_back(task: Task, request: Context, mark: dict[str, Any] | None) -> bool:
    """Send this message again for a little later. False when the broker does not take it."""
    try:
        again = task.signature_from_request(request, countdown=random.uniform(*PUT_BACK_SECONDS))
        options = dict(again.options)
        if mark is not None:
            options["headers"] = {**(options.get("headers") or {}), work.HEADER: mark}
        with calls.as_it_is():
            # Celery's own: ours would make another intent of it.
            Task.apply_async(task, again.args, again.kwargs, **options)
        return True
    except Exception as error:
        if task.acks_late:
            log.warning("leg %s was not put back: %s; its message stays with the broker", request.id, error)
        elif mark is not None:
            log.warning("leg %s was not put back: %s; the sweep sends it once it is overdue", request.id, error)
        else:
            log.error("%s %s was not put back, and is lost: %s; acks_late=True would have kept it with the broker",
                      task.name, request.id, error)  # fmt: skip
        return False


def _carry(axme: Axme, task: Task, request: Context, run: int, call: Callable[[], Any]) -> Any:
    """Run the task's body as a leg, and tell Celery how it ended in Celery's own terms."""
    rt = axme.runtime
    ignored = bool(request.ignore_result if request.ignore_result is not None else task.ignore_result)
    continues = bool(request.chain or request.callbacks or request.errbacks or request.chord or request.group)
    retry: list[Retry] = []

    def body(running: RunningLeg) -> Any:
        token = _retried.set([])
        try:
            value = call()
            published = _retried.get()
            if published:
                raise _retry_asked(axme, published[-1], None)
            return value
        except Retry as error:
            retry.append(error)
            signature = error.sig if error.sig is not None else task.signature_from_request(request)
            raise _retry_asked(axme, signature, error) from error
        except Ignore:
            # The task says its result is of no interest; its intent has done what it promised.
            return None
        except Reject as error:
            if error.requeue:
                # As to a broker: it is delivered again, at once and as often as the task says so.
                read = axme.read_work(task.signature_from_request(request))
                raise RetryAsked(read.signature, None, f"the task put its message back: {error.reason}") from error
            raise AxmeError(f"the task rejected its message: {error.reason}") from error
        finally:
            _retried.reset(token)

    leaves: Exception = Ignore()
    try:
        return leg.run(
            rt, request.id, run, body,
            guarded=continues or not ignored, show_waiting=lambda: _show(task, request, ignored, WAITING),
        )  # fmt: skip
    except NotToBeHad as why:
        log.info("nothing to run: %s", why, extra={"leg": request.id, "run": run})
    except RetryAsked:
        if retry:
            leaves = retry.pop()
    except (HandedBack, LeaseLost, Drifted) as why:
        log.warning("%s", why, extra={"leg": request.id, "run": run})
        if isinstance(why, Drifted):
            _show(task, request, ignored, WAITING)
    except LegInterrupt:
        # Suspended: it rests, and that is recorded.
        pass
    try:
        # Out here, where it has no context: an interrupt's traceback holds every frame of the body.
        raise leaves
    finally:
        del leaves


def _finish(axme: Axme, leg_id: str, run: int) -> Any:
    """A leg that is DONE, but whose worker died before Celery stored its result and went on: give it the result."""
    found = leg.finished(axme.runtime, leg_id, run)
    if found is None:
        raise Ignore
    return found[0]


def _retry_asked(axme: Axme, signature: Any, error: Retry | None) -> RetryAsked:
    read = axme.read_work(signature)
    cause = str(error.exc) if error is not None and error.exc is not None else "the task asked for it"
    return RetryAsked(read.signature, read.start_at, cause)


def _show(task: Task, request: Context, ignored: bool, state: str) -> None:
    """Let AsyncResult say where the leg is. Best effort: the ledger is the truth."""
    if ignored:
        return
    try:
        mark = request.get(work.HEADER) or {}
        task.backend.store_result(request.id, {"intent": mark.get("intent")}, state, request=request)
    except Exception as error:
        log.warning("result backend does not show %s for leg %s: %s", state, request.id, error)


def _came_as_message(request: Context) -> bool:
    return not request.called_directly and not request.is_eager


def _adopt(axme: Axme, task: Task, request: Context) -> dict[str, Any]:
    """A durable task sent by name, by a program without this extension: make it an intent on arrival.

    A second delivery of the same message finds the leg there.
    """
    return axme.adopt(task.signature_from_request(request))


# -- retries of a leg go through the ledger ------------------------------------------


def _keeping_own_retries(task: Task, apply_async: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(apply_async)
    def apply(args: Any = None, kwargs: Any = None, task_id: str | None = None, **options: Any) -> Any:
        if keep_own_retry(task, args, kwargs, task_id, options):
            return task.AsyncResult(task_id)
        return apply_async(args, kwargs, task_id=task_id, **options)

    return apply


def keep_own_retry(task: Task, args: Any, kwargs: Any, task_id: str | None, options: dict[str, Any]) -> bool:
    """True when this call is the running leg publishing itself again (``self.retry``): kept for the ledger instead."""
    published = _retried.get()
    if published is None or task_id is None or task_id != task.request.id:
        return False
    published.append(task.signature(args=args or (), kwargs=kwargs or {}, **{**options, "task_id": task_id}))
    return True


# -- @axme.task ---------------------------------------------------------------------


class LegTask(Task):  # type: ignore[misc]
    """The base of ``@axme.task``: a Celery task whose calls are intents."""

    abstract = True

    #: What ``@axme.task`` was given.
    axme_deadline: Any = None
    axme_notify: str | None = None
    axme_max_attempts: int | None = None
    axme_type: str | None = None
    axme_on_drift: str = "park"

    def apply_async(
        self,
        args: Any = None,
        kwargs: Any = None,
        task_id: str | None = None,
        producer: Any = None,
        link: Any = None,
        link_error: Any = None,
        shadow: Any = None,
        **options: Any,
    ) -> Any:
        options = {**options, "link": link, "link_error": link_error, "shadow": shadow}
        if keep_own_retry(self, args, kwargs, task_id, options):
            return self.AsyncResult(task_id)
        app = self._get_app()
        if app.conf.task_always_eager:
            return super().apply_async(args, kwargs, task_id=task_id, producer=producer, **options)
        axme: Axme | None = getattr(app, "axme", None)
        if axme is None:
            raise OutsideIntent(f"{self.name} is an @axme.task but its app has no Axme(app); its call")
        signature = self.signature(args=args or (), kwargs=kwargs or {}, **{**options, "task_id": task_id})
        try:
            return axme.call(self, signature)
        except AxmeError as refused:
            if not axme.calls.is_celerys_own():
                raise
            log.warning("the message of %s leaves without an intent: %s", self.name, refused)
            with calls.as_it_is():
                return super().apply_async(args, kwargs, task_id=task_id, producer=producer, **options)


def keeps(axme: Axme, name: str) -> bool:
    """Whether calls of this task become intents: it is an ``@axme.task``, or named in ``axme_tasks``. Raises BadSetting."""
    return isinstance(axme.app.tasks.get(name), LegTask) or axme.calls.takes(name)


# -- what a worker's parent sees ------------------------------------------------------


def _request_class(axme: Axme, present: Any) -> type[Request]:
    """The task's own request class, with the ends of a leg that only the parent sees sent to the ledger."""
    base: type[Request] = symbol_by_name(present) if isinstance(present, str) else present

    class LegRequest(base):  # type: ignore[misc]
        def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
            mark = work.own_header(self._request_dict)
            error = getattr(exc_info.exception, "exc", exc_info.exception)
            if mark is None or not isinstance(error, WorkerLostError | SystemExit | KeyboardInterrupt):
                return super().on_failure(exc_info, send_failed_event, return_ok)
            # The child died with the leg. The leg runs again, so Celery must not store FAILURE: that would fail
            # its whole chain.
            task_ready(self)
            if self.task.acks_late:
                self.acknowledge()
            axme.keeper.lost(self.id, mark["run"], str(error) or type(error).__name__)
            return None

        def cancel(self, pool: Any, signal: Any = None, **how: Any) -> Any:
            mark = work.own_header(self._request_dict)
            if mark is not None:
                axme.keeper.canceled(self.id, mark["run"])
            return super().cancel(pool, signal, **how)

        def on_timeout(self, soft: bool, timeout: float) -> Any:
            mark = work.own_header(self._request_dict)
            if mark is not None and not soft:
                axme.keeper.overran(self.id, mark["run"], timeout)
            return super().on_timeout(soft, timeout)

    LegRequest.__name__ = base.__name__
    return LegRequest
