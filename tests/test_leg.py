"""Running a leg: claimed once, settled once, and harmless when it is late."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from celery.exceptions import Ignore, MaxRetriesExceededError, Reject

from axme_celery import (
    LedgerUnavailable,
    LegInterrupt,
    beats,
    current_intent,
    current_step,
    step,
    wait_for_human,
    wait_for_time,
)
from axme_celery import leg as legs
from axme_celery.errors import LeaseLost
from axme_celery.model import Change, Lease, LegStatus, Status
from axme_celery.sweep import lose


@pytest.fixture
def effect():
    """``effect(value)``, a step; ``effect.done`` is what it did."""
    done = []

    @step(name="effect")
    def effect(value):
        done.append(value)
        return value

    effect.done = done
    return effect


def kinds(stage, intent):
    return [event.type.removeprefix("intent.") for event in stage.history(intent)]


# -- claiming ----------------------------------------------------------------------------


def test_a_message_delivered_twice_is_run_once(stage, axme, effect):
    """Whichever copy comes first is the one that runs; of a resumed leg's message too."""

    @axme.task
    def work():
        effect("before")
        wait_for_human("Publish?", to="ana")
        effect("after")
        return "done"

    intent = axme.submit(work.s())
    stage._relay.flush()
    stage.copy_messages()
    stage.run()
    axme.answer(intent.id, "approved", by="ana")
    stage._relay.flush()
    stage.copy_messages()
    stage.run()

    assert effect.done == ["before", "after"]
    assert (intent.refresh().result, intent.legs()[0].run) == ("done", 2)


def test_a_message_of_an_old_run_finds_nothing_to_do(stage, axme, effect):
    """It may come days late, when the leg has long been run again."""

    @axme.task
    def work():
        return effect(1)

    intent = axme.submit(work.s())
    stage._relay.flush()
    stage.copy_messages()
    late = stage._worker._messages.pop()
    stage.run()
    stage._worker._messages.append(late)
    stage.run()

    assert (effect.done, intent.refresh().result) == ([1], 1)
    assert kinds(stage, intent) == ["created", "submitted", "in_progress", "completed"]


def test_a_message_for_a_canceled_intent_finds_nothing_to_do(stage, axme, effect):
    """Canceled while it was in the queue."""

    @axme.task
    def work():
        return effect(1)

    intent = axme.submit(work.s())
    stage._relay.flush()
    axme.cancel(intent.id, "no need")
    stage.run()

    assert (effect.done, intent.refresh().status) == ([], Status.CANCELED)


def test_a_message_for_a_leg_this_ledger_does_not_know_is_dropped(stage, axme, effect):
    """Two applications on one broker, or a ledger that was restored from a backup."""
    rt = axme.runtime

    with pytest.raises(legs.NotToBeHad, match="not in this ledger"):
        legs.run(rt, "nobody", 1, lambda leg: effect(1), guarded=False, show_waiting=lambda: None)

    assert effect.done == []
    assert rt.tracker.lapsed(10) == []


class Told:
    """A relay that keeps what it is told."""

    def __init__(self):
        self.changes, self.ended = [], []

    def tell(self, changes, ended=()):
        self.changes += changes
        self.ended += ended

    def send(self, deliveries):
        pass


class Untouched:
    """A tracker that notes what it is asked."""

    def __init__(self, asked):
        self._asked = asked

    def __getattr__(self, verb):
        return lambda *_: self._asked.append(verb)


def test_a_duplicate_does_not_lengthen_the_lease_of_a_dead_worker(stage, axme, effect):
    """Brokers redeliver; a lease is renewed by who holds it."""

    @axme.task
    def work():
        return effect(1)

    stage.kill("effect")
    intent = axme.submit(work.s())
    stage._relay.flush()
    stage.copy_messages()
    began = stage.now
    stage._run_next()
    stage._now += timedelta(seconds=axme.settings.lease_seconds - 5)
    stage._run_next()
    stage.run()

    assert intent.refresh().result == 1
    assert (stage.now - began).total_seconds() == axme.settings.lease_seconds


# -- a run that is no longer the one -----------------------------------------------------------


