"""The wrapper: a leg is a Celery task to everybody, and an ordinary task is left alone.

One worker with two children and a beat inside carries all of these; none of them breaks it.
"""

from __future__ import annotations

import os
import signal

import pytest
from celery import chord, group
from celery.exceptions import TaskRevokedError, TimeLimitExceeded
from celery.result import AsyncResult

from axme_celery import IntentCanceled, IntentFailed
from tests.e2e.harness import Stage, until

pytestmark = pytest.mark.xdist_group("signals")


def result_of(stage: Stage, intent) -> AsyncResult:
    """What anybody has who knows the task's id."""
    return stage.project.app.AsyncResult(stage.leg(intent).id)


# -- a leg, as Celery's callers see it -----------------------------------------------


def test_the_first_id_gives_the_last_result_through_a_wait_and_a_kill(stage):
    """``.delay()`` returns an id that stays good; meanwhile its state says WAITING."""
    with stage.held("through-2"):
        result = stage.project.ask.delay("through")
        intent = stage.intent_of(result)
        wait = stage.wait_asked(intent)
        until(lambda: result.state == "WAITING", "state WAITING")
        stage.axme.answer(wait, "approved", by="ana")
        killed = stage.wait_started("through", 2)
        os.kill(killed["pid"], signal.SIGKILL)
        stage.wait_started("through", 2, run=killed["run"] + 1)

    assert result.get(timeout=20) == "approved by ana"
    assert result.id == stage.leg(intent).id
    assert result.state == "SUCCESS"
    assert stage.pages_done("through") == [1, 2]


def test_delay_says_which_intent_it_made(stage):
    """``AsyncResult.intent_id``, and the payload is the call."""
    result = stage.project.double.delay(4)
    intent = stage.axme.intent(result.intent_id)

    assert result.get(timeout=20) == 8
    assert intent.wait(10) == 8
    assert intent.type == "e2e.double"
    assert intent.payload == {"task": "e2e.double", "args": [4], "kwargs": {}}


def test_a_task_that_ignores_its_result_is_kept_all_the_same(stage):
    """Celery stores nothing; the ledger knows the result."""
    result = stage.project.quiet.delay("hush")

    assert stage.intent_of(result).wait(20) == "hush"
    assert len(stage.effects("quiet", "hush")) == 1
    assert stage.project.app.backend.get(stage.project.app.backend.get_key_for_task(result.id)) is None


def test_get_raises_the_tasks_own_exception(stage):
    """Its class and its words; the intent failed with the same."""
    result = stage.project.out_of_paper.delay(3)

    with pytest.raises(Exception, match="tray 3 is empty") as raised:
        result.get(timeout=20)
    assert type(raised.value).__name__ == "OutOfPaper"
    with pytest.raises(IntentFailed) as failed:
        stage.intent_of(result).wait(10)
    assert failed.value.code == "OutOfPaper"


def test_get_of_a_canceled_intent_says_that_it_was_revoked(stage):
    """Though no worker held it."""
    result = stage.project.ask.delay("canceled")
    intent = stage.intent_of(result)
    stage.wait_asked(intent)

    stage.axme.cancel(intent.id, "not needed any more", by="ana")

    with pytest.raises(TaskRevokedError, match="not needed any more"):
        result.get(timeout=20)
    with pytest.raises(IntentCanceled):
        intent.wait(10)


def test_autoretry_for_gives_new_runs_and_repeats_no_step(stage):
    """Celery's retries, within Celery's max_retries; the step was recorded in the first run."""
    result = stage.project.stubborn.delay("mule", 2)
    intent = stage.intent_of(result)

    assert result.get(timeout=20) == "after 3 tries"
    assert stage.pages_done("mule") == [1]
    assert stage.leg(intent).run == 3
    assert stage.leg(intent).attempts == 1
    assert stage.events(intent).count("intent.leg_retried") == 2


def test_retry_with_a_countdown_and_other_arguments_waits_and_uses_them(stage):
    """``self.retry(args=, kwargs=, countdown=)`` means what it means in Celery."""
    result = stage.project.again.delay("later", countdown=0.6)
    intent = stage.intent_of(result)

    assert result.get(timeout=20) == {"retries": 1, "countdown": 7.0}
    first, second = stage.effects("tried", "later")
    assert second["at"] - first["at"] >= 0.6
    assert stage.pages_done("later") == [1]
    assert stage.leg(intent).run == 2


