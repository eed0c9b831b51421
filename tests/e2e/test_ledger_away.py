"""Workers while the ledger's database is away: they record no lies, and go on soon after it is back."""

from __future__ import annotations

from celery.result import AsyncResult

from axme_celery.ledger import migrate
from tests.servers import PrivatePostgres

from .harness import until


def test_messages_that_come_while_the_ledger_is_away_are_run_when_it_is_back(open_stage, private_postgres: PrivatePostgres):
    """Nobody is told that their task failed, chains go on, and it does not take until a message is presumed lost."""
    url = private_postgres.create_database()
    migrate.upgrade(url)
    stage = open_stage(ledger=url, axme_requeue_seconds=600)
    project = stage.project
    chain = (project.small.s(1) | project.plain.s(10)).apply_async()
    results = [project.small.delay(number) for number in range(2, 6)]
    by_name = stage.project.app.send_task("e2e.small", (6,), task_id="sent-by-name")
    assert stage.axme.drain(5)
    assert stage.redis.admin.llen("celery") == 6

    private_postgres.crash()
    worker = stage.worker()
    until(lambda: worker.text.count("is put back") >= 6, "six messages that were put back")
    states = {AsyncResult(result.id, app=project.app).state for result in (chain.parent, *results, by_name)}
    private_postgres.start()

    assert states == {"PENDING"}
    assert [result.get(timeout=30) for result in results] == [2, 3, 4, 5]
    assert chain.get(timeout=30) == 11
    assert by_name.get(timeout=30) == 6
    assert {intent.status for intent in stage.axme.intents()} == {"COMPLETED"}
