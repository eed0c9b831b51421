"""Parts of pages that are written from the code, between two marks:

    <!-- written by tests.docs.draw_lifecycle: moves -->
    ...
    <!-- end -->

What is between them is replaced; a test fails where it is not what would be written now.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from .pages import ROOT

#: part -> its text, as Markdown.
Parts = Mapping[str, Callable[[], str]]

_PART = re.compile(
    r"(?P<begin><!-- written by (?P<writer>[\w.]+): (?P<part>[\w./ -]+) -->\n).*?(?P<end><!-- end -->)", re.DOTALL
)


def rewritten(text: str, writer: str, parts: Parts) -> str:
    """The page with this writer's parts written anew. Raises KeyError for a part it does not know."""

    def write(found: re.Match[str]) -> str:
        if found["writer"] != writer:
            return found[0]
        return f"{found['begin']}\n{parts[found['part']]().strip()}\n\n{found['end']}"

    return _PART.sub(write, text)


def parts_in(text: str, writer: str) -> list[str]:
    """The parts of this writer that the page has."""
    return [found["part"] for found in _PART.finditer(text) if found["writer"] == writer]


def write(writer: str, pages: Mapping[str, Parts]) -> None:
    """Write every part into its page."""
    for page, parts in pages.items():
        path = Path(ROOT, page)
        before = path.read_text()
        missing = set(parts) - set(parts_in(before, writer))
        if missing:
            sys.exit(f"{page} has no place for {', '.join(sorted(missing))}; put the marks there")
        after = rewritten(before, writer, parts)
        if after != before:
            path.write_text(after)
        print(f"{page}: {'written' if after != before else 'is as it should be'}")
