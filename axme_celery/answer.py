"""Waits, from outside: answers of people, tools and agents. A wait closes once; the first committed answer wins."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from . import lifecycle
from .beats import announce, occasion
from .desk import Link, LinkState
from .errors import BadInput, IntentEnded, LinkInvalid, NotFound, StaleChange, WaitClosed
from .model import Change, EarlyAnswer, Intent, Status, Wait, WaitKind, WaitStatus
from .nodes import Ending
from .onward import carry_out, close_tool_wait, match_early
from .ports import Runtime
from .texts import line, text


def answer(
    rt: Runtime,
    wait: str,
    outcome: str,
    *,
    by: str,
    comment: str | None = None,
    data: Any = None,
    groups: Collection[str] | None = None,
    expected_hash: str | None = None,
    via: str | None = None,
    link: Link | None = None,
) -> Intent:
    """A person's answer to a human wait (its id, or the id of an intent that has exactly one open).

    groups:        what the person is in, where the caller knows who they are: they must then be among those the wait
                   is for. None: the caller vouches for them.
    expected_hash: the wait's ``payload_hash`` when the person was shown it.
    via:           how the caller knows who they are ("key", "link", ...); kept in the history.
    link:          of a notice, used up by this answer in the same transaction.

    The same person giving the same answer again is told that it stands. Raises WaitClosed (who, when) for a closed
    wait, NotAllowed for a person who may not answer, ShownChanged when what they saw is not what the wait shows now,
    LinkInvalid when the link has been used meanwhile, BadInput for an outcome, comment or form data that does not fit.
    """
    line(by, "by")
    wait_id = human_wait(rt, wait)
    answered: list[Intent] = []

    def decide() -> Sequence[Change]:
        record = rt.ledger.wait(wait_id)
        if record is None:
            raise NotFound("wait", wait_id)
        if _stands(record.wait, outcome, by):
            answered[:] = [record.intent]
            return ()
        if record.wait.kind is not WaitKind.HUMAN:
            raise BadInput(
                f"wait {wait_id} is for a {record.wait.kind.value.lower()}, not for a person: {record.wait.title}"
            )
        fitting = None
        if record.wait.status is WaitStatus.OPEN:
            fitting = _fitting(rt, record.wait, outcome, comment, data)
        on = occasion(rt)
        ending = Ending(rt, record, on)
        change = lifecycle.answer(
            record, outcome=outcome, by=by, comment=comment, data=fitting, names=groups, expected_hash=expected_hash,
            via=via, finish=ending.finish, on=on,
        )  # fmt: skip
        used = change if link is None else replace(change, links=(_used(rt, link),))
        return [used, *ending.children]

    changes = carry_out(rt, decide)
    return answered[0] if not changes or changes[0].intent is None else changes[0].intent


def _used(rt: Runtime, link: Link) -> tuple[Link, Link]:
    now = rt.ledger.desks.link(link.hash)
    if now is None or now.state is not LinkState.OPEN:
        raise LinkInvalid("used" if now is not None and now.state is LinkState.USED else "unknown")
    return now, replace(now, state=LinkState.USED, closed_at=rt.ledger.now())


def complete_tool(rt: Runtime, tool: str, job_id: str, result: Any = None, error: Any = None) -> None:
    """A tool's report that its job is done (``result``) or failed (``error``). It may come before its wait opens.

    The same report again is fine. Raises WaitClosed when the job was reported otherwise, timed out or was canceled. In
    the latter two cases it is kept all the same: a replay may wait for this job anew.
    """
    tool_job(tool, job_id)
    if error is not None and result is not None:
        raise BadInput(f"job {job_id} of {tool} has a result or an error, not both")
    report = rt.codec.encode(
        error if error is not None else result,
        what=f"report of {tool} job {job_id}",
        limit_bytes=rt.settings.result_bytes,
        setting="axme_result_bytes",
    )
    outcome = "failed" if error is not None else "completed"
    given_up: WaitClosed | None = None
    if rt.ledger.tool_wait(tool, job_id) is not None:
        try:
            close_tool_wait(rt, tool, job_id, outcome, report)
            return
        except WaitClosed as closed:
            if closed.status == WaitStatus.ANSWERED:
                raise
            given_up = closed
    # Keep it first, look for the wait after: whichever of the two is committed second sees the other.
    early = EarlyAnswer(tool=tool, job_id=job_id, answer=f"{outcome}:{report}", at=rt.ledger.now())
    rt.ledger.commit(Change(early=(early,)))
    kept = rt.ledger.early_answer(tool, job_id)
    if given_up is None and kept is not None and kept.answer != early.answer:
        raise WaitClosed(f"of {tool} job {job_id}", "ANSWERED", kept.at, tool)
    match_early(rt, tool, job_id)
    if given_up is not None:
        # What an earlier wait was given is not there for another.
        stands = kept is not None and kept.answer == early.answer and kept.wait_id is None
        raise WaitClosed(given_up.wait_id, given_up.status, given_up.closed_at, given_up.closed_by, kept=stands)


def tool_job(tool: str, job_id: str) -> tuple[str, str]:
    """A tool and its job as a wait and its report name them. Raises BadInput."""
    # The tool's name is part of its wait's own, "wait_for_tool:<tool>", which has 255 characters.
    return line(tool, "tool", longest=240), line(job_id, "job_id")


def heartbeat_tool(rt: Runtime, tool: str, job_id: str, progress: float | None = None) -> None:
    """A tool's sign of life; puts off the moment its wait gives up on it. Before the wait opens it is not needed.

    progress: a share from 0 to 1, shown with the intent. Raises WaitClosed when nobody waits any more.
    """
    tool_job(tool, job_id)
    if progress is not None and (not isinstance(progress, int | float) or not 0 <= progress <= 1):
        raise BadInput(f"progress is {progress!r}; it is a share from 0 to 1")
    record = rt.ledger.tool_wait(tool, job_id)
    if record is None:
        return
    change = lifecycle.heartbeat(record.wait, on=occasion(rt))
    if change.waits:
        try:
            rt.ledger.commit(change)
        except StaleChange:
            closed = rt.ledger.tool_wait(tool, job_id)
            assert closed is not None
            lifecycle.heartbeat(closed.wait, on=occasion(rt))
        announce(rt, [change])
    if progress is not None:
        rt.tracker.put_progress(record.leg.id, progress, 1.0, f"{tool} job {job_id}")


def child_ended(rt: Runtime, wait_id: str, child: Intent) -> None:
    """A child intent ended: that answers its parent's wait. Harmless to repeat."""
    completed = child.status is Status.COMPLETED
    report = child.result if completed else rt.codec.encode(
        child.error, what="error", limit_bytes=1 << 20, setting="axme_result_bytes"
    )  # fmt: skip

    def decide() -> Sequence[Change]:
        record = rt.ledger.wait(wait_id)
        if record is None or record.wait.status is not WaitStatus.OPEN:
            return ()
        outcome, on = "completed" if completed else "failed", occasion(rt)
        ending = Ending(rt, record, on)
        change = lifecycle.answer(
            record, outcome=outcome, by=f"intent:{child.id}", data=report, finish=ending.finish, on=on
        )
        return [change, *ending.children]

    carry_out(rt, decide)


