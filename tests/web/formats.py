"""What our own string formats of the OpenAPI document are, for tools that make requests up from it."""

from __future__ import annotations

import schemathesis
from hypothesis import strategies as st

_WORD = st.text("abcdefghijklmnopqrstuvwxyz0123456789_", min_size=1, max_size=12)
_LINE = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=2, max_size=40)
_STATUSES = ("CREATED", "SUBMITTED", "WAITING", "IN_PROGRESS", "COMPLETED", "FAILED", "CANCELED", "pending")
_ID = "00000000-0000-7000-8000-000000000000"

FORMATS = {
    # One printable line.
    "line": _LINE,
    # Text of any lines that says something.
    "words": _LINE,
    "intent-type": st.builds("intent.{}.v{}".format, _WORD, st.integers(1, 99)),
    "agent-address": st.builds(
        "agent://{}/{}/{}".format, *[st.from_regex(r"[a-z0-9][a-z0-9-]{0,8}", fullmatch=True)] * 3
    ),
    "agent-path": st.builds("{}/{}/{}".format, *[st.from_regex(r"[a-z0-9][a-z0-9-]{0,8}", fullmatch=True)] * 3),
    "assignee": st.from_regex(r"[a-z][a-z0-9._-]{0,20}", fullmatch=True),
    "later": st.integers(2030, 2200).map("{}-01-01T00:00:00Z".format),
    "https-url": st.builds("https://{}.example/{}".format, st.from_regex(r"[a-z]{1,10}", fullmatch=True), _WORD),
    "event-pattern": st.one_of(st.just("*"), st.builds("{}.{}".format, _WORD, _WORD), _WORD.map("{}.*".format)),
    "event-type": st.builds("{}.{}".format, _WORD, _WORD),
    "secret": st.from_regex(r"[A-Za-z0-9]{16,64}", fullmatch=True),
    "status-list": st.lists(st.sampled_from(_STATUSES[:-1]), min_size=1, max_size=3).map(",".join),
    "cursor": st.integers(2020, 2100).map(lambda year: f"{year}-01-01T00:00:00Z~{_ID}"),
    "inbox-cursor": st.integers(0, 10**15).map(lambda at: f"{at}:{_ID}"),
    "json-schema": st.just({"type": "object"}),
}
for _name, _strategy in FORMATS.items():
    schemathesis.openapi.format(_name, _strategy)
