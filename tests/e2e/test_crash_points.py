"""A share of the crash-point enumeration and of the races: ``python -m tests.chaos`` runs them at length."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

#: The same cases in every run of the suite, unless another is asked for.
SEED = os.environ.get("AXME_TEST_CHAOS_SEED", "1")


def chaos(*words: str) -> None:
    """Run a part in a process of its own, which forks as it likes. Its figures and findings are shown if it fails."""
    command = [sys.executable, "-m", "tests.chaos", *words, "--seed", SEED]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, f"{' '.join(command[1:])}\n{ran.stdout[-6000:]}\n{ran.stderr[-3000:]}"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("ledger", ["sqlite", "postgres"])
def test_an_intent_killed_at_any_commit_or_publish_ends_as_if_it_had_not_been(ledger: str, tmp_path: Path):
    """Before, after, and with the reply lost; held up longer than its lease; and hit again while it recovers."""
    figures = tmp_path / "figures.jsonl"

    chaos("enumerate", "--brief", "--ledger", ledger, "--kills", "140", "--figures", str(figures))

    told = json.loads(figures.read_text())
    assert told["processes killed"] >= 140 and told["replies lost"] >= 50 and told["processes held up"] >= 10
    assert (
        told["intents lost"] == told["recorded steps repeated"] == told["second outcomes"] == told["stale writes"] == 0
    )


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("ledger", ["sqlite", "postgres"])
def test_of_those_who_meet_at_one_wait_leg_or_key_exactly_one_wins(ledger: str):
    """People, timeouts and cancellations; reports and waits; copies of a message; runs and sweepers; submitters."""
    chaos("races", "--races", "60", "--ledger", ledger)
