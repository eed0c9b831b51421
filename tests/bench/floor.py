"""The floors: what the bare driver takes for what must be on the disk. Nothing durable can be faster.

Of a step it is the row of a checkpoint, inserted and committed; of a flow, the three commits of its life around an
ordinary Celery task.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
import uuid
from collections.abc import Callable
from typing import Any

import psycopg

from tests.bench import celery_plain
from tests.bench.harness import Case, Figures
from tests.bench.processes import Program, celery_worker
from tests.bench.timing import step_figures
from tests.bench.turn import Turn

POSTGRES = "bare insert, PostgreSQL"
SQLITE = "bare insert, SQLite"
FLOW = "plain Celery and three bare commits, PostgreSQL"
APP = "tests.bench.apps.floor_app"

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


def start(turn: Turn) -> tuple[Any, Program]:
    """The task of which three commits are made, and its worker."""
    os.environ["BENCH_FLOOR"] = turn.postgres_libpq
    from tests.bench.apps import floor_app

    with psycopg.connect(turn.postgres_libpq, autocommit=True) as connection:
        connection.execute(floor_app.TABLE)
    return floor_app.recorded, turn.start(lambda: celery_worker(APP, turn.log))


def one_leg(turn: Turn) -> Figures:
    task, _ = start(turn)
    return celery_plain.one_leg_of(turn, task)


ONE_LEG = (Case(subject=FLOW, run=one_leg, against=celery_plain.PLAIN),)
STEPS = (Case(subject=POSTGRES, run=postgres), Case(subject=SQLITE, run=sqlite))
