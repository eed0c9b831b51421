"""What changes write: rows sorted by the statement that writes them; and how to recognise that they were written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Protocol

from sqlalchemy import Connection, Table, select

from .. import audit
from ..desk import LinkState
from ..errors import StaleChange
from ..graph import Join
from ..ids import uuid7
from ..model import (
    Change,
    Checkpoint,
    Delivery,
    DeliveryKind,
    Event,
    Fence,
    Intent,
    Leg,
    Wait,
    WaitKind,
    WaitStatus,
)
from . import statements
from . import tables as t
from .driver import Prepared, Row, Whole
from .people import EVERYBODY, NEVER
from .rows import changed, to_row

#: A delivery due within this is sent by the process that committed it; the others are the sweep's.
OWN_SECONDS = 3.0
#: How long the sweep leaves the committing process alone with its delivery.
HOLD_SECONDS = 5.0
#: So many a process sends in a second, if it is not the fastest.
SENT_A_SECOND = 300


#: A sheet of at most so many rows is written in one statement, where the database can.
WHOLE_ROWS = 12


class Writer(Protocol):
    """Runs statements: a ``Driver``, or a caller's connection."""

    def run(self, prepared: Prepared, rows: Sequence[Row]) -> int: ...
    def fetch(self, prepared: Prepared, row: Row) -> Sequence[Any]: ...


