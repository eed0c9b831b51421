"""Rounds: who is measured, in which order, and what is kept of it.

A workload is one table. Its cases take turns, A B C, A B C, each starting one place later in the next round, so that
a machine that slows down slows all of them. Every turn is a process of its own (``turn.py``) and leaves nothing
behind it: no worker, no database, no key in Redis.
"""

from __future__ import annotations

import importlib.util
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.bench.turn import Turn

#: What one turn measured, by ``Column.key``. None: it did not happen within the time allowed.
Figures = dict[str, float | None]


@dataclass(frozen=True, kw_only=True)
class Column:
    """One figure of a workload: its key in ``Figures``, its heading, and what is written when it did not happen."""

    key: str
    title: str
    never: str = "-"


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A column made of two subjects: a case's figure over that of the case it is held ``against``, round by round.

    inverse: the other way round, for a rate whose cost is wanted (twice the rate is half the cost).
    """

    key: str
    title: str
    of: str
    inverse: bool = False


@dataclass(frozen=True, kw_only=True)
class Case:
    """One subject's way to do a workload.

    subject: its name in the table, unique in its workload.
    run:     measures once, in a fresh process.
    against: the subject its ratios are taken to.
    needs:   modules without which it cannot run; the table then says so.
    rounds:  fewer rounds than the workload has, for what takes long by nature.
    quick:   whether ``--quick`` runs it too.
    """

    subject: str
    run: Callable[[Turn], Figures]
    against: str | None = None
    needs: tuple[str, ...] = ()
    rounds: int | None = None
    quick: bool = True


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One table: what is measured (``about``, for the reader), of whom (``cases``), how often (``rounds``)."""

    name: str
    title: str
    about: str
    columns: tuple[Column, ...]
    cases: tuple[Case, ...]
    ratios: tuple[Ratio, ...] = ()
    rounds: int = 3
    quick_rounds: int = 1

    def case(self, subject: str) -> Case:
        return next(case for case in self.cases if case.subject == subject)


@dataclass
class Outcome:
    """What became of one case: its figures by round, or why there are none."""

    case: Case
    rounds: dict[int, Figures] = field(default_factory=dict)
    #: Why it was not run at all, in words for the table.
    not_measured: str | None = None
    #: The error of a turn that broke.
    failed: str | None = None

    def values(self, key: str) -> list[float]:
        """The figures of all rounds in which it happened."""
        return [value for figures in self.rounds.values() if (value := figures.get(key)) is not None]


@dataclass(frozen=True)
class Spread:
    """A median with the least and the greatest of its rounds."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        return cls(statistics.median(values), min(values), max(values)) if values else None


Measure = Callable[[Workload, Case, int], Figures]


class TurnFailed(Exception):
    """A turn ended with an error or took too long; the message carries the end of its output."""


def missing_modules(case: Case) -> list[str]:
    """Those of ``case.needs`` that are not installed."""
    return [module for module in case.needs if importlib.util.find_spec(module) is None]


def run_workload(
    workload: Workload, measure: Measure, *, quick: bool, report: Callable[[str], None] = print
) -> list[Outcome]:
    """Measure every case of a workload in interleaved rounds, through ``measure``.

    A case that breaks is not tried again; its outcome says why. The others go on.
    """
    outcomes = [Outcome(case) for case in workload.cases]
    for outcome in outcomes:
        if missing := missing_modules(outcome.case):
            outcome.not_measured = f"not measured: {', '.join(missing)} cannot be imported"
        elif quick and not outcome.case.quick:
            outcome.not_measured = "not measured in a quick run"
    for number in range(workload.quick_rounds if quick else workload.rounds):
        start = number % len(outcomes)
        for outcome in outcomes[start:] + outcomes[:start]:
            limit = outcome.case.rounds
            if outcome.not_measured or outcome.failed or (limit is not None and number >= limit):
                continue
            try:
                outcome.rounds[number] = measure(workload, outcome.case, number)
            except TurnFailed as error:
                outcome.failed = str(error)
            report(f"  round {number + 1}: {outcome.case.subject}: {outcome.failed or line(outcome.rounds[number])}")
    return outcomes


def line(figures: Figures) -> str:
    """One turn's figures on one line, for the terminal."""
    return ", ".join(f"{key} {'-' if value is None else f'{value:.4g}'}" for key, value in figures.items())


def ratio(ratio: Ratio, outcome: Outcome, outcomes: Sequence[Outcome]) -> Spread | None:
    """The ratio's spread over the rounds in which both subjects were measured; None if there is none."""
    other = next((each for each in outcomes if each.case.subject == outcome.case.against), None)
    if other is None:
        return None
    values = []
    for number, figures in outcome.rounds.items():
        mine, theirs = figures.get(ratio.of), other.rounds.get(number, {}).get(ratio.of)
        if mine and theirs:
            values.append(theirs / mine if ratio.inverse else mine / theirs)
    return Spread.of(values)
