"""Pipelines of ordinary tasks, carried as legs."""

from __future__ import annotations

import pytest
from celery import chain, chord, group
from celery.canvas import Signature
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from axme_celery import (
    IntentFailed,
    KeyConflict,
    NotJson,
    UnsupportedWork,
    step,
    wait_for_agent,
    wait_for_human,
    wait_for_time,
)
from axme_celery.graph import JoinStatus
from axme_celery.model import LegStatus, Status
from axme_celery.testing import Stage

from .plans import Recorder, canvases, plain


@pytest.fixture
def calls():
    """What ran, in order."""
    return []


@pytest.fixture
def add(app, calls):
    """An ordinary task that adds."""

    @app.task(shared=False, name="add")
    def add(*numbers):
        calls.append(numbers)
        return sum(number if isinstance(number, int) else sum(number) for number in numbers)

    return add


def tasks_of(intent):
    return [(leg.task, leg.node, leg.status) for leg in intent.legs()]


# -- what runs ---------------------------------------------------------------------------


def test_a_chain_runs_link_by_link_each_an_ordinary_leg(stage, add, calls):
    """Each link takes the result of the one before; the last one's is the intent's."""
    intent = stage.submit(add.s(1, 2) | add.s(10) | add.si(5))

    assert (intent.status, intent.result, calls) == (Status.COMPLETED, 5, [(1, 2), (3, 10), (5,)])
    assert [leg.result for leg in intent.legs()] == ["3", "13", "5"]
    assert [e.type for e in stage.history(intent)] == [
        "intent.created", "intent.submitted", "intent.in_progress", "intent.completed",
    ]  # fmt: skip


def test_a_groups_result_is_the_list_of_its_members_results_in_order(stage, add):
    """Groups within are one with it; a member that ends in a group gives a list."""
    canvas = group(add.s(1), group(add.s(2), add.s(3)), add.s(3) | group(add.s(1), add.s(2)))

    assert stage.submit(canvas).result == [1, 2, 3, [4, 5]]


def test_a_chord_runs_its_body_once_with_the_results_in_order(stage, add, calls):
    """Also one within a chain, whose next link takes what the body gives."""
    intent = stage.submit(add.s(1) | group(add.s(n) for n in range(5)) | add.s() | add.s(100))

    assert intent.result == 1 + 2 + 3 + 4 + 5 + 100
    assert calls[-2:] == [([1, 2, 3, 4, 5],), (15, 100)]
    assert {join.status for join in stage.axme.runtime.ledger.joins(intent.id)} == {JoinStatus.PASSED}


@given(st.data())
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_whatever_canvas_is_submitted_runs_as_celery_itself_would_run_it(app, data):
    """The same calls with the same arguments, and the same result."""
    recorder = Recorder()
    canvas = plain(data.draw(canvases(recorder)))
    recorder.app.set_current()
    eager = plain(Signature.from_dict(canvas, app=recorder.app).apply_async().get()), sorted(recorder.calls)
    recorder.calls = []

    if "note" not in app.tasks:

        @app.task(name="note", shared=False)
        def note(*args, tag=-1):
            return app.recorder.note("note", args, {"tag": tag})

    app.recorder = recorder
    with Stage(app) as stage:
        intent = stage.submit(canvas)
        stage.run()
        assert (intent.refresh().result, sorted(recorder.calls)) == eager
        assert all(one.status is Status.COMPLETED for one in stage.axme.intents())


def test_chunks_maps_and_starmaps_run_as_legs(stage, add, calls):
    """Celery's own tasks do the work of the user's, and are carried too."""
    assert stage.submit(add.chunks([(1, 2), (3, 4), (5, 6)], 2)).result == [[3, 7], [11]]
    assert stage.submit(add.map([1, 2])).result == [1, 2]
    assert stage.submit(add.starmap([(1, 2), (3, 4)]) | add.s()).result == 10