@pytest.mark.parametrize("next_run", ["is queued", "is at work"])
@pytest.mark.parametrize("transaction", [False, True], ids=["a step", "a transaction step"])
def test_a_run_that_was_replaced_can_record_nothing(stage, axme, effect, next_run, transaction):
    """A zombie: frozen for longer than its lease, it comes back when another run is there."""
    caught = []

    @step(name="freeze", transaction=transaction)
    def freeze(*connection):
        return current_step().run

    def be_replaced(leg_id, run):
        if run == 1:
            lose(axme.runtime, Lease(leg_id, 1), "frozen")
            if next_run == "is at work":
                legs.claim(axme.runtime, leg_id, 2)

    @axme.task
    def work():
        try:
            freeze()
        except BaseException as error:
            caught.append(type(error))
            raise
        return effect("published")

    # As the zombie comes to record: by then it has been replaced.
    ledger = axme.runtime.ledger

    class Late:
        def __getattr__(self, name):
            return getattr(ledger, name)

        def commit(self, *changes, **options):
            if changes[0].fence is not None:
                be_replaced(*changes[0].fence[:2])
            return ledger.commit(*changes, **options)

        def transaction(self, checkpoint, fence):
            be_replaced(*fence[:2])
            return ledger.transaction(checkpoint, fence)

    axme._runtime = replace(axme.runtime, ledger=Late())
    intent = stage.submit(work.s())

    last = intent.legs()[0].run
    assert (caught[0], intent.result, effect.done) == (LeaseLost, "published", ["published"])
    assert last == (3 if next_run == "is at work" else 2)
    first = intent.steps()[0]
    assert (first.name, first.run, first.value) == ("freeze", last, str(last))


@pytest.mark.parametrize("end", ["returns", "raises", "waits", "retries"])
def test_a_run_that_was_replaced_cannot_settle_either(stage, axme, end):
    """Neither a result nor a failure, a wait or a retry of its."""
    ended = []

    @axme.task(bind=True)
    def work(self):
        intent = current_intent()
        if not ended:
            ended.append(end)
            lose(axme.runtime, Lease(intent.legs()[0].id, 1), "frozen")
            if end == "raises":
                raise ValueError("of the zombie")
            if end == "waits":
                wait_for_human("Of the zombie?", to="ana")
            if end == "retries":
                raise self.retry(countdown=0)
            return "of the zombie"
        return "of the second run"

    intent = stage.submit(work.s())

    assert (intent.status, intent.result) == (Status.COMPLETED, "of the second run")
    assert (stage.waits(intent), stage.dead_letters(), stage.inbox("ana")) == ([], [], [])


def test_a_worker_that_was_held_up_asks_before_it_causes_more_effects(stage, axme, effect):
    """Its leases were not renewed for longer than they last: only the ledger knows whose the leg is."""
    age = [0.0]
    axme._runtime = replace(axme.runtime, lease_age_seconds=lambda: age[0])

    @axme.task
    def work():
        effect("first")
        if age[0] == 0:
            age[0] = 1e9
            lose(axme.runtime, Lease(current_intent().legs()[0].id, 1), "silent")
        effect("second")
        return "done"

    intent = stage.submit(work.s())

    assert effect.done == ["first", "second"]
    assert [(s.nth, s.run) for s in intent.steps()] == [(1, 1), (2, 2)]
    assert intent.result == "done"


def test_a_worker_that_was_held_up_goes_on_if_its_leg_is_still_its_own(stage, axme, effect):
    """A slow machine is not a dead one."""
    axme._runtime = replace(axme.runtime, lease_age_seconds=lambda: 1e9)

    @axme.task
    def work():
        return [effect(n) for n in range(3)]

    intent = stage.submit(work.s())

    assert (intent.result, intent.legs()[0].run) == ([0, 1, 2], 1)


def test_a_stopping_worker_hands_its_leg_back_at_the_next_checkpoint(stage, axme, effect):
    """A deploy in the middle of an export: no attempt is counted, and nothing is done twice."""

    @axme.task
    def work():
        axme.worker.start()
        pages = []
        for n in range(3):
            pages.append(effect(n))
            if n == 1 and current_intent().legs()[0].run == 1:
                axme.worker.stop()
        return pages

    intent = stage.submit(work.s())

    (leg,) = intent.legs()
    assert (intent.result, effect.done) == ([0, 1, 2], [0, 1, 2])
    assert (leg.run, leg.attempts) == (2, 1)
    assert "handed_back" in kinds(stage, intent)


# -- death -------------------------------------------------------------------------------------


@pytest.mark.parametrize("recorded", [False, True], ids=["before its end is recorded", "just after"])
def test_a_leg_killed_at_its_end_ends_once(stage, axme, effect, recorded):
    """Its steps are not repeated; Celery's own result is there in the end, as is the intent's."""

    @axme.task
    def work():
        return effect("published")

    stage.kill("end", recorded=recorded)
    called = work.delay()
    stage.run()
    stage.pass_time("1m")

    intent = stage.intent(called.intent_id)
    assert effect.done == ["published"]
    assert (intent.result, called.get(timeout=1)) == ("published", "published")
    assert [e.type for e in stage.history(intent) if e.status.is_final] == ["intent.completed"]


