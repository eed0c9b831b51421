"""``doctor``: what is wrong with how a project is set up, and what to change."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from . import documents
from .output import is_fancy, print_json, text_of
from .project import json_option, with_axme

if TYPE_CHECKING:
    from ..extension import Axme

_COLOURS = {"OK": "green", "WARNING": "yellow", "PROBLEM": "red"}


@click.command(short_help="Find what is wrong with the set-up, and say what to change.")
@json_option
@with_axme
def doctor(axme: Axme, as_json: bool) -> None:
    """Find what is wrong with the set-up, seen from this machine, and say what to change.

    Looks at configuration, broker, ledger, tracker, clocks and sweeps; changes nothing. Ends with 1 on a PROBLEM.
    """
    from ..doctor import Level, diagnose
    from ..facts import gather

    facts = gather(axme)
    findings = diagnose(facts)
    problems = sum(1 for finding in findings if finding.level is Level.PROBLEM)
    if as_json:
        print_json({"findings": [documents.record(f) for f in findings], "facts": documents.record(facts)})
    else:
        width = max(len(finding.about) for finding in findings)
        for finding in findings:
            level = finding.level.ljust(7)
            shown = click.style(level, fg=_COLOURS[finding.level]) if is_fancy() else level
            click.echo(f"{shown}  {finding.about.ljust(width)}  {text_of(finding.found)}")
            if finding.change is not None:
                click.echo(f"{' ' * (width + 9)}  -> {text_of(finding.change)}")
        warnings = sum(1 for finding in findings if finding.level is Level.WARNING)
        click.echo(f"\nproblems: {problems}, warnings: {warnings}")
    if problems:
        sys.exit(1)
