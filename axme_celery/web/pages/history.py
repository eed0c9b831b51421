"""The history of an intent to take away: as a spreadsheet, or as lines of JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from flask import Response

from ... import audit
from ...errors import NotFound
from ...export import csv_lines, jsonl
from ...model import Event, Intent
from ...who import Role
from ..house import house, need, visible_intent
from . import blueprint

_TYPES = {"csv": "text/csv; charset=utf-8", "jsonl": "application/jsonl; charset=utf-8"}


@blueprint.get("/intents/<intent_id>/history.<form>")
def history(intent_id: str, form: str) -> Response:
    """All events, as they were written: for operators, since nothing in it is made unreadable, so that it verifies.

    The name of the file says so when the history is not what was written, and when nothing vouches for it: it was begun
    and ended before there was a key, or is written anew by somebody who has none.
    """
    intent = visible_intent(intent_id, need(Role.OPERATOR))
    if form not in _TYPES:
        raise NotFound("page", f"history.{form}")
    events = list(_events(intent.id))
    # What was told while it was read is in it too: the end it is held to is the one that it has then.
    now = house().rt.ledger.intent(intent.id) or intent
    events += _events(intent.id, events[-1].seq if events else 0)
    key = house().axme.settings.secret_key
    state = _state(now, [event for event in events if event.seq <= now.seq], key.encode() if key else None)
    lines = "".join(csv_lines(events)) if form == "csv" else "".join(f"{line}\n" for line in jsonl(events))
    name = f"history-{intent.id}{'' if state == 'holds' else f'-{state.upper()}'}.{form}"
    return Response(
        lines,
        content_type=_TYPES[form],
        headers={
            "Content-Disposition": f'attachment; filename="{name}"',
            "Axme-Audit": state,
            "Axme-Audit-Head": events[-1].hash if events else "",
        },
    )


def _state(intent: Intent, events: Sequence[Event], key: bytes | None) -> str:
    if audit.verify(intent, events, key) is None:
        return "holds"
    return "unkeyed" if audit.verify(intent, events, None) is None else "altered"


def _events(intent_id: str, since: int = 0) -> Iterator[Event]:
    while page := house().rt.ledger.events(intent_id, since, 1000):
        yield from page
        since = page[-1].seq
