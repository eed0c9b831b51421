"""The compiler of canvases, held to eager Celery and to its own promises."""

from __future__ import annotations

import pytest
from celery import chain, chord, current_app, group
from celery.canvas import Signature
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from axme_celery import UnsupportedWork
from axme_celery.plan import FAN_OUT, described, kind_of

from .plans import Recorder, canvases, carried_out, compiled, plain


@pytest.fixture(scope="module")
def recorder():
    recorder, before = Recorder(), current_app._get_current_object()
    # Celery looks for the app of what was a dict in a canvas there.
    recorder.app.set_current()
    yield recorder
    before.set_current()


def eagerly(recorder, canvas):
    recorder.calls = []
    result = canvas.apply_async().get()
    return plain(result), sorted(recorder.calls)


def by_plan(recorder, canvas):
    recorder.calls = []
    result = carried_out(compiled(canvas), recorder.note)
    return plain(result), sorted(recorder.calls)


@given(st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_for_any_canvas_the_tasks_run_with_the_arguments_that_celery_would_give_them(recorder, data):
    """And the whole comes to the same result."""
    canvas = data.draw(canvases(recorder))
    as_written = plain(canvas)

    assert by_plan(recorder, as_written) == eagerly(recorder, Signature.from_dict(as_written, app=recorder.app))


def test_chunks_are_a_group_of_tasks_over_some_items_each(recorder):
    """However Celery is asked for them, and each with the route of the task it calls."""
    plan = compiled(recorder.task.chunks([(n,) for n in range(5)], 2))

    assert [(n.task, n.kwargs["it"], n.options) for n in plan.nodes] == [
        ("celery.starmap", items, {"route_name": "note"}) for items in ([[0], [1]], [[2], [3]], [[4]])
    ]
    assert plan.joins[0].size == 3


def test_every_node_says_where_in_the_canvas_it_is(recorder):
    """So that a refusal, and the page of an intent, can name it."""
    t = recorder.task
    canvas = chain(t.s(), group(t.s(), t.s() | t.s()), t.s(), group(group(t.s(), t.s()), t.s()))
    plan = compiled(canvas)

    assert [node.node for node in plan.nodes] == [
        "0", "1.header[0]", "1.header[1].0", "1.header[1].1", "1.body.0", "1.body.1[0][0]", "1.body.1[0][1]",
        "1.body.1[1]",
    ]  # fmt: skip


def test_options_go_where_celery_passes_them_on(recorder):
    """A chain's to its first task, its callback to its last, its errback to all; a group's to its members."""
    t, e = recorder.task, recorder.task.si(tag=7)
    canvas = chain(t.s(), t.s(), t.s()).set(queue="q", link=[e], link_error=[e])
    first, second, third = compiled(canvas).nodes

    assert [n.options for n in (first, second, third)] == [{"queue": "q"}, {}, {}]
    assert [len(n.link) for n in (first, second, third)] == [0, 0, 1]
    assert [len(n.link_error) for n in (first, second, third)] == [1, 1, 1]
    members = compiled(group(t.s().set(queue="own"), t.s()).set(queue="q", priority=3)).nodes
    assert [n.options for n in members] == [{"queue": "q", "priority": 3}] * 2


def test_a_chords_options_are_its_headers_and_its_bodys_but_it_is_the_header_that_is_delayed(recorder):
    """As Celery runs it; callbacks are the body's."""
    t, e = recorder.task, recorder.task.si(tag=7)
    canvas = chord([t.s()], t.s()).set(queue="q", countdown=9, link=[e], link_error=[e])
    header, body = compiled(canvas).nodes

    assert header.options == {"queue": "q", "countdown": 9}
    assert body.options == {"queue": "q"}
    assert ([len(header.link), len(header.link_error)], [len(body.link), len(body.link_error)]) == ([0, 0], [1, 1])
    header, body = compiled(canvas, header_errbacks=True).nodes
    assert [(e["immutable"], len(header.link_error)) for e in header.link_error] == [(True, 1)]


def test_ids_that_the_canvas_has_are_kept_once(recorder):
    """A frozen signature that is used twice is two tasks."""
    frozen = recorder.task.s()
    frozen.freeze("given")
    plan = compiled(group(frozen, frozen))

    assert [(node.id, node.named) for node in plan.nodes] == [("given", True), ("id0", False)]


def test_a_task_that_starts_very_many_does_so_through_a_join(recorder):
    """Its own commit stays small; the join starts them in batches."""
    t = recorder.task
    plan = compiled(t.s(1) | group(t.s() for _ in range(FAN_OUT + 1)), most=10_000)
    head, gate = plan.nodes[0], plan.joins[0]

    assert (head.followers, head.join_id, gate.gives, gate.followers) == (0, gate.id, "value", FAN_OUT + 1)
    assert {node.after for node in plan.nodes[1:]} == {gate.id}


def test_a_large_canvas_is_compiled_in_linear_time_and_a_long_chain_without_recursion(recorder):
    """Ten thousand legs are normal."""
    t = recorder.task
    long = {"task": "celery.chain", "kwargs": {"tasks": [plain(t.s())] * 10_000}, "options": {}}
    wide = {"task": "celery.group", "kwargs": {"tasks": [plain(t.s())] * 10_000}, "options": {}}

    assert len(compiled(long, most=10_000).nodes) == len(compiled(wide, most=10_000).nodes) == 10_000


# -- ways around a wait ----------------------------------------------------------------


def wait(name="axme.wait_for_human", **ways):
    return {"task": name, "args": ["Publish?"], "kwargs": ways, "options": {}, "immutable": False}


def test_what_a_wait_does_not_approve_of_leaves_its_chain_and_comes_out_at_its_end(recorder):
    """Whichever way was taken, one value arrives."""
    t = recorder.task
    canvas = {"task": "celery.chain", "options": {}, "kwargs": {"tasks": [
        plain(t.s()), wait(on_reject=plain(t.s(tag=1)), on_timeout=plain(t.s(tag=2))), plain(t.s(tag=3))]}}  # fmt: skip
    plan = compiled(canvas)
    start, question, rejected, late, usual = plan.nodes
    (merge,) = plan.joins

    assert (rejected.after, rejected.turn, late.turn, usual.turn) == (question.id, "rejected", "timeout", "")
    assert (question.followers, question.kwargs) == (1, {"on_reject": "detour", "on_timeout": "detour"})
    assert {n.join_id for n in (rejected, late, usual)} == {merge.id} and merge.gives == "value"
    assert (start.within, merge.join_id, merge.followers) == (merge.id, None, 0)


def test_a_detour_in_a_member_of_a_group_takes_that_members_place(recorder):
    """Its chord goes on with what it gives."""
    t = recorder.task
    canvas = chord([t.s(), chain(t.s(), Signature(wait(on_reject=plain(t.s()))), t.s())], t.s())
    plan = compiled(canvas)
    merge, header = plan.joins

    assert (merge.size, merge.gives, merge.join_id, merge.join_index) == (1, "value", header.id, 1)
    assert (header.size, header.gives) == (2, "list")


# -- refusals --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("canvas", "why"),
    [
        ({"task": "celery.group", "kwargs": {"tasks": []}}, "the group is empty"),
        ({"task": "celery.chain", "kwargs": {"tasks": []}}, "the chain is empty"),
        ({"task": "celery.chord", "kwargs": {"header": [], "body": None}}, "the chord has no body"),
        ({"task": "celery.group", "kwargs": {"tasks": [3]}}, "node 0: int is no Celery signature"),
        ({"task": "celery.group", "kwargs": {"tasks": [{"task": "t"}]}, "options": {"link": [{"task": "l"}]}}, "chord"),
        ({"task": ""}, "no Celery signature"),
    ],
)
def test_a_canvas_that_cannot_be_carried_is_refused_with_the_place_and_why(canvas, why):
    """Before anything is stored."""
    with pytest.raises(UnsupportedWork, match=why):
        compiled(canvas)


def test_a_canvas_over_the_limit_or_too_deep_is_refused(recorder):
    """Naming the setting that raises it."""
    t = recorder.task
    with pytest.raises(UnsupportedWork, match=r"node \[3\]: the canvas has more than 3 tasks.*axme_max_legs"):
        compiled(group(t.s() for _ in range(4)), most=3)
    deep = plain(t.s())
    for _ in range(70):
        deep = {"task": "celery.chord", "kwargs": {"header": [plain(t.s())], "body": deep}, "options": {}}
    with pytest.raises(UnsupportedWork, match="levels deep"):
        compiled(deep)


def test_a_plan_is_described_in_a_line(recorder):
    """For the intent's payload, which people are shown."""
    t = recorder.task
    assert described(compiled(t.s() | t.s())) == "note | note"
    assert described(compiled(group(t.s() for _ in range(99))), 20).endswith("... 99 in all")
    assert kind_of({"task": "note"}) == "task"
