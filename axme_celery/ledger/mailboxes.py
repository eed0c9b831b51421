"""Agents and their mailboxes: who is known, what lies there to be taken, and whose lease has ended.

An offer's number is the agent's own count, given while its row is locked: offers become visible in their order, so
that a listener who has seen number n has seen or been refused every one before it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import and_, bindparam, case, exists, literal, literal_column, select
from sqlalchemy import update as update_of
from sqlalchemy.dialects import postgresql, sqlite

from ..model import Delivery, Intent, Lease, Leg
from ..parties import Agent, Offer
from . import tables as t
from .access import Access
from .driver import Driver, Prepared
from .query import Query
from .rows import columns, to_record

_OPEN: Any = literal_column("'OPEN'")
_RUNNING: Any = literal_column("'RUNNING'")
_QUEUED: Any = literal_column("'QUEUED'")


class SqlMailboxes:
    """The mailboxes kept in a ledger's database."""

    def __init__(self, access: Access, is_sqlite: bool) -> None:
        self._access, self._is_sqlite = access, is_sqlite

    def _run(self, prepared: Prepared, rows: list[dict[str, Any]], *, durable: bool) -> None:
        def write(driver: Driver) -> None:
            driver.run(prepared, rows)

        self._access.write(write, durable=durable)

    # -- agents ------------------------------------------------------------------

    def agent(self, address: str) -> Agent | None:
        """The agent of this address, if it is known."""
        query = _known(self._is_sqlite)
        return next((agent for (agent,) in self._access.drive(lambda d: query.read(d, address=address))), None)

    def agents(self, owner: str | None, prefix: str, after: str | None, limit: int) -> list[Agent]:
        """Known agents by address: those of one owner, or all."""
        c = t.agents.c
        query = select(t.agents).where(c.status != "deleted")
        if owner is not None:
            query = query.where(c.owner == owner)
        if prefix:
            query = query.where(c.address.startswith(prefix, autoescape=True))
        if after is not None:
            query = query.where(c.address > after)
        query = query.order_by(c.address).limit(limit)
        return self._access.ask(lambda conn: [to_record(Agent, row) for row in conn.execute(query).mappings()])

    def named(self, owner: str | None, name: str) -> list[str]:
        """Addresses whose last part is this name, at most two."""
        c = t.agents.c
        query = select(c.address).where(c.address.endswith(f"/{name}", autoescape=True), c.status != "deleted")
        if owner is not None:
            query = query.where(c.owner == owner)
        return self._access.ask(lambda conn: [str(row.address) for row in conn.execute(query.limit(2))])

    def put_agent(self, agent: Agent) -> None:
        """Make an agent known, or change it. Its cursor stays."""
        self._run(_put_agent(self._is_sqlite), [_agent_row(agent)], durable=True)

    def seen(self, agent: Agent) -> None:
        """Somebody listens as this agent; unknown so far, it is known from now on."""
        row = _agent_row(agent)

        def write(driver: Driver) -> None:
            driver.run(_know_agent(self._is_sqlite), [row])
            driver.run(_saw_agent(self._is_sqlite), [{"of": agent.address, "now": agent.seen_at, "whose": agent.owner}])

        self._access.write(write, durable=False)

    # -- offers --------------------------------------------------------------------

    def offer(self, agent: Agent, delivery: Delivery) -> None:
        """Put a run of a leg into the agent's mailbox. Again is fine: it lies there once."""
        known = {"leg_id": delivery.leg_id, "run": delivery.run}
        row = known | {"agent": agent.address, "intent_id": delivery.intent_id, "at": agent.updated_at}

        def write(driver: Driver) -> None:
            driver.run(_know_agent(self._is_sqlite), [_agent_row(agent)])
            if driver.run(_count_up(self._is_sqlite), [known | {"of": agent.address}]):
                driver.run(_add_offer(self._is_sqlite), [row])

        self._access.write(write, durable=True)

    def open_offers(self, address: str, since: int, limit: int) -> list[tuple[Offer, Intent, Leg]]:
        """What may be taken from this mailbox after number ``since``, in order."""
        query = (
            select(*_offer_columns(), *columns(Intent, "i_"), *columns(Leg, "l_"))
            .select_from(t.offers)
            .join(t.legs, and_(t.legs.c.id == t.offers.c.leg_id, t.legs.c.run == t.offers.c.run))
            .join(t.intents, t.intents.c.id == t.offers.c.intent_id)
            .where(
                t.offers.c.agent == address,
                t.offers.c.seq > since,
                t.offers.c.status == _OPEN,
                t.legs.c.status == _QUEUED,
                t.intents.c.ended_at.is_(None),
            )
            .order_by(t.offers.c.seq)
            .limit(limit)
        )
        return self._access.ask(lambda c: [_offered(row) for row in c.execute(query).mappings()])

    def taken(self, offers: Sequence[Offer]) -> None:
        """Nobody need look at these any more."""
        rows = [{"of": offer.agent, "number": offer.seq} for offer in offers]
        if rows:
            self._run(_close_offer(self._is_sqlite), rows, durable=False)

    def cursor(self, address: str) -> int:
        """The number of the last thing put into this mailbox; 0 before any."""
        query = select(t.agents.c.cursor).where(t.agents.c.address == address)
        return int(self._access.ask(lambda c: c.scalar(query)) or 0)

    def renew_all(self, address: str, holder: str, until: datetime) -> None:
        """Put off the end of every lease that this holder has of the agent's legs."""
        row = {"of": address, "holder": holder, "until": until}
        self._run(_renew_all(self._is_sqlite), [row], durable=False)

    def lapsed(self, until: datetime, limit: int) -> list[Lease]:
        """Runs of agents whose lease has ended by then."""
        c = t.legs.c
        query = select(c.id, c.run).where(c.status == _RUNNING, c.due_at <= until).limit(limit)
        return self._access.ask(lambda conn: [Lease(row.id, row.run) for row in conn.execute(query)])