def test_bound_retried_and_class_based_tasks_are_legs_like_any_other(stage, app):
    """``self.retry`` runs the same leg again; its pipeline waits for it."""
    tries = []

    @app.task(bind=True, shared=False, max_retries=5, default_retry_delay=1)
    def stubborn(self, x):
        tries.append((self.request.id, self.request.retries))
        if len(tries) < 3:
            raise self.retry()
        return x + 1

    intent = stage.submit(group(stubborn.s(1), stubborn.s(10)) | stubborn.s().set(task_id="last"))
    stage.pass_time("5m")

    assert intent.refresh().status is Status.FAILED  # [2, 11] + 1
    assert intent.error["code"] == "TypeError"
    assert max(retries for _, retries in tries) >= 1


def test_a_signature_with_one_call_stays_the_one_leg_it_always_was(stage, add):
    """No join, no plan: nothing is added for those who need none."""
    intent = stage.submit(add.s(1))

    assert (intent.legs()[0].node, intent.legs()[0].plan, stage.axme.runtime.ledger.joins(intent.id)) == ("", {}, [])


# -- messages ----------------------------------------------------------------------------


def test_each_leg_is_one_ordinary_message_that_says_what_celery_would_say(stage, app, add):
    """Root, parent and group as ever; no chain and no chord, for it is the ledger that goes on."""
    seen = {}

    @app.task(bind=True, shared=False)
    def look(self, *args):
        request = self.request
        seen[request.id] = {
            name: getattr(request, name)
            for name in ("root_id", "parent_id", "group", "group_index", "chain", "chord", "callbacks")
        }
        return 1

    intent = stage.submit(look.s() | group(look.s(), look.s()) | look.s())
    first, second, third, last = (seen[leg.id] for leg in intent.legs())
    root = intent.legs()[0].id

    assert {one["root_id"] for one in seen.values()} == {root}
    assert (second["parent_id"], second["group_index"], third["group_index"]) == (root, 0, 1)
    assert second["group"] == third["group"] is not None and first["group"] is None
    assert all(not one["chain"] and not one["chord"] and not one["callbacks"] for one in seen.values())
    assert last["parent_id"] == intent.legs()[2].id


def test_celerys_own_results_say_how_every_leg_ended(stage, app, add):
    """``AsyncResult`` of any leg, as ever."""
    intent = stage.submit(group(add.s(1), add.s(2)) | add.s())

    assert [app.AsyncResult(leg.id).get() for leg in intent.legs()] == [1, 2, 3]


def test_options_are_those_of_celery_and_reckoned_when_the_leg_starts(stage, app, add):
    """Queue, priority, headers, and a countdown that begins when its turn has come."""
    canvas = add.s(1).set(queue="a", priority=3) | add.s(2).set(queue="b", countdown=3600, expires=7200)
    intent = stage.submit(canvas)
    first, second = intent.legs()

    assert (first.signature["options"]["queue"], first.signature["options"]["priority"]) == ("a", 3)
    assert (second.status, second.signature["options"]["queue"]) == (LegStatus.QUEUED, "b")
    stage.pass_time("59m")
    assert intent.refresh().status is Status.IN_PROGRESS
    stage.pass_time("1m")
    assert intent.refresh().result == 3


def test_very_many_followers_are_started_in_batches(stage, app):
    """By the join before them, or the one put there: none twice, none left out."""
    ran = []

    @app.task(shared=False, typing=False)
    def count(*args):
        ran.append(args)
        return len(args[0]) if args and isinstance(args[0], list) else 1

    many = group(count.s(n) for n in range(1100))
    after_a_join = stage.submit(group(count.si(), count.si()) | many | count.s())
    assert (after_a_join.status, after_a_join.result, len(ran)) == (Status.COMPLETED, 1100, 2 + 1100 + 1)
    ran.clear()
    after_a_task = stage.submit(count.si() | group(count.s(n) for n in range(300)) | count.s())
    assert (after_a_task.result, len(ran)) == (300, 1 + 300 + 1)
    assert all(args[0] == 1 for args in ran[1:-1])


# -- crashes -----------------------------------------------------------------------------


def test_a_pipeline_goes_on_where_its_worker_died(stage, axme, add, calls):
    """What was done is not done again: neither the links before, nor a step recorded in this one."""

    @step
    def once(x):
        calls.append(("once", x))
        return x

    @axme.task(name="careful")
    def careful(x):
        once(x)
        return once(x + 1)

    stage.kill("once#2")
    intent = stage.submit(add.s(1) | careful.s() | add.s(1))

    assert intent.result == 3
    assert calls == [(1,), ("once", 1), ("once", 2), ("once", 2), (2, 1)]


