"""The floor of a durable flow over Celery: an ordinary task, and the three commits of its life by the bare driver.

Submitted, begun, ended: one statement each, prepared, on one narrow table; begun does not wait for the disk. There is
no audit, no outbox, no lease, no wait, and what was submitted is lost when the process dies before it publishes.
"""

from __future__ import annotations

import functools
import json
import os
import uuid
from typing import Any

import psycopg
from celery import Celery, Task

app = Celery("bench", broker=os.environ["BENCH_BROKER"], backend=os.environ["BENCH_RESULTS"])
app.conf.broker_connection_retry_on_startup = True

TABLE = """
CREATE TABLE flow (
    id uuid PRIMARY KEY, status text NOT NULL, run integer NOT NULL DEFAULT 0, payload text NOT NULL, result text,
    submitted_at timestamptz NOT NULL DEFAULT now(), ended_at timestamptz
)
"""
SUBMITTED = "INSERT INTO flow (id, status, payload) VALUES (%s, 'SUBMITTED', %s)"
BEGUN = "UPDATE flow SET status = 'RUNNING', run = run + 1 WHERE id = %s AND status = 'SUBMITTED'"
ENDED = "UPDATE flow SET status = 'COMPLETED', result = %s, ended_at = now() WHERE id = %s AND status = 'RUNNING'"


@functools.cache
def connection(*, waits_for_disk: bool) -> psycopg.Connection[Any]:
    """One of this process, in autocommit; only asked for after the pool has forked."""
    options = "" if waits_for_disk else "-c synchronous_commit=off"
    return psycopg.connect(os.environ["BENCH_FLOOR"], autocommit=True, options=options, prepare_threshold=0)


class Recorded(Task):
    """Recorded before it is published."""

    def apply_async(self, args: Any = None, kwargs: Any = None, task_id: str | None = None, **options: Any) -> Any:
        task_id = task_id or str(uuid.uuid4())
        connection(waits_for_disk=True).execute(SUBMITTED, (task_id, json.dumps([args, kwargs])))
        return super().apply_async(args, kwargs, task_id=task_id, **options)


@app.task(base=Recorded, bind=True)
def recorded(self: Any, number: int) -> int:
    connection(waits_for_disk=False).execute(BEGUN, (self.request.id,))
    result = number
    connection(waits_for_disk=True).execute(ENDED, (json.dumps(result), self.request.id))
    return result