# -- rows ------------------------------------------------------------------------------


def _agent_row(agent: Agent) -> dict[str, Any]:
    values = {column.name: getattr(agent, column.name) for column in t.agents.c}
    for name in ("send", "receive"):
        values[name] = {"mode": values[name].mode, "entries": list(values[name].entries)}
    return values


_OFFER = ("agent", "seq", "intent_id", "leg_id", "run", "at")


def _offer_columns() -> list[Any]:
    return [t.offers.c[name].label(f"o_{name}") for name in _OFFER]


def _offered(row: Any) -> tuple[Offer, Intent, Leg]:
    offer = Offer(**{name: row[f"o_{name}"] for name in _OFFER})
    return offer, to_record(Intent, row, "i_"), to_record(Leg, row, "l_")


# -- statements ---------------------------------------------------------------------------


def _insert(table: Any, is_sqlite: bool) -> Any:
    return (sqlite if is_sqlite else postgresql).insert(table)


def _all(table: Any, is_sqlite: bool) -> Any:
    return _insert(table, is_sqlite).values({column.name: bindparam(column.name) for column in table.c})


@functools.cache
def _known(is_sqlite: bool) -> Query:
    """Compiled once: every submission to an agent asks this."""
    return Query(select(*columns(Agent)).where(t.agents.c.address == bindparam("address")), (Agent,), is_sqlite)


@functools.cache
def _know_agent(is_sqlite: bool) -> Prepared:
    return Prepared(_all(t.agents, is_sqlite).on_conflict_do_nothing(), is_sqlite)


@functools.cache
def _put_agent(is_sqlite: bool) -> Prepared:
    statement = _all(t.agents, is_sqlite)
    kept = {"address", "cursor", "created_at", "seen_at"}
    changed = {c.name: statement.excluded[c.name] for c in t.agents.c if c.name not in kept}
    return Prepared(statement.on_conflict_do_update(index_elements=["address"], set_=changed), is_sqlite)


@functools.cache
def _saw_agent(is_sqlite: bool) -> Prepared:
    c = t.agents.c
    return Prepared(
        update_of(t.agents)
        .where(c.address == bindparam("of"))
        .values(
            seen_at=bindparam("now", type_=c.seen_at.type),
            # Whoever listens first is whose agent it is; until then it is only somebody's addressee.
            owner=case((c.seen_at.is_(None), bindparam("whose", type_=c.owner.type)), else_=c.owner),
        ),
        is_sqlite,
    )


@functools.cache
def _renew_all(is_sqlite: bool) -> Prepared:
    c, until = t.legs.c, bindparam("until", type_=t.legs.c.due_at.type)
    held = (c.status == "RUNNING", c.task == bindparam("of"), c.worker == bindparam("holder"), c.due_at < until)
    return Prepared(update_of(t.legs).where(*held).values(due_at=until), is_sqlite)


@functools.cache
def _count_up(is_sqlite: bool) -> Prepared:
    """Locks the agent's row: the numbers become visible in their order."""
    c = t.offers.c
    there = exists().where(c.leg_id == bindparam("leg_id"), c.run == bindparam("run"))
    agents = t.agents.c
    return Prepared(
        update_of(t.agents).where(agents.address == bindparam("of"), ~there).values(cursor=agents.cursor + 1), is_sqlite
    )


@functools.cache
def _add_offer(is_sqlite: bool) -> Prepared:
    c = t.offers.c
    numbered = select(
        t.agents.c.address, t.agents.c.cursor, bindparam("intent_id", type_=c.intent_id.type),
        bindparam("leg_id", type_=c.leg_id.type), bindparam("run", type_=c.run.type), literal("OPEN"),
        bindparam("at", type_=c.at.type),
    ).where(t.agents.c.address == bindparam("agent"))  # fmt: skip
    names = ["agent", "seq", "intent_id", "leg_id", "run", "status", "at"]
    return Prepared(_insert(t.offers, is_sqlite).from_select(names, numbered).on_conflict_do_nothing(), is_sqlite)


@functools.cache
def _close_offer(is_sqlite: bool) -> Prepared:
    c = t.offers.c
    return Prepared(
        update_of(t.offers).where(c.agent == bindparam("of"), c.seq == bindparam("number")).values(status="TAKEN"),
        is_sqlite,
    )


__all__ = ["SqlMailboxes"]
