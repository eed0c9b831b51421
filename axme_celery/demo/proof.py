"""The proof: what must hold after the kill, checked against the witness, the files and the ledger.

Pure: it is handed what was seen and says what of it holds. A proof that a bad
history would pass proves nothing, so its tests feed it such histories.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from .witness import Line


@dataclass(frozen=True, kw_only=True)
class Seen:
    """All that was seen of one run of the demo."""

    pages: int
    #: The page in the middle of which the worker was killed.
    kill_page: int
    #: The process that was running it then.
    killed_pid: int
    #: How the killed worker ended: minus the signal's number.
    exit_code: int | None
    lines: Sequence[Line]
    #: Page -> the run that the ledger recorded it under.
    recorded: Mapping[int, int]
    #: The page files, joined.
    exported: str
    #: The same rows as the warehouse has them, as CSV.
    asked_for: str
    #: How often the warehouse ran the job.
    warehouse_runs: int
    #: The published file without its header; None when the sign-off was a no.
    published: str | None


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One sentence, and whether it is true."""

    says: str
    holds: bool
    #: What was seen instead.
    but: str = ""


def claims(seen: Seen) -> list[Claim]:
    """Everything the demo claims, each judged on its own."""
    expected = list(range(1, seen.pages + 1))
    started = Counter(line.page for line in seen.lines if line.what == "started")
    wrote = Counter(line.page for line in seen.lines if line.what == "wrote")
    again = sorted(page for page, times in started.items() if times > 1)
    not_once = sorted(page for page in {*expected, *wrote} if wrote[page] != 1 or page not in expected)
    who_wrote = {line.page: line for line in seen.lines if line.what == "wrote"}
    of_the_killed = [line for line in seen.lines if line.pid == seen.killed_pid]
    disagree = sorted(
        page for page in expected if page not in who_wrote or seen.recorded.get(page) != who_wrote[page].run
    )
    found = [
        Claim(
            says=f"the worker was ended by SIGKILL in the middle of page {seen.kill_page}",
            holds=seen.exit_code == -9
            and bool(of_the_killed)
            and (of_the_killed[-1].what, of_the_killed[-1].page) == ("started", seen.kill_page),
            but=f"exit code {seen.exit_code}, last seen of it: {of_the_killed[-1:]}",
        ),
        Claim(
            says=f"{seen.pages} pages were written, each exactly once",
            holds=not not_once,
            but=f"not once: {not_once}",
        ),
        Claim(
            says=f"begun again: page {seen.kill_page} alone, which the kill interrupted before it was recorded",
            holds=again == [seen.kill_page] and started[seen.kill_page] == 2 and sorted(started) == expected,
            but=f"begun more than once: {again}; begun at all: {len(started)}",
        ),
        Claim(
            says=f"another process went on from page {seen.kill_page}",
            holds=all(
                page in who_wrote and (who_wrote[page].pid == seen.killed_pid) == (page < seen.kill_page)
                for page in expected
            ),
            but=f"written by: { {page: line.pid for page, line in who_wrote.items()} }",
        ),
        Claim(
            says="the ledger's checkpoints name the run that the witness saw, page by page",
            holds=not disagree,
            but=f"they disagree on pages {disagree}",
        ),
        Claim(
            says="the pages together are the warehouse's result, row for row",
            holds=bool(seen.exported) and seen.exported == seen.asked_for,
            but=f"{len(seen.exported)} characters exported, {len(seen.asked_for)} asked for",
        ),
        Claim(
            says="the warehouse ran its job once",
            holds=seen.warehouse_runs == 1,
            but=f"it ran {seen.warehouse_runs} times",
        ),
    ]
    if seen.published is not None:
        found.append(
            Claim(
                says="the published file is those pages, nothing twice, nothing missing",
                holds=seen.published == seen.exported,
                but=f"{len(seen.published)} characters published, {len(seen.exported)} exported",
            )
        )
    return found


def who_wrote_what(lines: Sequence[Line]) -> list[tuple[int, int, int, int]]:
    """(first page, last page, run, process) for each stretch of pages that one run wrote."""
    written = sorted((line for line in lines if line.what == "wrote"), key=lambda line: (line.page, line.at))
    stretches = []
    for (run, pid), group in groupby(written, key=lambda line: (line.run, line.pid)):
        pages = [line.page for line in group]
        stretches.append((pages[0], pages[-1], run, pid))
    return stretches
