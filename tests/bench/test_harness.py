"""The arithmetic of the benchmarks: order of turns, medians, ratios, and what the page says of what is missing."""

from __future__ import annotations

import pytest

from tests.bench.budgets import BUDGETS, measured, verdict
from tests.bench.document import cell, number, table
from tests.bench.harness import Case, Column, Figures, Outcome, Ratio, Spread, TurnFailed, Workload, ratio, run_workload
from tests.bench.timing import percentile, sample_latency
from tests.bench.workloads import WORKLOADS


def unused(_turn: object) -> Figures:
    raise AssertionError("the harness measures through what it is given")


def workload(*cases: Case, rounds: int = 3) -> Workload:
    return Workload(
        name="w", title="W", about="", columns=(Column(key="rate", title="rate", never="never"),), cases=cases,
        ratios=(Ratio(key="cost", title="cost", of="rate", inverse=True),), rounds=rounds,
    )  # fmt: skip


def test_subjects_take_turns_and_each_round_begins_with_another():
    """A machine that slows down slows all of them."""
    turns: list[str] = []
    cases = [Case(subject=name, run=unused) for name in "abc"]

    run_workload(workload(*cases), lambda _w, case, _n: turns.append(case.subject) or {}, quick=False, report=str)

    assert "".join(turns) == "abcbcacab"


def test_a_ratio_is_taken_within_each_round():
    """Round two was twice as slow for both: the ratio does not see it."""
    base, other = Case(subject="base", run=unused), Case(subject="other", run=unused, against="base")
    figures = {("base", 0): 100.0, ("base", 1): 50.0, ("other", 0): 20.0, ("other", 1): 10.0}

    outcomes = run_workload(
        workload(base, other, rounds=2), lambda _w, case, n: {"rate": figures[case.subject, n]}, quick=False, report=str
    )

    assert ratio(workload().ratios[0], outcomes[1], outcomes) == Spread(5.0, 5.0, 5.0)
    assert Spread.of(outcomes[1].values("rate")) == Spread(15.0, 10.0, 20.0)


def test_a_case_that_breaks_is_named_and_the_others_go_on():
    """Nothing is skipped in silence: neither what broke, nor what is not installed."""

    def measure(_workload: Workload, case: Case, _number: int) -> Figures:
        if case.subject == "broken":
            raise TurnFailed("exit 1")
        return {"rate": 7.0}

    cases = (
        Case(subject="broken", run=unused), Case(subject="absent", run=unused, needs=("no_such_module_here",)),
        Case(subject="well", run=unused),
    )  # fmt: skip
    outcomes = run_workload(workload(*cases), measure, quick=False, report=str)
    shown = "\n".join(table(workload(*cases), outcomes))

    assert [len(outcome.rounds) for outcome in outcomes] == [0, 0, 3]
    assert "- broken: failed" in shown
    assert "- absent: not measured: no_such_module_here cannot be imported" in shown
    assert "| well | 7 |" in shown


def test_what_did_not_happen_in_time_is_told_from_what_was_not_asked():
    """A crash nobody recovered from must not look like a missing figure."""
    lost, silent = Outcome(Case(subject="lost", run=unused)), Outcome(Case(subject="silent", run=unused))
    lost.rounds[0], silent.rounds[0] = {"rate": None}, {}

    shown = "\n".join(table(workload(), [lost, silent]))

    assert "| lost | never |" in shown
    assert "| silent | - |" in shown


@pytest.mark.parametrize(
    ("percent", "expected"), [(50, 50), (99, 99), (100, 100), (1, 1)], ids=["median", "p99", "worst", "least"]
)
def test_a_percentile_is_one_of_the_samples(percent, expected):
    """Nearest rank, nothing made up between two samples."""
    assert percentile(range(100, 0, -1), percent) == expected
    assert percentile([3.0], percent) == 3.0


def test_sampling_stops_when_its_time_is_up():
    """A subject that takes a second for each call does not hold up the run."""
    assert len(sample_latency(lambda: None, samples=5, at_most_seconds=60)) == 5
    assert sample_latency(lambda: None, samples=5, at_most_seconds=0) == []


@pytest.mark.parametrize(
    ("value", "shown"),
    [(5234.4, "5,230"), (52344, "52,300"), (95.44, "95.4"), (1.071, "1.07"), (0.2154, "0.215"), (3, "3")],
)
def test_numbers_show_three_digits(value, shown):
    """More would claim more than a run can tell."""
    assert number(value) == shown
    assert cell(Spread(value, value, value)) == shown


def test_every_budget_names_a_figure_that_is_measured():
    """A budget about a case that was renamed would never be looked at again."""
    for budget in BUDGETS:
        found = next(each for each in WORKLOADS if each.name == budget.workload)
        assert budget.subject in [case.subject for case in found.cases], budget.says
        assert budget.key in [column.key for column in found.columns] + [each.key for each in found.ratios], budget.says
        assert verdict(budget, measured(budget, {})) == "not measured"


def test_every_ratio_is_taken_to_a_subject_of_the_same_table():
    """Else its column would stay empty."""
    for found in WORKLOADS:
        subjects = [case.subject for case in found.cases]
        assert len(set(subjects)) == len(subjects)
        assert all(case.against in subjects for case in found.cases if case.against)