def test_what_is_linked_to_a_leg_is_called_even_if_the_leg_died_at_its_end(stage, app, axme):
    """Celery's own ``link=``, once the result is in the ledger."""
    received = []

    @app.task(shared=False)
    def notify(result):
        received.append(result)

    @axme.task
    def work():
        return "done"

    stage.kill("end", recorded=True)
    work.apply_async(link=notify.s())
    stage.run()
    stage.pass_time("1m")

    assert received == ["done"]


def test_a_leg_whose_worker_dies_every_time_is_given_up(stage, axme, effect):
    """After ``max_attempts`` deaths: a dead letter that says so, and no endless loop."""

    @axme.task(max_attempts=3)
    def poison():
        effect("kills")

    for _ in range(3):
        stage.kill("effect")
    intent = stage.submit(poison.s())
    stage.pass_time("1d")

    assert effect.done == ["kills"] * 3
    assert (intent.refresh().status, intent.error["code"]) == (Status.FAILED, "worker_lost")
    assert intent.legs()[0].attempts == 3
    assert [(x.code, x.leg_id) for x in stage.dead_letters()] == [("worker_lost", intent.legs()[0].id)]


def test_waits_between_deaths_do_not_make_a_leg_poison(stage, axme, effect):
    """Nor does the number of its runs: only deaths in a row without an end count as attempts."""

    @axme.task(max_attempts=2)
    def work():
        for n in range(4):
            wait_for_time("1h")
            effect(n)
        return "done"

    stage.kill("effect#1")
    intent = stage.submit(work.s())
    stage.pass_time("1d")

    assert (intent.refresh().result, intent.legs()[0].run) == ("done", 6)


def test_a_replayed_poison_goes_on_from_its_finished_work(stage, axme, effect):
    """Once the cause is mended."""

    @axme.task(max_attempts=1)
    def work():
        return [effect(n) for n in range(3)]

    stage.kill("effect#3")
    intent = stage.submit(work.s())
    new = axme.replay(stage.dead_letters()[0].id, by="ops")
    stage.run()

    assert intent.refresh().status is Status.FAILED
    assert (new.refresh().result, effect.done) == ([0, 1, 2], [0, 1, 2, 2])


# -- the ledger away ------------------------------------------------------------------------------


@pytest.fixture
def ledger_away(axme, stage):
    """``ledger_away(n)``: the next n commits find no database."""

    class Away:
        def __init__(self, kept):
            self.kept, self.times = kept, 0

        def __getattr__(self, name):
            return getattr(self.kept, name)

        def commit(self, *changes, **options):
            if self.times > 0:
                self.times -= 1
                raise LedgerUnavailable("the ledger's database did not take this: it is away")
            return self.kept.commit(*changes, **options)

    away = Away(axme.runtime.ledger)
    axme._runtime = replace(axme.runtime, ledger=away)

    def start(times=1):
        away.times = times

    return start


@pytest.mark.parametrize("at", ["step", "wait", "end", "failure"])
def test_a_run_that_cannot_record_is_run_again(stage, axme, effect, ledger_away, at):
    """A worker holds no lies: what is not in the ledger has not happened to the leg."""
    runs = []

    @axme.task
    def work():
        runs.append(1)
        effect("first")
        if len(runs) == 1 and at == "step":
            ledger_away()
        effect("second")
        if len(runs) == 1 and at == "wait":
            ledger_away()
        wait_for_time("1h")
        if len(runs) == 2 and at in ("end", "failure"):
            ledger_away()
            if at == "failure":
                raise ValueError("that time")
        return "done"

    intent = stage.submit(work.s())
    stage.pass_time("3h")

    assert (intent.refresh().status, intent.result) == (Status.COMPLETED, "done")
    assert effect.done.count("first") == 1
    assert effect.done.count("second") == (2 if at == "step" else 1)
    assert kinds(stage, intent).count("leg_lost") == 1


# -- how a body ends --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "code", "words"),
    [({1}, "NotJson", "$ is a set"), (float("nan"), "NotJson", "nan"), ("x" * 2_000_000, "TooLarge", "axme_result_bytes")],
    ids=["a set", "NaN", "two megabytes"],
)  # fmt: skip
def test_a_result_that_cannot_be_kept_fails_the_intent_by_name(stage, axme, result, code, words):
    """The task is named, and how to mend it."""

    @axme.task
    def work():
        return result

    intent = stage.submit(work.s())

    assert (intent.status, intent.error["code"]) == (Status.FAILED, code)
    assert f"result of {work.name}" in intent.error["message"] and words in intent.error["message"]


