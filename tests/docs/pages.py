"""What is written: README.md and the pages of docs/, cut into prose and fenced blocks.

The word after a fence says what a block is, and the tests hold it to that:

    python   runs. Blocks whose first line is ``# shop.py`` are that file, together, and it is there before anything
             runs; ``# shop.py, changed`` takes its place when the page comes to it. Any other block is typed into
             one Python session that lasts for the page.
    pycon    runs in that session, and must print what it shows.
    console  runs: each line after ``$ `` in a shell, and must print what it shows. Servers among them
             (``celery ... worker``, ``beat``, ``axme-celery ... web``) run until the page ends.
    json, yaml, toml   is read.
    text, diff, ini, lua, sql, mermaid   is only looked at: output and illustration.

A block may stand in a comment, ``<!-- python ... -->``: it runs like the others and readers do not see it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

RUN = frozenset({"python", "pycon", "console"})
READ = frozenset({"json", "yaml", "toml"})
SHOWN = frozenset({"text", "diff", "ini", "lua", "sql", "mermaid"})

_FENCE = re.compile(r"^(?P<indent> *)```(?P<kind>.*)$")
_HIDDEN = re.compile(r"^<!-- (?P<kind>python|pycon|console)$")
_FILE = re.compile(r"# (?P<name>[\w/]+\.py)(?P<changed>, changed)?$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One block of a page."""

    page: str
    #: Of its first line, from 1.
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def file(self) -> str | None:
        """The file a python block belongs to; None for one that is typed in."""
        found = _FILE.match(self.text) if self.kind == "python" else None
        return found["name"] if found else None

    @property
    def changes_its_file(self) -> bool:
        """Whether the block takes the place of what the file was."""
        found = _FILE.match(self.text)
        return bool(found and found["changed"])


def pages() -> list[str]:
    """Every page, as a path from the root. The page of benchmarks is written by the benchmarks."""
    folders = [*ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/*.md")]
    found = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in folders)]
    return [page for page in found if page != "docs/benchmarks.md"]


def text_of(page: str) -> str:
    return (ROOT / page).read_text()


def blocks(page: str, text: str | None = None) -> Iterator[Block]:
    """The page's blocks in order, hidden ones too. Raises ValueError for one that does not end."""
    lines = iter(enumerate((text_of(page) if text is None else text).splitlines(), 1))
    for number, line in lines:
        fence, hidden = _FENCE.match(line), _HIDDEN.match(line)
        if fence is None and hidden is None:
            continue
        indent, end = (fence["indent"], "```") if fence is not None else ("", "-->")
        kind = (fence or hidden)["kind"].strip()  # type: ignore[index]
        inside: list[str] = []
        for _, each in lines:
            if each.strip() == end:
                break
            inside.append(each.removeprefix(indent))
        else:
            raise ValueError(f"{page}:{number}: this block does not end")
        yield Block(page, number + 1, kind, "\n".join(inside) + "\n")


def prose(page: str) -> str:
    """The page without its blocks."""
    kept, within = [], False
    for line in text_of(page).splitlines():
        if _FENCE.match(line):
            within = not within
        elif not within:
            kept.append(line)
    return re.sub(r"<!--.*?-->", "", "\n".join(kept), flags=re.DOTALL)
