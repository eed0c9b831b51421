"""Submit, cancel, and start again from recorded work."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from celery import group
from sqlalchemy import text

from axme_celery import (
    BadInput,
    IntentCanceled,
    IntentEnded,
    IntentFailed,
    IntentTimedOut,
    KeyConflict,
    LedgerUnavailable,
    NotFound,
    NotJson,
    TooLarge,
    UnsupportedWork,
    WaitTimedOut,
    asking,
    current_intent,
    step,
    wait_for_agent,
    wait_for_human,
    wait_for_time,
    wait_for_tool,
)
from axme_celery.ledger.migrate import upgrade
from axme_celery.model import LegStatus, Status, WaitStatus
from axme_celery.onward import carry_out
from axme_celery.submit import Gate, Submission, submit
from axme_celery.testing import Stage


@pytest.fixture
def add(axme):
    """A task that adds."""

    @axme.task
    def add(x, y=1):
        return x + y

    return add


def ids(stage):
    return [intent.id for intent in stage.axme.intents()]


# -- submitting --------------------------------------------------------------------------


def test_a_submitted_intent_is_in_the_ledger_before_anything_runs(stage, axme, add):
    """From here on it cannot be lost, whatever happens to broker and workers."""
    intent = axme.submit(add.s(1))

    assert intent.status is Status.SUBMITTED
    assert [e.type for e in stage.history(intent)] == ["intent.created", "intent.submitted"]
    assert intent.legs()[0].status is LegStatus.QUEUED
    stage.run()
    assert intent.refresh().result == 2


def test_an_intent_carries_what_was_said_of_it(stage, add):
    """And can be found by it."""
    intent = stage.submit(
        add.s(1, y=2), key="k", type="sum", tags=["a", "b", "a"], requester="ana", correlation_id="c-1",
        payload={"about": "sums"},
    )  # fmt: skip

    assert (intent.key, intent.type, intent.tags, intent.requester) == ("k", "sum", ("a", "b"), "ana")
    assert (intent.correlation_id, intent.payload) == ("c-1", {"about": "sums"})
    for wanted in ({"tag": "b"}, {"type": "sum"}, {"key": "k"}, {"requester": "ana"}, {"status": "COMPLETED"}):
        assert [found.id for found in stage.axme.intents(**wanted)] == [intent.id]
    assert list(stage.axme.intents(tag="c")) == []


def test_an_intents_payload_is_its_arguments_unless_another_is_given(stage, add):
    """What people are shown of it."""
    intent = stage.submit(add.s(1, y=2))

    assert intent.payload == {"task": add.name, "args": [1], "kwargs": {"y": 2}}


def test_an_ordinary_task_can_be_submitted_too(stage, app):
    """Status, audit and recovery without touching its code."""

    @app.task(shared=False)
    def plain(x):
        return x * 2

    intent = stage.submit(plain.s(4))

    assert (intent.status, intent.result, intent.type) == (Status.COMPLETED, 8, plain.name)


def test_a_countdown_is_kept_in_the_ledger_and_starts_at_its_moment(stage, add):
    """No message is held by a worker for days."""
    intent = stage.submit(add.s(1).set(countdown=2 * 86400))
    stage.pass_time("47h")
    before = intent.refresh().status
    stage.pass_time("1h")

    assert (before, intent.refresh().status) == (Status.SUBMITTED, Status.COMPLETED)


def test_calling_a_durable_task_makes_an_intent_and_its_async_result_follows_it(stage, axme):
    """``.delay()`` as ever: the id is the leg's for its whole life, through every wait and crash."""

    @axme.task
    def work():
        wait_for_time("1h")
        return "done"

    stage.kill()
    called = work.delay()
    stage.run()
    resting = called.state
    stage.pass_time("1h")

    assert resting == "WAITING"
    assert called.get(timeout=1) == "done"
    assert stage.intent(called.intent_id).legs()[0].id == called.id


# -- keys --------------------------------------------------------------------------------


def test_the_same_key_and_work_bring_back_the_first_intent(stage, add):
    """A retry after a lost reply starts nothing twice, also days after the first has ended."""
    first = stage.submit(add.s(1), key="k")
    stage.pass_time("9d")

    again = stage.submit(add.s(1), key="k")

    assert again.id == first.id
    assert ids(stage) == [first.id]


def test_the_same_key_with_other_work_is_refused_and_the_first_is_untouched(stage, add):
    """It names the key, the intent that has it, and what to do."""
    first = stage.submit(add.s(1), key="k")

    with pytest.raises(KeyConflict, match="use another key") as refused:
        stage.submit(add.s(2), key="k")

    assert (refused.value.key, refused.value.intent_id) == ("k", first.id)
    assert ids(stage) == [first.id]


def test_a_task_id_of_ones_own_is_a_key_too(stage, axme, add):
    """``apply_async(task_id=...)`` twice is one intent."""
    first = add.apply_async((1,), task_id="mine")
    again = add.apply_async((1,), task_id="mine")
    stage.run()

    assert (first.intent_id, ids(stage)) == (again.intent_id, [first.intent_id])
    with pytest.raises(KeyConflict):
        add.apply_async((2,), task_id="mine")


