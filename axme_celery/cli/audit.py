"""``audit``: is the history what was written; and give it to whoever must read it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import click

from .arguments import SINCE
from .output import note, print_json, text_of
from .project import json_option, with_axme

if TYPE_CHECKING:
    from ..extension import Axme
    from ..model import Event, Intent
    from ..ports import Ledger

PAGE = 200


@click.group(short_help="Verify and export the history.")
def audit() -> None:
    """The history of intents: every event carries the hash of the one before."""


@audit.command(short_help="Find histories that were altered.")
@click.argument("intent_ids", metavar="[ID]...", nargs=-1)
@json_option
@with_axme
def verify(axme: Axme, intent_ids: tuple[str, ...], as_json: bool) -> None:
    """Check the histories of these intents, or of all.

    Names the first bad event of each that does not hold, and then ends with 1.
    """
    from ..errors import AxmeError

    ledger = axme.runtime.ledger
    key = axme.settings.secret_key.encode() if axme.settings.secret_key else None
    checked, not_keyed, bad = 0, 0, dict[str, str]()
    for intent, events in _histories(ledger, _intents(ledger, intent_ids, None)):
        checked += 1
        keyed = [event.hash.startswith("h:") for event in events]
        not_keyed += not all(keyed)
        wrong = _wrong(axme, intent, events)
        if wrong is not None:
            bad[intent.id] = wrong
            if not as_json:
                click.echo(text_of(wrong))
    if as_json:
        print_json({"checked": checked, "bad": bad, "not_keyed": not_keyed})
    else:
        click.echo(f"{checked} intents checked, {len(bad)} bad")
    if key is not None and not_keyed:
        note(f"{not_keyed} are not all sealed with axme_secret_key: they are from before it was set, or written anew")
    if bad:
        raise AxmeError(f"the history of {len(bad)} of {checked} intents is not what was written")


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
@with_axme
def export(axme: Axme, form: str, intent_ids: tuple[str, ...], since: float | datetime | None, check: bool) -> None:
    """Print the history to standard output, the newest intent first, its events in order.

    Histories that were altered are printed like the others, named on standard error, and then it ends with 1.

    In CSV a cell that a spreadsheet would take for a formula begins with an apostrophe.
    """
    from ..errors import AxmeError
    from ..export import csv_lines, jsonl

    ledger = axme.runtime.ledger
    if isinstance(since, float):
        since = ledger.now(fresh=True) - timedelta(seconds=since)
    bad, read = 0, 0
    if form == "csv":
        click.echo("".join(csv_lines(())), nl=False)
    for intent, events in _histories(ledger, _intents(ledger, intent_ids, since)):
        read += 1
        for line in csv_lines(events, heading=False) if form == "csv" else jsonl(events):
            click.echo(line, nl=form != "csv")
        wrong = _wrong(axme, intent, events) if check else None
        if wrong is not None:
            bad += 1
            note(text_of(wrong))
    if bad:
        raise AxmeError(f"the history of {bad} of {read} intents is not what was written")


def _wrong(axme: Axme, intent: Intent, events: Sequence[Event]) -> str | None:
    """What is wrong with a history; None when it holds."""
    from .. import audit as chain

    key = axme.settings.secret_key.encode() if axme.settings.secret_key else None
    if key is None and any(event.hash.startswith("h:") for event in events):
        return f"intent {intent.id} is sealed with axme_secret_key, which is not set here"
    return chain.verify(intent, events, key)


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