class CallersConnection:
    """The connection of a caller, which may have any driver: SQLAlchemy runs the statements there."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def run(self, prepared: Prepared, rows: Sequence[Row]) -> int:
        # One by one: not every driver can count the rows of many.
        return sum(self._connection.execute(prepared.statement, dict(row)).rowcount for row in rows)

    def fetch(self, prepared: Prepared, row: Row) -> Sequence[Any]:
        return self._connection.execute(prepared.statement, dict(row)).all()


@dataclass(frozen=True)
class Sealed:
    """A change with its events hashed: the same bytes at every try, so that a lost reply can be cleared up."""

    change: Change
    events: tuple[Event, ...]
    #: Has these events told to subscriptions. Written where there are any, or where the intent names a URL itself.
    fanout: Delivery | None


def seal(change: Change, key: bytes | None) -> Sealed:
    """Put the change's events into the intent's audit chain."""
    head = change.was.head_hash if change.was is not None else audit.GENESIS
    events = audit.seal_all(change.events, head, key)
    if events and change.intent is not None:
        change = replace(change, intent=replace(change.intent, head_hash=events[-1].hash))
    return Sealed(change, events, _fanout(change, events))


def _fanout(change: Change, events: tuple[Event, ...]) -> Delivery | None:
    if not events or change.intent is None:
        return None
    return Delivery(
        id=uuid7(), kind=DeliveryKind.FANOUT, intent_id=change.intent.id, next_at=events[-1].at,
        body={"since": events[0].seq - 1, "until": events[-1].seq},
    )  # fmt: skip


def names_url(change: Change) -> bool:
    """Whether the intent itself has its end told to a URL, and this is it."""
    return change.intent is not None and change.intent.notify is not None and change.intent.status.is_final


# -- the sheet ------------------------------------------------------------------


@dataclass
class _Batch:
    rows: list[Row] = field(default_factory=list)
    #: Says of each row what no longer holds should it hit nothing; empty where hitting nothing is fine.
    refusals: list[str] = field(default_factory=list)


class Sheet:
    """The rows of one commit, each statement's together: many changes are few statements."""

    def __init__(self, is_sqlite: bool) -> None:
        self._is_sqlite = is_sqlite
        self._fences: list[Fence] = []
        #: Joins of which one more member arrives, and those that found to have all of them when last written.
        self._counts: list[str] = []
        self._full: list[str] | None = None
        self._in_order = False
        self._lefts: list[int] = []
        # In the order in which they are written: intents, legs, waits, the rest. Everybody locks in this order,
        # and within a table by id, so that two writers never wait for each other.
        self._batches: dict[Prepared, _Batch] = {}
        #: Once written: whether rows of ``insert_if_subscribed`` were wanted. One transaction, one answer for them all.
        self.was_subscribed = False

    def write(self, to: Writer) -> None:
        """Write everything, or raise StaleChange: the caller rolls back."""
        self._full = None
        for fence in self._fences:
            hold_run(to, fence, self._is_sqlite)
        for prepared, batch in self._batches.items():
            done = to.run(prepared, batch.rows)
            self._note(prepared, done)
            if batch.refusals and done != len(batch.rows):
                others = f", or of {len(batch.rows) - 1} others the same" if len(batch.rows) > 1 else ""
                raise StaleChange(batch.refusals[0] + others)
        # Last of all, for everybody in a group waits here for everybody else's commit.
        self._full = [join_id for join_id in sorted(self._counts) if self._count(to, join_id)]

    def _count(self, to: Writer, join_id: str) -> bool:
        found = to.fetch(statements.count_down(self._is_sqlite), {"id": join_id})
        if not found:
            raise StaleChange(f"join {join_id} has all its members already")
        return bool(found[0][0] == 0)

    def reached(self, counts: Sequence[str]) -> tuple[str, ...]:
        """Of these joins, those that now have all their members; all of them where that is not known."""
        return tuple(counts) if self._full is None else tuple(one for one in counts if one in self._full)

    def count(self, join_id: str) -> None:
        """One more member of this join arrives."""
        self._counts.append(join_id)

    def grow(self, join_id: str, size: int) -> None:
        """A join of so many members gets one more; it must not have all of them yet."""
        self._add(statements.grow(self._is_sqlite), {"id": join_id, "is_size": size}, f"join {join_id} has moved on")

    def close_rest(self, prepared: Prepared, row: Row) -> None:
        """Run a statement that closes what is open, however many rows those are, and after what else is written of them."""
        self._in_order = True
        self._add(prepared, row)

    def whole(self, *, durable: bool) -> Whole | None:
        """The same as one statement; None where it is not to be had.

        So it is on SQLite, with fences, with many rows, and where one statement must see what another has written.
        """
        rows = sum(len(batch.rows) for batch in self._batches.values())
        if self._is_sqlite or self._fences or self._in_order or not 0 < rows <= WHOLE_ROWS:
            return None
        parts = [
            (prepared, row, bool(batch.refusals)) for prepared, batch in self._batches.items() for row in batch.rows
        ]
        refusals = [words for batch in self._batches.values() for words in batch.refusals]
        count_down = statements.count_down(self._is_sqlite)
        parts += [(count_down, {"id": join_id}, True) for join_id in sorted(self._counts)]
        refusals += [f"join {join_id} has all its members already" for join_id in self._counts]
        counted = [statements.insert_if_subscribed(self._is_sqlite), count_down]
        return Whole(parts, " or ".join(refusals), self._note, counted, durable=durable)

    def _note(self, prepared: Prepared, rows: int) -> None:
        if prepared is statements.insert_if_subscribed(self._is_sqlite):
            self.was_subscribed = rows > 0
        elif prepared is statements.count_down(self._is_sqlite):
            # In the order of the joins' ids.
            self._lefts.append(rows)
            self._full = [
                join_id for join_id, left in zip(sorted(self._counts), self._lefts, strict=False) if left == 0
            ]

    def fence(self, fence: Fence) -> None:
        """Demand that this claim still is the running one."""
        self._fences.append(fence)

    def insert(self, table: Table, row: Row) -> None:
        """A row that must be new: else another writer was first."""
        self._add(statements.insert(table, self._is_sqlite), row)

    def insert_new(self, table: Table, row: Row) -> None:
        """A row that may be there already."""
        self._add(statements.insert_new(table, self._is_sqlite), row)

    def insert_if_subscribed(self, row: Row) -> None:
        """An outbox row that is written where anybody subscribed to intents, as this transaction sees it."""
        self._add(statements.insert_if_subscribed(self._is_sqlite), row)

    def update(self, table: Table, values: Row, guards: Row, refusal: str = "") -> None:
        """Set these columns of the row of which the guards hold; with ``refusal`` there must be one."""
        self._add(*self.prepared(table, values, guards), refusal)

    def prepared(self, table: Table, values: Row, guards: Row) -> tuple[Prepared, Row]:
        """The statement of an update, and its row."""
        statement = statements.update(table, tuple(values), tuple(guards), self._is_sqlite)
        row = {f"set_{name}": value for name, value in values.items()}
        return statement, row | {f"is_{name}": value for name, value in guards.items()}

    def delete(self, table: Table, guards: Row) -> None:
        """Delete the row of which the guards hold."""
        prepared = statements.delete(table, tuple(guards), self._is_sqlite)
        self._add(prepared, {f"is_{name}": value for name, value in guards.items()})

    def delete_all(self, table: Table, ids: Sequence[str]) -> None:
        """Delete the rows of these ids, as far as they are there."""
        if ids:
            self._add(statements.delete_all(table, self._is_sqlite), {"ids": list(ids)})

    def _add(self, prepared: Prepared, row: Row, refusal: str = "") -> None:
        batch = self._batches.setdefault(prepared, _Batch())
        batch.rows.append(row)
        if refusal:
            batch.refusals.append(refusal)


