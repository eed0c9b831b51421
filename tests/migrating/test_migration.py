"""The project is migrated step by step, its own tests green at each; and back."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.generated import rewritten
from tests.docs.pages import ROOT
from tests.servers import PrivateRedis

from .__main__ import PAGE, WRITER, changes
from .steps import STEPS, project_at

pytestmark = [pytest.mark.xdist_group("migrating"), pytest.mark.slow]


@pytest.fixture(scope="module")
def redis() -> Iterator[PrivateRedis]:
    """A Redis for these projects, one after another."""
    with PrivateRedis() as server:
        yield server


def run(folder: Path, redis: PrivateRedis, *words: str) -> str:
    """Run a command in the project's folder, to its end; what it printed."""
    outside = folder.parent / "outside.txt"
    outside.touch()
    variables = {"SHOP_REDIS": redis.url, "SHOP_FILE": str(outside), "PYTHONPATH": str(folder)}
    ran = subprocess.run(
        [sys.executable, "-m", *words], cwd=folder, env={**os.environ, **variables}, text=True, timeout=110,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout
    return ran.stdout


def own_tests(folder: Path, redis: PrivateRedis) -> None:
    """The project's own tests, with a worker of its own."""
    told = run(folder, redis, "pytest", "-q", "test_shop.py", "-p", "no:cacheprovider", "-p", "no:xdist")
    assert "3 passed" in told, told


@pytest.mark.parametrize("count", range(len(STEPS) + 1), ids=["before", *(step.name for step in STEPS)])
def test_the_projects_own_tests_are_green_at_each_step(count, redis, tmp_path):
    """From plain Celery to a pipeline that waits for a person."""
    redis.admin.flushall()
    own_tests(project_at(count, tmp_path / "project"), redis)


def test_every_step_can_be_taken_back_while_work_is_under_way(redis, tmp_path):
    """Calls made while their tasks were named are in the broker; a worker of the project as it was does them."""
    redis.admin.flushall()
    named = project_at(2, tmp_path / "named")
    run(named, redis, "celery", "-A", "shop", "call", "shop.orders.thank", "--args", '["A0"]')
    assert redis.admin.llen("celery") == 1

    before = project_at(0, tmp_path / "before")
    own_tests(before, redis)

    assert (tmp_path / "outside.txt").read_text().splitlines().count("thank A0") == 1


def test_the_advice_before_and_after(redis, tmp_path):
    """What the project loses as it is; and that nothing is left to say once its tasks are named."""
    before = run(project_at(0, tmp_path / "before"), redis, "axme_celery.cli", "-A", "shop", "advise")
    after = run(project_at(2, tmp_path / "after"), redis, "axme_celery.cli", "-A", "shop", "advise")

    assert "LOSES    shop.orders.charge" in before and "a chord waits for it (shop/reports.py:25)" in before
    assert "tasks: 7 KEPT" in after and "what to do first" not in after


def test_the_guide_shows_these_very_changes():
    """Written by ``python -m tests.migrating``."""
    text = (ROOT / PAGE).read_text()

    assert rewritten(text, WRITER, changes()) == text
