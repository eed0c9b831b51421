"""Steps: done once, their results kept."""

from __future__ import annotations

import itertools
import re
import threading
import time
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from axme_celery import (
    BadInput,
    OutsideIntent,
    StepFailed,
    StepInterrupted,
    TrackerUnavailable,
    current_intent,
    current_step,
    progress,
    step,
    wait_for_human,
    wait_for_time,
)
from axme_celery.errors import StaleChange
from axme_celery.ledger import SqlLedger
from axme_celery.ledger.migrate import upgrade
from axme_celery.model import Checkpoint, Fence, Lease, Recorded, Status
from axme_celery.sweep import lose
from axme_celery.testing import Stage
from axme_celery.tracker import open_tracker


def counted(done: list[object], **options: object):
    """A step that notes each time its function runs."""

    @step(name="count", **options)
    def count(value: object = None) -> object:
        done.append(value)
        return value

    return count


# -- once ---------------------------------------------------------------------------


def test_a_recorded_step_does_not_run_again_after_a_wait(stage, axme):
    """The leg runs from its start again; what it has done it gets from the record."""
    done = []
    count = counted(done)

    @axme.task
    def work():
        first = count("a")
        wait_for_time("1d")
        return [first, count("b")]

    intent = stage.submit(work.s())
    stage.pass_time("1d")

    assert done == ["a", "b"]
    assert intent.refresh().result == ["a", "b"]
    assert intent.legs()[0].run == 2


def test_a_leg_killed_after_its_step_resumes_past_it(stage, axme):
    """Killed at page 3: the pages before are not written again."""
    pages = []
    publish = counted(pages)

    @axme.task
    def export():
        for page in range(5):
            publish(page)
        return len(pages)

    stage.kill(at_step="count#4", recorded=True)
    intent = stage.submit(export.s())

    assert pages == [0, 1, 2, 3, 4]
    assert (intent.status, intent.result) == (Status.COMPLETED, 5)
    assert [s.run for s in intent.steps()] == [1, 1, 1, 1, 2]


def test_a_step_that_was_running_at_the_crash_runs_again(stage, axme):
    """At least once: its function had run, but nobody had recorded it."""
    pages = []
    publish = counted(pages)

    @axme.task
    def export():
        for page in range(3):
            publish(page)

    stage.kill(at_step="count#2")
    intent = stage.submit(export.s())

    assert pages == [0, 1, 1, 2]
    assert intent.status is Status.COMPLETED


def test_calls_of_one_step_are_told_apart_by_their_order(stage, axme):
    """The n-th call of a name gets back the n-th result, whatever its arguments."""
    done = []
    count = counted(done)

    @axme.task
    def work():
        values = [count(n) for n in (1, 2, 3)]
        wait_for_time("1h")
        return values

    intent = stage.submit(work.s())
    stage.pass_time("1h")

    assert done == [1, 2, 3]
    assert intent.refresh().result == [1, 2, 3]
    assert [(s.name, s.nth, s.position) for s in intent.steps()] == [("count", n, n - 1) for n in (1, 2, 3)]


def test_a_step_is_recorded_under_its_functions_name_unless_another_is_given(stage, axme):
    """Names are what a running intent is matched by when the code has changed."""

    @step
    def fetch():
        return 1

    @axme.task
    def work():
        fetch()
        step(name="inline")(lambda: 2)()

    intent = stage.submit(work.s())

    assert [s.name for s in intent.steps()] == ["fetch", "inline"]


def test_a_result_comes_back_with_the_types_it_had(stage, axme):
    """In the run that made it and in every later one; but a tuple is a list from then on."""
    values = {
        "at": datetime(2026, 10, 5, tzinfo=UTC), "id": UUID(int=7), "price": Decimal("9.90"), "raw": b"\x00\xff",
        "none": None, "nested": [{"a": [1, 2.5, True]}],
    }  # fmt: skip
    seen = []

    @step
    def fetch():
        return values

    @axme.task
    def work():
        seen.append(fetch())
        wait_for_time("1h")

    stage.submit(work.s())
    stage.pass_time("1h")

    assert seen == [values, values]


