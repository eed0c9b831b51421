"""Waits passed on to other people, and given more time; from outside, by people and operators."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from . import lifecycle
from .answer import human_wait
from .beats import carry_out, occasion
from .durations import Duration, moment, seconds
from .errors import BadInput, NotFound
from .hours import later
from .model import Change, Intent, JsonDict, WaitRecord
from .ports import Runtime
from .texts import assignees, line, text


def delegate(
    rt: Runtime, wait: str, to: str, *, by: str, reason: str | None = None, groups: Collection[str] | None = None
) -> Intent:
    """``by`` leaves the answer to ``to``, and cannot give it any more. ``wait``: its id, or its intent's.

    groups: what ``by`` is in, where the caller says who they are; None where it vouches for them.

    Raises WaitClosed, NotAllowed (they may not answer, or may not delegate to this one), BadInput, NotFound.
    """
    line(by, "by")
    (to,) = assignees([to], "to")
    _reason(reason)
    wait_id = human_wait(rt, wait)

    def decide() -> Sequence[Change]:
        return [
            lifecycle.delegate(_record(rt, wait_id), to, by=by, names=groups, reason=reason, on=occasion(rt)),
        ]

    return _changed(rt, carry_out(rt, decide))


def reassign(rt: Runtime, wait: str, to: str | Sequence[str], *, by: str, reason: str | None = None) -> Intent:
    """An operator puts others in the place of everybody the wait is for. Raises WaitClosed, NotAllowed, BadInput."""
    line(by, "by")
    names = assignees(to, "to")
    _reason(reason)
    wait_id = human_wait(rt, wait)

    def decide() -> Sequence[Change]:
        return [lifecycle.reassign(_record(rt, wait_id), names, by=by, reason=reason, on=occasion(rt))]

    return _changed(rt, carry_out(rt, decide))


def extend(
    rt: Runtime,
    wait_or_intent: str,
    duration: Duration | None = None,
    *,
    until: datetime | str | None = None,
    by: str,
    reason: str | None = None,
) -> Intent:
    """A wait's timeout, or an intent's deadline, is put off: by so much, or until a moment (aware).

    Where the wait keeps business hours, the duration is working time.
    Raises WaitClosed or IntentEnded when it is too late, BadInput where there is nothing to put off, NotFound.
    """
    line(by, "by")
    _reason(reason)
    if (duration is None) == (until is None):
        raise BadInput("extend takes a duration or until=, one of them")
    span = None if duration is None else seconds(duration, "duration")
    if span == 0:
        raise BadInput(f"duration is {duration!r}; it must be longer than nothing")
    fixed = None if until is None else moment(until, "until")

    def put_off(end: datetime | None, hours: JsonDict | None = None) -> datetime:
        # Without an end there is nothing to put off, which the rule says.
        return fixed if fixed is not None else later(end or rt.ledger.now(), span or 0, hours)

    def decide() -> Sequence[Change]:
        on = occasion(rt)
        record = rt.ledger.wait(wait_or_intent)
        if record is not None:
            end = put_off(record.wait.timeout_at, record.wait.request.get("business_hours"))
            return [lifecycle.extend_wait(record, end, by=by, reason=reason, on=on)]
        intent = rt.ledger.intent(wait_or_intent)
        if intent is None:
            raise NotFound("wait or intent", wait_or_intent)
        return [lifecycle.extend_intent(intent, put_off(intent.deadline_at), by=by, reason=reason, on=on)]

    return _changed(rt, carry_out(rt, decide))


def _record(rt: Runtime, wait_id: str) -> WaitRecord:
    record = rt.ledger.wait(wait_id)
    if record is None:
        raise NotFound("wait", wait_id)
    return record


def _reason(reason: str | None) -> None:
    if reason is not None:
        text(reason, "reason", longest=1000)


def _changed(rt: Runtime, changes: Sequence[Change]) -> Intent:
    (change,) = changes
    assert change.intent is not None
    return change.intent


__all__ = ["delegate", "extend", "reassign"]