def test_retries_end_when_celery_has_had_enough(stage):
    """``max_retries`` of 2: three runs, then the exception it was retried for."""
    result = stage.project.endless.delay("spring")

    with pytest.raises(ConnectionError, match="still no answer"):
        result.get(timeout=20)
    assert len(stage.effects("tried", "spring")) == 3
    assert stage.wait_status(stage.intent_of(result), "FAILED").error["code"] == "ConnectionError"


def test_a_hard_time_limit_fails_the_intent(stage):
    """The child is killed; what it had recorded stays on record."""
    result = stage.project.overrun.delay("slow")

    with pytest.raises(TimeLimitExceeded):
        result.get(timeout=20)
    intent = stage.wait_status(stage.intent_of(result), "FAILED")
    assert intent.error["code"] == "time_limit"
    assert [s.name for s in intent.steps()] == ["page"]
    assert len(stage.effects("overrunning", "slow")) == 1


def test_revoking_a_running_task_cancels_its_intent(stage):
    """``revoke(terminate=True)``: the intent ends CANCELED and the leg runs nowhere again."""
    with stage.held("revoked-1"):
        result = stage.project.pages.delay("revoked", 2)
        intent = stage.intent_of(result)
        stage.wait_started("revoked", 1)
        result.revoke(terminate=True)
        stage.wait_status(intent, "CANCELED")

    with pytest.raises(TaskRevokedError):
        result.get(timeout=20)
    assert stage.pages_done("revoked") == []
    assert len(stage.effects("started", "revoked")) == 1


def test_revoking_a_task_that_waits_cancels_it_before_it_runs_again(stage):
    """The worker that gets its next message discards it; nothing after the wait happens."""
    result = stage.project.ask.delay("revoked-asleep")
    intent = stage.intent_of(result)
    wait = stage.wait_asked(intent)

    result.revoke()
    stage.project.plain.delay(1).get(timeout=20)
    stage.axme.answer(wait, "approved", by="ana")

    stage.wait_status(intent, "CANCELED")
    assert stage.pages_done("revoked-asleep") == [1]


def test_a_task_no_worker_knows_is_parked_and_goes_on_with_one_that_does(open_stage):
    """An old worker still runs while a new task is submitted: parked with the reason, not lost, not failed."""
    stage = open_stage()
    old = stage.worker(pool="solo", beat=True)
    intent = stage.axme.submit(stage.project.app.signature("e2e.later", args=("new",)))
    parked = until(lambda: (leg := stage.leg(intent)).status == "PARKED" and leg, "PARKED")
    assert "does not know the task 'e2e.later'" in parked.parked
    assert stage.axme.runtime.ledger.dead_letters_of(intent.id)[0].code == "unknown_task"
    old.stop()

    stage.worker(pool="solo", beat=True, environment={"E2E_LATER": "1"})
    stage.axme.unpark(intent.id, by="ana")

    assert intent.wait(20) == "new at last"
    assert stage.axme.runtime.ledger.dead_letters_of(intent.id)[0].state == "REPLAYED"


# -- every kind of task is reached -----------------------------------------------------