def test_outside_an_intent_a_step_is_an_ordinary_call():
    """The same functions work in a shell, a test, a plain task."""
    done = []
    count = counted(done, retries=3, at_most_once=True)

    results = [count(1), count(2)]

    assert (results, done) == ([1, 2], [1, 2])
    with pytest.raises(OutsideIntent, match="current_step"):
        current_step()


def test_an_ordinary_task_calls_steps_as_functions(stage, app):
    """Only intents keep records."""
    done = []
    count = counted(done)

    @app.task(shared=False)
    def plain(value):
        return count(value)

    result = plain.delay(5)
    stage.run()

    assert (result.get(timeout=1), done) == (5, [5])
    assert list(stage.axme.intents()) == []


def test_a_step_within_a_step_belongs_to_the_outer_one(stage, axme):
    """The outer result is the record; the inner is an ordinary call."""
    inner_runs = []
    inner = counted(inner_runs)

    @step
    def outer():
        return inner(1) + inner(2)

    @axme.task
    def work():
        total = outer()
        wait_for_time("1h")
        return total

    intent = stage.submit(work.s())
    stage.pass_time("1h")

    assert [s.name for s in intent.steps()] == ["outer"]
    assert (inner_runs, intent.refresh().result) == ([1, 2], 3)


def test_a_method_can_be_a_step(stage, axme):
    """``self`` is an argument like any other."""

    class Shop:
        @step
        def sell(self, what):
            return f"{what} sold"

    @axme.task
    def work():
        return Shop().sell("tea")

    intent = stage.submit(work.s())

    assert intent.result == "tea sold"
    assert [s.name for s in intent.steps()] == ["sell"]


# -- current_step -----------------------------------------------------------------------


def test_the_idempotency_key_of_a_call_is_the_same_in_every_run_and_try(stage, axme):
    """An outside system can recognise a repeat; two calls and two intents differ."""
    keys = []

    @step(retries=1, backoff=1)
    def pay(fails):
        call = current_step()
        keys.append((call.nth, call.idempotency_key))
        if fails and call.attempt == 1:
            raise ConnectionError
        return 1

    @axme.task
    def work():
        pay(True)
        pay(False)

    stage.kill(at_step="pay#1")
    first = stage.submit(work.s())
    of_first = list(keys)
    stage.submit(work.s())

    assert first.status is Status.COMPLETED
    assert [nth for nth, _ in of_first] == [1, 1, 1, 1, 2]
    assert len({key for nth, key in of_first if nth == 1}) == 1
    assert len({key for _, key in keys}) == 4


def test_a_step_knows_its_run_and_its_attempt(stage, axme):
    """``run`` counts executions of the leg, ``attempt`` the tries within one."""
    seen = []

    @step(retries=2)
    def flaky():
        call = current_step()
        seen.append((call.name, call.run, call.attempt))
        if call.attempt < 3:
            raise ConnectionError
        return 1

    @axme.task
    def work():
        return flaky()

    stage.kill(at_step="flaky")
    stage.submit(work.s())

    assert seen == [("flaky", run, attempt) for run in (1, 2) for attempt in (1, 2, 3)]


# -- retries ------------------------------------------------------------------------------


def test_a_step_is_tried_again_after_pauses_that_double(stage, axme):
    """``retries`` more times, ``backoff`` seconds first; jittered down to a half at most."""
    moments = []

    @step(retries=4, backoff=8)
    def flaky():
        moments.append(stage.now)
        raise ConnectionError("no")

    @axme.task
    def work():
        flaky()

    intent = stage.submit(work.s())

    pauses = [(b - a).total_seconds() for a, b in itertools.pairwise(moments)]
    assert len(pauses) == 4
    for pause, longest in zip(pauses, (8, 16, 32, 60), strict=True):
        assert longest / 2 <= pause <= longest
    assert (intent.status, intent.error["code"]) == (Status.FAILED, "ConnectionError")


def test_a_step_that_succeeds_at_last_is_recorded_as_done(stage, axme):
    """What went wrong on the way is nobody's business."""
    tries = []

    @step(retries=2)
    def flaky():
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError
        return "ok"

    @axme.task
    def work():
        return flaky()

    intent = stage.submit(work.s())

    assert (intent.result, len(tries)) == ("ok", 3)
    assert [s.recorded for s in intent.steps()] == [Recorded.DONE]


