"""The sweep: what time has made due, done once by however many sweepers, whatever the tracker remembers."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import pytest
from celery import Celery, group
from sqlalchemy import event

from axme_celery import (
    Axme,
    LedgerUnavailable,
    TrackerUnavailable,
    keeper,
    step,
    wait_for_agent,
    wait_for_human,
    wait_for_time,
    wait_for_tool,
)
from axme_celery import leg as legs
from axme_celery import sweep as brooms
from axme_celery.beat import SWEEP_TASK
from axme_celery.ledger.driver import Driver
from axme_celery.model import DeliveryKind, Lease, LegStatus, Status
from axme_celery.sweep import sweep
from axme_celery.testing import Stage


@pytest.fixture
def asking(axme):
    """A task that waits for a person with these arguments."""

    @axme.task
    def asking(arguments):
        return wait_for_human(**({"title": "Publish?", "to": "ana"} | arguments)).outcome

    return lambda **arguments: asking.s(arguments)


@pytest.fixture
def sleeping(axme):
    """A task that sleeps for a while."""

    @axme.task
    def sleeping(delay):
        wait_for_time(delay)
        return "woke"

    return sleeping


@pytest.fixture
def noted():
    """What ``note`` was called with, in order."""
    return []


@pytest.fixture
def note(app, noted):
    """An ordinary task that notes what it is called with."""

    @app.task(shared=False, name="note")
    def note(*args):
        noted.append(args)

    return note


@contextmanager
def as_it_stands(stage, **changes):
    """The runtime with these parts exchanged."""
    own = stage.axme._runtime
    stage.axme._runtime = replace(own, **changes)
    try:
        yield stage.axme.runtime
    finally:
        stage.axme._runtime = own


def everything(stage):
    """All that a sweep could change in the ledger."""
    ledger = stage.axme.runtime.ledger
    intents = ledger.intents({}, None, 1000)
    return [
        (i, ledger.legs(i.id), ledger.waits(i.id), ledger.events(i.id), ledger.dead_letters_of(i.id)) for i in intents
    ]


class DeadTracker:
    """A tracker that cannot be reached."""

    def __getattr__(self, name):
        def refuse(*_, **__):
            raise TrackerUnavailable("no tracker")

        return refuse


class Faulty:
    """A store of which some methods do something else."""

    def __init__(self, kept, **methods):
        self._kept, self._methods = kept, methods

    def __getattr__(self, name):
        return self._methods.get(name) or getattr(self._kept, name)


# -- twice is once ---------------------------------------------------------------------------


def test_a_second_sweep_finds_nothing_to_do(stage, axme, asking, sleeping):
    """Timeouts, reminders, escalations, wake-ups, deadlines: each is done once."""
    stage.submit(asking(timeout="1h"))
    stage.submit(asking(remind_every="1h"))
    stage.submit(asking(escalate_to="boss", escalate_after="1h"))
    stage.submit(sleeping.s("1h"))
    stage.submit(sleeping.s("9h"), deadline="1h")
    stage._now += timedelta(hours=1)
    brooms.refill(axme.runtime)

    first = sweep(axme.runtime, stage._senders, "one", slow=True)
    after_first = everything(stage)
    notices = len(stage.notices)
    second = sweep(axme.runtime, stage._senders, "two", slow=True)

    assert {broom: n for broom, n in first.items() if broom != "refilled"} == {"timers": 5}
    assert second.keys() <= {"refilled"}
    assert everything(stage) == after_first
    stage._relay.flush()
    assert len(stage.notices) == notices + 3


def test_a_lease_that_lapsed_is_given_away_once(stage, axme):
    """Two sweepers both see it; one queues the leg again."""

    @axme.task
    def work():
        step(name="effect")(lambda: 1)()
        return "done"

    stage.kill("effect")
    intent = axme.submit(work.s())
    stage._relay.flush()
    stage._run_next()
    stage._now += timedelta(seconds=axme.settings.lease_seconds)

    lapsed = axme.runtime.tracker.lapsed(10)
    done = [brooms.lapsed_leases(axme.runtime), brooms.lapsed_leases(axme.runtime)]
    again = [brooms.lose(axme.runtime, lease, "again") for lease in lapsed]

    assert (lapsed, done, again) == ([Lease(intent.legs()[0].id, 1)], [1, 0], [0])
    assert (intent.legs()[0].run, intent.legs()[0].status) == (2, LegStatus.QUEUED)
    stage.run()
    assert intent.refresh().result == "done"


def test_a_worker_that_dies_as_it_claims_is_missed_by_the_next_sweep(app, axme):
    """It had not told the tracker yet. The leg runs again within its lease, counted from the claim, and a tick."""

    @axme.task
    def work():
        return "done"

    class Dead:
        """The relay of a worker that was killed in this moment."""

        def tell(self, *_):
            pass

        send = tell

    with Stage(app, tick_seconds=1, lease_seconds=15) as stage:
        intent = axme.submit(work.s())
        stage._relay.flush()
        with as_it_stands(stage, relay=Dead()) as rt:
            legs.claim(rt, intent.legs()[0].id, 1)
        rt = axme.runtime
        stage._now += timedelta(seconds=1)
        first, second = (sweep(rt, stage._senders, "one", slow=False) for _ in range(2))
        assert rt.tracker.lapsed(10) == []
        stage._now += timedelta(seconds=14)

        assert (first, second) == ({"unleased": 1}, {})
        assert rt.tracker.lapsed(10) == [Lease(intent.legs()[0].id, 1)]
        assert sweep(rt, stage._senders, "one", slow=False)["leases"] == 1
        stage.run()
        assert intent.refresh().result == "done"


def test_a_worker_that_lives_has_time_to_renew_what_a_sweep_gave_a_term(app, axme):
    """Where a tick is nearly as long as a lease, that term is half a lease: leases are renewed at a third."""

    @axme.task
    def work():
        return "done"

    with Stage(app, tick_seconds=5, lease_seconds=6) as stage:
        intent = axme.submit(work.s())
        stage._relay.flush()
        legs.claim(axme.runtime, intent.legs()[0].id, 1)
        axme.runtime.tracker.clear()

        assert brooms.unleased(axme.runtime) == 1
        stage._now += timedelta(seconds=2.9)
        assert axme.runtime.tracker.lapsed(10) == []


def test_brooms_that_work_on_one_intent_at_once_leave_one_outcome(stage, axme, asking):
    """The timeout is decided on what an answer has just changed: it is decided anew, and finds nothing."""
    intents = [stage.submit(asking(timeout="1h")) for _ in range(3)]
    ledger = axme.runtime.ledger
    stage._now += timedelta(hours=1)
    brooms.refill(axme.runtime)

    def records_then_an_answer(wait_ids):
        found = ledger.wait_records(wait_ids)
        axme.answer(intents[1].id, "approved", by="ana")
        return found

    with as_it_stands(stage, ledger=Faulty(ledger, wait_records=records_then_an_answer)) as rt:
        done = brooms.due_timers(rt)
    stage.run()

    assert done == 2
    assert intents[1].refresh().result == "approved"
    assert {i.refresh().error["code"] for i in (intents[0], intents[2])} == {"wait_timeout"}


# -- the tracker may forget ---------------------------------------------------------------------


@pytest.mark.parametrize("loses", ["everything at once", "everything always"])
def test_losing_the_tracker_costs_nothing_but_time(stage, axme, asking, sleeping, loses):
    """Reminders, timeouts, wake-ups, deadlines and dead workers are all in the ledger."""

    @axme.task
    def dying():
        step(name="effect")(lambda: 1)()
        return "done"

    reminded = stage.submit(asking(remind_every="1h", max_reminders=1, timeout="3h", on_timeout="rejected"))
    woken, late = stage.submit(sleeping.s("2h")), stage.submit(sleeping.s("9h"), deadline="2h")
    stage.kill("effect")
    orphan = axme.submit(dying.s())
    stage._relay.flush()
    stage._run_next()

    tracker = axme.runtime.tracker
    if loses == "everything always":
        # Emptied just before each time the sweep takes the timers that are due.
        def take(*arguments):
            tracker.clear()
            brooms.refill(axme.runtime)
            brooms.unleased(axme.runtime)
            return tracker.take(*arguments)

        axme._runtime = replace(axme.runtime, tracker=Faulty(tracker, take=take))
    tracker.clear()
    stage.run()
    stage.pass_time("4h")

    assert (reminded.refresh().result, woken.refresh().result, orphan.refresh().result) == ("rejected", "woke", "done")
    assert late.refresh().status is Status.TIMED_OUT
    assert [n.kind for n in stage.notices if n.intent_id == reminded.id] == ["wait_opened", "reminder"]


def test_without_any_tracker_timers_are_read_from_the_ledger(stage, axme, asking, sleeping):
    """Redis away: people are still reminded, sleepers wake, deadlines end what is late."""
    waiting, asleep = stage.submit(asking(timeout="1h", on_timeout="rejected")), stage.submit(sleeping.s("1h"))
    late = stage.submit(sleeping.s("9h"), deadline="1h")
    stage._now += timedelta(hours=1)

    with as_it_stands(stage, tracker=DeadTracker()) as rt:
        counts = sweep(rt, stage._senders, "one", slow=True)
    stage.run()

    assert counts["timers"] == 3
    assert (waiting.refresh().result, asleep.refresh().result) == ("rejected", "woke")
    assert late.refresh().status is Status.TIMED_OUT


def test_verbs_go_on_without_the_tracker(stage, axme, asking):
    """Submitting, running, answering: it is an index and nothing else."""
    axme._runtime = replace(axme.runtime, tracker=DeadTracker())
    intent = axme.submit(asking())

    while stage._relay.flush() or stage._run_next():
        pass
    axme.answer(intent.id, "approved", by="ana")
    while stage._relay.flush() or stage._run_next():
        pass

    assert intent.refresh().result == "approved"


def test_a_tracker_that_remembers_what_is_over_harms_nobody(stage, axme, asking):
    """Its answers only cause a look at the ledger."""
    intent = stage.submit(asking(timeout="1h"))
    (wait,) = stage.waits(intent)
    stage.answer(intent, "approved", by="ana")
    before = everything(stage)
    rt = axme.runtime

    rt.tracker.schedule([brooms.Timer("wait", wait.id, stage.now), brooms.Timer("wait", "nobody", stage.now)])
    rt.tracker.schedule([brooms.Timer("intent", intent.id, stage.now), brooms.Timer("intent", "nobody", stage.now)])
    rt.tracker.hold([Lease(intent.legs()[0].id, 1), Lease("nobody", 7)], 0)
    counts = sweep(rt, stage._senders, "one", slow=False)

    assert counts == {}
    assert everything(stage) == before
    assert rt.tracker.take(stage.now, 1, 10) == []


# -- timers ----------------------------------------------------------------------------------


def test_more_timers_than_one_batch_that_fall_due_soon_do_not_keep_the_sweep(app, axme, asking, monkeypatch):
    """They are looked at once, put back, and fire at their moment."""
    monkeypatch.setattr(brooms, "BATCH", 4)
    takes = []

    with Stage(app, tick_seconds=1) as stage:
        intents = [axme.submit(asking(timeout="1m")) for _ in range(9)]
        stage.run()
        stage._now += timedelta(seconds=59)
        brooms.refill(axme.runtime)
        tracker = axme.runtime.tracker

        def take(*arguments):
            takes.append(arguments)
            assert len(takes) < 20, "the sweep takes the same timers over and over"
            return tracker.take(*arguments)

        with as_it_stands(stage, tracker=Faulty(tracker, take=take)) as rt:
            too_soon = brooms.due_timers(rt)
            stage._now += timedelta(seconds=1)
            in_time = brooms.due_timers(rt)

    assert (too_soon, in_time) == (0, len(intents))


def test_a_sweep_that_is_out_of_time_leaves_the_rest_to_the_next(app, axme, asking, monkeypatch):
    """However much falls due at once: its slot is free again, and leases are looked at in between."""
    monkeypatch.setattr(brooms, "BATCH", 4)

    with Stage(app, tick_seconds=1) as stage:
        intents = [axme.submit(asking(timeout="1m", on_timeout="rejected")) for _ in range(9)]
        stage.run()
        stage._now += timedelta(minutes=2)
        brooms.refill(axme.runtime)
        rt, passes = axme.runtime, []
        for name in ("one", "two", "three", "four"):
            passes.append(sweep(rt, stage._senders, name, slow=False, at_most_seconds=0).get("timers", 0))
        stage.run()

    assert passes == [4, 4, 1, 0]
    assert {intent.refresh().result for intent in intents} == {"rejected"}


def test_however_many_waits_are_due_what_follows_them_is_read_at_once(
    stage_on_each_database, axme, note, noted, monkeypatch
):
    """A batch sends as many statements for forty pipelines as for twenty, and each goes on with its own."""
    stage, sent = stage_on_each_database, []

    def counted(verb):
        own = getattr(Driver, verb)
        monkeypatch.setattr(Driver, verb, lambda *given: sent.append(given) or own(*given))

    for verb in ("fetch", "run", "run_whole"):
        counted(verb)
    event.listen(stage.engine, "before_cursor_execute", lambda *given: sent.append(given))

    def fired(count):
        """The statements it takes to fire so many waits."""
        axme.submit_many([wait_for_time.s("1h") | group(note.si(n, "a"), note.si(n, "b")) for n in range(count)])
        stage._now += timedelta(hours=1)
        brooms.refill(axme.runtime)
        sent.clear()
        assert brooms.due_timers(axme.runtime) == count
        statements = len(sent)
        stage.run()
        return statements

    twenty, forty = fired(20), fired(40)

    assert twenty == forty
    assert noted == [(n, which) for count in (20, 40) for n in range(count) for which in "ab"]


def test_only_what_follows_waits_that_time_closes_is_read(stage, axme, note, noted):
    """Not what follows one that is reminded of, or not due yet, or that fails; a detour is read like any other way."""
    people, ledger, asked = {"to": "ana", "timeout": "1h"}, axme.runtime.ledger, []
    slept = stage.submit(wait_for_time.s("1h") | note.si("slept"))
    late = stage.submit(wait_for_human.s("Late?", on_timeout=note.si("late"), **people))
    stage.submit(wait_for_human.s("Fails?", **people) | note.si("no"))
    stage.submit(wait_for_human.s("Reminded?", to="ana", remind_every="1h") | note.si("no"))
    stage.submit(wait_for_time.s("61m") | note.si("no"))
    stage.submit(wait_for_time.s("1h"))
    stage._now += timedelta(hours=1)
    brooms.refill(axme.runtime)

    def following_each(afters, limit):
        asked.extend(afters)
        return ledger.following_each(afters, limit)

    with as_it_stands(stage, ledger=Faulty(ledger, following_each=following_each)) as rt:
        brooms.due_timers(rt)
    stage.run()

    assert sorted(asked) == sorted(intent.legs()[0].id for intent in (slept, late))
    assert sorted(noted) == [("late",), ("slept",)]


def test_what_moves_after_its_followers_were_read_is_decided_anew(stage_on_each_database, axme, note, noted):
    """They are read before the transaction, which refuses the whole batch where one of them is no longer as read."""
    stage = stage_on_each_database
    intents = axme.submit_many([wait_for_time.s("1h") | note.si(n) for n in range(3)])
    ledger = axme.runtime.ledger
    stage._now += timedelta(hours=1)
    brooms.refill(axme.runtime)

    def followers_then_a_cancel(afters, limit):
        found = ledger.following_each(afters, limit)
        axme.cancel(intents[1].id, reason="no need")
        return found

    with as_it_stands(stage, ledger=Faulty(ledger, following_each=followers_then_a_cancel)) as rt:
        done = brooms.due_timers(rt)
    stage.run()

    assert (done, noted) == (2, [(0,), (2,)])
    assert intents[1].refresh().status is Status.CANCELED


def test_a_keepers_sweep_is_over_long_before_the_next_renewal(app, axme, monkeypatch):
    """Where no beat is, a storm of timers must not cost the worker its own leases."""
    asked = []
    monkeypatch.setattr(keeper, "sweep", lambda *_, at_most_seconds, **__: asked.append(at_most_seconds))

    with Stage(app, tick_seconds=1):
        keeper.Keeper(axme)._sweep_if_quiet()
        renewed_every = axme.settings.lease_seconds / 3

    assert asked and asked[0] <= renewed_every / 2


def test_a_sleeper_is_woken_ahead_and_runs_at_its_moment(app, axme, sleeping):
    """The sweep that comes just before its moment writes the wake-up; its message leaves on time."""
    with Stage(app, tick_seconds=1) as stage:
        intent = stage.submit(sleeping.s("1m"))
        wakes_at = stage.waits(intent)[0].timeout_at
        stage.pass_time("59.5s")
        ahead = (intent.refresh().status, intent.legs()[0].status)
        stage.pass_time("1s")

        assert ahead == (Status.IN_PROGRESS, LegStatus.QUEUED)
        assert intent.refresh().result == "woke"
        assert intent.ended_at == wakes_at


@pytest.mark.parametrize(
    "follows",
    [
        lambda note: wait_for_time.s("1s") | note.si("after"),
        lambda note: wait_for_human.s("Go on?", to="ana"),
        lambda note: None,
    ],
    ids=["a wait for a time", "a wait for a person", "the end"],
)
def test_what_is_no_message_does_not_begin_before_its_moment(app, axme, note, noted, follows):
    """A question would be asked, and a later moment reckoned, from a time that has not come."""
    with Stage(app, tick_seconds=1) as stage:
        sleeps = wait_for_time.s("1m")
        intent = stage.submit(note.s(0) | sleeps | after if (after := follows(note)) else note.s(0) | sleeps)
        wakes_at = stage.waits(intent)[0].timeout_at
        stage.pass_time("59s")
        before = [wait.status.value for wait in stage.waits(intent)]
        stage.pass_time("5s")

        assert before == ["OPEN"]
        assert stage.waits(intent)[0].closed_at >= wakes_at
        assert all(wait.opened_at >= wakes_at for wait in stage.waits(intent)[1:])
        assert follows(note) is not None or intent.refresh().ended_at >= wakes_at


def test_a_wait_that_cannot_be_opened_ends_its_pipeline_no_earlier_than_it_would_have_opened(app, axme, note):
    """Its tool's job is named by what comes to it, which is nothing."""
    with Stage(app, tick_seconds=1) as stage:
        intent = stage.submit(note.si() | wait_for_time.s("1m") | wait_for_tool.s("warehouse") | note.s())
        wakes_at = stage.waits(intent)[0].timeout_at
        stage.pass_time("59s")
        stage.pass_time("5s")

        assert intent.refresh().status is Status.FAILED
        assert intent.ended_at >= wakes_at