def poll_answered(rt: Runtime, wait_id: str, *, result: Any = None, error: Any = None) -> None:
    """What a poll found out about a tool's job. Harmless when the wait has closed meanwhile."""
    record = rt.ledger.wait(wait_id)
    if record is None or record.wait.status is not WaitStatus.OPEN:
        return
    assert record.wait.tool is not None and record.wait.job_id is not None
    try:
        complete_tool(rt, record.wait.tool, record.wait.job_id, result, error)
    except WaitClosed:
        return


def human_wait(rt: Runtime, wait_or_intent: str) -> str:
    """The wait's id; for an intent's id, that of its one open human wait, or of the last one when none is open.

    Raises NotFound, BadInput for an intent that waits for no person, or for several times one; IntentEnded for one
    that asked none and has ended.
    """
    if rt.ledger.wait(wait_or_intent) is not None:
        return wait_or_intent
    intent = rt.ledger.intent(wait_or_intent)
    if intent is None:
        raise NotFound("wait or intent", wait_or_intent)
    waits = [w for w in rt.ledger.waits(intent.id) if w.kind is WaitKind.HUMAN]
    open_waits = [w for w in waits if w.status is WaitStatus.OPEN]
    if len(open_waits) == 1:
        return open_waits[0].id
    if open_waits:
        listed = ", ".join(f"{w.id} ({w.title})" for w in open_waits)
        raise BadInput(f"intent {intent.id} waits for people {len(open_waits)} times over; name one: {listed}")
    if waits:
        return waits[-1].id
    if intent.status.is_final:
        raise IntentEnded(intent.id, intent.status.value, intent.ended_at, "it asked no person")
    raise BadInput(f"intent {intent.id} is {intent.status.value} and waits for no person")


def _stands(wait: Wait, outcome: str, by: str) -> bool:
    """Whether this person has given this very answer already, and it was not overruled."""
    vote = lifecycle.vote_of(wait, by)
    return (vote is not None and vote["outcome"] == outcome) and (
        wait.status is WaitStatus.OPEN or (wait.status is WaitStatus.ANSWERED and wait.outcome == outcome)
    )


def _fitting(rt: Runtime, wait: Wait, outcome: str, comment: str | None, data: Any) -> str | None:
    """The answer's data as JSON text, once everything about the answer fits the wait."""
    allowed: list[str] = wait.request["outcomes"]
    if outcome not in allowed:
        raise BadInput(f"outcome {outcome!r} is not one of wait {wait.id}'s: {', '.join(allowed)}")
    if lifecycle.needs_comment(wait, outcome) and not (comment or "").strip():
        raise BadInput(f"wait {wait.id} asks for a comment with its answer {outcome!r}; give comment=")
    if comment is not None:
        text(comment, "comment", longest=4000)
    form = wait.request.get("form")
    # The form is what saying yes asks for; a no needs no filled-in form.
    if form is not None and (data is not None or outcome == allowed[0]):
        rt.check_form(form, {} if data is None else data)
    if data is None:
        return None
    return rt.codec.encode(
        data, what=f"data of the answer to wait {wait.id}", limit_bytes=rt.settings.payload_bytes,
        setting="axme_payload_bytes",
    )  # fmt: skip


__all__ = [
    "answer", "child_ended", "complete_tool", "heartbeat_tool", "human_wait", "match_early", "poll_answered",
]  # fmt: skip