def test_a_chord_is_passed_by_the_sweep_when_the_last_members_worker_died_before_it_could(stage, add, calls):
    """Killed just after the commit that counted it: its body fires all the same, and once."""
    stage.kill("end", recorded=True)
    stage.kill("end", recorded=True)
    stage.kill("end", recorded=True)
    intent = stage.submit(group(add.s(1), add.s(2)) | add.s())

    assert (intent.result, calls.count(([1, 2],))) == (3, 1)


def test_a_message_delivered_twice_counts_once(stage, add):
    """In the join too."""
    stage.axme.submit(group(add.s(1), add.s(2)) | add.s())
    stage._relay.flush()
    stage.copy_messages()
    stage.run()
    (intent,) = stage.axme.intents()

    assert intent.result == 3


# -- failures ----------------------------------------------------------------------------


@pytest.fixture
def fails(app):
    """A task that raises."""

    @app.task(shared=False, name="fails")
    def fails(*args):
        raise ConnectionError("no route")

    return fails


def test_a_failed_header_fails_the_intent_and_its_body_does_not_run(stage, app, add, fails, calls):
    """What had not begun does not begin; Celery's results of what will never run say so."""
    intent = stage.submit(group(add.s(1), fails.s(), add.s(2) | add.s(3)) | add.s() | add.s(7))

    assert (intent.status, intent.error["code"]) == (Status.FAILED, "ConnectionError")
    assert all(not isinstance(args[0], list) for args in calls)
    body = intent.legs()[-2]
    assert (body.status, app.AsyncResult(body.id).state) == (LegStatus.CANCELED, "FAILURE")
    with pytest.raises(ConnectionError):
        app.AsyncResult(intent.legs()[-1].id).get()
    assert {join.status for join in stage.axme.runtime.ledger.joins(intent.id)} == {JoinStatus.CANCELED}
    with pytest.raises(IntentFailed):
        intent.wait()


def test_errbacks_are_called_of_the_task_and_of_the_chord_it_was_in(stage, app, add, fails):
    """Old ones with the id, as intents of their own; those that see the exception in place, as Celery does."""
    told, seen = [], []

    @app.task(shared=False)
    def by_id(task_id):
        told.append(task_id)

    @app.task(shared=False)
    def by_exception(request, exc, traceback):
        seen.append((request.id, str(exc)))

    body = add.s().on_error(by_id.s()).on_error(by_exception.s())
    intent = stage.submit(chord([add.s(1), fails.s().on_error(by_id.s()).on_error(by_exception.s())], body))
    _, failed, last = intent.legs()

    assert told == [failed.id, last.id]
    assert seen == [(failed.id, "no route"), (last.id, "no route")]
    assert [e.requester for e in stage.axme.intents(type=by_id.name)] == [f"intent:{intent.id}"] * 2


def test_an_errback_on_a_chain_is_called_once_whichever_link_fails(stage, app, add, fails):
    """As Celery does it."""
    told = []

    @app.task(shared=False)
    def by_id(task_id):
        told.append(task_id)

    canvas = add.s(1) | fails.s() | add.s(3)
    canvas.link_error(by_id.s())
    intent = stage.submit(canvas)

    assert told == [intent.legs()[1].id]


def test_callbacks_are_intents_of_their_own_that_begin_with_their_tasks_end(stage, app, add, calls):
    """They take the result, and are no part of the pipeline's; one that fails does not fail it."""

    @app.task(shared=False)
    def breaks(x):
        raise ValueError(x)

    first = add.s(1)
    first.link(add.s(10) | add.s(100))
    first.link(breaks.s())
    intent = stage.submit(first | add.s(2), correlation_id="c", tags=["t"])

    assert (intent.status, intent.result) == (Status.COMPLETED, 3)
    callbacks = {one.type: one for one in stage.axme.intents() if one.id != intent.id}
    assert (callbacks["add"].result, callbacks["add"].correlation_id, callbacks["add"].tags) == (111, "c", ("t",))
    assert callbacks[breaks.name].status is Status.FAILED


