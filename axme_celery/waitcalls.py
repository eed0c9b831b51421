"""The four waits as their callers have them: functions to call in a task, and, by ``.s()``, nodes of a pipeline."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from celery import Celery
from celery.canvas import Signature

from . import wait
from .model import Decision
from .signals import LegTask

if TYPE_CHECKING:
    from .extension import Axme

P = ParamSpec("P")
R = TypeVar("R")


class WaitCall(Generic[P, R]):
    """A wait: called inside a leg it waits there; ``.s()`` makes a node of a canvas that waits by itself."""

    def __init__(self, wait: Callable[P, R]) -> None:
        functools.update_wrapper(self, wait)
        self._wait = wait
        #: The task's name in a canvas.
        self.name = f"axme.{wait.__name__}"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._wait(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<wait {self.name}>"

    def s(self, *args: Any, **kwargs: Any) -> Signature:
        """A node that waits: it takes the result before it, and passes on what it waited for."""
        return Signature(self.name, args=args, kwargs=kwargs)

    def si(self, *args: Any, **kwargs: Any) -> Signature:
        """The same, taking no notice of the result before it."""
        return Signature(self.name, args=args, kwargs=kwargs, immutable=True)


def register(axme: Axme, app: Celery) -> None:
    """Define the waits' tasks, which plain Celery canvases come to: each is a durable task that waits."""
    for called in (wait.wait_for_human, wait.wait_for_tool, wait.wait_for_time, wait.wait_for_agent):
        _define(app, called)


def _define(app: Celery, called: Callable[..., Any]) -> None:
    @app.task(name=f"axme.{called.__name__}", base=LegTask, shared=False, typing=False)  # type: ignore[untyped-decorator]
    def waits(*args: Any, **kwargs: Any) -> Any:
        value = called(*args, **kwargs)
        if not isinstance(value, Decision):
            return value
        return {
            "outcome": value.outcome, "approved": value.approved, "by": value.by, "comment": value.comment,
            "data": value.data, "decided_at": value.decided_at, "input": None,
        }  # fmt: skip
