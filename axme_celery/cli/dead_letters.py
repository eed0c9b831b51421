"""``dead-letters``: what could not go on; list it, start it again, put it away."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from . import documents
from .output import ago, note, print_json, print_table, shortened, text_of
from .project import by_option, json_option, limit_option, with_axme

if TYPE_CHECKING:
    from ..extension import Axme
    from ..model import DeadLetter
    from ..ports import Ledger

PAGE = 100


@click.group("dead-letters", short_help="What could not go on: list, replay, discard.")
def dead_letters() -> None:
    """What could not go on, kept with its reason until someone replays or discards it."""


@dead_letters.command("list", short_help="List dead letters, newest first.")
@click.option(
    "--state", type=click.Choice(["open", "replayed", "discarded", "all"]), default="open", show_default=True,
    help="Only those.",
)  # fmt: skip
@click.option("--code", help='Only with this code: "worker_lost", "ValueError", ...')
@limit_option(50)
@json_option
@with_axme
def list_(axme: Axme, state: str, code: str | None, limit: int, as_json: bool) -> None:
    """List dead letters, newest first."""
    ledger = axme.runtime.ledger
    found = _letters(ledger, None if state == "all" else state.upper(), code)
    letters = list(itertools.islice(found, limit))
    if as_json:
        print_json([documents.record(letter) for letter in letters])
    else:
        now = ledger.now(fresh=True)
        rows = [(x.id, x.state, x.kind, x.code, x.intent_id, ago(x.at, now), shortened(x.reason, 120)) for x in letters]
        print_table(("LETTER", "STATE", "KIND", "CODE", "INTENT", "AGE", "REASON"), rows, "no dead letters")
    if next(found, None) is not None:
        note(f"there are more than {limit}; say --limit, or filter")


def _choice_options(verb: Callable[..., None]) -> Callable[..., None]:
    for option in (
        by_option,
        click.option("-y", "--yes", is_flag=True, help="With --all: do not ask."),
        click.option("--code", help="With --all: only those with this code."),
        click.option("--all", "every", is_flag=True, help="All open ones; asks first, naming how many."),
        click.argument("ids", metavar="[LETTER]...", nargs=-1),
    ):
        verb = option(verb)
    return verb


@dead_letters.command(short_help="Start them again, as new intents that keep the finished work.")
@_choice_options
@with_axme
def replay(axme: Axme, ids: tuple[str, ...], every: bool, code: str | None, yes: bool, by: str) -> None:
    """Start dead letters again, each as a new intent that keeps its finished work; prints their ids."""

    def one(letter_id: str) -> str:
        return axme.replay(letter_id, by).id

    # A delivery that could not be sent is no work to start again.
    _each(axme, ids, every, code, yes, "replay", one, kinds=("intent", "leg"))


@dead_letters.command(short_help="Put them away without replaying them.")
@_choice_options
@with_axme
def discard(axme: Axme, ids: tuple[str, ...], every: bool, code: str | None, yes: bool, by: str) -> None:
    """Close dead letters without replaying them. They stay on record as DISCARDED."""
    from ..submit import discard as put_away

    def one(letter_id: str) -> str:
        put_away(axme.runtime, letter_id, by=by)
        return "discarded"

    _each(axme, ids, every, code, yes, "discard", one, kinds=("intent", "leg", "delivery"))


def _each(
    axme: Axme,
    ids: tuple[str, ...],
    every: bool,
    code: str | None,
    yes: bool,
    verb: str,
    one: Callable[[str], str],
    *,
    kinds: tuple[str, ...],
) -> None:
    """Do it to each; one that is refused does not keep the others from theirs, but the whole has then failed."""
    from ..errors import AxmeError

    if bool(ids) == every:
        raise click.UsageError(f"name the dead letters to {verb}, or say --all")
    if (code or yes) and not every:
        raise click.UsageError("--code and --yes belong to --all")
    if every:
        ids = tuple(x.id for x in _letters(axme.runtime.ledger, "OPEN", code) if x.kind in kinds)
        if not ids:
            click.echo("no dead letters")
            return
        if not yes:
            click.confirm(f"{verb} {len(ids)} dead letters?", abort=True)
    if len(ids) == 1:
        click.echo(f"{ids[0]}  {one(ids[0])}")
        return
    refused = 0
    for letter_id in ids:
        try:
            click.echo(f"{letter_id}  {one(letter_id)}")
        except AxmeError as refusal:
            refused += 1
            click.echo(f"{letter_id}  not {verb}ed: {text_of(refusal)}", err=True)
    if refused:
        raise AxmeError(f"{refused} of {len(ids)} dead letters could not be {verb}ed; the others were")


def _letters(ledger: Ledger, state: str | None, code: str | None) -> Iterator[DeadLetter]:
    """Dead letters, newest first, read page by page."""
    after: str | None = None
    while page := ledger.dead_letters(state, after, PAGE):
        yield from (letter for letter in page if code in (None, letter.code))
        after = page[-1].id
