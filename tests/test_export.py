"""The history as a spreadsheet and as lines of JSON."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from axme_celery import export
from axme_celery.model import Event, Status

EVENT = Event(
    intent_id="i", seq=1, type="intent.created", status=Status.CREATED, at=datetime(2026, 10, 31, 18, tzinfo=UTC),
    actor="ana", details={"reason": "a, \"b\"\nc"}, prev_hash="", hash="aa",
)  # fmt: skip


def read(events) -> list[list[str]]:
    return list(csv.reader(io.StringIO("".join(export.csv_lines(events)), newline="")))


def test_every_column_comes_back_as_it_was():
    """Commas, quotes and line breaks too; the names of the columns are there without an event."""
    heading, row = read([EVENT])
    line = json.loads("".join(export.jsonl([EVENT])))

    assert tuple(heading) == export.COLUMNS == tuple(line)
    assert dict(zip(heading, row, strict=True)) | {"details": None} == {
        "intent_id": "i", "seq": "1", "at": "2026-10-31T18:00:00+00:00", "type": "intent.created", "status": "CREATED",
        "waiting_reason": "", "actor": "ana", "leg_id": "", "prev_hash": "", "hash": "aa", "details": None,
    }  # fmt: skip
    assert json.loads(row[export.COLUMNS.index("details")]) == line["details"] == EVENT.details
    assert read([]) == [list(export.COLUMNS)]
    assert list(export.csv_lines([], heading=False)) == []


@pytest.mark.parametrize(
    "formula",
    ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "\u00a0=1", "＝1", "－1", '=HYPERLINK("http://x")'],
)
def test_no_cell_is_a_formula(formula):
    """Whoever names themselves like one does not run anything on the machine of who reads the audit."""
    (_, row) = read([replace(EVENT, actor=formula)])

    assert row[export.COLUMNS.index("actor")] == f"'{formula}"


@pytest.mark.parametrize("plain", ["ana", "a=b", "1-2", "'=1", "", "a@b.example"])
def test_what_is_no_formula_is_left_as_it_is(plain):
    """An address has its @ in the middle."""
    assert export.cell(plain) == plain
    assert export.cell(-5) == -5
