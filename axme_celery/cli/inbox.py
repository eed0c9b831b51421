"""``inbox``, and one wait as ``show`` has it: what people are asked, and what they need to know to decide."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from . import documents
from .output import ago, note, print_facts, print_heading, print_json, print_table, shortened, text_of
from .output import as_json as plain
from .project import json_option, limit_option, with_axme

if TYPE_CHECKING:
    from ..extension import Axme
    from ..model import JsonDict, Wait, WaitRecord


@click.command(short_help="List what people are asked and have not answered.")
@click.option(
    "--owner",
    "owners",
    multiple=True,
    metavar="NAME",
    help="A person, then their groups; may be several. All, if none.",
)
@click.option("--type", metavar="TYPE", help="Only of intents of this type.")
@click.option("--task-type", metavar="KIND", help="Only of this kind: approval, form, review, ...")
@click.option("--tag", metavar="TAG", help="Only of intents with this tag.")
@click.option("--overdue", is_flag=True, help="Only those whose answer was wanted before now.")
@click.option(
    "--sort", type=click.Choice(["due", "opened", "newest"]), default="due", show_default=True,
    help="As answers are wanted, overdue ones first; oldest first; newest first.",
)  # fmt: skip
@click.option("--closed", is_flag=True, help="What has closed instead, last closed first.")
@click.option("--after", metavar="PLACE", help="Where the list before ended.")
@limit_option(50)
@json_option
@with_axme
def inbox(axme: Axme, owners: tuple[str, ...], after: str | None, limit: int, as_json: bool, **wanted: Any) -> None:
    """List the open waits these people and groups may answer: overdue ones first, then as answers are wanted.

    What the first of them has answered already, or left to others, is not in it.
    """
    by, groups = (owners[0], owners[1:]) if owners else (None, ())
    page = axme.inbox(by, groups=groups, after=after, limit=limit, **wanted)
    if as_json:
        print_json([documents.record(item.wait) for item in page.items])
    else:
        now = axme.runtime.ledger.now(fresh=True)
        rows = [
            (
                item.wait.id, item.wait.title, ", ".join(item.wait.to),
                ago(item.wait.opened_at, now) + (" overdue" if item.overdue else ""), item.wait.timeout_at,
                _outcome(item.wait),
            )
            for item in page.items
        ]  # fmt: skip
        heads = ("WAIT", "TITLE", "FOR", "SINCE", "UNTIL", "OUTCOME" if wanted["closed"] else "OUTCOMES")
        print_table(heads, rows, "nothing was answered yet" if wanted["closed"] else "nobody waits for an answer")
    if page.next is not None:
        note(f"there are more than {len(page.items)}; say --after {page.next}, --limit, or --owner")


def show_wait(axme: Axme, record: WaitRecord, *, as_json: bool) -> None:
    """Everything about one wait."""
    wait, codec = record.wait, axme.runtime.codec
    if as_json:
        print_json({**documents.record(wait), "data": documents.stored(wait.data, codec)})
        return
    request = wait.request
    print_facts(
        [
            ("wait", wait.id),
            ("asked", wait.title),
            ("kind", request.get("task_type") or wait.kind.lower()),
            ("status", wait.status),
            ("intent", f"{wait.intent_id} ({record.intent.type})"),
            ("requester", record.intent.requester),
            ("for", ", ".join(wait.to) or None),
            ("not by", ", ".join(request.get("not_by", ())) or None),
            ("outcomes", " | ".join(request.get("outcomes", ())) or None),
            ("needed", _needed(wait)),
            ("opened", _at(wait.opened_at)),
            ("wanted", _at(wait.wanted_at)),
            ("until", _until(wait)),
            ("reminder", _at(wait.remind_at)),
            ("escalation", _at(wait.escalate_at)),
            ("hash", wait.payload_hash),
            ("answer", _answer(wait)),
            ("data", None if wait.data is None else _json(documents.stored(wait.data, codec))),
        ]
    )
    for name, value in (("CONTEXT", request.get("context")), ("FORM", request.get("form"))):
        if value is not None:
            print_heading(name)
            for line in json.dumps(value, indent=2, default=plain, ensure_ascii=False).splitlines():
                click.echo(text_of(line))
    print_heading("PEOPLE")
    print_table(("AT", "WHO", "WHAT", "WORDS"), _people(wait), "nobody has said anything yet")


def _people(wait: Wait) -> list[tuple[object, ...]]:
    said = [(vote["at"], vote["by"], vote["outcome"], vote.get("comment")) for vote in wait.votes]
    said += [(each["at"], each["by"], f"left it to {each['to']}", each.get("reason")) for each in wait.delegations]
    return [(f"{at[:19].replace('T', ' ')}Z", *rest) for at, *rest in sorted(said)]


def _needed(wait: Wait) -> str | None:
    quorum = wait.request.get("quorum", 1)
    if quorum == 1:
        return None
    yes = wait.request["outcomes"][0]
    given = sum(1 for vote in wait.votes if vote["outcome"] == yes)
    return f"{given} of {quorum} {yes}"


def _until(wait: Wait) -> str | None:
    if wait.timeout_at is None:
        return None
    request: JsonDict = wait.request
    then = request.get("on_timeout", "fail")
    if request.get("fallback") and wait.fell_back_at is None:
        after = f"then {', '.join(request['fallback'])} is asked"
    else:
        after = "then it fails" if then == "fail" else f"then it counts as {then}"
    return f"{_at(wait.timeout_at)}, {after}"


def _answer(wait: Wait) -> str | None:
    if wait.outcome is None:
        return None
    words = f": {shortened(wait.comment, 200)}" if wait.comment else ""
    return f"{wait.outcome} by {wait.answered_by} at {_at(wait.closed_at)}{words}"


def _outcome(wait: Wait) -> str:
    if wait.closed_at is None:
        return "|".join(wait.request["outcomes"])
    return f"{wait.outcome or wait.status.lower()} by {wait.answered_by}"


def _at(moment: datetime | None) -> str | None:
    return None if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}Z"


def _json(value: Any) -> str:
    return shortened(json.dumps(value, default=plain, ensure_ascii=False), 400)
