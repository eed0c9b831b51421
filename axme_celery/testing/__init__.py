"""For your own tests: run intents in this process, on SQLite in memory, with a clock you move.

This module is a pytest plugin, found by its entry point; it loads nothing
else until one of its fixtures is asked for. Without pytest's fixtures:

    with Stage(app) as stage:
        intent = stage.submit(monthly_export.s("2026-10"))
        stage.pass_time("2d")
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from celery import Celery

    from .stage import Stage as Stage

__all__ = ["Stage", "axme_app", "axme_stage"]


@pytest.fixture
def axme_app() -> Celery:
    """The Celery app that ``axme_stage`` works with: the current one. Override it in your conftest to return yours."""
    from celery import current_app

    return current_app._get_current_object()


@pytest.fixture
def axme_stage(axme_app: Celery) -> Iterator[Stage]:
    """A fresh ``Stage`` of your app for this test."""
    from .stage import Stage

    with Stage(axme_app) as stage:
        yield stage


def __getattr__(name: str) -> Any:
    if name == "Stage":
        from .stage import Stage

        return Stage
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
