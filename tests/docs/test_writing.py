"""What the pages say of the code, held to the code: links, names, options, settings, words."""

from __future__ import annotations

import inspect
import json
import re
import tomllib
from pathlib import Path

import click
import pytest
import yaml

import axme_celery
from axme_celery import errors
from axme_celery.cli import exit_code
from axme_celery.config import Settings
from axme_celery.signals import LegTask

from . import draw_lifecycle, write_reference
from .generated import parts_in, rewritten
from .pages import READ, ROOT, RUN, SHOWN, Block, blocks, pages, prose, text_of

ALL = [block for page in pages() for block in blocks(page)]
TOUR = "docs/tour.md"


# -- blocks -----------------------------------------------------------------------


@pytest.mark.parametrize("page", pages())
def test_every_block_says_whether_it_runs(page):
    """A block without a known word after its fence is neither run nor excused."""
    assert [f"{block} {block.kind!r}" for block in blocks(page) if block.kind not in RUN | READ | SHOWN] == []


@pytest.mark.parametrize("block", [block for block in ALL if block.kind in READ], ids=str)
def test_what_is_data_can_be_read(block):
    """JSON, YAML and TOML on a page are whole."""
    {"json": json.loads, "yaml": yaml.safe_load, "toml": tomllib.loads}[block.kind](block.text)


def test_a_page_is_cut_into_its_blocks():
    """The control: fences within lists, hidden blocks, files."""
    text = (
        "a\n\n- in a list:\n\n  ```console\n  $ ls\n  x\n  ```\n\n"
        "<!-- python\n# shop.py, changed\na = 1\n-->\n\n```\nno word\n```\n"
    )

    console, hidden, bare = blocks("page.md", text)

    assert console == Block("page.md", 6, "console", "$ ls\nx\n")
    assert (hidden.kind, hidden.file, hidden.changes_its_file) == ("python", "shop.py", True)
    assert bare.kind == ""


# -- links and words ----------------------------------------------------------------


