"""What every template has at hand: moments, durations, statuses, values without their secrets."""

from __future__ import annotations

import functools
import hashlib
from datetime import datetime
from pathlib import Path
from typing import Any

from flask import render_template, request, url_for
from flask_wtf.csrf import generate_csrf
from markupsafe import Markup

from ...durations import words
from ...who import Actor, Role
from ..house import current_actor, house

_STATIC = Path(__file__).parents[1] / "static"


def page(template: str, **values: Any) -> str:
    """Render a template with everything it may use."""
    here = house()
    return render_template(
        f"axme/{template}",
        asset=asset,
        moment=moment,
        span=words,
        csrf=csrf,
        actor=current_actor() if values.get("status", 0) < 500 else None,
        Role=Role,
        pages_for=pages_for,
        now=here.rt.ledger.now() if values.get("status", 0) < 500 else None,
        path=request.path,
        **values,
    )


def pages_for(actor: Actor) -> list[tuple[str, str]]:
    """What is in the bar, for them: (endpoint, name)."""
    return []


def asset(name: str) -> str:
    """The address of a file of ours, with the hash of what is in it."""
    return url_for("axme.static", filename=name, v=_hash_of(name))


@functools.cache
def _hash_of(name: str) -> str:
    return hashlib.sha256((_STATIC / name).read_bytes()).hexdigest()[:12]


def csrf() -> Markup:
    """The hidden field that every form has."""
    return Markup('<input type="hidden" name="csrf_token" value="{}">').format(generate_csrf())


def moment(at: datetime | None, now: datetime | None, *, shown: str = "ago") -> Markup:
    """A moment as people read it: how far off, and exactly in the title. A script puts it in the reader's own zone.

    shown:  "ago" how far off, "at" the time itself, "both".
    """
    if at is None:
        return Markup("")
    exact = f"{at:%Y-%m-%d %H:%M:%S} UTC"
    far = exact if now is None else distance(at, now)
    if shown == "both":
        return Markup('<time datetime="{0}" title="{1}" data-shown="ago">{2}</time> '
                      '<time datetime="{0}" title="{1}" data-shown="at" class="quiet">{1}</time>').format(
            at.isoformat(), exact, far)  # fmt: skip
    return Markup('<time datetime="{}" title="{}" data-shown="{}">{}</time>').format(
        at.isoformat(), exact, shown, far if shown == "ago" else exact
    )


def distance(at: datetime, now: datetime) -> str:
    """How far off: "in 2d 3h", "5m ago", "just now"."""
    seconds = (at - now).total_seconds()
    if abs(seconds) < 1:
        return "just now"
    return f"in {words(seconds)}" if seconds > 0 else f"{words(-seconds)} ago"


__all__ = ["asset", "distance", "moment", "page"]
