"""The budgets of the design, each beside the figure that shows whether it is kept. Shown, never asserted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.bench import ours, storm
from tests.bench.harness import Outcome, Spread, ratio
from tests.bench.workloads import WORKLOADS


@dataclass(frozen=True, kw_only=True)
class Budget:
    """A promise about one figure of one case.

    key:      a column of the workload, or one of its ratios.
    at_most:  True: the median may not exceed ``limit``; False: it may not be below.
    """

    says: str
    workload: str
    subject: str
    key: str
    limit: float
    at_most: bool = True


BUDGETS = (
    Budget(
        says="a durable step costs at most 1.5 times a bare insert, PostgreSQL", workload="steps",
        subject="axme, PostgreSQL, 1000 steps in one leg", key="cost", limit=1.5,
    ),
    Budget(
        says="the same, SQLite", workload="steps", subject="axme, SQLite, 1000 steps in one leg", key="cost", limit=1.5,
    ),
    Budget(
        says="a one-leg intent takes at most twice plain Celery's time, submit to result", workload="one-leg",
        subject="axme, PostgreSQL, no step", key="latency", limit=2.0,
    ),
    Budget(
        says="throughput of one-leg intents at least 0.6 of plain Celery's", workload="one-leg",
        subject="axme, PostgreSQL, no step", key="throughput", limit=0.6, at_most=False,
    ),
    Budget(
        says="ordinary tasks cost nothing: throughput at least 0.95 of plain Celery's", workload="ordinary",
        subject="plain Celery, axme installed", key="throughput", limit=0.95, at_most=False,
    ),
    Budget(
        says="a leg costs no more in a chord of 10,000 than 1.3 times what it costs in one of 100", workload="groups",
        subject="axme, PostgreSQL, chord of 10000", key="growth", limit=1.3,
    ),
    Budget(
        says="a killed worker's leg runs elsewhere within its lease (2 s) + 1.5 s", workload="crash",
        subject="axme, PostgreSQL: worker killed, another is there, lease 2 s", key="resumed_s", limit=3.5,
    ),
    Budget(
        says="the same, lease 15 s", workload="crash",
        subject="axme, PostgreSQL: worker killed, another is there, lease 15 s (default)", key="resumed_s", limit=16.5,
    ),
    Budget(
        says="a killed pool child's leg runs again within 1 s", workload="crash",
        subject="axme, PostgreSQL: pool child killed, lease 15 s", key="resumed_s", limit=1.0,
    ),
    Budget(
        says="1,000 timers due in one second: p99 at most 120 ms late", workload="timers",
        subject="axme, due in 1 s, no other waits", key="p99_late_ms", limit=120,
    ),
    Budget(
        says="1,000 timers over ten seconds: p99 at most 20 ms late", workload="timers",
        subject="axme, spread over 10 s, no other waits", key="p99_late_ms", limit=20,
    ),
    Budget(
        says="the same in one second with 100,000 other waits open: at most 120 ms late", workload="timers",
        subject=f"axme, due in 1 s, {ours.MANY_WAITS}", key="p99_late_ms", limit=120,
    ),
    Budget(
        says="100,000 waits due at once: the last fires within 15 s", workload="storm", subject=storm.SUBJECT,
        key="fired_s", limit=15,
    ),
    Budget(
        says="meanwhile a person's answer takes at most 200 ms", workload="storm", subject=storm.SUBJECT,
        key="answer_p95_ms", limit=200,
    ),
)  # fmt: skip


def measured(budget: Budget, results: Mapping[str, Sequence[Outcome]]) -> Spread | None:
    """What this run says of a budget; None when its case was not measured, or did not happen in time."""
    outcomes = results.get(budget.workload, ())
    outcome = next((each for each in outcomes if each.case.subject == budget.subject), None)
    workload = next(each for each in WORKLOADS if each.name == budget.workload)
    workload.case(budget.subject)
    if outcome is None:
        return None
    for each in workload.ratios:
        if each.key == budget.key:
            return ratio(each, outcome, outcomes)
    return Spread.of(outcome.values(budget.key))


def verdict(budget: Budget, found: Spread | None) -> str:
    if found is None:
        return "not measured"
    kept = found.median <= budget.limit if budget.at_most else found.median >= budget.limit
    return "kept" if kept else "**not kept**"
