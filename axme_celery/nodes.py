"""Wait nodes of a pipeline: how one ends once its wait has closed.

No worker is at it. Whoever closes the wait ends the node in the same commit, and
starts what follows by the way that was taken: the usual one, or that of
``on_reject`` or ``on_timeout``.
"""

from __future__ import annotations

from typing import Any

from . import begin, lifecycle
from .graph import REJECTED, TIMED_OUT
from .lifecycle import NodeEnd
from .model import Change, Decision, JsonDict, Wait, WaitKind, WaitRecord, WaitStatus
from .ports import Runtime


class Ending:
    """Ends the node of a wait, if that is one; collects the intents that begin with it."""

    def __init__(self, rt: Runtime, record: WaitRecord, on: lifecycle.Occasion) -> None:
        self._rt, self._record, self._on = rt, record, on
        self.children: list[Change] = []

    @property
    def finish(self) -> lifecycle.Finish:
        """For the decision that closes the wait; None where a running task waits."""
        return self._finish if self._record.leg.plan.get("waits") else None

    def _finish(self, closed: Wait) -> NodeEnd:
        rt, on, leg, intent = self._rt, self._on, self._record.leg, self._record.intent
        way, value, error = _way(rt, leg.signature.get("kwargs") or {}, leg.plan.get("given"), closed)
        if error is not None:
            falls = begin.fallout(rt, intent, leg, on)
            self.children = list(falls.children)
            return NodeEnd(error=error, fallout=falls)
        result = rt.codec.encode(
            value, what=f"result of {leg.task}", limit_bytes=rt.settings.result_bytes, setting="axme_result_bytes"
        )
        turns: list[lifecycle.Turn] = []
        if way or leg.followers:
            turns = begin.turns(rt, intent, leg.id, result, parent_id=leg.id, way=way, on=on)
        called = begin.callbacks(rt, intent, leg, result, on)
        self.children = begin.with_children(Change(), turns, called)[1:]
        waits_next = any(turn.wait is not None for turn in turns)
        busy = waits_next and leg.within is not None and rt.ledger.is_busy(intent.id, [leg.id])
        return NodeEnd(result=result, turns=tuple(turns), busy=busy)


def _way(rt: Runtime, asked: JsonDict, given: Any, closed: Wait) -> tuple[str, Any, JsonDict | None]:
    """Which way it goes on, with what value; or the error it ends with."""
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
    data = rt.codec.decode(closed.data or "null")
    if closed.outcome == "completed":
        return "", data, None
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
