"""Subscriptions to events, by webhook: make, rotate, end; tell an event of one's own; send again what was not received."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from . import webhook
from .durations import Duration, seconds
from .errors import BadInput, NotFound
from .fanout import delivery_of, named_id, notify_subscription
from .hooks import HookEvent, HookStatus, Parcel, Subscription
from .outbound import check_url
from .ports import Runtime
from .texts import line, text

#: Deliveries put back in one transaction.
BATCH = 500


def subscribe(
    rt: Runtime,
    url: str,
    event_types: Sequence[str] = ("intent.*",),
    *,
    owner: str | None = None,
    secret: str | None = None,
    thin: bool = False,
    active: bool = True,
    description: str | None = None,
) -> Subscription:
    """Tell this URL of events from now on: all that are committed after this returns. Its ``secret`` signs them.

    event_types: "intent.completed", "intent.*" for all below, "*"; also AXP's "inbox.*" names, and what is posted.
    owner:       only of this owner's intents; None is all.
    secret:      16 to 128 characters; one is made unless given.
    thin:        deliveries name the event, and its details are to be fetched.
    active:      False records what happens and sends nothing until it is enabled.

    One owner has one subscription to a URL: again, it takes the new event types, and keeps its secret unless another
    is given. Raises BadInput.
    """
    check_url(url)
    wanted = webhook.patterns(event_types)
    if description is not None:
        text(description, "description", longest=255)
    if owner is not None:
        line(owner, "owner")
    now = rt.ledger.now()
    made = Subscription(
        id=named_id("subscription", owner, url), owner=owner, url=url, event_types=wanted, thin=thin,
        secret=webhook.new_secret() if secret is None else webhook.checked_secret(secret), description=description,
        created_at=now, updated_at=now, disabled_at=None if active else now,
        disabled_reason=None if active else "disabled: not active",
    )  # fmt: skip
    rt.ledger.hooks.put(made)
    found = _known(rt, made.id)
    if found.secret == made.secret and found.created_at == made.created_at:
        return found
    values: dict[str, Any] = {
        "event_types": list(wanted), "thin": thin, "description": description, "updated_at": now, "revoked_at": None,
    }  # fmt: skip
    if secret is not None or found.revoked_at is not None:
        # Who ended a subscription need not be who makes it again.
        values |= {"secret": made.secret, "old_secret": None, "old_secret_until": None}
    if found.revoked_at is not None:
        values["created_at"] = now
    values |= (
        {"disabled_at": None, "disabled_reason": None, "failures": 0, "rests_until": None}
        if active
        else {"disabled_at": now, "disabled_reason": "disabled: not active"}
    )
    rt.ledger.hooks.change(found.id, values)
    return _known(rt, found.id)


def revoke(rt: Runtime, subscription_id: str, *, owner: str | None = None) -> Subscription:
    """End a subscription: nothing more is recorded for it, and what was pending is given up. Twice is once."""
    found = _known(rt, subscription_id, owner)
    if found.revoked_at is None:
        now = rt.ledger.now()
        rt.ledger.hooks.change(
            found.id, {"revoked_at": now, "updated_at": now}, end_pending="its subscription was revoked"
        )
    return _known(rt, subscription_id, owner)


def enable(rt: Runtime, subscription_id: str, *, owner: str | None = None) -> Subscription:
    """Send to it again. What was recorded meanwhile is sent by ``redeliver_range``."""
    found = _live(rt, subscription_id, owner)
    calm = {"disabled_at": None, "disabled_reason": None, "failures": 0, "rests_until": None}
    rt.ledger.hooks.change(found.id, {**calm, "updated_at": rt.ledger.now()})
    rt.relay.deliver()
    return _known(rt, subscription_id, owner)


def rotate(
    rt: Runtime, subscription_id: str, *, secret: str | None = None, overlap: Duration = "24h", owner: str | None = None
) -> Subscription:
    """Give a subscription a new secret. For ``overlap`` deliveries are signed with both, so that none fails."""
    found = _live(rt, subscription_id, owner)
    now, span = rt.ledger.now(), seconds(overlap, "overlap")
    new = webhook.new_secret() if secret is None else webhook.checked_secret(secret)
    if new == found.secret:
        raise BadInput("the new secret is the old one; leave it out to have one made")
    rt.ledger.hooks.change(
        found.id,
        {
            "secret": new, "old_secret": found.secret, "old_secret_until": now + timedelta(seconds=span),
            "updated_at": now,
        },
    )  # fmt: skip
    return _known(rt, subscription_id, owner)


def subscription(rt: Runtime, subscription_id: str, *, owner: str | None = None) -> Subscription:
    """The subscription of this id. Raises NotFound, also for another owner's."""
    return _known(rt, subscription_id, owner)


def subscription_of_url(rt: Runtime, url: str, *, owner: str | None = None) -> Subscription:
    """What a URL named by ``notify=`` is signed with; made now if no intent has named it yet."""
    check_url(url)
    made = notify_subscription(url, owner, rt.ledger.now())
    rt.ledger.hooks.put(made)
    return _known(rt, made.id)


def subscriptions(
    rt: Runtime, *, owner: str | None = None, kind: str | None = "subscription", revoked: bool = False
) -> Iterator[Subscription]:
    """Subscriptions, newest first. ``kind`` None: also the URLs that intents name."""
    after: str | None = None
    while page := rt.ledger.hooks.subscriptions(owner=owner, kind=kind, revoked=revoked, after=after, limit=100):
        yield from page
        after = page[-1].id


