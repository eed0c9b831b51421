"""Pages of long lists by the place of the last line seen, and filters in the address."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar

from flask import request

from ...durations import moment
from ...errors import BadInput
from .shown import address_with

Line = TypeVar("Line")

#: Lines of one page.
LINES = 50


def filters(*names: str) -> dict[str, str]:
    """The filters in this page's address, "" for those that are not set; at most 200 characters of each."""
    return {name: request.args.get(name, "").strip()[:200] for name in names}


def place() -> tuple[datetime, str] | None:
    """Where the page before ended: a moment and an id. What is no place is the beginning."""
    at, _, id = request.args.get("after", "").partition("~")
    try:
        return (moment(at, "after"), id) if id and len(id) <= 64 else None
    except BadInput:
        return None


def cut(found: Sequence[Line], place_of: Callable[[Line], Any]) -> tuple[list[Line], str | None, str | None]:
    """Of ``LINES + 1`` lines those of this page; the address of the next page, and of the first if this is not it."""
    lines = list(found[:LINES])
    older = None
    if len(found) > LINES:
        last = place_of(lines[-1])
        older = address_with(after=f"{last[0].isoformat()}~{last[1]}" if isinstance(last, tuple) else last)
    return lines, older, address_with(after=None) if request.args.get("after") else None
