"""Foresee: which wait a wait node opens. The very functions that tasks call say so, and check what they are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import lifecycle, wait
from .errors import BadInput
from .graph import WAIT_TASKS
from .model import Change, Intent, JsonDict, Leg, Wait
from .ports import Runtime

#: The function of each wait node's task.
CALLS: dict[str, Callable[..., Any]] = {f"axme.{name}": getattr(wait, name) for name in (
    "wait_for_human", "wait_for_tool", "wait_for_time", "wait_for_agent",
)}  # fmt: skip
assert CALLS.keys() == WAIT_TASKS.keys()

#: In the place of a result that is still to come, when a node is checked at its submission.
TO_COME = "to come"


def open_node(
    rt: Runtime, intent: Intent, leg: Leg, given: Any, on: lifecycle.Occasion
) -> tuple[Wait, Sequence[Change]]:
    """The wait that this node opens, and the intents that begin with it: its agent's.

    given: the result of what it follows: part of the context a person sees, the id of a tool's job, the first argument
           of an agent's task.

    Raises BadInput for arguments that cannot work.
    """
    args, kwargs = _arguments(leg, given)
    node = wait.Prospect(rt, intent, leg, {}, show_waiting=lambda: None)
    token = wait.prospect.set(node)
    try:
        CALLS[leg.task](*args, **kwargs)
    except wait.Foreseen as foreseen:
        return foreseen.opening(on)
    except TypeError as error:
        raise BadInput(f"{leg.task.removeprefix('axme.')}: {error}") from None
    finally:
        wait.prospect.reset(token)
    raise AssertionError("a wait that opens nothing")


def _arguments(leg: Leg, given: Any) -> tuple[list[Any], JsonDict]:
    args, kwargs = list(leg.signature.get("args") or ()), dict(leg.signature.get("kwargs") or {})
    for name in ("on_reject", "on_timeout"):
        # Ways out of the pipeline are the plan's; the name of an outcome is the wait's own affair.
        if kwargs.get(name) in ("detour", "continue") or name == "on_reject":
            kwargs.pop(name, None)
    if not leg.plan.get("takes"):
        return args, kwargs
    match WAIT_TASKS[leg.task]:
        case "HUMAN":
            context = kwargs.get("context")
            if context is None or isinstance(context, Mapping):
                kwargs["context"] = {"input": given, **(context or {})}
        case "TOOL":
            if len(args) < 2 and "job_id" not in kwargs:
                kwargs["job_id"] = _job_id(given)
        case "AGENT":
            target = args[0] if args else kwargs.get("target")
            if isinstance(target, str) and len(args) < 2 and kwargs.get("payload") is None:
                # An agent outside Celery is handed the result as its payload, which is an object.
                kwargs["payload"] = given if isinstance(given, Mapping) else {"input": given}
            if isinstance(target, Mapping) and not target.get("immutable"):
                target = {**target, "args": [given, *(target.get("args") or ())]}
                args, kwargs = [target, *args[1:]], {k: v for k, v in kwargs.items() if k != "target"}
            elif isinstance(target, str) and len(args) < 2:
                # An address: what its agent is sent.
                kwargs.setdefault("payload", given)
    return args, kwargs


def _job_id(given: Any) -> str:
    if isinstance(given, bool) or not isinstance(given, str | int):
        raise BadInput(
            f"the job id of wait_for_tool is the result before it, which is {type(given).__name__}, not text; "
            f"return the id there, or give job_id="
        )
    return str(given)
