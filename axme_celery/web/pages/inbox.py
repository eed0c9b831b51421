"""What a person is asked, and what their groups are."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from flask import redirect, url_for
from werkzeug import Response

from ...asking import OUTCOMES
from ...model import Intent, Wait
from ...who import Role
from ..house import house, need
from ..live import inbox_version
from . import blueprint
from .paging import LINES, cut, filters, place
from .shown import page, part_wanted

_NEVER = datetime(9999, 1, 1, tzinfo=UTC)


@blueprint.get("/")
def home() -> Response:
    """People come to see what they are asked; operators, how the house is."""
    actor = need()
    rt = house().rt
    mine = rt.ledger.views.count_inbox(sorted(actor.names), actor.owner)
    is_here_for_more = actor.may(Role.OPERATOR) and not mine
    return redirect(url_for("axme.pages.intents" if is_here_for_more else "axme.pages.inbox"))


@blueprint.get("/inbox")
def inbox() -> Any:
    """Open questions, those that are due first at the top."""
    actor = need()
    ledger, now = house().rt.ledger, house().rt.ledger.now()
    given = filters("find", "task_type", "order", "only", "whose")
    names = [] if given["whose"] == "all" else sorted(actor.names)
    order = given["order"] if given["order"] in ("due", "oldest", "newest") else "due"
    asked = {
        "find": given["find"],
        "task_type": given["task_type"] if given["task_type"] in OUTCOMES else "",
        "overdue_at": now if given["only"] == "overdue" else None,
    }
    found = ledger.views.inbox_page(names, actor.owner, asked, order, place(), LINES + 1)
    lines, older, first = cut(found, lambda line: _place_of(line, order))
    return page(
        "_inbox_live.html" if part_wanted() else "inbox.html",
        tab="inbox",
        lines=lines,
        older=older,
        first=first,
        given={**given, "order": order},
        task_types=list(OUTCOMES),
        count=ledger.views.count_inbox(sorted(actor.names), actor.owner),
        overdue=ledger.views.count_inbox(sorted(actor.names), actor.owner, now),
        version=inbox_version(house().rt, sorted(actor.names)),
        is_late=lambda wait: (wait.wanted_at or wait.timeout_at or _NEVER) < now,
        wanted=lambda wait: wait.wanted_at or wait.timeout_at,
    )


def _place_of(line: tuple[Wait, Intent], order: str) -> tuple[datetime, str]:
    wait = line[0]
    return (wait.wanted_at or wait.timeout_at or _NEVER) if order == "due" else wait.opened_at, wait.id
