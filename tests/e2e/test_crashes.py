"""Workers, and the database, that die or fall silent: the leg goes on elsewhere, and recorded steps are not done again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest
from celery.exceptions import WorkerLostError

from axme_celery import IntentFailed
from axme_celery.errors import LedgerUnavailable
from tests.servers import PrivatePostgres

from .harness import LEASE_SECONDS, PATIENCE_SECONDS, Program, Stage, make_ledger, until


def worker_of(stage: Stage, pid: int) -> Program:
    """The worker that this process is a pool child of."""
    return next(w for w in stage.programs if w.is_running and pid in {child.pid for child in w.children()})


@pytest.mark.slow
def test_the_leg_of_a_killed_worker_runs_elsewhere_after_a_lease(open_stage):
    """SIGKILL to the whole worker, twice, and then to everything: the broker's visibility timeout is an hour."""
    stage = open_stage()
    beat = stage.beat(ready=False)
    workers = [stage.worker(concurrency=1, ready=False) for _ in range(3)]
    for worker in workers:
        worker.wait_ready(" ready.")
    taken = []
    with stage.held("elsewhere-2"), stage.held("elsewhere-4"), stage.held("elsewhere-6"):
        intent = stage.axme.submit(stage.project.pages.s("elsewhere", 7))
        for run, page in ((1, 2), (2, 4)):
            victim = worker_of(stage, stage.wait_started("elsewhere", page, run=run)["pid"])
            killed_at = time.monotonic()
            victim.kill_group()
            taken.append(stage.wait_started("elsewhere", page, run=run + 1)["at"] - killed_at)
            (stage.folder / f"hold-elsewhere-{page}").unlink()
        last = worker_of(stage, stage.wait_started("elsewhere", 6, run=3)["pid"])
        last.kill_group()
        beat.kill_group()
    assert not [program for program in stage.programs if program.is_running]
    stage.worker(concurrency=1, beat=True)

    assert intent.wait(30) == [1, 2, 3, 4, 5, 6, 7]
    assert stage.pages_done("elsewhere") == [1, 2, 3, 4, 5, 6, 7]
    assert [e["page"] for e in stage.effects("started", "elsewhere")] == [1, 2, 2, 3, 4, 4, 5, 6, 6, 7]
    assert stage.leg(intent).attempts == 4
    print("killed worker to the next run at its step:", ", ".join(f"{s:.2f} s" for s in taken))
    # A lease and 1.5 s is what an idle machine takes; this one also runs other tests.
    assert max(taken) < LEASE_SECONDS + 4.0


def test_a_leg_that_kills_its_worker_every_time_is_given_up(open_stage):
    """``max_attempts`` runs, then a dead letter that names the worker; Celery's callers are told as well."""
    stage = open_stage()
    stage.worker(concurrency=1, beat=True)

    result = stage.project.poison.delay("arsenic")

    with pytest.raises(WorkerLostError, match=r"3 runs of e2e\.poison"):
        result.get(timeout=30)
    intent = stage.intent_of(result)
    with pytest.raises(IntentFailed) as failed:
        intent.wait(10)
    assert failed.value.code == "worker_lost"
    deaths = stage.effects("killing", "arsenic")
    assert len(deaths) == 3
    (letter,) = stage.axme.runtime.ledger.dead_letters_of(intent.id)
    assert letter.code == "worker_lost"
    assert f":{deaths[-1]['pid']}" in letter.reason
    assert stage.project.plain.delay(1).get(timeout=20) == 2


def test_a_worker_that_was_silent_for_longer_than_its_lease_can_do_no_harm(open_stage):
    """SIGSTOP past the lease: another run finishes; the zombie wakes up, records nothing, and begins no further step."""
    stage = open_stage()
    stage.beat(ready=False)
    sleeper = stage.worker(concurrency=1)
    with stage.held("zombie-2"):
        intent = stage.axme.submit(stage.project.pages.s("zombie", 3))
        zombie = stage.wait_started("zombie", 2)
        sleeper.pause_group()
        stage.worker(concurrency=1)
        other = stage.wait_started("zombie", 2, run=2)
    assert intent.wait(20) == [1, 2, 3]
    before = intent.events(), stage.leg(intent), intent.steps()

    sleeper.resume_group()
    until(lambda: "was replaced" in sleeper.text, "the zombie's discovery")

    assert (intent.refresh().events(), stage.leg(intent), intent.steps()) == before
    assert zombie["pid"] != other["pid"]
    assert [e["page"] for e in stage.effects("started", "zombie") if e["pid"] == zombie["pid"]] == [1, 2]
    assert {step.run for step in intent.steps() if step.position > 0} == {2}
    result = stage.project.app.AsyncResult(stage.leg(intent).id)
    assert result.get(timeout=20) == [1, 2, 3]


@pytest.fixture
def crashing_postgres() -> Iterator[PrivatePostgres]:
    """A PostgreSQL to crash; without the machine, so what it wrote need not have reached the disk."""
    with PrivatePostgres(fsync=False) as server:
        yield server


@pytest.fixture
def fragile(crashing_postgres: PrivatePostgres, open_stage) -> Stage:
    """A stage whose ledger is on that PostgreSQL."""
    url = crashing_postgres.create_database()
    make_ledger(url)
    return open_stage(ledger=url)


def test_legs_run_again_after_the_database_crashed_under_them(fragile, crashing_postgres):
    """``-m immediate``: the step that could not be recorded is done again, those that were are not."""
    fragile.worker(beat=True)
    with fragile.held("crash-2"):
        intent = fragile.axme.submit(fragile.project.pages.s("crash", 3))
        asleep = fragile.axme.submit(fragile.project.nap.s("through", 1.5))
        fragile.wait_status(asleep, "WAITING")
        fragile.wait_started("crash", 2)
        crashing_postgres.crash()
    until(lambda: fragile.effects("done", "crash")[-1]["page"] == 2, "end of the step")
    with pytest.raises(LedgerUnavailable):
        fragile.axme.submit(fragile.project.small.s(1))
    crashing_postgres.start()

    assert intent.wait(30) == [1, 2, 3]
    assert asleep.wait(30) == "through"
    assert fragile.pages_done("crash") == [1, 2, 2, 3]
    assert len(fragile.effects("woke", "through")) == 1
    assert fragile.leg(intent).run == 2


def test_a_database_that_is_back_before_a_step_ends_costs_nothing(fragile, crashing_postgres):
    """Connections are made anew; the run goes on as if nothing had been."""
    fragile.worker(beat=True)
    with fragile.held("blink-2"):
        intent = fragile.axme.submit(fragile.project.pages.s("blink", 3))
        fragile.wait_started("blink", 2)
        crashing_postgres.crash()
        crashing_postgres.start()

    assert intent.wait(30) == [1, 2, 3]
    assert fragile.pages_done("blink") == [1, 2, 3]
    assert fragile.leg(intent).run == 1
    again = None
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while again is None and time.monotonic() < give_up_at:
        with contextlib.suppress(LedgerUnavailable):
            again = fragile.axme.submit(fragile.project.small.s(1))
    assert again is not None and again.wait(20) == 1
