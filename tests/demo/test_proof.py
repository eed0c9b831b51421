"""The proof holds for the story as it should be, and for no other."""

from __future__ import annotations

from dataclasses import replace

import pytest

from axme_celery.demo.proof import Seen, claims, who_wrote_what
from axme_celery.demo.witness import Line

KILLED, OTHER = 100, 200


def line(what, page, run, pid) -> Line:
    return Line(what=what, page=page, run=run, pid=pid, at=page + (0.5 if what == "wrote" else 0.0))


def story() -> Seen:
    """Pages 1-46 by the first worker, killed in 47, the rest by the second."""
    lines = [line(what, page, 2, KILLED) for page in range(1, 47) for what in ("started", "wrote")]
    lines.append(line("started", 47, 2, KILLED))
    lines += [line(what, page, 3, OTHER) for page in range(47, 51) for what in ("started", "wrote")]
    return Seen(
        pages=50,
        kill_page=47,
        killed_pid=KILLED,
        exit_code=-9,
        lines=lines,
        recorded={page: 2 if page < 47 else 3 for page in range(1, 51)},
        exported="1\n2\n",
        asked_for="1\n2\n",
        warehouse_runs=1,
        published="1\n2\n",
    )


def broken(seen: Seen) -> list[str]:
    return [claim.says for claim in claims(seen) if not claim.holds]


def test_the_story_as_it_should_be_holds():
    """With a yes, and with a no at sign-off."""
    assert broken(story()) == []
    assert broken(replace(story(), published=None)) == []


WITHOUT_50 = [seen for seen in story().lines if seen.page != 50]
KILL_LINE = line("started", 47, 2, KILLED)


@pytest.mark.parametrize(
    ("history", "words"),
    [
        (replace(story(), lines=[*story().lines, line("wrote", 12, 3, OTHER)]), "each exactly once"),
        (replace(story(), lines=WITHOUT_50), "each exactly once"),
        (replace(story(), lines=[*story().lines, line("wrote", 51, 3, OTHER)]), "each exactly once"),
        (replace(story(), lines=[*story().lines, line("started", 12, 3, OTHER)]), "begun again"),
        (replace(story(), lines=[*story().lines, line("started", 47, 4, OTHER)]), "begun again"),
        (replace(story(), lines=[seen for seen in story().lines if seen != KILL_LINE]), "ended by SIGKILL"),
        (replace(story(), exit_code=0), "ended by SIGKILL"),
        (replace(story(), exit_code=-15), "ended by SIGKILL"),
        (replace(story(), lines=[replace(seen, pid=KILLED) for seen in story().lines]), "another process"),
        (replace(story(), recorded={**story().recorded, 47: 2}), "checkpoints"),
        (replace(story(), recorded={}), "checkpoints"),
        (replace(story(), exported="1\n1\n2\n"), "row for row"),
        (replace(story(), exported="", asked_for="", published=""), "row for row"),
        (replace(story(), warehouse_runs=2), "ran its job once"),
        (replace(story(), published="1\n"), "published file"),
        (replace(story(), lines=[]), "each exactly once"),
    ],
)
def test_any_other_history_is_found_out(history, words):
    """And the claim that fails is the one concerned."""
    assert any(words in says for says in broken(history))


def test_the_table_says_which_run_wrote_which_pages():
    """One line a stretch."""
    assert who_wrote_what(story().lines) == [(1, 46, 2, KILLED), (47, 50, 3, OTHER)]
