"""A share of the experiments, and that the page tells of all; ``make experiments`` does them."""

from __future__ import annotations

import pytest

from tests.docs.pages import ROOT

from .__main__ import PAGE, outcome, table
from .trials import TRIALS, Outcome
from .world import Way

pytestmark = pytest.mark.xdist_group("experiments")


@pytest.mark.parametrize("way", list(Way), ids=lambda way: way.name.lower())
def test_a_chain_whose_pool_child_is_killed_in_its_second_link(way):
    """Plain Celery fails all that is left of it; named or submitted it is done, each link once."""
    (trial,) = (trial for trial in TRIALS if trial.name == "chain-child")

    came = outcome(trial, way)

    if way is Way.PLAIN:
        assert came == Outcome("a 1, b 0 (began 1), c 0, d 0; FAILURE", False)
    else:
        assert came.well and came.told.startswith("a 1, b 1 (began 2), c 1, d 1")


def test_an_experiment_that_does_not_end_did_not_go_well(monkeypatch):
    """It is told in its cell, and does not end the others."""

    def never(world):
        raise AssertionError("within 60 seconds there was no result")

    monkeypatch.setattr("tests.experiments.__main__.World.story", lambda self: "")
    trial = TRIALS[0].__class__("never", "it never ends", never)

    assert outcome(trial, Way.PLAIN) == Outcome("did not end: within 60 seconds there was no result", False)


def test_the_page_tells_of_every_experiment():
    """A row for each, as the last run wrote it."""
    text = (ROOT / PAGE).read_text()

    assert [trial.name for trial in TRIALS if f"| {trial.title} |" not in text] == []


def test_the_table_has_a_row_for_each_and_a_column_for_each_way():
    outcomes = {(trial.name, way): Outcome(f"{trial.name} {way.name}", True) for trial in TRIALS for way in Way}

    head, _, first, *rest = table(outcomes).splitlines()

    assert head == "| what happens | plain Celery | named in `axme_tasks` | `axme.submit(...)` |"
    assert first == f"| {TRIALS[0].title} | chain-worker PLAIN | chain-worker NAMED | chain-worker SUBMITTED |"
    assert len(rest) == len(TRIALS) - 1
