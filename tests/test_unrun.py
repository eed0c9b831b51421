"""A test that did not run is named loudly, and is a failure in CI."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

SUITE = """
import pytest

def test_that_runs():
    pass

def test_of_a_missing_service():
    pytest.skip("RabbitMQ is missing: install it")

@pytest.mark.skip(reason="not on this day")
def test_of_another_day():
    pass

@pytest.mark.xfail(reason="known", strict=True)
def test_known_to_fail():
    assert False
"""


@pytest.fixture
def run(tmp_path):
    """``run(suite, *options, ci="true")``: what a run of these tests prints, and how it ends."""
    hooks = "pytest_make_collect_report, pytest_runtest_makereport, pytest_terminal_summary"
    (tmp_path / "conftest.py").write_text(f"from tests.unrun import {hooks}\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")

    def run(suite, *options, ci=""):
        (tmp_path / "test_suite.py").write_text(suite)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "CI": ci}
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    return run


@pytest.mark.parametrize("options", [(), ("-n", "1")], ids=["alone", "with xdist"])
def test_each_test_that_did_not_run_is_named_with_its_reason_and_the_rest_passes(run, options):
    """Nothing is skipped silently."""
    said = run(SUITE, *options)

    assert said.returncode == 0
    ending = said.stdout.partition("2 DID NOT RUN")[2].splitlines()
    for reason, test in (
        ("RabbitMQ is missing: install it", "test_of_a_missing_service"),
        ("not on this day", "test_of_another_day"),
    ):
        assert ending[ending.index(reason) + 1] == f"    test_suite.py::{test}"
    assert "test_that_runs" not in "".join(ending)
    assert "1 passed, 2 skipped, 1 xfailed" in said.stdout


@pytest.mark.parametrize("options", [(), ("-n", "1")], ids=["alone", "with xdist"])
def test_in_ci_a_test_that_did_not_run_has_failed(run, options):
    said = run(SUITE, *options, ci="true")

    assert said.returncode == 1
    # One skipped itself while it ran, one was marked: pytest calls the second an error.
    assert "1 failed, 1 passed, 1 xfailed, 1 error" in said.stdout
    assert "did not run, and with CI=true that is a failure: RabbitMQ is missing: install it" in said.stdout


def test_in_ci_a_module_that_did_not_run_has_failed(run):
    """Skipping a whole module is no way around it."""
    suite = "import pytest\npytest.importorskip('no_such_module')\ndef test_of_it(): pass\n"

    alone, in_ci = run(suite), run(suite, ci="true")

    assert "1 DID NOT RUN" in alone.stdout
    assert "no_such_module" in alone.stdout.partition("DID NOT RUN")[2]
    assert in_ci.returncode != 0
    assert "1 error" in in_ci.stdout


def test_a_run_in_which_everything_ran_says_nothing_more(run):
    said = run("def test_that_runs():\n    pass\n")

    assert said.returncode == 0
    assert "DID NOT RUN" not in said.stdout
