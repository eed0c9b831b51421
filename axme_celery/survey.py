"""Read a project as it is loaded: its tasks, its settings, and how its code puts tasks together. Asks no server.

The code is read as text (its syntax tree), module by module, for what the
registry of tasks does not know: chords, chains, and countdowns. That finds what
is written out, not what is put together at run time.
"""

from __future__ import annotations

import ast
import sys
import sysconfig
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

from celery import Celery
from celery.app.task import Task
from kombu.utils.url import url_to_parts

from .advice import Entry, ProjectFacts, TaskFacts, Use
from .calls import NEVER
from .durations import words
from .errors import AxmeError
from .signals import LegTask, keeps

#: Of brokers that give a message out again, unless told otherwise.
VISIBILITY_SECONDS = {"redis": 3600.0, "rediss": 3600.0, "sentinel": 3600.0, "sqs": 1800.0}
#: Ways to write a call of a task that is made later.
SIGNATURES = frozenset({"s", "si", "signature", "subtask"})
_AT = sysconfig.get_paths()
_INSTALLED = tuple({str(Path(_AT[name])) for name in ("purelib", "platlib", "stdlib", "platstdlib")})


def survey(app: Celery) -> ProjectFacts:
    """All there is to know of a project without asking anybody."""
    app.loader.import_default_modules()
    app.finalize()
    names = [name for name in app.tasks if not name.startswith(NEVER)]
    uses = [use for module in _modules(app, names) for use in _Reader(module, app).uses()]
    retried = {task for use in uses if use.kind == "retry" for task in use.tasks}
    conf = app.conf
    backend = conf.result_backend
    broker = url_to_parts(str(conf.broker_url or "amqp://")).scheme.partition("+")[0]
    timeout = (conf.broker_transport_options or {}).get("visibility_timeout", VISIBILITY_SECONDS.get(broker))
    return ProjectFacts(
        tasks=tuple(_task(app, app.tasks[name], retried) for name in sorted(names)),
        uses=tuple(use for use in uses if use.kind != "retry"),
        entries=tuple(_entries(app)),
        installed=getattr(app, "axme", None) is not None,
        broker=broker,
        visibility_timeout_seconds=float(timeout) if timeout and broker in VISIBILITY_SECONDS else None,
        result_backend=None if not backend or backend == "disabled://" else str(backend).partition("://")[0],
        result_expires_seconds=_seconds(conf.result_expires),
    )


def _task(app: Celery, task: Task, retried: set[str]) -> TaskFacts:
    limit = task.time_limit if task.time_limit is not None else app.conf.task_time_limit
    return TaskFacts(
        name=task.name,
        kept=_is_kept(app, task),
        acks_late=bool(task.acks_late),
        reject_on_worker_lost=bool(task.reject_on_worker_lost),
        ignore_result=bool(task.ignore_result),
        retries=bool(getattr(task, "autoretry_for", ())) or task.name in retried,
        time_limit_seconds=None if limit is None else float(limit),
    )


def _is_kept(app: Celery, task: Task) -> bool:
    axme = getattr(app, "axme", None)
    try:
        return axme is not None and keeps(axme, task.name)
    except AxmeError:
        # The settings are refused: the doctor says so.
        return isinstance(task, LegTask)


def _entries(app: Celery) -> Iterator[Entry]:
    for name, entry in (app.conf.beat_schedule or {}).items():
        task = entry.get("task") if isinstance(entry, dict) else getattr(entry, "task", None)
        if not isinstance(task, str) or task.startswith(NEVER):
            continue
        get = entry.get if isinstance(entry, dict) else lambda key, entry=entry: getattr(entry, key, None)
        options, schedule = get("options") or {}, get("schedule")
        seconds = _seconds(schedule) if isinstance(schedule, int | float | timedelta) else None
        yield Entry(
            name=str(name), task=task, countdown_seconds=_seconds(options.get("countdown")),
            every=f"every {words(seconds)}" if seconds is not None else str(schedule),
        )  # fmt: skip


