"""The voice of the demo: plain short lines, each with the seconds since it began."""

from __future__ import annotations

import time
from typing import TextIO


class Narrator:
    """Writes lines to a stream, a word for what happened and a sentence about it."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._began = time.monotonic()

    def tell(self, what: str, sentence: str) -> None:
        """One thing that happened now."""
        first, *more = sentence.splitlines() or [""]
        self._write(f"{time.monotonic() - self._began:6.1f} s  {what:<10} {first}")
        for line in more:
            self._write(f"{'':21}{line}")

    def heading(self, words: str) -> None:
        """The start of a part that has no time of its own."""
        self._write(f"\n{words}\n")

    def plain(self, text: str) -> None:
        """Text as it is, indented a little."""
        for line in text.splitlines():
            self._write(f"  {line}".rstrip())

    def ask(self, question: str) -> None:
        """A question; the answer is typed behind it."""
        self._out.write(f"{'':21}{question} ")
        self._out.flush()

    def _write(self, line: str) -> None:
        # Flushed line by line: a reader at the other end of a pipe watches, too.
        self._out.write(line + "\n")
        self._out.flush()
