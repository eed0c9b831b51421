"""The page ``docs/benchmarks.md``: written whole by every run that is asked to, never by hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from tests.bench.budgets import BUDGETS, measured, verdict
from tests.bench.harness import Outcome, Spread, Workload, ratio

HEAD = """\
<!-- Written by `make bench`. Change tests/bench/, not this page. -->
# Benchmarks

What a durable intent costs, beside the bare database, plain Celery, DBOS and Absurd, measured in one run on one
machine.

## How to read this

**Only ratios carry over.** Every absolute figure belongs to the machine below. The subjects of a table took turns on
the same servers, round by round, each starting one place later in the next round; a ratio is taken within a round.
A cell is the median of the rounds, with the least and the greatest in brackets; two subjects whose brackets overlap
are not told apart by this run. Every durable commit waits for the disk, so on a slow one all durable subjects come nearer
to each other and further from plain Celery, which waits for none: the table below says what such a write takes here.

**What a turn is.** A new process, an empty database, an empty Redis; workers are started, warmed up, measured and
stopped. Nothing of another subject runs meanwhile. Redis writes its append-only file every second, PostgreSQL commits
with fsync, both otherwise as installed.

**What is not equal, and cannot be.** Plain Celery keeps no promise a crash does not break: it is the price list, not a
rival. The durable systems record their steps equally, on PostgreSQL with a synchronous commit; but DBOS and Absurd need
no Redis, and axme needs no start of the same executor to notice a crash. Each peer is used as its own documentation
shows, in its defaults, and polling faster where its default is to poll slowly; somebody who knows it well may get more
out of it. On SQLite, axme and the bare insert use the write-ahead log and DBOS leaves SQLite its default journal; all
commit with `synchronous=FULL`. Flows here are trivial on purpose: with real work in a step, the differences shrink.

**Nothing here is a test.** No figure fails a build. Run it yourself: `make bench` (about half an hour; `make bench
ARGS=--quick` a few minutes), or `python -m tests.bench steps one-leg` for single tables.
"""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run: when and on what it was taken, and what came out, by workload."""

    started_at: datetime
    seconds: float
    quick: bool
    machine: Sequence[tuple[str, str]]
    results: Mapping[str, Sequence[Outcome]]


def page(run: Run, workloads: Sequence[Workload]) -> str:
    """The whole page as Markdown."""
    return "\n".join(
        [HEAD, *_conditions(run), *_budgets(run), *(part for each in workloads for part in _part(run, each))]
    )


def _conditions(run: Run) -> Iterator[str]:
    yield "## This run\n"
    kind = "quick run: one round, small counts; not to be quoted" if run.quick else "full run"
    yield f"{run.started_at:%Y-%m-%d %H:%M} UTC, {kind}, {run.seconds / 60:.0f} minutes. Nothing random but ids.\n"
    yield from _table(("", ""), run.machine)


def _budgets(run: Run) -> Iterator[str]:
    yield "## The budgets\n"
    yield (
        "What axme-celery sets itself, and what this run says of it. What keeps a flow's time, its rate and the timers of a\n"
        "busy second from their limits is the processor time it takes in all the processes that it goes through, of which\n"
        "plain Celery's own is a part: [where it goes](#where-the-time-of-a-flow-goes).\n"
    )
    rows = []
    for budget in BUDGETS:
        found = measured(budget, run.results)
        limit = f"{'at most' if budget.at_most else 'at least'} {budget.limit:g}"
        rows.append((budget.says, limit, cell(found), verdict(budget, found)))
    yield from _table(("budget", "limit", "measured", ""), rows)


def _part(run: Run, workload: Workload) -> Iterator[str]:
    yield f"## {workload.title}\n"
    yield f"{workload.about}\n"
    yield from table(workload, run.results[workload.name])


def table(workload: Workload, outcomes: Sequence[Outcome]) -> Iterator[str]:
    """A workload's table, a subject a line, and below it the reasons of those that could not be measured."""
    heads = ("", *(column.title for column in workload.columns), *(each.title for each in workload.ratios), "rounds")
    rows, notes = [], []
    for outcome in outcomes:
        if reason := outcome.not_measured or (outcome.failed and "failed: see the run's output"):
            notes.append(f"- {outcome.case.subject}: {reason}.")
            continue
        figures = [
            cell(Spread.of(outcome.values(column.key)), column.never if _was_asked(outcome, column.key) else "-")
            for column in workload.columns
        ]
        ratios = [cell(ratio(each, outcome, outcomes)) for each in workload.ratios]
        rows.append((outcome.case.subject, *figures, *ratios, str(len(outcome.rounds))))
    yield from _table(heads, rows)
    if notes:
        yield "Not in this table:\n"
        yield from notes
        yield ""


def _was_asked(outcome: Outcome, key: str) -> bool:
    """Whether the case measures this figure at all; None as a value means that it did not happen."""
    return any(key in figures for figures in outcome.rounds.values())


def cell(spread: Spread | None, otherwise: str = "-") -> str:
    if spread is None:
        return otherwise
    if spread.least == spread.greatest:
        return number(spread.median)
    return f"{number(spread.median)} [{number(spread.least)}-{number(spread.greatest)}]"


def number(value: float) -> str:
    """Three digits that mean something: 5,230 and 95.4 and 1.07 and 0.215."""
    size = abs(value)
    if size >= 1000:
        return f"{round(value, -1 if size < 10000 else -2):,.0f}"
    return f"{value:.{0 if size >= 100 or value == int(value) else 1 if size >= 10 else 2 if size >= 1 else 3}f}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|{'|'.join([' --- ', *[' ---: '] * (len(heads) - 1)] if len(heads) > 2 else [' --- '] * 2)}|"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""