def sheet_of(sealed: Sequence[Sealed], now: datetime, *, own: bool, is_sqlite: bool) -> Sheet:
    """Everything these changes write. ``own``: this process will send what is due at once."""
    sheet = Sheet(is_sqlite)
    changes = sorted((one.change for one in sealed), key=_place)
    for change in changes:
        _intent(sheet, change)
    for change in changes:
        _legs(sheet, change)
    for change in changes:
        if change.rest is not None:
            rest = change.rest._asdict()
            sheet.close_rest(statements.close_legs(is_sqlite, rest.pop("called_too")), rest)
        for source, target in change.moves:
            for table in (t.checkpoints, t.waits):
                sheet.close_rest(*sheet.prepared(table, {"leg_id": target}, {"leg_id": source}))
    for change in changes:
        _waits(sheet, change)
    _links(sheet, changes, now)
    for change in changes:
        if change.fence is not None:
            sheet.fence(change.fence)
    for event in (event for one in sealed for event in one.events):
        sheet.insert(t.events, to_row(event))
    many = sum(len(change.outbox) for change in changes)
    for change in changes:
        for checkpoint in change.checkpoints:
            sheet.insert(t.checkpoints, to_row(checkpoint))
        for delivery in change.outbox:
            sheet.insert_new(t.outbox, _outbox_row(delivery, now, own=own, among=many))
        _early(sheet, change)
        _dead(sheet, change, now)
    for one in sealed:
        if one.fanout is not None:
            row = _outbox_row(one.fanout, now, own=own)
            if names_url(one.change):
                sheet.insert_new(t.outbox, row)
            else:
                sheet.insert_if_subscribed(row)
    for change in changes:
        _joins(sheet, change)
        if change.rest is not None:
            sheet.close_rest(statements.close_joins(is_sqlite), {"intent_id": change.rest.intent_id})
    return sheet


def with_fanout(sealed: Sequence[Sealed], sheet: Sheet) -> tuple[Change, ...]:
    """The changes as written, with the fan-outs among what must leave, as far as they are known to be there.

    One that is there unnoticed is the sweep's.
    """
    return tuple(
        replace(one.change, outbox=(*one.change.outbox, one.fanout))
        if one.fanout is not None and (sheet.was_subscribed or names_url(one.change))
        else one.change
        for one in sealed
    )


def _place(change: Change) -> str:
    if change.intent is not None:
        return change.intent.id
    return change.legs[0][1].intent_id if change.legs else ""


def _intent(sheet: Sheet, change: Change) -> None:
    intent = change.intent
    if intent is None:
        return
    if change.was is None:
        sheet.insert(t.intents, to_row(intent))
        for tag in intent.tags:
            sheet.insert_new(t.tags, {"tag": tag, "intent_id": intent.id})
        return
    sheet.update(
        t.intents,
        changed(change.was, intent),
        {"id": intent.id, "seq": change.before},
        f"intent {intent.id} has moved on from seq {change.before}",
    )


def _legs(sheet: Sheet, change: Change) -> None:
    for was, leg in change.legs:
        if was is None:
            sheet.insert(t.legs, to_row(leg))
            continue
        sheet.update(
            t.legs,
            changed(was, leg) or {"status": leg.status.value},
            {"id": leg.id, "status": was.status.value, "run": was.run, "token": was.token},
            f"leg {leg.id} is no longer {was.status.value} at run {was.run}",
        )


