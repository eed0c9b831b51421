"""Waits, from inside a leg: where it stops and someone else moves.

The first run that comes to a wait writes it to the ledger, puts the leg to rest
and leaves the body (``Suspended``); the worker is free and nothing is held. When
the wait has closed the leg is run again from its start, its steps give back what
they recorded, and this time the wait returns its answer.

How a wait is closed from outside is in ``answer.py``; its moments (reminders,
timeouts) are fired by ``sweep.py``.

Source: AXP Intent Lifecycle v1, waiting reasons and human task types.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from . import lifecycle
from .answer import match_early, tool_job
from .beats import occasion
from .durations import Duration, moment, seconds
from .errors import (
    AgentFailed,
    BadInput,
    LeaseLost,
    LedgerUnavailable,
    OutsideIntent,
    StaleChange,
    Suspended,
    ToolFailed,
    WaitTimedOut,
)
from .leg import RunningLeg, lost, required, settle
from .model import Change, Decision, Intent, JsonDict, Leg, Wait, WaitKind, WaitStatus
from .parties import SCHEME, Addressed, address
from .step import in_step
from .submit import Submission, child_change
from .texts import assignees, line

#: Human task types and the outcomes a person may choose, the one that says yes first.
OUTCOMES: dict[str, tuple[str, ...]] = {
    "approval": ("approved", "rejected"),
    "confirmation": ("confirmed", "denied"),
    "review": ("approved", "changes_requested", "rejected"),
    "assignment": ("assigned", "declined"),
    "form": ("submitted",),
    "clarification": ("provided", "declined"),
    "manual_action": ("completed", "failed"),
    "override": ("override_approved", "rejected"),
}
#: Types whose answer needs words: without them nobody knows afterwards why.
_NEED_COMMENT = frozenset({"clarification", "override"})
_OUTCOME = re.compile(r"[a-z][a-z0-9_]{0,63}")


def wait_for_human(
    title: str,
    *,
    to: str | Sequence[str],
    type: str = "approval",
    context: Mapping[str, Any] | None = None,
    form: Any = None,
    outcomes: Sequence[str] | None = None,
    timeout: Duration | None = None,
    on_timeout: str = "fail",
    remind_every: Duration | None = None,
    max_reminders: int = 3,
    escalate_to: str | Sequence[str] | None = None,
    escalate_after: Duration | None = None,
    quorum: int = 1,
    not_by: str | Sequence[str] = (),
    require_comment: bool | str | Sequence[str] = False,
    delegates: bool | str | Sequence[str] = True,
) -> Decision:
    """Wait until a person has decided, for days if need be, holding nothing. Returns their Decision.

    title:           the question, one line of at most 255 characters.
    to:              who may answer: people or groups ("ana", "ana@example.com", "analysts"), one or several.
    type:            approval, confirmation, review, assignment, form, clarification, manual_action or override;
                     each has its usual outcomes.
    context:         what the person needs to see, JSON within ``axme_payload_bytes``.
    form:            a JSON Schema (or Pydantic model) that the answer's data must fit.
    outcomes:        other outcomes than the type's; the first is the one that says yes.
    timeout:         how long to wait; None is for ever. There is no silent default.
    on_timeout:      "fail" raises WaitTimedOut; the name of an outcome decides for it. Never approves by default.
    remind_every:    remind the assignees this often, ``max_reminders`` times.
    escalate_to:     whom to ask as well after the last reminder, or after ``escalate_after``.
    quorum:          how many different people must give the first outcome; any other outcome closes at once.
    not_by:          people and groups who may not answer; "requester" is whoever submitted the intent.
    require_comment: refuse an answer without words; or only these outcomes without. Asking for changes always needs some.
    delegates:       whether those it is for may leave the answer to others: to anybody who may answer, to nobody
                     (False), or to these.

    Raises BadInput for arguments that cannot work, OutsideIntent outside a leg.
    """
    leg = _leg("wait_for_human")
    if not isinstance(type, str) or type not in OUTCOMES:
        raise BadInput(f"type {type!r} is no human task type; use one of: {', '.join(OUTCOMES)}")
    allowed = _outcomes(outcomes) if outcomes is not None else OUTCOMES[type]
    if on_timeout != "fail" and on_timeout not in allowed:
        raise BadInput(f"on_timeout is {on_timeout!r}; use 'fail' or one of the outcomes: {', '.join(allowed)}")
    if on_timeout != "fail" and timeout is None:
        raise BadInput(f"on_timeout is {on_timeout!r}, but there is no timeout; give timeout= as well")
    if isinstance(quorum, bool) or not isinstance(quorum, int) or not 1 <= quorum <= 20:
        raise BadInput(f"quorum is {quorum!r}; it is a number of people from 1 to 20")
    if isinstance(max_reminders, bool) or not isinstance(max_reminders, int) or not 0 <= max_reminders <= 100:
        raise BadInput(f"max_reminders is {max_reminders!r}; it is a number from 0 to 100")
    if escalate_after is not None and escalate_to is None:
        raise BadInput("escalate_after needs somebody: give escalate_to")
    if escalate_to is not None and escalate_after is None and (remind_every is None or max_reminders == 0):
        raise BadInput("escalate_to needs a moment: give escalate_after, or remind_every, whose last one it follows")
    every = None if remind_every is None else _positive(remind_every, "remind_every")
    request: JsonDict = {
        "task_type": type,
        "outcomes": list(allowed),
        "on_timeout": on_timeout,
        "quorum": quorum,
        **_comments(require_comment, type, allowed),
    }
    if not isinstance(delegates, bool):
        request["delegates"] = list(assignees(delegates, "delegates"))
    elif not delegates:
        request["delegates"] = False
    if context is not None:
        if not isinstance(context, Mapping):
            raise BadInput("context must be a dict: what the person needs to see, by name")
        request["context"] = _json(leg, dict(context), "context")
    if form is not None:
        request["form"] = leg.rt.check_schema(form)
    if not_by:
        request["not_by"] = list(assignees(not_by, "not_by"))
    if every is not None:
        request |= {"remind_every_seconds": every, "max_reminders": max_reminders}
    if escalate_to is not None:
        request["escalate_to"] = list(assignees(escalate_to, "escalate_to"))
    wait = _wait(
        leg,
        "wait_for_human",
        WaitKind.HUMAN,
        title=line(title, "title"),
        to=assignees(to, "to"),
        request=request,
        timeout_after=None if timeout is None else _positive(timeout, "timeout"),
        remind_after=every if max_reminders > 0 else None,
        escalate_after=None if escalate_after is None else _positive(escalate_after, "escalate_after"),
    )
    if wait.status is WaitStatus.EXPIRED and on_timeout == "fail":
        raise WaitTimedOut(wait.id, wait.title, wait.timeout_at)
    data = None if wait.data is None else leg.rt.codec.decode(wait.data)
    return Decision(wait.outcome or "", wait.answered_by, wait.comment, data, wait.closed_at)


def wait_for_tool(
    tool: str,
    job_id: str,
    *,
    timeout: Duration | None = None,
    heartbeat: Duration | None = None,
    poll: Any = None,
    every: Duration | None = None,
) -> Any:
    """Wait until a tool reports that its job is done; returns the result it reported.

    tool, job_id: what ``complete_tool`` will be called with. A completion that came before this wait is kept.
    timeout:      give up after this long.
    heartbeat:    give up when the tool is silent for this long.
    poll, every:  for tools that cannot call back: a Celery signature run this often; it returns None while the job
                  is not done, its result when it is, and raises ToolFailed when the job failed.

    Raises ToolFailed when the tool reports an error, WaitTimedOut when it does not report in time.
    """
    leg = _leg("wait_for_tool")
    tool, job_id = tool_job(tool, job_id)
    request: JsonDict = {}
    if heartbeat is not None:
        request["heartbeat_seconds"] = _positive(heartbeat, "heartbeat")
    if (poll is None) != (every is None):
        raise BadInput("poll and every belong together: poll= is the signature to ask with, every= how often")
    if poll is not None and every is not None:
        request["poll_every_seconds"] = _positive(every, "every")
        request["poll"] = leg.rt.read_work(poll).signature
    wait = _wait(
        leg,
        f"wait_for_tool:{tool}",
        WaitKind.TOOL,
        title=f"{tool} job {job_id}",
        tool=tool,
        job_id=job_id,
        request=request,
        timeout_after=None if timeout is None else _positive(timeout, "timeout"),
        heartbeat_after=request.get("heartbeat_seconds"),
        poll_after=request.get("poll_every_seconds"),
    )
    if wait.status is WaitStatus.EXPIRED:
        raise WaitTimedOut(wait.id, wait.title, wait.timeout_at)
    data = leg.rt.codec.decode(wait.data or "null")
    if wait.outcome == "failed":
        raise ToolFailed(tool, job_id, data)
    return data


def wait_for_time(
    delay: Duration | None = None,
    *,
    until: datetime | str | None = None,
    cron: str | None = None,
    tz: str | None = None,
) -> None:
    """Wait for a while, until a moment, or until a cron expression's next moment in a time zone.

    Exactly one of ``delay``, ``until`` (aware) and ``cron`` (five fields, ``tz`` such as "Europe/Berlin", else UTC).
    The moment is reckoned once, when the wait opens, by the ledger's clock; it is never early.
    """
    leg = _leg("wait_for_time")
    if sum(given is not None for given in (delay, until, cron)) != 1:
        raise BadInput("wait_for_time takes exactly one of a delay, until= and cron=")
    if tz is not None and cron is None:
        raise BadInput("tz belongs to cron=; give until= with its own zone")
    now = leg.rt.ledger.now()
    if delay is not None:
        wake_at = now + timedelta(seconds=seconds(delay, "delay"))
    elif until is not None:
        wake_at = moment(until, "until")
    else:
        assert cron is not None
        wake_at = leg.rt.next_cron(cron, tz, now)
    _wait(leg, "wait_for_time", WaitKind.TIME, title=f"until {wake_at:%Y-%m-%d %H:%M:%S}Z", wake_at=wake_at)


def wait_for_agent(target: Any, payload: Any = None, *, timeout: Duration | None = None) -> Any:
    """Give work to an agent as an intent of its own, and wait for its result.

    target:  a Celery signature; it runs as a child intent, with its own legs, waits and history. Or an ``agent://``
             address: the task bound to it runs, or the agent that listens there over HTTP is handed the payload.
    payload: what the child intent says it is about; the signature's arguments unless given.

    Raises AgentFailed when the child ends without a result, WaitTimedOut when it does not end in time (the child
    is then canceled).
    """
    leg = _leg("wait_for_agent")
    if isinstance(target, str) and target.startswith(SCHEME):
        target = Addressed(address(target, "target"), payload)
    work = leg.rt.read_work(target)
    text = None
    if payload is not None:
        text = leg.rt.codec.encode(
            payload, what="payload", limit_bytes=leg.rt.settings.payload_bytes, setting="axme_payload_bytes"
        )
    wait = _wait(
        leg,
        "wait_for_agent",
        WaitKind.AGENT,
        title=work.task,
        tool="intent",
        child=Submission(
            work=work, payload=text, requester=f"intent:{leg.intent.id}", owner=leg.intent.owner,
            from_agent=leg.intent.to_agent, trace=leg.intent.trace,
        ),
        timeout_after=None if timeout is None else _positive(timeout, "timeout"),
    )
    if wait.status is WaitStatus.EXPIRED:
        raise WaitTimedOut(wait.id, wait.title, wait.timeout_at)
    data = leg.rt.codec.decode(wait.data or "null")
    if wait.outcome != "completed":
        raise AgentFailed(wait.job_id or "", data)
    return data


# -- the one way all four wait --------------------------------------------------


def _leg(what: str) -> RunningLeg:
    leg = required(f"{what}()")
    if in_step():
        raise OutsideIntent(f"{what}() cannot rest inside a step, which is done or not done; wait between steps. It")
    return leg


def _wait(
    leg: RunningLeg,
    name: str,
    kind: WaitKind,
    *,
    title: str,
    to: tuple[str, ...] = (),
    tool: str | None = None,
    job_id: str | None = None,
    request: JsonDict | None = None,
    wake_at: datetime | None = None,
    timeout_after: float | None = None,
    remind_after: float | None = None,
    escalate_after: float | None = None,
    heartbeat_after: float | None = None,
    poll_after: float | None = None,
    child: Submission | None = None,
) -> Wait:
    """The closed wait this call stands for; or open it, put the leg to rest and leave the body (Suspended)."""
    key, position = leg.ask(name)
    entry = leg.journal.get(key)
    if isinstance(entry, Wait) and entry.status is not WaitStatus.OPEN:
        return entry
    rt, run = leg.rt, leg.leg.run
    # AsyncResult must say WAITING before the wait can be answered: afterwards it could overwrite the result.
    try:
        if isinstance(entry, Wait):
            leg.show_waiting()
            _come_to_rest(leg, lambda on: (entry, None))
            raise leg.leaves(Suspended(f"leg {leg.leg.id} still waits: {entry.title}"))
        leg.before_new(key)
        leg.show_waiting()
        wait_id = rt.new_id()

        def opened(on: lifecycle.Occasion) -> tuple[Wait, Change | None]:
            def after(span: float | None) -> datetime | None:
                return None if span is None else on.now + timedelta(seconds=span)

            child_made = None if child is None else child_change(rt, replace(child, parent_wait_id=wait_id), on)
            child_id = None if child_made is None or child_made.intent is None else child_made.intent.id
            wait = Wait(
                id=wait_id, intent_id=leg.intent.id, leg_id=leg.leg.id, name=key[0], nth=key[1], position=position,
                run=run, kind=kind, title=title, request=request or {}, to=to, tool=tool, job_id=child_id or job_id,
                opened_at=on.now, timeout_at=wake_at or after(timeout_after), remind_at=after(remind_after),
                escalate_at=after(escalate_after), heartbeat_at=after(heartbeat_after), poll_at=after(poll_after),
            )  # fmt: skip
            return wait, child_made

        _come_to_rest(leg, opened)
    except StaleChange:
        raise leg.leaves(lost(leg.leg)) from None
    except LedgerUnavailable as away:
        raise leg.leaves(LeaseLost(f"{title!r} could not be waited for: {away}")) from away
    if kind is WaitKind.TOOL:
        # An answer may have come early. Whoever of it and this wait was committed second sees the other.
        assert tool is not None and job_id is not None
        match_early(rt, tool, job_id)
    raise leg.leaves(Suspended(f"leg {leg.leg.id} waits: {title}"))


def _come_to_rest(leg: RunningLeg, opened: Callable[[lifecycle.Occasion], tuple[Wait, Change | None]]) -> None:
    def decide(intent: Intent, now_leg: Leg) -> Sequence[Change]:
        on = occasion(leg.rt)
        wait, child = opened(on)
        if wait.run != now_leg.run:
            return [lifecycle.rest_again(intent, now_leg, wait, on=on)]
        return lifecycle.open_wait(intent, now_leg, wait, child=child, on=on)

    settle(leg.rt, leg.intent, leg.leg, decide)


# -- arguments -------------------------------------------------------------------


def _comments(required: bool | str | Sequence[str], type: str, allowed: Sequence[str]) -> JsonDict:
    """Which answers need words: all, or these outcomes."""
    if isinstance(required, bool):
        always, some = required, list[str]()
    else:
        always, some = False, [required] if isinstance(required, str) else list(required)
    unknown = [outcome for outcome in some if outcome not in allowed]
    if unknown:
        raise BadInput(f"require_comment has {unknown[0]!r}, which is no outcome of it; use: {', '.join(allowed)}")
    # Nobody can change anything on "please change it".
    some += [outcome for outcome in allowed if outcome == "changes_requested" and outcome not in some]
    return {"require_comment": always or type in _NEED_COMMENT, **({"comment_for": some} if some else {})}


def _outcomes(outcomes: Sequence[str]) -> tuple[str, ...]:
    chosen = tuple(outcomes) if isinstance(outcomes, list | tuple) else (outcomes,)
    if not 1 <= len(chosen) <= 20 or not isinstance(outcomes, str | list | tuple):
        raise BadInput(f"outcomes is {outcomes!r}; give 1 to 20 different ones")
    for outcome in chosen:
        if not isinstance(outcome, str) or not _OUTCOME.fullmatch(outcome) or outcome == "fail":
            raise BadInput(f"outcome {outcome!r} is not a lower-case word such as 'approved' (a-z, 0-9, _, at most 64)")
    if len(set(chosen)) != len(chosen):
        raise BadInput(f"outcomes is {outcomes!r}; give 1 to 20 different ones")
    return chosen


def _positive(duration: Duration, what: str) -> float:
    span = seconds(duration, what)
    if span <= 0:
        raise BadInput(f"{what} is {duration!r}; it must be longer than nothing")
    return span


def _json(leg: RunningLeg, value: Any, what: str) -> Any:
    """The value as the ledger will give it back."""
    limit = leg.rt.settings.payload_bytes
    return leg.rt.codec.decode(leg.rt.codec.encode(value, what=what, limit_bytes=limit, setting="axme_payload_bytes"))
