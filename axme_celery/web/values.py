"""What users put in, as it may be shown: without its secrets, as rows of a table, as differences.

Plain JSON is read, never types: what a worker may make of stored data, a web process must not.
"""

from __future__ import annotations

import difflib
import fnmatch
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ..errors import NotJson

#: In the place of a value nobody is to see.
HIDDEN = "••••••"
#: Text longer than this is folded.
LONG_CHARACTERS = 240
#: Deeper than this nothing is shown; what is stored is not deeper.
DEEPEST = 64


@dataclass(frozen=True)
class Row:
    """One line of a table of names and values."""

    name: str
    text: str
    #: "text", "code" (of several lines), "link", "none".
    kind: str = "text"

    @property
    def is_long(self) -> bool:
        """Whether it is folded at first."""
        return len(self.text) > LONG_CHARACTERS or self.text.count("\n") > 8


def plain(text: str | None) -> Any:
    """Stored JSON as plain JSON. A date, a decimal and their like are shown as their text."""
    if text is None:
        return None
    try:
        return _untyped(json.loads(text), DEEPEST)
    except (ValueError, RecursionError):
        return text


def redacted(value: Any, patterns: Sequence[str], depth: int = DEEPEST) -> Any:
    """The value with the fields of these names hidden, wherever they are."""
    if depth <= 0:
        return "…"
    if isinstance(value, dict):
        return {
            key: HIDDEN if is_secret(str(key), patterns) else redacted(each, patterns, depth - 1)
            for key, each in value.items()
        }
    if isinstance(value, list | tuple):
        return [redacted(each, patterns, depth - 1) for each in value]
    return value


def is_secret(name: str, patterns: Sequence[str]) -> bool:
    """Whether a field of this name is hidden."""
    return any(fnmatch.fnmatchcase(name.lower(), pattern.lower()) for pattern in patterns)


def rows(value: Any) -> list[Row]:
    """A value as rows: an object's fields, or itself."""
    if isinstance(value, dict):
        return [_row(str(name), each) for name, each in value.items()]
    return [] if value is None else [_row("", value)]


def pretty(value: Any) -> str:
    """A value as JSON that people can read."""
    try:
        return json.dumps(value, indent=2, ensure_ascii=False, default=str)
    except (ValueError, RecursionError) as wrong:
        raise NotJson(f"this value cannot be shown: {wrong}") from wrong


def brief(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return ", ".join(value)
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, RecursionError):
        return "…"


def difference(before: Any, after: Any) -> list[tuple[str, str]]:
    """A unified difference as (kind, line): kind is "+", "-", "@" or " "."""
    old, new = (each if isinstance(each, str) else pretty(each) for each in (before, after))
    lines = list(difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=3))[2:]
    return [(line[:1] if line[:1] in "+-@" else " ", line) for line in lines[:2000]]


def safe_link(target: object) -> str | None:
    """The target where a link may lead there: http, https and mailto only."""
    if not isinstance(target, str) or not target.isprintable():
        return None
    try:
        scheme = urlsplit(target.strip()).scheme.lower()
    except ValueError:
        return None
    return target.strip() if scheme in ("http", "https", "mailto") else None


def _row(name: str, value: Any) -> Row:
    match value:
        case _ if value is None or value in ([], {}):
            return Row(name, "none", "none")
        case bool():
            return Row(name, "yes" if value else "no")
        case str() if safe_link(value) and len(value) < 2000:
            return Row(name, value, "link")
        case str():
            return Row(name, value, "code" if "\n" in value else "text")
        case int() | float():
            return Row(name, _number(value))
        case list() if all(isinstance(each, str | int | float) and not isinstance(each, bool) for each in value):
            short = ", ".join(_number(each) if isinstance(each, int | float) else each for each in value)
            return Row(name, short) if len(short) <= LONG_CHARACTERS else Row(name, pretty(value), "code")
    return Row(name, pretty(value), "code")


def _number(value: float) -> str:
    try:
        return str(value)
    except ValueError:  # thousands of digits
        return "a very large number"


def _untyped(value: Any, depth: int) -> Any:
    if depth <= 0:
        return "…"
    if isinstance(value, dict):
        if set(value) == {"__type__", "__value__"}:
            return _untyped(value["__value__"], depth - 1)
        return {key: _untyped(each, depth - 1) for key, each in value.items()}
    if isinstance(value, list):
        return [_untyped(each, depth - 1) for each in value]
    return value
