"""Onward: what a commit has made possible, done at once by whoever committed it.

A join whose last member has arrived is passed in a second, fenced step; an early
answer is given to the wait it came before; an intent of which nothing goes on but
what it waits for is WAITING. Should the process die before, the sweep does it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from . import beats, begin, lifecycle
from .beats import occasion
from .errors import IntentEnded, WaitClosed
from .graph import JoinStatus
from .model import Change, EarlyAnswer, Status, WaitKind, WaitStatus
from .nodes import Ending
from .ports import Runtime


def carry_out(rt: Runtime, decide: Callable[[], Sequence[Change]]) -> tuple[Change, ...]:
    """Decide, commit, relay, and then what that has made possible."""
    changes = beats.carry_out(rt, decide)
    after(rt, changes)
    return changes


def after(rt: Runtime, changes: Sequence[Change]) -> None:
    """Do what these committed changes have made possible."""
    for change in changes:
        for join_id in change.reached:
            pass_join(rt, join_id)
        for was, wait in change.waits:
            if was is None and wait.kind is WaitKind.TOOL and wait.status is WaitStatus.OPEN:
                # An answer may have come early. Whoever of it and this wait was committed second sees the other.
                match_early(rt, wait.tool or "", wait.job_id or "")
        if _may_rest(change):
            pairs = change.legs or change.joins
            come_to_rest(rt, pairs[0][1].intent_id)


#: Events after which an open wait may be all that is left.
_LEAVES = frozenset({"intent.wait_opened", "intent.called_ended", "intent.work_done", "intent.work_failed"})


def _may_rest(change: Change) -> bool:
    """Whether this may have been the last that went on beside an open wait."""
    if not (change.legs or change.joins) or (change.intent is not None and change.intent.status.is_final):
        return False
    arrived = bool(change.counts) and not change.reached
    return arrived or any(event.type in _LEAVES for event in change.events)


def pass_join(rt: Runtime, join_id: str) -> int:
    """Pass a join that has all its members: start what follows, in batches, or end the intent. 1 when it was so."""
    passed, found = 0, list[str]()
    while True:
        more = False

        def decide() -> Sequence[Change]:
            nonlocal more
            record = rt.ledger.join_record(join_id)
            if record is None or record.join.status is not JoinStatus.OPEN or record.join.left > 0:
                return ()
            intent, join, on = record.intent, record.join, occasion(rt)
            if intent.status.is_final:
                return ()
            if not found:
                members = rt.ledger.members(join_id)
                found.append(members[0] if join.gives == "value" else f"[{','.join(members)}]")
            size, limit = len(found[0].encode()), rt.settings.join_bytes
            if size > limit:
                error = {
                    "code": "join_too_large",
                    "message": f"the results that come together at {join.node or 'the end'} are {size} bytes, over the "
                    f"limit of {limit}; raise axme_join_bytes, or keep the data elsewhere and pass references to it",
                }
                return [lifecycle.join_too_large(intent, join, error, begin.falling_waits(rt, intent), on=on)]
            turns: list[lifecycle.Turn] = []
            if join.followers:
                parent_id = rt.ledger.last_member(join_id)
                turns = begin.turns(rt, intent, join_id, found[0], parent_id=parent_id, limit=begin.BATCH + 1, on=on)
            more = len(turns) > begin.BATCH
            turns = turns[: begin.BATCH]
            busy = any(turn.wait is not None for turn in turns) and rt.ledger.is_busy(intent.id, [join_id])
            change = lifecycle.pass_join(intent, join, found[0], turns, more=more, busy=busy, on=on)
            return begin.with_children(change, turns)

        changes = beats.carry_out(rt, decide)
        passed = passed or int(bool(changes))
        after(rt, changes)
        if not changes or not more:
            return passed


def come_to_rest(rt: Runtime, intent_id: str) -> None:
    """Say that an intent is WAITING, if it waits for something and nothing else of it goes on."""

    def decide() -> Sequence[Change]:
        # The intent first: whatever moves it between the two looks makes this change stale.
        intent = rt.ledger.intent(intent_id)
        if (
            intent is None
            or intent.status.is_final
            or intent.status is Status.WAITING
            or not rt.ledger.rests(intent_id)
        ):
            return ()
        return [lifecycle.rest(intent, rt.ledger.open_waits(intent_id), on=occasion(rt))]

    if rt.ledger.rests(intent_id):
        beats.carry_out(rt, decide)


def match_early(rt: Runtime, tool: str, job_id: str) -> None:
    """Give an early answer, if there is one, to its wait, if that is open."""
    early = rt.ledger.early_answer(tool, job_id)
    if early is None or early.wait_id is not None:
        return
    outcome, _, report = early.answer.partition(":")
    if rt.ledger.tool_wait(tool, job_id) is None:
        return
    try:
        close_tool_wait(rt, tool, job_id, outcome, report, early)
    except (WaitClosed, IntentEnded):
        # It timed out or was canceled in this moment; the answer stays on record as unmatched.
        return


def close_tool_wait(
    rt: Runtime, tool: str, job_id: str, outcome: str, report: str, early: EarlyAnswer | None = None
) -> None:
    """Answer a tool's wait, whose job was reported. Raises WaitClosed when it is closed, and not by this very report."""

    def decide() -> Sequence[Change]:
        record = rt.ledger.tool_wait(tool, job_id)
        assert record is not None
        if record.wait.status is WaitStatus.ANSWERED and (record.wait.outcome, record.wait.data) == (outcome, report):
            return ()
        on = occasion(rt)
        ending = Ending(rt, record, on)
        change = lifecycle.answer(record, outcome=outcome, by=tool, data=report, finish=ending.finish, on=on)
        if early is not None:
            change = replace(change, early=(replace(early, wait_id=record.wait.id),))
        return [change, *ending.children]

    carry_out(rt, decide)


__all__ = ["after", "carry_out", "close_tool_wait", "come_to_rest", "match_early", "pass_join"]
