"""What a task calls while it runs as a leg: legs of the same intent, where ``axme_tasks`` names them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from celery import Celery, group

from axme_celery import Axme, IntentFailed, LedgerUnavailable, UnsupportedWork, step, wait_for_human, wait_for_time
from axme_celery.lifecycle import shown_hash, shown_with
from axme_celery.model import LegStatus, Status, Wait, WaitKind
from axme_celery.testing import Stage


@pytest.fixture
def app() -> Celery:
    """An app nobody can reach, whose ``shop.*`` are ours."""
    app = Celery("calling", broker="amqp://127.0.0.1:1", backend="redis://127.0.0.1:1", set_as_current=False)
    app.conf.axme_tasks = ["shop.*"]
    Axme(app)
    return app


@pytest.fixture
def done() -> list[object]:
    """What the tasks have done, in that order."""
    return []


@pytest.fixture
def mail(app, done):
    """A task that others call."""

    @app.task(name="shop.mail", shared=False)
    def mail(to):
        done.append(to)
        if to == "nobody":
            raise ValueError("no such address")
        return f"sent to {to}"

    return mail


def only(stage: Stage):
    """The one intent there is."""
    (intent,) = stage.axme.intents()
    return intent


def told(stage: Stage, intent) -> list[str]:
    return [event.type.removeprefix("intent.") for event in stage.history(intent)]


def task_of(app, body, **options):
    """An ordinary task of this body, by the name of ``shop.order``."""
    return app.task(name="shop.order", shared=False, **options)(body)


# -- legs of the same intent ----------------------------------------------------------------


def test_what_a_named_task_calls_is_a_leg_of_its_intent(stage, app, mail, done):
    """One intent, two legs; the caller does not wait, the intent does."""

    def order():
        return mail.delay("ana").id

    result = task_of(app, order).delay()
    stage._worker.run_next()

    intent = only(stage)
    own, called = intent.legs()
    assert result.get(timeout=1) == called.id
    assert (own.status, called.status, called.called_by) == (LegStatus.DONE, LegStatus.QUEUED, own.id)
    assert intent.status is Status.IN_PROGRESS
    stage.run()
    assert (intent.refresh().status, intent.result, done) == (Status.COMPLETED, called.id, ["ana"])
    assert app.AsyncResult(called.id).get(timeout=1) == "sent to ana"
    assert told(stage, intent) == [
        "created", "submitted", "in_progress", "leg_called", "work_done", "called_ended", "completed"
    ]  # fmt: skip


def test_a_called_leg_that_ends_first_ends_nothing(stage, app, mail):
    """The caller's own end comes later, and is the intent's."""

    def order():
        mail.delay("ana")
        wait_for_time("1h")
        return "done"

    task_of(app, order).delay()
    stage.run()
    assert only(stage).status is Status.WAITING
    stage.pass_time("1h")

    assert only(stage).status is Status.COMPLETED
    assert told(stage, only(stage))[-2:] == ["in_progress", "completed"]


def test_it_is_called_once_however_often_the_body_runs(stage, app, mail, done):
    """After a wait, and after a crash, the body comes to the same call again and finds it made."""

    def order():
        first, second = mail.delay("ana"), mail.delay("ana")
        wait_for_time("1h")
        mail.delay("bo")
        return [first.id, second.id]

    stage.kill("wait_for_time")
    task_of(app, order).delay()
    stage.run()
    stage.pass_time("2h")

    intent = only(stage)
    own, *called = intent.legs()
    assert intent.result == [leg.id for leg in called[:2]]
    assert own.run >= 3
    assert sorted(done) == ["ana", "ana", "bo"]


def test_calls_in_a_step_are_told_from_those_of_the_body(stage, app, mail, done):
    """A step that is on record is not run again, nor counted."""

    @step
    def tell():
        return mail.delay("ana").id

    def order():
        first = tell()
        wait_for_time("1h")
        return [first, mail.delay("ana").id]

    task_of(app, order).delay()
    stage.run()
    stage.pass_time("1h")

    first, second = only(stage).result
    assert first != second
    assert done == ["ana", "ana"]


def test_a_retry_calls_anew(stage, app, mail, done):
    """It is a new execution, and was asked for."""

    def order(self):
        mail.delay("ana")
        if self.request.retries < 2:
            raise self.retry(countdown=1)
        return "done"

    task_of(app, order, bind=True).delay()
    stage.pass_time("1m")

    assert only(stage).status is Status.COMPLETED
    assert done == ["ana", "ana", "ana"]


def test_a_called_leg_calls_too_and_waits_too(stage, app, done):
    """Down to any depth, with all a leg may do."""

    @app.task(name="shop.ask", shared=False)
    def ask():
        leaf.delay()
        return wait_for_human("Well?", to="ana").outcome

    @app.task(name="shop.leaf", shared=False)
    def leaf():
        done.append("leaf")

    def order():
        ask.delay()
        return "done"

    task_of(app, order).delay()
    stage.run()

    intent = only(stage)
    assert (intent.status, intent.waiting_reason, done) == (Status.WAITING, "WAITING_FOR_HUMAN", ["leaf"])
    stage.answer(stage.waits(intent)[0], "approved", by="ana")
    stage.run()
    assert (intent.refresh().status, intent.result) == (Status.COMPLETED, "done")
    assert [leg.task for leg in intent.legs()] == ["shop.order", "shop.ask", "shop.leaf"]


def test_a_pipeline_waits_for_what_its_legs_have_called(stage, app, mail, done):
    """Its last leg ends before what the first called for later."""

    @app.task(name="shop.last", shared=False)
    def last(value):
        return value + 1

    def order():
        mail.apply_async(("ana",), countdown=7200)
        return 1

    intent = stage.submit(task_of(app, order).s() | last.s())
    stage.run()
    assert (intent.refresh().status, done) == (Status.IN_PROGRESS, [])
    stage.pass_time("2h")

    assert (intent.refresh().status, intent.result, done) == (Status.COMPLETED, 2, ["ana"])


def test_what_is_not_named_stays_ordinary(stage, app, done):
    """No leg, no header; and a durable task's call is an intent of its own, made once."""

    @app.task(name="other.plain", shared=False)
    def plain(x):
        done.append(x)

    @stage.axme.task(name="durable")
    def durable(x):
        done.append(x)

    def order():
        plain.delay("plain")
        durable.delay("durable")
        wait_for_time("1h")

    task_of(app, order).delay()
    stage.run()
    stage.pass_time("1h")

    assert sorted(intent.type for intent in stage.axme.intents()) == ["durable", "shop.order"]
    # An ordinary call outside of a step is made by every run.
    assert sorted(done) == ["durable", "plain", "plain"]


