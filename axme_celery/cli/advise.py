"""``advise``: which tasks of a project lose work today, why, and what to do first."""

from __future__ import annotations

import click

from . import documents
from .output import is_fancy, print_json, text_of
from .project import json_option

_COLOURS = {"LOSES": "red", "DOUBLES": "red", "REPEATS": "yellow", "HIDES": "yellow", "OK": "green", "KEPT": "green"}


@click.command(short_help="Say which tasks lose work today, why, and what to do first.")
@json_option
@click.pass_context
def advise(ctx: click.Context, as_json: bool) -> None:
    """Say which tasks of a project lose work today, why, and what to do first.

    Reads tasks, settings, beat schedule and code of the project as it is loaded; asks no server, and changes nothing.
    The project need not have an Axme yet.
    """
    from .. import advice
    from ..survey import survey

    facts = survey(ctx.obj.app)
    told = advice.advise(facts)
    if as_json:
        tasks = [
            {"task": one.task, "risk": one.risk, "reasons": [documents.record(reason) for reason in one.reasons]}
            for one in told.tasks
        ]
        print_json({"tasks": tasks, "first": list(told.first)})
        return
    for one in told.tasks:
        risk = one.risk.ljust(7)
        click.echo(f"{click.style(risk, fg=_COLOURS[one.risk]) if is_fancy() else risk}  {text_of(one.task)}")
        for reason in one.reasons:
            click.echo(f"         {text_of(reason.why)}")
    counts = {risk: sum(1 for one in told.tasks if one.risk is risk) for risk in advice.Risk}
    summary = ", ".join(f"{count} {risk}" for risk, count in counts.items() if count) or "none"
    click.echo(f"\ntasks: {summary}")
    if told.first:
        click.echo("\nwhat to do first")
    for number, step in enumerate(told.first, 1):
        click.echo(f"{number}. {text_of(step)}")