def test_a_callback_of_a_wait_is_not_called_before_its_moment(app, axme, note):
    """It is an intent of its own, which begins in the commit that ends the node."""
    with Stage(app, tick_seconds=1) as stage:
        called_at = []

        @app.task(shared=False)
        def callback(_):
            called_at.append(stage.now)

        intent = stage.submit(note.s(1) | wait_for_time.s("1m").set(link=callback.s()) | note.s())
        wakes_at = stage.waits(intent)[0].timeout_at
        stage.pass_time("59s")
        stage.pass_time("5s")

        assert len(called_at) == 1 and called_at[0] >= wakes_at


def test_what_comes_after_a_group_does_not_run_before_the_moment_one_of_it_waits_for(app, axme, note, noted):
    """The last to arrive at a join is a wait for a time."""
    with Stage(app, tick_seconds=1) as stage:
        ran_at = []

        @app.task(shared=False)
        def after(_):
            ran_at.append(stage.now)

        intent = stage.submit(group(note.s(0), wait_for_time.s("1m")) | after.s())
        wakes_at = stage.waits(intent)[0].timeout_at
        stage.pass_time("59s")
        stage.pass_time("11s")

        assert len(ran_at) == 1 and ran_at[0] >= wakes_at


def test_nine_oclock_twice_is_today_and_tomorrow(app, axme, note):
    """Two waits in a row for the same time of day."""
    with Stage(app, tick_seconds=1) as stage:
        nine = wait_for_time.s(cron="0 9 * * *")
        intent = stage.submit(note.s(0) | nine | wait_for_time.s(cron="0 9 * * *") | note.si("done"))
        stage.pass_time(stage.waits(intent)[0].timeout_at - stage.now - timedelta(seconds=1))
        stage.pass_time("49h")

        first, second = (wait.timeout_at for wait in stage.waits(intent))
        assert second - first == timedelta(days=1)
        assert intent.refresh().status is Status.COMPLETED


