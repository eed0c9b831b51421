"""Fan-out: of each event that was written, a webhook delivery for everyone who wants it.

The commit that writes an event also writes one outbox row that says so, and nothing else: how many are to be told does
not slow an intent down. Here that row becomes deliveries. Their ids follow from event and subscription, so doing it
again adds nothing, and the row goes in the same transaction that adds them: no event is forgotten, none told twice
for that.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from datetime import datetime

from . import webhook, wire
from .hooks import HookDelivery, HookEvent, HookStatus, Subscription
from .model import Delivery, Event, Intent, JsonDict
from .ports import Runtime

#: Under this, ids are made from what they are of.
_NAMESPACE = uuid.UUID("a1c0b5e4-7d1f-5c9e-9c7b-2f6d1e0a8b34")
#: AXP's own names for what happens in an inbox, told beside the intent's event.
_INBOX = {
    "intent.human_task_assigned": "inbox.thread_created",
    "intent.reminder": "inbox.thread_updated",
    "intent.escalated": "inbox.thread_updated",
    "intent.wait_closed": "inbox.thread_updated",
}
_ENDS = frozenset({"intent.completed", "intent.failed", "intent.canceled", "intent.timed_out"})


def named_id(*parts: str | int | None) -> str:
    """A UUID that follows from these."""
    return str(uuid.uuid5(_NAMESPACE, repr(parts)))


def notify_subscription(url: str, owner: str | None, now: datetime) -> Subscription:
    """The subscription of a URL that intents name: one for each owner and URL, with a secret of its own.

    Where it exists already, that one counts.
    """
    return Subscription(
        id=named_id("notify", owner, url), owner=owner, kind="notify", url=url,
        event_types=tuple(sorted(_ENDS)), secret=webhook.new_secret(), created_at=now, updated_at=now,
    )  # fmt: skip


def fan_out(rt: Runtime, fanouts: Sequence[Delivery]) -> None:
    """Make the deliveries of these outbox rows, and remove the rows. Safe to do twice."""
    now = rt.ledger.now()
    live = rt.ledger.hooks.live()
    events: list[HookEvent] = []
    deliveries: list[HookDelivery] = []
    notified: dict[str, Subscription] = {}
    found = _loaded(rt, fanouts)
    for intent, told in found:
        if intent.notify is not None and told.type in _ENDS:
            named = notify_subscription(intent.notify, intent.owner, now)
            notified[named.id] = named
    known = {one.id: one for one in rt.ledger.hooks.subscriptions_by_ids(list(notified))}
    for intent, told in found:
        for event in _told(intent, told):
            wanted = [s for s in live if s.owner in (None, intent.owner) and webhook.matches(s.event_types, event.type)]
            if event.type in _ENDS and intent.notify is not None:
                named = notify_subscription(intent.notify, intent.owner, now)
                wanted.append(known.get(named.id, notified[named.id]))
            if wanted:
                events.append(event)
                deliveries += [delivery_of(event, subscription, rt.new_id(), now) for subscription in wanted]
    rt.ledger.hooks.record(
        subscriptions=list(notified.values()), events=events, deliveries=deliveries, done=[d.id for d in fanouts]
    )
    if deliveries:
        rt.relay.deliver()


def delivery_of(event: HookEvent, subscription: Subscription, delivery_id: str, now: datetime) -> HookDelivery:
    """An event for one subscription: to be sent, or only on record while that is disabled."""
    is_dead = subscription.disabled_at is not None
    return HookDelivery(
        id=delivery_id, event_id=event.id, subscription_id=subscription.id, intent_id=event.intent_id, type=event.type,
        status=HookStatus.DEAD if is_dead else HookStatus.PENDING, next_at=None if is_dead else now, created_at=now,
        ended_at=now if is_dead else None, last_error=subscription.disabled_reason if is_dead else None,
    )  # fmt: skip


def _loaded(rt: Runtime, fanouts: Sequence[Delivery]) -> list[tuple[Intent, Event]]:
    """The events these rows stand for, each with its intent."""
    found: list[tuple[Intent, Event]] = []
    for one in fanouts:
        body: JsonDict = one.body
        # The intent after its events, so that a result they speak of is there.
        events = rt.ledger.events(one.intent_id, body["since"], body["until"] - body["since"])
        intent = rt.ledger.intent(one.intent_id)
        if intent is not None:
            found += [(intent, told) for told in events if told.seq <= body["until"]]
    return found


def _told(intent: Intent, told: Event) -> Iterator[HookEvent]:
    """The event as webhooks tell it, under each of its names."""
    data = wire.event_text(told, intent)
    names = [told.type, *([_INBOX[told.type]] if told.type in _INBOX else [])]
    if told.type in _ENDS and intent.reply_to is not None:
        names.append("inbox.thread_created")
    for name in names:
        yield HookEvent(
            id=named_id(intent.id, told.seq, name), type=name, owner=intent.owner, intent_id=intent.id, seq=told.seq,
            data=data, at=told.at,
        )  # fmt: skip
