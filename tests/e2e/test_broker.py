"""The broker is away, hangs, forgets, or says everything twice: callers are not held up, and every leg runs once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from .harness import Stage, until

QUEUE = "celery"


def published(stage: Stage, count: int) -> list[bytes]:
    """Until so many messages are in the queue: the raw entries."""
    redis = stage.redis.admin
    until(lambda: redis.llen(QUEUE) == count, f"{count} messages in the queue")
    return redis.lrange(QUEUE, 0, -1)


def timed(call: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    began = time.monotonic()
    call()
    return time.monotonic() - began


def test_what_was_submitted_while_the_broker_was_down_runs_when_it_is_back(open_stage):
    """``submit``, ``submit_many`` and ``delay`` return; nothing has to be sent again by hand."""
    stage = open_stage()
    stage.redis.kill()

    intents: list[Any] = []
    taken = [
        timed(lambda: intents.append(stage.axme.submit(stage.project.pages.s("down-0", 1)))),
        timed(lambda: intents.extend(stage.axme.submit_many([stage.project.pages.s("down-1", 1)]))),
        timed(lambda: intents.append(stage.intent_of(stage.project.pages.delay("down-2", 1)))),
    ]
    assert [intent.refresh().status for intent in intents] == ["SUBMITTED"] * 3
    stage.redis.start()
    stage.worker(beat=True)

    assert [intent.wait(40) for intent in intents] == [[1], [1], [1]]
    assert [stage.pages_done(f"down-{n}") for n in range(3)] == [[1], [1], [1]]
    print("broker down, calls took", ", ".join(f"{s * 1000:.0f} ms" for s in taken))
    assert max(taken) < 2.0


def test_a_hung_broker_holds_no_caller_up(open_stage):
    """It accepts connections and says nothing; submit, answer, report and cancel return, and it all happens afterwards."""
    stage = open_stage()
    stage.worker(beat=True)
    project, axme = stage.project, stage.axme
    asking = axme.submit(project.ask.s("hung"))
    reporting = axme.submit(project.journey.s("hung-too"))
    doomed = axme.submit(project.ask.s("doomed"))
    for intent in (asking, reporting, doomed):
        stage.wait_status(intent, "WAITING")

    submitted = []
    with stage.redis.paused():
        taken = {
            "submit": timed(lambda: submitted.append(axme.submit(project.pages.s("meanwhile", 1)))),
            "delay": timed(lambda: submitted.append(stage.intent_of(project.pages.delay("meanwhile-too", 1)))),
            "answer": timed(lambda: axme.answer(asking.id, "approved", by="ana")),
            "complete_tool": timed(lambda: axme.complete_tool("warehouse", "hung-too-job", 1)),
            "cancel": timed(lambda: doomed.cancel("no longer wanted")),
        }

    assert asking.wait(30) == "approved by ana"
    assert [intent.wait(30) for intent in submitted] == [[1], [1]]
    until(lambda: reporting.refresh().waiting_reason == "WAITING_FOR_HUMAN", "next wait")
    assert doomed.refresh().status == "CANCELED"
    print("broker hung:", ", ".join(f"{name} {s * 1000:.0f} ms" for name, s in taken.items()))
    # 500 ms are promised; this machine also runs other tests.
    assert max(taken.values()) < 2.0


def test_queued_legs_run_though_their_messages_were_flushed(open_stage):
    """FLUSHALL, and nobody told: after ``axme_requeue_seconds`` they are published again."""
    stage = open_stage(axme_requeue_seconds=2.0)
    intents = stage.axme.submit_many([stage.project.pages.s(f"flushed-{n}", 1) for n in range(5)])
    published(stage, 5)

    stage.redis.admin.flushall()
    stage.worker(beat=True)

    assert [intent.wait(30) for intent in intents] == [[1]] * 5
    assert Counter(e["name"] for e in stage.effects("started")) == Counter(f"flushed-{n}" for n in range(5))


@pytest.mark.parametrize("trouble", ["flushed", "restarted empty"])
def test_running_and_resting_legs_do_not_mind_an_emptied_redis(open_stage, trouble):
    """Leases and timers are put back from the ledger: what runs is not taken for dead, what rests wakes up once."""
    stage = open_stage(axme_requeue_seconds=2.0)
    stage.worker(beat=True)
    with stage.held("running-2"):
        running = stage.axme.submit(stage.project.pages.s("running", 3))
        resting = stage.axme.submit(stage.project.nap.s("resting", 2.0))
        stage.wait_started("running", 2)
        stage.wait_status(resting, "WAITING")
        if trouble == "flushed":
            stage.redis.admin.flushall()
        else:
            stage.redis.kill()
            stage.redis.start()
            # A worker that loses its Redis with a message in hand may end (kombu 5.7: "Unrecoverable error", once what
            # it runs is done). Whoever supervises it starts another.
            stage.worker(beat=True)
        assert resting.wait(30) == "resting"

    assert running.wait(30) == [1, 2, 3]
    assert stage.pages_done("running") == [1, 2, 3]
    assert stage.leg(running).run == 1
    assert len(stage.effects("woke", "resting")) == 1
    assert stage.axme.submit(stage.project.small.s(1)).wait(30) == 1


def test_every_message_delivered_three_times_is_one_run_each(open_stage):
    """Copies in the queue, copies while the leg runs or rests, and copies after it has ended: none runs anything."""
    stage = open_stage()
    project = stage.project
    with stage.held("copies-held-1"):
        works = [project.pages.s(f"copies-{n}", 2) for n in range(8)]
        works += [project.ask.s("copies-ask"), project.pages.s("copies-held", 2)]
        intents = stage.axme.submit_many(works)
        raw = published(stage, 10)
        stage.redis.admin.rpush(QUEUE, *raw, *raw)
        stage.worker(beat=True, concurrency=3)
        stage.wait_started("copies-held", 1)
        wait = stage.wait_asked(intents[8])
        for intent in intents[:8]:
            assert intent.wait(30) == [1, 2]
        stage.redis.admin.lpush(QUEUE, *raw)
        until(lambda: stage.redis.admin.llen(QUEUE) == 0, "all copies fetched")
        stage.axme.answer(wait, "approved", by="ana")
        assert intents[8].wait(30) == "approved by ana"
    assert intents[9].wait(30) == [1, 2]
    stage.redis.admin.lpush(QUEUE, *raw)
    until(lambda: stage.redis.admin.llen(QUEUE) == 0, "all copies fetched")
    assert project.plain.delay(1).get(timeout=20) == 2

    counted = Counter((e["name"], e["page"]) for e in stage.effects("started"))
    assert set(counted.values()) == {1}
    assert len(counted) == 20
    assert {stage.leg(intent).run for intent in (*intents[:8], intents[9])} == {1}
    assert stage.leg(intents[8]).run == 2
    assert {intent.refresh().status for intent in intents} == {"COMPLETED"}
