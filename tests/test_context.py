"""What a task may ask about the intent it runs in."""

from __future__ import annotations

from dataclasses import replace

import pytest

from axme_celery import BadInput, TrackerUnavailable, context, current_intent, progress, step, wait_for_time
from axme_celery.model import Status


def test_a_task_knows_its_intent(stage, axme):
    """In every run, in a step too; and afterwards nobody does."""
    seen = []

    @step
    def look():
        return current_intent().id

    @axme.task
    def work():
        seen.append((current_intent().id, look(), current_intent().tags, current_intent().status))
        wait_for_time("1h")

    intent = stage.submit(work.s(), tags=["t"])
    stage.pass_time("1h")

    assert seen == [(intent.id, intent.id, ("t",), Status.IN_PROGRESS)] * 2


def test_a_task_can_read_its_own_history(stage, axme):
    """The handle is the one everybody has."""

    @axme.task
    def work():
        return [event.type for event in current_intent().events()]

    intent = stage.submit(work.s())

    assert intent.result == ["intent.created", "intent.submitted", "intent.in_progress"]


@pytest.fixture
def said(stage, axme):
    """What reached the tracker."""
    said = []
    tracker = axme.runtime.tracker

    class Noting:
        def __getattr__(self, name):
            return getattr(tracker, name)

        def put_progress(self, leg_id, done, total, note):
            said.append((done, total, note))
            tracker.put_progress(leg_id, done, total, note)

    axme._runtime = replace(axme.runtime, tracker=Noting())
    return said


def test_progress_is_said_a_few_times_a_second_and_always_at_the_end(stage, axme, said, monkeypatch):
    """However often the task says it: a loop over a million rows pays for four a second."""
    moments = iter(n / 100 for n in range(10_000))
    monkeypatch.setattr(context.time, "monotonic", lambda: next(moments))

    @axme.task
    def work():
        for page in range(1, 101):
            progress(page, 100)

    stage.submit(work.s())

    assert said[0] == (1, 100, None) and said[-1] == (100, 100, None)
    assert [done for done, _, _ in said] == [1, 26, 51, 76, 100]


def test_each_leg_says_its_own_progress(stage, axme, said):
    """One thread runs one leg after another; the first word of each is heard."""

    @axme.task
    def work(n):
        progress(n, 10, f"leg {n}")

    for n in (1, 2, 3):
        stage.submit(work.s(n))

    assert said == [(1, 10, "leg 1"), (2, 10, "leg 2"), (3, 10, "leg 3")]


def test_outside_a_leg_progress_says_nothing():
    """The same function works in a shell and in an ordinary task."""
    progress(1, 2, "whatever")
    progress("not even looked at")


def test_progress_nobody_can_keep_does_not_disturb_the_task(stage, axme):
    """Redis away: the bar stands still, the work goes on."""

    class Gone:
        def __getattr__(self, name):
            def refuse(*_, **__):
                raise TrackerUnavailable("gone")

            return refuse

    axme._runtime = replace(axme.runtime, tracker=Gone())

    @axme.task
    def work():
        progress(1, 2)
        return "done"

    intent = axme.submit(work.s())
    stage._relay.flush()
    stage._run_next()

    assert intent.refresh().result == "done"


@pytest.mark.parametrize(
    "amounts", [(-1,), (1, -2), (float("nan"),), (float("inf"), 1), ("half",), (None,), (1, "two")]
)
def test_an_impossible_progress_is_refused(stage, axme, said, amounts):
    """It names both numbers."""

    @axme.task
    def work():
        with pytest.raises(BadInput, match="0 or more"):
            progress(*amounts)

    intent = stage.submit(work.s())

    assert (intent.status, said) == (Status.COMPLETED, [])