# -- events of one's own ---------------------------------------------------------


def tell(rt: Runtime, event_type: str, payload: Any, *, source: str, owner: str | None = None) -> HookEvent:
    """Tell subscriptions an event that is of no intent. Kept when this returns. Raises BadInput, NotJson, TooLarge."""
    if webhook.patterns([event_type]) != (event_type,) or "*" in event_type:
        raise BadInput(f"{event_type!r} is a pattern; an event has one type")
    line(source, "source", longest=100)
    settings = rt.settings
    data = rt.codec.encode(payload, what="payload", limit_bytes=settings.payload_bytes, setting="axme_payload_bytes")
    now = rt.ledger.now()
    event = HookEvent(id=rt.new_id(), type=event_type, owner=owner, source=source, data=data, at=now)
    wanted = [
        s for s in rt.ledger.hooks.live() if s.owner in (None, owner) and webhook.matches(s.event_types, event_type)
    ]
    rt.ledger.hooks.record(
        events=[event], deliveries=[delivery_of(event, s, rt.new_id(), now) for s in wanted], durable=True
    )
    if wanted:
        rt.relay.deliver()
    return event


def event(rt: Runtime, event_id: str, *, owner: str | None = None) -> tuple[HookEvent, list[Parcel]]:
    """An event and its deliveries. Raises NotFound, also for another owner's."""
    found = rt.ledger.hooks.event(event_id)
    if found is None or (owner is not None and found.owner != owner):
        raise NotFound("webhook event", event_id)
    parcels = rt.ledger.hooks.deliveries_of(event_id)
    return found, [one for one in parcels if owner is None or one.subscription.owner == owner]


# -- deliveries -------------------------------------------------------------------


def delivery(rt: Runtime, delivery_id: str, *, owner: str | None = None) -> Parcel:
    """A delivery with its event and subscription. Raises NotFound, also for another owner's."""
    found = rt.ledger.hooks.delivery(delivery_id)
    if found is None or (owner is not None and found.subscription.owner != owner):
        raise NotFound("webhook delivery", delivery_id)
    return found


def deliveries(rt: Runtime, **filters: Any) -> Iterator[Parcel]:
    """Deliveries that fit all of these, newest first, read page by page as you iterate.

    status, subscription_id, intent_id, type, owner, and since and until of when they were made.
    """
    unknown = set(filters) - {"status", "subscription_id", "intent_id", "type", "owner", "since", "until"}
    if unknown:
        raise BadInput(f"deliveries cannot be filtered by {', '.join(sorted(unknown))}")
    after: tuple[datetime, str] | None = None
    while page := rt.ledger.hooks.deliveries(filters, after, 100):
        yield from page
        after = (page[-1].delivery.created_at, page[-1].delivery.id)


def redeliver(rt: Runtime, delivery_id: str, *, by: str | None = None, owner: str | None = None) -> Parcel:
    """Send a delivery once more, received or not, with the id and the body it had; closes its dead letter.

    Raises BadInput while its subscription is disabled or revoked.
    """
    found = delivery(rt, delivery_id, owner=owner)
    _must_be_sendable(found.subscription)
    rt.ledger.hooks.requeue([delivery_id], by)
    rt.relay.deliver()
    return delivery(rt, delivery_id, owner=owner)


def redeliver_range(
    rt: Runtime,
    *,
    subscription_id: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    status: str = "DEAD",
    by: str | None = None,
    owner: str | None = None,
) -> int:
    """Send again all deliveries of this status made in a span of time; those to disabled subscriptions stay.

    Returns how many there were.
    """
    if status not in (HookStatus.DEAD, HookStatus.DELIVERED):
        raise BadInput(f"status is {status!r}; DEAD or DELIVERED can be sent again, the others will be anyway")
    if subscription_id is not None:
        _must_be_sendable(_known(rt, subscription_id, owner))
    # First all of them: what was sent again is DEAD no more, and could be sent and DEAD anew while this goes on.
    chosen = [
        one.delivery.id
        for one in deliveries(
            rt, subscription_id=subscription_id, since=since, until=until, status=str(status), owner=owner
        )
        if one.subscription.disabled_at is None and one.subscription.revoked_at is None
    ]
    done = 0
    for start in range(0, len(chosen), BATCH):
        done += rt.ledger.hooks.requeue(chosen[start : start + BATCH], by)
        rt.relay.deliver()
    return done


def _known(rt: Runtime, subscription_id: str, owner: str | None = None) -> Subscription:
    found = rt.ledger.hooks.subscription(subscription_id)
    if found is None or (owner is not None and found.owner != owner):
        raise NotFound("subscription", subscription_id)
    return found


def _live(rt: Runtime, subscription_id: str, owner: str | None) -> Subscription:
    found = _known(rt, subscription_id, owner)
    if found.revoked_at is not None:
        raise BadInput(f"subscription {subscription_id} was revoked; subscribe the URL again")
    return found


def _must_be_sendable(subscription: Subscription) -> None:
    if subscription.revoked_at is not None:
        raise BadInput(f"subscription {subscription.id} was revoked; subscribe {subscription.url!r} again first")
    if subscription.disabled_at is not None:
        raise BadInput(
            f"subscription {subscription.id} is {subscription.disabled_reason or 'disabled'}; enable it first"
        )
