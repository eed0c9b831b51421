"""What verbs print: one JSON document, or tables and lines for people.

Colours and fitted widths only on a terminal, where rich is installed and
NO_COLOR is not set; otherwise plain text, whole, for pipes and logs. What comes
from users is shown without its control characters: a title must not be able to
move the cursor of whoever lists it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import click

_STYLES = {
    "COMPLETED": "green", "DONE": "green", "OK": "green", "ANSWERED": "green",
    "FAILED": "red", "TIMED_OUT": "red", "PROBLEM": "bold red", "EXPIRED": "red",
    "CANCELED": "dim", "WAITING": "yellow", "PARKED": "yellow", "WARNING": "yellow", "OPEN": "yellow",
    "IN_PROGRESS": "cyan", "RUNNING": "cyan",
}  # fmt: skip


def print_json(document: Any) -> None:
    """One JSON document. Moments become ISO 8601, other values that JSON has no word for their text."""
    click.echo(json.dumps(document, indent=2, default=as_json, ensure_ascii=False))


def as_json(value: Any) -> Any:
    """What ``json.dumps`` is to make of a value it does not know."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return str(value)


def print_table(headers: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    """A table, or ``empty`` where there are no rows."""
    cells = [[text_of(cell) for cell in row] for row in rows]
    if not cells:
        click.echo(empty)
    elif is_fancy():
        _print_rich(headers, cells)
    else:
        widths = [max(len(row[n]) for row in [list(headers), *cells]) for n in range(len(headers))]
        for row in [list(headers), *cells]:
            click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_facts(facts: Iterable[tuple[str, object]]) -> None:
    """Names and values, one on a line; those that are None are left out."""
    kept = [(name, text_of(value)) for name, value in facts if value is not None]
    width = max((len(name) for name, _ in kept), default=0)
    for name, value in kept:
        click.echo(f"{name.ljust(width)}  {value}")


def print_heading(text: str) -> None:
    """A section's name, after a blank line."""
    click.echo("\n" + (click.style(text, bold=True) if is_fancy() else text))


def note(text: str) -> None:
    """A remark for people, on stderr: it must not get into what is piped on."""
    click.echo(text, err=True)


def text_of(value: object) -> str:
    """A value as one line that cannot do anything to a terminal; "" for None, moments to the second."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}Z"
    return "".join(c if c.isprintable() else " " if c in "\n\t\r" else "\N{REPLACEMENT CHARACTER}" for c in str(value))


def shortened(text: str, most: int) -> str:
    """At most so many characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def ago(moment: datetime, now: datetime) -> str:
    """How long before ``now``: "3m 20s"."""
    from ..durations import words

    return words(max(0.0, (now - moment).total_seconds()))


def status_of(status: str, waiting_reason: str | None, *, parked: bool = False) -> str:
    """An intent's status in words: "WAITING for human"; "IN_PROGRESS (parked)" where a leg of it is."""
    words = f"{status} for {waiting_reason.removeprefix('WAITING_FOR_').lower()}" if waiting_reason else str(status)
    return f"{words} (parked)" if parked else words


def is_fancy() -> bool:
    """Whether to use colours: a terminal, rich at hand, and nobody said no."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    try:
        import rich  # noqa: F401
    except ImportError:
        return False
    return True


def _print_rich(headers: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for n, header in enumerate(headers):
        # The first column is what one copies: it is never cut.
        least = max(len(row[0]) for row in cells) if n == 0 else None
        table.add_column(header, no_wrap=n == 0, min_width=least, overflow="fold")
    for row in cells:
        # Text objects, for a user's text may hold what rich would take for markup.
        table.add_row(*(Text(cell, style=_STYLES.get(cell.split(" ", 1)[0], "")) for cell in row))
    Console().print(table)
