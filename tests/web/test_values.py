"""Values as they may be shown: without secrets, without types, and as people read them."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from axme_celery import codec
from axme_celery.config import Settings
from axme_celery.web import markdown, values

PATTERNS = Settings().redact


def test_secrets_are_hidden_wherever_they_are():
    """By the names of their fields, in any case, however deep."""
    shown = values.redacted(
        {"user": "ana", "Password": "p", "db": [{"API_KEY": {"deep": 1}, "x": ({"authToken": 2},)}], "tokens_used": 3},
        PATTERNS,
    )

    assert shown == {
        "user": "ana", "Password": values.HIDDEN, "db": [{"API_KEY": values.HIDDEN, "x": [{"authToken": values.HIDDEN}]}],
        "tokens_used": values.HIDDEN,
    }  # fmt: skip


def test_stored_types_are_read_as_plain_json():
    """What a worker may make of stored data, the pages must not."""
    value = {"at": datetime(2026, 10, 1, tzinfo=UTC), "sum": Decimal("1.50")}
    text = codec.encode(value, what="x", limit_bytes=1000, setting="x")

    shown = values.plain(text)

    assert shown["sum"] == "1.50" and str(shown["at"]).startswith("2026-10-01")
    assert values.plain("no json") == "no json" and values.plain(None) is None


def test_nesting_without_end_is_cut():
    """Not a crash."""
    value: list = []
    for _ in range(500):
        value = [value]

    assert "…" in values.pretty(values.redacted(value, PATTERNS))


@pytest.mark.parametrize(
    ("target", "good"),
    [("https://x.example/a?b=1", True), ("http://x", True), ("mailto:a@x.example", True), ("javascript:alert(1)", False),
     ("JaVaScRiPt:alert(1)", False), ("data:text/html,x", False), ("//x.example", False), ("/path", False), ("", False),
     ("https://x\n.example", False), ("vbscript:x", False), (None, False), (5, False), ("http://[", False)],
)  # fmt: skip
def test_links_lead_to_the_web_and_mail_only(target, good):
    """And nowhere else."""
    assert (values.safe_link(target) is not None) is good


def test_rows_are_what_people_read():
    """One for each field; long ones are folded."""
    given = {
        "yes": True, "none": None, "empty": [], "list": ["a", 1], "deep": {"a": 1}, "url": "https://x.example",
        "long": "x" * 999,
    }  # fmt: skip
    rows = {row.name: row for row in values.rows(given)}

    assert [(rows[n].text, rows[n].kind) for n in ("yes", "none", "empty", "list", "url")] == [
        ("yes", "text"), ("none", "none"), ("none", "none"), ("a, 1", "text"), ("https://x.example", "link"),
    ]  # fmt: skip
    assert rows["deep"].kind == "code" and rows["long"].is_long and not rows["list"].is_long


def test_a_difference_is_what_changed():
    """Of texts, and of whatever else there is before and after."""
    assert ("+", "+b") in values.difference("a\n", "b\n") and ("-", "-a") in values.difference("a\n", "b\n")
    assert ("+", '+  "x": 2') in values.difference({"x": 1}, {"x": 2})
    assert values.difference("same", "same") == []


def test_markdown_has_no_html_no_images_and_no_strange_links():
    """Headings begin below the page's own."""
    html = markdown.render("# One\n\n<b>x</b> ![i](https://x.example/i.png) [a](javascript:x) [b](https://x.example)")

    assert "<h3>One</h3>" in html and "<b>" not in html and "<img" not in html and "javascript:x" in html
    assert 'href="javascript' not in html and 'rel="noopener noreferrer nofollow"' in html
    assert markdown.render("<" * 30_000).startswith("<pre>&lt;")
