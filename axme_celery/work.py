"""Between Celery's signatures and messages and our legs: what a door reads, what it publishes.

A leg's signature is kept with the options its task had when it was submitted,
so that a sweep in a process that does not know the task publishes it the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from celery import Celery
from celery.app.task import Task
from celery.canvas import Signature
from celery.utils.abstract import CallableSignature
from kombu.utils.uuid import uuid

from . import chords, trace
from .codec import canonical_hash
from .config import Settings
from .durations import moment, seconds
from .errors import BadInput, UnsupportedWork
from .model import Leg, Work
from .parties import Addressed
from .ports import Codec

#: The message header that makes a Celery message a leg: {"intent", "run"}, and "finish" for a repeat.
HEADER = "axme"

#: Celery's own tasks that do work of the user's, and so can be legs.
CARRIED = frozenset({"celery.map", "celery.starmap", "celery.accumulate"})

#: What an agent is sent unless the sender says otherwise, and how often it is handed out.
AGENT_TYPE, AGENT_ATTEMPTS = "intent.agent_task.v1", 3

#: Options that are of one sending, not of the work.
OF_ONE_SENDING = frozenset(
    {
        "producer", "connection", "publisher", "router", "result_cls", "add_to_parent", "countdown", "eta", "retry",
        "retry_policy", "now", "task_type", "route_name",
    }
)  # fmt: skip


def read_work(app: Celery, codec: Codec, settings: Settings, now: datetime, given: Any) -> Work:
    """The work a signature stands for.

    Raises UnsupportedWork for what is no signature of one task, NotJson or TooLarge for its arguments.
    """
    signature = signature_of(app, given)
    if signature.get("subtask_type"):
        raise UnsupportedWork(f"a {signature['subtask_type']} is no call of one task")
    name, args, kwargs = signature["task"], tuple(signature["args"] or ()), dict(signature["kwargs"] or {})
    task: Task | None = app.tasks.get(name)
    options = {k: v for k, v in (signature["options"] or {}).items() if v is not None}
    if task is not None:
        if task.typing:
            check_arguments(task, args, kwargs)
        options = {**{k: v for k, v in task._get_exec_options().items() if v is not None}, **options}
        options.setdefault("ignore_result", task.ignore_result)
    start_at = start_of(options, now)
    named = options.pop("task_id", None)
    leg_id = str(named or uuid())
    if len(leg_id) > 255:
        raise BadInput(f"task_id has {len(leg_id)} characters; the limit is 255")
    kept = {k: plain_option(v) for k, v in options.items() if k not in OF_ONE_SENDING}
    if "expires" in kept:
        kept["expires"] = absolute(kept["expires"], now)
    note_parents(app, kept)
    payload = codec.encode(
        {"task": name, "args": list(args), "kwargs": kwargs},
        what=f"arguments of {name}",
        limit_bytes=settings.payload_bytes,
        setting="axme_payload_bytes",
    )
    decoded = codec.decode(payload)
    kept["task_id"] = leg_id
    whole = {"task": name, "args": decoded["args"], "kwargs": decoded["kwargs"], "options": kept,
             "subtask_type": None, "immutable": bool(signature.get("immutable"))}  # fmt: skip
    codec.encode(
        whole, what=f"signature of {name}", limit_bytes=8 * settings.payload_bytes, setting="axme_payload_bytes"
    )
    deadline = getattr(task, "axme_deadline", None)
    return Work(
        task=name,
        signature=whole,
        leg_id=leg_id,
        named=named is not None,
        payload=payload,
        work_hash=canonical_hash([name, decoded["args"], decoded["kwargs"]]),
        start_at=start_at,
        deadline_seconds=None if deadline is None else seconds(deadline, f"deadline of {name}"),
        max_attempts=getattr(task, "axme_max_attempts", None) or settings.max_attempts,
        on_drift=getattr(task, "axme_on_drift", "park"),
        type=getattr(task, "axme_type", None) or name,
        notify=getattr(task, "axme_notify", None),
        in_chord=bool(chords.groups_of(whole)),
    )


def agent_work(codec: Codec, settings: Settings, given: Addressed) -> Work:
    """The work of an agent outside Celery: a leg that lies in its mailbox until somebody takes it."""
    leg_id = str(uuid())
    payload = codec.encode(
        {} if given.payload is None else given.payload,
        what="payload",
        limit_bytes=settings.payload_bytes,
        setting="axme_payload_bytes",
    )
    options = {"task_id": leg_id, "ignore_result": True}
    return Work(
        task=given.address,
        signature={"task": given.address, "args": [], "kwargs": {}, "options": options, "subtask_type": None,
                   "immutable": True},
        leg_id=leg_id,
        payload=payload,
        work_hash=canonical_hash([given.address, given.type, codec.decode(payload)]),
        max_attempts=given.max_attempts or AGENT_ATTEMPTS,
        type=given.type or AGENT_TYPE,
    )  # fmt: skip


def publish(app: Celery, leg: Leg, *, finish: bool) -> None:
    """Publish a leg's message for its present run: an ordinary Celery message with one header more.

    Not ``send_task``: that would subscribe this process to the result, which others wait for.
    """
    stored = leg.signature
    options: dict[str, Any] = dict(stored.get("options") or {})
    mark = {"intent": leg.intent_id, "run": leg.run, **({"finish": True} if finish else {})}
    headers = {**(options.pop("headers", None) or {}), HEADER: mark}
    args, kwargs, name = stored.get("args") or (), stored.get("kwargs") or {}, leg.task
    of_message = {k: options.pop(k, None) for k in (
        "group_id", "group_index", "expires", "chord", "reply_to", "time_limit", "soft_time_limit", "root_id",
        "parent_id", "shadow", "chain", "origin", "stamped_headers",
    )}  # fmt: skip
    if leg.started_at is not None:
        # Too late to begin is what it means; what has begun in time may wait as long as it must.
        of_message["expires"] = None
    link, link_error = options.pop("link", None), options.pop("link_error", None)
    options.pop("task_id", None)
    ignore_result = options.pop("ignore_result", False)
    retries, nesting = options.pop("retries", 0), options.pop("replaced_task_nesting", 0)
    stamps = {k: options.get(k) for k in of_message["stamped_headers"] or ()}
    # A canvas of many calls of one task in one message goes where that task goes.
    routed_as = leg.plan.get("route_name") or name
    options = app.amqp.router.route(options, routed_as, args, kwargs, app.tasks.get(name))
    message = app.amqp.create_task_message(
        leg.id, name, args, kwargs, retries=retries, callbacks=_listed(link), errbacks=_listed(link_error),
        create_sent_event=app.conf.task_send_sent_event, ignore_result=ignore_result,
        replaced_task_nesting=nesting, **of_message, **stamps,
    )  # fmt: skip
    for stamp in stamps:
        options.pop(stamp, None)
    with app.producer_or_acquire() as producer:
        app.amqp.send_task_message(producer, name, message, headers=headers, **options)


def own_header(headers: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Our header of a message, if it has one of the right shape."""
    mark = (headers or {}).get(HEADER)
    return mark if isinstance(mark, dict) and isinstance(mark.get("run"), int) else None


