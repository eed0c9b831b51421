"""A canvas compiled to a graph of nodes and joins. Pure: it sees signatures as plain dicts, and no Celery.

Celery's meaning is kept: a group followed by anything is a chord, groups within
groups are one, a group of one within a chain is that one, empty groups in a
chain are nothing; results are put before a signature's own arguments unless it
is immutable; options of a canvas go to its parts as Celery passes them on.

What a wait does not approve of leaves its chain: the signatures of ``on_reject``
and ``on_timeout`` take the place of all that follows it there.

Source: celery/canvas.py of Celery 5.4 to 5.7.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .errors import UnsupportedWork
from .graph import REJECTED, TIMED_OUT, WAIT_TASKS, Fork, Node, Plan
from .model import JsonDict

#: Canvases within canvases. Deeper ones are a mistake, or an attack.
DEEPEST = 60
#: One finished leg starts at most so many others in its own commit; more are started by a join, in batches.
FAN_OUT = 200

#: Options that say who a signature is, not how it is to be run: never passed on to others.
_OF_ONE = frozenset(
    {"task_id", "group_id", "group_index", "root_id", "parent_id", "reply_to", "chord", "chain", "stamped_headers"}
)
_KINDS = {"celery.chain": "chain", "celery.group": "group", "celery.chord": "chord", "celery.chunks": "chunks"}

Exit = Node | Fork


def compile_canvas(canvas: JsonDict, new_id: Callable[[], str], *, most: int, header_errbacks: bool = False) -> Plan:
    """The plan of a canvas.

    new_id:           makes ids of nodes (where the canvas does not give them) and joins.
    most:             more nodes than this are refused.
    header_errbacks:  Celery's ``task_allow_error_cb_on_chord_header``.

    Raises UnsupportedWork, naming the place in the canvas and why.
    """
    build = _Build(new_id, most, header_errbacks)
    build.scoped(canvas, "", _Entry(), 0)
    return build.finished()


def kind_of(canvas: JsonDict) -> str:
    """ "chain", "group", "chord", "chunks", or "task"."""
    found = canvas.get("subtask_type") or _KINDS.get(str(canvas.get("task")), "task")
    return str(found) if found in _KINDS.values() else "task"


def described(plan: Plan, longest: int = 500) -> str:
    """The plan in one line for people."""
    names: list[str] = []
    size = 0
    for node in plan.nodes:
        size += len(node.task) + 3
        if size > longest:
            names.append(f"... {len(plan.nodes)} in all")
            break
        names.append(node.task)
    return " | ".join(names)


@dataclass(frozen=True, slots=True)
class _Entry:
    """How a part of the canvas is come to."""

    #: What it follows; None: it starts at once.
    after: str | None = None
    turn: str = ""
    #: Whether it takes the result of what it follows.
    takes: bool = False
    #: What the canvas around it puts before its own arguments.
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


class _Build:
    def __init__(self, new_id: Callable[[], str], most: int, header_errbacks: bool) -> None:
        self._new_id, self._most, self._header_errbacks = new_id, most, header_errbacks
        #: Nodes and joins, each after what it follows.
        self._order: list[Exit] = []
        self._ids: set[str] = set()
        self._nodes = 0

    # -- parts ------------------------------------------------------------------

    def scoped(self, canvas: JsonDict, path: str, entry: _Entry, depth: int) -> Exit:
        """Place a canvas that detours of its waits must not leave. Its value is that of whichever way was taken."""
        detours: list[Exit] = []
        exit_ = self._place(canvas, path, entry, detours, depth)
        if not detours:
            return exit_
        merge = self._fork(path, 1, "value")
        for one in (exit_, *detours):
            one.join_id, one.join_index = merge.id, 0
        return merge

    def _place(self, canvas: JsonDict, path: str, entry: _Entry, detours: list[Exit], depth: int) -> Exit:
        if not isinstance(canvas, Mapping) or not isinstance(canvas.get("task"), str) or not canvas["task"]:
            raise _refusal(path, f"{type(canvas).__name__} is no Celery signature; write task.s(...)")
        if depth > DEEPEST:
            raise _refusal(path, f"canvases are more than {DEEPEST} levels deep here; flatten them")
        match kind_of(canvas):
            case "chain":
                return self._chain(canvas, path, entry, detours, depth)
            case "group":
                return self._group(canvas, path, _entered(canvas, entry), depth)
            case "chord":
                return self._chord(canvas, path, entry, depth)
            case "chunks":
                return self._group(_group_of_chunks(canvas, path), path, replace(entry, takes=False, args=()), depth)
            case _:
                return self._task(canvas, path, entry, detours, depth)

    def _task(self, canvas: JsonDict, path: str, entry: _Entry, detours: list[Exit], depth: int) -> Node:
        self._nodes += 1
        if self._nodes > self._most:
            raise _refusal(
                path, f"the canvas has more than {self._most} tasks; submit it in parts, or raise axme_max_legs"
            )
        options, immutable = dict(canvas.get("options") or {}), bool(canvas.get("immutable"))
        link, link_error = _listed(options.pop("link", None)), _listed(options.pop("link_error", None))
        own_id = options.pop("task_id", None)
        named = bool(own_id) and str(own_id) not in self._ids
        args, kwargs = tuple(canvas.get("args") or ()), dict(canvas.get("kwargs") or {})
        if not immutable:
            args, kwargs = entry.args + args, {**kwargs, **entry.kwargs}
        node = Node(
            id=str(own_id) if named else self._new_id(), node=path, task=canvas["task"], args=args, kwargs=kwargs,
            options=options, takes=entry.takes and not immutable, named=named, after=entry.after, turn=entry.turn,
            link=link, link_error=link_error,
        )  # fmt: skip
        self._ids.add(node.id)
        self._order.append(node)
        if node.task in WAIT_TASKS:
            self._detours(node, detours, depth)
        return node

    def _detours(self, node: Node, detours: list[Exit], depth: int) -> None:
        """The ways that leave the chain at a wait: compiled here, after it."""
        for name, turn in (("on_reject", REJECTED), ("on_timeout", TIMED_OUT)):
            way = node.kwargs.get(name)
            if not isinstance(way, Mapping):
                continue
            node.kwargs[name] = "detour"
            entry = _Entry(after=node.id, turn=turn, takes=True)
            detours.append(self._place(dict(way), _at(node.node, name), entry, detours, depth + 1))

    def _chain(self, canvas: JsonDict, path: str, entry: _Entry, detours: list[Exit], depth: int) -> Exit:
        steps = _steps(canvas, path)
        if not steps:
            raise _refusal(path, "the chain is empty: there is nothing to do")
        steps = _chain_options(canvas, steps, self._header_errbacks)
        entry = _entered(canvas, entry)
        exit_: Exit | None = None
        for place, step in steps:
            exit_ = self._place(step, place, entry, detours, depth + 1)
            entry = _Entry(after=exit_.id, takes=True)
        assert exit_ is not None
        return exit_

    def _group(self, canvas: JsonDict, path: str, entry: _Entry, depth: int) -> Exit:
        members = list(_members(canvas, path))
        if not members:
            raise _refusal(path, "the group is empty: there is nothing to do")
        options = _passed_on(canvas)
        if options.get("link"):
            raise _refusal(path, "a group cannot have a link (Celery calls it before all are done); use a chord")
        return self._members_of(members, path, entry, options, depth)

    def _members_of(
        self, members: Sequence[tuple[str, JsonDict]], path: str, entry: _Entry, options: JsonDict, depth: int
    ) -> Fork:
        exits = [self.scoped(_with(member, options), place, entry, depth + 1) for place, member in members]
        join = self._fork(path, len(exits), "list")
        for index, exit_ in enumerate(exits):
            exit_.join_id, exit_.join_index = join.id, index
        return join

    def _chord(self, canvas: JsonDict, path: str, entry: _Entry, depth: int) -> Exit:
        inside = dict(canvas.get("kwargs") or {})
        header, body = inside.get("header"), inside.get("body")
        if not isinstance(body, Mapping):
            raise _refusal(path, "the chord has no body; use a group")
        if isinstance(header, Mapping):
            group = dict(header)
        else:
            group = {"task": "celery.group", "kwargs": {"tasks": list(header or ())}, "options": {}}
        options = _passed_on(canvas)
        link, link_error = _listed(options.pop("link", None)), _listed(options.pop("link_error", None))
        to_body = {k: v for k, v in options.items() if k not in ("countdown", "eta")}
        body = _with(with_errbacks(_with_links(dict(body), link, _at(path, "body")), link_error, False), to_body)
        members = list(_members(group, _at(path, "header"))) if kind_of(group) == "group" else [(path, group)]
        if self._header_errbacks and link_error:
            quiet = [{**one, "immutable": True} for one in link_error]
            members = [(place, with_errbacks(member, quiet, True)) for place, member in members]
        if not members:
            # Celery calls the body at once, with an empty list.
            empty = replace(entry, takes=False, args=([],), kwargs={})
            return self.scoped(body, _at(path, "body"), empty, depth + 1)
        entry = _entered(canvas, entry)
        entry = replace(entry, kwargs={**entry.kwargs, **(inside.get("kwargs") or {})})
        to_header = {**{k: v for k, v in _passed_on(group).items() if k != "link"}, **options}
        join = self._members_of(members, _at(path, "header"), entry, to_header, depth)
        return self.scoped(body, _at(path, "body"), _Entry(after=join.id, takes=True), depth + 1)

    def _fork(self, path: str, size: int, gives: str) -> Fork:
        fork = Fork(id=self._new_id(), node=path, size=size, gives=gives)
        self._order.append(fork)
        return fork

    # -- the whole ----------------------------------------------------------------

    def finished(self) -> Plan:
        """The plan, once every part is placed: who follows whom is counted, and where each comes to in the end."""
        following: dict[str, list[Node]] = {}
        for one in self._order:
            if isinstance(one, Node) and one.after is not None:
                following.setdefault(one.after, []).append(one)
        order: list[Exit] = []
        for one in self._order:
            order.append(one)
            usual = [node for node in following.get(one.id, ()) if not node.turn]
            if isinstance(one, Node) and len(usual) > FAN_OUT:
                gate = Fork(id=self._new_id(), node=one.node, size=1, gives="value", followers=len(usual))
                one.join_id, one.join_index = gate.id, 0
                for node in usual:
                    node.after = gate.id
                following[gate.id] = usual
                order.append(gate)
            else:
                one.followers = len(usual)
        for one in reversed(order):
            one.within = one.join_id
            if one.join_id is None and following.get(one.id):
                one.within = following[one.id][0].within
        return Plan(
            tuple(one for one in order if isinstance(one, Node)), tuple(one for one in order if isinstance(one, Fork))
        )


# -- Celery's rules for what a canvas is made of -------------------------------------


def _entered(canvas: JsonDict, entry: _Entry) -> _Entry:
    """How the first tasks of a chain, group or chord are come to: with the canvas's own arguments behind those before."""
    own = tuple(canvas.get("args") or ())
    if canvas.get("immutable"):
        return replace(entry, takes=False, args=own, kwargs={})
    return replace(entry, args=entry.args + own)


