"""The comparison itself; ``make celery-suite`` makes it."""

from __future__ import annotations

from .suite import Run, differences, report


def test_a_test_that_ends_otherwise_with_us_differs():
    """Also one that is run in one of the two only."""
    plain = Run({"a": "passed", "b": "failed", "c": "skipped", "d": "passed"})
    ours = Run({"a": "passed", "b": "passed", "c": "failed", "e": "passed"})

    assert differences(plain, ours) == {
        "b": ("failed", "passed"), "c": ("skipped", "failed"), "d": ("passed", "not run"), "e": ("not run", "passed"),
    }  # fmt: skip


def test_equal_runs_do_not_differ():
    """A test that fails without us, too, says nothing of us."""
    assert differences(Run({"a": "failed"}), Run({"a": "failed"})) == {}


def test_a_run_is_told_by_how_many_ended_how():
    assert report(Run({"a": "passed", "b": "skipped", "c": "passed"})) == "2 passed, 1 skipped"
    assert report(Run()) == "nothing ran"
