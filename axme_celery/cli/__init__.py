"""The command line: the same verbs as ``celery -A proj axme VERB`` and as ``axme-celery -A proj VERB``.

Celery imports this module at every call of ``celery``. So it imports click and
nothing else; a verb's module is imported when the verb is called or listed, and
what the verb needs only when it runs.

Exit codes, the same for every verb:

    0  done
    1  refused, or failed; the message is on stderr
    2  the command line itself is wrong, or the project cannot be loaded
    3  no such intent, wait or dead letter
    4  the ledger (or tracker) cannot be reached, or is not migrated
    5  too late: the wait is closed, the intent has ended, the key is taken
"""

from __future__ import annotations

import importlib
from typing import Any

import click

#: verb -> module and name of its command, in the order of the help page.
VERBS = {
    "demo": "..demo.command:demo",
    "dev": ".dev:dev",
    "migrate": ".upkeep:migrate",
    "submit": ".intents:submit",
    "list": ".intents:list_",
    "show": ".show:show",
    "watch": ".watch:watch",
    "cancel": ".intents:cancel",
    "replay": ".intents:replay",
    "fork": ".intents:fork",
    "unpark": ".intents:unpark",
    "inbox": ".inbox:inbox",
    "answer": ".answers:answer",
    "approve": ".answers:approve",
    "reject": ".answers:reject",
    "bulk": ".people:bulk",
    "delegate": ".people:delegate",
    "reassign": ".people:reassign",
    "extend": ".people:extend",
    "complete-tool": ".answers:complete_tool",
    "scenarios": ".scenarios:scenarios",
    "dead-letters": ".dead_letters:dead_letters",
    "webhooks": ".webhooks:webhooks",
    "deliveries": ".webhooks:deliveries",
    "keys": ".keys:keys",
    "web": ".web:web",
    "sweep": ".upkeep:sweep",
    "advise": ".advise:advise",
    "doctor": ".doctor:doctor",
    "prune": ".upkeep:prune",
    "audit": ".audit:audit",
}

HELP = """Durable intents: submit, wait, complete.

\b
Exit codes:
  0  done
  1  refused, or failed; the message is on stderr
  2  the command line itself is wrong, or the project cannot be loaded
  3  no such intent, wait or dead letter
  4  the ledger (or tracker) cannot be reached, or is not migrated
  5  too late: the wait is closed, the intent has ended, the key is taken
"""


class Verbs(click.Group):
    """The verbs, each imported when it is asked for; a refusal is one line on stderr and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = VERBS.get(cmd_name)
        if place is None:
            return None
        module, _, name = place.partition(":")
        command: click.Command = getattr(importlib.import_module(module, __name__), name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        from ..errors import AxmeError
        from .output import text_of

        try:
            return super().invoke(ctx)
        except AxmeError as refusal:
            click.echo(f"Error: {text_of(refusal)}", err=True)
            ctx.exit(exit_code(refusal))


def exit_code(refusal: Exception) -> int:
    """What the process ends with for this error."""
    from .. import errors

    match refusal:
        case errors.NotFound():
            return 3
        case errors.LedgerUnavailable() | errors.TrackerUnavailable():
            return 4
        case (
            errors.WaitClosed()
            | errors.ShownChanged()
            | errors.LinkInvalid()
            | errors.IntentEnded()
            | errors.KeyConflict()
            | errors.StaleChange()
        ):
            return 5
        case _:
            return 1


@click.group(cls=Verbs, help=HELP, short_help="Durable intents: submit, wait, complete.")
def axme() -> None:
    """Celery's own command line brings the project's app."""


@click.group(cls=Verbs, name="axme-celery", help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-A",
    "--app",
    envvar=["AXME_APP", "CELERY_APP"],
    show_envvar=True,
    metavar="APP",
    help="The project's Celery app, as for the celery command: proj, proj.celery or proj.celery:app.",
)
@click.option(
    "--workdir", type=click.Path(exists=True, file_okay=False), metavar="DIR", help="Change to this folder first."
)
@click.version_option(package_name="axme-celery", message="axme-celery %(version)s")
@click.pass_context
def main(ctx: click.Context, app: str | None, workdir: str | None) -> None:
    """The script ``axme-celery``; it loads the project when a verb first needs it."""
    from .project import Project

    ctx.obj = Project(app, workdir)