def test_a_worker_that_is_stopping_begins_no_further_try(stage, axme):
    """The leg is handed back between two tries, and goes on elsewhere; that is no attempt."""
    tries = []

    @step(retries=5, backoff=1)
    def flaky():
        tries.append(current_step().run)
        if len(tries) == 2:
            axme.worker.stop()
        if len(tries) < 4:
            raise ConnectionError
        return "ok"

    @axme.task
    def work():
        if len(tries) == 2:
            # The next worker.
            axme.worker.start()
        return flaky()

    intent = stage.submit(work.s())

    assert tries == [1, 1, 2, 2]
    assert (intent.result, intent.legs()[0].attempts) == ("ok", 1)
    assert "intent.handed_back" in [e.type for e in stage.history(intent)]


# -- failures -----------------------------------------------------------------------------


def test_a_failure_nobody_handles_fails_the_intent_with_its_words(stage, axme):
    """The error says what, the steps before stay on record."""
    count = counted([])

    @step
    def broken():
        raise ValueError("no such month")

    @axme.task
    def work():
        count(1)
        broken()

    intent = stage.submit(work.s())

    assert intent.status is Status.FAILED
    assert (intent.error["code"], intent.error["message"]) == ("ValueError", "no such month")
    assert "no such month" in intent.error["traceback"]
    assert [s.name for s in intent.steps()] == ["count"]


def test_a_failure_the_body_handled_is_raised_the_same_in_every_later_run(stage, axme):
    """The body took one way because of it, and must take the same way again."""
    tries, ways = [], []

    @step
    def from_mirror(name):
        tries.append(name)
        raise ConnectionError("down", name)

    fetch = counted([])

    @axme.task
    def work():
        try:
            from_mirror("one")
        except ConnectionError as error:
            ways.append(error.args)
            fetch("elsewhere")
        wait_for_time("1h")
        return "done"

    intent = stage.submit(work.s())
    stage.pass_time("1h")

    assert tries == ["one"]
    assert ways == [("down", "one"), ("down", "one")]
    assert [(s.name, s.recorded) for s in intent.steps()] == [
        ("from_mirror", Recorded.FAILED), ("count", Recorded.DONE),
    ]  # fmt: skip
    assert intent.refresh().result == "done"


def test_a_failure_whose_class_cannot_be_found_again_is_a_step_failed(stage, axme):
    """With the step's name and the words of the first failure."""

    class Local(Exception):
        pass

    raised = []

    @step
    def broken():
        raise Local("odd")

    @axme.task
    def work():
        try:
            broken()
        except Exception as error:
            raised.append(error)
        wait_for_time("1h")

    stage.submit(work.s())
    stage.pass_time("1h")

    assert [type(e) for e in raised] == [Local, StepFailed]
    assert "'broken'" in str(raised[1]) and "odd" in str(raised[1])


def test_a_step_that_failed_is_done_anew_when_the_task_is_retried(stage, axme):
    """A failure that left the body is not recorded: a retry is there to try it again."""
    tries = []

    @step
    def flaky():
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError("not yet")
        return "ok"

    count = counted([])

    @axme.task(autoretry_for=(ConnectionError,), retry_backoff=5, retry_jitter=False)
    def work():
        return [count(1), flaky()]

    intent = stage.submit(work.s())
    stage.pass_time("1m")

    assert intent.refresh().result == [1, "ok"]
    assert len(tries) == 3
    assert [s.run for s in intent.steps()] == [1, 3]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({1, 2}, "a set"),
        ({"a": [float("nan")]}, r"\$\.a\[0\] is nan"),
        ("a\0b", "NUL"),
        ({1: "one"}, "keys in JSON are text"),
        (object(), "an object"),
    ],
    ids=["set", "NaN", "NUL", "number as key", "object"],
)
def test_a_result_that_is_no_json_fails_the_step_once_and_for_all(stage, axme, value, words):
    """Its effects have happened, so it must not be done over and over; the message names the step and the place."""
    done, errors = [], []

    @step
    def fetch():
        done.append(1)
        return value

    @axme.task
    def work():
        try:
            fetch()
        except StepFailed as error:
            errors.append(str(error))
        wait_for_time("1h")
        return "went on"

    intent = stage.submit(work.s())
    stage.pass_time("1h")

    assert (len(done), intent.refresh().result) == (1, "went on")
    assert len(errors) == 2 and errors[0] == errors[1]
    assert "'fetch'" in errors[0] and re.search(words, errors[0])