# -- neither fails with the other ---------------------------------------------------------------


def test_a_called_leg_that_fails_is_a_dead_letter_and_can_be_replayed_alone(stage, app, mail, done):
    """The intent's outcome is that of its own work."""

    def order():
        mail.delay("nobody")
        return "done"

    task_of(app, order).delay()
    stage.run()

    intent = only(stage)
    assert (intent.status, intent.result) == (Status.COMPLETED, "done")
    (letter,) = stage.dead_letters()
    assert (letter.code, letter.leg_id) == ("ValueError", intent.legs()[1].id)
    with pytest.raises(ValueError, match="no such address"):
        app.AsyncResult(letter.leg_id).get(timeout=1)

    again = stage.axme.replay(letter.id, by="ops")
    stage.run()
    assert (again.refresh().status, again.type, again.replay_of) == (Status.FAILED, "shop.mail", intent.id)
    assert done == ["nobody", "nobody"]


def test_when_the_caller_fails_what_it_called_is_still_done(stage, app, mail, done):
    """As in Celery; the intent fails when that has ended."""

    def order():
        mail.delay("ana")
        raise RuntimeError("out of paper")

    result = task_of(app, order).delay()
    stage._worker.run_next()
    assert only(stage).status is Status.IN_PROGRESS
    stage.run()

    intent = only(stage)
    assert (intent.status, intent.error["message"], done) == (Status.FAILED, "out of paper", ["ana"])
    with pytest.raises(RuntimeError, match="out of paper"):
        result.get(timeout=1)
    with pytest.raises(IntentFailed):
        intent.wait(1)
    assert told(stage, intent)[-3:] == ["work_failed", "called_ended", "failed"]
    assert len(stage.dead_letters()) == 1


