"""Every pool and every broker carries an intent through its steps and all four waits."""

from __future__ import annotations

import pytest

from axme_celery.demo import files

from .harness import Stage, until


def travel(stage: Stage, name: str) -> None:
    """Submit a journey, answer whatever it asks, and see that it went as told."""
    result = stage.project.journey.delay(name)
    intent = stage.intent_of(result)
    stage.wait_status(intent, "WAITING")
    assert intent.waiting_reason == "WAITING_FOR_TOOL"
    stage.axme.complete_tool("warehouse", f"{name}-job", {"rows": 3})
    asked = until(
        lambda: next((w for w in intent.waits() if w.kind == "HUMAN" and w.status == "OPEN"), None), "question"
    )
    stage.axme.answer(asked, "approved", by="ana")

    ended = result.get(timeout=40)

    assert ended == {
        "intent": intent.id, "before": 1, "rows": {"rows": 3}, "approved": True, "by": "ana", "doubled": 42, "after": 2
    }  # fmt: skip
    assert intent.refresh().result == ended
    assert stage.pages_done(name) == [1, 2]
    assert [wait.kind.value for wait in intent.waits()] == ["TOOL", "HUMAN", "TIME", "AGENT"]
    assert (stage.leg(intent).run, stage.leg(intent).attempts) == (5, 1)
    assert [event.seq for event in intent.events()] == list(range(1, intent.seq + 1))


def test_threads_on_redis_and_postgresql(open_stage):
    """Several legs in one process."""
    stage = open_stage(ledger="postgres")
    stage.worker(pool="threads", concurrency=4, beat=True)

    travel(stage, "threads")


def test_solo_on_the_file_system_and_sqlite(open_stage, tmp_path):
    """No server at all: the ledger's own database as tracker, results in SQLite, and files as broker.

    By kombu's filesystem transport with whole writes: its own would have a reader end that takes half a message.
    """
    folders = {name: tmp_path / name for name in ("messages", "control")}
    for folder in folders.values():
        folder.mkdir()
    stage = open_stage(
        broker=f"{files.SCHEME}://",
        result_backend=f"db+sqlite:///{tmp_path}/results.db",
        broker_transport_options={
            "data_folder_in": str(folders["messages"]), "data_folder_out": str(folders["messages"]),
            "control_folder": str(folders["control"]), "polling_interval": 0.05,
        },
    )  # fmt: skip
    stage.worker(pool="solo", beat=True)
    assert stage.axme.settings.redis_url is None

    travel(stage, "solo")


@pytest.mark.parametrize("ledger", ["postgres", "sqlite"])
def test_gevent_on_redis_and_both_ledgers(open_stage, ledger):
    """Greenlets instead of threads: psycopg and SQLite serve them; a leg that waits for I/O holds nobody up."""
    stage = open_stage(ledger=ledger)
    stage.beat(ready=False)
    stage.worker(pool="gevent", concurrency=10)

    with stage.held("standing-1"):
        standing = stage.axme.submit(stage.project.pages.s("standing", 1))
        stage.wait_started("standing", 1)
        travel(stage, "gevent")
    assert standing.wait(20) == [1]


def test_prefork_on_rabbitmq_and_postgresql(open_stage, rabbitmq_url, rabbitmq_queue):
    """No Redis anywhere: results come back by message, and the ledger's database is the tracker."""
    stage = open_stage(
        ledger="postgres", broker=rabbitmq_url, result_backend="rpc://", task_default_queue=rabbitmq_queue,
        task_default_exchange=rabbitmq_queue, task_default_routing_key=rabbitmq_queue,
    )  # fmt: skip
    stage.worker(beat=True)
    assert stage.axme.settings.redis_url is None

    travel(stage, "prefork")