def signature_of(app: Celery, given: Any) -> Signature:
    """What was given, as a signature. Raises UnsupportedWork when it is none."""
    if isinstance(given, Task):
        raise UnsupportedWork(f"{given.name} is a task, not a call of one; write {given.__name__}.s(...)")
    if not isinstance(given, Signature | CallableSignature | dict):
        raise UnsupportedWork(f"{type(given).__name__} is no Celery signature; write task.s(...)")
    signature = Signature.from_dict(dict(given), app=app) if isinstance(given, dict) else given
    if not isinstance(signature.get("task"), str) or not signature["task"]:
        raise UnsupportedWork("the signature names no task")
    return signature


def check_arguments(task: Task, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raises TypeError for arguments that its function does not take."""
    check = getattr(task, "__header__", None)
    if check is None:
        return
    try:
        check(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{task.name}: {error}") from None


def start_of(options: dict[str, Any], now: datetime) -> datetime | None:
    """When a call with these options starts; None is at once."""
    countdown, eta = options.get("countdown"), options.get("eta")
    if countdown:
        return now + timedelta(seconds=seconds(countdown, "countdown"))
    if eta is None:
        return None
    if isinstance(eta, datetime) and eta.tzinfo is None:
        # Celery reads a naive eta as UTC.
        eta = eta.replace(tzinfo=UTC)
    return moment(eta, "eta")


def absolute(expires: Any, now: datetime) -> str:
    """An ``expires`` as a moment."""
    if isinstance(expires, int | float):
        return (now + timedelta(seconds=expiry_seconds(expires))).isoformat()
    return expires.isoformat() if isinstance(expires, datetime) else str(expires)


def expiry_seconds(expires: float) -> float:
    """An ``expires`` in seconds, which may be negative as Celery has it. Raises BadInput."""
    seconds(abs(expires), "expires")
    return expires


def note_parents(app: Celery, options: dict[str, Any]) -> None:
    """Whose call this is, as Celery notes it at sending: only known here, in the calling thread."""
    caller = app.current_worker_task
    if caller is not None and caller.request.id:
        options.setdefault("root_id", caller.request.root_id or caller.request.id)
        options.setdefault("parent_id", caller.request.id)
    options.setdefault("reply_to", app.thread_oid)
    headers = {k: v for k, v in (options.get("headers") or {}).items() if k != HEADER}
    context = trace.carried()
    if context is not None and "traceparent" not in headers:
        headers |= context
    if headers or "headers" in options:
        options["headers"] = headers


def plain_option(value: Any) -> Any:
    """Signatures within options (chain, link, chord) as plain dicts."""
    if isinstance(value, dict):
        return {k: plain_option(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain_option(v) for v in value]
    name = getattr(value, "name", None)
    if type(value).__module__.startswith("kombu") and isinstance(name, str):
        # A Queue or Exchange object: known by name wherever it is published from.
        return name
    return value


def _listed(value: Any) -> list[Any] | None:
    if not value:
        return None
    return list(value) if isinstance(value, list | tuple) else [value]