def test_a_result_over_the_limit_fails_the_step_with_its_name_and_size(app, axme):
    """The message says how large it is, how large it may be, and which setting raises that."""
    done = []

    @step
    def fetch():
        done.append(1)
        return "x" * 5000

    @axme.task
    def work():
        return fetch()

    with Stage(app, result_bytes=4096) as stage:
        intent = stage.submit(work.s())
        again = stage.axme.replay(intent.id, by="ops")
        stage.run()

    assert intent.status is Status.FAILED
    message = intent.error["message"]
    assert "'fetch'" in message and "5002 bytes" in message and "4096" in message and "axme_result_bytes" in message
    # A replay begins at what failed: that is what it is for.
    assert len(done) == 2
    assert again.replay_of == intent.id


@pytest.mark.parametrize("odd", [float("inf"), 10**5000], ids=["inf", "huge"])
@pytest.mark.parametrize("at_most_once", [False, True], ids=["again", "once"])
def test_a_steps_failure_can_be_handled_whatever_its_exception_carries(stage, axme, odd, at_most_once):
    """What no JSON can carry is left out of the record; it does not fail the task."""

    @step(at_most_once=at_most_once)
    def ratio():
        raise ValueError("ratio", odd)

    @step
    def after():
        return "went on"

    @axme.task
    def work():
        try:
            ratio()
        except ValueError as error:
            return [error.args[0], after()]

    assert stage.submit(work.s()).result == ["ratio", "went on"]


def test_a_task_whose_exception_cannot_say_what_it_is_fails_once(stage, axme):
    """A bug in somebody's ``__str__`` is no dead worker."""
    runs = []

    class Broken(Exception):
        def __str__(self):
            raise AttributeError("no row")

    @axme.task
    def work():
        runs.append(1)
        raise Broken

    assert (stage.submit(work.s()).error["code"], len(runs)) == ("Broken", 1)


# -- transaction=True ------------------------------------------------------------------------


@pytest.fixture
def orders(stage):
    """A table of the user's own in the ledger's database; calling it counts its rows."""
    with stage.engine.begin() as connection:
        connection.execute(text("CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT UNIQUE)"))

    def count() -> int:
        with stage.engine.connect() as connection:
            return connection.scalar(text("SELECT count(*) FROM orders"))

    return count


def test_a_transaction_step_commits_its_sql_together_with_its_record(stage, axme, orders):
    """Killed before the record: neither is there. Killed after: both are."""
    done = []

    @step(transaction=True)
    def order(connection, item):
        done.append(item)
        connection.execute(text("INSERT INTO orders (item) VALUES (:item)"), {"item": item})
        return item

    @axme.task
    def work():
        return [order("tea"), order("milk")]

    stage.kill(at_step="order#1")
    stage.kill(at_step="order#2", recorded=True)
    intent = stage.submit(work.s())

    assert done == ["tea", "tea", "milk"]
    assert orders() == 2
    assert intent.result == ["tea", "milk"]


def test_a_transaction_step_that_raises_leaves_no_sql_behind(stage, axme, orders):
    """Also when it is tried again, and when the failure is handled."""
    tries = []

    @step(transaction=True, retries=2)
    def order(connection):
        tries.append(1)
        connection.execute(text("INSERT INTO orders (item) VALUES ('tea')"))
        if len(tries) < 3:
            raise ConnectionError("half-way")
        return "ok"

    @axme.task
    def work():
        return order()

    intent = stage.submit(work.s())

    assert (intent.result, len(tries), orders()) == ("ok", 3, 1)


def test_a_transaction_step_sees_its_own_sql_errors(stage, axme, orders):
    """A unique key of the user's own is the user's to handle."""

    @step(transaction=True)
    def order(connection, item):
        connection.execute(text("INSERT INTO orders (item) VALUES (:item)"), {"item": item})

    @axme.task
    def work():
        order("tea")
        try:
            order("tea")
        except IntegrityError:
            return "twice"

    intent = stage.submit(work.s())

    assert (intent.result, orders()) == ("twice", 1)


