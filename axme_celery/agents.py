"""Agents outside Celery: put legs into their mailboxes, hand them out under a lease, take what they answer.

A leg of an agent is in one of three places: in the mailbox (QUEUED), in a listener's hands (RUNNING, until ``due_at``),
or done. Whoever answers first ends it; a lease only says when the next listener may have it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from . import lifecycle, wire
from .beats import best_effort, carry_out, each, occasion
from .errors import BadInput, HandledByQueue, IntentEnded, NotFound, StaleChange, StaleGeneration
from .fanout import delivery_of, named_id, notify_subscription
from .hooks import HookEvent
from .model import Change, Delivery, Intent, JsonDict, Lease, Leg, LegStatus, Status
from .outbound import check_url
from .parties import MODES, Agent, HandOut, Message, Policy, address, is_address
from .ports import Runtime
from .texts import line, text

#: How long a listener has an intent unless it says otherwise, and at most.
LEASE_SECONDS, LONGEST_LEASE_SECONDS = 60.0, 86400.0
#: Lapsed leases looked at in one go.
BATCH = 200


# -- mailboxes ------------------------------------------------------------------------


def offer(rt: Runtime, delivery: Delivery) -> bool:
    """Put a leg that waits to be run into its agent's mailbox; False when it is no agent's. Again is fine."""
    leg = delivery.leg
    if leg is None or not is_address(leg.task):
        return False
    if leg.run == delivery.run and leg.status is LegStatus.QUEUED:
        now, intent = rt.ledger.now(), rt.ledger.intent(leg.intent_id)
        owner = None if intent is None else intent.owner
        rt.ledger.mailboxes.offer(Agent(address=leg.task, owner=owner, created_at=now, updated_at=now), delivery)
        agent = rt.ledger.mailboxes.agent(leg.task)
        if intent is not None and agent is not None and agent.delivery_mode == "http" and agent.callback_url:
            _push(rt, agent, intent, leg)
        if agent is not None:
            best_effort(lambda: rt.tracker.tell({leg.task: agent.cursor}))
    return True


def _push(rt: Runtime, agent: Agent, intent: Intent, leg: Leg) -> None:
    """Tell an agent that is called rather than listens, by the webhooks' way: signed, tried for days, each once."""
    if agent.callback_url is None or agent.status != "active":
        return
    now = rt.ledger.now()
    named = notify_subscription(agent.callback_url, agent.owner, now)
    known = rt.ledger.hooks.subscriptions_by_ids([named.id])
    event = HookEvent(
        # One for each time the leg is offered, also when nobody began it in time and it is offered again.
        id=named_id("push", leg.id, leg.run, leg.resends), type="intent.delivered", owner=intent.owner, intent_id=intent.id,
        seq=intent.seq, data=wire.text_of(pushed(agent, intent, leg)), at=now,
    )  # fmt: skip
    delivery = delivery_of(event, known[0] if known else named, rt.new_id(), now)
    rt.ledger.hooks.record(subscriptions=[named], events=[event], deliveries=[delivery], durable=True)
    rt.relay.deliver()


def pushed(agent: Agent, intent: Intent, leg: Leg) -> JsonDict:
    """What an agent is told of an intent that lies in its mailbox."""
    return {
        "intent_id": intent.id, "event_type": "intent.delivered", "status": intent.status.value,
        "intent_type": intent.type, "handler": agent.address, "from_agent": intent.from_agent or intent.requester,
        "correlation_id": intent.correlation_id, "delivery_attempt": leg.attempts + 1,
        "payload": wire.plain(intent.payload),
    }  # fmt: skip


def listening(rt: Runtime, agent: str, owner: str | None) -> Agent:
    """Note that somebody listens as this agent. From then on it is a known one."""
    now = rt.ledger.now()
    known = rt.ledger.mailboxes.agent(agent)
    if known is not None and known.seen_at is not None and now - known.seen_at < timedelta(seconds=10):
        return known
    made = Agent(address=agent, owner=owner, created_at=now, updated_at=now, seen_at=now)
    rt.ledger.mailboxes.seen(made)
    return rt.ledger.mailboxes.agent(agent) or made


