"""Which task runs what is sent to an address, or what is of a type: ``@axme.agent`` and ``@axme.handles``."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from celery.app.task import Task
from celery.local import Proxy

from .errors import BadInput
from .parties import Addressed, address

#: A type of intent: dotted words, with a version at the end.
TYPE = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)+\.v[0-9]+")


class Bindings:
    """The tasks of an application that serve addresses and types."""

    def __init__(self) -> None:
        self._of_address: dict[str, Any] = {}
        self._of_type: dict[str, Any] = {}

    def agent(self, at: str) -> Callable[[Any], Any]:
        """Decorate a task: what is sent to this address runs it, with the payload as its one argument."""
        return self._binder(self._of_address, address(at))

    def handles(self, type: str) -> Callable[[Any], Any]:
        """Decorate a task: intents of this type run it, whoever they are addressed to."""
        if not isinstance(type, str) or not TYPE.fullmatch(type) or len(type) > 255:
            raise BadInput(f"type is {str(type)[:80]!r}; write it like 'intent.analytics.export.v1'")
        return self._binder(self._of_type, type)

    def task_for(self, work: Addressed) -> str | None:
        """The name of the task that serves it; None when an agent outside does."""
        task = self._of_address.get(work.address, self._of_type.get(work.type or ""))
        return None if task is None else str(task.name)

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses that tasks serve."""
        return tuple(sorted(self._of_address))

    @property
    def types(self) -> tuple[str, ...]:
        """The types that tasks serve."""
        return tuple(sorted(self._of_type))

    def _binder(self, kept: dict[str, Any], name: str) -> Callable[[Any], Any]:
        def bind(task: Any) -> Any:
            # Not asked for its name yet: a shared task is made when its app is there, which may be later.
            if not issubclass(type(task), Proxy) and not isinstance(task, Task):
                raise BadInput(f"{task!r} is no Celery task; put the line above @axme.task or @app.task")
            if kept.setdefault(name, task) is not task:
                raise BadInput(f"{name} is bound to task {kept[name].name} already; one task serves it")
            return task

        return bind