def _joins(sheet: Sheet, change: Change) -> None:
    for was, join in change.joins:
        if was is None:
            sheet.insert(t.joins, to_row(join))
            continue
        sheet.update(
            t.joins,
            _but_counter(changed(was, join)) or {"status": join.status.value},
            {"id": join.id, "status": was.status.value},
            f"join {join.id} is no longer {was.status.value}",
        )
    for join_id in change.counts:
        sheet.count(join_id)
    for join_id, size in change.grows:
        sheet.grow(join_id, size)


def _but_counter(columns: Row) -> Row:
    # The counter moves by itself; nobody sets it.
    return {name: value for name, value in columns.items() if name not in ("left", "size")}


def _waits(sheet: Sheet, change: Change) -> None:
    for was, wait in change.waits:
        if was is None:
            sheet.insert(t.waits, to_row(wait))
        else:
            sheet.update(
                t.waits,
                changed(was, wait) or {"status": wait.status.value},
                {"id": wait.id, "status": was.status.value},
                f"wait {wait.id} is no longer {was.status.value}",
            )
        if wait.kind is WaitKind.HUMAN:
            _desks(sheet, change.intent, was, wait)


def _desks(sheet: Sheet, intent: Intent | None, was: Wait | None, wait: Wait) -> None:
    """In whose inbox the wait is, until when, and who may not answer it."""
    if was is None and wait.status is not WaitStatus.OPEN:
        # Brought along from the intent this one repeats: nobody was asked anew.
        return
    desk = {"wanted_at": wait.wanted_at or NEVER, "closed_at": wait.closed_at}
    before, after = (set(was.to), set(wait.to)) if was is not None else (set(), {EVERYBODY, *wait.to})
    for owner in sorted(after - before):
        narrowed = {
            "task_type": wait.request.get("task_type"),
            "intent_type": intent.type if intent is not None else None,
            "intent_owner": intent.owner if intent is not None else None,
        }
        sheet.insert_new(t.wait_owners, {"owner": owner, "wait_id": wait.id, **narrowed, **desk})
    for owner in sorted(before - after):
        sheet.delete(t.wait_owners, {"owner": owner, "wait_id": wait.id})
    if was is not None and (was.wanted_at, was.closed_at) != (wait.wanted_at, wait.closed_at):
        sheet.update(t.wait_owners, desk, {"wait_id": wait.id})
    if wait.status is not WaitStatus.OPEN:
        return
    # What keeps somebody out is written before what only they themselves did: of two of one name the first stays.
    kept_out = [(name, False) for name in wait.excluded] if was is None else []
    kept_out += [(name, True) for name in wait.done - (was.done if was is not None else frozenset())]
    for name, personal in sorted(kept_out):
        sheet.insert_new(t.wait_barred, {"wait_id": wait.id, "name": name[:255], "personal": personal})


def _links(sheet: Sheet, changes: Sequence[Change], now: datetime) -> None:
    """Links issued and used up; and revoked, where the wait is no longer for their recipient."""
    for change in changes:
        for was, link in change.links:
            if was is None:
                sheet.insert(t.links, to_row(link))
            else:
                sheet.update(
                    t.links, changed(was, link), {"hash": link.hash, "state": was.state.value},
                    "the link has been used, or is no longer good",
                )  # fmt: skip
    for wait_was, wait in (pair for change in changes for pair in change.waits):
        # Those to a wait that closes need no writing: nobody answers a closed wait.
        for gone in sorted(set(wait_was.to) - set(wait.to)) if wait_was is not None else ():
            revoked = {"state": LinkState.REVOKED.value, "closed_at": now}
            for state in (LinkState.OPEN, LinkState.USED):
                sheet.update(t.links, revoked, {"wait_id": wait.id, "recipient": gone, "state": state.value})


