"""``show``: everything about one intent."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from . import documents
from .output import ago, print_facts, print_heading, print_json, print_table, shortened, status_of, text_of
from .output import as_json as plain
from .project import json_option, limit_option, with_axme

if TYPE_CHECKING:
    from ..extension import Axme
    from ..graph import Join
    from ..handle import IntentHandle
    from ..model import Checkpoint, Event, Leg, Progress, Wait

#: Values longer than this are cut in the tables; --json has them whole.
LONGEST = 200


@click.command(short_help="Show one intent: facts, legs, steps, waits, history; or one wait.")
@click.argument("intent_id", metavar="ID")
@limit_option(100)
@json_option
@with_axme
def show(axme: Axme, intent_id: str, limit: int, as_json: bool) -> None:
    """Show intent ID: its facts, legs, steps, waits (open ones first) and history.

    For the id of a wait: what is asked, of whom, who has said what, and what happens when nobody does.

    --limit is for steps and history, of which the last so many are shown; --json has all of them.
    """
    record = axme.runtime.ledger.wait(intent_id)
    if record is not None:
        from .inbox import show_wait

        show_wait(axme, record, as_json=as_json)
        return
    intent = axme.intent(intent_id)
    legs, joins, steps = intent.legs(), intent.joins(), intent.steps()
    waits, events = _open_first(intent.waits()), intent.events()
    progress = intent.progress()
    parked = any(leg.status == "PARKED" for leg in legs)
    now = axme.runtime.ledger.now(fresh=True)
    starts = axme.runtime.ledger.views.starts(intent.id, now)
    if as_json:
        codec = axme.runtime.codec
        print_json(
            {
                **documents.intent(intent, whole=True),
                "parked": parked,
                "legs": [documents.leg(one, progress.get(one.id), starts.get(one.id)) for one in legs],
                "joins": [documents.record(one) for one in joins],
                "steps": [documents.step(one, codec) for one in steps],
                "waits": [{**documents.record(one), "data": documents.stored(one.data, codec)} for one in waits],
                "events": [documents.record(one) for one in events],
            }
        )
        return
    print_facts(_facts(intent, now, parked, min(starts.values(), default=None)))
    _print_legs(legs, joins, progress, starts, limit)
    for leg in legs:
        if leg.parked:
            click.echo(f"parked: {text_of(leg.parked)}")
    print_heading(_count("STEPS", steps, limit))
    print_table(("STEP", "NTH", "RUN", "RECORDED", "BYTES", "AT"), (_step(x) for x in steps[-limit:]), "none recorded")
    print_heading("WAITS")
    print_table(
        ("WAIT", "STATUS", "FOR", "TITLE", "OPENED", "UNTIL", "REMINDED", "ANSWER"), (_wait(x) for x in waits), "none"
    )
    print_heading(_count("HISTORY", events, limit))
    print_table(("SEQ", "AT", "EVENT", "BY", "DETAILS"), (_event(x) for x in events[-limit:]), "none")


def _facts(intent: IntentHandle, now: datetime, parked: bool, starts: datetime | None) -> list[tuple[str, object]]:
    document = documents.intent(intent, whole=True)
    # Of one that has begun, a leg that starts later (a retry, a countdown in a pipeline) says so itself.
    starts = starts if intent.status == "SUBMITTED" else None
    return [
        ("intent", intent.id),
        ("type", intent.type),
        ("status", status_of(intent.status, intent.waiting_reason, parked=parked)),
        ("key", intent.key),
        ("tags", ", ".join(intent.tags) or None),
        ("requester", intent.requester),
        ("correlation id", intent.correlation_id),
        ("replay of", intent.replay_of),
        ("submitted", f"{_at(intent.created_at)}, {ago(intent.created_at, now)} ago"),
        ("starts", None if starts is None else f"{_at(starts)}, in {ago(now, starts)}"),
        ("deadline", _at(intent.deadline_at)),
        ("ended", _at(intent.ended_at)),
        ("payload", _json(document["payload"])),
        ("result", _json(document["result"]) if intent.status == "COMPLETED" else None),
        ("error", f"{intent.error.get('message')} [{intent.error.get('code')}]" if intent.error else None),
        ("page", intent.url),
    ]


def _open_first(waits: list[Wait]) -> list[Wait]:
    return sorted(waits, key=lambda wait: wait.status != "OPEN")


def _print_legs(
    legs: list[Leg], joins: list[Join], progress: dict[str, Progress], starts: dict[str, datetime], limit: int
) -> None:
    """The legs; of a pipeline with where each is in its canvas, what it waits for, and where they come together."""
    heads = ("LEG", "TASK", "STATUS", "RUN", "ATTEMPTS", "WORKER", "PROGRESS")
    if not any(leg.node for leg in legs):
        print_heading("LEGS")
        print_table(heads, (_leg(leg, progress, starts) for leg in legs), "none")
        return
    places = {leg.id: leg.node for leg in legs} | {join.id: f"all of {join.node or 'the group'}" for join in joins}
    places |= {join.id: join.node for join in joins if join.gives == "value"}
    shown = legs if len(legs) <= limit else sorted(legs, key=lambda leg: leg.status.is_final)[:limit]
    print_heading(f"LEGS ({len(legs)})" if shown is legs else f"LEGS ({limit} of {len(legs)}, open ones first)")
    rows = ((leg.node, places.get(leg.after or ""), *_leg(leg, progress, starts)) for leg in shown)
    print_table(("PLACE", "AFTER", *heads), rows, "none")
    if joins:
        print_heading("JOINS")
        rows_of_joins = (
            (join.node or "the end", join.status, f"{join.size - join.left}/{join.size}") for join in joins
        )
        print_table(("PLACE", "STATUS", "ARRIVED"), rows_of_joins, "none")


def _leg(leg: Leg, progress: dict[str, Progress], starts: dict[str, datetime]) -> tuple[object, ...]:
    said = progress.get(leg.id)
    how_far = None
    if said is not None:
        total = "" if said.total is None else f"/{said.total:g}"
        how_far = f"{said.done:g}{total}" + (f" {said.note}" if said.note else "")
    status = f"{leg.status} until {_at(starts[leg.id])}" if leg.id in starts else leg.status
    return leg.id, leg.task, status, leg.run, f"{leg.attempts}/{leg.max_attempts}", leg.worker, how_far


def _step(step: Checkpoint) -> tuple[object, ...]:
    return step.name, step.nth, step.run, step.recorded, len(step.value.encode()), step.at


def _wait(wait: Wait) -> tuple[object, ...]:
    who = ", ".join(wait.to) or (f"{wait.tool} {wait.job_id}" if wait.tool else wait.kind.lower())
    answer = wait.outcome
    if answer and wait.answered_by:
        answer += f" by {wait.answered_by}"
    if wait.comment:
        answer = f"{answer}: {shortened(wait.comment, 60)}"
    if wait.votes and wait.status == "OPEN":
        answer = f"{len(wait.votes)} of {wait.request.get('quorum', 1)} votes"
    return wait.id, wait.status, who, wait.title, wait.opened_at, wait.timeout_at, wait.reminders or None, answer


def _event(event: Event) -> tuple[object, ...]:
    status = status_of(event.status, event.waiting_reason)
    details = " ".join(f"{name}={_json(value)}" for name, value in event.details.items())
    return (
        event.seq,
        event.at,
        f"{event.type.removeprefix('intent.')} ({status})",
        event.actor,
        shortened(details, LONGEST),
    )


def _count(name: str, things: list[Any], limit: int) -> str:
    return f"{name} ({len(things)})" if len(things) <= limit else f"{name} (the last {limit} of {len(things)})"


def _at(moment: datetime | None) -> str | None:
    return None if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}Z"


def _json(value: Any) -> str:
    return value if isinstance(value, str) else shortened(json.dumps(value, default=plain, ensure_ascii=False), LONGEST)
