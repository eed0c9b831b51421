"""The nouns of a pipeline: the plan a canvas was compiled to, and the joins the ledger keeps of it.

A plan's nodes become legs. A join is where several of them come together; it
counts how many are still to come, and holds the place of a value among them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

#: Nodes that wait, by task name -> the kind of wait. They are opened by the ledger's own commit: no worker runs them.
WAIT_TASKS = {
    "axme.wait_for_human": "HUMAN",
    "axme.wait_for_tool": "TOOL",
    "axme.wait_for_time": "TIME",
    "axme.wait_for_agent": "AGENT",
}

#: ``Leg.turn``: a leg that follows only when the wait before it was rejected, or timed out.
REJECTED, TIMED_OUT = "rejected", "timeout"

#: The name under which a leg records what it has added to its join: the id of what ends that.
ADDED = "add_to_chord"


class JoinStatus(StrEnum):
    """A join is passed once."""

    OPEN = "OPEN"
    PASSED = "PASSED"  # everything arrived, and what follows was started
    CANCELED = "CANCELED"


@dataclass(frozen=True, kw_only=True, slots=True)
class Join:
    """Where members of a pipeline come together; passed once, when none is left to come."""

    id: str
    intent_id: str
    #: Where in the canvas, as in ``Leg.node``.
    node: str
    #: How many members there are.
    size: int
    #: How many are still to come.
    left: int
    status: JoinStatus = JoinStatus.OPEN
    #: "list": the members' results in order; "value": that of the one member that arrives.
    gives: str = "list"
    #: The join its value is a member of, and which.
    join_id: str | None = None
    join_index: int = 0
    #: The join that everything after it comes to in the end.
    within: str | None = None
    #: How many legs start when it is passed.
    followers: int = 0
    #: JSON text; kept where another join takes it.
    result: str | None = None


@dataclass(kw_only=True, slots=True)
class Node:
    """A leg to be. Filled in while the plan is made."""

    id: str
    #: Where in the canvas: "1.header[3]".
    node: str
    task: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    options: dict[str, Any]
    #: Whether the result of what it follows is put before its arguments.
    takes: bool
    #: True when the canvas itself gave the id.
    named: bool = False
    #: The node or join it follows; None: it starts at once.
    after: str | None = None
    #: Which turn of a wait it follows by; "" is the usual one.
    turn: str = ""
    join_id: str | None = None
    join_index: int = 0
    within: str | None = None
    followers: int = 0
    link: list[dict[str, Any]] = field(default_factory=list)
    link_error: list[dict[str, Any]] = field(default_factory=list)


@dataclass(kw_only=True, slots=True)
class Fork:
    """A join to be. Filled in while the plan is made."""

    id: str
    node: str
    size: int = 0
    gives: str = "list"
    join_id: str | None = None
    join_index: int = 0
    within: str | None = None
    followers: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """A canvas compiled: every node and join, in an order in which each comes after what it follows."""

    nodes: tuple[Node, ...]
    joins: tuple[Fork, ...]


__all__ = ["ADDED", "REJECTED", "TIMED_OUT", "WAIT_TASKS", "Fork", "Join", "JoinStatus", "Node", "Plan"]
