"""Scenarios: agents, people and pauses in one durable run."""

from __future__ import annotations

import pytest

from axme_celery import BadInput, IntentFailed, KeyConflict, agents, scenarios
from axme_celery.model import Status

from .bundles import approve, bundle, check


def start(stage, axme, given, **more):
    applied = scenarios.apply(axme, given, **more)
    stage.run()
    return stage.intent(applied.intent.id)


def work(stage, axme, result=None, error=None):
    """The agent takes what lies in its mailbox, and answers it. Returns the payloads it was given."""
    handed, _ = agents.take(axme.runtime, "agent://change-checker", since=0, by="checker")
    for one in handed:
        agents.complete(axme.runtime, one.intent.id, result=result, error=error, by="agent://change-checker")
    stage.run()
    return [axme.runtime.codec.decode(one.intent.payload) for one in handed]


def test_an_agent_and_then_a_person_one_after_the_other(stage, axme):
    """The person sees what the agent found; the end has what each came to."""
    intent = start(stage, axme, bundle(), by="ops")
    (payload,) = work(stage, axme, {"ready": True})
    assert (payload["service"], payload["scenario"]["step_id"]) == ("gateway", "check")
    (wait,) = stage.inbox("operator")
    assert wait.request["context"]["results"] == {"check": {"ready": True}}

    done = stage.answer(intent, "approved", by="operator", comment="go")

    assert (done.status, done.type, done.requester) == (Status.COMPLETED, "intent.deployment.approval.v1", "ops")
    assert done.result["steps"]["check"] == {"ready": True}
    assert done.result["steps"]["approve"]["outcome"] == "approved"
    assert done.payload == {"service": "gateway", "version": "3.2.1"}
    assert done.tags == ("scenario:deploy.approval.v1",)


def test_a_killed_worker_does_no_step_twice(stage, axme):
    tell = {"step_id": "tell", "runtime_type": "notification", "assigned_to": "operator"}
    stage.kill("notify:tell#1", recorded=True)
    intent = start(stage, axme, bundle(tell, approve()))

    assert intent.status is Status.WAITING
    assert [step.name for step in intent.steps()] == ["notify:tell"]


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        ({"outcome": "rejected"}, Status.FAILED, "rejected"), ({"outcome": "approved"}, Status.COMPLETED, None),
        ({"outcome": "approved", "data": {"approved": False}}, Status.FAILED, "rejected"),
    ],
)  # fmt: skip
def test_a_no_ends_it(stage, axme, answer, status, code):
    intent = start(stage, axme, bundle(approve()))
    done = stage.answer(intent, answer["outcome"], by="operator", data=answer.get("data"))

    assert (done.status, (done.error or {}).get("code")) == (status, code)


def test_an_outcome_of_its_own_that_is_not_the_first_is_no_yes(stage, axme):
    intent = start(stage, axme, bundle(approve({"allowed_outcomes": ["ship", "defer"]})))

    assert stage.answer(intent, "defer", by="operator").error["code"] == "defer"


def test_on_failure_goes_on_elsewhere(stage, axme):
    undo = {"step_id": "undo", "runtime_type": "notification", "assigned_to": "operator"}
    intent = start(stage, axme, bundle(approve(on_failure="undo"), undo))
    done = stage.answer(intent, "rejected", by="operator", comment="too risky")

    assert done.status is Status.COMPLETED
    assert done.result["steps"]["approve"]["failed"] == "rejected"
    assert "too risky" in done.result["steps"]["approve"]["message"]
    assert done.result["steps"]["undo"] == {"notified": ["operator"]}


def test_an_agent_that_does_not_come_in_time_fails_the_step(stage, axme):
    intent = start(stage, axme, bundle(check()))
    stage.pass_time("61s")

    assert intent.refresh().error["code"] == "wait_timeout"
    with pytest.raises(IntentFailed, match="step 'check'"):
        intent.wait(0)


def test_an_agent_that_fails_is_asked_again_as_often_as_the_step_says(stage, axme):
    intent = start(stage, axme, bundle(check(retry={"max_retries": 1, "retry_delay_seconds": 20})))
    work(stage, axme, error={"code": "busy", "message": "later"})
    assert intent.refresh().status is Status.WAITING
    stage.pass_time("21s")
    work(stage, axme, error={"code": "busy", "message": "later"})

    assert intent.refresh().error["code"] == "agent_failed"


