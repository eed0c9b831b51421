"""What counts as printing what a page shows, and that a page which is wrong is found."""

from __future__ import annotations

import pytest

from .pages import blocks
from .project import PageIsWrong, Project
from .shown import Ids

TEXT_ID = "0192f0c1-7a51-7c7e-9d4e-0a3f5c1d2b3e"
REAL_ID = "01a207c1-baab-712e-b576-d0a08b344c76"
OTHER_ID = "01a20823-3f68-766d-8c2e-d123b7a24d37"


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("a  b", "a b"),
        ("at 2026-10-31 18:00:00Z", "at 2026-11-23 09:34:22.031Z"),
        ("3 passed in 0.5s", "3 passed in 1.25s"),
        ("open for 2d 4h", "open for 12s"),
        ("by vm:4711", "by build-7.example.com:123456"),
        ("wait ... was answered", "wait 17 was answered"),
    ],
)
def test_what_differs_from_run_to_run_may_differ(shown, printed):
    """Blanks, moments, spans, processes, and what is left out."""
    assert Ids().matches(shown, printed)


@pytest.mark.parametrize(
    ("shown", "printed"),
    [("3 passed", "2 passed"), ("COMPLETED", "FAILED"), ("a", "a b"), ("(30, True)", "(30, False)")],
)
def test_what_is_said_must_be_said(shown, printed):
    """Numbers and words are what a page is about."""
    assert not Ids().matches(shown, printed)


def test_an_id_stands_for_one_id():
    """The page's id is settled where it is first shown, and means that one from there on."""
    ids = Ids()

    assert ids.matches(f"intent {TEXT_ID}", f"intent {REAL_ID}")

    assert ids.matches(TEXT_ID, REAL_ID)
    assert not ids.matches(TEXT_ID, OTHER_ID)
    assert ids.translate(f"approve {TEXT_ID}") == f"approve {REAL_ID}"


def test_lines_are_looked_for_in_order():
    """A page may leave lines out, and may not shuffle them."""
    assert Ids().missing(["a", "c"], "a\nb\nc\n") is None
    assert Ids().missing(["c", "a"], "a\nb\nc\n") == "a"


@pytest.mark.parametrize(
    "text",
    [
        "```python\nassert 1 == 2\n```\n",
        "```pycon\n>>> 1 + 1\n3\n```\n",
        "```pycon\n>>> [][0]\n```\n",
        "```console\n$ false\n```\n",
        "```console\n$ echo one\ntwo\n```\n",
        "```console\n$ echo one\nError: one\n```\n",
        "```python\n# shop.py\na = 1\n```\n```pycon\n>>> import shop\n>>> shop.a\n2\n```\n",
        "```console\n$ celery -A nowhere worker\n```\n",
    ],
)
def test_a_page_that_is_wrong_is_found(text, tmp_path):
    """The control: without it, pages that run nothing would pass."""
    project = Project(tmp_path, {})
    try:
        with pytest.raises(PageIsWrong, match=r"page\.md:"):
            project.carry_out(blocks("page.md", text))
    finally:
        project.close()


def test_a_page_that_is_right_passes(tmp_path):
    """Files first, then what is typed and called, in order, in one session."""
    text = (
        "```pycon\n>>> import shop\n>>> shop.a + b\nTraceback (most recent call last):\n"
        "NameError: name 'b' is not defined\n```\n"
        "```python\nb = 2\n```\n```pycon\n>>> shop.a + b\n3\n```\n"
        "```python\n# shop.py\na = 1\n```\n"
        "```console\n$ cat shop.py\na = 1\n$ ls nothing\nError ...\n```\n"
    ).replace("$ ls nothing", "$ echo Error no; false")
    project = Project(tmp_path, {})
    try:
        project.carry_out(blocks("page.md", text))
    finally:
        project.close()