@pytest.mark.parametrize("pace", [1.0, 1.1], ids=["on time", "behind"])
@pytest.mark.parametrize("tick_seconds", [10, 30, 60])
def test_a_timer_is_a_tick_late_at_most_however_long_the_ticks_are(app, axme, asking, tick_seconds, pace):
    """What falls due between two looks into the ledger is in the tracker by then, though each tick comes a little late."""
    step = tick_seconds * pace
    with Stage(app, tick_seconds=tick_seconds, lease_seconds=600) as stage:
        rt, late = axme.runtime, []
        sweep(rt, stage._senders, "beat")
        waiting = [stage.submit(asking(timeout=70 + 97 * n), deadline=5000 + 97 * n) for n in range(12)]
        for _ in range(0, 1500, tick_seconds):
            stage._now += timedelta(seconds=step)
            sweep(rt, stage._senders, "beat")
            for one in waiting:
                (wait,) = stage.waits(one)
                if wait.closed_at is not None:
                    late.append((wait.closed_at - wait.timeout_at).total_seconds())

        assert len({one.id for one in waiting if stage.waits(one)[0].closed_at}) == 12
        assert max(late) <= step


def test_a_sweep_that_comes_days_late_does_each_thing_once(stage, axme, asking, sleeping):
    """Beat was down over the weekend."""
    reminded = stage.submit(asking(remind_every="1h", max_reminders=3))
    expired = stage.submit(asking(remind_every="1h", timeout="1d", on_timeout="rejected"))
    slept, late = stage.submit(sleeping.s("1d")), stage.submit(sleeping.s("9d"), deadline="1d")

    stage._now += timedelta(days=3)
    stage.run()

    kinds = [(n.intent_id, n.kind) for n in stage.notices if n.kind == "reminder"]
    assert kinds == [(reminded.id, "reminder")]
    assert (expired.refresh().result, slept.refresh().result) == ("rejected", "woke")
    assert late.refresh().status is Status.TIMED_OUT


