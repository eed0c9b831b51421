"""Ordinary tasks named in ``axme_tasks``, on real workers."""

from __future__ import annotations

import os
import signal

import pytest
from celery import chain, chord

from .harness import until

NAMED = {"axme_tasks": ["e2e.bound", "e2e.calls", "e2e.written", "e2e.joined", "e2e.hooked"]}


@pytest.mark.parametrize(
    ("pool", "concurrency", "ledger"),
    [("prefork", 2, "postgres"), ("threads", 4, "sqlite"), ("gevent", 10, "postgres")],
)
def test_named_tasks_are_intents_on_every_pool(open_stage, pool, concurrency, ledger):
    """Called by hand, as links, as a chord's body, and by beat: each is kept, and runs once."""
    every = {"often": {"task": "e2e.bound", "schedule": 0.5, "args": [99]}}
    stage = open_stage(ledger=ledger, beat_schedule=every, **NAMED)
    project, axme = stage.project, stage.axme
    worker = stage.worker(pool=pool, concurrency=concurrency)
    stage.beat()

    called = project.bound.delay(1)
    seen = called.get(timeout=20)
    assert seen["axme"] == {"intent": called.intent_id, "run": 1}
    assert seen["id"] == called.id
    assert axme.intent(called.intent_id).wait(10) == seen

    linked = chain(project.plain.s(1), project.bound.s()).delay()
    assert linked.get(timeout=20)["x"] == 2
    joined = chord([project.hooked.s(1), project.plain.s(1)], project.joined.s()).delay()
    assert joined.get(timeout=20) == 2
    until(lambda: [*axme.intents(type="e2e.joined", status="COMPLETED")], "intent of a chord's body")
    assert len([*axme.intents(type="e2e.hooked", status="COMPLETED")]) == 1
    assert [*axme.intents(type="e2e.plain")] == []

    calling = project.calls.delay(5)
    child = calling.get(timeout=20)
    intent = axme.intent(calling.intent_id)
    assert intent.wait(20) == child
    assert [(leg.id, leg.called_by) for leg in intent.legs()] == [(calling.id, None), (child, calling.id)]
    assert project.app.AsyncResult(child).get(timeout=20)["axme"] == {"intent": intent.id, "run": 1}

    def by_beat():
        return [i for i in axme.intents(type="e2e.bound", status="COMPLETED") if i.payload["args"] == [99]]

    until(lambda: len(by_beat()) >= 2, "intents that beat made")
    assert all(leg.run == 1 for i in by_beat() for leg in i.legs())

    if pool == "prefork":
        with stage.held("cut-2"):
            result = project.written.delay("cut", 3)
            os.kill(stage.wait_started("cut", 2)["pid"], signal.SIGKILL)
            stage.wait_started("cut", 2, run=2)
    else:
        with stage.held("cut-2"):
            result = project.written.delay("cut", 3)
            stage.wait_started("cut", 2)
            worker.kill_group()
            stage.worker(pool=pool, concurrency=concurrency, ready=False)
            stage.wait_started("cut", 2, run=2)
    assert result.get(timeout=30) == [1, 2, 3]
    assert stage.pages_done("cut") == [1, 2, 3]


def test_a_worker_whose_settings_are_refused_does_not_start(open_stage):
    """It would run legs as ordinary tasks; it says what is wrong instead."""
    stage = open_stage()
    stage.config["axme_tsks"] = ["e2e.*"]

    worker = stage.worker(pool="solo", ready=False)

    worker.wait_ended(40)
    assert "unknown setting axme_tsks, did you mean axme_tasks?" in worker.text
