"""Small ways to take time, the same for every subject."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from tests.bench.harness import Figures

#: Multiples of this, modulo 1, fall evenly into the unit interval however many there are.
GOLDEN = 0.6180339887498949


def percentile(samples: Sequence[float], percent: float) -> float:
    """The sample that ``percent`` of all do not exceed (nearest rank); of fewer than 100, the 99th is the worst."""
    ordered = sorted(samples)
    return ordered[max(1, math.ceil(len(ordered) * percent / 100)) - 1]


def p50_p99_ms(samples_seconds: Sequence[float]) -> Figures:
    return {"p50_ms": percentile(samples_seconds, 50) * 1000, "p99_ms": percentile(samples_seconds, 99) * 1000}


def step_figures(flows: Sequence[Sequence[float]]) -> Figures:
    """Figures of flows of steps: ``flows`` holds, for each flow, the seconds each of its steps took."""
    steps = [seconds for flow in flows for seconds in flow]
    return {"steps_per_second": len(steps) / sum(steps), **p50_p99_ms(steps)}


def sample_latency(
    call: Callable[[], Any], *, samples: int, at_most_seconds: float, poll_seconds: float = 0.0
) -> list[float]:
    """Time ``call`` again and again, one after the other: ``samples`` times, fewer if that takes too long.

    poll_seconds: of a subject that polls. A call that begins as the one before ended would always meet the poll at the
    same moment, so a pause (not timed) before each spreads them evenly over the time between two polls.
    """
    taken: list[float] = []
    started = time.perf_counter()
    while len(taken) < samples and time.perf_counter() - started < at_most_seconds:
        time.sleep(len(taken) * GOLDEN % 1.0 * poll_seconds)
        before = time.perf_counter()
        call()
        taken.append(time.perf_counter() - before)
    return taken


def wait_until(condition: Callable[[], Any], *, seconds: float, every: float = 0.01, what: str = "condition") -> Any:
    """Poll until ``condition()`` is true and return it; raises TimeoutError naming ``what``."""
    ends = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > ends:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(every)
    return value


def sample_throughput(
    submit: Callable[[int], Any], finished: Callable[[], int], *, count: int, every: float, seconds: float = 120.0
) -> Figures:
    """Submit ``count`` flows one after the other and wait until ``finished()`` counts that many.

    every: seconds between two looks at the count; a look costs the subject's server one query.
    Figures: submits_per_second, and flows_per_second from the first submit to the last end.
    """
    started = time.perf_counter()
    for number in range(count):
        submit(number)
    submitted = time.perf_counter()
    wait_until(lambda: finished() >= count, seconds=seconds, every=every, what=f"{count} flows to finish")
    ended = time.perf_counter()
    return {"submits_per_second": count / (submitted - started), "flows_per_second": count / (ended - started)}


def lateness_figures(late_by_seconds: Sequence[float]) -> Figures:
    """Figures of timers: how late they were; an early one counts as it is, below zero."""
    return {
        **{key.replace("_ms", "_late_ms"): value for key, value in p50_p99_ms(late_by_seconds).items()},
        "worst_late_ms": max(late_by_seconds) * 1000,
        "earliest_ms": min(late_by_seconds) * 1000,
    }