# -- messages --------------------------------------------------------------------------------


def test_a_lost_message_is_sent_again_and_ever_more_seldom(stage, axme, sleeping):
    """The broker was flushed: nobody started the leg, so it is published anew, until somebody does."""
    intent = axme.submit(sleeping.s(0))
    began, sent = stage.now, []

    for _ in range(4):
        stage._relay.flush()
        sent.append((stage.now - began).total_seconds() / 60)
        assert stage.lose_messages() == 1
        leg = intent.legs()[0]
        stage._now = leg.due_at
        assert brooms.lost_messages(axme.runtime) == 1
        assert brooms.lost_messages(axme.runtime) == 0
    stage.run()

    assert sent == [0, 10, 30, 70]
    assert (intent.refresh().result, intent.legs()[0].resends) == ("woke", 0)


def test_messages_lost_in_a_long_wait_for_workers_all_arrive_in_the_end(stage, axme, sleeping):
    """Whatever was queued when the broker lost it."""
    intents = axme.submit_many([sleeping.s(0) for _ in range(5)])
    stage._relay.flush()
    assert stage.lose_messages() == 5

    stage.pass_time("10m")

    assert {i.refresh().result for i in intents} == {"woke"}
    assert {i.legs()[0].run for i in intents} == {2}


def test_each_broom_that_is_out_of_time_stops_after_a_batch(app, axme, sleeping, monkeypatch):
    """Dead workers, lost messages, messages nobody sends: of very many of any of them, the next sweep does the rest."""
    monkeypatch.setattr(brooms, "BATCH", 4)
    over = 0.0

    with Stage(app, tick_seconds=1) as stage:
        rt = axme.runtime
        rt.tracker.hold([Lease("nobody", n) for n in range(9)], 0)
        brooms.lapsed_leases(rt, over)
        lapsed = len(rt.tracker.lapsed(100))

        intents = axme.submit_many([sleeping.s(0) for _ in range(202)])
        stage._relay.flush()
        stage.lose_messages()
        stage._now = intents[0].legs()[0].due_at
        resent = brooms.lost_messages(rt, over)
        brooms.lost_messages(rt)

        # Whoever was to send them died.
        stage._now += timedelta(minutes=10)
        sent = brooms.undelivered(rt, stage._senders, over)
        stage.run()

    assert (lapsed, resent, sent) == (5, 4, 100)
    assert {intent.refresh().result for intent in intents} == {"woke"}


