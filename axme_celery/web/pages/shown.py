"""What every template has at hand: moments, durations, statuses, values without their secrets."""

from __future__ import annotations

import functools
import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from flask import render_template, request, url_for
from flask_wtf.csrf import generate_csrf
from markupsafe import Markup

from ...durations import words
from ...who import Actor, Role
from .. import values
from ..house import current_actor, house
from ..markdown import render as markdown

_STATIC = Path(__file__).parents[1] / "static"

#: What is in the bar, for whom.
PAGES = (
    ("inbox", "Inbox", Role.VIEWER),
    ("intents", "Intents", Role.VIEWER),
    ("dead_letters", "Dead letters", Role.VIEWER),
    ("deliveries", "Deliveries", Role.VIEWER),
    ("overview", "Health", Role.VIEWER),
)

#: A status's colour and mark; the word itself is always there too.
_TONES = {
    "COMPLETED": ("good", "✓"), "DONE": ("good", "✓"), "ANSWERED": ("good", "✓"), "REPLAYED": ("good", "↻"),
    "FAILED": ("bad", "✕"), "TIMED_OUT": ("bad", "⏱"), "EXPIRED": ("bad", "⏱"),
    "DELIVERED": ("good", "✓"), "PENDING": ("wait", "◔"), "DEAD": ("bad", "✕"),
    "CANCELED": ("gone", "–"), "DISCARDED": ("gone", "–"),
    "WAITING": ("wait", "◔"), "PARKED": ("bad", "‖"), "OPEN": ("wait", "◔"),
    "IN_PROGRESS": ("busy", "▸"), "RUNNING": ("busy", "▸"), "ACKNOWLEDGED": ("busy", "▸"),
}  # fmt: skip


def page(template: str, **given: Any) -> str:
    """Render a template with everything it may use."""
    # What broke must be sayable while the ledger is away.
    well = given.get("status", 0) < 500
    here = house()
    given.setdefault("actor", current_actor() if well else None)
    return render_template(
        f"axme/{template}",
        now=here.rt.ledger.now() if well else None,
        address_with=address_with,
        asset=asset,
        badge=badge,
        csrf=csrf,
        markdown=markdown,
        moment=moment,
        moment_of=lambda epoch: moment(datetime.fromtimestamp(epoch, UTC), how="at"),
        pages=PAGES,
        has_accounts=here.oidc is not None,
        path=request.path,
        pretty=values.pretty,
        Role=Role,
        rows=values.rows,
        safe_link=values.safe_link,
        span=words,
        in_words=in_words,
        **given,
    )


def shown(text: str | None) -> Any:
    """A stored value as it may be seen."""
    return values.redacted(values.plain(text), house().axme.settings.redact)


def visible(value: Any) -> Any:
    """A value of ours (a context, an event's details) as it may be seen."""
    return values.redacted(value, house().axme.settings.redact)


def asset(name: str) -> str:
    """The address of a file of ours, with the hash of what is in it."""
    return url_for("axme.static", filename=name, v=_hash_of(name))


@functools.cache
def _hash_of(name: str) -> str:
    return hashlib.sha256((_STATIC / name).read_bytes()).hexdigest()[:12]


def csrf() -> Markup:
    """The hidden field that every form has."""
    return Markup('<input type="hidden" name="csrf_token" value="{}">').format(generate_csrf())


def badge(status: str, reason: str | None = None) -> Markup:
    """A status as word, colour and mark."""
    tone, mark = _TONES.get(str(status), ("gone", "·"))
    word = str(status).replace("_", " ").capitalize()
    if reason:
        word += f" for {reason.removeprefix('WAITING_FOR_').lower()}"
    return Markup('<span class="badge {}"><span aria-hidden="true">{}</span> {}</span>').format(tone, mark, word)


def moment(at: datetime | None, now: datetime | None = None, how: str = "ago") -> Markup:
    """A moment as people read it; a script puts it in the reader's own zone.

    how:  "ago" how far off it is, "at" the time itself, "both".
    """
    if at is None:
        return Markup('<span class="quiet">–</span>')
    exact = f"{at:%Y-%m-%d %H:%M:%S} UTC"
    far = exact if now is None else distance(at, now)
    tag = Markup('<time datetime="{}" title="{}" data-shown="{}">{}</time>')
    if how == "both":
        return tag.format(at.isoformat(), exact, "ago", far) + Markup(' <span class="quiet">(') + tag.format(
            at.isoformat(), exact, "at", exact
        ) + Markup(")</span>")  # fmt: skip
    return tag.format(at.isoformat(), exact, how, far if how == "ago" else exact)


def distance(at: datetime, now: datetime) -> str:
    """How far off: "in 2d 3h", "5m ago", "just now"."""
    seconds = (at - now).total_seconds()
    if abs(seconds) < 1:
        return "just now"
    return f"in {words(seconds)}" if seconds > 0 else f"{words(-seconds)} ago"


def in_words(event_type: str) -> str:
    """An event's type in words: "intent.human_task_assigned" is "human task assigned"."""
    return event_type.removeprefix("intent.").replace("_", " ")


def address_with(**changes: Any) -> str:
    """This page's address with these of its filters changed; None takes one out."""
    kept = {name: value for name, value in request.args.items() if name != "part"}
    kept |= {name: str(value) for name, value in changes.items()}
    told = urlencode({name: value for name, value in kept.items() if value not in ("", "None")})
    return f"{request.script_root}{request.path}" + (f"?{told}" if told else "")


def part_wanted() -> str:
    """The part of itself that a page asks for anew; "" for the whole."""
    part = request.args.get("part", "")
    return part if part in ("top", "live") else ""


def reason_given() -> str:
    """The reason in a form. Raises BadInput without one: every action of an operator is explained in the history."""
    from ...errors import BadInput
    from ...texts import text

    reason = text(request.form.get("reason", "").strip(), "reason", longest=1000)
    if not reason:
        raise BadInput("Say why: the reason is kept in the history, for whoever reads it later.")
    return reason


def may(actor: Actor | None, role: Role) -> bool:
    """Whether they have this role."""
    return actor is not None and actor.may(role)


__all__ = [
    "address_with", "asset", "badge", "distance", "may", "moment", "page", "part_wanted", "reason_given", "shown", "visible",

]  # fmt: skip
