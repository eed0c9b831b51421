"""Inboxes: what a person, or the whole house, is asked and has not answered yet."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from .desk import SORTS, InboxQuery
from .errors import BadInput
from .model import Intent, Wait
from .ports import Runtime

#: A page has at most so many.
LONGEST_PAGE = 200
#: Counting stops here: more is "1000 and more" to everybody.
MOST = 1000


@dataclass(frozen=True)
class Item:
    """One wait in an inbox, and the intent it is of."""

    wait: Wait
    intent: Intent
    #: Whether an answer was wanted before now.
    overdue: bool


@dataclass(frozen=True)
class Page:
    """Some of an inbox."""

    items: list[Item]
    #: Give this as ``after`` for the next page; None on the last.
    next: str | None


def query(
    rt: Runtime,
    by: str | None = None,
    groups: Collection[str] = (),
    *,
    type: str | None = None,
    task_type: str | None = None,
    tag: str | None = None,
    owner: str | None = None,
    overdue: bool = False,
    sort: str = "due",
    closed: bool = False,
) -> InboxQuery:
    """What to look for.

    by, groups: whose inbox: open waits that this person may answer, by their own name or a group's. None: everybody's.
    type, tag:  only of intents of this type, with this tag.
    task_type:  only of this human task type.
    owner:      only of this owner's intents.
    overdue:    only those whose answer was wanted before now.
    sort:       "due" (overdue first, then as they are wanted), "opened" (oldest first) or "newest".
    closed:     those that have closed instead, last closed first.

    Raises BadInput.
    """
    if sort not in SORTS:
        raise BadInput(f"sort is {sort!r}; use one of: {', '.join(SORTS)}")
    names = frozenset((by, *groups)) if by is not None else frozenset(groups)
    return InboxQuery(
        by=by or "", names=names, type=type, task_type=task_type, tag=tag, owner=owner, sort=sort, closed=closed,
        overdue_at=rt.ledger.now() if overdue else None,
    )  # fmt: skip


def page(rt: Runtime, wanted: InboxQuery, *, after: str | None = None, limit: int = 50) -> Page:
    """The next waits of an inbox, at most ``limit``. Raises BadInput for an ``after`` no page gave out."""
    limit = max(1, min(limit, LONGEST_PAGE))
    place = None if after is None else _place(after, wanted.closed or wanted.sort == "due")
    found = rt.ledger.desks.page(wanted, place, limit + 1)
    now = rt.ledger.now()
    items = [
        Item(wait, intent, not wanted.closed and wait.wanted_at is not None and wait.wanted_at < now)
        for intent, wait, _ in found[:limit]
    ]
    return Page(items, _cursor(found[limit - 1][2]) if len(found) > limit else None)


def count(rt: Runtime, wanted: InboxQuery, *, most: int = MOST) -> int:
    """How many waits an inbox has; counting stops at ``most``."""
    return rt.ledger.desks.count(wanted, most)


def _cursor(place: tuple[datetime | None, str]) -> str:
    moment, wait_id = place
    text = json.dumps([None if moment is None else moment.isoformat(), wait_id])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _place(cursor: str, by_moment: bool) -> tuple[datetime | None, str]:
    try:
        moment, wait_id = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        at = None if moment is None else datetime.fromisoformat(moment)
        if not isinstance(wait_id, str) or (at is not None) != by_moment or (at is not None and at.tzinfo is None):
            raise ValueError
        return at, wait_id
    except (ValueError, TypeError, binascii.Error):
        raise BadInput("after is no place in an inbox; give what the page before said is next") from None


__all__ = ["Item", "Page", "count", "page", "query"]
