"""Records to rows and back. Rows never leave the ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from enum import Enum
from operator import attrgetter
from typing import Any, TypeVar

from sqlalchemy import Table

from ..desk import Link, LinkState
from ..graph import Join, JoinStatus
from ..hooks import HookDelivery, HookEvent, HookStatus, Schema, Subscription
from ..model import (
    Checkpoint,
    DeadLetter,
    Delivery,
    DeliveryKind,
    EarlyAnswer,
    Event,
    Intent,
    Leg,
    LegStatus,
    Recorded,
    Status,
    Wait,
    WaitKind,
    WaitStatus,
)
from ..parties import Agent, Policy
from ..who import Key, Role
from . import tables, tables_hooks

Record = TypeVar("Record")

#: How a column's value becomes a field's, where they differ.
_FROM_ROW: dict[type, dict[str, Callable[[Any], Any]]] = {
    Intent: {"status": Status, "tags": tuple},
    Leg: {"status": LegStatus},
    Join: {"status": JoinStatus},
    Wait: {"kind": WaitKind, "status": WaitStatus, "to": tuple, "votes": tuple, "delegations": tuple},
    Event: {"status": Status},
    Checkpoint: {"recorded": Recorded},
    Delivery: {"kind": DeliveryKind},
    EarlyAnswer: {},
    DeadLetter: {},
    Link: {"state": LinkState, "outcomes": tuple},
    Subscription: {"event_types": tuple, "thin": bool},
    HookEvent: {},
    HookDelivery: {"status": HookStatus, "tries": tuple},
    Schema: {"active": bool},
    Key: {"role": Role, "groups": tuple},
    Agent: {"send": Policy.read, "receive": Policy.read},
}

TABLE_OF: dict[type, Table] = {
    Intent: tables.intents,
    Leg: tables.legs,
    Join: tables.joins,
    Wait: tables.waits,
    Event: tables.events,
    Checkpoint: tables.checkpoints,
    Delivery: tables.outbox,
    EarlyAnswer: tables.early_answers,
    DeadLetter: tables.dead_letters,
    Link: tables.links,
    Subscription: tables_hooks.subscriptions,
    HookEvent: tables_hooks.hook_events,
    HookDelivery: tables_hooks.hook_deliveries,
    Schema: tables_hooks.schemas,
    Key: tables.keys,
    Agent: tables.agents,
}

_FIELDS = {kind: tuple(f.name for f in fields(kind) if f.name in table.c) for kind, table in TABLE_OF.items()}
#: All of them at once: several times faster than one after the other, and every commit asks for dozens.
_VALUES = {kind: attrgetter(*names) for kind, names in _FIELDS.items()}


def to_row(record: Any) -> dict[str, Any]:
    """Every column of a record."""
    kind = type(record)
    row = dict(zip(_FIELDS[kind], _VALUES[kind](record), strict=True))
    for name in _FROM_ROW[kind]:
        row[name] = _plain(row[name])
    return row


def changed(was: Any, now: Any) -> dict[str, Any]:
    """The columns in which two records of one kind differ."""
    kind = type(now)
    values = _VALUES[kind]
    pairs = zip(_FIELDS[kind], values(now), values(was), strict=True)
    return {name: _plain(value) for name, value, before in pairs if value is not before and value != before}


def to_record(kind: type[Record], row: Mapping[Any, Any], prefix: str = "") -> Record:
    """A record from a row; ``prefix`` where columns of several tables were selected together."""
    convert = _FROM_ROW[kind]
    values = {}
    for name in _FIELDS[kind]:
        value = row[prefix + name]
        converter = convert.get(name)
        values[name] = converter(value) if converter is not None and value is not None else value
    return kind(**values)


def decoder(
    kind: type[Record], results: Sequence[Callable[[Any], Any] | None], start: int
) -> Callable[[Sequence[Any]], Record]:
    """Makes records of one kind from rows as the driver gives them, whose columns of it begin at ``start``.

    results: how each column's value becomes ours, None where it is already.
    """
    of_field = _FROM_ROW[kind]
    parts = [
        (name, start + place, _composed(result, of_field.get(name)))
        for place, (name, result) in enumerate(zip(_FIELDS[kind], results, strict=True))
    ]

    def decode(row: Sequence[Any]) -> Record:
        values = {}
        for name, place, convert in parts:
            value = row[place]
            values[name] = value if convert is None or value is None else convert(value)
        return kind(**values)

    return decode


def _composed(first: Callable[[Any], Any] | None, then: Callable[[Any], Any] | None) -> Callable[[Any], Any] | None:
    if first is None or then is None:
        return first or then
    return lambda value: then(first(value))


def columns(kind: type, prefix: str = "") -> list[Any]:
    """The columns to select for ``to_record``."""
    table = TABLE_OF[kind]
    return [table.c[name].label(prefix + name) if prefix else table.c[name] for name in _FIELDS[kind]]


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return value.value if isinstance(value, Enum) else value
