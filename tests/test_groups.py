"""Tests of one group run in one process: they share a server, a port, or a minute's work."""

from __future__ import annotations

import subprocess
import sys

SUITE = """
import os

import pytest

pytestmark = pytest.mark.xdist_group("together")

@pytest.mark.parametrize("nth", range(8))
def test_one(nth):
    with open("ran-in", "a") as book:
        book.write(f"{os.getpid()} ")
"""


def test_tests_of_one_group_run_in_one_process(tmp_path):
    """As the versions that are installed do it: some keep no group together, and say nothing."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_suite.py").write_text(SUITE)

    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "2", "--dist", "loadgroup"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout
    ran_in = (tmp_path / "ran-in").read_text().split()
    assert len(ran_in) == 8
    assert len(set(ran_in)) == 1