# -- many --------------------------------------------------------------------------------


def test_many_are_kept_together_in_their_order(stage, axme, add):
    """Each with what is said of it; the same key twice among them is one intent."""
    found = axme.submit_many(
        [add.s(1), {"work": add.s(2), "tags": ["t"]}, {"work": add.s(3), "key": "k"}, {"work": add.s(3), "key": "k"}]
    )
    stage.run()

    assert [intent.refresh().result for intent in found] == [2, 3, 4, 4]
    assert (found[1].tags, found[2].id) == (("t",), found[3].id)
    assert len(ids(stage)) == 3


def test_one_refused_among_many_keeps_them_all_out(stage, axme, add):
    """All or none."""
    axme.submit(add.s(9), key="taken")

    for bad, error in (
        (add.s({1, 2}), NotJson),
        ("no signature", UnsupportedWork),
        ({"work": add.s(1), "key": "taken"}, KeyConflict),
        ({"work": add.s(1), "deadline": -1}, BadInput),
    ):
        with pytest.raises(error):
            axme.submit_many([add.s(1), add.s(2), bad])

    assert len(ids(stage)) == 1


def test_one_task_id_twice_among_many_is_one_intent(stage, axme, add):
    """As it is in two calls."""
    first, again = axme.submit_many([add.s(1).set(task_id="mine"), add.s(1).set(task_id="mine")])

    assert first.id == again.id
    with pytest.raises(KeyConflict):
        axme.submit_many([add.s(2).set(task_id="other"), add.s(3).set(task_id="other")])


def test_none_are_none(stage, axme):
    """An empty list is no error."""
    assert axme.submit_many([]) == []


# -- in the caller's transaction -----------------------------------------------------------


@pytest.fixture
def orders(stage):
    """A table of the user's own in the ledger's database; calling it counts its rows."""
    with stage.engine.begin() as connection:
        connection.execute(text("CREATE TABLE orders (item TEXT)"))

    def count() -> int:
        with stage.engine.connect() as connection:
            return connection.scalar(text("SELECT count(*) FROM orders"))

    return count


def test_an_intent_submitted_in_the_callers_transaction_starts_when_that_commits(stage, axme, add, orders):
    """The row and the intent exist together."""
    with stage.engine.begin() as connection:
        connection.execute(text("INSERT INTO orders VALUES ('tea')"))
        intent = axme.submit(add.s(1), key="k", connection=connection)
        seen_meanwhile = ids(stage)
    stage.run()

    assert seen_meanwhile == []
    assert (intent.refresh().result, orders()) == (2, 1)


def test_an_intent_submitted_in_a_transaction_that_rolls_back_never_was(stage, axme, add, orders):
    """Nor does anything run."""
    with pytest.raises(ZeroDivisionError), stage.engine.begin() as connection:
        connection.execute(text("INSERT INTO orders VALUES ('tea')"))
        axme.submit(add.s(1), connection=connection)
        1 / 0  # noqa: B018
    stage.run()

    assert (ids(stage), orders()) == ([], 0)


def test_a_key_is_known_within_the_callers_own_transaction(stage, axme, add):
    """Submitted twice before the commit it is one intent, and other work is refused without harm to the rest."""
    with stage.engine.begin() as connection:
        first = axme.submit(add.s(1), key="k", connection=connection)
        again = axme.submit(add.s(1), key="k", connection=connection)
        with pytest.raises(KeyConflict):
            axme.submit(add.s(2), key="k", connection=connection)
        other = axme.submit(add.s(3), key="other", connection=connection)
    stage.run()

    assert first.id == again.id
    assert (first.refresh().result, other.refresh().result) == (2, 4)


def test_a_key_that_was_committed_before_is_known_in_the_callers_transaction(stage, axme, add):
    """The intent that has it comes back."""
    first = stage.submit(add.s(1), key="k")

    with stage.engine.begin() as connection:
        again = axme.submit(add.s(1), key="k", connection=connection)

    assert again.id == first.id


def test_a_transaction_step_can_submit_with_its_own_connection(stage, axme, add):
    """What the step writes and what it starts are recorded with it, once."""

    @step(transaction=True)
    def start(connection):
        return axme.submit(add.s(1), connection=connection).id

    @axme.task
    def work():
        return start()

    stage.kill("start")
    intent = stage.submit(work.s())

    assert len(ids(stage)) == 2
    assert stage.intent(intent.result).result == 2


def test_a_key_that_another_transaction_has_just_taken_is_waited_for(postgres_url, app, axme, add):
    """On PostgreSQL: the one that comes second gets the first's intent, and its own transaction is as it was."""
    upgrade(postgres_url)
    done = []

    with Stage(app, ledger_url=postgres_url) as stage:

        def second():
            with stage.engine.begin() as connection:
                connection.execute(text("CREATE TEMPORARY TABLE mine (item TEXT)"))
                done.append(axme.submit(add.s(1), key="k", connection=connection).id)
                connection.execute(text("INSERT INTO mine VALUES ('tea')"))

        with stage.engine.begin() as connection:
            first = axme.submit(add.s(1), key="k", connection=connection)
            thread = threading.Thread(target=second)
            thread.start()
            thread.join(0.3)
            waited = thread.is_alive()
        thread.join(10)
        stage.run()

        assert waited
        assert done == [first.id]
        assert (len(ids(stage)), first.refresh().result) == (1, 2)


