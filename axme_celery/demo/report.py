"""What the export publishes: CSV, and a summary of it for people. Pure, but for reading the file."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Table:
    """A CSV file as read: all cells are text."""

    columns: list[str]
    rows: list[list[str]]


def as_csv(rows: Iterable[Sequence[object]]) -> str:
    """Rows as CSV lines. None becomes an empty cell."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def read_csv(path: Path) -> Table:
    """A file with a header line."""
    with path.open(encoding="utf-8", newline="") as file:
        columns, *rows = csv.reader(file)
    return Table(columns=columns, rows=rows)


def summary(headline: str, table: Table, *, signed_by: str | None) -> str:
    """A Markdown page: how many rows, and for each column its range and mean, or its commonest values."""
    lines = [f"# {headline}", "", f"{len(table.rows):,} rows, {len(table.columns)} columns.", ""]
    lines += ["| column | | |", "|---|---|---|"]
    for nth, name in enumerate(table.columns):
        cells = (name, *_column([row[nth] for row in table.rows]))
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    if signed_by:
        lines += ["", f"Signed off by {signed_by}."]
    return "\n".join(lines) + "\n"


def _column(cells: list[str]) -> tuple[str, str]:
    filled = [cell for cell in cells if cell]
    if not filled:
        return "empty", ""
    try:
        numbers = [float(cell) for cell in filled]
    except ValueError:
        counted = Counter(filled)
        if len(counted) > len(filled) // 2:  # dates, names, ids: their counts say nothing, their range does
            return f"{min(filled)} to {max(filled)}", f"{len(counted):,} different"
        return ", ".join(f"{value} {count:,}" for value, count in counted.most_common(5)), f"{len(counted)} different"
    return f"{min(numbers):g} to {max(numbers):g}", f"mean {sum(numbers) / len(numbers):.2f}"
