"""What happens while nobody answers: reminders, the ladder of escalations, the fallback, polls. The wait stays open."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from ..hours import later
from ..model import Change, Delivery, DeliveryKind, Wait, WaitRecord, WaitStatus
from ..texts import folded
from .moves import Occasion, Story
from .outgoing import notice_delivery, text_of
from .voters import barred


def with_moments(wait: Wait) -> Wait:
    """A wait for people with its moments, as its request asks for them, reckoned from its opening.

    In business hours where the request has some, around the clock elsewhere.
    """
    request = wait.request
    hours = request.get("business_hours")

    def after(seconds: float | None) -> datetime | None:
        return None if seconds is None else later(wait.opened_at, seconds, hours)

    first = request.get("remind_first_seconds", request.get("remind_every_seconds"))
    reminded = first if request.get("max_reminders", 3) else None
    rungs = request.get("escalation", ())
    timeout_at, escalate_at = after(request.get("timeout_seconds")), after(rungs[0]["after_seconds"] if rungs else None)
    wanted_at = after(request["due_seconds"]) if "due_seconds" in request else escalate_at or timeout_at
    return replace(wait, timeout_at=timeout_at, remind_at=after(reminded), escalate_at=escalate_at, wanted_at=wanted_at)


def nudge(record: WaitRecord, on: Occasion) -> Change | None:
    """Escalation, reminder and poll, as far as they are due; None when nothing is."""
    wait, story, outbox = record.wait, Story(record.intent, on.now), list[Delivery]()
    if wait.escalate_at is not None and wait.escalate_at <= on.now:
        wait = _climb(wait, story, outbox, on)
    elif wait.remind_at is not None and wait.remind_at <= on.now:
        wait = _remind(wait, story, outbox, on)
    if wait.poll_at is not None and wait.poll_at <= on.now:
        wait = replace(wait, poll_at=on.now + timedelta(seconds=wait.request["poll_every_seconds"]))
        outbox.append(
            Delivery(
                id=on.new_id(),
                kind=DeliveryKind.POLL,
                intent_id=wait.intent_id,
                leg_id=wait.leg_id,
                body={"wait_id": wait.id},
                next_at=on.now,
            )
        )
    if wait is record.wait:
        return None
    wait = replace(wait, due_at=due(wait))
    if not story.events:
        return Change(waits=((record.wait, wait),), outbox=tuple(outbox))
    return story.change(waits=((record.wait, wait),), outbox=tuple(outbox))


def _climb(wait: Wait, story: Story, outbox: list[Delivery], on: Occasion) -> Wait:
    """The next rung of the ladder is asked as well; the reminders are over."""
    rungs = wait.request["escalation"]
    number = wait.escalations + 1
    added = tuple(rungs[number - 1]["to"])
    following = None
    if number < len(rungs):
        following = later(wait.opened_at, rungs[number]["after_seconds"], wait.request.get("business_hours"))
    wait = replace(
        wait, to=tuple(dict.fromkeys((*wait.to, *added))), escalations=number, escalate_at=following,
        escalated_at=on.now, remind_at=None,
    )  # fmt: skip
    story.tell(
        "intent.escalated", actor="clock", leg_id=wait.leg_id, wait_id=wait.id, escalated_to=list(added), rung=number,
        rungs=len(rungs),
    )  # fmt: skip
    outbox.append(notice_delivery(story.intent, wait, "escalation", added, on))
    return wait


def _remind(wait: Wait, story: Story, outbox: list[Delivery], on: Occasion) -> Wait:
    """Those who can still answer are told again."""
    request, hours = wait.request, wait.request.get("business_hours")
    every, count = request["remind_every_seconds"], wait.reminders + 1
    last = count >= request.get("max_reminders", 3)
    assert wait.remind_at is not None
    # A sweep that comes late does not make up for what was missed, nor remind again at once.
    following = max(later(wait.remind_at, every, hours), later(on.now, every / 2, hours))
    rungs = request.get("escalation", ())
    escalate_at = wait.escalate_at
    if last and escalate_at is None and wait.escalations < len(rungs):
        escalate_at = following
    wait = replace(wait, reminders=count, remind_at=None if last else following, escalate_at=escalate_at)
    to = pending(wait)
    story.tell(
        "intent.reminder", actor="clock", leg_id=wait.leg_id, wait_id=wait.id, number=count, to=list(to),
        pending_with=list(wait.to),
    )  # fmt: skip
    if to:
        outbox.append(notice_delivery(story.intent, wait, "reminder", to, on))
    return wait


def may_fall_back(wait: Wait) -> bool:
    """Whether somebody is left to turn to before the wait is given up."""
    return bool(wait.request.get("fallback")) and wait.fell_back_at is None


def fall_back(record: WaitRecord, *, on: Occasion) -> Change:
    """The timeout has passed: the fallback is asked as well, and has the same time again."""
    wait, request = record.wait, record.wait.request
    added = tuple(request["fallback"])
    until = later(on.now, request["timeout_seconds"], request.get("business_hours"))
    passed = replace(
        wait, to=tuple(dict.fromkeys((*wait.to, *added))), fell_back_at=on.now, timeout_at=until, remind_at=None,
        escalated_at=on.now,
    )  # fmt: skip
    passed = replace(passed, due_at=due(passed))
    story = Story(record.intent, on.now)
    story.tell(
        "intent.escalated", actor="clock", leg_id=wait.leg_id, wait_id=wait.id, escalated_to=list(added),
        cause="timeout", timeout_at=text_of(until),
    )  # fmt: skip
    notice = notice_delivery(story.intent, passed, "escalation", added, on)
    return story.change(waits=((wait, passed),), outbox=(notice,))


def pending(wait: Wait) -> tuple[str, ...]:
    """Those the wait is for, without those who cannot answer it, or have."""
    gone = barred(wait)
    return tuple(name for name in wait.to if folded(name) not in gone)


def due(wait: Wait) -> datetime | None:
    """The next moment anybody must look at a wait; None when closed or timeless."""
    if wait.status is not WaitStatus.OPEN:
        return None
    moments = (wait.timeout_at, wait.remind_at, wait.escalate_at, wait.heartbeat_at, wait.poll_at)
    return min((m for m in moments if m is not None), default=None)
