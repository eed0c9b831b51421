"""``self.replace`` and ``self.add_to_chord`` of tasks that run as legs: kept in the ledger instead of sent by Celery."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from celery.app.task import Task
from celery.exceptions import ImproperlyConfigured

from . import growing, leg
from .canvas import plain
from .errors import UnsupportedWork

if TYPE_CHECKING:
    from .extension import Axme


def replacing(axme: Axme, replace: Callable[..., Any]) -> Callable[..., Any]:
    """``self.replace``: inside a leg what is given takes the leg's place in its pipeline."""

    @functools.wraps(replace)
    def replaced(sig: Any) -> Any:
        running = leg.current()
        if running is None:
            return replace(sig)
        if "chord" in sig.options:
            raise ImproperlyConfigured("A signature replacing a task must not be part of a chord")
        if running.leg.called_by is not None:
            raise UnsupportedWork(
                f"{running.leg.task} was called by another task of its intent, and cannot replace itself there; "
                f"submit it, or take it out of axme_tasks"
            )
        canvas = plain(sig)
        # Refused here, it is an error of the task's.
        axme.read_canvas(canvas)
        raise running.leaves(leg.ReplaceAsked(canvas))

    return replaced


def adding(axme: Axme, task: Task, add_to_chord: Callable[..., Any]) -> Callable[..., Any]:
    """``self.add_to_chord``: inside a leg of a group its join waits for one more."""

    @functools.wraps(add_to_chord)
    def added(sig: Any, lazy: bool = False) -> Any:
        running = leg.current()
        if running is None or running.leg.join_id is None:
            return add_to_chord(sig, lazy)
        if lazy:
            raise UnsupportedWork(f"{task.name} called add_to_chord(lazy=True); in a pipeline it is started at once")
        return axme.app.AsyncResult(growing.add_member(running, plain(sig)))

    return added
