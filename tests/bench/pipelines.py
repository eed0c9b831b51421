"""Chains of 50 and groups up to 10,000: the ledger's pipelines beside plain Celery's canvas and the peers' flows."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from tests.bench import absurd_peer, celery_plain, dbos_peer, ours
from tests.bench.harness import Case, Figures
from tests.bench.processes import celery_worker, settle
from tests.bench.timing import sample_throughput, wait_until
from tests.bench.turn import Turn

LINKS = 50
PLAIN_CHAIN = "plain Celery, chain (not durable)"
PLAIN_CHORD = "plain Celery, chord of {} (not durable)"


def _chains(turn: Turn, submit: Callable[[int], Any], finished: Callable[[], int]) -> Figures:
    count = turn.pick(40, 8)
    figures = sample_throughput(submit, finished, count=count, every=0.02)
    flows = figures["flows_per_second"]
    assert flows is not None
    return {"flows_per_second": flows, "links_per_second": flows * LINKS}


def plain_chains(turn: Turn) -> Figures:
    from celery import chain

    from tests.bench.apps.celery_app import nothing

    turn.start(lambda: celery_worker(celery_plain.APP, turn.log))
    nothing.delay(0).get(timeout=60)
    settle()
    canvas = chain(nothing.s(0), *[nothing.s() for _ in range(LINKS - 1)])
    sent: list[Any] = []
    return _chains(turn, lambda _: sent.append(canvas.delay()), _counting(sent, lambda result: result.ready()))


def _counting(sent: list[Any], has_ended: Callable[[Any], bool]) -> Callable[[], int]:
    """Counts those that have ended, without asking twice for one that has."""
    ended = 0

    def count() -> int:
        nonlocal ended
        while sent and has_ended(sent[0]):
            sent.pop(0)
            ended += 1
        return ended

    return count


def our_chains(turn: Turn, *, database: str) -> Figures:
    from celery import chain

    app = ours.prepare(turn, database)
    turn.start(lambda: celery_worker(ours.APP, turn.log))
    app.axme.submit(app.nothing.s(0)).wait(60)
    settle()
    canvas = chain(app.nothing.s(0), *[app.nothing.s() for _ in range(LINKS - 1)])
    sent: list[Any] = []
    ended = _counting(sent, lambda intent: intent.refresh().status.is_final)
    return _chains(turn, lambda _: sent.append(app.axme.submit(canvas)), ended)


def dbos_flows(turn: Turn) -> Figures:
    """A workflow of 50 steps: a flow is one unit of work there, and its steps run where it runs."""
    import sqlalchemy
    from dbos import DBOSClient

    from tests.bench.apps.dbos_app import QUEUE

    url = turn.postgres_libpq
    dbos_peer.start_worker(turn, url, dbos_peer.TUNED_POLL_SECONDS)
    client = DBOSClient(system_database_url=url)
    client.enqueue({"queue_name": QUEUE, "workflow_name": "steps"}, LINKS).get_result(polling_interval_sec=0.01)
    engine = sqlalchemy.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    count = sqlalchemy.text("SELECT count(*) FROM dbos.workflow_status WHERE status = 'SUCCESS'")

    def finished() -> int:
        with engine.connect() as connection:
            return int(connection.execute(count).scalar_one()) - 1

    figures = _chains(turn, lambda _: client.enqueue({"queue_name": QUEUE, "workflow_name": "steps"}, LINKS), finished)
    client.destroy()
    return figures


def absurd_flows(turn: Turn) -> Figures:
    """A task of 50 steps, which runs where it was claimed."""
    import psycopg

    from tests.bench.apps import absurd_app

    url = turn.postgres_libpq
    absurd_app.install(url)
    client = absurd_app.connect(url)
    absurd_peer.start_worker(turn, poll_seconds=absurd_peer.TUNED_POLL_SECONDS)
    with psycopg.connect(url, autocommit=True) as connection:

        def finished() -> int:
            row = connection.execute(
                f"SELECT count(*) FROM absurd.t_{absurd_app.QUEUE} WHERE state = 'completed'"
            ).fetchone()
            return int(row[0]) if row else 0

        client.spawn("steps", {"count": LINKS})
        wait_until(lambda: finished() == 1, seconds=60, what="the first flow")
        figures = _chains(turn, lambda _: client.spawn("steps", {"count": LINKS}), lambda: finished() - 1)
    client.close()
    return figures


# -- groups --------------------------------------------------------------------------------


def _group(members: int, submit: Callable[[], Any], wait: Callable[[Any], Any]) -> Figures:
    started = time.perf_counter()
    sent = submit()
    submitted = time.perf_counter()
    wait(sent)
    taken = time.perf_counter() - started
    return {
        "submit_s": submitted - started, "done_s": taken, "legs_per_second": members / taken,
        "ms_per_leg": taken / members * 1000,
    }  # fmt: skip


def plain_chord(turn: Turn, *, members: int) -> Figures:
    from celery import chord

    from tests.bench.apps.celery_app import length, nothing

    turn.start(lambda: celery_worker(celery_plain.APP, turn.log))
    chord([nothing.s(0)], length.s()).delay().get(timeout=60)
    settle()
    canvas = chord([nothing.s(number) for number in range(members)], length.s())
    return _group(members, canvas.delay, lambda result: _is(result.get(timeout=200), members))


def our_chord(turn: Turn, *, database: str, members: int) -> Figures:
    from celery import chord

    app = ours.prepare(turn, database)
    turn.start(lambda: celery_worker(ours.APP, turn.log))
    app.axme.submit(chord([app.nothing.s(0)], app.length.s())).wait(60)
    settle()
    canvas = chord([app.nothing.s(number) for number in range(members)], app.length.s())
    return _group(members, lambda: app.axme.submit(canvas), lambda intent: _is(intent.wait(200), members))


def _is(found: object, expected: int) -> None:
    if found != expected:
        raise AssertionError(f"the body got {found!r}, not {expected}")


SIZES = (100, 1000, 10_000)
CHAINS = (
    Case(subject=PLAIN_CHAIN, run=plain_chains),
    *(
        Case(
            subject=f"axme, {database}, submitted chain", run=partial(our_chains, database=database), needs=ours.NEEDS,
            against=PLAIN_CHAIN,
        )
        for database in ours.DATABASES
    ),
    Case(subject="DBOS, PostgreSQL, workflow of 50 steps", run=dbos_flows, needs=dbos_peer.NEEDS, against=PLAIN_CHAIN),
    Case(subject="Absurd, PostgreSQL, task of 50 steps", run=absurd_flows, needs=absurd_peer.NEEDS, against=PLAIN_CHAIN),
)  # fmt: skip
GROUPS = (
    *(
        Case(
            subject=PLAIN_CHORD.format(size), run=partial(plain_chord, members=size), quick=size < 10_000,
            against=PLAIN_CHORD.format(100),
        )
        for size in SIZES
    ),
    *(
        Case(
            subject=f"axme, {database}, chord of {size}", run=partial(our_chord, database=database, members=size),
            needs=ours.NEEDS, quick=size < 10_000, against=f"axme, {database}, chord of 100",
            rounds=None if database == "PostgreSQL" else 1,
        )
        for database in ours.DATABASES
        for size in SIZES
    ),
)  # fmt: skip