def take(
    rt: Runtime,
    agent: str,
    *,
    since: int,
    by: str,
    owner: str | None = None,
    statuses: Collection[str] = (),
    limit: int = 100,
    lease_seconds: float = LEASE_SECONDS,
) -> tuple[list[HandOut], int]:
    """Take what lies in an agent's mailbox after number ``since``; it is the taker's until the lease ends.

    owner:    only intents of this owner; None: everybody's.
    statuses: only intents with one of these, as they are or as they will be (DELIVERED).

    Returns what was taken, and up to which number the mailbox was looked through.
    """
    known = rt.ledger.mailboxes.agent(agent)
    if known is None or known.status != "active":
        return [], since
    handed: list[HandOut] = []
    while True:
        page = rt.ledger.mailboxes.open_offers(agent, since, limit)
        for found, intent, leg in page:
            since = found.seq
            if owner is not None and intent.owner != owner:
                continue
            if statuses and not {intent.status.value, Status.DELIVERED.value} & set(statuses):
                continue
            change = _hand_out(rt, intent, leg, agent, by, lease_seconds)
            if change is not None:
                handed.append(HandOut(found, change.intent, change.legs[0][1]))
        # A page of what is not for this listener hides what comes after it.
        if handed or len(page) < limit:
            break
    rt.ledger.mailboxes.taken([one.offer for one in handed])
    return handed, since


def _hand_out(rt: Runtime, intent: Intent, leg: Leg, agent: str, by: str, lease_seconds: float) -> Change | None:
    known = [(intent, leg)]

    def decide() -> Sequence[Change]:
        if not known:
            record = rt.ledger.leg_record(leg.id, history=False)
            if record is None:
                return ()
            known.append((record.intent, record.leg))
        on = occasion(rt)
        until = on.now + timedelta(seconds=lease_seconds)
        try:
            return [
                lifecycle.agents.hand_out(*known.pop(), leg.run, to=agent, by=by, token=rt.new_id(), until=until, on=on)
            ]
        except StaleChange:
            # Another listener was faster.
            return ()

    changes = carry_out(rt, decide)
    return changes[0] if changes else None


def in_hand(rt: Runtime, handed: Sequence[HandOut]) -> list[HandOut]:
    """Those of these hand-outs that are still their listener's: neither finished, nor somebody else's by now."""
    kept = {
        (lease.leg_id, lease.run) for lease in rt.ledger.running([Lease(o.leg.id, o.leg.run) for o in handed], BATCH)
    }
    return [one for one in handed if (one.leg.id, one.leg.run) in kept]


def give_back(rt: Runtime, handed: HandOut, cause: str) -> bool:
    """A listener is gone before it began: the next one may have it at once. False when it had begun, or ended."""

    def decide() -> Sequence[Change]:
        record = rt.ledger.leg_record(handed.leg.id, history=False)
        if record is None or record.leg.token != handed.leg.token:
            return ()
        try:
            return [lifecycle.agents.give_back(record.intent, record.leg, cause=cause, on=occasion(rt))]
        except StaleChange:
            return ()

    return bool(carry_out(rt, decide))


def renew(
    rt: Runtime, intent_id: str, *, by: str, lease_seconds: float = LEASE_SECONDS, acknowledge: bool = False
) -> Intent:
    """An agent is still at it: put off the moment at which the next listener gets it.

    acknowledge: also tell that it was received. Raises BadInput when nobody holds it, IntentEnded, NotFound.
    """
    if not 1 <= lease_seconds <= LONGEST_LEASE_SECONDS:
        raise BadInput(f"a lease lasts from 1 to {LONGEST_LEASE_SECONDS:g} seconds, not {lease_seconds:g}")
    renewed: list[Intent] = []

    def decide() -> Sequence[Change]:
        intent = _open(rt, intent_id)
        held = [leg for leg in rt.ledger.legs(intent_id) if is_address(leg.task) and leg.status is LegStatus.RUNNING]
        if not held:
            raise BadInput(f"no agent holds intent {intent_id}; it is {intent.status.value}")
        renewed[:] = [intent]
        on = occasion(rt)
        until = on.now + timedelta(seconds=lease_seconds)
        if acknowledge:
            return [lifecycle.agents.acknowledge(intent, held[0], by=by, until=until, on=on)]
        return [lifecycle.agents.renew(held[0], until=until)]

    changes = carry_out(rt, decide)
    return changes[0].intent or renewed[0]


def lapsed_leases(rt: Runtime, ends_at: float = math.inf) -> int:
    """Legs whose agent's lease has ended lie in the mailbox again, or fail when they did so too often."""
    moved = 0
    while found := rt.ledger.mailboxes.lapsed(rt.ledger.now(fresh=True), BATCH):
        moved += each("run", found, lambda lease: _lapse(rt, lease))
        if len(found) < BATCH or time.monotonic() >= ends_at:
            break
    return moved


def _lapse(rt: Runtime, lease: Lease) -> int:
    def decide() -> Sequence[Change]:
        record = rt.ledger.leg_record(lease.leg_id, history=False)
        if record is None or record.intent.status.is_final:
            return ()
        legs, waits = rt.ledger.legs(record.intent.id), rt.ledger.waits(record.intent.id)
        try:
            return [lifecycle.agents.lapse(record.intent, legs, waits, record.leg, lease.run, on=occasion(rt))]
        except StaleChange:
            return ()

    return len(carry_out(rt, decide))


# -- what they answer -----------------------------------------------------------------


