"""scenarios: a bundle is checked, started and watched."""

from __future__ import annotations

import json

import pytest

from tests.bundles import approve, bundle, check

from .command_line import desk_fixture, served_fixture  # noqa: F401


@pytest.fixture
def file(tmp_path):
    """``file(bundle)``: its file."""

    def write(given) -> str:
        path = tmp_path / "scenario.json"
        path.write_text(json.dumps(given))
        return str(path)

    return write


def test_a_bundle_is_checked_without_doing_anything(desk, file):
    good, wrong = bundle(), bundle(check(assigned_to="x"), agents=[])

    assert desk.run("scenarios", "validate", file(good)).stdout == "deploy.approval.v1: 2 steps can be run\n"
    refused = desk.run("scenarios", "validate", file(wrong), code=1)
    assert "error: step 'check': assigned_to is 'x'" in refused.stderr
    assert desk.json("list") == []
    assert json.loads(desk.run("scenarios", "validate", file(wrong), "--json", code=1).stdout)["warnings"] == []


def test_a_warning_keeps_nobody_from_applying(desk, file):
    ask = bundle({"step_id": "ask", "tool_id": "tool.human.x"}, humans=[])

    assert "warning: step 'ask': nobody is named" in desk.run("scenarios", "validate", file(ask)).stderr


def test_applied_it_is_an_intent_and_its_agents_are_known(desk, file):
    applied = desk.json("scenarios", "apply", file(bundle()), "--owner", "acme", "--key", "k")
    again = desk.run("scenarios", "apply", file(bundle()), "--key", "k")

    intent = desk.json("show", applied["intent_id"])
    assert (intent["type"], intent["requester"]) == ("intent.deployment.approval.v1", "olga")
    assert again.stdout.strip() == applied["intent_id"]
    assert applied["agents"] == [{"role": "checker", "address": "agent://change-checker", "created": True}]
    desk.run("scenarios", "apply", file(bundle(check())), "--key", "k", code=5)
    desk.run("scenarios", "apply", file({}), code=1)
    desk.run("scenarios", "apply", "no such file", code=2)


def test_it_is_watched_to_its_end(served, file):
    """By a worker that knows nothing of it but its own task."""
    pause = {"step_id": "pause", "runtime_type": "delay", "runtime_config": {"seconds": 1}}
    said = served.run("scenarios", "apply", file(bundle(pause)), "--watch").stdout

    assert "COMPLETED" in said or "completed" in said


def test_one_that_fails_says_so(served, file):
    pause = {"step_id": "late", "runtime_type": "timeout", "runtime_config": {"seconds": 1}}

    served.run("scenarios", "apply", file(bundle(pause)), "--watch", code=1)


def test_a_person_decides(served, file):
    applied = served.json("scenarios", "apply", file(bundle(approve())))
    intent = served.axme.intent(applied["intent_id"])
    served.reach(intent, "WAITING")
    served.run("approve", intent.id, actor="operator")

    assert served.reach(intent, "COMPLETED").result["steps"]["approve"]["by"] == "operator"
