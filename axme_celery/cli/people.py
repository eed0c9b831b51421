"""Verbs by which people pass waits on, give them more time, and answer many at once: delegate, reassign, extend, bulk."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from . import documents
from .arguments import DURATION, MOMENT
from .output import print_json, print_table, text_of
from .project import by_option, json_option, with_axme

if TYPE_CHECKING:
    from ..extension import Axme
    from ..handle import IntentHandle

reason_option = click.option("--reason", metavar="TEXT", help="Why; kept in the history.")


def group_option(verb: Any) -> Any:
    """``--group``: hold the person to whom the wait is for."""
    return click.option(
        "--group", "groups", metavar="NAME", multiple=True,
        help="A group they are in; may be several. Then they must be among those the wait is for, by name or by group.",
    )(verb)  # fmt: skip


@click.command(short_help="Leave the answer to somebody else.")
@click.argument("wait", metavar="WAIT")
@click.argument("to", metavar="NAME")
@by_option
@reason_option
@group_option
@json_option
@with_axme
def delegate(
    axme: Axme, wait: str, to: str, by: str, reason: str | None, groups: tuple[str, ...], as_json: bool
) -> None:
    """Leave the answer to WAIT to NAME. Who does that cannot answer it any more.

    WAIT is the id of a wait, or of an intent with exactly one that is open.
    """
    intent = axme.delegate(wait, to, by=by, reason=reason, groups=groups or None)
    _said(intent, f"{by} left it to {to}; intent {intent.id} waits for them", as_json)


@click.command(short_help="Put other people in charge of a wait.")
@click.argument("wait", metavar="WAIT")
@click.argument("to", metavar="NAME...", nargs=-1, required=True)
@by_option
@reason_option
@json_option
@with_axme
def reassign(axme: Axme, wait: str, to: tuple[str, ...], by: str, reason: str | None, as_json: bool) -> None:
    """Put these people and groups in the place of everybody WAIT is for. Votes that were given stay.

    WAIT is the id of a wait, or of an intent with exactly one that is open.
    """
    intent = axme.reassign(wait, to, by=by, reason=reason)
    _said(intent, f"it is for {', '.join(to)} now; intent {intent.id} waits for them", as_json)


@click.command(short_help="Give a wait, or an intent, more time.")
@click.argument("wait_or_intent", metavar="ID")
@click.argument("duration", metavar="[DURATION]", required=False, type=DURATION)
@click.option("--until", type=MOMENT, help="Until this moment instead: 2026-10-31T18:00:00Z.")
@by_option
@reason_option
@json_option
@with_axme
def extend(
    axme: Axme,
    wait_or_intent: str,
    duration: float | None,
    until: datetime | None,
    by: str,
    reason: str | None,
    as_json: bool,
) -> None:
    """Put off the timeout of wait ID, or the deadline of intent ID: by DURATION ("4h", "2d"), or --until a moment."""
    if (duration is None) == (until is None):
        raise click.UsageError("give a DURATION or --until, one of them")
    intent = axme.extend(wait_or_intent, duration, until=until, by=by, reason=reason)
    told = axme.runtime.ledger.events(intent.id, intent.seq - 1)[-1].details
    end = told.get("timeout_at") or told.get("deadline_at")
    _said(intent, f"it has until {end} now", as_json)


@click.command(short_help="Give one answer to many waits.")
@click.argument("outcome")
@click.argument("waits", metavar="WAIT...", nargs=-1, required=True)
@by_option
@click.option("--comment", metavar="TEXT", help="Words that go with each.")
@group_option
@json_option
@with_axme
def bulk(
    axme: Axme,
    outcome: str,
    waits: tuple[str, ...],
    by: str,
    comment: str | None,
    groups: tuple[str, ...],
    as_json: bool,
) -> None:
    """Answer each WAIT with OUTCOME. They must be of one kind, and opened with bulk=True.

    WAIT is the id of a wait, or of an intent with exactly one that is open. Prints what became of each. Ends with 1 when
    one or more were refused.
    """
    from ..answer import human_wait
    from ..errors import AxmeError, IntentEnded, NotFound

    def wait_of(wait_or_intent: str) -> str:
        try:
            return human_wait(axme.runtime, wait_or_intent)
        except (NotFound, IntentEnded):
            return wait_or_intent  # Refused on its own line, so that the others are answered.

    rows = axme.answer_many([wait_of(wait) for wait in waits], outcome, by=by, comment=comment, groups=groups or None)
    refused = sum(row.error is not None for row in rows)
    if as_json:
        print_json(
            [
                {
                    "wait_id": row.wait_id,
                    "title": row.title,
                    "intent_id": row.intent_id,
                    "answered": row.error is None,
                    "error": None if row.error is None else str(row.error),
                }
                for row in rows
            ]
        )
    else:
        shown = ((row.wait_id, row.title, outcome if row.error is None else f"refused: {row.error}") for row in rows)
        print_table(("WAIT", "TITLE", "ANSWER"), shown, "nothing")
    if refused:
        raise AxmeError(f"{refused} of {len(rows)} waits were not answered")


def _said(intent: IntentHandle, words: str, as_json: bool) -> None:
    if as_json:
        print_json(documents.intent(intent, whole=True))
    else:
        click.echo(text_of(words))