def test_a_callback_is_given_a_result_of_any_size_that_a_result_may_have(stage, app):
    """As the next link of a chain is: what may be submitted is less."""
    seen = []

    @app.task(shared=False)
    def large():
        return "x" * 900_000

    @app.task(shared=False)
    def note(value):
        seen.append(len(value))

    intent = stage.submit(large.s().set(link=[note.s(), note.s() | note.si("end")]))

    assert (intent.status, sorted(seen)) == (Status.COMPLETED, [3, 900_000, 900_000])
    assert stage.dead_letters() == []


@pytest.mark.parametrize("errs", [False, True], ids=["callback", "errback"])
def test_a_callback_that_can_no_longer_be_called_is_a_dead_letter_and_holds_up_nothing(stage, app, errs):
    """A deploy has changed what it takes while its pipeline was on its way."""

    @app.task(name="note", shared=False)
    def note(value):
        pass

    @app.task(shared=False)
    def work():
        wait_for_time("1h")
        if errs:
            raise ValueError("boom")

    signature = work.s().on_error(note.s()) if errs else work.s().set(link=note.s())
    intent = stage.submit(signature)
    del app.tasks["note"]

    @app.task(name="note", shared=False)
    def other(value, *, team):
        pass

    stage.pass_time("1h")

    letters = {letter.code: letter for letter in stage.dead_letters()}
    assert intent.refresh().status is (Status.FAILED if errs else Status.COMPLETED)
    assert intent.legs()[0].attempts == 1
    assert set(letters) == {"callback_refused"} | ({"ValueError"} if errs else set())
    assert "note" in letters["callback_refused"].reason and "team" in letters["callback_refused"].reason
    assert letters["callback_refused"].leg_id == intent.legs()[0].id


def test_one_task_with_a_callback_is_a_pipeline_of_one(stage, add, calls):
    """Its callback is as durable as itself."""
    called = add.s(1)
    called.link(add.s(5))
    intent = stage.submit(called)

    assert (intent.result, intent.payload, calls) == (1, {"task": "add", "args": [1], "kwargs": {}}, [(1,), (1, 5)])


def test_a_canceled_pipeline_runs_no_leg_any_more(stage, app, add, calls):
    """However many there are; their results say so."""
    intent = stage.axme.submit(group(add.s(n) for n in range(20)) | add.s())
    intent.cancel("no need", by="ana")
    stage.run()

    assert (intent.refresh().status, calls) == (Status.CANCELED, [])
    assert {leg.status for leg in intent.legs()} == {LegStatus.CANCELED}
    assert app.AsyncResult(intent.legs()[7].id).state == "REVOKED"


def test_a_pipeline_past_its_deadline_is_timed_out(stage, add, calls):
    """Whole."""
    intent = stage.submit(add.s(1) | add.s(2).set(countdown=7200), deadline="1h")
    stage.pass_time("3h")

    assert (intent.refresh().status, calls) == (Status.TIMED_OUT, [(1,)])


def test_results_that_are_too_large_together_fail_the_intent_with_the_place(app, add):
    """Rather than a message no broker takes."""

    @app.task(shared=False)
    def large():
        return "x" * 900

    with Stage(app, join_bytes=2000) as stage:
        intent = stage.submit(add.s(1) | group(large.si(), large.si(), large.si()) | add.s())

    assert intent.error["code"] == "join_too_large" and "1.header" in intent.error["message"]
    assert "axme_join_bytes" in intent.error["message"]


def test_results_that_are_too_large_together_cancel_the_agents_that_are_still_at_work(app, axme, add):
    """As when a leg fails: nobody waits for them any more."""

    @app.task(shared=False)
    def large():
        wait_for_time(5)
        return "x" * 900

    @axme.task
    def child():
        wait_for_human("Which?", to="ana")

    with Stage(app, join_bytes=1024) as stage:
        agent = add.si(1) | wait_for_agent.s(child.si())
        intent = stage.submit(group(chord([large.si(), large.si()], add.s()), agent))
        stage.pass_time("10s")

        assert intent.refresh().error["code"] == "join_too_large"
        assert [one.status for one in stage.axme.intents(type=child.name)] == [Status.CANCELED]