def test_a_transaction_step_refused_at_its_commit_has_failed_and_its_worker_has_not(app, axme, postgres_url):
    """The task handles it, or fails by it at once; in later runs its words are known."""
    upgrade(postgres_url)
    tries = []

    @step(transaction=True)
    def order(connection):
        tries.append(1)
        connection.execute(text("INSERT INTO orders VALUES (99)"))

    @axme.task
    def handles():
        try:
            order()
        except (IntegrityError, StepFailed) as error:
            wait_for_time("1h")
            return str(error)

    @axme.task
    def does_not():
        order()

    with Stage(app, ledger_url=postgres_url) as stage:
        with stage.engine.begin() as connection:
            connection.execute(text("CREATE TABLE customers (id INTEGER PRIMARY KEY)"))
            connection.execute(
                text("CREATE TABLE orders (customer INTEGER REFERENCES customers DEFERRABLE INITIALLY DEFERRED)")
            )
        handled, failed = stage.submit(handles.s()), stage.submit(does_not.s())
        stage.pass_time("1h")

        assert "violates foreign key" in handled.refresh().result
        assert failed.refresh().error["exception"].endswith("IntegrityError")
        assert len(tries) == 2


def test_a_transaction_step_whose_result_cannot_be_kept_leaves_no_sql_behind(stage, axme, orders):
    """It has failed for good, and nothing of it happened."""
    tries = []

    @step(transaction=True)
    def order(connection):
        tries.append(1)
        connection.execute(text("INSERT INTO orders (item) VALUES ('tea')"))
        return {1, 2}

    @axme.task
    def work():
        try:
            order()
        except StepFailed as error:
            wait_for_time("1h")
            return str(error)

    intent = stage.submit(work.s())
    stage.pass_time("1h")

    assert "'order'" in intent.refresh().result
    assert (orders(), len(tries)) == (0, 1)


def test_a_zombies_transaction_is_rolled_back(stage, axme, orders):
    """A run that lost its lease can write nothing, not even the user's own rows in its step."""
    runs = []

    @step(transaction=True)
    def order(connection):
        connection.execute(text("INSERT INTO orders (item) VALUES ('tea')"))
        return current_step().run

    @step
    def hang():
        # Frozen for longer than the lease: the sweep has given the leg to somebody else by now.
        runs.append(current_step().run)
        if len(runs) == 1:
            (intent,) = axme.intents()
            lose(axme.runtime, Lease(intent.legs()[0].id, 1), "frozen")
        return 1

    @axme.task
    def work():
        if not runs:
            try:
                hang()
            finally:
                order()
        return order()

    intent = stage.submit(work.s())

    assert intent.result == 2
    assert orders() == 1


def test_a_transaction_step_that_would_wait_for_itself_is_told_so(stage, axme):
    """SQLite has one writer: what else is to be written goes through the step's connection, or comes after it."""

    @axme.task
    def other():
        return 1

    @step(transaction=True)
    def order(connection):
        other.delay()

    @axme.task
    def work():
        order()

    intent = stage.submit(work.s())

    assert (intent.status, intent.error["code"]) == (Status.FAILED, "BadInput")
    assert "connection=" in intent.error["message"]
    assert len(list(axme.intents())) == 1


def test_a_transaction_step_may_look_at_the_ledger_meanwhile(stage, axme):
    """Reading disturbs nothing, and progress is kept elsewhere."""

    @step(transaction=True)
    def order(connection):
        progress(1, 2)
        return len(current_intent().refresh().events())

    @axme.task
    def work():
        return order()

    intent = stage.submit(work.s())

    assert intent.result == 3
    assert intent.progress()[intent.legs()[0].id].done == 1


