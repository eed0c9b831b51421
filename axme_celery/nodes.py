"""Wait nodes of a pipeline: how one ends once its wait has closed.

No worker is at it. Whoever closes the wait ends the node in the same commit, and
starts what follows by the way that was taken: the usual one, or that of
``on_reject`` or ``on_timeout``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from . import begin, lifecycle, wire
from .graph import REJECTED, TIMED_OUT
from .lifecycle import NodeEnd
from .model import Change, Decision, JsonDict, Leg, Wait, WaitKind, WaitRecord, WaitStatus
from .ports import Runtime


class Ending:
    """Ends the node of a wait, if that is one; collects the intents that begin with it."""

    def __init__(self, rt: Runtime, record: WaitRecord, on: lifecycle.Occasion) -> None:
        self.record = record
        self._rt, self._on = rt, on
        self.children: list[Change] = []
        #: What follows the node, where that was read already.
        self.followers: Sequence[Leg] | None = None

    @property
    def finish(self) -> lifecycle.Finish:
        """For the decision that closes the wait; None where a running task waits."""
        return self._finish if self.record.leg.plan.get("waits") else None

    def goes_on(self, closed: Wait) -> bool:
        """Whether this is a node, and something follows it when its wait has closed so."""
        if self.finish is None:
            return False
        way, _, error = _way(self._rt, self.record.leg, closed)
        return error is None and bool(way or self.record.leg.followers)

    def _finish(self, closed: Wait) -> NodeEnd:
        rt, on, leg, intent = self._rt, self._on, self.record.leg, self.record.intent
        way, value, error = _way(rt, leg, closed)
        if error is not None:
            falls = begin.fallout(rt, intent, leg, on)
            self.children = list(falls.children)
            return NodeEnd(error=error, fallout=falls)
        # Each part of it was held to a limit as it came in; what came together at a join is more than one result may be.
        result = rt.codec.encode(value, what=f"result of {leg.task}", limit_bytes=None)
        turns: list[lifecycle.Turn] = []
        if way or leg.followers:
            turns = begin.turns(rt, intent, leg.id, result, parent_id=leg.id, way=way, followers=self.followers, on=on)
        called = begin.callbacks(rt, intent, leg, result, on)
        self.children = begin.with_children(Change(), turns, called)[1:]
        waits_next = any(turn.wait is not None for turn in turns)
        busy = waits_next and leg.within is not None and rt.ledger.is_busy(intent.id, [leg.id])
        messages = bool(turns) and not called and all(one.wait is None and one.refused is None for one in turns)
        return NodeEnd(result=result, turns=tuple(turns), busy=busy, may_be_ahead=messages)


def endings(rt: Runtime, records: Sequence[WaitRecord], *, ahead: timedelta, on: lifecycle.Occasion) -> list[Ending]:
    """How each of these waits ends its node, should time close it now. What follows them is read at once for all.

    ahead: as ``lifecycle.fire`` is given it.
    """
    found, going = [Ending(rt, record, on) for record in records], list[Ending]()
    for ending in found:
        closed = lifecycle.closed_by_time(ending.record, ahead=ahead, on=on)
        if closed is not None and ending.goes_on(closed):
            going.append(ending)
    # No less safe than read for one: that, too, comes after the wait's record and before the transaction, which demands
    # of the node and of every leg it starts that they are as read. Whoever decides anew makes an Ending of its own.
    following = rt.ledger.following_each([ending.record.leg.id for ending in going], begin.BATCH)
    for ending in going:
        ending.followers = following.get(ending.record.leg.id, [])
    return found


def _way(rt: Runtime, leg: Leg, closed: Wait) -> tuple[str, Any, JsonDict | None]:
    """Which way it goes on, with what value; or the error it ends with."""
    asked, given = leg.signature.get("kwargs") or {}, leg.plan.get("given")
    if closed.kind is WaitKind.TIME:
        return "", given, None
    if closed.status is WaitStatus.EXPIRED and closed.request.get("on_timeout", "fail") == "fail":
        late = {"code": "wait_timeout", "message": f"nobody answered {closed.title!r} in time"}
        value = _decision(rt, closed, given) if closed.kind is WaitKind.HUMAN else given
        return (TIMED_OUT, value, None) if asked.get("on_timeout") == "detour" else ("", None, late)
    if closed.kind is WaitKind.HUMAN:
        decision = _decision(rt, closed, given)
        refusals = closed.request.get("refusals", closed.request["outcomes"][1:])
        if closed.outcome not in refusals or asked.get("on_reject") == "continue":
            return "", decision, None
        if asked.get("on_reject") == "detour":
            return REJECTED, decision, None
        who = closed.answered_by or "nobody"
        said = f": {closed.comment}" if closed.comment else ""
        return "", None, {"code": "rejected", "message": f"{who} answered {closed.outcome} to {closed.title!r}{said}"}
    if closed.outcome == "completed":
        return "", rt.codec.decode(closed.data or "null"), None
    # An error becomes part of the history, which is sealed, sent on and read by others than Python.
    data = wire.plain(closed.data)
    code = "tool_failed" if closed.kind is WaitKind.TOOL else "agent_failed"
    return "", None, {"code": code, "message": f"{closed.title} failed: {data}"[:2000], "data": data}


def _decision(rt: Runtime, closed: Wait, given: Any) -> JsonDict:
    """What a human wait passes on: the Decision as a dict, with what the wait was given as its input."""
    made = Decision(closed.outcome or "", closed.answered_by, closed.comment, None, closed.closed_at)
    return {
        "outcome": made.outcome, "approved": made.approved, "by": made.by, "comment": made.comment,
        "data": None if closed.data is None else rt.codec.decode(closed.data), "decided_at": made.decided_at,
        "input": given,
    }  # fmt: skip