def test_an_exception_of_the_body_fails_the_intent_at_once(stage, axme):
    """Celery's meaning: what is to be tried again says so. AsyncResult says FAILURE too."""
    runs = []

    @axme.task
    def work():
        runs.append(1)
        raise ValueError("no such month")

    called = work.delay()
    stage.run()

    assert (len(runs), called.state) == (1, "FAILURE")
    assert stage.intent(called.intent_id).error["message"] == "no such month"
    with pytest.raises(ValueError, match="no such month"):
        called.get(timeout=1)


def test_a_task_that_ignores_its_result_completes_with_none(stage, axme):
    """``Ignore`` says that the result is of no interest, not that the work was not done."""

    @axme.task
    def work():
        raise Ignore

    intent = stage.submit(work.s())

    assert (intent.status, intent.result) == (Status.COMPLETED, None)


def test_a_task_that_rejects_its_message_fails(stage, axme):
    """For good: what it asks to have back is delivered again."""

    @axme.task
    def work():
        raise Reject("not for me", requeue=False)

    intent = stage.submit(work.s())

    assert intent.status is Status.FAILED
    assert "not for me" in intent.error["message"]


# -- Celery's own retries ------------------------------------------------------------------------------


def test_a_retried_task_is_run_again_after_its_countdown_with_its_steps_kept(stage, axme, effect):
    """``self.retry``: the next run of the same leg, its message kept in the ledger meanwhile."""
    moments = []

    @axme.task(bind=True, max_retries=5)
    def work(self):
        effect("once")
        moments.append((stage.now, self.request.retries))
        if len(moments) < 3:
            raise self.retry(countdown=3600)
        return "done"

    intent = stage.submit(work.s())
    stage.pass_time("5h")

    began = moments[0][0]
    assert [((at - began).total_seconds(), retries) for at, retries in moments] == [(0, 0), (3600, 1), (7200, 2)]
    assert effect.done == ["once"]
    (leg,) = intent.legs()
    assert (intent.refresh().result, leg.run, leg.attempts) == ("done", 3, 1)
    assert kinds(stage, intent).count("leg_retried") == 2


def test_a_retry_may_change_the_arguments(stage, axme):
    """As with any Celery task; and without ``raise``, the body goes on but its end does not count."""
    seen = []

    @axme.task(bind=True)
    def work(self, url):
        seen.append(url)
        if url == "first":
            self.retry(args=("mirror",), countdown=1, throw=False)
        return url

    intent = stage.submit(work.s("first"))
    stage.pass_time("1m")

    assert (seen, intent.refresh().result) == (["first", "mirror"], "mirror")


def test_retries_end_at_max_retries_with_what_went_wrong_last(stage, axme):
    """Celery's bound; the intent fails with the task's own exception, or Celery's."""
    tries = []

    @axme.task(bind=True, max_retries=2)
    def with_cause(self):
        tries.append(1)
        try:
            raise ConnectionError(f"down {len(tries)}")
        except ConnectionError as error:
            raise self.retry(exc=error, countdown=1) from error

    @axme.task(bind=True, max_retries=0)
    def without(self):
        raise self.retry(countdown=1)

    first, second = stage.submit(with_cause.s()), stage.submit(without.s())
    stage.pass_time("1m")

    assert len(tries) == 3
    assert (first.refresh().error["code"], first.error["message"]) == ("ConnectionError", "down 3")
    assert second.refresh().error["code"] == MaxRetriesExceededError.__name__


def test_autoretry_is_a_retry_like_any_other(stage, axme):
    """With its growing pauses."""
    moments = []

    @axme.task(autoretry_for=(ConnectionError,), retry_backoff=60, retry_jitter=False, max_retries=3)
    def work():
        moments.append(stage.now)
        if len(moments) < 4:
            raise ConnectionError
        return "up"

    intent = stage.submit(work.s())
    stage.pass_time("1h")

    assert intent.refresh().result == "up"
    assert [(at - moments[0]).total_seconds() for at in moments] == [0, 60, 180, 420]


def test_an_ordinary_task_that_was_submitted_keeps_its_retries_too(stage, app):
    """Its code is untouched; its retries go through the ledger."""
    tries = []

    @app.task(shared=False, bind=True)
    def plain(self):
        tries.append(self.request.id)
        if len(tries) < 2:
            raise self.retry(countdown=60)
        return "done"

    intent = stage.submit(plain.s())
    stage.pass_time("5m")

    assert intent.refresh().result == "done"
    assert set(tries) == {intent.legs()[0].id}