def test_a_pipeline_that_fails_cancels_its_own_legs_and_not_what_was_called(stage, app, mail, done):
    """Its next link never runs; the mail goes out."""

    @app.task(name="shop.last", shared=False)
    def last(value):
        done.append("last")

    def order():
        mail.apply_async(("ana",), countdown=7200)
        raise RuntimeError("out of paper")

    intent = stage.submit(task_of(app, order).s() | last.s())
    stage.run()
    stage.pass_time("2h")

    assert (intent.refresh().status, done) == (Status.FAILED, ["ana"])
    assert [leg.status for leg in intent.legs() if leg.task == "shop.last"] == [LegStatus.CANCELED]


def test_results_that_are_too_large_together_leave_what_was_called_its_wait(app, done):
    """It goes on by itself, and the intent ends with it."""

    @app.task(name="shop.ask", shared=False)
    def ask():
        done.append(wait_for_human("Send?", to="ana").outcome)

    @app.task(name="shop.part", shared=False)
    def part(calls):
        if calls:
            ask.delay()
        wait_for_time(5)
        return "x" * 900

    with Stage(app, join_bytes=1024) as stage:
        intent = stage.submit(group(part.si(True), part.si(False)))
        stage.pass_time("10s")
        (question,) = stage.inbox("ana")
        stage.answer(question, "approved", by="ana")

        assert (intent.refresh().status, intent.error["code"]) == (Status.FAILED, "join_too_large")
        assert done == ["approved"]
        assert all(leg.status.is_final for leg in intent.legs())


def test_a_canceled_intent_takes_what_it_called_with_it(stage, app, mail, done):
    """Whatever is left of it."""

    def order():
        mail.apply_async(("ana",), countdown=7200)
        return "done"

    task_of(app, order).delay()
    stage.run()
    stage.axme.cancel(only(stage).id, "not needed", by="ana")
    stage.pass_time("1d")

    intent = only(stage)
    assert (intent.status, done) == (Status.CANCELED, [])
    assert intent.legs()[1].status is LegStatus.CANCELED


def test_what_was_approved_in_a_called_leg_stays_approved_in_its_replay(stage, app):
    """That it is an intent of its own now, which says of itself what it is, is no other thing than what was shown."""
    world = {"broken": True}

    @app.task(name="shop.refund", shared=False)
    def refund(cents):
        decision = wait_for_human("Refund?", to="ana", context={"cents": cents})
        if world["broken"]:
            raise ConnectionError("bank is down")
        return decision.by

    @app.task(name="shop.order", shared=False)
    def order():
        refund.delay(500)

    order.delay()
    stage.run()
    stage.answer(only(stage), "approved", by="ana")
    (letter,) = stage.dead_letters()
    world["broken"] = False
    again = stage.axme.replay(letter.id, by="ops")
    stage.run()

    assert (again.refresh().status, again.result) == (Status.COMPLETED, "ana")


def test_what_was_changed_after_it_was_approved_in_a_called_leg_is_no_more_approved_in_its_replay():
    """Its hash is only reckoned anew where it was right."""
    shown = Wait(
        id="w", intent_id="i", leg_id="l", name="wait_for_human", nth=1, position=0, run=1, kind=WaitKind.HUMAN,
        title="Refund?", request={"context": {"cents": 500}}, opened_at=datetime(2026, 11, 2, tzinfo=UTC),
    )  # fmt: skip
    right = replace(shown, payload_hash=shown_hash(shown.title, shown.request, "{}"))
    changed = replace(right, request={"context": {"cents": 50_000}})

    assert shown_with(right, "{}", "[]").payload_hash == shown_hash(right.title, right.request, "[]")
    assert shown_with(changed, "{}", "[]") == changed


