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

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from . import lifecycle
from .answer import tool_job
from .asking import Escalation, parted, positive, question
from .beats import occasion
from .begin import Submission, new_intent
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
    escalate_to: Escalation | None = None,
    escalate_after: Duration | None = None,
    fallback: str | Sequence[str] | None = None,
    due: Duration | None = None,
    business_hours: bool | Mapping[str, Any] | None = None,
    quorum: int = 1,
    reject_policy: str = "any",
    not_by: str | Sequence[str] = (),
    delegates: bool | str | Sequence[str] = True,
    require_comment: bool | str | Sequence[str] = False,
    bulk: bool = False,
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
    escalate_to:     whom to ask as well after the last reminder, or after ``escalate_after``; or a ladder, each rung
                     with its time since the opening: ``[("head-of-data", "4h"), ("cto", "1d")]``.
    fallback:        whom to ask as well when the timeout passes; they have the same time again before the wait is
                     given up. They are asked at once where none of ``to`` may answer.
    due:             how soon an answer is wanted: inboxes are sorted by it. Its first escalation or timeout, else.
    business_hours:  reckon all of these in working time: ``{"days": "mon-fri", "hours": "09:00-17:00", "tz": ...}``.
                     ``axme_business_hours`` unless given; False is around the clock.
    quorum:          how many different people must give the first outcome.
    reject_policy:   "any": any other outcome closes the wait at once; "quorum": it needs as many people.
    not_by:          people and groups who may not answer; "requester" is whoever submitted the intent.
    delegates:       whether those it is for may leave the answer to others: to anybody who may answer, to nobody
                     (False), or to these.
    require_comment: refuse an answer without words; or only these outcomes without. Asking for changes always needs some.
    bulk:            may be answered together with others of its kind. Not with a form.

    Raises BadInput for arguments that cannot work, OutsideIntent outside a leg.
    """
    leg = _leg("wait_for_human")
    asked = question(
        leg.rt, title, to=to, type=type, context=context, form=form, outcomes=outcomes, timeout=timeout,
        on_timeout=on_timeout, remind_every=remind_every, max_reminders=max_reminders, escalate_to=escalate_to,
        escalate_after=escalate_after, fallback=fallback, due=due, business_hours=business_hours, quorum=quorum,
        reject_policy=reject_policy, not_by=not_by, delegates=delegates, require_comment=require_comment, bulk=bulk,
    )  # fmt: skip
    wait = _wait(
        leg, "wait_for_human", WaitKind.HUMAN, title=asked.title, to=asked.to, request=asked.request,
    )  # fmt: skip
    said_yes = wait.status is WaitStatus.ANSWERED and wait.outcome == asked.request["outcomes"][0]
    if said_yes and wait.payload_hash != lifecycle.shown_hash(asked.title, asked.request, leg.intent.payload):
        # What was approved is what runs, also where the code reckons it anew.
        leg.refuse_other_than_approved(wait)
    if wait.status is WaitStatus.EXPIRED and on_timeout == "fail":
        raise WaitTimedOut(wait.id, wait.title, wait.timeout_at)
    data = None if wait.data is None else leg.rt.codec.decode(wait.data)
    return Decision(wait.outcome or "", wait.answered_by, wait.comment, data, wait.closed_at, wait.votes)


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
        request["heartbeat_seconds"] = positive(heartbeat, "heartbeat")
    if (poll is None) != (every is None):
        raise BadInput("poll and every belong together: poll= is the signature to ask with, every= how often")
    if poll is not None and every is not None:
        request["poll_every_seconds"] = positive(every, "every")
        request["poll"] = leg.rt.read_work(poll).signature
    wait = _wait(
        leg,
        f"wait_for_tool:{tool}",
        WaitKind.TOOL,
        title=f"{tool} job {job_id}",
        tool=tool,
        job_id=job_id,
        request=request,
        timeout_after=None if timeout is None else positive(timeout, "timeout"),
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
    now = max([leg.rt.ledger.now(), *_waited_for(leg)])
    if delay is not None:
        wake_at = now + timedelta(seconds=seconds(delay, "delay"))
    elif until is not None:
        wake_at = moment(until, "until")
    else:
        assert cron is not None
        wake_at = leg.rt.next_cron(cron, tz, now)
    _wait(leg, "wait_for_time", WaitKind.TIME, title=f"until {wake_at:%Y-%m-%d %H:%M:%S}Z", wake_at=wake_at)


def _waited_for(leg: RunningLeg) -> list[datetime]:
    """When the leg's waits have closed. It is later than that, whatever this worker's idea of the ledger's time.

    That is a little behind: one that is woken at nine to wait for nine again would wait for the same nine.
    """
    waits = [entry for entry in leg.journal.values() if isinstance(entry, Wait)]
    return [wait.closed_at for wait in waits if wait.closed_at is not None]


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
            work=work,
            payload=text,
            requester=f"intent:{leg.intent.id}",
            owner=leg.intent.owner,
            from_agent=leg.intent.to_agent,
            trace=leg.intent.trace,
        ),
        timeout_after=None if timeout is None else positive(timeout, "timeout"),
    )
    if wait.status is WaitStatus.EXPIRED:
        raise WaitTimedOut(wait.id, wait.title, wait.timeout_at)
    data = leg.rt.codec.decode(wait.data or "null")
    if wait.outcome != "completed":
        raise AgentFailed(wait.job_id or "", data)
    return data


# -- the one way all four wait --------------------------------------------------


#: Gives the wait that a call would open, and the intents that begin with it: the one that it is for first.
Opening = Callable[[lifecycle.Occasion], tuple[Wait, Sequence[Change]]]


class Prospect(RunningLeg):
    """A leg that is no running task but a wait node: what is called in its name only says what wait it would open."""

    def before_new(self, key: tuple[str, int]) -> None:
        """Nothing stands in its way: no code of a task's is running."""