def _steps(chain: JsonDict, path: str) -> list[tuple[str, JsonDict]]:
    """A chain's tasks with their places: a group of one is that one, and empty groups are left out."""
    steps = []
    for number, step in enumerate(_tasks(chain, path)):
        place = _at(path, str(number))
        while kind_of(step) == "group" and len(_tasks(step, place)) == 1 and not step.get("args"):
            step = _with(_tasks(step, place)[0], _passed_on(step))
        if kind_of(step) == "group" and not _tasks(step, place):
            continue
        if kind_of(step) == "chain" and not _tasks(step, place):
            continue
        steps.append((place, step))
    return steps


def _chain_options(chain: JsonDict, steps: list[tuple[str, JsonDict]], header: bool) -> list[tuple[str, JsonDict]]:
    """A chain's errbacks are every step's, its callbacks the last one's, its other options the first one's."""
    options = _passed_on(chain)
    link, link_error = _listed(options.pop("link", None)), _listed(options.pop("link_error", None))
    if link_error:
        steps = [(place, with_errbacks(step, link_error, header)) for place, step in steps]
    place, last = steps[-1]
    steps[-1] = (place, _with_links(last, link, place))
    place, first = steps[0]
    steps[0] = (place, _with(first, options))
    return steps


def _members(group: JsonDict, path: str) -> Iterator[tuple[str, JsonDict]]:
    """A group's members with their places, those of groups within it among them; empty chains are left out."""
    for number, member in enumerate(_tasks(group, path)):
        place = _at(path, f"[{number}]")
        kind = kind_of(member)
        if kind == "group":
            yield from _members(member, place)
        elif kind != "chain" or _tasks(member, place):
            yield place, member


