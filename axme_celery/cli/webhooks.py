"""``webhooks`` and ``deliveries``: who is told of events, and how telling them went."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from . import documents
from .arguments import DURATION, SINCE
from .output import ago, note, print_json, print_table, shortened
from .project import by_option, json_option, limit_option, with_axme

if TYPE_CHECKING:
    from ..extension import Axme
    from ..hooks import Parcel, Subscription
    from ..ports import Runtime


@click.group(short_help="URLs that are told of events: subscribe, list, rotate, enable, revoke.")
def webhooks() -> None:
    """URLs that are told of events, by signed webhooks."""


@webhooks.command(short_help="Tell a URL of events; prints the secret they are signed with.")
@click.argument("url")
@click.option(
    "--event", "events", multiple=True, metavar="TYPE", default=("intent.*",), show_default=True,
    help='"intent.completed", or "intent.*" for all below; several.',
)  # fmt: skip
@click.option("--owner", help="Only of this owner's intents.")
@click.option("--thin", is_flag=True, help="Name the event, and leave its details to be fetched.")
@click.option("--description", help="What it is for.")
@json_option
@with_axme
def subscribe(
    axme: Axme, url: str, events: tuple[str, ...], owner: str | None, thin: bool, description: str | None, as_json: bool
) -> None:
    """Tell a URL of events from now on. Again, it takes the new event types and keeps its secret."""
    from ..subscriptions import subscribe as make

    made = make(axme.runtime, url, events, owner=owner, thin=thin, description=description)
    if as_json:
        print_json({**_document(made), "secret": made.secret})
        return
    click.echo(f"{made.id}  {made.secret}")


@webhooks.command("list", short_help="List subscriptions, newest first.")
@click.option("--all", "every", is_flag=True, help="Also revoked ones, and URLs that intents name (notify=).")
@json_option
@with_axme
def list_(axme: Axme, every: bool, as_json: bool) -> None:
    """List subscriptions, newest first."""
    from ..subscriptions import subscriptions

    found = list(subscriptions(axme.runtime, kind=None if every else "subscription", revoked=every))
    if as_json:
        print_json([_document(one) for one in found])
        return
    rows = [(s.id, _state(s), s.url, ", ".join(s.event_types), s.owner, s.failures or None) for s in found]
    print_table(("SUBSCRIPTION", "STATE", "URL", "EVENTS", "OWNER", "FAILURES"), rows, "nobody is subscribed")


@webhooks.command(short_help="Show what the deliveries to a URL or subscription are signed with.")
@click.argument("what", metavar="SUBSCRIPTION|URL")
@with_axme
def secret(axme: Axme, what: str) -> None:
    """Show the secret of a subscription, or of a URL that intents name with ``notify=``."""
    from ..subscriptions import subscription, subscription_of_url

    found = subscription_of_url(axme.runtime, what) if "://" in what else subscription(axme.runtime, what)
    click.echo(found.secret)


@webhooks.command(short_help="Give a subscription a new secret; for a while both are signed with.")
@click.argument("id", metavar="SUBSCRIPTION")
@click.option("--overlap", type=DURATION, default="24h", show_default=True, help="How long both are good.")
@with_axme
def rotate(axme: Axme, id: str, overlap: float) -> None:
    """Give a subscription a new secret and print it. Meanwhile deliveries are signed with both."""
    from ..subscriptions import rotate as turn

    click.echo(turn(axme.runtime, id, overlap=overlap).secret)


@webhooks.command(short_help="Send to a disabled subscription again.")
@click.argument("id", metavar="SUBSCRIPTION")
@with_axme
def enable(axme: Axme, id: str) -> None:
    """Send to it again. What was recorded meanwhile is sent with ``deliveries redeliver --subscription``."""
    from ..subscriptions import enable as go_on

    click.echo(f"{go_on(axme.runtime, id).id}  enabled")


@webhooks.command(short_help="End subscriptions.")
@click.argument("ids", metavar="SUBSCRIPTION...", nargs=-1, required=True)
@with_axme
def revoke(axme: Axme, ids: tuple[str, ...]) -> None:
    """End subscriptions: what is pending for them is given up."""
    from ..subscriptions import revoke as end

    for each in ids:
        click.echo(f"{end(axme.runtime, each).id}  revoked")


# -- deliveries --------------------------------------------------------------------


@click.group(short_help="Webhook deliveries and their tries: list, show, redeliver.")
def deliveries() -> None:
    """Webhook deliveries: what was told to whom, and how that went."""


@deliveries.command("list", short_help="List deliveries, newest first.")
@click.option(
    "--status", type=click.Choice(["pending", "delivered", "dead", "all"]), default="all", show_default=True,
    help="Only those.",
)  # fmt: skip
@click.option("--subscription", "subscription_id", metavar="ID", help="Only to this subscription.")
@click.option("--intent", "intent_id", metavar="ID", help="Only of this intent.")
@click.option("--type", "type_", metavar="TYPE", help="Only events of this type.")
@click.option("--since", type=SINCE, help="Only made since: a moment, or how long ago.")
@limit_option(50)
@json_option
@with_axme
def list_deliveries(
    axme: Axme,
    status: str,
    subscription_id: str | None,
    intent_id: str | None,
    type_: str | None,
    since: Any,
    limit: int,
    as_json: bool,
) -> None:
    """List deliveries, newest first."""
    from ..subscriptions import deliveries as every

    rt = axme.runtime
    found = every(
        rt, status=None if status == "all" else status.upper(), subscription_id=subscription_id, intent_id=intent_id,
        type=type_, since=_moment(rt, since),
    )  # fmt: skip
    parcels = list(itertools.islice(found, limit))
    if as_json:
        print_json([_delivery(one) for one in parcels])
    else:
        now = rt.ledger.now(fresh=True)
        rows = [
            (d.id, d.status.value, d.type, d.intent_id, d.attempts, ago(d.created_at, now), p.subscription.url,
             shortened(d.last_error or "", 80))
            for p in parcels
            for d in [p.delivery]
        ]  # fmt: skip
        print_table(
            ("DELIVERY", "STATUS", "EVENT", "INTENT", "TRIES", "AGE", "URL", "LAST ERROR"), rows, "no deliveries"
        )
    if next(found, None) is not None:
        note(f"there are more than {limit}; say --limit, or filter")


@deliveries.command(short_help="One delivery with its tries.")
@click.argument("id", metavar="DELIVERY")
@json_option
@with_axme
def show(axme: Axme, id: str, as_json: bool) -> None:
    """One delivery, what it carries, and every try on record."""
    from ..subscriptions import delivery

    found = delivery(axme.runtime, id)
    if as_json:
        print_json({**_delivery(found), "data": found.event.data})
        return
    d = found.delivery
    click.echo(f"{d.id}  {d.status}  {d.type} to {found.subscription.url}")
    rows = [(t.get("at"), t.get("status"), f"{t.get('ms', 0)} ms", t.get("error")) for t in d.tries]
    print_table(("AT", "STATUS", "TOOK", "ERROR"), rows, "not tried yet")
    if d.next_at is not None:
        click.echo(f"next try {d.next_at:%Y-%m-%d %H:%M:%S}Z")


@deliveries.command(short_help="Send deliveries again: by id, or all dead ones of a span of time.")
@click.argument("ids", metavar="[DELIVERY]...", nargs=-1)
@click.option(
    "--all", "every", is_flag=True, help="All that are dead (or --delivered), asked for with the options below."
)
@click.option("--subscription", "subscription_id", metavar="ID", help="With --all: only to this subscription.")
@click.option("--since", type=SINCE, help="With --all: only made since: a moment, or how long ago.")
@click.option("--until", type=SINCE, help="With --all: only made before.")
@click.option("--delivered", is_flag=True, help="With --all: those that were received, instead of the dead.")
@by_option
@with_axme
def redeliver(
    axme: Axme,
    ids: tuple[str, ...],
    every: bool,
    subscription_id: str | None,
    since: Any,
    until: Any,
    delivered: bool,
    by: str,
) -> None:
    """Send deliveries again, with the ids and bodies they had; closes their dead letters."""
    from ..subscriptions import redeliver as again
    from ..subscriptions import redeliver_range

    rt = axme.runtime
    if bool(ids) == every:
        raise click.UsageError("name the deliveries to send again, or say --all")
    for delivery_id in ids:
        click.echo(f"{again(rt, delivery_id, by=by).delivery.id}  queued")
    if every:
        count = redeliver_range(
            rt, subscription_id=subscription_id, since=_moment(rt, since), until=_moment(rt, until), by=by,
            status="DELIVERED" if delivered else "DEAD",
        )  # fmt: skip
        click.echo(f"{count} deliveries queued")


def _moment(rt: Runtime, given: float | datetime | None) -> datetime | None:
    return rt.ledger.now() - timedelta(seconds=given) if isinstance(given, float) else given


def _state(subscription: Subscription) -> str:
    if subscription.revoked_at is not None:
        return "revoked"
    return subscription.disabled_reason or "good" if subscription.disabled_at is not None else "good"


def _document(subscription: Subscription) -> dict[str, Any]:
    from ..webhook import hint

    without = ("secret", "old_secret")
    return {**documents.record(subscription, without=without), "secret_hint": hint(subscription.secret)}


def _delivery(parcel: Parcel) -> dict[str, Any]:
    document = documents.record(parcel.delivery)
    return {**document, "url": parcel.subscription.url, "webhook_id": parcel.event.id}
