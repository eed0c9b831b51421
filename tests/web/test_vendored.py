"""What others wrote and we ship: unchanged, licensed, and all there is; and pages that need nothing else."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WEB = ROOT / "axme_celery" / "web"
FOLDERS = [WEB / "static" / "vendor", ROOT / "tests" / "browser" / "axe-core"]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_file_is_what_its_package_had(folder):
    """By its checksum; none is missing, and none has been added beside them."""
    listed = dict(reversed(line.split("  ")) for line in (folder / "SHA256SUMS").read_text().splitlines())

    assert {path.name for path in folder.iterdir()} == {*listed, "SHA256SUMS"}
    for name, checksum in listed.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == checksum, name


def test_each_has_its_licence_beside_it():
    """And a name that says which version it is."""
    names = {path.name for path in FOLDERS[0].iterdir()}

    for library in ("htmx", "pico", "uplot"):
        assert f"{library}.LICENSE" in names
        assert any(re.fullmatch(rf"{library}-\d+\.\d+\.\d+\.min\.(js|css)", name) for name in names)


@pytest.mark.parametrize("template", sorted((WEB / "templates").rglob("*.html")), ids=lambda path: path.name)
def test_templates_have_no_inline_script_or_style_and_load_nothing_from_elsewhere(template):
    """Which the policy would forbid anyway."""
    text = template.read_text("utf-8")

    assert re.findall(r"<script(?![^>]*\bsrc=)", text) == []
    assert re.findall(r"<style|\bstyle=|\son[a-z]+=\"|hx-on|javascript:", text) == []
    assert re.findall(r"(?:src|href)=\"(?:https?:)?//", text) == []
    assert "|safe" not in text and "| safe" not in text and "autoescape" not in text


def test_our_own_scripts_make_no_markup_of_text():
    """No innerHTML, no eval: what comes from users stays text."""
    for script in (WEB / "static").glob("*.js"):
        text = script.read_text("utf-8")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", text), (
            script
        )