def _tasks(canvas: JsonDict, path: str) -> list[JsonDict]:
    tasks = (canvas.get("kwargs") or {}).get("tasks")
    if not isinstance(tasks, list | tuple):
        raise _refusal(path, "its tasks are no list of signatures")
    for number, task in enumerate(tasks):
        if not isinstance(task, Mapping):
            raise _refusal(_at(path, str(number)), f"{type(task).__name__} is no Celery signature; write task.s(...)")
    return [dict(task) for task in tasks]


def _group_of_chunks(chunks: JsonDict, path: str) -> JsonDict:
    """``task.chunks(it, n)``: a group of ``celery.starmap`` over n items each."""
    inside = chunks.get("kwargs") or {}
    task, items, size = inside.get("task"), list(inside.get("it") or ()), inside.get("n")
    if not isinstance(task, Mapping) or not isinstance(size, int) or size < 1:
        raise _refusal(path, "chunks need a task and how many items each is to have")
    parts = [
        {
            "task": "celery.starmap", "args": (), "kwargs": {"task": dict(task), "it": items[start : start + size]},
            "options": {"route_name": task["task"]}, "subtask_type": None, "immutable": True,
        }
        for start in range(0, len(items), size)
    ]  # fmt: skip
    return {
        "task": "celery.group",
        "args": (),
        "kwargs": {"tasks": parts},
        "options": dict(chunks.get("options") or {}),
    }