class Foreseen(BaseException):
    """Carries the opening out of the call of a wait."""

    def __init__(self, opening: Opening) -> None:
        super().__init__()
        self.opening = opening


#: The wait node in whose name waits are called here.
prospect: ContextVar[Prospect | None] = ContextVar("axme_prospect", default=None)


def _leg(what: str) -> RunningLeg:
    foreseeing = prospect.get()
    if foreseeing is not None:
        return foreseeing
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
            _come_to_rest(leg, lambda on: (entry, ()))
            raise leg.leaves(Suspended(f"leg {leg.leg.id} still waits: {entry.title}"))
        leg.before_new(key)
        leg.show_waiting()
        wait_id = rt.new_id()

        def opened(on: lifecycle.Occasion) -> tuple[Wait, Sequence[Change]]:
            def after(span: float | None) -> datetime | None:
                return None if span is None else on.now + timedelta(seconds=span)

            begun = () if child is None else new_intent(rt, replace(child, parent_wait_id=wait_id), on)
            child_id = begun[0].intent.id if begun and begun[0].intent is not None else None
            asked = parted(rt, leg.intent, request or {})
            wait = Wait(
                id=wait_id, intent_id=leg.intent.id, leg_id=leg.leg.id, name=key[0], nth=key[1], position=position,
                run=run, kind=kind, title=title, request=asked, to=to, tool=tool, job_id=child_id or job_id,
                opened_at=on.now, timeout_at=wake_at or after(timeout_after), heartbeat_at=after(heartbeat_after),
                poll_at=after(poll_after),
            )  # fmt: skip
            return lifecycle.with_moments(wait) if kind is WaitKind.HUMAN else wait, begun

        _come_to_rest(leg, opened)
    except StaleChange:
        raise leg.leaves(lost(leg.leg)) from None
    except LedgerUnavailable as away:
        raise leg.leaves(LeaseLost(f"{title!r} could not be waited for: {away}")) from away
    raise leg.leaves(Suspended(f"leg {leg.leg.id} waits: {title}"))


def _come_to_rest(leg: RunningLeg, opened: Opening) -> None:
    if isinstance(leg, Prospect):
        raise Foreseen(opened)

    def decide(intent: Intent, now_leg: Leg) -> Sequence[Change]:
        on = occasion(leg.rt)
        wait, begun = opened(on)
        # Only legs of a group have others beside them, and those that call or were called.
        others = now_leg.within is not None or intent.called_open > 0
        busy = others and leg.rt.ledger.is_busy(intent.id, [now_leg.id])
        if wait.run != now_leg.run:
            return [lifecycle.rest_again(intent, now_leg, wait, busy=busy, on=on)]
        return lifecycle.open_wait(intent, now_leg, wait, children=begun, busy=busy, on=on)

    settle(leg.rt, leg.intent, leg.leg, decide)
