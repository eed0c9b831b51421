"""The history to take away: whole, safe to open, and with the word whether it holds."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

from sqlalchemy import update

from axme_celery.ledger import tables as t

from .conftest import PAGE


def test_an_operator_takes_the_history_away(stage, sign_in):
    """Every event, as a spreadsheet without formulas and as lines of JSON, under a name that says what it is."""
    intent = stage.submit(stage.axme.app.tasks["doors.ask"].s({"to": "ana"}), requester="=cmd|' /C calc'!A0")
    stage.axme.cancel(intent.id, "=1+1", by="@SUM(A1)")
    ops = sign_in("ops", role="operator")

    sheet = ops.get(f"/intents/{intent.id}/history.csv", headers=PAGE)
    lines = ops.get(f"/intents/{intent.id}/history.jsonl", headers=PAGE)

    events = intent.events()
    rows = list(csv.reader(io.StringIO(sheet.text, newline="")))
    assert sheet.content_type == "text/csv; charset=utf-8"
    assert sheet.headers["Content-Disposition"] == f'attachment; filename="history-{intent.id}.csv"'
    assert (sheet.headers["Axme-Audit"], sheet.headers["Axme-Audit-Head"]) == ("holds", events[-1].hash)
    assert len(rows) == len(events) + 1
    assert not [cell for row in rows for cell in row if cell.startswith(("=", "+", "-", "@"))]
    assert [json.loads(line)["hash"] for line in lines.text.splitlines()] == [event.hash for event in events]
    assert "history.csv" in ops.get(f"/intents/{intent.id}", headers=PAGE).text


def test_a_history_that_was_altered_says_so_in_its_name(stage, sign_in):
    """Whoever gets the file from somebody else sees it too."""
    intent = stage.submit(stage.axme.app.tasks["doors.ask"].s({"to": "ana"}))
    with stage.engine.connect() as connection, connection.begin():
        connection.execute(update(t.events).where(t.events.c.seq == 2).values(actor="eve"))

    sheet = sign_in("ops", role="operator").get(f"/intents/{intent.id}/history.csv", headers=PAGE)

    assert sheet.headers["Axme-Audit"] == "altered"
    assert f"history-{intent.id}-ALTERED.csv" in sheet.headers["Content-Disposition"]


def test_a_history_from_before_there_was_a_key_is_not_called_altered(stage, sign_in, monkeypatch):
    """It holds, but nothing vouches for it: that is told apart, and told."""
    intent = stage.submit(stage.axme.app.tasks["doors.ask"].s({"to": "ana"}))
    assert not any(event.hash.startswith("h:") for event in intent.events())
    monkeypatch.setattr(stage.axme, "_settings", replace(stage.axme.settings, secret_key="k" * 32))

    sheet = sign_in("ops", role="operator").get(f"/intents/{intent.id}/history.csv", headers=PAGE)

    assert sheet.headers["Axme-Audit"] == "unkeyed"
    assert f"history-{intent.id}-UNKEYED.csv" in sheet.headers["Content-Disposition"]


def test_what_is_told_while_it_is_taken_is_in_it_or_not_but_does_not_make_it_altered(stage, sign_in, monkeypatch):
    """A history is held to the end that its intent has when it was read."""
    intent = stage.submit(stage.axme.app.tasks["doors.ask"].s({"to": "ana"}))
    whole, seen = stage.axme.runtime.ledger.intent, []

    def read_then_answered(intent_id):
        found = whole(intent_id)
        seen.append(found.seq)
        if len(seen) == 2:
            stage.answer(intent.id, "approved", by="ana")
        return found

    client = sign_in("ops", role="operator")
    monkeypatch.setattr(stage.axme.runtime.ledger, "intent", read_then_answered)
    sheet = client.get(f"/intents/{intent.id}/history.csv", headers=PAGE)

    assert stage.axme.runtime.ledger.events(intent.id, seen[1], 10), "it went on meanwhile"
    assert sheet.headers["Axme-Audit"] == "holds"


def test_nobody_else_takes_it_and_no_other_form_is_given(stage, sign_in):
    """What is made unreadable on the pages is readable in it."""
    intent = stage.submit(stage.axme.app.tasks["doors.ask"].s({"to": "ana"}))
    ops, ana = sign_in("ops", role="operator"), sign_in("ana", role="approver")

    assert ana.get(f"/intents/{intent.id}/history.csv", headers=PAGE).status_code == 403
    assert "history.csv" not in ana.get(f"/intents/{intent.id}", headers=PAGE).text
    assert ops.get(f"/intents/{intent.id}/history.xlsx", headers=PAGE).status_code == 404
    assert ops.get("/intents/nothing/history.csv", headers=PAGE).status_code == 404
