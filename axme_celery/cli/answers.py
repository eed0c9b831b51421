"""Verbs that close waits: answer, approve, reject, complete-tool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from . import documents
from .arguments import JSON
from .output import print_json
from .people import group_option
from .project import by_option, json_option, with_axme

if TYPE_CHECKING:
    from ..extension import Axme
    from ..model import Wait

#: The outcomes that say no, over all types of human tasks.
NO = ("rejected", "denied", "declined", "failed")


def _answer_options(verb: Any) -> Any:
    for option in (
        json_option,
        click.option("--hash", "expected", metavar="HASH", help="Refuse (code 5) if WAIT shows something else by now."),
        group_option,
        click.option("--data", type=JSON, help="The form, as JSON; @file reads a file, @- standard input."),
        click.option("--comment", metavar="TEXT", help="Words that go with it."),
        by_option,
        click.argument("wait", metavar="WAIT"),
    ):
        verb = option(verb)
    return verb


@click.command(short_help="Answer a person's wait with one of its outcomes.")
@_answer_options
@click.argument("outcome")
@with_axme
def answer(axme: Axme, wait: str, outcome: str, by: str, **answered: Any) -> None:
    """Answer WAIT with OUTCOME. The first committed answer wins; a later one is told who was first (code 5).

    WAIT is the id of a wait, or of an intent with exactly one that is open.
    """
    _answer(axme, _wait(axme, wait), outcome, by, **answered)


@click.command(short_help="Answer a person's wait with the outcome that says yes.")
@_answer_options
@with_axme
def approve(axme: Axme, wait: str, by: str, **answered: Any) -> None:
    """Answer WAIT with its first outcome, the one that says yes: approved, confirmed, submitted, ...

    WAIT is the id of a wait, or of an intent with exactly one that is open.
    """
    found = _wait(axme, wait)
    _answer(axme, found, _outcomes(found)[0], by, **answered)


@click.command(short_help="Answer a person's wait with the outcome that says no.")
@_answer_options
@with_axme
def reject(axme: Axme, wait: str, by: str, **answered: Any) -> None:
    """Answer WAIT with its outcome that says no: rejected, denied, declined or failed.

    WAIT is the id of a wait, or of an intent with exactly one that is open.
    """
    from ..errors import BadInput

    found = _wait(axme, wait)
    saying_no = [outcome for outcome in _outcomes(found) if outcome in NO]
    if not saying_no:
        raise BadInput(
            f"wait {found.id} has no outcome that says no, only {', '.join(_outcomes(found))}; "
            f"give one of these with answer, or cancel intent {found.intent_id}"
        )
    _answer(axme, found, saying_no[0], by, **answered)


@click.command("complete-tool", short_help="Report that a tool's job is done, or has failed.")
@click.argument("tool")
@click.argument("job_id", metavar="JOB")
@click.option("--result", type=JSON, help="What the job came to; @file reads a file, @- standard input.")
@click.option("--error", metavar="TEXT", help="Why the job failed.")
@with_axme
def complete_tool(axme: Axme, tool: str, job_id: str, result: Any, error: str | None) -> None:
    """Report that JOB of TOOL is done (--result) or has failed (--error).

    It may come before its wait opens, and may be repeated.
    """
    if result is not None and error is not None:
        raise click.UsageError("a job has a --result or an --error, not both")
    axme.complete_tool(tool, job_id, result, error)
    click.echo(f"{tool} job {job_id} {'completed' if error is None else 'failed'}")


def _wait(axme: Axme, wait_or_intent: str) -> Wait:
    from ..answer import human_wait
    from ..errors import NotFound

    record = axme.runtime.ledger.wait(human_wait(axme.runtime, wait_or_intent))
    if record is None:
        raise NotFound("wait", wait_or_intent)
    return record.wait


def _outcomes(wait: Wait) -> list[str]:
    from ..errors import BadInput

    if wait.kind != "HUMAN":
        raise BadInput(f"wait {wait.id} is for a {wait.kind.lower()}, not for a person: {wait.title}")
    outcomes: list[str] = wait.request["outcomes"]
    return outcomes


def _answer(
    axme: Axme,
    wait: Wait,
    outcome: str,
    by: str,
    *,
    comment: str | None,
    data: Any,
    groups: tuple[str, ...],
    expected: str | None,
    as_json: bool,
) -> None:
    intent = axme.answer(
        wait.id, outcome, by=by, comment=comment, data=data, groups=groups or None, expected_hash=expected
    )
    if as_json:
        print_json(documents.intent(intent, whole=True))
        return
    now = _wait(axme, wait.id)
    if now.status == "OPEN":
        votes = sum(1 for vote in now.votes if vote["outcome"] == outcome)
        click.echo(f"{outcome} by {by}: {votes} of {now.request.get('quorum', 1)}; intent {intent.id} still waits")
    else:
        # The same answer given again may find that all of it is done.
        now_is = f"is {intent.status.value}" if intent.status.is_final else "goes on"
        click.echo(f"{outcome} by {by}; intent {intent.id} {now_is}")
