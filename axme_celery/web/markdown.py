"""Markdown of task authors: no HTML of theirs, no images, and links that lead to http, https and mail only."""

from __future__ import annotations

import functools
from typing import Any

from markupsafe import Markup

from .values import safe_link

#: Longer text is shown as it was written.
LONGEST = 20_000


def render(text: str) -> Markup:
    """The text as HTML that can do nothing."""
    if len(text) > LONGEST:
        return Markup("<pre>{}</pre>").format(text)
    return Markup(_renderer().render(text))


@functools.cache
def _renderer() -> Any:
    from markdown_it import MarkdownIt

    # js-default has HTML off. The reader of one heading's page may have come by its own headings: ours start lower.
    renderer = MarkdownIt("js-default", {"html": False, "linkify": False}).disable("image")
    renderer.validateLink = _is_safe  # type: ignore[method-assign]
    renderer.add_render_rule("link_open", _open_link)
    renderer.add_render_rule("heading_open", _heading)
    renderer.add_render_rule("heading_close", _heading)
    return renderer


def _is_safe(url: str) -> bool:
    return safe_link(url) is not None


def _open_link(self: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
    tokens[index].attrSet("rel", "noopener noreferrer nofollow")
    return str(self.renderToken(tokens, index, options, env))


def _heading(self: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
    tokens[index].tag = f"h{min(6, int(tokens[index].tag[1]) + 2)}"
    return str(self.renderToken(tokens, index, options, env))