def test_a_message_that_waits_in_the_outbox_is_not_taken_for_lost(stage, axme, sleeping):
    """A broker that is down is retried by the relay; the sweep does not add copies."""
    intent = stage.submit(sleeping.s(0).set(countdown=3600))

    stage._now += timedelta(minutes=59)
    resent = brooms.lost_messages(axme.runtime)

    assert resent == 0
    stage.pass_time("1h")
    assert intent.refresh().result == "woke"


def test_what_a_dead_worker_had_still_to_send_is_sent_by_the_sweep(stage, asking):
    """It died between its commit and its relay: the notice goes out all the same, once."""
    stage.kill("wait_for_human", recorded=True)
    intent = stage.submit(asking())
    stage.pass_time("1m")

    assert intent.refresh().status is Status.WAITING
    assert [n.kind for n in stage.notices] == ["wait_opened"]


def test_a_parents_wait_is_answered_by_the_sweep_if_the_childs_worker_died(stage, axme, sleeping):
    """The child's end and what its parent is told are one commit."""

    @axme.task
    def parent():
        return wait_for_agent(sleeping.s("1h"))

    intent = stage.submit(parent.s())
    stage.kill("end", recorded=True)
    stage.pass_time("2h")

    assert intent.refresh().result == "woke"


def test_an_early_report_whose_wait_opened_is_matched_by_the_sweep(stage, axme):
    """The process that opened the wait died before it looked."""

    @axme.task
    def job():
        return wait_for_tool("warehouse", "job-1")

    stage.complete_tool("warehouse", "job-1", 7)
    stage.kill("wait_for_tool:warehouse", recorded=True)
    intent = axme.submit(job.s())
    stage._relay.flush()
    stage._run_next()

    matched = [brooms.early_answers(axme.runtime), brooms.early_answers(axme.runtime)]
    stage.run()

    assert matched == [1, 0]
    assert intent.refresh().result == 7