def _outbox_row(delivery: Delivery, now: datetime, *, own: bool, among: int = 1) -> Row:
    soon = delivery.next_at <= now + timedelta(seconds=OWN_SECONDS)
    # Of very many, the last leave much later than the first.
    hold = timedelta(seconds=HOLD_SECONDS + among / SENT_A_SECOND)
    held_until = delivery.next_at + hold if own and soon else None
    return to_row(delivery) | {"held_until": held_until}


def _early(sheet: Sheet, change: Change) -> None:
    for early in change.early:
        if early.wait_id is None:
            sheet.insert_new(t.early_answers, to_row(early))
        else:
            sheet.update(t.early_answers, {"wait_id": early.wait_id}, {"tool": early.tool, "job_id": early.job_id})


def _dead(sheet: Sheet, change: Change, now: datetime) -> None:
    for letter in change.dead:
        sheet.insert_new(t.dead_letters, to_row(letter))
    for letter_id, state, replayed_as, closed_by, reason in change.closes:
        sheet.update(
            t.dead_letters,
            {
                "state": state,
                "replayed_as": replayed_as,
                "closed_by": closed_by,
                "closed_at": now,
                "closed_reason": reason,
            },
            {"id": letter_id, "state": "OPEN"},
            f"dead letter {letter_id} is no longer open",
        )


def hold_run(to: Writer, fence: Fence, is_sqlite: bool) -> None:
    """Lock the leg's row while this claim still is the running one. Raises StaleChange."""
    if not to.fetch(statements.hold_run(is_sqlite), fence._asdict()):
        raise StaleChange(f"run {fence.run} of leg {fence.leg_id} is not the running one any more")


def put_checkpoint(to: Writer, checkpoint: Checkpoint, is_sqlite: bool) -> None:
    """Insert a checkpoint, or complete the STARTED marker that stands in its place."""
    to.run(statements.insert_checkpoint(is_sqlite), [to_row(checkpoint)])


# -- a lost reply -----------------------------------------------------------------


def proof_of(sealed: Iterable[Sealed]) -> Callable[[Connection], bool]:
    """How to tell whether these very changes are in the ledger, after a COMMIT whose reply was lost.

    They were one transaction, so the first trace that could be nobody else's stands for all: the hash of an event,
    a leg's new state, who closed a dead letter. What leaves no such trace (heartbeats, early answers) may simply be
    written again.
    """
    sealed = list(sealed)
    for one in sealed:
        if one.events:
            return _event_is_there(one.events[-1])
    for change in (one.change for one in sealed):
        for was, leg in change.legs:
            if was is None or _identity(leg) != _identity(was):
                return _leg_is_there(leg)
        for was_join, join in change.joins:
            if was_join is not None:
                return _join_is_there(join)
        for letter_id, *closed, _ in change.closes:
            return _letter_is_closed(letter_id, closed)
    return lambda connection: False


# Each builds its query only when it is asked: that takes longer than all else at a commit, and hardly any reply is lost.


def _event_is_there(event: Event) -> Callable[[Connection], bool]:
    def is_there(connection: Connection) -> bool:
        c = t.events.c
        found = connection.scalar(select(c.hash).where(c.intent_id == event.intent_id, c.seq == event.seq))
        return bool(found == event.hash)

    return is_there


def _leg_is_there(leg: Leg) -> Callable[[Connection], bool]:
    def is_there(connection: Connection) -> bool:
        c = t.legs.c
        row_of = select(c.status, c.run, c.token, c.attempts, c.resends).where(c.id == leg.id)
        return tuple(connection.execute(row_of).first() or ()) == _identity(leg)

    return is_there


def _identity(leg: Leg) -> tuple[Any, ...]:
    return leg.status.value, leg.run, leg.token, leg.attempts, leg.resends


def _join_is_there(join: Join) -> Callable[[Connection], bool]:
    status_of = select(t.joins.c.status).where(t.joins.c.id == join.id)
    return lambda connection: connection.scalar(status_of) == join.status.value


def _letter_is_closed(letter_id: str, closed: Sequence[str | None]) -> Callable[[Connection], bool]:
    def is_closed(connection: Connection) -> bool:
        c = t.dead_letters.c
        row_of = select(c.state, c.replayed_as, c.closed_by).where(c.id == letter_id)
        return list(connection.execute(row_of).first() or ()) == list(closed)

    return is_closed
