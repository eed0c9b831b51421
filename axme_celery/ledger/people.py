"""Inboxes and links, as the ledger keeps them.

An inbox is read from rows (owner, wait): each of a person's names is a short walk along an index in the order asked for,
and the walks are merged. How many waits others have open costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Select, and_, exists, func, literal, or_, select, tuple_, union

from ..desk import InboxQuery, Link
from ..model import Intent, Wait
from ..texts import folded
from . import tables as t
from .access import Access
from .rows import columns, to_record

#: Wanted at no moment in particular: after everything that is.
NEVER = datetime(9999, 1, 1, tzinfo=UTC)
#: Its inbox is the whole house's.
EVERYBODY = ""

#: Intents with a tag, up to which it is quicker to begin with them than with the inbox.
FEW = 5000

#: Where a page ended: the moment it is sorted by, where there is one, and the wait's id.
Place = tuple[datetime | None, str]


class Desks:
    """One of a ledger's parts."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def link(self, hash: str) -> Link | None:
        """The link of this hash."""

        def ask(c: Connection) -> Link | None:
            row = c.execute(select(*columns(Link)).where(t.links.c.hash == hash)).mappings().first()
            return None if row is None else to_record(Link, row)

        return self._access.ask(ask)

    def links_of(self, wait_id: str) -> list[Link]:
        """All links that were ever issued for a wait, oldest first."""
        query = (
            select(*columns(Link)).where(t.links.c.wait_id == wait_id).order_by(t.links.c.created_at, t.links.c.hash)
        )
        return self._access.ask(lambda c: [to_record(Link, row) for row in c.execute(query).mappings()])

    def page(self, query: InboxQuery, after: Place | None, limit: int) -> list[tuple[Intent, Wait, Place]]:
        """The next so many, each with its place."""
        keys = _merged(query, after, limit, few_tagged=self._few_tagged(query)).subquery()
        whole = (
            select(keys.c.key, *columns(Intent, "i_"), *columns(Wait, "w_"))
            .join_from(keys, t.waits, t.waits.c.id == keys.c.wait_id)
            .join(t.intents, t.intents.c.id == t.waits.c.intent_id)
            .order_by(*_order(query, keys.c.key, keys.c.wait_id))
        )

        def ask(c: Connection) -> list[tuple[Intent, Wait, Place]]:
            found = []
            for row in c.execute(whole).mappings():
                wait: Wait = to_record(Wait, row, "w_")
                found.append((to_record(Intent, row, "i_"), wait, (row["key"] if _has_key(query) else None, wait.id)))
            return found

        return self._access.ask(ask)

    def _few_tagged(self, query: InboxQuery) -> bool:
        if query.tag is None:
            return False
        some = select(t.tags.c.intent_id).where(t.tags.c.tag == query.tag).limit(FEW + 1).subquery()
        return self._access.ask(lambda c: int(c.scalar(select(func.count()).select_from(some)) or 0)) <= FEW

    def count(self, query: InboxQuery, most: int) -> int:
        """How many there are; counting stops at ``most``."""
        keys = _merged(query, None, most, few_tagged=self._few_tagged(query)).subquery()
        return self._access.ask(lambda c: int(c.scalar(select(func.count()).select_from(keys)) or 0))


def _merged(query: InboxQuery, after: Place | None, limit: int, *, few_tagged: bool) -> Select[Any]:
    """The first so many of all owners' walks together, each wait once."""
    owners = sorted(query.names) or [EVERYBODY]
    # Made once: all walks share what is looked up first.
    tagged = None if query.tag is None else _tagged(query.tag, few=few_tagged)
    walks = [_walk(query, owner, after, limit, tagged).subquery() for owner in owners]
    merged = union(*(select(walk.c.wait_id, walk.c.key) for walk in walks)).subquery()
    return select(merged.c.wait_id, merged.c.key).order_by(*_order(query, merged.c.key, merged.c.wait_id)).limit(limit)


def _walk(query: InboxQuery, owner: str, after: Place | None, limit: int, tagged: Any) -> Select[Any]:
    """One owner's waits, in order."""
    o = t.wait_owners.c
    key = o.closed_at if query.closed else o.wanted_at
    walk = select(o.wait_id, key.label("key")).where(o.owner == owner)
    walk = walk.where(o.closed_at.is_not(None) if query.closed else o.closed_at.is_(None))
    if query.task_type is not None:
        walk = walk.where(o.task_type == query.task_type)
    if query.overdue_at is not None:
        walk = walk.where(o.wanted_at < query.overdue_at)
    if query.names and not query.closed:
        walk = walk.where(~_barred(query))
    if query.type is not None:
        walk = walk.where(o.intent_type == query.type)
    if query.owner is not None:
        walk = walk.where(o.intent_owner == query.owner)
    if tagged is not None:
        walk = walk.where(tagged)
    if after is not None:
        moment, wait_id = literal(after[0], t.Moment), after[1]
        if not _has_key(query):
            walk = walk.where(o.wait_id < wait_id if query.sort == "newest" else o.wait_id > wait_id)
        elif query.closed:
            walk = walk.where(tuple_(key, o.wait_id) < tuple_(moment, wait_id))
        else:
            walk = walk.where(tuple_(key, o.wait_id) > tuple_(moment, wait_id))
    return walk.order_by(*_order(query, key, o.wait_id)).limit(limit)


def _tagged(tag: str, *, few: bool) -> Any:
    """Whether a wait's intent has this tag. Of few the waits are looked up first; else each wait is asked on the walk."""
    w, tags = t.waits.c, t.tags.c
    if not few:
        return exists().where(w.id == t.wait_owners.c.wait_id, tags.tag == tag, tags.intent_id == w.intent_id)
    waits = select(w.id).join_from(t.tags, t.waits, tags.intent_id == w.intent_id).where(tags.tag == tag)
    found = waits.cte("tagged").prefix_with("MATERIALIZED", dialect="postgresql")
    return t.wait_owners.c.wait_id.in_(select(found.c.id))


def _barred(query: InboxQuery) -> Any:
    """Whether this person may not answer it: the same as the rule, ``may_answer``, says."""
    b, by = t.wait_barred.c, folded(query.by)[:255]
    others = [folded(name)[:255] for name in query.names]
    keeps_out = or_(b.name == by, and_(b.personal.is_(False), b.name.in_(others)))
    return exists().where(b.wait_id == t.wait_owners.c.wait_id, keeps_out)


def _has_key(query: InboxQuery) -> bool:
    """Whether it is sorted by a moment; else by the wait's id, which is as old as the wait."""
    return query.closed or query.sort == "due"


def _order(query: InboxQuery, key: Any, wait_id: Any) -> Sequence[Any]:
    if query.closed:
        return key.desc(), wait_id.desc()
    if query.sort == "due":
        return key, wait_id
    return (wait_id.desc(),) if query.sort == "newest" else (wait_id,)