# -- the whole pass --------------------------------------------------------------------------


@pytest.mark.parametrize("fails", [LedgerUnavailable("away"), RuntimeError("a fault of ours")], ids=["ledger", "fault"])
def test_a_broom_that_fails_does_not_keep_the_others_from_their_work(stage, axme, asking, caplog, fails):
    """A ledger that answers some questions is better than none; the log says which broom stopped."""
    intent = stage.submit(asking(timeout="1h", on_timeout="rejected"))
    stage._now += timedelta(hours=1)
    brooms.refill(axme.runtime)

    def away(*_):
        raise fails

    broken = Faulty(axme.runtime.ledger, outbox_due=away, unmatched_early_answers=away)
    with as_it_stands(stage, ledger=broken) as rt, caplog.at_level(logging.WARNING):
        counts = sweep(rt, stage._senders, "one", slow=True)
    stage.run()

    assert counts["timers"] == 1
    assert {r.args[0] for r in caplog.records if r.msg.startswith("broom")} == {"outbox", "matched"}
    assert intent.refresh().result == "rejected"


@pytest.fixture
def cannot(monkeypatch):
    """``cannot(where, name, of)``: this function raises when it is called for ``of``."""

    def break_for(where, name, of):
        whole = getattr(where, name)

        def broken(rt, what, *rest, **named):
            if of(what):
                raise TypeError("what nobody has thought of")
            return whole(rt, what, *rest, **named)

        monkeypatch.setattr(where, name, broken)

    return break_for


def test_a_wait_that_cannot_be_decided_keeps_no_other_from_its_moment(stage, axme, sleeping, caplog, monkeypatch):
    """They are fired together; one that is poison must not hold back all that fall due with it, for ever."""
    poison, *others = [stage.submit(sleeping.s("1h")) for _ in range(4)]
    whole = brooms.lifecycle.fire

    def broken(record, **named):
        if record.intent.id == poison.id:
            raise TypeError("what nobody has thought of")
        return whole(record, **named)

    monkeypatch.setattr(brooms.lifecycle, "fire", broken)
    stage.pass_time("2h")

    assert {one.refresh().result for one in others} == {"woke"}
    assert poison.refresh().status is Status.WAITING
    assert stage.waits(poison)[0].id in caplog.text
    monkeypatch.undo()
    stage.pass_time("1m")
    assert poison.refresh().result == "woke"


