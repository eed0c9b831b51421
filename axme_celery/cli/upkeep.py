"""Verbs that keep the house: migrate, sweep, prune."""

from __future__ import annotations

import math
import os
import socket
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from .arguments import DURATION
from .output import note, print_json
from .project import json_option, with_axme

if TYPE_CHECKING:
    from ..extension import Axme

#: Intents deleted in one transaction.
BATCH = 500


@click.command(short_help="Make the ledger's tables, or bring them up to date.")
@click.option("--sql", is_flag=True, help="Print the SQL that an empty database needs, and change nothing.")
@with_axme
def migrate(axme: Axme, sql: bool) -> None:
    """Make the ledger's tables, or bring them up to date. May be run again at any time."""
    from ..ledger.migrate import current, upgrade

    url = axme.settings.ledger_url
    if sql:
        click.echo(upgrade(url, sql=True), nl=False)
        return
    before = current(url)
    now = upgrade(url)
    if before == now:
        click.echo(f"the ledger is up to date ({now})")
    else:
        click.echo(f"the ledger was brought from {before or 'nothing'} to {now}")


@click.command(short_help="One pass over what is due, for cron; beat does it all the time.")
@click.option(
    "--rebuild", is_flag=True, help="First forget all the tracker holds; this pass fills it from the ledger again."
)
@json_option
@with_axme
def sweep(axme: Axme, rebuild: bool, as_json: bool) -> None:
    """One pass over what time has made due, the slow brooms too; prints what was done.

    Beat does this once a tick. From cron it is for projects without a beat: then a timer is late by up to the
    time between two calls. Any number of sweeps may run at once.
    """
    from ..relay import HORIZON_SECONDS
    from ..sweep import AHEAD_TICKS
    from ..sweep import sweep as one_pass

    rt = axme.runtime
    axme.app.loader.import_default_modules()
    rt.ledger.now(fresh=True)  # says that the ledger is away, which a broom would only log
    if rebuild:
        rt.tracker.clear()
    # The next may be a minute away: all that is due, however long it takes.
    sweeper = f"cli@{socket.gethostname()}:{os.getpid()}"
    counts = one_pass(rt, axme.senders, sweeper, slow=True, at_most_seconds=math.inf)
    if counts:
        # A wake-up is decided a little ahead and leaves at its very moment: be there to send it.
        time.sleep(min(AHEAD_TICKS * rt.settings.tick_seconds, HORIZON_SECONDS))
    if not axme.drain(rt.settings.webhook_deadline_seconds, webhooks=True):
        note("not every webhook that is due was sent yet; the next sweep goes on")
    if as_json:
        print_json(counts)
    else:
        click.echo(", ".join(f"{name} {count}" for name, count in counts.items()) or "nothing was due")


@click.command(short_help="Delete intents that ended long ago.")
@click.option("--older-than", type=DURATION, help='Those that ended longer ago than this ("90d"); else axme_retention.')
@click.option("--dry-run", is_flag=True, help="Only say how many there are.")
@json_option
@with_axme
def prune(axme: Axme, older_than: float | None, dry_run: bool, as_json: bool) -> None:
    """Delete intents that ended long ago, with their history.

    Those with an open dead letter, or with something still to be sent, stay.
    """
    ledger, retention = axme.runtime.ledger, axme.settings.retention
    span = older_than if older_than is not None else retention
    if span is None:
        raise click.UsageError("how old? Say --older-than 90d, or set axme_retention; nothing was deleted")
    before = ledger.now(fresh=True) - timedelta(seconds=span)
    count = 0
    if dry_run:
        count = ledger.count_prunable(before)
    else:
        ledger.hooks.prune(before)
        while old := ledger.prunable(before, BATCH):
            count += ledger.prune([intent.id for intent in old])
            if len(old) == BATCH:
                note(f"{count} deleted so far")
    if as_json:
        print_json({"ended_before": before, "pruned": 0 if dry_run else count, "prunable": count if dry_run else 0})
    else:
        click.echo(
            f"{count} intents {'would be' if dry_run else 'were'} deleted that ended before {before:%Y-%m-%d %H:%M}Z"
        )
