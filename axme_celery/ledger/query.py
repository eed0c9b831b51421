"""Queries for whole records, compiled once and run by the driver."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import JSON, ColumnElement, Select, String, bindparam, func, select
from sqlalchemy.dialects.postgresql import ARRAY

from .driver import Driver, Prepared
from .rows import columns, decoder


class Query:
    """A query for whole records, of one kind or of several side by side."""

    def __init__(self, query: Select[Any], kinds: tuple[type, ...], is_sqlite: bool) -> None:
        self._prepared = Prepared(query, is_sqlite)
        self._decoders: list[Callable[[Sequence[Any]], Any]] = []
        start = 0
        for kind in kinds:
            width = len(columns(kind))
            self._decoders.append(decoder(kind, self._prepared.results[start : start + width], start))
            start += width

    def read(self, driver: Driver, **given: Any) -> list[tuple[Any, ...]]:
        """One tuple for each row, with a record of each kind."""
        return [tuple(decode(row) for decode in self._decoders) for row in driver.fetch(self._prepared, given)]


def among(column: ColumnElement[str], name: str, is_sqlite: bool) -> ColumnElement[bool]:
    """That the column is one of many values, given as one list: the statement is the same however many they are."""
    if is_sqlite:
        given = func.json_each(bindparam(name, type_=JSON)).table_valued("value")
        return column.in_(select(given.c.value))
    return column == func.any(bindparam(name, type_=ARRAY(String)))
