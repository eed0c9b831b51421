"""What a person is asked, and what their groups are."""

from __future__ import annotations

from typing import Any

from flask import redirect, request, url_for
from werkzeug import Response

from ... import inbox as inboxes
from ...asking import OUTCOMES
from ...desk import InboxQuery
from ...errors import BadInput
from ...who import Role
from ..house import house, need
from ..live import inbox_version
from . import blueprint
from .paging import LINES, filters
from .shown import address_with, page, part_wanted


@blueprint.get("/")
def home() -> Response:
    """People come to see what they are asked; operators of whom nothing is asked, how the house is."""
    actor, rt = need(), house().rt
    mine = inboxes.query(rt, actor.id, actor.groups, owner=actor.owner)
    is_here_for_more = actor.may(Role.OPERATOR) and not inboxes.count(rt, mine, most=1)
    return redirect(url_for("axme.pages.intents" if is_here_for_more else "axme.pages.inbox"))


@blueprint.get("/inbox")
def inbox() -> Any:
    """Open questions, those that are due first at the top."""
    actor, rt = need(), house().rt
    given = filters("task_type", "type", "tag", "order", "only", "whose")
    order = given["order"] if given["order"] in ("due", "opened", "newest") else "due"
    is_everybodys = given["whose"] == "all"
    wanted = inboxes.query(
        rt,
        None if is_everybodys else actor.id,
        () if is_everybodys else actor.groups,
        type=given["type"] or None,
        task_type=given["task_type"] if given["task_type"] in OUTCOMES else None,
        tag=given["tag"] or None,
        owner=actor.owner,
        overdue=given["only"] == "overdue",
        sort=order,
        closed=given["only"] == "closed",
    )
    found = _page(wanted)
    return page(
        "_inbox_live.html" if part_wanted() else "inbox.html",
        tab="inbox",
        items=found.items,
        older=address_with(after=found.next) if found.next else None,
        first=address_with(after=None) if request.args.get("after") else None,
        given={**given, "order": order},
        is_filtered=any(given[name] for name in ("task_type", "type", "tag", "only")),
        task_types=list(OUTCOMES),
        count=inboxes.count(rt, inboxes.query(rt, actor.id, actor.groups, owner=actor.owner)),
        overdue=inboxes.count(rt, inboxes.query(rt, actor.id, actor.groups, owner=actor.owner, overdue=True)),
        version=inbox_version(rt, actor.names),
    )


def _page(wanted: InboxQuery) -> inboxes.Page:
    """The page asked for; what is no place is the beginning."""
    try:
        return inboxes.page(house().rt, wanted, after=request.args.get("after"), limit=LINES)
    except BadInput:
        return inboxes.page(house().rt, wanted, limit=LINES)
