"""Celery's own worker for tests, a thread of this process: what projects use in theirs carries legs too."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from celery import Celery, chain
from celery.contrib.testing.worker import start_worker

from axme_celery import Axme, step, wait_for_time

pytestmark = pytest.mark.xdist_group("embedded")


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """A worker takes over the root logger of its process: what other tests log would be lost."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


def test_celerys_worker_for_tests_carries_named_and_durable_tasks(tmp_path):
    """``celery.contrib.testing``: no beat, no broker outside; intents complete, waits wake."""
    app = Celery("embedded", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.update(
        axme_ledger_url=f"sqlite:///{tmp_path}/axme.db", task_default_queue=tmp_path.name, axme_tasks=["embedded.*"],
        axme_tick_seconds=0.2,
    )  # fmt: skip
    axme = Axme(app)
    counted = []

    @app.task(name="embedded.double", shared=False)
    def double(x):
        return 2 * x

    @axme.task(name="durable")
    def durable(x):
        step(counted.append)(x)
        wait_for_time(0.1)
        return x + 1

    with start_worker(app, pool="solo", perform_ping_check=False):
        named = double.delay(4)
        assert axme.intent(named.intent_id).wait(20) == 8
        result = chain(double.s(5), durable.s(), double.s()).delay()
        assert result.get(timeout=30) == 22

    assert counted == [10]
    assert {intent.status.value for intent in axme.intents()} == {"COMPLETED"}
    axme.drain()
    axme.close()