def test_a_run_that_cannot_be_given_away_keeps_no_other_from_it(stage, axme, cannot, caplog):
    """Their worker died with all of them."""

    @axme.task
    def work():
        return step(name="effect")(lambda: "done")()

    intents = []
    for _ in range(3):
        stage.kill("effect")
        intents.append(axme.submit(work.s()))
        stage._relay.flush()
        stage._run_next()
    poison = intents[0].legs()[0].id
    cannot(brooms, "lose", lambda lease: lease.leg_id == poison)

    stage._now += timedelta(seconds=axme.settings.lease_seconds)
    assert brooms.lapsed_leases(axme.runtime) == 2

    assert [one.legs()[0].status for one in intents] == [LegStatus.RUNNING, LegStatus.QUEUED, LegStatus.QUEUED]
    assert poison in caplog.text
    assert brooms.unleased(axme.runtime) == 1, "it is looked at again"


def test_a_join_that_cannot_be_passed_keeps_no_other_from_it(stage, axme, note, noted, cannot, caplog):
    """The process that brought the last member died before it could pass either."""
    intents = [axme.submit(group(note.s(1), note.s(2)) | note.si(name)) for name in ("poison", "other")]
    joins = [one.legs()[0].join_id for one in intents]
    with pytest.MonkeyPatch.context() as died:
        died.setattr("axme_celery.onward.pass_join", lambda *_: 0)
        stage._relay.flush()
        while stage._run_next():
            pass
    cannot(brooms, "pass_join", lambda join_id: join_id == joins[0])

    sweep(axme.runtime, stage._senders, "one")
    stage.run()

    assert [what for (what, *_) in noted if isinstance(what, str)] == ["other"]
    assert joins[0] in caplog.text


def test_a_deadline_that_cannot_be_kept_keeps_no_other_from_it(stage, asking, cannot, caplog):
    """Both passed in the same second."""
    poison, other = (stage.submit(asking(), deadline="1h") for _ in range(2))
    cannot(brooms, "time_out", lambda intent_id: intent_id == poison.id)

    stage.pass_time("2h")

    assert (poison.refresh().status, other.refresh().status) == (Status.WAITING, Status.TIMED_OUT)
    assert poison.id in caplog.text


def test_a_message_that_cannot_be_sent_again_keeps_no_other_from_it(stage, sleeping, cannot, caplog):
    """A dead worker had both in its hands."""
    rt, intents = stage.axme.runtime, [stage.axme.submit(sleeping.s("1h")) for _ in range(2)]
    stage._relay.flush()
    leases = [Lease(intent.legs()[0].id, 1) for intent in intents]
    rt.tracker.hold([brooms.received(lease) for lease in leases], 15)
    stage._now += timedelta(seconds=16)
    cannot(brooms, "_send_again", lambda lease: lease == leases[0])

    assert brooms.lapsed_leases(rt) == 1

    assert [intent.legs()[0].resends for intent in intents] == [0, 1]
    assert leases[0].leg_id in caplog.text


def test_an_early_report_that_cannot_be_matched_keeps_no_other_from_it(stage, axme, cannot, caplog):
    """The process that opened their waits died before it looked."""

    @axme.task
    def job(tool):
        return wait_for_tool(tool, "job-1")

    for tool in ("poison", "other"):
        stage.complete_tool(tool, "job-1", tool)
    intents = []
    for tool in ("poison", "other"):
        stage.kill(f"wait_for_tool:{tool}", recorded=True)
        intents.append(axme.submit(job.s(tool)))
        stage._relay.flush()
        stage._run_next()
    cannot(brooms, "match_early", lambda tool: tool == "poison")

    assert brooms.early_answers(axme.runtime) == 1
    stage.run()

    assert [intent.refresh().status for intent in intents] == [Status.WAITING, Status.COMPLETED]
    assert "poison" in caplog.text


@pytest.mark.parametrize("asked_for", ["runs", "waits"])
def test_a_ledger_that_is_away_is_asked_once_and_not_for_each(stage, axme, asking, asked_for):
    """It would be asked five hundred times over, each until its own time is up, and say nothing else."""
    asked = []

    def away(*_, **__):
        asked.append(1)
        raise LedgerUnavailable("away")

    @axme.task
    def work():
        return step(name="effect")(lambda: "done")()

    for _ in range(3):
        stage.submit(asking(timeout=axme.settings.lease_seconds))
    for _ in range(3):
        stage.kill("effect")
        axme.submit(work.s())
        stage._relay.flush()
        stage._run_next()
    stage._now += timedelta(seconds=axme.settings.lease_seconds)
    broken, broom = {
        "runs": ({"leg_record": away}, brooms.lapsed_leases), "waits": ({"wait_records": away}, brooms.due_timers),
    }[asked_for]  # fmt: skip

    with (
        as_it_stands(stage, ledger=Faulty(axme.runtime.ledger, **broken)) as rt,
        pytest.raises(LedgerUnavailable, match="away"),
    ):
        broom(rt)
    stage.run()

    assert asked == [1]