def test_a_tracker_in_the_same_sqlite_file_does_not_make_a_transaction_step_wait(tmp_path):
    """``progress()`` there is lost, not half a minute: the file's one writer is the step itself."""
    ledger = SqlLedger(f"sqlite:///{tmp_path}/ledger.db")
    tracker = open_tracker(None, ledger.id, ledger.engine)
    took = []

    def within(_):
        began = time.monotonic()
        with pytest.raises(TrackerUnavailable, match="one writer at a time"):
            tracker.put_progress("leg", 1, 2, None)
        took.append(time.monotonic() - began)
        return Checkpoint(leg_id="leg", name="s", nth=1, position=0, run=1)

    with pytest.raises(StaleChange):
        ledger.transaction(within, Fence("leg", 1, "claim"))
    tracker.put_progress("leg", 2, 2, None)

    assert took[0] < 5
    assert tracker.progress(["leg"])["leg"].done == 2
    ledger.close()


# -- at_most_once ----------------------------------------------------------------------------


def test_an_at_most_once_step_that_was_interrupted_is_not_run_again(stage, axme):
    """The next run is told instead, and so is every one after that."""
    done, told = [], []
    pay = counted(done, at_most_once=True)

    @axme.task
    def work():
        try:
            pay("100")
        except StepInterrupted as error:
            told.append((error.name, error.nth, error.run))
            decision = wait_for_human("Was it paid?", to="ana")
            return decision.outcome
        return "paid"

    stage.kill(at_step="count")
    intent = stage.submit(work.s())
    intent = stage.answer(intent, "approved", by="ana")

    assert done == ["100"]
    assert told == [("count", 1, 1), ("count", 1, 1)]
    assert intent.result == "approved"


def test_an_interrupted_step_nobody_handles_fails_the_intent_and_says_what_to_do(stage, axme):
    """Its replay is told again: nobody knows more by then."""
    pay = counted([], at_most_once=True)

    @axme.task
    def work():
        pay("100")

    stage.kill(at_step="count")
    intent = stage.submit(work.s())
    again = stage.axme.replay(intent.id, by="ops")
    stage.run()

    assert (intent.status, intent.error["code"]) == (Status.FAILED, "step_interrupted")
    assert "check the outside system" in intent.error["message"]
    assert again.refresh().error["code"] == "step_interrupted"


def test_an_at_most_once_step_that_ended_is_recorded_like_any_other(stage, axme):
    """Its result and its failure both are."""
    done = []
    pay = counted(done, at_most_once=True)

    @step(at_most_once=True)
    def refused():
        done.append("refused")
        raise ValueError("card expired")

    @axme.task
    def work():
        paid = pay("100")
        try:
            refused()
        except ValueError as error:
            wait_for_time("1h")
            return [paid, str(error)]

    intent = stage.submit(work.s())
    stage.pass_time("1h")

    assert done == ["100", "refused"]
    assert intent.refresh().result == ["100", "card expired"]
    assert [s.recorded for s in intent.steps()] == [Recorded.DONE, Recorded.FAILED]


# -- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"retries": -1}, "must not be negative"),
        ({"backoff": -0.5}, "must not be negative"),
        ({"transaction": True, "at_most_once": True}, "drop at_most_once"),
        ({"name": "x" * 256}, "the limit is 255"),
    ],
    ids=str,
)
def test_a_step_that_cannot_work_is_refused_where_it_is_defined(options, words):
    """At import, not in a worker at night."""
    with pytest.raises(BadInput, match=words):
        step(**options)(lambda: None)


def test_a_step_in_another_thread_is_an_ordinary_call(stage, axme):
    """Order is what tells calls apart, and threads have none; only the leg's own thread records."""
    done = []
    count = counted(done)

    @axme.task
    def work():
        thread = threading.Thread(target=count, args=("there",))
        thread.start()
        thread.join()
        return count("here")

    intent = stage.submit(work.s())

    assert done == ["there", "here"]
    assert [(s.name, s.nth) for s in intent.steps()] == [("count", 1)]


def test_no_step_runs_while_the_leg_is_leaving_its_body(stage, axme):
    """A ``finally`` is passed at every wait: a step in it must not have its effects there."""
    order = []

    @step
    def acquire():
        order.append("acquire")

    @step
    def release():
        order.append("release")

    @axme.task
    def work():
        acquire()
        try:
            wait_for_time("1h")
            order.append("woke")
        finally:
            release()

    intent = stage.submit(work.s())
    stage.pass_time("1h")

    assert order == ["acquire", "woke", "release"]
    assert intent.refresh().status is Status.COMPLETED