def test_a_key_that_a_transaction_cannot_see_is_an_error_that_says_so(postgres_url, app, axme, add):
    """With a snapshot older than the key's commit there is nothing to be done but to begin anew."""
    upgrade(postgres_url)

    with Stage(app, ledger_url=postgres_url) as stage:
        with stage.engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
            with connection.begin():
                connection.execute(text("SELECT 1 FROM axme_intents"))
                stage.submit(add.s(1), key="k")
                with pytest.raises(LedgerUnavailable, match="roll back and try again"):
                    axme.submit(add.s(1), key="k", connection=connection)

        assert len(ids(stage)) == 1


# -- deadlines -----------------------------------------------------------------------------


def test_an_intent_that_has_not_ended_by_its_deadline_is_timed_out(stage, axme):
    """Wherever it rests; a dead letter says so, and its wait is closed."""

    @axme.task
    def work():
        wait_for_human("Publish?", to="ana")

    intent = stage.submit(work.s(), deadline="5d")
    stage.pass_time("4d23h")
    before = intent.refresh().status
    stage.pass_time("1h")

    assert (before, intent.refresh().status) == (Status.WAITING, Status.TIMED_OUT)
    assert intent.ended_at == intent.deadline_at
    assert (intent.error["code"], [x.intent_id for x in stage.dead_letters()]) == ("deadline", [intent.id])
    assert stage.inbox("ana") == []


def test_a_deadline_of_the_task_holds_unless_another_is_given(stage, axme):
    """``@axme.task(deadline=...)`` is the default of its calls."""

    @axme.task(deadline="1h")
    def work():
        wait_for_time("5h")

    usual, longer = stage.submit(work.s()), stage.submit(work.s(), deadline="1d")
    stage.pass_time("6h")

    assert (usual.refresh().status, longer.refresh().status) == (Status.TIMED_OUT, Status.COMPLETED)


def test_a_deadline_before_the_start_ends_what_never_began(stage, add):
    """Its message finds nothing to do."""
    intent = stage.submit(add.s(1).set(countdown=7200), deadline="1h")

    stage.pass_time("3h")

    assert (intent.refresh().status, intent.result) == (Status.TIMED_OUT, None)
    assert intent.legs()[0].status is LegStatus.CANCELED


def test_a_wait_and_the_deadline_at_one_moment_leave_one_end(stage, axme):
    """Whichever comes first, the intent ends once and its history is whole."""

    @axme.task
    def work():
        try:
            wait_for_human("Publish?", to="ana", timeout="1h")
        except WaitTimedOut:
            return "timed out"

    intent = stage.submit(work.s(), deadline="1h")
    stage.pass_time("2h")

    ends = [e for e in stage.history(intent) if e.status.is_final]
    assert len(ends) == 1
    assert intent.refresh().status in {Status.COMPLETED, Status.TIMED_OUT}


# -- how an intent ended ---------------------------------------------------------------------


def test_waiting_for_an_intent_gives_its_result_or_says_how_else_it_ended(stage, axme, add):
    """One exception for each end, with code and words."""

    @axme.task
    def failing():
        raise ValueError("no such month")

    @axme.task
    def resting():
        wait_for_time("9d")

    good, bad = stage.submit(add.s(1)), stage.submit(failing.s())
    late, unwanted = stage.submit(resting.s(), deadline=1), stage.submit(resting.s())
    stage.axme.cancel(unwanted.id, "no need", by="ana")
    stage.pass_time("1m")

    assert good.wait(timeout=0) == 2
    for intent, error, code, words in (
        (bad, IntentFailed, "ValueError", "no such month"),
        (late, IntentTimedOut, "deadline", "passed"),
        (unwanted, IntentCanceled, "canceled", "no need"),
    ):
        with pytest.raises(error, match=words) as ended:
            intent.wait(timeout=0)
        assert (ended.value.intent_id, ended.value.code) == (intent.id, code)


