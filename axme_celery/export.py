"""The history as others read it: a line of JSON for each event, or a spreadsheet in which no cell is a formula."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from .model import Event, JsonDict

COLUMNS = (
    "intent_id", "seq", "at", "type", "status", "waiting_reason", "actor", "leg_id", "details", "prev_hash", "hash",
)  # fmt: skip

#: A cell that begins with one of these is, or may become, a formula to a spreadsheet; the last four are full width.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def row(event: Event) -> JsonDict:
    """An event's columns."""
    return {name: getattr(event, name) for name in COLUMNS}


def jsonl(events: Iterable[Event]) -> Iterator[str]:
    """Each event as a line of JSON, without the line's end."""
    for event in events:
        yield json.dumps(row(event), default=_plain)


def csv_lines(events: Iterable[Event], *, heading: bool = True) -> Iterator[str]:
    """Each event as a line of CSV with its end (RFC 4180), the names of the columns first.

    A cell that a spreadsheet would take for a formula begins with an apostrophe.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    if heading:
        writer.writerow(COLUMNS)
        yield _taken(buffer)
    for event in events:
        writer.writerow([cell(value) for value in row(event).values()])
        yield _taken(buffer)


def cell(value: Any) -> Any:
    """A value as a cell of a spreadsheet."""
    if isinstance(value, dict | list | tuple):
        value = json.dumps(value, default=_plain, ensure_ascii=False)
    elif isinstance(value, datetime):
        return value.isoformat()
    # Blanks before it do not keep a spreadsheet from it.
    dangerous = isinstance(value, str) and (value.startswith(_FORMULA) or value.lstrip(" \u00a0").startswith(_FORMULA))
    return f"'{value}" if dangerous else value


def _taken(buffer: io.StringIO) -> str:
    text = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return text


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


__all__ = ["COLUMNS", "cell", "csv_lines", "jsonl", "row"]