# -- submitting ----------------------------------------------------------------------------


def test_the_same_canvas_under_one_key_is_one_intent_and_another_is_refused(stage, axme, add):
    """Whatever ids Celery would have given their tasks."""
    first = axme.submit(add.s(1) | group(add.s(2), add.s(3)), key="k")
    second = axme.submit(add.s(1) | group(add.s(2), add.s(3)), key="k")

    assert first.id == second.id
    for other in (add.s(1) | group(add.s(2), add.s(4)), add.s(1) | add.s(2) | add.s(3), add.s(1)):
        with pytest.raises(KeyConflict):
            axme.submit(other, key="k")


def test_a_pipelines_type_is_its_first_tasks_and_its_payload_says_what_is_in_it(stage, add):
    """Unless others are given."""
    intent = stage.submit(add.s(1) | add.s(2))

    assert (intent.type, intent.payload) == ("add", {"pipeline": "add | add", "legs": 2})
    assert stage.submit(add.s(1) | add.s(2), type="sums", payload={"x": 1}).type == "sums"


@pytest.mark.parametrize(
    ("canvas", "error", "words"),
    [
        (lambda add: add.s(1) | group(add.s(1), add.s({1})), NotJson, r"node 1\[1\] \(add\): arguments"),
        (lambda add: add.s(1) | Signature("nowhere"), UnsupportedWork, "node 1: no task 'nowhere'.*set\\(queue="),
        (lambda add: group(add, add.s(1)), UnsupportedWork, r"write add.s\(\.\.\.\)"),
        (lambda add: add.s(1) | add.s(2).on_error(Signature("nowhere")), UnsupportedWork, r"node 1 \(add\): errback"),
    ],
    ids=["a set", "unknown", "a task", "unknown errback"],
)
def test_what_cannot_be_carried_is_refused_before_anything_is_stored(stage, axme, add, canvas, error, words):
    """With the place in the canvas, and the way out."""
    with pytest.raises(error, match=words):
        axme.submit(canvas(add))
    assert list(axme.intents()) == []


def test_a_program_that_has_not_imported_what_workers_do_may_name_any_task(stage, axme, app, add):
    """It only sends: which tasks there are is not for it to say."""
    app.conf.include = ["a.module.of.the.workers"]
    intent = axme.submit(add.s(1) | Signature("theirs.work"))

    assert intent.legs()[1].task == "theirs.work"


def test_a_task_the_app_does_not_know_may_be_submitted_where_its_queue_is_known(stage, axme, app, add):
    """Named with it, or routed."""
    app.conf.task_routes = {"theirs.*": {"queue": "theirs"}}
    for signature in (Signature("nowhere").set(queue="there"), Signature("theirs.work")):
        intent = axme.submit(add.s(1) | signature)
        assert intent.legs()[1].status is LegStatus.PENDING


def test_arguments_a_task_does_not_take_are_refused_at_once(stage, axme, app, add):
    """Counting the result that is still to come."""

    @app.task(shared=False)
    def one(x):
        return x

    with pytest.raises(TypeError, match=r"node 1 \("):
        axme.submit(add.s(1) | one.s(2))
    assert stage.submit(add.s(1) | one.s()).result == 1


def test_a_pipeline_in_the_callers_own_transaction_starts_when_that_commits(stage, axme, add):
    """And is not there when it does not."""
    with stage.engine.connect() as connection:
        with connection.begin() as transaction:
            axme.submit(add.s(1) | add.s(2), connection=connection)
            transaction.rollback()
        with connection.begin():
            axme.submit(group(add.s(1), add.s(2)) | add.s(3), connection=connection)
    stage.run()
    (intent,) = axme.intents()

    assert intent.result == 6


def test_a_canvas_may_be_chained_by_hand_too(stage, add):
    """``chain(...)`` and ``|`` are the same."""
    assert stage.submit(chain(add.s(1), add.s(2), group(add.s(1), add.s(2)))).result == [4, 5]
