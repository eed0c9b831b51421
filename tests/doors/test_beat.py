"""The beat schedule: our entry beside the project's, and timers that fire once however many beats there are."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from celery import Celery
from celery.beat import Service

from axme_celery import Axme, IntentFailed
from axme_celery.beat import ENTRY, SWEEP_TASK
from tests.e2e.harness import until

THEIRS = {"clean": {"task": "shop.clean", "schedule": 3600.0}}


def an_app() -> Celery:
    return Celery("shop", broker="memory://", set_as_current=False)


# -- the entry ---------------------------------------------------------------------------


def test_the_sweep_is_on_the_schedule_at_every_tick():
    """And a sweep that could not run for long is not kept for later."""
    app = an_app()
    Axme(app)
    app.conf.axme_tick_seconds = 0.5

    entry = app.conf.beat_schedule[ENTRY]

    assert entry["task"] == SWEEP_TASK
    assert entry["schedule"] == 0.5
    assert entry["options"]["expires"] == 10.0


@pytest.mark.parametrize(
    ("conf", "settings"),
    [({"axme_tick_seconds": "500ms"}, {}), ({"AXME_TICK_SECONDS": 0.5}, {}), ({}, {"tick_seconds": 0.5})],
    ids=["as text", "upper case", "given to Axme"],
)
def test_the_tick_is_the_settings_however_it_is_given(conf, settings):
    """The schedule and the rest of the house read one setting."""
    app = an_app()
    app.conf.update(conf)
    axme = Axme(app, **settings)

    assert app.conf.beat_schedule[ENTRY]["schedule"] == axme.settings.tick_seconds == 0.5


def test_a_tick_set_after_the_schedule_was_made_is_beats_when_it_starts():
    """A project may look at its configuration before it has said everything."""
    app = an_app()
    Axme(app)
    assert app.conf.beat_schedule[ENTRY]["schedule"] == 1.0
    app.conf.axme_tick_seconds = 0.25

    service = Service(app, scheduler_cls="celery.beat:Scheduler")
    service.stop()
    service.start()

    assert service.scheduler.schedule[ENTRY].schedule.run_every == timedelta(seconds=0.25)


def test_a_projects_own_schedule_stays_beside_it():
    """Whether it was set before the extension came or after."""
    before, after = an_app(), an_app()
    before.conf.beat_schedule = dict(THEIRS)
    Axme(before)
    Axme(after)
    after.conf.beat_schedule = dict(THEIRS)

    for app in (before, after):
        assert set(app.conf.beat_schedule) == {"clean", ENTRY}
        assert app.conf.beat_schedule["clean"] == THEIRS["clean"]


def test_an_app_that_is_configured_already_gets_the_entry_at_once():
    """``on_after_configure`` never comes again."""
    app = an_app()
    app.conf.beat_schedule = dict(THEIRS)
    assert app.conf.timezone is None
    assert app.configured

    Axme(app)

    assert set(app.conf.beat_schedule) == {"clean", ENTRY}


def test_a_schedule_set_over_ours_still_has_a_sweep_when_beat_starts():
    """A project may replace its whole schedule after it has read its configuration."""
    app = an_app()
    axme = Axme(app)
    assert axme.settings.tick_seconds == 1.0
    app.conf.beat_schedule = dict(THEIRS)

    service = Service(app, scheduler_cls="celery.beat:Scheduler")
    service.stop()
    service.start()

    assert set(service.scheduler.schedule) == {"clean", ENTRY}
    assert service.scheduler.schedule[ENTRY].schedule.run_every == timedelta(seconds=1)


# -- timers --------------------------------------------------------------------------------


@pytest.mark.parametrize("beats", [0, 1, 5])
def test_every_timer_fires_once_whether_there_are_none_one_or_five_beats(open_stage, beats):
    """Five beats sweep no more than one; with none, the worker's keeper sweeps, later but surely."""
    stage = open_stage()
    crew = [stage.beat(ready=False) for _ in range(beats)]
    worker = stage.worker(pool="threads", concurrency=4)
    for beat in crew:
        beat.wait_ready("Sending due task axme-sweep")

    began = time.monotonic()
    intents = stage.axme.submit_many([stage.project.nap.s(f"nap-{n}", 0.5) for n in range(20)])
    assert sorted(intent.wait(30) for intent in intents) == sorted(f"nap-{n}" for n in range(20))

    woke = {f"nap-{n}": stage.effects("woke", f"nap-{n}") for n in range(20)}
    assert all(len(times) == 1 for times in woke.values())
    for name, (up,) in woke.items():
        assert up["at"] - stage.effects("lies down", name)[0]["at"] >= 0.5
    assert {stage.leg(intent).run for intent in intents} == {2}
    last = max(e["at"] for times in woke.values() for e in times) - began
    print(f"{beats} beats: 20 naps of 0.5 s were over {last:.2f} s after their submit")
    assert all(beat.is_running for beat in crew) and worker.is_running


# -- polls ------------------------------------------------------------------------------------


def test_a_tool_that_cannot_call_back_is_asked_until_it_knows(open_stage):
    """The poll runs on a worker, every so often; its answer closes the wait, and then it is not asked again."""
    stage = open_stage()
    stage.worker(beat=True)

    printed = stage.axme.submit(stage.project.polled.s("report", 3))
    failed = stage.axme.submit(stage.project.polled.s("poster", 0))

    assert printed.wait(20) == "printed"
    with pytest.raises(IntentFailed) as error:
        failed.wait(20)
    assert error.value.code == "tool_failed"
    asked = len(stage.effects("asked", "report"))
    assert asked == 3
    stage.axme.submit(stage.project.nap.s("meanwhile", 0.5)).wait(20)
    assert len(stage.effects("asked", "report")) == asked
    until(lambda: not stage.axme.runtime.ledger.due_waits(stage.axme.runtime.ledger.now(), 10), "no wait left due")
