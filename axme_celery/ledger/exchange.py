"""Requests already answered, by their idempotency keys; and what people and agents wrote to each other about an intent."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, or_, select, text, tuple_
from sqlalchemy import delete as delete_from
from sqlalchemy import update as update_of
from sqlalchemy.dialects import postgresql, sqlite

from ..model import Intent
from ..parties import Answered, Message
from . import tables as t
from .access import Access
from .driver import Driver, Prepared
from .rows import columns, to_record


class SqlExchange:
    """Both, kept in a ledger's database."""

    def __init__(self, access: Access, is_sqlite: bool) -> None:
        self._access, self._is_sqlite = access, is_sqlite

    def _run(self, prepared: Prepared, rows: list[dict[str, Any]], *, durable: bool) -> None:
        def write(driver: Driver) -> None:
            driver.run(prepared, rows)

        self._access.write(write, durable=durable)

    def begin(self, request_id: str, body_hash: str, now: datetime, held_until: datetime) -> Answered | None:
        """Take a request for oneself: None when it is ours to answer, else what is known of it."""
        row = {
            "id": request_id,
            "body_hash": body_hash,
            "status": None,
            "answer": None,
            "held_until": held_until,
            "at": now,
        }
        won: list[bool] = []

        def write(driver: Driver) -> None:
            # Whoever held it died, if it is held no longer and still not answered.
            taken = driver.run(_begin(self._is_sqlite), [row])
            won[:] = [bool(taken or driver.run(_take_over(self._is_sqlite), [row | {"of": request_id, "now": now}]))]

        self._access.write(write, durable=True)
        if won[0]:
            return None
        query = select(t.requests).where(t.requests.c.id == request_id)
        found = self._access.ask(lambda c: c.execute(query).mappings().first())
        if found is None:
            return None
        return Answered(found["body_hash"], found["status"], found["answer"])

    def finish(self, request_id: str, status: int, answer: str) -> None:
        """Keep what was answered."""
        row = {"of": request_id, "said": status, "text": answer}
        self._run(_finish(self._is_sqlite), [row], durable=True)

    def drop(self, request_id: str) -> None:
        """It was refused and did nothing: it may come again, otherwise."""
        self._run(_drop(self._is_sqlite), [{"of": request_id}], durable=False)

    def forget(self, before: datetime) -> int:
        """Forget requests answered before then. Returns how many."""
        most = [0]

        def write(driver: Driver) -> None:
            most[0] = max(most[0], driver.run(_forget(self._is_sqlite), [{"before": before}]))

        self._access.write(write, durable=False)
        return most[0]

    def say(self, message: Message) -> None:
        """Keep a message; again with other details, it is that now."""
        row = {c.name: getattr(message, c.name) for c in t.messages.c}
        self._run(_say(self._is_sqlite), [row], durable=True)

    def threads(
        self,
        *,
        owner: str | None,
        names: Sequence[str] | None,
        status: str | None,
        after: tuple[datetime, str] | None,
        until: datetime | None,
        limit: int,
    ) -> list[Intent]:
        """Intents that are threads, by their last change: newest first, or after a moment (``after``) oldest first.

        names:  of those only where one of these takes part; None: all.
        """
        c = t.intents.c
        # Literal, for the small index of these.
        query = select(*columns(Intent)).where(text("threaded"))
        if owner is not None:
            query = query.where(c.owner == owner)
        if names is not None:
            mine = select(t.waits.c.intent_id).join(t.wait_owners, t.wait_owners.c.wait_id == t.waits.c.id)
            mine = mine.where(t.waits.c.intent_id == c.id, t.wait_owners.c.owner.in_(list(names)))
            named = [
                column.in_(list(names)) for column in (c.reply_to, c.to_agent, c.from_agent, c.handler, c.requester)
            ]
            query = query.where(or_(*named, mine.exists()))
        is_asked = c.waiting_reason == "WAITING_FOR_HUMAN"
        if status == "done":
            query = query.where(c.ended_at.is_not(None))
        elif status == "pending":
            query = query.where(is_asked)
        elif status == "active":
            query = query.where(c.ended_at.is_(None), or_(c.waiting_reason.is_(None), ~is_asked))
        if until is not None:
            query = query.where(c.updated_at <= until)
        if after is not None:
            query = query.where(tuple_(c.updated_at, c.id) > tuple_(*after)).order_by(c.updated_at, c.id)
        else:
            query = query.order_by(c.updated_at.desc(), c.id.desc())
        query = query.limit(limit)
        return self._access.ask(lambda conn: [to_record(Intent, row) for row in conn.execute(query).mappings()])

    def messages(self, intent_ids: Sequence[str]) -> list[Message]:
        """What was written about these intents, in order."""
        c = t.messages.c
        query = select(t.messages).where(c.intent_id.in_(list(intent_ids))).order_by(c.intent_id, c.id)
        return self._access.ask(lambda conn: [Message(**row) for row in conn.execute(query).mappings()])

    def delete_messages(self, intent_id: str, message_ids: list[str]) -> int:
        """Delete these messages of one intent. Returns how many there were."""
        rows = [{"of": intent_id, "number": one} for one in sorted(message_ids)]
        counts = [0]

        def write(driver: Driver) -> None:
            counts[0] = max(counts[0], driver.run(_unsay(self._is_sqlite), rows))

        if rows:
            self._access.write(write, durable=True)
        return counts[0]