def _passed_on(canvas: JsonDict) -> JsonDict:
    return {k: v for k, v in (canvas.get("options") or {}).items() if k not in _OF_ONE and v is not None}


def _with(canvas: JsonDict, options: Mapping[str, Any]) -> JsonDict:
    """A signature with these options over its own, as ``apply_async(**options)`` takes them."""
    return {**canvas, "options": {**(canvas.get("options") or {}), **options}} if options else canvas


def _with_links(canvas: JsonDict, link: Sequence[JsonDict], path: str) -> JsonDict:
    """A signature with more callbacks; those of a chord are its body's."""
    if not link:
        return canvas
    if kind_of(canvas) == "group":
        raise _refusal(path, "a group cannot have a link (Celery calls it before all are done); use a chord")
    return _appended(canvas, "link", link)


def with_errbacks(canvas: JsonDict, errbacks: Sequence[JsonDict], header: bool) -> JsonDict:
    """A signature with more errbacks: each member's of a group; a chord's are its body's and those of chords in its header."""
    if not errbacks:
        return canvas
    inside = dict(canvas.get("kwargs") or {})
    match kind_of(canvas):
        case "group":
            inside["tasks"] = [with_errbacks(task, errbacks, header) for task in _tasks(canvas, "")]
            return {**canvas, "kwargs": inside}
        case "chord":
            members = inside.get("header")
            tasks = _tasks(dict(members), "") if isinstance(members, Mapping) else list(members or ())
            inside["header"] = [with_errbacks(t, errbacks, header) if kind_of(t) == "chord" else t for t in tasks]
            if isinstance(members, Mapping):
                inside["header"] = {**members, "kwargs": {**(members.get("kwargs") or {}), "tasks": inside["header"]}}
            return _appended({**canvas, "kwargs": inside}, "link_error", errbacks)
        case _:
            return _appended(canvas, "link_error", errbacks)


def _appended(canvas: JsonDict, name: str, more: Sequence[JsonDict]) -> JsonDict:
    options = dict(canvas.get("options") or {})
    known = _listed(options.get(name))
    options[name] = [*known, *(one for one in more if one not in known)]
    return {**canvas, "options": options}


def _listed(value: Any) -> list[Any]:
    if not value:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _at(path: str, part: str) -> str:
    """The place of a part: "1", "1.header", "1.header[3]"."""
    return path + part if not path or part.startswith("[") else f"{path}.{part}"


def _refusal(path: str, why: str) -> UnsupportedWork:
    return UnsupportedWork(f"{f'node {path}: ' if path else ''}{why}")
