"""Absurd on the same PostgreSQL: absurd-sdk's synchronous client and worker, the schema from absurdctl's wheel."""

from __future__ import annotations

import os
import time
from functools import partial
from typing import cast

import psycopg

from tests.bench import crash, floor
from tests.bench.celery_plain import PLAIN
from tests.bench.harness import Case, Figures
from tests.bench.processes import Program, kill_group, settle
from tests.bench.timing import p50_p99_ms, sample_latency, sample_throughput, step_figures
from tests.bench.turn import Turn

NEEDS = ("absurd_sdk", "absurdctl")
DEFAULT_POLL_SECONDS = 0.25
TUNED_POLL_SECONDS = 0.01
CONCURRENCY = 8


def steps(turn: Turn) -> Figures:
    """50 trivial steps in one task, in this process, a few times over."""
    from tests.bench.apps import absurd_app

    absurd_app.install(turn.postgres_libpq)
    client = absurd_app.connect(turn.postgres_libpq)
    flows = []
    for _ in range(1 + turn.pick(8, 3)):
        spawned = client.spawn("steps", {"count": 50})
        client.work_batch()
        done = client.fetch_task_result(spawned["task_id"])
        if done is None or done.state != "completed":
            raise RuntimeError(f"an Absurd task did not complete: {done}")
        flows.append(cast(list[float], done.result))
    client.close()
    return step_figures(flows[1:])


def one_leg(turn: Turn, *, poll_seconds: float) -> Figures:
    """A task of one step, spawned by this process and run by another, eight at a time.

    Polling in its defaults, the result is awaited as the client does; else looked for every ``poll_seconds``.
    """
    from tests.bench.apps import absurd_app

    url = turn.postgres_libpq
    absurd_app.install(url)
    client = absurd_app.connect(url)
    start_worker(turn, poll_seconds=poll_seconds)

    def call() -> None:
        task_id = client.spawn("one", {"number": 1})["task_id"]
        if poll_seconds == DEFAULT_POLL_SECONDS:
            client.await_task_result(task_id, timeout=60)
        while (done := client.fetch_task_result(task_id)) is None or done.state != "completed":
            time.sleep(poll_seconds)

    call()
    settle()
    latency = sample_latency(
        call, samples=turn.pick(200, 30), at_most_seconds=turn.pick(6, 3), poll_seconds=poll_seconds
    )
    with psycopg.connect(url, autocommit=True) as connection:

        def finished() -> int:
            row = connection.execute(
                f"SELECT count(*) FROM absurd.t_{absurd_app.QUEUE} WHERE state = 'completed'"
            ).fetchone()
            return int(row[0]) if row else 0

        before = finished()
        throughput = sample_throughput(
            lambda number: client.spawn("one", {"number": number}), lambda: finished() - before,
            count=turn.pick(1000, 200), every=0.05,
        )  # fmt: skip
    client.close()
    return {**p50_p99_ms(latency), **throughput}


def killed(turn: Turn, *, claim_seconds: int) -> Figures:
    """The worker is killed in step 47; another is there, and claims the task when the first one's claim has run out."""
    from tests.bench.apps import absurd_app

    absurd_app.install(turn.postgres_libpq)
    client = absurd_app.connect(turn.postgres_libpq)
    log = str(turn.directory / "pages")
    client.spawn("pages", {"log": log})
    for _ in range(2):
        start_worker(turn, claim_seconds=claim_seconds)
    figures = crash.kill_and_watch(log, kill=kill_group, seconds=claim_seconds + 30)
    client.close()
    return figures


def start_worker(turn: Turn, *, poll_seconds: float = DEFAULT_POLL_SECONDS, claim_seconds: int = 120) -> None:
    os.environ.update(
        BENCH_ABSURD_URL=turn.postgres_libpq, BENCH_ABSURD_CONCURRENCY=str(CONCURRENCY),
        BENCH_ABSURD_POLL_SECONDS=str(poll_seconds), BENCH_ABSURD_CLAIM_SECONDS=str(claim_seconds),
    )  # fmt: skip
    turn.start(lambda: Program(["-m", "tests.bench.apps.absurd_app"], turn.log.with_name("absurd.log")))


STEPS = (Case(subject="Absurd, PostgreSQL", run=steps, needs=NEEDS, against=floor.POSTGRES),)
ONE_LEG = (
    Case(
        subject="Absurd, PostgreSQL", run=partial(one_leg, poll_seconds=DEFAULT_POLL_SECONDS), needs=NEEDS,
        against=PLAIN,
    ),
    Case(
        subject="Absurd, PostgreSQL, polling every 10 ms", run=partial(one_leg, poll_seconds=TUNED_POLL_SECONDS),
        needs=NEEDS, against=PLAIN,
    ),
)  # fmt: skip
CRASHES = tuple(
    Case(
        subject=f"Absurd, PostgreSQL: worker killed, another is there, claim timeout {claim_seconds} s (default 120)",
        run=partial(killed, claim_seconds=claim_seconds), needs=NEEDS, rounds=rounds, quick=quick,
    )
    for claim_seconds, rounds, quick in ((15, 1, False), (2, None, True))
)  # fmt: skip
