"""Canvases as a door reads them: from Celery's signatures to the legs and joins of a pipeline.

One call of one task stays what it is. Everything else, and one task with
callbacks, is compiled to a plan whose nodes become legs here, each with the
options its task had at this moment.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from celery import Celery, signals
from celery.app.task import Task
from celery.canvas import Signature
from celery.exceptions import NotRegistered
from celery.utils.abstract import CallableSignature
from celery.utils.functional import arity_greater
from kombu.utils.uuid import uuid

from . import foresee, work
from .codec import canonical_hash
from .config import Settings
from .durations import seconds
from .errors import BadInput, NotJson, UnsupportedWork
from .graph import WAIT_TASKS, Fork, Join, Node, Plan
from .lifecycle import Occasion
from .model import Change, Intent, JsonDict, Leg, LegStatus, Status, Wait, Work
from .plan import compile_canvas, described, kind_of
from .ports import Codec

#: Stands for the intent while a canvas is only read.
_NOBODY = Intent(
    id="", type="", status=Status.CREATED, requester="nobody",
    created_at=datetime(2000, 1, 1, tzinfo=UTC), updated_at=datetime(2000, 1, 1, tzinfo=UTC),
)  # fmt: skip

#: (intent, node, value before it) -> nothing; raises BadInput for a wait that could not be opened.
OpenNode = Callable[[Intent, Leg, Any, Occasion], tuple[Wait, Sequence[Change]]]


class Reader:
    """Reads one canvas. Raises UnsupportedWork, NotJson, TooLarge and BadInput, naming the place in it and why."""

    def __init__(self, app: Celery, codec: Codec, settings: Settings, on: Occasion, open_node: OpenNode) -> None:
        self._app, self._codec, self._settings, self._on, self._open_node = app, codec, settings, on, open_node
        self._own_options: dict[str, JsonDict] = {}

    def read(self, given: Any) -> Work:
        """The work of a canvas."""
        return self._read(given, 0)

    def _read(self, given: Any, calls: int) -> Work:
        # A plain dict is read as it is: Celery's own from_dict drops the arguments of a chain.
        is_plain = type(given) is dict and isinstance(given.get("task"), str)
        canvas = plain(given if is_plain else work.signature_of(self._app, given))
        options = canvas.get("options") or {}
        plainly = kind_of(canvas) == "task" and canvas["task"] not in WAIT_TASKS and canvas["task"] not in work.CARRIED
        if plainly and not options.get("link") and not options.get("link_error"):
            self._known(canvas["task"], options, "")
            return work.read_work(self._app, self._codec, self._settings, self._on.now, canvas)
        if calls > 20:
            raise UnsupportedWork("callbacks have callbacks more than 20 deep; flatten them")
        plan = compile_canvas(
            canvas, lambda: str(uuid()), most=self._settings.max_legs,
            header_errbacks=bool(self._app.conf.task_allow_error_cb_on_chord_header),
        )  # fmt: skip
        return self._compiled(plan, calls)

    def _compiled(self, plan: Plan, calls: int) -> Work:
        root, lists = plan.nodes[0].id, frozenset(join.id for join in plan.joins if join.gives == "list")
        legs = tuple(self._leg(node, number, root, lists, calls) for number, node in enumerate(plan.nodes))
        first = next((leg for leg in legs if not leg.plan.get("waits")), legs[0])
        task: Task | None = self._app.tasks.get(first.task)
        alone = len(legs) == 1
        about: JsonDict = {"pipeline": described(plan), "legs": len(legs)}
        if alone:
            about = {"task": first.task, "args": first.signature["args"], "kwargs": first.signature["kwargs"]}
        deadline = getattr(task, "axme_deadline", None) if alone else None
        return Work(
            task=first.task,
            signature=first.signature,
            leg_id=legs[0].id,
            named=plan.nodes[0].named,
            payload=self._codec.encode(
                about, what="payload", limit_bytes=self._settings.payload_bytes, setting="axme_payload_bytes"
            ),
            work_hash=_hash(legs, plan),
            deadline_seconds=None if deadline is None else seconds(deadline, f"deadline of {first.task}"),
            type=getattr(task, "axme_type", None) or first.task,
            legs=legs,
            joins=tuple(_join(fork) for fork in plan.joins),
        )

    # -- one node ---------------------------------------------------------------------

    def _leg(self, node: Node, position: int, root: str, lists: frozenset[str], calls: int) -> Leg:
        where = f"node {node.node} ({node.task})" if node.node else node.task
        if len(node.id) > 255:
            raise BadInput(f"{where}: task_id has {len(node.id)} characters; the limit is 255")
        waits = node.task in WAIT_TASKS
        task: Task | None = self._app.tasks.get(node.task)
        if not waits:
            self._known(node.task, node.options, node.node)
            if task is not None and task.typing:
                args = (foresee.TO_COME, *node.args) if node.takes else node.args
                try:
                    work.check_arguments(task, args, node.kwargs)
                except TypeError as error:
                    raise TypeError(f"{where}: {error}") from None
        called = self._json({"args": list(node.args), "kwargs": node.kwargs}, f"{where}: arguments")
        options, terms = self._options(node, task, root, lists)
        if node.takes:
            terms["takes"] = True
        if waits:
            terms["waits"] = True
        self._callbacks(node, options, terms, where, calls)
        leg = Leg(
            id=node.id, intent_id="", task=node.task, status=LegStatus.PENDING, created_at=self._on.now,
            signature={"task": node.task, **called, "options": options, "subtask_type": None,
                       "immutable": not node.takes},
            max_attempts=getattr(task, "axme_max_attempts", None) or self._settings.max_attempts,
            on_drift=getattr(task, "axme_on_drift", "park"), node=node.node, position=position, after=node.after,
            turn=node.turn, join_id=node.join_id, join_index=node.join_index, within=node.within,
            followers=node.followers, plan=terms,
        )  # fmt: skip
        if waits:
            self._check_wait(leg, where)
        return leg

    def _options(self, node: Node, task: Task | None, root: str, lists: frozenset[str]) -> tuple[JsonDict, JsonDict]:
        """The options of the leg's messages, and what of them is reckoned when its turn comes."""
        given = {**self._options_of(task), **{k: v for k, v in node.options.items() if v is not None}}
        options: JsonDict = {
            k: v if isinstance(v, str | int | float | bool) else work.plain_option(v)
            for k, v in given.items()
            if k not in work.OF_ONE_SENDING and k not in ("chord", "group_id", "group_index", "chain", "expires")
        }
        work.note_parents(self._app, options)
        options["task_id"] = node.id
        options.setdefault("root_id", root)
        if node.join_id in lists:
            options |= {"group_id": node.join_id, "group_index": node.join_index}
        terms: JsonDict = {}
        if given.get("countdown"):
            terms["countdown"] = seconds(given["countdown"], "countdown")
        elif given.get("eta") is not None:
            start_at = work.start_of({"eta": given["eta"]}, self._on.now)
            terms["eta"] = None if start_at is None else start_at.isoformat()
        expires = given.get("expires")
        if isinstance(expires, int | float):
            terms["expires"] = work.expiry_seconds(expires)
        elif expires is not None:
            options["expires"] = work.absolute(expires, self._on.now)
        if given.get("route_name"):
            terms["route_name"] = given["route_name"]
        return options, terms

    def _options_of(self, task: Task | None) -> JsonDict:
        if task is None:
            return {}
        known = self._own_options.get(task.name)
        if known is None:
            known = {k: v for k, v in task._get_exec_options().items() if v is not None}
            known = self._own_options[task.name] = {"ignore_result": task.ignore_result, **known}
        return known

    def _callbacks(self, node: Node, options: JsonDict, terms: JsonDict, where: str, calls: int) -> None:
        """Callbacks and errbacks become intents of their own; errbacks that want to see the exception stay Celery's."""
        if node.link:
            terms["link"] = [self._callback(one, f"{where}: callback", calls) for one in node.link]
        kept, inline = list[JsonDict](), list[JsonDict]()
        for errback in node.link_error:
            read = self._callback(errback, f"{where}: errback", calls)
            (inline if self._sees_exception(read) else kept).append(read)
        if kept:
            terms["link_error"] = kept
        if inline:
            options["link_error"] = inline

    def _callback(self, canvas: JsonDict, where: str, calls: int) -> JsonDict:
        kept: JsonDict = self._json(canvas, where)
        # Read once here, so that one that cannot be called is refused now; it is given its argument when it is called.
        args = list(kept.get("args") or ())
        if not kept.get("immutable"):
            kept_args = {"args": [foresee.TO_COME, *args]}
        else:
            kept_args = {"args": args}
        if not self._sees_exception(kept):
            try:
                self._read({**kept, **kept_args}, calls + 1)
            except UnsupportedWork as refused:
                raise UnsupportedWork(f"{where}: {refused}") from None
        return kept

    def _sees_exception(self, errback: JsonDict) -> bool:
        """Whether Celery calls this errback in place, with the request, the exception and its traceback."""
        if kind_of(errback) != "task":
            return False
        signature = Signature.from_dict(dict(errback), app=self._app)
        try:
            header = getattr(signature.type, "__header__", None)
        except NotRegistered:
            return False
        if header is None or isinstance(header, functools.partial):
            return False
        asked: Callable[..., bool] | None = getattr(self._app.backend, "_errback_arity_greater", None)
        return bool(asked(signature, 1) if asked is not None else arity_greater(header, 1))

    def _check_wait(self, leg: Leg, where: str) -> None:
        """Have the wait foreseen as it will be opened, with something in the place of a result still to come."""
        try:
            self._open_node(_NOBODY, leg, foresee.TO_COME, self._on)
        except BadInput as refused:
            raise (
                type(refused)(f"{where}: {refused}")
                if type(refused) in (BadInput, UnsupportedWork, NotJson)
                else BadInput(f"{where}: {refused}")
            ) from None
        way = leg.signature["kwargs"].get("on_reject")
        if way not in (None, "fail", "continue", "detour"):
            raise BadInput(f"{where}: on_reject is {way!r}; give a signature, or 'fail', or 'continue'")
        if way is not None and WAIT_TASKS[leg.task] != "HUMAN":
            raise BadInput(f"{where}: on_reject belongs to wait_for_human; only people reject")
        if WAIT_TASKS[leg.task] == "TIME" and "on_timeout" in leg.signature["kwargs"]:
            raise BadInput(f"{where}: wait_for_time has no timeout")

    def _known(self, name: str, options: JsonDict, place: str) -> None:
        """Refuse a task nobody seems to know: its leg would be parked by the worker that gets it, long after.

        Only where that can be told: a program that has not imported all that the app has its workers import, as many
        that only send do not, may name what it does not know.
        """
        if name in self._app.tasks or any(options.get(key) for key in ("queue", "exchange", "routing_key")):
            return
        if not _has_all_tasks(self._app):
            return
        if self._app.conf.task_routes and self._app.amqp.router.lookup_route(name):
            return
        raise UnsupportedWork(
            f"{f'node {place}: ' if place else ''}no task {name!r} is registered in this app, nothing else is left for its "
            f"workers to import, and nothing says where it is to be sent; if only other workers have it, name their "
            f"queue: signature({name!r}).set(queue=...) or task_routes"
        )

    def _json(self, value: Any, what: str) -> Any:
        """The value as the ledger gives it back. Raises NotJson and TooLarge, naming it."""
        limit = self._settings.payload_bytes
        return self._codec.decode(self._codec.encode(value, what=what, limit_bytes=limit, setting="axme_payload_bytes"))


