"""Plain Celery on Redis: a real prefork worker of two processes, in its defaults."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import redis

from tests.bench import crash
from tests.bench.harness import Case, Figures
from tests.bench.processes import celery_worker, kill_group, settle
from tests.bench.timing import lateness_figures, p50_p99_ms, sample_latency, sample_throughput
from tests.bench.turn import Turn

PLAIN = "plain Celery"
CHAIN = "plain Celery, a chain of 50 tasks (not durable)"
APP = "tests.bench.apps.celery_app"


def stored_results(turn: Turn) -> Callable[[], int]:
    """Counts the results of tasks stored so far, with one cheap command: their Redis database holds nothing else."""
    client = redis.Redis.from_url(turn.results)
    return client.dbsize


def one_leg_of(turn: Turn, task: Any) -> Figures:
    """Submit to result, one after the other; then many at once. For any Celery task that takes a number."""
    for number in range(20):
        task.delay(number).get(timeout=60)
    settle()
    latency = sample_latency(
        lambda: task.delay(1).get(timeout=60), samples=turn.pick(300, 100), at_most_seconds=turn.pick(4, 2)
    )
    stored = stored_results(turn)
    before = stored()
    throughput = sample_throughput(task.delay, lambda: stored() - before, count=turn.pick(1500, 400), every=0.01)
    return {**p50_p99_ms(latency), **throughput}


def one_leg(turn: Turn) -> Figures:
    from tests.bench.apps import celery_app

    turn.start(lambda: celery_worker(APP, turn.log))
    return one_leg_of(turn, celery_app.nothing)


def chain(turn: Turn) -> Figures:
    """A chain of 50 tasks, first submit to last result; the time between its links cannot be told apart."""
    from celery import chain as chain_of

    from tests.bench.apps.celery_app import nothing

    turn.start(lambda: celery_worker(APP, turn.log))
    nothing.delay(0).get(timeout=60)
    settle()
    seconds = 0.0
    for _ in range(flows := turn.pick(5, 2)):
        before = time.perf_counter()
        chain_of(nothing.s(0), *[nothing.s() for _ in range(49)]).delay().get(timeout=60)
        seconds += time.perf_counter() - before
    return {"steps_per_second": 50 * flows / seconds}


def killed(turn: Turn) -> Figures:
    """The same fifty steps as a chain; the worker that runs the 47th is killed, another is there and idle."""
    from celery import chain as chain_of

    from tests.bench.apps.celery_app import nothing, page

    for name in ("one", "two"):
        turn.start(lambda name=name: celery_worker(APP, turn.log, name=name, concurrency=1))  # type: ignore[misc]
    nothing.delay(0).get(timeout=60)
    log = str(turn.directory / "pages")
    chain_of(page.s(1, log), *[page.s(log) for _ in range(crash.STEPS - 1)]).delay()
    return crash.kill_and_watch(log, kill=kill_group, seconds=20)


def timers(spread_seconds: float) -> Callable[[Turn], Figures]:
    """1,000 tasks with an ETA, due evenly within ``spread_seconds``."""

    def run(turn: Turn) -> Figures:
        from tests.bench.apps.celery_app import late_by, nothing

        turn.start(lambda: celery_worker(APP, turn.log))
        nothing.delay(0).get(timeout=60)
        count = turn.pick(1000, 200)
        first = time.time() + 5
        due = [first + spread_seconds * number / count for number in range(count)]
        sent = [late_by.apply_async((at,), eta=datetime.fromtimestamp(at, UTC)) for at in due]
        if time.time() > first - 1:
            raise TimeoutError("too slow to send all of them before the first was due")
        return lateness_figures([result.get(timeout=60) for result in sent])

    return run


CHAINS = (Case(subject=CHAIN, run=chain),)
ONE_LEG = (Case(subject=PLAIN, run=one_leg),)
CRASHES = (Case(subject=f"{PLAIN}: worker killed, another is there", run=killed, rounds=1, quick=False),)
TIMERS = (
    Case(subject=f"{PLAIN}, ETA, due in 1 s", run=timers(1.0)),
    Case(subject=f"{PLAIN}, ETA, spread over 10 s", run=timers(10.0), rounds=1),
)