def _insert_new(table: Any, is_sqlite: bool) -> Any:
    statement = (sqlite if is_sqlite else postgresql).insert(table)
    return statement.values({c.name: bindparam(c.name) for c in table.c}).on_conflict_do_nothing()


@functools.cache
def _begin(is_sqlite: bool) -> Prepared:
    return Prepared(_insert_new(t.requests, is_sqlite), is_sqlite)


@functools.cache
def _take_over(is_sqlite: bool) -> Prepared:
    c = t.requests.c
    is_free = (c.status.is_(None)) & (c.held_until <= bindparam("now", type_=c.at.type))
    statement = (
        update_of(t.requests)
        .where(c.id == bindparam("of"), is_free, c.body_hash == bindparam("body_hash"))
        .values(held_until=bindparam("held_until", type_=c.at.type))
    )
    return Prepared(statement, is_sqlite)


@functools.cache
def _finish(is_sqlite: bool) -> Prepared:
    c = t.requests.c
    values = {"status": bindparam("said", type_=c.status.type), "answer": bindparam("text", type_=c.answer.type)}
    return Prepared(update_of(t.requests).where(c.id == bindparam("of")).values(values), is_sqlite)


@functools.cache
def _drop(is_sqlite: bool) -> Prepared:
    c = t.requests.c
    return Prepared(delete_from(t.requests).where(c.id == bindparam("of"), c.status.is_(None)), is_sqlite)


@functools.cache
def _forget(is_sqlite: bool) -> Prepared:
    c = t.requests.c
    return Prepared(delete_from(t.requests).where(c.at < bindparam("before", type_=c.at.type)), is_sqlite)


@functools.cache
def _say(is_sqlite: bool) -> Prepared:
    statement = (sqlite if is_sqlite else postgresql).insert(t.messages)
    statement = statement.values({c.name: bindparam(c.name) for c in t.messages.c})
    changed = {name: statement.excluded[name] for name in ("details", "at")}
    return Prepared(statement.on_conflict_do_update(index_elements=["id"], set_=changed), is_sqlite)


@functools.cache
def _unsay(is_sqlite: bool) -> Prepared:
    c = t.messages.c
    return Prepared(
        delete_from(t.messages).where(c.intent_id == bindparam("of"), c.id == bindparam("number")), is_sqlite
    )


__all__ = ["SqlExchange"]
