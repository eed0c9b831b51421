"""A worker does not grow with the intents it has carried: threads, connections and open files stay what they were."""

from __future__ import annotations

import psutil
import psycopg
import pytest

from tests.servers import libpq_url

from .harness import Stage

INTENTS = 500
#: Connections and files that may be opened in between.
FEW = 5


def of_parent(pid: int) -> dict[str, int]:
    """What a worker's parent holds."""
    parent = psutil.Process(pid)
    established = [c for c in parent.net_connections() if c.status == psutil.CONN_ESTABLISHED]
    return {"threads": parent.num_threads(), "connections": len(established), "files": parent.num_fds()}


def of_child(stage: Stage) -> dict[str, object]:
    """What its one pool child holds, asked from inside."""
    return stage.project.inside.delay().get(timeout=20)


def sessions(stage: Stage) -> int:
    """Connections that PostgreSQL counts to the ledger, but for the one that asks."""
    with psycopg.connect(libpq_url(stage.config["axme_ledger_url"])) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).fetchone()
    assert row is not None
    return row[0]


def carry(stage: Stage, count: int) -> None:
    """So many intents, some of which rest in between."""
    works = [stage.project.small.s(n) for n in range(count - 20)]
    works += [stage.project.nap.s(f"nap-{count}-{n}", 0.05) for n in range(20)]
    for intent in stage.axme.submit_many(works):
        intent.wait(60)
    stage.axme.drain(5)


@pytest.mark.slow
def test_five_hundred_intents_leave_a_worker_as_it_was(open_stage):
    """Counted in parent and child, and by PostgreSQL, after fifty and after five hundred more."""
    stage = open_stage(ledger="postgres", axme_tick_seconds=1.0, axme_lease_seconds=15.0)
    worker = stage.worker(concurrency=1, beat=True)
    carry(stage, 50)
    parent_before, child_before, sessions_before = of_parent(worker.pid), of_child(stage), sessions(stage)

    carry(stage, INTENTS)

    parent, child = of_parent(worker.pid), of_child(stage)
    grown_bytes = child["rss"] - child_before["rss"]
    print(f"parent {parent}, child {child}, {sessions(stage)} sessions; the child grew by {grown_bytes / 1024:.0f} KB")
    assert child["pid"] == child_before["pid"]
    assert child["threads"] == child_before["threads"]
    # What is opened once, when first needed (the parent's relay and connections, should it have had to sweep), may be
    # opened in between; what is opened for each intent would be hundreds.
    assert parent["threads"] <= parent_before["threads"] + 1
    for now, before in ((child, child_before), (parent, parent_before)):
        assert now["connections"] <= before["connections"] + FEW
        assert now["files"] <= before["files"] + FEW
    assert sessions(stage) <= sessions_before + FEW
    # Caches of statements fill up in the beginning; a leak of what an intent is made of would be far more.
    assert grown_bytes < 8 * 2**20


def test_a_leg_that_rests_leaves_nothing_behind_in_its_worker(open_stage):
    """No exception that left it holds its frames until the next full garbage collection: that was megabytes a minute."""
    stage = open_stage(axme_tick_seconds=1.0, axme_lease_seconds=15.0)
    stage.worker(concurrency=1, beat=True)
    carry(stage, 30)
    before = of_child(stage)

    for intent in stage.axme.submit_many([stage.project.nap.s(f"rest-{n}", 0.05) for n in range(100)]):
        intent.wait(60)

    after = of_child(stage)
    assert after["pid"] == before["pid"]
    print(f"{after['garbage'] - before['garbage']} objects were garbage after 100 legs that rested")
    assert after["garbage"] - before["garbage"] < 100 * 20
