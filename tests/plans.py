"""Plans carried out by hand, and canvases made up, to hold the compiler to Celery."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from celery import Celery, chain, chord, group
from celery.canvas import Signature
from hypothesis import strategies as st

from axme_celery.graph import Fork, Node, Plan
from axme_celery.plan import compile_canvas


def plain(value: Any) -> Any:
    """A signature as it is after a journey as JSON."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        return value
    return [plain(one) for one in value]


def compiled(canvas: Any, most: int = 1000, **options: Any) -> Plan:
    """The plan of a canvas, with ids that count."""
    count = itertools.count()
    return compile_canvas(plain(canvas), lambda: f"id{next(count)}", most=most, **options)


def carried_out(plan: Plan, call: Callable[[str, tuple, dict], Any]) -> Any:
    """What a plan comes to when each node is called as soon as what it follows is there."""
    nodes = {node.id: node for node in plan.nodes}
    joins = {join.id: join for join in plan.joins}
    left = {join.id: join.size for join in plan.joins}
    given: dict[str, dict[int, Any]] = {join.id: {} for join in plan.joins}
    final: list[Any] = []

    def done(one: Node | Fork, value: Any) -> None:
        followers = [node for node in nodes.values() if node.after == one.id and not node.turn]
        assert len(followers) == one.followers
        assert not (followers and one.join_id)
        for node in followers:
            run(node, value)
        if one.join_id is not None:
            join = joins[one.join_id]
            assert one.join_index not in given[join.id]
            given[join.id][one.join_index] = value
            left[join.id] -= 1
            if left[join.id] == 0:
                members = [given[join.id][index] for index in sorted(given[join.id])]
                done(join, members if join.gives == "list" else members[0])
        elif not followers:
            final.append(value)

    def run(node: Node, value: Any) -> None:
        args = (value, *node.args) if node.takes else node.args
        result = call(node.task, args, node.kwargs)
        for callback in node.link:
            carried_out(compiled({**callback, **_after(callback, result)}), call)
        done(node, result)

    for node in plan.nodes:
        if node.after is None:
            run(node, None)
    (value,) = final
    return value


def _after(callback: Any, result: Any) -> dict[str, Any]:
    return {} if callback.get("immutable") else {"args": [result, *(callback.get("args") or ())]}


# -- made-up canvases ------------------------------------------------------------------


class Recorder:
    """An eager app with one task that notes how it is called."""

    def __init__(self) -> None:
        self.app = Celery("eager", broker="memory://", backend="cache+memory://", set_as_current=False)
        self.app.conf.task_always_eager = True
        self.app.conf.task_eager_propagates = True
        self.calls: list[tuple[str, str]] = []

        @self.app.task(name="note", shared=False)
        def note(*args: Any, tag: int = -1) -> str:
            return self.note("note", args, {"tag": tag})

        self.task = note

    def note(self, name: str, args: tuple, kwargs: dict) -> str:
        """Note a call; its result tells it from every other."""
        if name == "celery.starmap":
            return [self.note("note", tuple(item), {"tag": -1}) for item in kwargs["it"]]
        if name == "celery.map":
            return [self.note("note", (item,), {"tag": -1}) for item in kwargs["it"]]
        self.calls.append((str(kwargs["tag"]), repr([plain(arg) for arg in args])))
        return f"{kwargs['tag']}<{len(repr(plain(args)))}>"


def canvases(recorder: Recorder) -> st.SearchStrategy[Signature]:
    """Canvases of every kind within one another, as Celery's own operators make them."""
    count = itertools.count()

    def many(draw: Any) -> Signature:
        items = draw(st.lists(st.integers(0, 9), min_size=1, max_size=4))
        kind = draw(st.sampled_from(["map", "starmap", "chunks"]))
        if kind == "map":
            return recorder.task.map(items)
        if kind == "starmap":
            return recorder.task.starmap([(item, 1) for item in items])
        return recorder.task.chunks([(item,) for item in items], 2).group()

    @st.composite
    def task(draw: Any) -> Signature:
        if draw(st.integers(0, 9)) == 0:
            return many(draw)
        tag = next(count)
        made = recorder.task.s(*draw(st.lists(st.integers(0, 9), max_size=2)), tag=tag)
        if draw(st.integers(0, 4)) == 0:
            made = made.set(immutable=True)
        if draw(st.integers(0, 6)) == 0:
            made.link(recorder.task.s("called back", tag=next(count)))
        return made

    def larger(inner: st.SearchStrategy[Signature]) -> st.SearchStrategy[Signature]:
        several = st.lists(inner, min_size=1, max_size=3)
        groups = several.map(lambda members: group(members, app=recorder.app))
        return st.one_of(
            several.map(lambda steps: chain(*steps) if len(steps) > 1 else steps[0]),
            groups,
            st.tuples(several, task()).map(lambda parts: chord(parts[0], parts[1], app=recorder.app)),
            st.tuples(groups, inner).map(lambda parts: parts[0] | parts[1]),
            st.tuples(inner, inner).map(lambda parts: parts[0] | parts[1]),
        )

    return st.recursive(task(), larger, max_leaves=9)
