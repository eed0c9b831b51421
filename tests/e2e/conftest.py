"""Stages for tests: one that a module's tests share, and private ones to break."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests import services
from tests.servers import PrivateRedis, create_database, drop_database

from .harness import Stage, make_ledger

_open: list[Stage] = []


@contextlib.contextmanager
def opened(ledger: str = "sqlite", broker: str | None = None, **config: Any) -> Iterator[Stage]:
    """A stage with a Redis of its own, unless another broker is named.

    ledger: "sqlite", "postgres" (a database of its own), or the URL of one that has its tables.
    """
    with contextlib.ExitStack() as closing:
        redis = None
        if broker is None:
            redis = closing.enter_context(PrivateRedis())
            broker = redis.url
        url = None if ledger == "sqlite" else ledger
        if ledger == "postgres":
            url = create_database(services.postgres())
            closing.callback(drop_database, services.postgres(), url)
            make_ledger(url)
        stage = closing.enter_context(Stage(broker, url, redis, **config))
        _open.append(stage)
        closing.callback(_open.remove, stage)
        yield stage


@pytest.fixture
def open_stage() -> Iterator[Callable[..., Stage]]:
    """``open_stage(ledger=..., broker=..., **configuration)``: a stage of this test's own, to break."""
    with contextlib.ExitStack() as closing:
        yield lambda **how: closing.enter_context(opened(**how))


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """A stage that this module's tests share, with a worker of two children and a beat. Not to be broken."""
    with opened() as shared:
        shared.worker(beat=True)
        yield shared


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    if report.failed:
        report.sections += [(f"stage {n}", each.story()) for n, each in enumerate(_open, 1)]
    return report
