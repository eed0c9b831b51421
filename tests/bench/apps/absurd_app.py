"""Absurd: its tasks, and a worker program (``python -m tests.bench.apps.absurd_app``)."""

from __future__ import annotations

import os
import time
from typing import Any

from absurd_sdk import Absurd, TaskContext

from tests.bench import crash

QUEUE = "bench"


def install(url: str) -> None:
    """Absurd's schema, as its command line tool carries it, and the queue."""
    import absurdctl
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(absurdctl.BUNDLED_SCHEMA_SQL)
    client = Absurd(url, queue_name=QUEUE)
    client.create_queue()
    client.close()


def connect(url: str) -> Absurd:
    """A client of the queue that knows the tasks."""
    client = Absurd(url, queue_name=QUEUE)
    client.register_task("steps")(steps)
    client.register_task("one")(one)
    client.register_task("pages")(pages)
    return client


def steps(params: Any, context: TaskContext) -> list[float]:
    """Seconds that each of ``params["count"]`` steps took, as the task sees it."""
    taken = []
    for number in range(params["count"]):
        before = time.perf_counter()
        context.step("trivial", lambda number=number: {"page": number})
        taken.append(time.perf_counter() - before)
    return taken


def one(params: Any, context: TaskContext) -> Any:
    return context.step("trivial", lambda: {"page": params["number"]})


def pages(params: Any, context: TaskContext) -> None:
    for number in range(1, crash.STEPS + 1):
        context.step("page", lambda number=number: crash.page(params["log"], number))


def main() -> None:
    connect(os.environ["BENCH_ABSURD_URL"]).start_worker(
        concurrency=int(os.environ["BENCH_ABSURD_CONCURRENCY"]),
        poll_interval=float(os.environ["BENCH_ABSURD_POLL_SECONDS"]),
        claim_timeout=int(os.environ["BENCH_ABSURD_CLAIM_SECONDS"]),
    )


if __name__ == "__main__":
    main()
