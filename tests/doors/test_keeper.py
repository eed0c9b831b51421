"""The keeper in a worker's parent: leases are renewed, dead children noticed, a stopping worker's legs handed back."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.e2e.harness import LEASE_SECONDS, until

pytestmark = pytest.mark.xdist_group("keeper")


def seconds_between(stage, name: str, page: int, killed_at: float, run: int) -> float:
    """From a kill until the next run of the leg was at the same step."""
    return stage.wait_started(name, page, run=run)["at"] - killed_at


# -- children that die ------------------------------------------------------------------


def test_the_leg_of_a_killed_child_runs_again_at_once(stage):
    """The parent sees its child die: no lease has to run out, and recorded steps are not done again."""
    taken = []
    for n in range(3):
        name = f"child-{n}"
        with stage.held(f"{name}-3"):
            intent = stage.axme.submit(stage.project.pages.s(name, 4))
            victim = stage.wait_started(name, 3)
            killed_at = time.monotonic()
            os.kill(victim["pid"], signal.SIGKILL)
            taken.append(seconds_between(stage, name, 3, killed_at, run=2))
        assert intent.wait(20) == [1, 2, 3, 4]
        assert stage.pages_done(name) == [1, 2, 3, 4]
        assert [e["page"] for e in stage.effects("started", name)] == [1, 2, 3, 3, 4]
        assert stage.leg(intent).attempts == 2
        # Its lease would have run out "silent"; the parent saw how the child ended.
        (lost,) = [e for e in intent.events() if e.type == "intent.leg_lost"]
        assert "signal 9" in lost.details["cause"]

    print("killed child to the next run at its step:", ", ".join(f"{s * 1000:.0f} ms" for s in taken))


def test_what_the_killed_child_did_not_finish_is_what_the_next_run_does(stage):
    """The dead worker is named in the history."""
    with stage.held("named-1"):
        intent = stage.axme.submit(stage.project.pages.s("named", 1))
        victim = stage.wait_started("named", 1)
        os.kill(victim["pid"], signal.SIGKILL)
        stage.wait_running(intent, 2)
    intent.wait(20)

    (lost,) = [e for e in intent.events() if e.type == "intent.leg_lost"]
    assert lost.details["worker"].endswith(f":{victim['pid']}")
    assert "signal 9" in lost.details["cause"]


def test_acknowledging_late_adds_no_second_run(stage):
    """``acks_late`` and ``reject_on_worker_lost`` would have the broker deliver it again: there is one run more, not two."""
    with stage.held("late-2"):
        intent = stage.axme.submit(stage.project.late_pages.s("late", 3))
        os.kill(stage.wait_started("late", 2)["pid"], signal.SIGKILL)
        stage.wait_started("late", 2, run=2)

    assert intent.wait(20) == [1, 2, 3]
    assert [e["page"] for e in stage.effects("started", "late")] == [1, 2, 2, 3]
    assert stage.leg(intent).run == 2
    until(lambda: stage.redis.admin.hlen("unacked") == 0, "all messages acknowledged")


# -- leases -------------------------------------------------------------------------------


def test_a_step_that_never_lets_go_of_its_processor_keeps_its_lease(stage):
    """The parent renews, not the child: a step of one and a half leases is not taken for dead."""
    intent = stage.axme.submit(stage.project.busy.s("spin", 1.5 * LEASE_SECONDS))

    assert intent.wait(30) == "spin"
    assert len(stage.effects("spinning", "spin")) == 1
    assert stage.leg(intent).run == 1


# -- workers that stop ------------------------------------------------------------------------


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_deploy_hands_a_leg_back_at_its_next_step(open_stage, pool):
    """SIGTERM in the middle of a step: the step is recorded, the rest runs on another worker, no attempt is counted."""
    stage = open_stage()
    stage.beat(ready=False)
    old = stage.worker(pool=pool, concurrency=1)
    with stage.held("deploy-2"):
        intent = stage.axme.submit(stage.project.pages.s("deploy", 4))
        stage.wait_started("deploy", 2)
        old.send(signal.SIGTERM)
        new = stage.worker(pool=pool, concurrency=1)
    old.wait_ended()

    assert intent.wait(20) == [1, 2, 3, 4]
    assert stage.pages_done("deploy") == [1, 2, 3, 4]
    assert len(stage.effects("started", "deploy")) == 4
    assert "intent.handed_back" in stage.events(intent)
    assert "intent.leg_lost" not in stage.events(intent)
    leg = stage.leg(intent)
    assert (leg.run, leg.attempts) == (2, 1)
    assert new.is_running


def test_a_cold_shutdown_hands_back_at_once_and_counts_no_attempt(open_stage):
    """SIGQUIT kills the step: it is done again elsewhere, without waiting for a lease. The others are not."""
    stage = open_stage(axme_lease_seconds=30.0)
    old = stage.worker()
    with stage.held("cold-2"):
        intent = stage.axme.submit(stage.project.pages.s("cold", 3))
        stage.wait_started("cold", 2)
        stage.worker()
        stopped_at = time.monotonic()
        old.send(signal.SIGQUIT)
        again = seconds_between(stage, "cold", 2, stopped_at, run=2)
    old.wait_ended()

    assert intent.wait(20) == [1, 2, 3]
    assert stage.pages_done("cold") == [1, 2, 3]
    leg = stage.leg(intent)
    assert (leg.run, leg.attempts) == (2, 1)
    assert "intent.handed_back" in stage.events(intent)
    print(f"SIGQUIT to the next run at its step: {again:.2f} s")
    assert again < 10


def test_a_parent_killed_alone_is_a_dead_worker(open_stage):
    """Its child may live on for a moment, but the leg goes to another worker, and is done there."""
    stage = open_stage()
    stage.beat(ready=False)
    worker = stage.worker(concurrency=1)
    with stage.held("orphan-2"):
        intent = stage.axme.submit(stage.project.pages.s("orphan", 3))
        orphan = stage.wait_started("orphan", 2)
        worker.send(signal.SIGKILL)
        stage.worker(concurrency=1)
        stage.wait_started("orphan", 2, run=2)

    assert intent.wait(20) == [1, 2, 3]
    assert {step.run for step in intent.steps() if step.position > 0} == {2}
    assert [e["page"] for e in stage.effects("started", "orphan") if e["pid"] == orphan["pid"]] == [1, 2]


def test_a_leg_waiting_in_a_stopping_workers_hands_goes_to_another(open_stage):
    """What a worker had fetched but not begun is not lost with its orderly end."""
    stage = open_stage()
    old = stage.worker(concurrency=1)
    with stage.held("first-1"):
        first = stage.axme.submit(stage.project.pages.s("first", 1))
        stage.wait_started("first", 1)
        others = stage.axme.submit_many([stage.project.pages.s(f"fetched-{n}", 1) for n in range(3)])
        until(lambda: old.text.count("e2e.pages[") >= 3, "messages fetched")
        old.send(signal.SIGTERM)
    old.wait_ended()
    stage.worker(concurrency=1)

    assert first.wait(20) == [1]
    assert [intent.wait(20) for intent in others] == [[1], [1], [1]]


def test_what_a_dead_worker_had_received_and_not_begun_is_sent_again(open_stage):
    """Its messages are lost with it, or come back with the visibility timeout: nobody waits for that."""
    stage = open_stage()
    worker = stage.worker(concurrency=1)
    with stage.held("first-1"):
        first = stage.axme.submit(stage.project.pages.s("first", 1))
        stage.wait_started("first", 1)
        others = [stage.axme.submit(stage.project.double.s(n)) for n in range(3)]
        legs = [stage.leg(intent).id.encode() for intent in others]
        until(lambda: all(any(b"received/" + leg in m for m in members(stage)) for leg in legs), "leases on them")
        worker.kill_group()
    stage.worker(beat=True)

    assert [intent.wait(20) for intent in (first, *others)] == [[1], 0, 2, 4]
    until(lambda: members(stage) == [], "end of all leases")
    assert [stage.leg(intent).run for intent in others] == [1, 1, 1]


def members(stage):
    """All leases there are."""
    return [m for key in stage.redis.admin.scan_iter("*leases*") for m in stage.redis.admin.zrange(key, 0, -1)]
