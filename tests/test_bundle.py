"""Bundles: whatever published ones look like is read, and what cannot be run is named."""

from __future__ import annotations

import pytest

from axme_celery.bundle import RUNTIME_TYPES, TASK_TYPES, read

from .bundles import AGENT, PERSON, approve, bundle, check


def kinds(given):
    return [(step["id"], step["kind"], step["on_success"], step["on_failure"]) for step in given.steps]


def test_steps_follow_one_another_as_they_are_written():
    found = read(bundle())

    assert (found.errors, found.warnings) == ([], [])
    assert kinds(found) == [("check", "agent", "approve", None), ("approve", "human", None, None)]
    assert found.steps[0]["address"] == "agent://change-checker"
    assert found.steps[1]["to"] == ["operator"]


def test_once_a_step_says_what_follows_one_that_does_not_is_an_end():
    found = read(bundle(check(on_success="approve"), {**check(), "step_id": "other"}, approve()))

    assert [step["on_success"] for step in found.steps] == ["approve", None, None]


def test_what_is_there_for_failures_is_not_fallen_into():
    undo = {"step_id": "undo", "runtime_type": "notification", "assigned_to": "operator"}
    found = read(bundle(check(on_failure="undo"), approve(), undo))

    assert kinds(found) == [
        ("check", "agent", "approve", "undo"), ("approve", "human", None, None), ("undo", "notification", None, None),
    ]  # fmt: skip


def test_a_workflow_may_begin_elsewhere():
    found = read(bundle(workflow={"entry_step": "approve", "steps": [check(), approve()]}))

    assert (found.entry, found.errors) == ("approve", [])


@pytest.mark.parametrize("runtime", RUNTIME_TYPES)
def test_every_internal_step_of_the_schema_is_read(runtime):
    step = {"step_id": "it", "runtime_type": runtime, "runtime_config": {"seconds": 5}, "assigned_to": "operator"}

    assert read(bundle(step)).errors == []


@pytest.mark.parametrize(
    ("tool", "kind"),
    [
        ("tool.approval.human_signoff", "human"), ("tool.human.approval.v1", "human"),
        ("tool.notification.notify_owner", "notification"), ("tool.internal.escalation", "escalation"),
    ],
)  # fmt: skip
def test_internal_steps_are_also_known_by_the_tools_examples_name(tool, kind):
    found = read(bundle({"step_id": "it", "tool_id": tool, "assigned_to": "operator"}))

    assert (found.errors, found.steps[0]["kind"]) == ([], kind)


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_every_kind_of_human_task_is_read(task_type):
    assert read(bundle(approve({"task_type": task_type}))).errors == []


def test_the_older_form_is_read_too():
    """Steps at the top, ``config``, no steps at all, humans without contact, hyphens in the id."""
    older = bundle(scenario_id="my-scenario.v1")
    older["workflow_steps"] = [
        {"step_id": "tell", "runtime_type": "notification", "config": {"subject": "Read this", "body": "Now."}}
    ]
    del older["workflow"]
    found = read(older)

    assert found.errors == []
    assert (found.steps[0]["subject"], found.steps[0]["body"]) == ("Read this", "Now.")
    assert kinds(read({k: v for k, v in bundle().items() if k != "workflow"})) == [("task", "agent", None, None)]


def test_an_intent_with_a_human_task_alone_is_a_step():
    found = read({
        "scenario_id": "a.b", "humans": [{"role": "ops", "contact": "ops@example.com"}],
        "intent": {"type": "a.b.v1", "human_task": {"title": "Sure?"}},
    })  # fmt: skip

    assert found.errors == []
    assert (found.steps[0]["kind"], found.steps[0]["to"]) == ("human", ["ops", "ops@example.com"])


def test_whom_to_write_to_may_answer():
    found = read(bundle(approve({"notify_email": "ana@example.com"})))

    assert found.steps[0]["to"] == ["operator", "ana@example.com"]


def test_the_intents_reminders_are_its_steps_unless_they_have_their_own():
    plain = {"step_id": "ask", "tool_id": "tool.human.x", "assigned_to": "operator"}
    given = bundle(plain)
    given["intent"] |= {"remind_after_seconds": 60, "max_reminders": 2, "escalate_to": "boss"}
    step = read(given).steps[0]

    assert (step["remind_every"], step["max_reminders"], step["escalate_to"]) == (60, 2, ["boss"])


def test_what_would_not_be_done_is_a_warning():
    plain = {"step_id": "ask", "tool_id": "tool.human.x", "escalate_to": "boss"}
    found = read(bundle(plain, humans=[]))

    assert found.errors == []
    assert len(found.warnings) == 2
    assert "nobody is named" in found.warnings[0] and "nobody is ever escalated to" in found.warnings[1]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (7, "must be a JSON object"), ({}, "scenario_id is missing"), (bundle(scenario_id="a b"), "scenario_id is 'a b'"),
        (bundle(intent=None), "intent is missing"), (bundle(intent={"type": ""}), "intent.type"),
        (bundle(intent={"type": "a", "payload": []}), "payload must be an object"),
        (bundle(intent={"type": "a", "deadline_at": "soon"}), "deadline_at"),
        (bundle(agents=[AGENT, AGENT]), "'checker' is there twice"), (bundle(agents=[{"role": "x"}], humans=7), "humans"),
        (bundle(agents=[{"role": "x", "address": "a b"}]), "address"), (bundle(agents="x"), "agents must be a list"),
        (bundle(agents=[{**AGENT, "delivery_mode": "pigeon"}]), "delivery_mode"),
        (bundle(humans=[PERSON, PERSON]), "'operator' is there twice"), (bundle(humans=[{}]), "role is missing"),
        (bundle(workflow=[], agents=[]), "nothing to do"), (bundle(workflow=7), "workflow must be an object"),
        (bundle(workflow={"macro_id": "m"}), "macro_id"), (bundle(check(), check()), "'check' is there twice"),
        (bundle(check(step_id="a b")), "step_id is 'a b'"), (bundle(check(step_id=None)), "step_id is missing"),
        (bundle(check(on_success="x")), "which is no step"), (bundle(check(on_failure="x")), "which is no step"),
        (bundle(workflow={"entry_step": "x", "steps": [check()]}), "entry_step"), (bundle(check(retry=7)), "retry"),
        (bundle(check(assigned_to="x")), "no role"), (bundle({"step_id": "a"}), "nobody does it"),
        (bundle({"step_id": "a", "runtime_type": "magic"}), "runtime_type"), (bundle(check(input=7)), "input"),
        (bundle({"step_id": "a", "runtime_type": "delay"}), "how long"), (bundle(approve(human_task=7)), "human_task"),
        (bundle(approve({"task_type": "magic"})), "task_type"), (bundle(approve({"allowed_outcomes": []})), "outcomes"),
        (bundle(approve({"form_schema": 7})), "form_schema"), (bundle(check(step_deadline_seconds=0)), "deadline"),
        (bundle(check(step_deadline_seconds=True)), "deadline"), (bundle(check(retry={"max_retries": "x"})), "max_retries"),
        (bundle(*[check(step_id=f"s{n}") for n in range(101)]), "limit is 100"), (bundle(description=7), "description"),
        (bundle({"step_id": "a", "runtime_type": "delay", "runtime_config": 7}), "runtime_config"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_named(given, why):
    assert any(why in error for error in read(given).errors), read(given).errors


def test_the_same_steps_are_the_same_program():
    assert read(bundle()).compile_id == read(bundle(description="other words")).compile_id
    assert read(bundle()).compile_id != read(bundle(check())).compile_id
