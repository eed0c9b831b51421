"""One answer to many questions: first a list of what will be answered, then what became of each."""

from __future__ import annotations

from typing import Any

from flask import request

from ... import bulk as verbs
from ... import lifecycle
from ...errors import BadInput, NotFound
from ...model import WaitKind, WaitRecord, WaitStatus
from ...who import Actor, Role
from .. import values
from ..house import house, need
from . import blueprint
from .approvals import _button
from .shown import page, visible


@blueprint.get("/inbox/many")
def many() -> Any:
    """What will be answered: looked at, not decided."""
    actor = need(Role.APPROVER)
    return _look(actor, _records(actor, request.args.getlist("wait")))


@blueprint.post("/inbox/many")
def answer_many() -> Any:
    """One answer to all of them, each decided on its own; and what became of each."""
    actor = need(Role.APPROVER)
    records = _records(actor, request.form.getlist("wait"))
    outcome, comment = request.form.get("outcome", ""), request.form.get("comment", "").strip() or None
    if comment is None and any(lifecycle.needs_comment(record.wait, outcome) for record in records):
        return _look(actor, records, error="Say why: this answer needs a few words."), 422
    rows = verbs.answer(
        house().rt, [record.wait.id for record in records], outcome, by=actor.id, comment=comment,
        groups=sorted(actor.names), via=actor.via,
        expected_hashes={record.wait.id: request.form.get(f"hash-{record.wait.id}", "") for record in records},
    )  # fmt: skip
    return page("many_done.html", tab="inbox", answered=rows, outcome=outcome)


def _look(actor: Actor, records: list[WaitRecord], error: str | None = None) -> str:
    lines = [
        (record, values.rows(visible(record.wait.request.get("context") or {})), _why_not(record, actor))
        for record in records
    ]
    kinds = {(record.wait.request["task_type"], *record.wait.request["outcomes"]) for record in records}
    outcomes = records[0].wait.request["outcomes"] if len(kinds) == 1 else ()
    return page(
        "many.html",
        tab="inbox",
        lines=lines,
        buttons=[(outcome, *_button(outcome)) for outcome in outcomes],
        comment_needed=any(lifecycle.needs_comment(r.wait, outcome) for r in records for outcome in outcomes),
        error=error,
        open_count=sum(why is None for _, _, why in lines),
    )


def _records(actor: Actor, wait_ids: list[str]) -> list[WaitRecord]:
    """These waits, as far as they exist for them. Raises NotFound, BadInput for none and for too many."""
    chosen = list(dict.fromkeys(wait_ids))
    if not 1 <= len(chosen) <= verbs.MOST:
        raise BadInput(f"Tick the questions first: at least one, at most {verbs.MOST}.")
    found = {record.wait.id: record for record in house().rt.ledger.wait_records(chosen)}
    for wait_id in chosen:
        record = found.get(wait_id)
        if record is None or record.wait.kind is not WaitKind.HUMAN or not actor.sees(record.intent.owner):
            raise NotFound("wait", wait_id)
    return [found[wait_id] for wait_id in chosen]


def _why_not(record: WaitRecord, actor: Actor) -> str | None:
    """Why this one will not be answered with the others; None where it will."""
    wait = record.wait
    if wait.status is not WaitStatus.OPEN:
        return "it is closed"
    if not wait.request.get("bulk"):
        return "it is to be answered by itself"
    refusal = lifecycle.may_answer(wait, actor.names, actor.id)
    return None if refusal is None else refusal.reason
