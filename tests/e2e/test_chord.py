"""A chord under workers that are killed: the small share of ``python -m tests.chaos chord``."""

from __future__ import annotations

import os
import random

import pytest

from tests.chaos import chord


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.xdist_group("live-chaos")
def test_a_chord_calls_its_body_once_with_all_results_whoever_is_killed():
    """Two of its workers, with all their processes, while its members run."""
    seed = int(os.environ.get("AXME_CHAOS_SEED", random.SystemRandom().randrange(1 << 31)))
    shot = chord.run(200, 2, seed, requeue_seconds=10)

    assert shot.passed, f"seed {seed}: {shot}"
    assert (shot.body_calls, shot.result) == (1, {"count": 200, "in_order": True})