def test_a_task_of_ours_may_be_the_agent(stage, axme):
    @axme.agent("agent://change-checker")
    @axme.task
    def checks(payload):
        return {"checked": payload["version"]}

    intent = start(stage, axme, bundle(check()))

    assert intent.result["steps"]["check"] == {"checked": "3.2.1"}


def test_pauses_and_timeouts(stage, axme):
    delay = {"step_id": "pause", "runtime_type": "delay", "runtime_config": {"seconds": 3600}}
    late = {"step_id": "late", "runtime_type": "timeout", "runtime_config": {"seconds": 60}}
    intent = start(stage, axme, bundle(delay, late))
    stage.pass_time("59m")
    assert intent.refresh().waiting_reason == "WAITING_FOR_TIME"
    stage.pass_time("3m")

    assert intent.refresh().error["code"] == "wait_timeout"


def test_people_are_reminded_and_then_others_are_asked_as_well(stage, axme):
    intent = start(stage, axme, bundle(approve(escalate_to="boss", max_reminders=2)))
    stage.pass_time("31m")

    assert [n.kind for n in stage.notices] == ["wait_opened", "reminder", "reminder", "escalation"]
    assert stage.answer(intent, "approved", by="boss").status is Status.COMPLETED


def test_without_reminders_others_are_asked_when_the_time_is_over(stage, axme):
    quiet = {"remind_after_seconds": None, "remind_interval_seconds": None, "escalate_to": "boss"}
    intent = start(stage, axme, bundle(approve(**quiet)))
    stage.pass_time("61m")
    assert [w.title for w in stage.inbox("boss")] == ["Deploy?"]

    stage.pass_time("61m")
    assert intent.refresh().error["code"] == "wait_timeout"


def test_evidence_is_asked_for_where_a_step_wants_it(stage, axme):
    intent = start(stage, axme, bundle(approve({"task_type": "manual_action", "evidence_required": True})))
    with pytest.raises(BadInput):
        stage.answer(intent, "completed", by="operator")

    done = stage.answer(intent, "completed", by="operator", data={"evidence": "photo-7"})
    assert done.result["steps"]["approve"]["data"] == {"evidence": "photo-7"}


def test_an_agents_work_may_need_a_yes_as_well(stage, axme):
    intent = start(stage, axme, bundle(check(requires_approval=True)))
    work(stage, axme, {"ready": True})
    done = stage.answer(intent, "approved", by="operator")

    assert done.result["steps"]["check"]["result"] == {"ready": True}
    assert done.result["steps"]["check"]["approval"]["by"] == "operator"


def test_one_that_goes_in_circles_ends(stage, axme, monkeypatch):
    monkeypatch.setattr(scenarios, "MOST_DONE", 5)
    tell = {"step_id": "a", "runtime_type": "notification", "assigned_to": "operator", "on_success": "a"}
    intent = start(stage, axme, bundle(tell))

    assert intent.error["code"] == "endless"


def test_the_same_key_and_bundle_are_the_same_intent(stage, axme):
    first = scenarios.apply(axme, bundle(idempotency_key="once"))
    again = scenarios.apply(axme, bundle(idempotency_key="once"))

    assert (again.intent.id, first.is_repeat, again.is_repeat) == (first.intent.id, False, True)
    with pytest.raises(KeyConflict):
        scenarios.apply(axme, bundle(approve(), idempotency_key="once"))


def test_agents_are_made_known_once(stage, axme):
    first = scenarios.apply(axme, bundle(), owner="acme")
    again = scenarios.apply(axme, bundle(), owner="acme")

    assert first.agents == [("checker", "agent://change-checker", True)]
    assert again.agents == [("checker", "agent://change-checker", False)]
    assert axme.runtime.ledger.mailboxes.agent("agent://change-checker").owner == "acme"


@pytest.mark.parametrize(
    "given",
    [
        {}, bundle(check(assigned_to="x")),
        bundle(intent={"type": "a.v1", "deadline_at": "2020-01-01T00:00:00Z"}),
        bundle(agents=[{"role": "checker", "address": "change-checker", "create_if_missing": False}]),
    ],
)  # fmt: skip
def test_what_cannot_be_run_leaves_nothing_behind(stage, axme, given):
    with pytest.raises(BadInput):
        scenarios.apply(axme, given)

    assert list(axme.intents()) == []
    assert axme.runtime.ledger.mailboxes.agent("agent://change-checker") is None
