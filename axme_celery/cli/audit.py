"""``audit``: is the history what was written; and give it to whoever must read it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import click

from .arguments import MOMENT, SINCE
from .output import note, print_json, text_of
from .project import json_option, with_axme

if TYPE_CHECKING:
    from ..extension import Axme
    from ..model import Event, Intent
    from ..ports import Ledger

PAGE = 200
UNKEYED_BEFORE = click.option(
    "--unkeyed-before", type=MOMENT, metavar="WHEN",
    help="When axme_secret_key was set: histories that end before it and hold without the key are counted, not refused.",
)  # fmt: skip


@click.group(short_help="Verify and export the history.")
def audit() -> None:
    """The history of intents: every event carries the hash of the one before."""


@audit.command(short_help="Find histories that were altered.")
@click.argument("intent_ids", metavar="[ID]...", nargs=-1)
@UNKEYED_BEFORE
@json_option
@with_axme
def verify(axme: Axme, intent_ids: tuple[str, ...], unkeyed_before: datetime | None, as_json: bool) -> None:
    """Check the histories of these intents, or of all.

    Names the first bad event of each that does not hold, and then ends with 1. With axme_secret_key set it ends with 1
    also when histories hold only without it: whoever can write the database could have written them anew.
    """
    ledger = axme.runtime.ledger
    checked, not_keyed, bad = 0, 0, dict[str, str]()
    for intent, events in _histories(ledger, _intents(ledger, intent_ids, None)):
        checked += 1
        wrong, is_unkeyed = _judged(axme, intent, events, unkeyed_before)
        not_keyed += is_unkeyed
        if wrong is not None:
            bad[intent.id] = wrong
            if not as_json:
                click.echo(text_of(wrong))
    if as_json:
        print_json({"checked": checked, "bad": bad, "not_keyed": not_keyed})
    else:
        unkeyed = f", {not_keyed} without the key" if not_keyed and axme.settings.secret_key else ""
        click.echo(f"{checked} intents checked, {len(bad)} bad{unkeyed}")
    _conclude(axme, checked, len(bad), not_keyed, unkeyed_before)


@audit.command(short_help="Print the history, for other programs or for a spreadsheet.")
@click.option(
    "--format", "form", type=click.Choice(["jsonl", "csv"]), default="jsonl", show_default=True,
    help="An event is a line.",
)  # fmt: skip
@click.option("--intent", "intent_ids", metavar="ID", multiple=True, help="Only of this intent; may be several.")
@click.option("--since", type=SINCE, help='Only of intents submitted since: "90d", or 2026-10-31T18:00:00Z.')
@click.option(
    "--verify/--no-verify", "check", default=True, show_default=True, help="Check each history as it is read."
)
@UNKEYED_BEFORE
@with_axme
def export(
    axme: Axme, form: str, intent_ids: tuple[str, ...], since: float | datetime | None, check: bool,
    unkeyed_before: datetime | None,
) -> None:  # fmt: skip
    """Print the history to standard output, the newest intent first, its events in order.

    Histories that were altered are printed like the others, named on standard error, and then it ends with 1.

    In CSV a cell that a spreadsheet would take for a formula begins with an apostrophe.
    """
    from ..export import csv_lines, jsonl

    ledger = axme.runtime.ledger
    if isinstance(since, float):
        since = ledger.now(fresh=True) - timedelta(seconds=since)
    bad, not_keyed, read = 0, 0, 0
    if form == "csv":
        click.echo("".join(csv_lines(())), nl=False)
    for intent, events in _histories(ledger, _intents(ledger, intent_ids, since)):
        read += 1
        for line in csv_lines(events, heading=False) if form == "csv" else jsonl(events):
            click.echo(line, nl=form != "csv")
        wrong, is_unkeyed = _judged(axme, intent, events, unkeyed_before) if check else (None, False)
        not_keyed += is_unkeyed
        if wrong is not None:
            bad += 1
            note(text_of(wrong))
    _conclude(axme, read, bad, not_keyed, unkeyed_before)


def _judged(
    axme: Axme, intent: Intent, events: Sequence[Event], unkeyed_before: datetime | None
) -> tuple[str | None, bool]:
    """What is wrong with a history, None when it holds; and whether it holds without the key alone."""
    from .. import audit as chain

    key = axme.settings.secret_key.encode() if axme.settings.secret_key else None
    if key is None and any(event.hash.startswith("h:") for event in events):
        return f"intent {intent.id} is sealed with axme_secret_key, which is not set here", False
    wrong = chain.verify(intent, events, key)
    if key is None:
        return wrong, wrong is None
    # One that was sealed with a key, if only in part, does not hold without it, whenever that was.
    if wrong is None or chain.verify(intent, events, None) is not None:
        return wrong, False
    if unkeyed_before is not None and any(event.at >= unkeyed_before for event in events):
        return f"the history of intent {intent.id} was written without axme_secret_key after it was set", False
    return None, True


def _conclude(axme: Axme, checked: int, bad: int, not_keyed: int, unkeyed_before: datetime | None) -> None:
    """Say what the figures mean. Raises AxmeError unless all is well, as far as anybody can tell."""
    from ..errors import AxmeError

    if bad:
        raise AxmeError(f"the history of {bad} of {checked} intents is not what was written")
    if not not_keyed or not axme.settings.secret_key:
        return
    if unkeyed_before is None:
        raise AxmeError(
            f"nothing vouches for {not_keyed} of {checked} histories: they hold, but without axme_secret_key, as those "
            f"from before it was set do, and any that somebody who can write the database wrote anew; say when it was "
            f"set, with --unkeyed-before, to have those from before it counted only"
        )
    note(
        f"axme_secret_key does not protect {not_keyed} of these histories, which say that they are from before it was "
        f"set; their number should never rise"
    )


def _intents(ledger: Ledger, intent_ids: Sequence[str], since: datetime | None) -> Iterator[Intent]:
    """These intents, or all, newest first; read page by page. Raises NotFound."""
    from ..errors import NotFound

    for intent_id in intent_ids:
        intent = ledger.intent(intent_id)
        if intent is None:
            raise NotFound("intent", intent_id)
        yield intent
    after: tuple[datetime, str] | None = None
    while not intent_ids and (page := ledger.intents({"created_since": since}, after, PAGE)):
        yield from page
        after = (page[-1].created_at, page[-1].id)


def _histories(ledger: Ledger, intents: Iterator[Intent]) -> Iterator[tuple[Intent, list[Event]]]:
    """Each intent with its events, as of one moment."""
    for intent in intents:
        seen: Intent | None = intent
        while seen is not None:
            events = list(_events(ledger, seen.id))
            now = ledger.intent(seen.id)
            if now is not None and now.seq == seen.seq:
                yield now, events
                break
            # It went on while its events were read (or was pruned, then there is nothing to check).
            seen = now


def _events(ledger: Ledger, intent_id: str) -> Iterator[Event]:
    since = 0
    while page := ledger.events(intent_id, since, 1000):
        yield from page
        since = page[-1].seq