def anchors(page: str) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs make them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", pages())
def test_every_link_leads_somewhere(page):
    """To a file of this repository, and to a heading that is there."""
    broken = []
    for target in re.findall(r"\]\(([^)]+)\)", prose(page)):
        if re.match(r"https?://|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (ROOT / page).parent / path if path else ROOT / page
        if not found.exists() or (anchor and anchor not in anchors(str(found.resolve().relative_to(ROOT)))):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", pages())
def test_the_words_are_ours(page):
    """No promise that nobody can keep, one spelling, no word that is Celery's for something of ours."""
    # AXP's own name of a key in JSON is its to choose.
    text = text_of(page).replace('"workflow"', "")
    for wrong in (r"exactly[- ]once", r"cancelled", r"\bTODO\b", r"/work/", r"\bworkflow\b"):
        assert not re.search(wrong, text, re.IGNORECASE), f"{page} says {wrong!r}"


def test_every_page_of_the_documentation_is_in_its_index():
    """Nobody finds a page that nothing links to."""
    linked = set(re.findall(r"\]\(([\w/-]+\.md)", text_of("docs/index.md")))
    theirs = {page.removeprefix("docs/") for page in pages() if page.startswith("docs/")} - {"index.md"}
    assert linked == theirs


def test_the_readme_shows_the_thing_by_line_20():
    """Whoever opens it sees a task that waits before anything else is said."""
    first = text_of("README.md").splitlines()[:20]
    assert any("@axme.task" in line for line in first)
    assert any("@step" in line for line in first)


# -- what is written from the code -----------------------------------------------------

GENERATED = [
    *((page, write_reference.WRITER, parts) for page, parts in write_reference.PAGES.items()),
    (draw_lifecycle.PAGE, draw_lifecycle.WRITER, draw_lifecycle.PARTS),
]


@pytest.mark.parametrize(("page", "writer", "parts"), GENERATED, ids=[page for page, _, _ in GENERATED])
def test_what_is_written_from_the_code_is_current(page, writer, parts):
    """Settings, docstrings, options and the lifecycle's tables, as they are now."""
    text = text_of(page)

    assert set(parts_in(text, writer)) == set(parts), "each part once, and none that is gone"
    assert rewritten(text, writer, parts) == text, f"{page} is stale: run python -m {writer}, or make docs"


def test_a_page_that_is_stale_is_found():
    """The control."""
    page = "<!-- written by w: part -->\n\nold\n\n<!-- end -->\n<!-- written by other: part -->\nkept\n<!-- end -->\n"

    new = rewritten(page, "w", {"part": lambda: "new"})

    assert "old" not in new
    assert "\n\nnew\n\n" in new
    assert "kept" in new


# -- settings ----------------------------------------------------------------------------


def test_every_setting_is_on_the_reference_page():
    """By its whole key."""
    text = text_of(write_reference.REFERENCE)
    assert [key for key, _, _ in Settings.documented() if f"| `{key}` |" not in text] == []


@pytest.mark.parametrize("page", pages())
def test_every_setting_a_page_names_exists(page):
    """Also in prose: a key that was renamed must not live on."""
    known = {key for key, _, _ in Settings.documented()}
    named = set(re.findall(r"\baxme_[a-z_]*[a-z]\b", text_of(page)))
    # Not settings: the package, the fixtures, the prefix of tables, options of a task.
    options = {name for name in vars(LegTask) if name.startswith("axme_")}
    # And the names of metrics.
    metrics = set(re.findall(r'(?:one|many)\(\s*"(\w+)"', (ROOT / "axme_celery/web/metrics.py").read_text()))
    options |= {f"axme_{name}" for name in metrics}
    assert named - known - options - {"axme_celery", "axme_stage", "axme_app", "axme_demo"} == set()


# -- errors --------------------------------------------------------------------------------


def test_every_error_is_on_its_page_with_what_to_do():
    """Each class somebody may meet is named there."""
    text = text_of("docs/errors.md")
    classes = [
        name for name, value in vars(errors).items() if inspect.isclass(value) and value.__module__ == errors.__name__
    ]
    assert [name for name in classes if f"`{name}`" not in text] == []


def test_the_exit_codes_are_those_of_the_page():
    """What a script relies on."""
    rows = dict(re.findall(r"^\| (\d) \| (.*) \|$", text_of(write_reference.COMMANDS), re.MULTILINE))
    said = {
        "3": exit_code(errors.NotFound("intent", "x")),
        "4": exit_code(errors.LedgerUnavailable("away")),
        "5": exit_code(errors.WaitClosed("w", "ANSWERED", None, None)),
        "1": exit_code(errors.BadInput("no")),
    }
    assert {code: str(number) for code, number in said.items()} == {code: code for code in said}
    assert set(rows) == {"0", "1", "2", "3", "4", "5"}


# -- the command line ---------------------------------------------------------------------------


@pytest.mark.parametrize("verb", write_reference.verbs())
def test_every_verb_and_each_of_its_options_is_on_the_page(verb):
    """``axme-celery VERB --help`` and the page say the same."""
    text = text_of(write_reference.COMMANDS)
    section = re.search(rf"^### {re.escape(verb)}$(.*?)(?=^### |\Z)", text, re.MULTILINE | re.DOTALL)
    assert section is not None, f"no section for {verb}"
    for option in write_reference.command_of(verb).params:
        if isinstance(option, click.Option) and not option.hidden:
            for name in (*option.opts, *option.secondary_opts):
                assert name in section[1], f"{verb} {name}"


def test_the_verbs_of_the_readme_are_those_there_are():
    """No verb that is planned, and none forgotten."""
    from axme_celery.cli import VERBS

    section = text_of("README.md").partition("## On the command line")[2].partition("\n## ")[0]
    named = set(re.findall(r"`([a-z-]+)`", section))
    assert set(VERBS) == named - {"axme-celery", "celery"}


# -- the tour ---------------------------------------------------------------------------------------


def test_every_file_and_function_of_the_tour_is_there():
    """Names in bold are files of the package, and the functions after them are in them."""
    text = prose(TOUR)
    tokens = re.findall(r"\*\*`([\w/]+\.(?:py|lua))`\*\*|`(\w+)\(\)`", text)
    package = ROOT / "axme_celery"
    assert len(tokens) > 40
    functions = {path: set(re.findall(r"def (\w+)", path.read_text())) for path in package.rglob("*.py")}
    missing = [file for file, _ in tokens if file and not (package / file).exists()]
    missing += [name for _, name in tokens if name and not any(name in found for found in functions.values())]
    assert missing == []


def test_a_function_is_in_the_file_it_is_named_with():
    """**`x.py`** `f()`: f is defined in x.py."""
    pairs = re.findall(r"\*\*`([\w/]+\.py)`\*\*\s+`(\w+)\(\)`", prose(TOUR))
    assert len(pairs) > 12
    wrong = [
        (file, name)
        for file, name in pairs
        if not re.search(rf"def {name}\b", Path(ROOT / "axme_celery" / file).read_text())
    ]
    assert wrong == []


# -- the public names -----------------------------------------------------------------------------------


def test_every_public_name_is_described():
    """In the reference, or among the errors."""
    text = text_of(write_reference.REFERENCE) + text_of("docs/errors.md")
    assert [name for name in axme_celery.__all__ if not re.search(rf"`{name}\b", text)] == []