def test_a_wait_is_not_a_retry(stage, axme):
    """However often a leg rests, ``request.retries`` stays what it was."""
    seen = []

    @axme.task(bind=True, max_retries=1)
    def work(self):
        for _ in range(3):
            wait_for_time("1h")
        seen.append(self.request.retries)

    stage.submit(work.s())
    stage.pass_time("1d")

    assert seen == [0]


# -- what a body sees ------------------------------------------------------------------------------------


def test_a_leg_is_the_same_celery_task_in_every_run(stage, axme):
    """Id, headers, queue's options: a resumed leg goes on as if it had never stopped."""
    seen = []

    @axme.task(bind=True)
    def work(self):
        seen.append((self.request.id, self.request.headers.get("tenant"), self.request.root_id))
        wait_for_time("1h")

    called = work.apply_async(headers={"tenant": "acme"})
    stage.run()
    stage.pass_time("1h")

    assert seen == [(called.id, "acme", called.id)] * 2


def test_one_process_may_run_legs_and_ordinary_tasks_in_turn(stage, app, axme, effect):
    """Nothing of a leg is left behind in the thread."""

    @axme.task
    def durable():
        wait_for_time("1h")

    @app.task(shared=False)
    def plain():
        effect("plain")
        return legs.current() is None

    stage.submit(durable.s())
    called = plain.delay()
    stage.run()

    assert called.get(timeout=1) is True
    assert legs.take_guards() == ()


def test_claiming_waits_for_no_tracker(stage, axme, effect):
    """Its lease is told with all else, a moment later: Redis may hang, and a short run costs it nothing."""

    @axme.task
    def work():
        return effect(1)

    asked = []
    intent = axme.submit(work.s())
    (leg,) = intent.legs()
    rt = replace(axme.runtime, tracker=Untouched(asked), relay=Told())
    legs.run(rt, leg.id, 1, lambda running: effect(1), guarded=False, show_waiting=lambda: None)

    assert asked == []
    assert rt.relay.ended == [Lease(leg.id, 1)]
    beats.tell_tracker(rt, rt.relay.changes, rt.relay.ended)
    assert asked == ["tell"]
    beats.tell_tracker(replace(rt, tracker=axme.runtime.tracker), rt.relay.changes)
    stage._now += timedelta(seconds=axme.settings.lease_seconds)
    assert axme.runtime.tracker.lapsed(10) == [Lease(leg.id, 1)]


def test_only_who_claims_tells_of_a_lease(stage, axme, effect):
    """A listener outside Celery has its lease in the ledger; who only writes to a leg must not lengthen a dead worker's."""

    @axme.task
    def work():
        return effect(1)

    (queued,) = axme.submit(work.s()).legs()
    claimed = replace(queued, status=LegStatus.RUNNING, due_at=None)
    lent = replace(claimed, due_at=stage.now)
    asked = []
    rt = replace(axme.runtime, tracker=Untouched(asked))

    beats.tell_tracker(rt, [Change(legs=((queued, lent), (claimed, replace(claimed, has_history=True))))])
    assert asked == ["tell"]
    beats.tell_tracker(rt, [Change(legs=((queued, claimed),))])
    assert asked == ["tell", "hold", "tell"]


def test_a_parked_or_waiting_leg_holds_no_lease(stage, axme):
    """Nothing lapses that is at rest."""

    @axme.task
    def work():
        wait_for_human("Publish?", to="ana")

    intent = stage.submit(work.s())
    stage.pass_time("30d")

    assert axme.runtime.tracker.lapsed(10) == []
    assert (intent.legs()[0].status, intent.legs()[0].run) == (LegStatus.WAITING, 1)


@pytest.mark.parametrize("end", ["cannot record a step", "cannot settle", "cannot be handed back"])
def test_a_run_that_could_not_be_settled_keeps_its_lease_to_lapse(stage, axme, effect, ledger_away, end):
    """Nothing else would tell the sweep, before it next looks at every running leg, that nobody is at it."""

    @axme.task
    def work():
        return "done"

    def body(leg):
        ledger_away()
        if end == "cannot be handed back":
            axme.worker.stop()
        if end != "cannot settle":
            effect(1)

    intent = axme.submit(work.s())
    lease = Lease(intent.legs()[0].id, 1)
    with pytest.raises(LegInterrupt):
        legs.run(axme.runtime, lease.leg_id, 1, body, guarded=False, show_waiting=lambda: None)
    axme.worker.start()
    stage._now += timedelta(seconds=axme.settings.lease_seconds)

    assert axme.runtime.tracker.lapsed(10) == [lease]
    stage.run()
    assert intent.refresh().result == "done"
