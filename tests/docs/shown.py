"""Whether something printed what a page shows.

A page shows one run; the next has other ids and takes other times. So ``...`` stands for anything, a moment for any
moment, a span of time for any span, a process id for any. An id stands for one id: which one is settled where it is
first shown, and from there on, also in what is typed later, it means that one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

_ANY = (
    (re.compile(r"\.\.\."), r".*?"),
    # 2026-10-31 18:00:00.123Z and its shorter forms
    (re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?(\.\d+)?(Z|\+00:00)?"), r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d\S*"),
    (re.compile(r"\b\d\d:\d\d:\d\d(\.\d+)?\b"), r"\d\d:\d\d:\d\d(?:\.\d+)?"),
    # 12s, 0.3 s, 1d 4h, 250ms
    (re.compile(r"\b\d+(\.\d+)?( s\b|ms|[smhd])\b( \d+[smhd]\b)?"), r"\d+(?:\.\d+)?(?: s\b|ms|[smhd])\b(?: \d+[smhd]\b)?"),
    (re.compile(r"\b[\w-]+:\d{3,7}\b"), r"[\w.-]+:\d+"),  # host:pid
    (re.compile(r"\s+"), r"\s+"),
)  # fmt: skip


@dataclass
class Ids:
    """Which id of the run an id in the text stands for."""

    bound: dict[str, str] = field(default_factory=dict)

    def translate(self, text: str) -> str:
        """Text to be typed, with the ids of this run."""
        return ID.sub(lambda found: self.bound.get(found[0], found[0]), text)

    def matches(self, shown: str, printed: str) -> bool:
        """Whether all of ``printed`` is what ``shown`` shows; then new ids in it are settled."""
        shown, printed = shown.strip(), printed.strip()
        pattern, names = self._pattern(shown)
        found = re.fullmatch(pattern, printed, re.DOTALL)
        if found is None:
            return False
        for text_id, group in names.items():
            self.bound[text_id] = found[group]
        return True

    def missing(self, shown: list[str], printed: str) -> str | None:
        """The first of the lines shown that was not printed, in this order; None when all were."""
        left = iter(printed.splitlines())
        for line in shown:
            if line.strip() and not any(self.matches(line, each) for each in left):
                return line
        return None

    def _pattern(self, shown: str) -> tuple[str, dict[str, str]]:
        pieces: list[str] = []
        names: dict[str, str] = {}
        at = 0
        while at < len(shown):
            piece, length = self._piece(shown, at, names)
            pieces.append(piece)
            at += length
        return "".join(pieces), names

    def _piece(self, shown: str, at: int, names: dict[str, str]) -> tuple[str, int]:
        if found := ID.match(shown, at):
            text_id = found[0]
            if text_id in self.bound:
                return re.escape(self.bound[text_id]), len(text_id)
            if text_id in names:
                return f"(?P={names[text_id]})", len(text_id)
            names[text_id] = f"id{len(names)}"
            return f"(?P<{names[text_id]}>{ID.pattern})", len(text_id)
        for shape, stands_for in _ANY:
            if found := shape.match(shown, at):
                return stands_for, len(found[0])
        return re.escape(shown[at]), 1
