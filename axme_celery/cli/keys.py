"""``keys``: the secrets by which programs, and people without a login, are known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from . import documents
from .arguments import DURATION
from .output import note, print_json, print_table
from .project import json_option, with_axme

if TYPE_CHECKING:
    from ..extension import Axme
    from ..who import Key


@click.group(short_help="Keys for programs and people: create, list, revoke.")
def keys() -> None:
    """Keys by which programs, and people without a login, are known to the pages and the HTTP interface."""


@keys.command(short_help="Make a key and print its secret, this once.")
@click.option("--name", required=True, help="Who will have done what is done with it.")
@click.option(
    "--role", type=click.Choice(["viewer", "approver", "operator", "admin"]), default="viewer", show_default=True
)
@click.option(
    "--groups", multiple=True, metavar="GROUP", help="Whose questions it may answer; several, or with commas."
)
@click.option("--owner", help="Only this owner's intents exist for it.")
@click.option("--agent", metavar="ADDRESS", help="The agent:// address it speaks for.")
@click.option("--expires", type=DURATION, help='How long it is good: "90d". For ever, unless given.')
@json_option
@with_axme
def create(
    axme: Axme,
    name: str,
    role: str,
    groups: tuple[str, ...],
    owner: str | None,
    agent: str | None,
    expires: float | None,
    as_json: bool,
) -> None:
    """Make a key. Its secret is printed this once and kept nowhere."""
    from ..keys import create as make

    named = [group.strip() for each in groups for group in each.split(",") if group.strip()]
    key, secret = make(
        axme.runtime, name=name, role=role, groups=named, owner=owner, agent=agent, expires_seconds=expires
    )
    if as_json:
        print_json({"id": key.id, "key": secret, **_document(key)})
        return
    click.echo(f"{key.id}  {secret}")
    note("keep it now: it is not shown again")


@keys.command("list", short_help="List keys, newest first.")
@json_option
@with_axme
def list_(axme: Axme, as_json: bool) -> None:
    """List keys, newest first, also those that are no longer good. Never their secrets."""
    from ..keys import listed

    found = listed(axme.runtime)
    if as_json:
        print_json([_document(key) for key in found])
        return
    now = axme.runtime.ledger.now()
    rows = [
        (k.id, k.name, k.role, ", ".join(k.groups), k.owner, k.agent, _state(k, now), k.created_at, k.last_used_at)
        for k in found
    ]
    print_table(("KEY", "NAME", "ROLE", "GROUPS", "OWNER", "AGENT", "STATE", "CREATED", "LAST USED"), rows, "no keys")


@keys.command(short_help="Have a key be good no longer, at once.")
@click.argument("ids", metavar="KEY...", nargs=-1, required=True)
@with_axme
def revoke(axme: Axme, ids: tuple[str, ...]) -> None:
    """Revoke keys, by their ids. Sessions opened with them end too."""
    from ..keys import revoke as end

    for key_id in ids:
        click.echo(f"{end(axme.runtime, key_id).id}  revoked")


def _document(key: Key) -> dict[str, Any]:
    return documents.record(key, without=("hash",))


def _state(key: Key, now: Any) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "good" if key.is_good(now) else "run out"