def _seconds(value: Any) -> float | None:
    """Celery's durations: seconds or a timedelta; 0 and None are for ever."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    return float(value) if isinstance(value, int | float) and value else None


# -- the code ------------------------------------------------------------------------


def _modules(app: Celery, names: list[str]) -> Iterator[ModuleType]:
    """The project's own modules that are loaded: of the packages its tasks and its app are in."""
    homes = {str(app.tasks[name].__module__).partition(".")[0] for name in names}
    homes.add(str(app.main or "").partition(".")[0])
    for name, module in sorted(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name.partition(".")[0] in homes and file and file.endswith(".py") and not file.startswith(_INSTALLED):
            yield module


class _Reader:
    """Reads one module."""

    def __init__(self, module: ModuleType, app: Celery) -> None:
        self._module, self._app = module, app
        file = Path(str(module.__file__))
        self._file = str(file.relative_to(Path.cwd())) if file.is_relative_to(Path.cwd()) else str(file)

    def uses(self) -> list[Use]:
        """What this module does with tasks."""
        try:
            tree = ast.parse(Path(str(self._module.__file__)).read_bytes())
        except (OSError, SyntaxError, ValueError):
            return []
        found: list[Use] = []
        self._read(tree, (), found)
        return found

    def _read(self, node: ast.AST, within: tuple[str, ...], found: list[Use]) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            within = (*within, node.name)
        if isinstance(node, ast.Call):
            found += self._call(node, within)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr) and (links := self._links(node)):
            found += self._chain(node, links)
            # Each of its own parts is a part of this one, and no chain by itself.
            for link in links:
                self._read(link, within, found)
            return
        for inner in ast.iter_child_nodes(node):
            self._read(inner, within, found)

    def _call(self, node: ast.Call, within: tuple[str, ...]) -> Iterator[Use]:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name == "chord" and self._is_celerys(node.func, name) and node.args:
            yield self._use("chord", node, self._tasks(node.args[0]))
        elif name == "chain" and self._is_celerys(node.func, name):
            links = (
                node.args[0].elts
                if len(node.args) == 1 and isinstance(node.args[0], ast.List | ast.Tuple)
                else node.args
            )
            yield from self._chain(node, list(links))
        elif name == "retry" and isinstance(node.func, ast.Attribute):
            task = self._enclosing(within)
            if task is not None:
                yield self._use("retry", node, (task,))
        if name in ("apply_async", "set", "signature", "subtask") and isinstance(node.func, ast.Attribute):
            later = {word.arg: word.value for word in node.keywords if word.arg in ("countdown", "eta")}
            tasks = self._tasks(node.func.value)
            if later and tasks:
                value = later.get("countdown")
                yield self._use("countdown", node, tasks[-1:], None if value is None else _number(value))

    def _chain(self, node: ast.AST, links: list[ast.expr]) -> Iterator[Use]:
        before = tuple(dict.fromkeys(task for link in links[:-1] for task in self._tasks(link)))
        if not before:
            return
        first, last = links[0], links[-1]
        if len(links) == 2 and _called(first) == "group" and _called(last) in SIGNATURES:
            yield self._use("chord", node, before)
        else:
            yield self._use("chain", node, before)

    def _links(self, node: ast.expr) -> list[ast.expr]:
        """The links of ``a.s() | b.s() | c.s()``; none when these are no signatures."""
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            left, right = self._links(node.left), self._links(node.right)
            return [*left, *right] if left and right else []
        is_work = _called(node) in (*SIGNATURES, "group", "chord", "chain", "set") and self._tasks(node)
        return [node] if is_work else []

    def _use(self, kind: str, node: ast.AST, tasks: tuple[str, ...], seconds: float | None = None) -> Use:
        return Use(kind=kind, tasks=tasks, place=f"{self._file}:{getattr(node, 'lineno', 0)}", seconds=seconds)

    # -- names ----------------------------------------------------------------------

    def _tasks(self, node: ast.AST) -> tuple[str, ...]:
        """The tasks named anywhere in this expression."""
        found: dict[str, None] = {}
        for inner in ast.walk(node):
            task = self._object(inner) if isinstance(inner, ast.Name | ast.Attribute) else None
            if isinstance(task, Task) and task.name in self._app.tasks:
                found[task.name] = None
        return tuple(found)

    def _object(self, node: ast.AST) -> Any:
        """What a dotted name of this module stands for; None when it is no such name."""
        if isinstance(node, ast.Name):
            return _task_of(vars(self._module).get(node.id))
        if isinstance(node, ast.Attribute):
            owner = self._object(node.value)
            # Of modules and classes only: anything else might do something when asked.
            return _task_of(vars(owner).get(node.attr)) if isinstance(owner, ModuleType | type) else None
        return None

    def _is_celerys(self, node: ast.AST, name: str) -> bool:
        found = self._object(node)
        return str(getattr(found, "__module__", "")).startswith("celery") or (found is None and name == "chord")

    def _enclosing(self, within: tuple[str, ...]) -> str | None:
        for name in reversed(within):
            task = _task_of(vars(self._module).get(name))
            if isinstance(task, Task):
                return str(task.name)
        return None


def _task_of(value: Any) -> Any:
    """A task behind one of Celery's promises of it."""
    current = getattr(type(value), "_get_current_object", None)
    return value._get_current_object() if current is not None else value


def _called(node: ast.AST) -> str:
    if not isinstance(node, ast.Call):
        return ""
    return node.func.attr if isinstance(node.func, ast.Attribute) else str(getattr(node.func, "id", ""))


def _number(node: ast.AST) -> float | None:
    """The value of a number written out, products and sums among them ("24 * 3600"); None for anything else."""
    match node:
        case ast.Constant(value=int() | float() as value):
            return float(value)
        case ast.BinOp(left=left, op=ast.Mult() | ast.Add() as op, right=right):
            one, other = _number(left), _number(right)
            if one is None or other is None:
                return None
            return one * other if isinstance(op, ast.Mult) else one + other
    return None
