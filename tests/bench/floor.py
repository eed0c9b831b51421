"""The floor: the row of a checkpoint, inserted and committed by the bare driver. Nothing durable can be faster."""

from __future__ import annotations

import json
import sqlite3
import time
import uuid
from collections.abc import Callable

import psycopg

from tests.bench.harness import Case, Figures
from tests.bench.timing import step_figures
from tests.bench.turn import Turn

POSTGRES = "bare insert, PostgreSQL"
SQLITE = "bare insert, SQLite"

#: What a small step returns: some 50 bytes of JSON.
VALUE = {"page": 47, "rows": 1000, "file": "2026-10/page-047.csv"}

TABLE = """
CREATE TABLE checkpoint (
    leg_id {uuid} NOT NULL, name text NOT NULL, nth integer NOT NULL, position integer NOT NULL, run integer NOT NULL,
    value text NOT NULL, recorded_at {moment} NOT NULL, PRIMARY KEY (leg_id, name, nth)
)
"""
INSERT = "INSERT INTO checkpoint VALUES ({p}, {p}, {p}, {p}, {p}, {p}, {now})"


def postgres(turn: Turn) -> Figures:
    """psycopg in autocommit; it prepares the statement by itself after a few calls."""
    statement = INSERT.format(p="%s", now="clock_timestamp()")
    with psycopg.connect(turn.postgres_libpq, autocommit=True) as connection:
        connection.execute(TABLE.format(uuid="uuid", moment="timestamptz"))
        return _insert(lambda row: connection.execute(statement, row), uuid.uuid4(), turn.pick(5000, 1000))


def sqlite(turn: Turn) -> Figures:
    """sqlite3 in autocommit, WAL, synchronous=FULL: every commit is on the disk before the next."""
    statement = INSERT.format(p="?", now="strftime('%Y-%m-%d %H:%M:%f', 'now')")
    connection = sqlite3.connect(turn.directory / "floor.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute(TABLE.format(uuid="text", moment="text"))
    try:
        return _insert(lambda row: connection.execute(statement, row), str(uuid.uuid4()), turn.pick(5000, 1000))
    finally:
        connection.close()


def _insert(execute: Callable[[tuple[object, ...]], object], leg_id: object, count: int) -> Figures:
    taken = []
    for nth in range(count):
        before = time.perf_counter()
        execute((leg_id, "publish_page", nth, nth, 1, json.dumps(VALUE)))
        taken.append(time.perf_counter() - before)
    return step_figures([taken])


STEPS = (Case(subject=POSTGRES, run=postgres), Case(subject=SQLITE, run=sqlite))
