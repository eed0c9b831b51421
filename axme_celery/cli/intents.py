"""Verbs on intents: submit, list, cancel, replay, fork, unpark."""

from __future__ import annotations

import difflib
import itertools
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from . import documents
from .arguments import DURATION, JSON, SINCE
from .output import ago, note, print_json, print_table, status_of
from .project import by_option, json_option, limit_option, login_name, with_axme

if TYPE_CHECKING:
    from ..extension import Axme
    from ..handle import IntentHandle

#: As in model.Status, which is not imported for a help page.
STATUSES = (
    "CREATED", "SUBMITTED", "DELIVERED", "ACKNOWLEDGED", "IN_PROGRESS", "WAITING",
    "COMPLETED", "FAILED", "CANCELED", "TIMED_OUT",
)  # fmt: skip


@click.command(short_help="Submit a task as an intent; prints its id.")
@click.argument("task")
@click.option("--args", type=JSON, default="[]", help="Positional arguments, a JSON list (@file reads a file).")
@click.option("--kwargs", type=JSON, default="{}", help="Named arguments, a JSON object.")
@click.option("--key", help="Your own name for it: submitted twice with the same work, it is one intent.")
@click.option("--deadline", type=DURATION, help='Not ended after this long ("2d"), it ends TIMED_OUT.')
@click.option("--countdown", type=DURATION, help='Start it after this long ("4h").')
@click.option("--type", help="The intent's type; the task's name unless given.")
@click.option("--payload", type=JSON, help="What it is about, shown and audited; the arguments unless given.")
@click.option("--notify", metavar="URL", help="Tell this URL of its end, by a signed webhook.")
@click.option("--tag", "tags", multiple=True, help="May be given several times.")
@click.option("--correlation-id", help="An id of yours that goes with it.")
@click.option(
    "--requester", envvar="AXME_ACTOR", default=login_name, show_default="AXME_ACTOR, else your login name",
    help="Who asks for it.",
)  # fmt: skip
@click.option("--queue", help="The Celery queue, if not the task's own.")
@click.option("--unregistered", is_flag=True, help="The task is known to the workers only, not here.")
@click.option("--wait", is_flag=True, help="Wait for the end; print the result too. Exit code 1 if it has none.")
@click.option("--timeout", type=DURATION, help="With --wait: wait no longer than this.")
@json_option
@with_axme
def submit(
    axme: Axme,
    task: str,
    args: Any,
    kwargs: Any,
    key: str | None,
    deadline: float | None,
    countdown: float | None,
    type: str | None,
    payload: Any,
    notify: str | None,
    tags: tuple[str, ...],
    correlation_id: str | None,
    requester: str,
    queue: str | None,
    unregistered: bool,
    wait: bool,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Submit TASK as an intent. When this returns it cannot be lost any more.

    \b
    axme-celery -A proj submit reports.monthly --args '["2026-10"]' --key export-2026-10
    """
    from ..errors import BadInput

    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise click.UsageError(
            "--args is a JSON list and --kwargs a JSON object: --args '[1, 2]' --kwargs '{\"x\": 3}'"
        )
    if timeout is not None and not wait:
        raise click.UsageError("--timeout belongs to --wait")
    axme.app.loader.import_default_modules()
    if task not in axme.app.tasks and not unregistered:
        raise BadInput(_unknown_task(task, list(axme.app.tasks)))
    options = {"countdown": countdown, "queue": queue}
    signature = axme.app.signature(
        task, args=args, kwargs=kwargs, **{k: v for k, v in options.items() if v is not None}
    )
    try:
        intent = axme.submit(
            signature, key=key, type=type, payload=payload, deadline=deadline, notify=notify, requester=requester,
            correlation_id=correlation_id, tags=tags,
        )  # fmt: skip
    except TypeError as unfit:
        raise BadInput(f"the arguments do not fit: {unfit}") from None
    if not as_json:
        click.echo(intent.id)
    ended = _wait_for(intent, timeout) if wait else None
    if as_json:
        print_json(documents.intent(intent, whole=True))
    elif wait and ended is None:
        print_json(intent.result)
    if ended is not None:
        raise ended


def _wait_for(intent: IntentHandle, timeout: float | None) -> Exception | None:
    """Wait for its end; why there is no result, if there is none."""
    from ..errors import AxmeError, IntentNotCompleted

    try:
        intent.wait(timeout)
    except TimeoutError as still:
        # Its id is out, and it goes on: only this command gives up.
        return AxmeError(f"{still}; it goes on: see it with show or watch")
    except IntentNotCompleted as ended:
        return ended
    return None


@click.command("list", short_help="List intents, newest first.")
@click.option("--status", multiple=True, type=click.Choice(STATUSES, case_sensitive=False), help="May be several.")
@click.option(
    "--waiting-for", type=click.Choice(["human", "tool", "agent", "time"], case_sensitive=False), help="What for."
)
@click.option("--type", help="Of this type.")
@click.option("--tag", help="With this tag.")
@click.option("--key", help="With this key.")
@click.option("--requester", help="Asked for by.")
@click.option("--correlation-id", help="With this correlation id.")
@click.option("--since", type=SINCE, help='Submitted since: "2d", "90m", or 2026-10-31T18:00:00Z.')
@limit_option(50)
@json_option
@with_axme
def list_(
    axme: Axme,
    status: tuple[str, ...],
    waiting_for: str | None,
    type: str | None,
    tag: str | None,
    key: str | None,
    requester: str | None,
    correlation_id: str | None,
    since: float | datetime | None,
    limit: int,
    as_json: bool,
) -> None:
    """List the intents that fit all of these, newest first."""
    now = axme.runtime.ledger.now(fresh=True)
    found = axme.intents(
        status=[s.upper() for s in status] or None,
        waiting_reason=None if waiting_for is None else f"WAITING_FOR_{waiting_for.upper()}",
        type=type,
        tag=tag,
        key=key,
        requester=requester,
        correlation_id=correlation_id,
        created_since=now - timedelta(seconds=since) if isinstance(since, float) else since,
        limit=limit + 1,
    )
    intents = list(itertools.islice(found, limit))
    # Asked once for all: that a leg is parked does not change the status of its intent.
    parked = axme.runtime.ledger.views.parked([i.id for i in intents if not i.status.is_final])
    if as_json:
        print_json([{**documents.intent(i), "parked": i.id in parked} for i in intents])
    else:
        rows = [
            (i.id, status_of(i.status, i.waiting_reason, parked=i.id in parked), i.type, ago(i.created_at, now), i.key,
             ", ".join(i.tags))
            for i in intents
        ]  # fmt: skip
        print_table(("ID", "STATUS", "TYPE", "AGE", "KEY", "TAGS"), rows, "no intents")
    if next(found, None) is not None:
        note(f"there are more than {limit}; say --limit, or filter")


@click.command(short_help="End an intent as CANCELED.")
@click.argument("intent_id", metavar="ID")
@click.option("--reason", required=True, help="Why; kept in its history.")
@by_option
@json_option
@with_axme
def cancel(axme: Axme, intent_id: str, reason: str, by: str, as_json: bool) -> None:
    """End intent ID as CANCELED: what waits or is queued ends now, what runs stops at its next checkpoint."""
    _tell(axme.cancel(intent_id, reason, by), as_json, "canceled")


@click.command(short_help="Start a failed intent again, with its finished work.")
@click.argument("id", metavar="ID")
@by_option
@json_option
@with_axme
def replay(axme: Axme, id: str, by: str, as_json: bool) -> None:
    """Start intent (or dead letter) ID again as a new intent that keeps its finished steps and answered waits.

    Prints the new intent's id.
    """
    _tell(axme.replay(id, by), as_json, None)


@click.command(short_help="Start a new intent from another's recorded work, up to a step.")
@click.argument("intent_id", metavar="ID")
@click.option(
    "--before", required=True, metavar="STEP", help='A step or wait: "name", or "name#2" for its second call.'
)
@by_option
@json_option
@with_axme
def fork(axme: Axme, intent_id: str, before: str, by: str, as_json: bool) -> None:
    """Start a new intent with the recorded work of intent ID up to, and not including, STEP. Prints its id."""
    _tell(axme.fork(intent_id, before, by), as_json, None)


@click.command(short_help="Let an intent go on whose leg is parked.")
@click.argument("intent_id", metavar="ID")
@click.option("--accept-drift", is_flag=True, help="Go on with the code as it is now.")
@by_option
@json_option
@with_axme
def unpark(axme: Axme, intent_id: str, accept_drift: bool, by: str, as_json: bool) -> None:
    """Let intent ID go on, whose leg is parked: after the old code was put back, or with --accept-drift."""
    _tell(axme.unpark(intent_id, by, accept_drift=accept_drift), as_json, "goes on")


def _tell(intent: IntentHandle, as_json: bool, done: str | None) -> None:
    """The intent, for programs; for people what was done to it, or only its id where that is the news."""
    if as_json:
        print_json(documents.intent(intent, whole=True))
    else:
        click.echo(intent.id if done is None else f"{intent.id} {done}")


def _unknown_task(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    meant = f"; did you mean {close[0]}?" if close else ""
    return f"this project has no task {name!r}{meant} (one that only the workers know: --unregistered)"