# -- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"key": ""}, BadInput, "key is ''"),
        ({"key": "x" * 256}, BadInput, "1 to 255"),
        ({"key": "a\0"}, BadInput, "printable"),
        ({"key": 7}, BadInput, "key is 7"),
        ({"type": "a\nb"}, BadInput, "type is"),
        ({"requester": " "}, BadInput, "requester is"),
        ({"correlation_id": b"x"}, BadInput, "correlation_id is"),
        ({"tags": "abc"}, BadInput, "tags is 'abc'"),
        ({"tags": 7}, BadInput, "tags is '7'"),
        ({"tags": [""]}, BadInput, "a tag is ''"),
        ({"tags": ["a\0"]}, BadInput, "printable"),
        ({"tags": ["x" * 129]}, BadInput, "1 to 128"),
        ({"tags": [str(n) for n in range(51)]}, BadInput, "at most 50"),
        ({"deadline": 0}, BadInput, "longer than nothing"),
        ({"deadline": "-1h"}, BadInput, "deadline is"),
        ({"deadline": "soon"}, BadInput, "deadline is 'soon'"),
        ({"payload": {1}}, NotJson, "payload: $ is a set"),
        ({"payload": float("nan")}, NotJson, "nan"),
        ({"payload": {"a": "\0"}}, NotJson, "NUL"),
        ({"payload": eval("[" * 70 + "]" * 70)}, NotJson, "64 levels"),
        ({"payload": "x" * 200_000}, TooLarge, "axme_payload_bytes"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_submission_that_cannot_be_kept_is_refused_and_leaves_nothing(stage, axme, add, arguments, error, words):
    """One clear error, nothing half-stored."""
    with pytest.raises(error) as refused:
        axme.submit(add.s(1), **arguments)

    assert words in str(refused.value) and len(str(refused.value)) < 500
    assert ids(stage) == []


@pytest.mark.parametrize(
    ("work", "error", "words"),
    [
        (lambda add: add, UnsupportedWork, "write add.s(...)"),
        (lambda add: None, UnsupportedWork, "no Celery signature"),
        (lambda add: {}, UnsupportedWork, "names no task"),
        (lambda add: group([]), UnsupportedWork, "the group is empty"),
        (lambda add: add.s(), TypeError, "missing"),
        (lambda add: add.s(1, 2, 3), TypeError, "positional"),
        (lambda add: add.s({1}), NotJson, "arguments of"),
        (lambda add: add.s("x" * 200_000), TooLarge, "axme_payload_bytes"),
        (lambda add: add.s(1).set(task_id="x" * 256), BadInput, "255"),
        (lambda add: add.s(1).set(countdown=-1), BadInput, "countdown"),
    ],
    ids=[
        "a task",
        "None",
        "an empty dict",
        "an empty group",
        "no arguments",
        "too many",
        "a set",
        "large",
        "long id",
        "before",
    ],
)
def test_work_that_cannot_be_carried_is_refused_and_leaves_nothing(stage, axme, add, work, error, words):
    """By name, and with what to write instead."""
    with pytest.raises(error, match=words.replace("(", r"\(").replace(")", r"\)")):
        axme.submit(work(add))

    assert ids(stage) == []


# -- cancel ----------------------------------------------------------------------------------


def test_a_running_leg_is_stopped_at_its_next_checkpoint(stage, axme):
    """What was recorded stays recorded; nothing more is."""
    done = []

    @step
    def page(n):
        done.append(n)
        if n == 2:
            stage.axme.cancel(current_intent().id, "enough", by="ana")
        return n

    @axme.task
    def work():
        for n in range(5):
            page(n)
        done.append("end")

    intent = stage.submit(work.s())

    assert done == [0, 1, 2]
    assert (intent.status, intent.error["message"]) == (Status.CANCELED, "enough")
    assert [s.nth for s in intent.steps()] == [1, 2]
    assert intent.legs()[0].status is LegStatus.CANCELED


def test_an_ended_intent_cannot_be_canceled(stage, add):
    """An ended intent never changes; an unknown one is not found."""
    intent = stage.submit(add.s(1))

    with pytest.raises(IntentEnded, match="COMPLETED"):
        intent.cancel("too late")
    with pytest.raises(NotFound):
        stage.axme.cancel("nobody", "r")

    assert intent.refresh().status is Status.COMPLETED


@pytest.mark.parametrize("arguments", [{"reason": 7}, {"reason": "a\0"}, {"by": "a\0"}, {"by": "x" * 256}, {"by": ""}])
def test_a_cancel_that_cannot_be_kept_is_refused(stage, axme, add, arguments):
    """And cancels nothing."""
    intent = axme.submit(add.s(1))

    with pytest.raises(BadInput):
        axme.cancel(intent.id, **({"reason": "r", "by": "ana"} | arguments))

    stage.run()
    assert intent.refresh().status is Status.COMPLETED


# -- replay ----------------------------------------------------------------------------------


@pytest.fixture
def export(axme):
    """An export of pages that fails at page 2 while ``world["broken"]``; and what it did."""
    world = {"broken": True, "pages": [], "asked": 0}

    @step
    def page(n):
        if n == 2 and world["broken"]:
            raise ConnectionError("warehouse is down")
        world["pages"].append(n)
        return n

    @axme.task
    def export():
        decision = wait_for_human("Begin?", to="ana")
        world["asked"] += 1
        return [decision.outcome, *(page(n) for n in range(4))]

    world["task"] = export
    return world


def failed_export(stage, export):
    intent = stage.submit(export["task"].s(), key="k", tags=["t"], deadline="5d")
    return stage.answer(intent, "approved", by="ana")


def test_a_replay_goes_on_from_the_finished_work(stage, export):
    """A new intent with its own history; nothing recorded is done again, nobody is asked twice."""
    failed = failed_export(stage, export)
    (letter,) = stage.dead_letters()
    export["broken"] = False

    new = stage.axme.replay(letter.id, by="ops")
    stage.run()

    assert failed.status is Status.FAILED
    assert new.refresh().result == ["approved", 0, 1, 2, 3]
    assert export["pages"] == [0, 1, 2, 3]
    assert (new.replay_of, new.key, new.tags, new.requester) == (failed.id, None, ("t",), "ops")
    assert new.deadline_at - new.created_at == failed.deadline_at - failed.created_at
    assert stage.dead_letters() == []


def test_a_dead_letter_is_replayed_once(stage, export):
    """Two operators, or two clicks, make one new intent; the second is told of it."""
    failed = failed_export(stage, export)
    (letter,) = stage.dead_letters()
    new = stage.axme.replay(letter.id, by="ops")

    for id in (letter.id, failed.id):
        with pytest.raises(BadInput, match=f"already replayed by ops, as intent {new.id}"):
            stage.axme.replay(id, by="other")

    assert len(ids(stage)) == 2


def test_a_replay_may_name_the_intent(stage, export):
    """Its open dead letters are closed with it."""
    failed = failed_export(stage, export)
    export["broken"] = False

    new = stage.axme.replay(failed.id, by="ops")
    stage.run()

    assert new.refresh().status is Status.COMPLETED
    assert stage.dead_letters() == []


def test_a_replay_of_a_replay_keeps_the_work_of_both(stage, export):
    """It may take several attempts until the warehouse is up."""
    failed = failed_export(stage, export)
    second = stage.axme.replay(failed.id, by="ops")
    stage.run()
    export["broken"] = False

    third = stage.axme.replay(second.id, by="ops")
    stage.run()

    assert (second.refresh().status, third.refresh().status) == (Status.FAILED, Status.COMPLETED)
    assert export["pages"] == [0, 1, 2, 3]


def test_a_replay_has_its_retries_before_it_again(stage, axme):
    """The old intent used them up; that is why it failed."""
    tries = []

    @axme.task(autoretry_for=(ConnectionError,), max_retries=2, retry_kwargs={"countdown": 1})
    def work():
        tries.append(1)
        if len(tries) < 6:
            raise ConnectionError
        return "ok"

    failed = stage.submit(work.s())
    stage.pass_time("1m")
    new = stage.axme.replay(failed.id, by="ops")
    stage.pass_time("1m")

    assert failed.refresh().status is Status.FAILED
    assert (new.refresh().result, len(tries)) == ("ok", 6)


@pytest.mark.parametrize("asked_of", ["tool", "agent"])
def test_a_replay_asks_a_tool_or_an_agent_that_had_failed_again(stage, axme, asked_of):
    """As a pipeline's node does: it is what failed that is tried again."""
    world = {"broken": True}

    @axme.task
    def scoring():
        if world["broken"]:
            raise ConnectionError("no scores today")
        return 7

    @axme.task
    def work():
        return wait_for_tool("warehouse", "job-1") if asked_of == "tool" else wait_for_agent(scoring.s())

    failed = stage.submit(work.s())
    if asked_of == "tool":
        stage.complete_tool("warehouse", "job-1", error="disk full")
    world["broken"] = False
    again = axme.replay(failed.id, by="ops")
    stage.run()
    if asked_of == "tool":
        stage.complete_tool("warehouse", "job-1", 7)

    assert failed.refresh().error["code"] == f"{asked_of}_failed"
    assert again.refresh().result == 7


def test_only_what_did_not_complete_can_be_replayed(stage, axme, add):
    """A completed intent is done, an open one is still at it."""

    @axme.task
    def resting():
        wait_for_time("1d")

    completed, open_one = stage.submit(add.s(1)), stage.submit(resting.s())

    with pytest.raises(IntentEnded):
        axme.replay(completed.id, by="ops")
    with pytest.raises(BadInput, match="still WAITING"):
        axme.replay(open_one.id, by="ops")
    with pytest.raises(NotFound):
        axme.replay("nobody", by="ops")

    assert len(ids(stage)) == 2


# -- a human task before everything else ------------------------------------------------------


@pytest.fixture
def gated(stage, axme):
    """``gated(**question)``: an intent of ben's that pays once ana has said yes, and fails after it at first."""
    world = {"broken": True, "paid": 0}

    @step
    def pay():
        world["paid"] += 1
        return world["paid"]

    @step
    def tell(paid):
        return paid

    @axme.task
    def paying():
        paid = world["pay"]()
        if world["broken"]:
            raise ConnectionError("bank is down")
        return tell(paid)

    world["pay"] = pay

    def submit_gated(**question):
        asked = asking.question(axme.runtime, "Pay?", to="ana", **question)
        gate = Gate(title=asked.title, to=asked.to, request=asked.request)
        (made,) = submit(axme.runtime, [Submission(work=axme.read_work(paying.s()), requester="ben", gate=gate)])
        stage.run()
        return stage.intent(made.id)

    submit_gated.world = world
    return submit_gated


@pytest.mark.parametrize("ended", ["rejected", "canceled", "timed out"])
def test_a_replay_runs_nothing_before_the_human_task_is_answered_well(stage, axme, gated, ended):
    """What was never approved is not approved by being replayed: the same people are asked the same, in time anew."""
    intent = gated(timeout="1h")
    gated.world["broken"] = False
    if ended == "rejected":
        stage.answer(intent, "rejected", by="ana")
    elif ended == "canceled":
        axme.cancel(intent.id, "not now", by="ops")
    stage.pass_time("2h")

    again = axme.replay(intent.id, by="ops")
    stage.run()

    (asked,) = stage.waits(again)
    assert (again.refresh().status, gated.world["paid"]) == (Status.WAITING, 0)
    assert (asked.status, asked.title, asked.to) == (WaitStatus.OPEN, "Pay?", ("ana",))
    assert asked.timeout_at - again.created_at == timedelta(hours=1)
    assert stage.notices[-1].kind == "wait_opened"
    assert stage.answer(again, "approved", by="ana").result == 1


def test_a_replay_of_what_was_approved_is_not_asked_again(stage, axme, gated):
    """The yes comes along with the finished steps, and the code that never asked for it has not drifted."""
    failed = stage.answer(gated(), "approved", by="ana")
    gated.world["broken"] = False

    again = axme.replay(failed.id, by="ops")
    stage.run()

    assert failed.error["code"] == "ConnectionError"
    assert (again.refresh().result, gated.world["paid"]) == (1, 1)
    assert [(wait.status, wait.answered_by) for wait in stage.waits(again)] == [(WaitStatus.ANSWERED, "ana")]


def test_a_human_task_brought_along_does_not_hide_that_the_code_has_changed(stage, axme, gated):
    """Only the human task may go unasked; the recorded step may not."""
    failed = stage.answer(gated(), "approved", by="ana")
    gated.world["pay"] = step(name="pay_better")(lambda: 1)

    again = axme.replay(failed.id, by="ops")
    stage.run()

    assert again.legs()[0].status is LegStatus.PARKED
    assert "'pay'" in again.legs()[0].parked


@pytest.mark.parametrize("answered", [True, False])
def test_a_fork_before_the_human_task_asks_it_again(stage, axme, gated, answered):
    """While it is open, too: nothing runs of either before somebody has said yes to it."""
    intent = gated()
    gated.world["broken"] = False
    if answered:
        stage.answer(intent, "approved", by="ana")

    forked = axme.fork(intent.id, before="human_task", by="ops")
    stage.run()

    assert (forked.refresh().status, gated.world["paid"]) == (Status.WAITING, int(answered))
    assert stage.answer(forked, "approved", by="ana").status is Status.COMPLETED


# -- fork ------------------------------------------------------------------------------------


def test_a_fork_does_anew_what_comes_from_a_step_on(stage, axme):
    """Its original is untouched; "name#2" is the second call."""
    done = []

    @step
    def page(n):
        done.append(n)
        return len(done)

    @axme.task
    def work():
        return [page(n) for n in range(4)]

    original = stage.submit(work.s())
    forked = axme.fork(original.id, before="page#3", by="ana")
    stage.run()

    assert done == [0, 1, 2, 3, 2, 3]
    assert (original.refresh().result, forked.refresh().result) == ([1, 2, 3, 4], [1, 2, 5, 6])
    assert forked.replay_of == original.id


def test_a_fork_before_its_leg_does_all_of_an_intent_anew(stage, axme):
    """By the leg's id, as in a pipeline."""
    done = []
    page = step(name="page")(lambda: done.append(1))

    @axme.task
    def work():
        page()
        return len(done)

    original = stage.submit(work.s())
    forked = axme.fork(original.id, before=original.legs()[0].id, by="ana")
    stage.run()

    assert (original.refresh().result, forked.refresh().result) == (1, 2)


@pytest.mark.parametrize(("outcome", "status"), [("approved", Status.COMPLETED), ("rejected", Status.WAITING)])
def test_a_fork_before_the_leg_behind_a_human_task_keeps_a_yes_only(stage, axme, gated, outcome, status):
    """The question is not the leg's; but nothing runs that nobody said yes to."""
    intent = stage.answer(gated(), outcome, by="ana")
    gated.world["broken"] = False

    forked = axme.fork(intent.id, before=intent.legs()[0].id, by="ana")
    stage.run()

    assert forked.refresh().status is status


def test_a_fork_before_a_wait_asks_again(stage, axme):
    """A second opinion on the same finished work."""

    @axme.task
    def work():
        return wait_for_human("Publish?", to="ana").outcome

    original = stage.submit(work.s())
    stage.answer(original, "rejected", by="ana")

    forked = axme.fork(original.id, before="wait_for_human", by="ben")
    stage.run()
    stage.answer(forked, "approved", by="ana")

    assert (original.refresh().result, forked.refresh().result) == ("rejected", "approved")


def test_a_step_may_have_any_name_when_it_is_forked_at(stage, axme):
    """A hash in a name, or a name that means something elsewhere."""
    done = []

    def counting(name):
        return step(name=name)(lambda: done.append(name))

    @axme.task
    def work():
        for name in ("first", "issue #7", "failed"):
            counting(name)()

    original = stage.submit(work.s())
    axme.fork(original.id, before="failed", by="ana")
    axme.fork(original.id, before="issue #7", by="ana")
    stage.run()

    assert done == ["first", "issue #7", "failed", "failed", "issue #7", "failed"]


def test_a_fork_at_one_of_many_steps_misspelt_is_told_the_nearest_and_how_many_there_are(stage, axme):
    """A leg of thousands of steps has no list that anybody would read."""

    @axme.task(name="submit.pages")
    def work():
        for number in range(60):
            step(name=f"publish_{number}")(lambda: None)()

    original = stage.submit(work.s())

    with pytest.raises(NotFound) as refused:
        axme.fork(original.id, before="publsh_17", by="ana")

    said = str(refused.value)
    assert "recorded there: publish_17#1, " in said and said.endswith(", ... (60 in all)")
    assert len(said) < 400


def test_a_webhook_to_an_address_that_is_never_called_is_refused_at_once(stage, axme, add):
    """Rather than after the intent has ended, as a dead letter."""
    with pytest.raises(BadInput, match="not at a public address"):
        axme.submit(add.s(1), notify="http://10.0.0.1/x")

    assert ids(stage) == []


def test_a_replay_of_what_completed_says_to_fork(stage, axme, add):
    """That it never changes is true, and no help: nobody asked to change it."""
    done = stage.submit(add.s(1))

    with pytest.raises(IntentEnded, match="only what did not complete is replayed; fork it"):
        axme.replay(done.id, by="ana")


def test_a_fork_at_what_was_never_recorded_is_refused_and_lists_what_was(stage, axme, add):
    """A typing error starts nothing."""
    original = stage.submit(add.s(1))

    with pytest.raises(NotFound, match="recorded there: nothing"):
        axme.fork(original.id, before="page#3", by="ana")

    assert ids(stage) == [original.id]


# -- code that changed under a waiting intent ----------------------------------------------------


@pytest.fixture
def deploy(stage, axme):
    """``deploy(body)`` puts new code under the task; ``deploy.start()`` submits it, resting after its first steps."""
    effects = []
    code = {}

    def effect(name):
        return step(name=name)(lambda: effects.append(name))()

    def body():
        return code["body"](effect)

    tasks = {
        on_drift: axme.task(name=f"deployed.{on_drift}", on_drift=on_drift)(body) for on_drift in ("park", "continue")
    }

    class Deploy:
        def __call__(self, body):
            code["body"] = body

        def start(self, on_drift="park"):
            self(original)
            return stage.submit(tasks[on_drift].s())

    deployed = Deploy()
    deployed.effects = effects
    return deployed


def original(effect):
    effect("fetch")
    effect("check")
    wait_for_time("1h")
    effect("publish")
    return "done"


def renamed(effect):
    effect("fetch")
    effect("verify")
    wait_for_time("1h")
    effect("publish")


def removed(effect):
    effect("fetch")
    wait_for_time("1h")
    effect("publish")


def reordered(effect):
    effect("fetch")
    wait_for_time("1h")
    effect("publish")
    effect("check")


def added_step(effect):
    effect("fetch")
    effect("clean")
    effect("check")
    wait_for_time("1h")
    effect("publish")


def added_wait(effect):
    effect("fetch")
    wait_for_human("Go on?", to="ana")
    effect("check")
    wait_for_time("1h")


def removed_wait(effect):
    effect("fetch")
    effect("check")
    effect("publish")


def other_wait(effect):
    effect("fetch")
    effect("check")
    wait_for_human("Go on?", to="ana")
    effect("publish")


@pytest.mark.parametrize(
    ("changed", "asked", "missing"),
    [
        (renamed, "verify", "check"),
        (removed, "publish", "check"),
        (reordered, "publish", "check"),
        (added_step, "clean", "check"),
        (added_wait, "wait_for_human", "check"),
        (removed_wait, "publish", "wait_for_time"),
        (other_wait, "wait_for_human", "wait_for_time"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_an_intent_whose_code_changed_is_parked_before_anything_new_happens(stage, deploy, changed, asked, missing):
    """Not failed and not retried to death; the dead letter says which step, and what to do."""
    intent = deploy.start()
    deploy(changed)
    stage.pass_time("1h")

    (leg,) = intent.legs()
    assert deploy.effects == ["fetch", "check"]
    assert (leg.status, intent.refresh().status) == (LegStatus.PARKED, Status.IN_PROGRESS)
    assert f"{asked!r}" in leg.parked and f"{missing!r}" in leg.parked and "unpark" in leg.parked
    assert [(x.code, x.intent_id) for x in stage.dead_letters()] == [("drift", intent.id)]
    assert stage.inbox("ana") == []


def test_an_intent_goes_on_after_a_roll_back_as_if_nothing_had_been(stage, deploy):
    """The old code finds what it recorded."""
    intent = deploy.start()
    deploy(renamed)
    stage.pass_time("1h")

    deploy(original)
    stage.axme.unpark(intent.id, by="ops")
    stage.run()

    assert (intent.refresh().result, deploy.effects) == ("done", ["fetch", "check", "publish"])
    assert stage.dead_letters() == []


def test_unpark_succeeds_however_soon_the_intent_then_ends(stage, deploy, monkeypatch):
    """A worker may have run the leg to its end before the operator's command has looked for a second parked leg."""
    intent = deploy.start()
    deploy(renamed)
    stage.pass_time("1h")
    deploy(original)

    def carried_out(*words):
        changes = carry_out(*words)
        stage.run()
        return changes

    monkeypatch.setattr("axme_celery.submit.carry_out", carried_out)
    stage.axme.unpark(intent.id, by="ops")

    assert intent.refresh().result == "done"


def test_an_intent_unparked_without_roll_back_or_acceptance_is_parked_again(stage, deploy):
    """Nothing new happens until somebody decides."""
    intent = deploy.start()
    deploy(renamed)
    stage.pass_time("1h")

    stage.axme.unpark(intent.id, by="ops")
    stage.run()

    assert deploy.effects == ["fetch", "check"]
    assert intent.legs()[0].status is LegStatus.PARKED


@pytest.mark.parametrize("changed", [renamed, removed, reordered, added_step, removed_wait])
def test_accepted_drift_goes_on_with_the_new_code_and_the_work_it_still_knows(stage, deploy, changed):
    """What both know is not done again; the history says who accepted it."""
    intent = deploy.start()
    deploy(changed)
    stage.pass_time("1h")

    stage.axme.unpark(intent.id, by="ops", accept_drift=True)
    stage.pass_time("2h")

    assert intent.refresh().status is Status.COMPLETED
    assert all(deploy.effects.count(known) == 1 for known in ("fetch", "check", "publish"))
    (unparked,) = [e for e in stage.history(intent) if e.type == "intent.unparked"]
    assert (unparked.actor, unparked.details["accept_drift"]) == ("ops", True)


def test_accepting_a_drift_does_not_accept_the_next_one(stage, deploy):
    """What the new code has recorded since is held to in its turn."""
    intent = deploy.start()
    deploy(other_wait)
    stage.pass_time("1h")
    stage.axme.unpark(intent.id, by="ops", accept_drift=True)
    stage.run()
    resting = intent.refresh().waiting_reason

    deploy(removed_wait)
    stage.answer(intent, "approved", by="ana")

    assert resting == "WAITING_FOR_HUMAN"
    assert intent.legs()[0].status is LegStatus.PARKED
    assert deploy.effects == ["fetch", "check"]


@pytest.mark.parametrize("changed", [renamed, removed, added_step, removed_wait])
def test_a_task_may_say_that_it_goes_on_whatever_changed(stage, deploy, changed):
    """``on_drift="continue"``, for those who know."""
    intent = deploy.start("continue")
    deploy(changed)
    stage.pass_time("3h")

    assert intent.refresh().status is Status.COMPLETED
    assert deploy.effects.count("fetch") == 1


def test_code_that_only_grew_at_its_end_is_no_drift(stage, deploy):
    """What was recorded is all asked for before anything new."""
    intent = deploy.start()

    def grown(effect):
        original(effect)
        effect("announce")
        wait_for_time("1h")
        return "grown"

    deploy(grown)
    stage.pass_time("3h")

    assert (intent.refresh().result, deploy.effects[-1]) == ("grown", "announce")


def test_a_replay_whose_code_drifted_goes_on_once_that_is_accepted(stage, axme):
    """Also when the old intent had been through more runs than the new one."""
    code = {"step": "old", "broken": True}

    @axme.task
    def work():
        step(name=code["step"])(lambda: 1)()
        wait_for_time("1h")
        step(name="publish")(lambda: 1 / (0 if code["broken"] else 1))()
        return "done"

    for _ in range(2):
        stage.kill("old")
    failed = stage.submit(work.s())
    stage.pass_time("1h")
    code.update(step="new", broken=False)
    new = axme.replay(failed.id, by="ops")
    stage.run()
    parked = new.legs()[0].status

    axme.unpark(new.id, by="ops", accept_drift=True)
    stage.pass_time("1h")

    assert (failed.refresh().status, failed.legs()[0].run) == (Status.FAILED, 4)
    assert parked is LegStatus.PARKED
    assert new.refresh().result == "done"


def test_only_a_parked_intent_can_be_unparked(stage, axme, add, deploy):
    """An open one is told how it stands, an ended one that it has ended."""
    ended, resting = stage.submit(add.s(1)), deploy.start()

    with pytest.raises(IntentEnded):
        axme.unpark(ended.id, by="ops")
    with pytest.raises(BadInput, match="it is WAITING"):
        axme.unpark(resting.id, by="ops")

    assert resting.refresh().status is Status.WAITING


def test_a_parked_intent_can_be_canceled_and_times_out(stage, axme, deploy):
    """It is open, after all."""
    first, second = deploy.start(), deploy.start()
    deploy(renamed)
    stage.pass_time("1h")

    axme.cancel(first.id, "give up", by="ops")
    axme.cancel(second.id, "this too", by="ops")
    stage.run()

    assert {first.refresh().status, second.refresh().status} == {Status.CANCELED}
    assert {leg.status for i in (first, second) for leg in i.legs()} == {LegStatus.CANCELED}


def test_a_task_this_process_does_not_know_parks_its_leg(stage, axme, app):
    """The worker was deployed without it; with it, an operator lets it go on."""

    @app.task(shared=False, name="reports.monthly")
    def monthly():
        return "done"

    intent = axme.submit(monthly.s())
    known = app.tasks.pop("reports.monthly")
    stage.run()
    parked = intent.legs()[0]
    app.tasks["reports.monthly"] = known
    axme.unpark(intent.id, by="ops")
    stage.run()

    assert parked.status is LegStatus.PARKED and "'reports.monthly'" in parked.parked
    assert intent.refresh().result == "done"