KINDS = {
    "plain": ("e2e.plain", (1,), 2),
    "shared_task": ("e2e.shared", (1,), 3),
    "class-based, register_task": ("e2e.class_based", (1,), 4),
    "a base with its own __call__": ("e2e.counted", (1,), 5),
    "a base with its own hook, bound": ("e2e.hooked", (1,), 6),
    "autoretry_for": ("e2e.retried", ("kinds", 1), "after 2 tries"),
    "bound, with steps": ("e2e.stepping", ("kinds", 2), [1, 2]),
    "of a module that only workers import": ("e2e.included", (4,), 12),
    "shared_task of such a module": ("e2e.included_shared", (4,), 11),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_wrapper_is_live_for_every_kind_of_task(stage, kind):
    """Submitted, an ordinary task of any kind is a leg: claimed, run, settled, and its result Celery's too."""
    name, arguments, expected = KINDS[kind]

    intent = stage.axme.submit(stage.project.app.signature(name, args=arguments))

    assert intent.wait(20) == expected
    leg = stage.leg(intent)
    assert leg.status == "DONE"
    assert leg.worker
    assert result_of(stage, intent).get(timeout=20) == expected


def test_bound_tasks_get_themselves_and_their_own_id(stage):
    """``self.request`` of a leg is that of any task; its id is the leg's."""
    intent = stage.axme.submit(stage.project.bound.s(5))

    seen = intent.wait(20)

    assert (seen["x"], seen["name"], seen["retries"]) == (5, "e2e.bound", 0)
    assert seen["id"] == stage.leg(intent).id
    assert seen["axme"] == {"intent": intent.id, "run": 1}


def test_a_base_class_of_the_projects_own_is_called_once(stage):
    """Its ``__call__`` and hooks run as for any task."""
    calls, starts = len(stage.effects("called")), len(stage.effects("before_start"))

    stage.axme.submit(stage.project.counted.s(1)).wait(20)
    stage.axme.submit(stage.project.hooked.s(1)).wait(20)

    assert len(stage.effects("called")) == calls + 1
    assert len(stage.effects("before_start")) == starts + 1


def test_a_leg_that_becomes_another_task_gives_that_ones_result(stage):
    """``self.replace`` works in a leg as it does outside of one."""
    intent = stage.axme.submit(stage.project.replaced.s(1))

    assert intent.wait(20) == 11
    assert stage.project.replaced.delay(1).get(timeout=20) == 11


# -- in Celery's own canvas ----------------------------------------------------------------


def test_a_chain_goes_on_after_the_wait_of_its_link(stage):
    """The message that resumes the leg carries the rest of the chain."""
    result = (stage.project.ask.s("in-a-chain") | stage.project.bound.si(7)).delay()
    waiting = until(lambda: [*stage.axme.intents(type="e2e.ask", status="WAITING")], "wait of the first link")

    stage.axme.answer(waiting[0].id, "approved", by="ana")

    assert result.get(timeout=20)["x"] == 7
    assert result.parent.get(timeout=20) == "approved by ana"


def test_a_chord_waits_for_its_waiting_header(stage):
    """The body runs once, when the last of the header has ended, a child having died in between."""
    project = stage.project
    with stage.held("header-b-2"):
        header = [project.ask.s("header-a"), project.pages.s("header-b", 2), project.plain.s(1)]
        result = chord(header, project.joined.s()).delay()
        waiting = until(lambda: [*stage.axme.intents(type="e2e.ask", status="WAITING")], "wait in the header")
        os.kill(stage.wait_started("header-b", 2)["pid"], signal.SIGKILL)
        stage.wait_started("header-b", 2, run=2)
        stage.axme.answer(waiting[0].id, "approved", by="ana")

    assert result.get(timeout=20) == 3


def test_a_group_gives_the_result_of_its_waiting_member_with_the_others(stage):
    """In order, once the last is there."""
    project = stage.project
    result = group(project.plain.s(1), project.ask.s("in-a-group"), project.plain.s(2)).delay()
    waiting = until(lambda: [*stage.axme.intents(type="e2e.ask", status="WAITING")], "wait in the group")
    assert not result.ready()

    stage.axme.answer(waiting[0].id, "approved", by="ana")

    assert result.get(timeout=20) == [2, "approved by ana", 3]


def test_links_and_a_durable_body_are_called_after_the_wait(stage):
    """``link`` of a leg, and a chord whose body is a leg that waits, in front of a chain's last link."""
    project = stage.project
    linked = project.ask.apply_async(("linked",), link=project.bound.si(8))
    stage.axme.answer(stage.wait_asked(stage.intent_of(linked)), "approved", by="ana")
    assert linked.get(timeout=20) == "approved by ana"
    (child,) = until(lambda: linked.children, "link")
    assert child.get(timeout=20)["x"] == 8

    result = (chord([project.plain.s(1), project.plain.s(2)], project.ask.si("body")) | project.bound.si(9)).delay()
    waiting = until(lambda: [*stage.axme.intents(type="e2e.ask", status="WAITING")], "wait of the body")
    stage.axme.answer(waiting[0].id, "approved", by="ana")
    assert result.get(timeout=20)["x"] == 9


def test_errbacks_of_a_leg_are_called_once(stage):
    """``link_error`` fires when the leg has failed for good."""
    project = stage.project
    result = project.out_of_paper.apply_async((4,), link_error=project.errback.si("jam"))

    with pytest.raises(Exception, match="tray 4"):
        result.get(timeout=20)
    until(lambda: stage.effects("errback", "jam"), "errback")
    assert project.plain.delay(1).get(timeout=20) == 2
    assert len(stage.effects("errback", "jam")) == 1


def test_a_task_that_expired_before_it_ran_cancels_its_intent(stage):
    """``expires`` means what it means in Celery, and the intent says so."""
    result = stage.project.double.apply_async((4,), countdown=0.5, expires=0.1)

    intent = stage.wait_status(stage.intent_of(result), "CANCELED")

    assert "expired" in intent.error["message"]
    with pytest.raises(TaskRevokedError):
        result.get(timeout=20)


# -- ordinary tasks are left alone --------------------------------------------------------


def test_an_ordinary_tasks_message_has_no_header_of_ours(stage):
    """What a worker receives of it is what plain Celery sends."""
    seen = stage.project.bound.delay(1).get(timeout=20)

    assert seen["axme"] is None
    assert not [name for name in seen["headers"] or {} if "axme" in name]


def test_ordinary_tasks_make_no_intents(stage):
    """They run, they return, the ledger does not hear of them."""
    before = sum(1 for _ in stage.axme.intents())

    results = [stage.project.plain.delay(n, y=n).get(timeout=20) for n in range(3)]
    results.append(stage.project.app.tasks["e2e.shared"].delay(1).get(timeout=20))
    results.append(stage.project.class_based.delay(1).get(timeout=20))
    results.append(stage.project.counted.delay(1).get(timeout=20))

    assert results == [0, 2, 4, 3, 4, 5]
    assert sum(1 for _ in stage.axme.intents()) == before


def test_an_ordinary_task_is_retried_as_ever(stage):
    """``autoretry_for`` goes through the broker, with Celery's own count."""
    assert stage.project.retried.delay("ordinary", 2).get(timeout=20) == "after 3 tries"


def test_an_ordinary_task_fails_as_ever(stage):
    """Its own exception, state FAILURE, and no dead letter."""
    result = stage.project.fails.delay("jammed")

    with pytest.raises(Exception, match="jammed") as raised:
        result.get(timeout=20)
    assert type(raised.value).__name__ == "OutOfPaper"
    assert result.state == "FAILURE"


def signals_of(stage: Stage, result: AsyncResult) -> list[str]:
    """Celery's signals of this task, in order, until the last of its last run."""
    heard = [e["signal"] + (":" + e["state"] if e["state"] else "") for e in stage.effects("signal", result.id)]
    return heard if heard and heard[-1].startswith("task_postrun") else []


def test_an_ordinary_tasks_signals_are_celerys(stage):
    """In Celery's order, each once."""
    success = stage.project.plain.delay(1)
    failure = stage.project.fails.delay("signals")
    retried = stage.project.retried.delay("signals", 1)
    for result in (success, failure, retried):
        result.get(timeout=20, propagate=False)

    assert until(lambda: signals_of(stage, success), "signals") == [
        "task_prerun", "task_success", "task_postrun:SUCCESS"
    ]  # fmt: skip
    assert until(lambda: signals_of(stage, failure), "signals") == [
        "task_prerun", "task_failure", "task_postrun:FAILURE"
    ]  # fmt: skip
    ended = until(lambda: len(heard := signals_of(stage, retried)) == 6 and heard, "signals")
    # The second run may begin before the first has told its end.
    assert sorted(ended) == sorted([
        "task_prerun", "task_retry", "task_postrun:RETRY", "task_prerun", "task_success", "task_postrun:SUCCESS"
    ])  # fmt: skip


def test_a_legs_signals_are_those_of_a_task_and_a_rest_is_an_ignore(stage):
    """What observes tasks (Sentry, OpenTelemetry) sees two runs, the first of which ended without a result."""
    result = stage.project.ask.delay("observed")
    intent = stage.intent_of(result)
    wait = stage.wait_asked(intent)
    until(lambda: len(signals_of(stage, result)) == 2, "end of the first run")
    stage.axme.answer(wait, "approved", by="ana")
    result.get(timeout=20)

    assert until(lambda: len(heard := signals_of(stage, result)) == 5 and heard, "end of the second run") == [
        "task_prerun", "task_postrun:IGNORED", "task_prerun", "task_success", "task_postrun:SUCCESS"
    ]  # fmt: skip


def test_steps_outside_an_intent_are_ordinary_calls(stage):
    """The same code runs under plain Celery: every call is made."""
    for _ in range(2):
        assert stage.project.stepping.delay("outside", 2).get(timeout=20) == [1, 2]

    assert [e["page"] for e in stage.effects("jotted", "outside")] == [1, 2, 1, 2]
