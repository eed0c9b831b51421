"""What pages ask of the ledger, besides what the verbs do."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    DateTime,
    Integer,
    Select,
    and_,
    case,
    cast,
    exists,
    extract,
    func,
    literal,
    literal_column,
    or_,
    select,
    tuple_,
)

from ..model import DeadLetter, Delivery, DeliveryKind, Intent, JsonDict, LegStatus, Recorded, StepMark
from . import tables as t
from .access import Access
from .read import intents_query
from .rows import columns, to_record

#: Ids in one ``IN``: databases bind only so many values.
_MANY = 1000
#: Counts stop here: nobody tells 10,000 from 10,001, and counting a million takes a while.
MOST_COUNTED = 10_000
#: Rows whose durations a chart is made of, at most.
CHART_ROWS = 5000
_OPEN: ColumnElement[str] = literal_column("'OPEN'")
_HUMAN: ColumnElement[str] = literal_column("'HUMAN'")


class SqlViews:
    """Questions of pages; promises are those of the ``Views`` port."""

    def __init__(self, access: Access, is_sqlite: bool) -> None:
        self._access = access
        self._is_sqlite = is_sqlite

    def seqs(self, intent_ids: Sequence[str]) -> dict[str, int]:
        """Where these intents are: id -> number of the last event."""

        def ask(c: Connection) -> dict[str, int]:
            found: dict[str, int] = {}
            for start in range(0, len(intent_ids), _MANY):
                some = intent_ids[start : start + _MANY]
                rows = c.execute(select(t.intents.c.id, t.intents.c.seq).where(t.intents.c.id.in_(some)))
                found |= {row.id: row.seq for row in rows}
            return found

        return self._access.ask(ask) if intent_ids else {}

    def parked(self, intent_ids: Sequence[str]) -> set[str]:
        """Those of these intents that have a leg which rests until an operator decides."""
        c = t.legs.c

        def ask(connection: Connection) -> set[str]:
            found: set[str] = set()
            for start in range(0, len(intent_ids), _MANY):
                some = c.intent_id.in_(intent_ids[start : start + _MANY])
                rests = c.status == LegStatus.PARKED.value
                found |= set(connection.scalars(select(c.intent_id).where(some, rests).distinct()))
            return found

        return self._access.ask(ask) if intent_ids else set()

    def starts(self, intent_id: str, now: datetime) -> dict[str, datetime]:
        """When those of its queued legs start that are to start later than ``now``: leg -> moment."""
        row, leg = t.outbox.c, t.legs.c
        query = (
            select(row.leg_id, row.next_at)
            .join(t.legs, and_(leg.id == row.leg_id, leg.run == row.run, leg.status == LegStatus.QUEUED.value))
            # One that has been tried is late, and its moment that of the next try.
            .where(row.intent_id == intent_id, row.kind == DeliveryKind.LEG.value, row.attempts == 0, row.next_at > now)
        )
        return self._access.ask(lambda c: {found.leg_id: found.next_at for found in c.execute(query)})

    def count_steps(self, intent_id: str) -> int:
        """How many steps of its legs are recorded, at most 10,000."""
        step = t.checkpoints.c
        of_intent = t.legs.c.intent_id == intent_id
        return self._count(select(step.leg_id).join(t.legs, t.legs.c.id == step.leg_id).where(of_intent))

    def steps(self, leg_ids: Sequence[str]) -> list[StepMark]:
        """What these legs have recorded, leg by leg in the order it came."""
        step = t.checkpoints.c

        def ask(connection: Connection) -> list[StepMark]:
            found: list[StepMark] = []
            for start in range(0, len(leg_ids), _MANY):
                query = select(step.leg_id, step.name, step.nth, step.position, step.run, step.recorded, step.at)
                query = query.where(step.leg_id.in_(leg_ids[start : start + _MANY]))
                rows = connection.execute(query.order_by(step.leg_id, step.position)).mappings()
                found += [StepMark(**{**row, "recorded": Recorded(row["recorded"])}) for row in rows]
            return found

        return self._access.ask(ask) if leg_ids else []

    def step_values(self, steps: Sequence[StepMark], longest: int) -> list[tuple[str | None, int]]:
        """What each of these steps gave, as JSON text, and its length; without the text of what is longer than this.

        One that has been pruned since gave nothing.

        steps: some hundreds at most.
        """
        step = t.checkpoints.c
        length = func.length(step.value)
        query = select(
            step.leg_id, step.name, step.nth, case((length <= longest, step.value)).label("value"), length.label("length")
        ).where(tuple_(step.leg_id, step.name, step.nth).in_([(one.leg_id, one.name, one.nth) for one in steps]))

        def ask(connection: Connection) -> list[tuple[str | None, int]]:
            found = {(row.leg_id, row.name, row.nth): (row.value, row.length) for row in connection.execute(query)}
            return [found.get((one.leg_id, one.name, one.nth), ("null", 0)) for one in steps]

        return self._access.ask(ask) if steps else []

    def inbox_marks(self, names: Collection[str]) -> dict[str, list[str]]:
        """Of these people and groups, what lies open for each: marks that change when anything shown of it does."""
        own, c = t.wait_owners.c, t.waits.c

        def ask(connection: Connection) -> dict[str, list[str]]:
            found: dict[str, list[str]] = {}
            wanted = sorted(names)
            for start in range(0, len(wanted), _MANY):
                query = (
                    select(own.owner, c.id, c.timeout_at, c.votes, c.to)
                    .join(t.waits, c.id == own.wait_id)
                    .where(own.owner.in_(wanted[start : start + _MANY]), own.closed_at.is_(None))
                )
                for row in connection.execute(query):
                    found.setdefault(row.owner, []).append(f"{row.id} {row.timeout_at} {row.votes} {row.to}")
            return found

        return self._access.ask(ask)

    def find_intents(self, filters: JsonDict, after: tuple[datetime, str] | None, limit: int) -> list[Intent]:
        """As ``intents``, and with the filter "find": an id of it or of a leg, a key, correlation id, type or tag."""
        query = intents_query(filters)
        words = filters.get("find")
        if words:
            c = t.intents.c
            of_leg = select(t.legs.c.intent_id).where(t.legs.c.id == words)
            tagged = select(t.tags.c.intent_id).where(t.tags.c.tag == words)
            same = [c.id == words, c.key == words, c.correlation_id == words, c.type == words, c.requester == words]
            query = query.where(or_(*same, c.id.in_(of_leg), c.id.in_(tagged)))
        if after is not None:
            query = query.where(tuple_(t.intents.c.created_at, t.intents.c.id) < tuple_(*after))
        query = query.order_by(t.intents.c.created_at.desc(), t.intents.c.id.desc()).limit(limit)
        return self._access.ask(lambda c: [to_record(Intent, row) for row in c.execute(query).mappings()])

    def count_by_status(self, owner: str | None) -> dict[str, int]:
        """How many intents there are in each status, at most 10,000 of each."""
        c = t.intents.c
        statuses = ("SUBMITTED", "DELIVERED", "ACKNOWLEDGED", "IN_PROGRESS", "WAITING", "COMPLETED", "FAILED",
                    "CANCELED", "TIMED_OUT")  # fmt: skip
        found = {status: self._count(select(c.id).where(c.status == status, *_owned(owner))) for status in statuses}
        return {status: count for status, count in found.items() if count}

    def letter_groups(self, owner: str | None) -> list[JsonDict]:
        """Open dead letters by kind and code, the largest group first: their number, the newest moment and reason."""
        c = t.dead_letters.c
        newest = func.max(c.id)
        grouped = select(c.kind, c.code, func.count().label("count"), newest.label("newest"))
        query = grouped.where(c.state == _OPEN, *_of_owner(c.intent_id, owner)).group_by(c.kind, c.code)

        def ask(connection: Connection) -> list[JsonDict]:
            groups = [
                dict(row) for row in connection.execute(query.order_by(func.count().desc()).limit(200)).mappings()
            ]
            letters = select(*columns(DeadLetter)).where(c.id.in_([group["newest"] for group in groups]))
            by_id = {row["id"]: to_record(DeadLetter, row) for row in connection.execute(letters).mappings()}
            return [{**group, "newest": by_id[group["newest"]]} for group in groups if group["newest"] in by_id]

        return self._access.ask(ask)

    def find_letters(
        self, filters: JsonDict, owner: str | None, after: str | None, limit: int
    ) -> list[tuple[DeadLetter, Intent | None]]:
        """Dead letters with their intents, newest first; filters: state, kind, code."""
        c = t.dead_letters.c
        query = select(*columns(DeadLetter, "d_"), *columns(Intent, "i_")).select_from(t.dead_letters)
        query = query.outerjoin(t.intents, t.intents.c.id == c.intent_id).where(*_owned(owner))
        for name in ("state", "kind", "code"):
            if filters.get(name):
                query = query.where(c[name] == filters[name])
        if after is not None:
            query = query.where(c.id < after)
        query = query.order_by(c.id.desc()).limit(limit)

        def ask(connection: Connection) -> list[tuple[DeadLetter, Intent | None]]:
            rows = connection.execute(query).mappings()
            return [
                (to_record(DeadLetter, row, "d_"), to_record(Intent, row, "i_") if row["i_id"] else None)
                for row in rows
            ]

        return self._access.ask(ask)

    def count_letters(self, owner: str | None) -> int:
        """How many dead letters are open."""
        c = t.dead_letters.c
        return self._count(select(c.id).where(c.state == _OPEN, *_of_owner(c.intent_id, owner)))

    def find_deliveries(
        self, filters: JsonDict, owner: str | None, after: tuple[datetime, str] | None, limit: int
    ) -> list[Delivery]:
        """What waits in the outbox, the next to leave first; filters: kind, failing (has failed before), due_at."""
        c = t.outbox.c
        query = select(*columns(Delivery)).where(*_of_owner(c.intent_id, owner))
        if filters.get("kind"):
            query = query.where(c.kind == filters["kind"])
        if filters.get("failing"):
            query = query.where(c.attempts > 0)
        if filters.get("due_at") is not None:
            query = query.where(c.next_at <= filters["due_at"])
        if after is not None:
            query = query.where(tuple_(c.next_at, c.id) > tuple_(literal(after[0], t.Moment()), literal(after[1])))
        query = query.order_by(c.next_at, c.id).limit(limit)
        return self._access.ask(lambda conn: [to_record(Delivery, row) for row in conn.execute(query).mappings()])

    def throughput(self, since: datetime, bucket_seconds: int, owner: str | None) -> list[tuple[int, str, int]]:
        """Intents by when they were submitted or ended: (start of the bucket in epoch seconds, what, how many)."""
        c = t.intents.c

        def ask(connection: Connection) -> list[tuple[int, str, int]]:
            found: list[tuple[int, str, int]] = []
            for what, moment in ((literal("SUBMITTED"), c.created_at), (c.status, c.ended_at)):
                bucket = _bucket(connection, moment, bucket_seconds)
                query = select(bucket.label("at"), what.label("what"), func.count().label("many"))
                query = query.where(moment >= since, *_owned(owner)).group_by("at", "what")
                found += [(int(row.at), str(row.what), int(row.many)) for row in connection.execute(query)]
            return found

        return self._access.ask(ask)

    def waited(self, since: datetime, owner: str | None) -> list[tuple[datetime, datetime, str]]:
        """Human waits that closed since then: (opened, closed, status), the newest first, at most 5,000."""
        c = t.waits.c
        query = (
            select(c.opened_at, c.closed_at, c.status)
            .where(c.kind == _HUMAN, c.closed_at >= since, *_of_owner(c.intent_id, owner))
            .order_by(c.closed_at.desc())
            .limit(CHART_ROWS)
        )
        return self._access.ask(lambda conn: [tuple(row) for row in conn.execute(query)])

    def _count(self, query: Select[Any]) -> int:
        counted = select(func.count()).select_from(query.limit(MOST_COUNTED).subquery())
        return self._access.ask(lambda c: int(c.scalar(counted) or 0))


def _owned(owner: str | None) -> list[ColumnElement[bool]]:
    """Of this owner; of the whole house, without one."""
    return [] if owner is None else [t.intents.c.owner == owner]


def _of_owner(intent_id: ColumnElement[Any], owner: str | None) -> list[ColumnElement[bool]]:
    """The same where the intent is not selected too."""
    if owner is None:
        return []
    return [exists().where(t.intents.c.id == intent_id, t.intents.c.owner == owner)]


def _bucket(connection: Connection, moment: ColumnElement[Any], seconds: int) -> ColumnElement[Any]:
    if connection.dialect.name == "sqlite":
        epoch: ColumnElement[Any] = cast(func.strftime("%s", moment), Integer)
    else:
        epoch = cast(func.floor(extract("epoch", cast(moment, DateTime(timezone=True)))), Integer)
    return epoch - epoch % seconds


__all__ = ["MOST_COUNTED", "SqlViews"]