def test_a_sweeper_notes_that_it_swept(stage, axme):
    """So that a worker knows whether it must, and ``doctor`` whether anybody does."""
    sweep(axme.runtime, stage._senders, "beat-1")

    assert axme.runtime.tracker.ticks() == {"beat-1": stage.now}


def test_of_many_sweepers_one_does_the_slow_brooms_in_a_while(stage, axme, sleeping):
    """Five beats do not read the whole ledger five times."""
    stage.submit(sleeping.s("30s"))
    rt = axme.runtime
    axme._runtime = replace(rt, settings=replace(rt.settings, tick_seconds=1.0))

    first = [("refilled" in sweep(axme.runtime, stage._senders, f"beat-{n}")) for n in range(3)]
    stage._now += timedelta(seconds=11)
    later = [("refilled" in sweep(axme.runtime, stage._senders, f"beat-{n}")) for n in range(3)]

    assert (first, later) == ([True, False, False], [True, False, False])


def test_what_ended_long_ago_is_pruned_but_not_what_still_has_something_open(app, axme, sleeping):
    """``axme_retention``; an open dead letter or an undelivered row keeps its intent."""

    @axme.task
    def failing():
        raise ValueError

    with Stage(app, retention="30d") as stage:
        old, failed = stage.submit(sleeping.s(0)), stage.submit(failing.s())
        stage.pass_time("29d")
        young, resting = stage.submit(sleeping.s(0)), stage.submit(sleeping.s("90d"))
        stage._now += timedelta(days=2)

        pruned = [brooms.prune(axme.runtime, 100), brooms.prune(axme.runtime, 100)]

        assert pruned == [1, 0]
        left = {intent.id for intent in axme.intents()}
        assert left == {failed.id, young.id, resting.id} and old.id not in left


def test_without_a_retention_nothing_is_ever_pruned(stage, axme, sleeping):
    """Nobody loses history for not having read the manual."""
    stage.submit(sleeping.s(0))
    stage._now += timedelta(days=3650)

    assert brooms.prune(axme.runtime, 100) == 0
    assert len(list(axme.intents())) == 1


def test_each_app_sweeps_its_own_ledger(stage, axme):
    """Two apps in one process: Celery shares tasks among apps unless told not to."""
    other = Celery("other", broker="memory://", set_as_current=False)
    Axme(other)
    stranger = Celery("stranger", broker="memory://", set_as_current=False)

    @axme.task
    def durable():
        return 1

    for app in (other, stranger):
        app.finalize()

    assert SWEEP_TASK in other.tasks and other.tasks[SWEEP_TASK].app is other
    assert other.tasks[SWEEP_TASK].run.__closure__ != axme.app.tasks[SWEEP_TASK].run.__closure__
    assert SWEEP_TASK not in stranger.tasks
    assert durable.name not in other.tasks and durable.name not in stranger.tasks


def test_every_kind_of_delivery_has_somebody_who_sends_it(axme):
    """A kind without a sender would stay in the outbox for ever."""
    # Fan-out leaves nothing: it is the ledger's work alone.
    assert axme.senders.keys() == set(DeliveryKind) - {DeliveryKind.FANOUT}


# -- what a worker has received ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("run", "is_sent"), [(1, True), (2, False)])
def test_a_message_in_the_hands_of_a_dead_worker_is_sent_again(stage, sleeping, run, is_sent):
    """That very run of it, and only while nobody has begun it."""
    rt, intent = stage.axme.runtime, stage.axme.submit(sleeping.s("1h"))
    (leg,) = intent.legs()
    stage._relay.flush()
    rt.tracker.hold([brooms.received(Lease(leg.id, run))], 15)
    stage.lose_messages()
    assert brooms.lapsed_leases(rt) == 0
    stage._now += timedelta(seconds=16)

    assert brooms.lapsed_leases(rt) == int(is_sent)
    stage._until_rest()

    assert intent.refresh().status is (Status.WAITING if is_sent else Status.SUBMITTED)
    assert intent.legs()[0].resends == int(is_sent)


def test_what_was_received_and_has_begun_is_left_to_its_own_lease(stage, sleeping):
    """Its worker's keeper has not let go of it yet."""
    intent = stage.submit(sleeping.s("1h"))
    rt, (leg,) = stage.axme.runtime, intent.legs()
    rt.tracker.hold([brooms.received(Lease(leg.id, 1))], 15)
    stage._now += timedelta(seconds=16)

    assert brooms.lapsed_leases(rt) == 0
    assert intent.legs()[0].resends == 0