def complete(
    rt: Runtime, intent_id: str, *, result: Any = None, error: JsonDict | None = None, by: str,
    holder: str | None = None, expected_generation: int | None = None,
) -> Intent:  # fmt: skip
    """An intent of outside agents ends: COMPLETED with this result, or FAILED with this error.

    holder: who was handed it: the leases of what else it was handed are renewed.

    Raises HandledByQueue when Celery tasks run it (unless it is to fail: that stops them), IntentEnded, NotFound,
    StaleGeneration.
    """
    encoded = None
    if error is None:
        encoded = rt.codec.encode(
            result,
            what=f"result of intent {intent_id}",
            limit_bytes=rt.settings.result_bytes,
            setting="axme_result_bytes",
        )
    else:
        described = rt.codec.encode(
            error,
            what=f"error of intent {intent_id}",
            limit_bytes=rt.settings.result_bytes,
            setting="axme_result_bytes",
        )
        # It becomes part of the history, which is sealed, sent on and read by others than Python.
        error = wire.plain(described)

    def decide() -> Sequence[Change]:
        intent = _open(rt, intent_id)
        check_generation(intent, expected_generation)
        legs, waits, on = rt.ledger.legs(intent_id), rt.ledger.waits(intent_id), occasion(rt)
        if any(not is_address(leg.task) and not leg.status.is_final for leg in legs):
            if error is None:
                raise HandledByQueue(intent_id)
            return [lifecycle.fail_from_outside(intent, legs, waits, error=error, by=by, on=on)]
        return [lifecycle.agents.finish(intent, legs, waits, result=encoded, error=error, by=by, on=on)]

    changed = carry_out(rt, decide)[0].intent
    assert changed is not None
    _seen_at_work(rt, changed.handler, holder)
    return changed


def _seen_at_work(rt: Runtime, agent: str | None, holder: str | None) -> None:
    """A listener has finished something: it is alive, so what else it was handed stays its own, and it may have more."""
    if agent is None or holder is None:
        return
    until = rt.ledger.now() + timedelta(seconds=rt.settings.agent_lease_seconds)
    rt.ledger.mailboxes.renew_all(agent, holder, until)
    best_effort(lambda: rt.tracker.tell({agent: rt.ledger.mailboxes.cursor(agent)}))


def answered(rt: Runtime, intent_id: str, *, result: Any, error: Any, by: str) -> Intent:
    """``complete`` for a caller in Python, whose error may be words. Raises BadInput for a result and an error."""
    line(by, "by")
    if error is not None and result is not None:
        raise BadInput(f"intent {intent_id} has a result or an error, not both")
    if error is None:
        return complete(rt, intent_id, result=result, by=by)
    described = dict(error) if isinstance(error, Mapping) else {"message": str(error)}
    return complete(rt, intent_id, error={"code": "agent_failed", "message": "failed", **described}, by=by)


def begin(rt: Runtime, intent_id: str, *, by: str, expected_generation: int | None = None) -> Intent:
    """An agent says that it goes on: the intent is IN_PROGRESS. Raises IntentEnded, NotFound, StaleGeneration."""
    begun: list[Intent] = []

    def decide() -> Sequence[Change]:
        intent = _open(rt, intent_id)
        check_generation(intent, expected_generation)
        begun[:] = [intent]
        if intent.status in (Status.IN_PROGRESS, Status.WAITING):
            return ()
        if any(not is_address(leg.task) for leg in rt.ledger.legs(intent_id)):
            # Its worker says so itself.
            return ()
        return [lifecycle.agents.begin(intent, by=by, on=occasion(rt))]

    changes = carry_out(rt, decide)
    return (changes[0].intent if changes else None) or begun[0]


def transfer(rt: Runtime, intent_id: str, *, to: str, by: str, reason: str | None = None) -> Intent:
    """Give an intent to another agent, from its beginning. Raises BadInput where no agent has it, IntentEnded, NotFound."""
    to = address(to, "the next handler")
    if reason is not None:
        text(reason, "reason", longest=2000)

    def decide() -> Sequence[Change]:
        intent = _open(rt, intent_id)
        theirs = [leg for leg in rt.ledger.legs(intent_id) if is_address(leg.task) and not leg.status.is_final]
        if len(theirs) != 1 or theirs[0].status is LegStatus.WAITING:
            raise BadInput(f"intent {intent_id} is with no agent that could hand it on; it is {intent.status.value}")
        return [lifecycle.agents.transfer(intent, theirs[0], to=to, by=by, reason=reason, on=occasion(rt))]

    changed = carry_out(rt, decide)[0].intent
    assert changed is not None
    return changed


