"""Legs that put other work in their place, or beside them."""

from __future__ import annotations

import pytest
from celery import chord, group
from celery.canvas import Signature

from axme_celery import step, wait_for_human
from axme_celery.model import LegStatus, Status


@pytest.fixture
def calls():
    """What ran, in order."""
    return []


@pytest.fixture
def add(app, calls):
    """An ordinary task that adds."""

    @app.task(shared=False, name="add")
    def add(*numbers):
        calls.append(numbers)
        return sum(number if isinstance(number, int) else sum(number) for number in numbers)

    return add


def test_a_leg_may_be_replaced_by_another_task_which_takes_its_id(stage, app, add, becomes):
    """Whoever waits for the first one's result gets the other's."""
    app.canvases["task"] = lambda x: add.s(x, 10)
    intent = stage.submit(becomes.s(1, "task"))
    (leg,) = [leg for leg in intent.legs() if not leg.plan.get("replaced")]

    assert (intent.result, leg.task, app.AsyncResult(leg.id).get()) == (11, "add", 11)
    assert "intent.leg_replaced" in [e.type for e in stage.history(intent)]


@pytest.mark.parametrize(
    ("kind", "result"), [("chain", 113), ("group", [2, 3]), ("chord", 5), ("chain into group", [12, 13])]
)
def test_a_leg_may_be_replaced_by_any_canvas_and_its_pipeline_goes_on_after_it(
    stage, app, add, becomes, calls, kind, result
):
    """In the middle of a chain, as a member of a group, and alone."""
    app.canvases |= {
        "chain": lambda x: add.s(x, 10) | add.s(100) | add.s(2),
        "group": lambda x: group(add.s(x, 1), add.s(x, 2)),
        "chord": lambda x: chord([add.s(x, 1), add.s(x, 2)], add.s()),
        "chain into group": lambda x: add.s(x, 10) | group(add.s(1), add.s(2)),
    }
    total = result if isinstance(result, int) else sum(result)

    assert stage.submit(becomes.s(1, kind)).result == result
    assert stage.submit(add.s(1) | becomes.s(kind) | add.s(1000)).result == 1000 + total
    assert stage.submit(group(add.s(1), becomes.s(1, kind), add.s(2))).result == [1, result, 2]


def test_what_a_replaced_leg_recorded_stays_on_record_and_is_not_done_again(stage, axme, app, add, calls):
    """Under a leg of its own; what replaces it starts with a clean sheet."""

    @step
    def once(x):
        calls.append(x)

    @axme.task(bind=True, name="careful")
    def careful(self):
        once("before")
        raise self.replace(after.s())

    @axme.task(name="after")
    def after():
        once("after")
        return "done"

    stage.kill("once#1", recorded=True)
    intent = stage.submit(careful.s())

    assert (intent.refresh().result, calls) == ("done", ["before", "after"])
    assert {(leg.task, leg.node, leg.status) for leg in intent.legs()} == {
        ("careful", "replaced", LegStatus.DONE), ("after", "", LegStatus.DONE),
    }  # fmt: skip
    assert [one.name for one in intent.steps()] == ["once", "once"]


def test_callbacks_and_errbacks_of_a_replaced_leg_are_those_of_what_replaces_it(stage, app, add, becomes, calls):
    """As Celery has it."""
    told = []

    @app.task(shared=False)
    def by_id(task_id):
        told.append(task_id)

    @app.task(shared=False)
    def fails():
        raise ValueError("no")

    app.canvases |= {"task": lambda x: add.s(x, 10), "fails": lambda x: add.s(x) | fails.si()}
    called = becomes.s(1, "task")
    called.link(add.s(5))
    assert stage.submit(called).result == 11
    assert (11, 5) in calls
    failed = stage.submit(becomes.s(1, "fails").on_error(by_id.s()))
    assert (failed.status, len(told)) == (Status.FAILED, 1)


def test_a_leg_may_be_replaced_by_a_question(stage, app, add, becomes):
    """The node waits in its place."""
    app.canvases["ask"] = lambda x: wait_for_human.s("Sure?", to="ana") | add.si(x, 1)
    intent = stage.submit(becomes.s(1, "ask") | add.s(100))
    assert (intent.status, intent.waiting_reason) == (Status.WAITING, "WAITING_FOR_HUMAN")
    stage.answer(intent.id, "approved", by="ana")

    assert intent.refresh().result == 102


def test_a_replacement_that_cannot_be_carried_fails_the_leg_with_the_reason(stage, app, add, becomes):
    """Like any error of the task's."""
    app.canvases["unknown"] = lambda x: add.s(x) | Signature("nowhere")
    intent = stage.submit(becomes.s(1, "unknown"))

    assert (intent.status, intent.error["code"]) == (Status.FAILED, "UnsupportedWork")


def test_a_replaced_leg_whose_worker_dies_with_it_is_replaced_once(stage, app, add, becomes, calls):
    """Before the commit it is run again; after it, it is not."""
    app.canvases["task"] = lambda x: add.s(x, 10) | add.s(1)
    stage.kill("end")
    intent = stage.submit(becomes.s(1, "task") | add.s(100))

    assert (intent.refresh().result, len([leg for leg in intent.legs() if leg.plan.get("replaced")])) == (112, 1)


def test_a_member_of_a_group_may_add_others_which_are_waited_for(stage, app, add, calls):
    """Their results come after those of the members there were."""

    @app.task(bind=True, shared=False, name="grows")
    def grows(self, x):
        self.add_to_chord(add.s(x, 10))
        self.add_to_chord(add.s(x) | add.s(100))
        return x

    intent = stage.submit(group(grows.s(1), add.s(2)) | add.s())
    assert (intent.result, calls[-1]) == (1 + 2 + 11 + 101, ([1, 2, 11, 101],))


def test_a_member_that_is_run_again_adds_nothing_twice(stage, axme, app, add, calls):
    """What it added is recorded, like a step."""

    @step
    def once():
        return 1

    @axme.task(bind=True, name="grows")
    def grows(self):
        self.add_to_chord(add.s(5))
        return once()

    stage.kill("once#1")
    intent = stage.submit(group(grows.s(), add.s(2)) | add.s())

    assert (intent.result, calls[-1]) == (8, ([1, 2, 5],))