def test_a_replayed_intent_calls_again(stage, app, mail, done):
    """What the old one called belongs to the old one."""

    def order():
        mail.delay("ana")
        raise RuntimeError("out of paper")

    task_of(app, order).delay()
    stage.run()
    again = stage.axme.replay(only(stage).id, by="ops")
    stage.run()

    assert [leg.task for leg in again.legs()] == ["shop.order", "shop.mail"]
    assert done == ["ana", "ana"]


# -- where a call cannot be ---------------------------------------------------------------------------


def test_a_call_that_makes_no_message_raises_and_leaves_no_leg_open(stage, app, mail, done):
    """Its caller may go on, and the intent ends."""

    def order():
        try:
            mail.apply_async(("ana",), serializer="nowhere")
        except Exception as error:
            return str(error)

    task_of(app, order).delay()
    stage.run()

    intent = only(stage)
    assert intent.status is Status.COMPLETED and "nowhere" in intent.result
    assert (intent.legs()[1].status, done) == (LegStatus.CANCELED, [])


def test_a_run_whose_intent_has_ended_calls_nothing(stage, app, mail, done):
    """It was canceled while it ran."""

    def order():
        stage.axme.cancel(only(stage).id, "too late", by="ana")
        mail.delay("ana")
        done.append("went on")

    task_of(app, order).delay()
    stage.run()

    assert (only(stage).status, done) == (Status.CANCELED, [])
    assert len(only(stage).legs()) == 1


def test_a_call_while_the_ledger_is_away_raises(stage, app, mail, monkeypatch):
    """Inside a leg as anywhere else."""

    def order():
        def away(*_, **__):
            raise LedgerUnavailable("gone")

        with monkeypatch.context() as patched:
            patched.setattr(stage.axme.runtime.ledger, "intent_of_leg", away)
            try:
                mail.delay("ana")
            except LedgerUnavailable as error:
                return str(error)

    task_of(app, order).delay()
    stage.run()

    assert only(stage).result == "gone"


def test_a_called_task_cannot_replace_itself(stage, app, mail):
    """What took its place would be nobody's; it says so."""

    @app.task(name="shop.turns", bind=True, shared=False)
    def turns(self):
        raise self.replace(mail.s("ana"))

    def order():
        turns.delay()

    task_of(app, order).delay()
    stage.run()

    with pytest.raises(UnsupportedWork, match="cannot replace itself"):
        app.AsyncResult(only(stage).legs()[1].id).get(timeout=1)


@pytest.mark.parametrize("how", ["replay", "fork"])
def test_a_pipeline_whose_leg_called_a_task_with_steps_calls_it_again_when_it_is_repeated(stage, app, done, how):
    """What the called leg had recorded stays where it was called first."""

    @step
    def look():
        done.append("looked")

    @app.task(name="shop.checks", shared=False)
    def checks():
        look()
        return wait_for_human("Seen?", to="ana").outcome

    @app.task(name="shop.fails", shared=False)
    def fails(value):
        if "mended" not in done:
            raise ValueError("not yet")
        return value

    def order():
        checks.delay()
        return 1

    order = task_of(app, order)
    intent = stage.submit(order.s() | fails.s())
    stage.answer(stage.inbox("ana")[0], "approved", by="ana")
    done.append("mended")

    again = stage.axme.replay(intent.id) if how == "replay" else stage.axme.fork(intent.id, before="shop.order")
    stage.run()

    assert done == {"replay": ["looked", "mended"], "fork": ["looked", "mended", "looked"]}[how]
    if how == "fork":
        stage.answer(stage.inbox("ana")[0], "approved", by="ana")
    assert (again.refresh().status, again.result) == (Status.COMPLETED, 1)
