"""``scenarios``: bundles of agents, people and steps; check one, start one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .output import note, print_json
from .project import by_option, json_option, with_axme

if TYPE_CHECKING:
    from ..extension import Axme


class _Bundle(click.ParamType):  # type: ignore[type-arg]  # generic in the newest click only
    """A file with a bundle, or "-" for standard input."""

    name = "FILE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return json.loads(sys.stdin.read() if value == "-" else Path(value).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as wrong:
            self.fail(f"{value} is not a JSON file that can be read: {wrong}", param, ctx)


@click.group(short_help="Bundles of agents, people and steps: validate, apply.")
def scenarios() -> None:
    """ScenarioBundles: one JSON file that names agents, people, and the steps they do one after the other."""


@scenarios.command(short_help="Say what is wrong with a bundle, and do nothing.")
@click.argument("bundle", metavar="FILE", type=_Bundle())
@json_option
@with_axme
def validate(axme: Axme, bundle: Any, as_json: bool) -> None:
    """Say what keeps a bundle from being run, and what may not be as expected. Exit code 1 for what cannot be run."""
    from ..scenarios import validate as checked

    found = checked(axme, bundle)
    if as_json:
        print_json({"errors": found.errors, "warnings": found.warnings})
    else:
        for warning in found.warnings:
            note(f"warning: {warning}")
        for error in found.errors:
            note(f"error: {error}")
        if not found.errors:
            click.echo(f"{found.id}: {len(found.steps)} steps can be run")
    if found.errors:
        sys.exit(1)


@scenarios.command(short_help="Start a bundle's scenario; prints the intent's id.")
@click.argument("bundle", metavar="FILE", type=_Bundle())
@click.option("--key", help="Applied twice with the same bundle, it is one intent; the bundle's own key unless given.")
@click.option("--owner", help="Whose intent it is.")
@click.option(
    "--watch", "and_watch", is_flag=True, help="Then watch it until it has ended; exit code 1 unless COMPLETED."
)
@by_option
@json_option
@with_axme
def apply(axme: Axme, bundle: Any, key: str | None, owner: str | None, and_watch: bool, by: str, as_json: bool) -> None:
    """Make a bundle's agents known and start its scenario, as one intent."""
    from ..scenarios import apply as start
    from .watch import watch

    applied = start(axme, bundle, owner=owner, by=by, key=key)
    if as_json:
        made = [{"role": role, "address": address, "created": is_new} for role, address, is_new in applied.agents]
        print_json({"intent_id": applied.intent.id, "scenario_id": applied.scenario.id, "agents": made})
    else:
        click.echo(applied.intent.id)
    for _, address, is_new in applied.agents:
        if is_new:
            note(f"made known: {address}; give it a key with: keys create --name NAME --agent {address}")
    if and_watch:
        click.get_current_context().invoke(watch, intent_ids=(applied.intent.id,), timeout=None, as_json=as_json)