def change_terms(
    rt: Runtime, intent_id: str, *, event: str, patch: JsonDict, by: str, reason: str | None, expected: int | None
) -> Intent:
    """Lay a patch over an intent's terms, as its next policy generation: controls, or grants and envelope.

    event: "intent.controls_changed" or "intent.policy_changed". Raises StaleGeneration, IntentEnded, NotFound.
    """

    def decide() -> Sequence[Change]:
        intent = _open(rt, intent_id)
        check_generation(intent, expected)
        terms = dict(intent.terms or {})
        generation = terms.get("generation", 0) + 1
        for name, values in patch.items():
            terms[name] = {k: v for k, v in {**terms.get(name, {}), **values}.items() if v is not None}
        terms["generation"] = generation
        rt.codec.encode(terms, what="terms", limit_bytes=rt.settings.payload_bytes, setting="axme_payload_bytes")
        on = occasion(rt)
        return [lifecycle.agents.retermed(intent, terms, event=event, patch=patch, by=by, reason=reason, on=on)]

    changed = carry_out(rt, decide)[0].intent
    assert changed is not None
    return changed


def send_message(rt: Runtime, intent_id: str, message: str, *, by: str) -> Message:
    """Somebody writes in an intent's thread. Raises IntentEnded, NotFound, BadInput."""
    text(message, "message", longest=131072)
    made = Message(
        id=rt.new_id(), intent_id=intent_id, event_type="message.sent", actor=by, details={"message": message},
        at=rt.ledger.now(),
    )  # fmt: skip
    # The message first: a line in the log that names it is then never wrong.
    _open(rt, intent_id)
    rt.ledger.exchange.say(made)

    def decide() -> Sequence[Change]:
        intent = _open(rt, intent_id)
        return [lifecycle.agents.note(intent, "intent.message_sent", by=by, on=occasion(rt), message_id=made.id)]

    carry_out(rt, decide)
    return made


def generation(intent: Intent) -> int:
    """How often its terms were changed."""
    return int((intent.terms or {}).get("generation", 0))


def check_generation(intent: Intent, expected: int | None) -> None:
    """Raises StaleGeneration unless the terms are those the caller knows."""
    if expected is not None and expected != generation(intent):
        raise StaleGeneration(intent.id, expected, generation(intent))


# -- agents ------------------------------------------------------------------------------


def register(
    rt: Runtime,
    agent: str,
    *,
    owner: str | None,
    display_name: str | None = None,
    delivery_mode: str | None = None,
    callback_url: str | None = None,
    status: str | None = None,
    send: Policy | None = None,
    receive: Policy | None = None,
) -> Agent:
    """Make an agent known, or change what is given here of a known one. Raises BadInput."""
    now = rt.ledger.now()
    known = rt.ledger.mailboxes.agent(agent) or Agent(address=agent, owner=owner, created_at=now, updated_at=now)
    if display_name is not None:
        line(display_name, "display_name")
    if delivery_mode is not None and delivery_mode not in MODES:
        raise BadInput(f"delivery_mode is {delivery_mode[:40]!r}; it is one of {', '.join(MODES)}")
    if status is not None and status not in ("active", "suspended", "deleted"):
        raise BadInput(f"status is {status[:40]!r}; it is active, suspended or deleted")
    if callback_url is not None:
        check_url(callback_url)
    given: dict[str, Any] = {
        "display_name": display_name, "delivery_mode": delivery_mode, "callback_url": callback_url, "status": status,
        "send": send, "receive": receive,
    }  # fmt: skip
    changed = replace(known, updated_at=now, **{k: v for k, v in given.items() if v is not None})
    rt.ledger.mailboxes.put_agent(changed)
    rt.ledger.mailboxes.seen(replace(changed, seen_at=now))
    return changed


def refusal(rt: Runtime, sender: str | None, receiver: str) -> str | None:
    """Why this sender may not send to that agent, as a code; None when it may."""
    to = rt.ledger.mailboxes.agent(receiver)
    if sender is not None:
        of = rt.ledger.mailboxes.agent(sender)
        if of is not None and (of.status == "suspended" or not of.send.allows(receiver)):
            return "policy_denied"
    if to is None or to.receive.allows(sender):
        return None
    return "sender_not_in_receive_allowlist" if to.receive.mode == "allowlist" else "receiver_agent_closed"


def _open(rt: Runtime, intent_id: str) -> Intent:
    intent = rt.ledger.intent(intent_id)
    if intent is None:
        raise NotFound("intent", intent_id)
    if intent.status.is_final:
        raise IntentEnded(intent.id, intent.status.value, intent.ended_at)
    return intent


__all__ = [
    "LEASE_SECONDS", "LONGEST_LEASE_SECONDS", "answered", "begin", "change_terms", "check_generation", "complete",
    "generation", "give_back", "in_hand", "lapsed_leases", "listening", "offer", "refusal", "register", "renew",
    "send_message", "take", "transfer",
]  # fmt: skip