def _has_all_tasks(app: Celery) -> bool:
    """Whether this process has imported all that the app has its workers import."""
    if not app.loader.worker_initialized and signals.import_modules.has_listeners(app):
        return False
    return all(str(module) in sys.modules for module in app.loader.default_modules)


# -- signatures as plain dicts ------------------------------------------------------------


def plain(given: Any) -> Any:
    """A signature with every signature in it as plain dicts, and what is lazy in it read."""
    if isinstance(given, Task):
        raise UnsupportedWork(f"{given.name} is a task, not a call of one; write {given.__name__}.s(...)")
    if not isinstance(given, dict | CallableSignature):
        return given
    canvas = dict(given)
    canvas["args"], canvas["kwargs"] = list(canvas.get("args") or ()), dict(canvas.get("kwargs") or {})
    inside, options = canvas["kwargs"], dict(canvas.get("options") or {})
    kind = kind_of(canvas)
    if kind in ("chain", "group"):
        inside["tasks"] = _all(inside.get("tasks"))
    elif kind == "chord":
        header = inside.get("header")
        inside["header"] = plain(header) if isinstance(header, dict) else _all(header)
        inside["body"] = plain(inside.get("body"))
    elif canvas.get("task") in ("celery.chunks", "celery.map", "celery.starmap"):
        inside["task"], inside["it"] = plain(inside.get("task")), list(inside.get("it") or ())
        options.setdefault("route_name", (inside["task"] or {}).get("task"))
    elif canvas.get("task") in WAIT_TASKS:
        for name in ("on_reject", "on_timeout", "target", "poll"):
            if isinstance(inside.get(name), dict):
                inside[name] = plain(inside[name])
        canvas["args"] = [plain(one) if isinstance(one, CallableSignature) else one for one in canvas["args"]]
    for name in ("link", "link_error"):
        if options.get(name):
            given_ = options[name]
            options[name] = _all(given_ if isinstance(given_, list | tuple) else [given_])
    canvas["options"] = options
    return canvas


def _all(signatures: Iterable[Any] | None) -> list[Any]:
    return [plain(one) for one in signatures or ()]


def _join(fork: Fork) -> Join:
    return Join(
        id=fork.id, intent_id="", node=fork.node, size=fork.size, left=fork.size, gives=fork.gives,
        join_id=fork.join_id, join_index=fork.join_index, within=fork.within, followers=fork.followers,
    )  # fmt: skip


def _hash(legs: tuple[Leg, ...], plan: Plan) -> str:
    """Tells this canvas from any other, whatever ids it was given."""
    places = {id_: number for number, id_ in enumerate([n.id for n in plan.nodes] + [j.id for j in plan.joins])}
    return canonical_hash(
        [
            [
                leg.task, leg.signature["args"], leg.signature["kwargs"], leg.node, leg.turn, leg.plan.get("takes"),
                places.get(leg.after or ""), places.get(leg.join_id or ""), leg.join_index,
            ]
            for leg in legs
        ]
    )  # fmt: skip
