"""Calls of ordinary tasks that ``axme_tasks`` names."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

import pytest
from celery import Celery, chain, chord, group
from celery.exceptions import Reject
from kombu.exceptions import OperationalError

from axme_celery import Axme, BadSetting, IntentFailed, LedgerUnavailable, NotJson, calls, trace
from axme_celery.model import LegStatus, Status
from axme_celery.testing import Stage


@pytest.fixture
def app() -> Celery:
    """An app nobody can reach, whose ``reports.*`` are ours."""
    app = Celery("called", broker="amqp://127.0.0.1:1", backend="redis://127.0.0.1:1", set_as_current=False)
    app.conf.axme_tasks = ["reports.*"]
    app.conf.task_annotations = {"reports.late": {"axme_deadline": "1h", "axme_max_attempts": 2}}
    Axme(app)
    return app


@pytest.fixture
def add(app):
    """An ordinary task that is named."""

    @app.task(name="reports.add", shared=False)
    def add(x, y=1):
        return x + y

    return add


@pytest.fixture
def plain(app):
    """An ordinary task that is not."""

    @app.task(name="mail.plain", shared=False)
    def plain(x):
        return x * 10

    return plain


def only(stage: Stage):
    """The one intent there is."""
    (intent,) = stage.axme.intents()
    return intent


def away(*_, **__):
    raise LedgerUnavailable("the database is not there")


def refuses(*_, **__):
    raise OperationalError("the broker is not there")


# -- which --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "is_named"),
    [
        ("reports.add", True), ("reports.a.b", True), ("report", False), ("mail.reports.add", False),
        ("celery.chord_unlock", False), ("axme.sweep", False), ("Reports.add", False),
    ],
)  # fmt: skip
def test_patterns_are_those_of_the_shell(name, is_named):
    """On the whole name, and minding case."""
    assert calls.matches(("reports.*",), name) is is_named


def test_no_pattern_reaches_the_tasks_of_celery_and_ours():
    """Not even one that names everything: a sweep that were an intent would need a sweep."""
    assert not calls.matches(("*", "celery.*", "axme.*"), "celery.accumulate")
    assert not calls.matches(("*", "celery.*", "axme.*"), "axme.sweep")
    assert calls.matches(("*",), "anything.else")


def test_a_call_of_a_task_that_is_not_named_is_untouched(stage, plain):
    """No header, no intent, and the ledger is not even opened for it."""
    result = plain.delay(2)
    (_, _, message) = stage._worker._messages[0]

    assert "axme" not in message.headers
    stage.run()
    assert result.get(timeout=1) == 20
    assert list(stage.axme.intents()) == []
    assert not hasattr(result, "intent_id")


# -- every way to call --------------------------------------------------------------------


def test_delay_of_a_named_task_makes_an_intent(stage, add):
    """Its result is the intent's and Celery's; one message, one run."""
    result = add.delay(2, y=3)

    intent = only(stage)
    assert result.intent_id == intent.id
    assert intent.legs()[0].id == result.id
    assert intent.payload == {"task": "reports.add", "args": [2], "kwargs": {"y": 3}}
    assert len(stage._worker._messages) == 1
    stage.run()
    assert (intent.refresh().status, intent.result, result.get(timeout=1)) == (Status.COMPLETED, 5, 5)
    assert intent.legs()[0].run == 1


WAYS = {
    "apply_async": lambda add: add.apply_async((2,), {"y": 3}),
    "a signature": lambda add: add.s(2).delay(y=3),
    "send_task": lambda add: add.app.send_task("reports.add", (2,), {"y": 3}),
    "send_task, by position": lambda add: add.app.send_task("reports.add", [2], {"y": 3}, 5.0),
    "a dict of a signature": lambda add: add.app.signature(dict(add.s(2, y=3))).apply_async(),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_call_it_makes_an_intent(stage, add, way):
    """Whatever the caller's habit is."""
    result = WAYS[way](add)
    stage.pass_time("1m")

    assert result.get(timeout=1) == 5
    assert only(stage).status is Status.COMPLETED


def test_a_task_this_process_does_not_know_is_sent_by_name_as_an_intent(stage, app):
    """A web process often has no task of the workers'."""
    result = app.send_task("reports.elsewhere", (1,), queue="heavy")

    leg = stage.axme.intent(result.intent_id).legs()[0]
    assert (leg.task, leg.signature["options"]["queue"]) == ("reports.elsewhere", "heavy")


def test_links_of_a_chain_and_members_of_a_chord_are_intents_of_their_own(stage, add, plain):
    """Celery's canvas as ever: those that are named are kept, the others go as they always did."""
    chained = chain(add.s(1), plain.s(), add.s(5)).delay()
    stage.run()
    assert chained.get(timeout=1) == 25
    assert len(list(stage.axme.intents())) == 2

    grouped = group(add.s(n) for n in range(3)).delay()
    stage.run()
    assert grouped.get(timeout=1) == [1, 2, 3]
    assert len(list(stage.axme.intents())) == 5


def test_options_of_the_task_and_of_the_call_are_kept_for_every_later_message(stage, app):
    """A run after a crash goes to the same queue, with the same limits."""

    @app.task(name="reports.routed", shared=False, queue="slow", time_limit=30, priority=3)
    def routed():
        return 1

    stage.kill("end")
    routed.apply_async(priority=7, headers={"tenant": "acme"})
    leg = only(stage).legs()[0]

    options = leg.signature["options"]
    assert (options["queue"], options["time_limit"], options["priority"]) == ("slow", 30, 7)
    stage.run()
    stage.pass_time("1m")
    assert only(stage).legs()[0].run == 2
    assert only(stage).status is Status.COMPLETED


def test_a_deadline_and_attempts_come_from_the_tasks_own_options(stage, app):
    """``task_annotations`` gives them to tasks whose code nobody touches."""

    @app.task(name="reports.late", shared=False)
    def late():
        return 1

    late.apply_async(countdown=7200)

    intent = only(stage)
    assert intent.deadline_at - intent.created_at == timedelta(hours=1)
    assert intent.legs()[0].max_attempts == 2
    stage.pass_time("1h")
    assert intent.refresh().status is Status.TIMED_OUT


# -- a crash ----------------------------------------------------------------------------------


def test_a_named_task_whose_worker_dies_runs_again(stage, add):
    """What plain Celery loses: that is what the setting is for."""
    stage.kill("end")
    result = add.delay(1)
    stage.run()
    stage.pass_time("1m")

    assert result.get(timeout=1) == 2
    assert only(stage).legs()[0].attempts == 2


def test_a_caller_that_dies_before_it_sends_leaves_a_message_to_the_outbox(stage, add, monkeypatch):
    """Between the ledger's commit and the broker there is a moment."""

    class Dies(BaseException):
        pass

    def die(*_, **__):
        raise Dies

    with monkeypatch.context() as patched:
        patched.setattr(stage.axme.calls, "_send", die)
        patched.setattr(stage.axme.calls, "_take_back", lambda *_: None)
        patched.setattr(stage.axme.runtime.relay, "settled", lambda *_: None)
        with pytest.raises(Dies):
            add.delay(1)
    stage.pass_time("9s")
    assert only(stage).status is Status.SUBMITTED
    stage.pass_time("3s")

    assert only(stage).status is Status.COMPLETED


def test_the_outbox_sends_nothing_once_the_caller_has(stage, add):
    """One message a call."""
    add.delay(1)
    stage._worker.lose_messages()
    stage.pass_time("1m")
    assert only(stage).status is Status.SUBMITTED

    stage.pass_time("15m")

    assert only(stage).status is Status.COMPLETED
    assert only(stage).legs()[0].resends == 1


def test_a_call_the_broker_does_not_take_is_kept_and_sent_when_it_does(stage, add, monkeypatch):
    """Raising would have the caller call again, and the work be done twice."""
    with monkeypatch.context() as patched:
        patched.setattr(stage._worker, "publish", refuses)
        result = add.delay(1)
        stage.run()
    assert only(stage).status is Status.SUBMITTED
    stage.pass_time("1m")

    assert result.get(timeout=1) == 2
    assert result.intent_id == only(stage).id


def test_a_countdown_the_broker_did_not_take_still_runs_when_it_should(stage, add, monkeypatch):
    """The broker was away for a moment; the call is not early by that."""
    submitted_at = stage.now
    with monkeypatch.context() as patched:
        patched.setattr(stage._worker, "publish", refuses)
        add.apply_async((1,), countdown=45)
    stage.pass_time("44s")
    assert only(stage).status is Status.SUBMITTED
    stage.pass_time("16s")

    (leg,) = only(stage).legs()
    assert leg.started_at - submitted_at >= timedelta(seconds=45)
    assert only(stage).status is Status.COMPLETED


def test_a_call_that_cannot_be_made_into_a_message_raises_and_is_no_promise(stage, add):
    """The caller is told, as by Celery; the intent that was begun says why it ended."""
    with pytest.raises(Exception, match="nowhere"):
        add.apply_async((1,), serializer="nowhere")

    intent = only(stage)
    assert intent.status is Status.CANCELED
    assert "nowhere" in intent.error["message"]


# -- the ledger is away -------------------------------------------------------------------------


def test_a_call_raises_while_the_ledger_is_away_and_nothing_leaves(stage, add, monkeypatch):
    """A promise that cannot be kept is not given."""
    monkeypatch.setattr(stage.axme.runtime.ledger, "commit", away)

    with pytest.raises(LedgerUnavailable):
        add.delay(1)

    assert stage._worker._messages == []


def test_a_chain_goes_on_while_the_ledger_is_away(stage, add, plain, monkeypatch):
    """Nobody could catch the error there; the next link's worker makes the intent, once it can."""
    result = chain(plain.s(1), add.s(5)).delay()
    with monkeypatch.context() as patched:
        patched.setattr(stage.axme.runtime.ledger, "commit", away)
        stage._worker.run_next()
    assert result.parent.get(timeout=1) == 10
    assert list(stage.axme.intents()) == []
    stage.run()

    assert result.get(timeout=1) == 15
    assert only(stage).legs()[0].id == result.id


def test_a_durable_link_goes_on_while_the_ledger_is_away_too(stage, axme, plain, monkeypatch):
    """An ``@axme.task`` after an ordinary one."""

    @axme.task(name="durable.five")
    def five(x):
        return x + 5

    result = chain(plain.s(1), five.s()).delay()
    with monkeypatch.context() as patched:
        patched.setattr(stage.axme.runtime.ledger, "commit", away)
        stage._worker.run_next()
    stage.run()

    assert (result.parent.get(timeout=1), result.get(timeout=1)) == (10, 15)
    assert only(stage).status is Status.COMPLETED


def test_a_body_that_calls_while_the_ledger_is_away_is_told(stage, app, add, monkeypatch):
    """It is the project's own code that calls, and it may catch that."""

    @app.task(name="mail.caller", shared=False)
    def caller():
        try:
            add.delay(1)
        except LedgerUnavailable as error:
            return str(error)

    result = caller.delay()
    with monkeypatch.context() as patched:
        patched.setattr(stage.axme.runtime.ledger, "commit", away)
        stage._worker.run_next()

    assert result.get(timeout=1) == "the database is not there"


def test_a_beat_sends_while_the_ledger_is_away(stage, add, monkeypatch):
    """It would log the error and leave the entry out; so the message goes, and arrives as an intent."""
    import threading

    stage.axme.calls.beat_thread = threading.get_ident()
    with monkeypatch.context() as patched:
        patched.setattr(stage.axme.runtime.ledger, "commit", away)
        add.apply_async((1,), headers={"celery_beat_task": True})
    stage.run()

    assert only(stage).result == 2


# -- arrival ------------------------------------------------------------------------------------


def test_a_message_of_a_program_without_us_becomes_an_intent_on_arrival(stage, app, add):
    """Sent before the setting was made, or by a project that does not have it; two deliveries are one intent."""
    with calls.as_it_is():
        result = app.send_task("reports.add", (1,))
    stage.copy_messages()
    stage.run()

    assert result.get(timeout=1) == 2
    assert only(stage).legs()[0].run == 1


def test_a_message_that_cannot_be_an_intent_runs_without_one(stage, app, add, caplog):
    """Nobody promised its sender more; the log says why it is not kept."""
    with calls.as_it_is():
        result = app.send_task("reports.add", (["x" * 200_000], []))
    stage.run()

    assert len(result.get(timeout=1)) == 1
    assert list(stage.axme.intents()) == []
    assert "runs without an intent: arguments of reports.add is 20005" in caplog.text


# -- what a call may carry ------------------------------------------------------------------------


def test_arguments_that_are_not_json_are_refused_by_name(stage, add):
    """They could not be sent again from the ledger."""
    with pytest.raises(NotJson, match=r"arguments of reports\.add"):
        add.apply_async((object(),), serializer="pickle")

    assert list(stage.axme.intents()) == []


def test_a_header_copied_from_a_leg_does_not_make_another_of_it(stage, app, add, plain):
    """``headers=self.request.headers`` is a habit of those who pass a tenant on."""

    @app.task(name="reports.parent", bind=True, shared=False)
    def parent(self):
        headers = {**self.request.headers, "tenant": "acme"}
        return [plain.apply_async((1,), headers=headers).id, add.apply_async((1,), headers=headers).id]

    result = parent.delay()
    stage.run()

    plain_id, add_id = result.get(timeout=1)
    assert app.AsyncResult(plain_id).get(timeout=1) == 10
    assert app.AsyncResult(add_id).get(timeout=1) == 2


def test_the_same_task_id_twice_is_one_intent(stage, add):
    """A chain's next link may be sent twice when its worker dies in between."""
    first = add.apply_async((1,), task_id="mine")
    second = add.apply_async((1,), task_id="mine")
    stage.run()

    assert first.intent_id == second.intent_id == only(stage).id
    assert only(stage).legs()[0].run == 1


# -- countdowns -----------------------------------------------------------------------------------


def test_a_short_countdown_is_an_ordinary_message(stage, add):
    """Within ``axme_eta_threshold_seconds`` a worker may hold it."""
    add.apply_async((1,), countdown=30)

    assert len(stage._worker._messages) == 1
    stage.pass_time("29s")
    assert only(stage).status is Status.SUBMITTED
    stage.pass_time("1s")
    assert only(stage).status is Status.COMPLETED


def test_a_long_countdown_is_a_timer_in_the_ledger_and_no_message(stage, add):
    """Nothing waits in a broker or in a worker; at its moment it leaves."""
    result = add.apply_async((1,), countdown=2 * 86400)

    assert stage._worker._messages == []
    stage.pass_time("47h")
    assert only(stage).status is Status.SUBMITTED
    stage.pass_time("1h")
    assert result.get(timeout=1) == 2
    assert result.intent_id == only(stage).id
    assert only(stage).legs()[0].run == 1


def test_a_far_eta_is_a_timer_too(stage, add):
    """``eta`` says the same as ``countdown``."""
    add.apply_async((1,), eta=stage.now + timedelta(hours=5))

    assert stage._worker._messages == []
    stage.pass_time("5h")
    assert only(stage).status is Status.COMPLETED


def test_an_eta_of_the_past_leaves_at_once(stage, add):
    add.apply_async((1,), eta=datetime(2001, 1, 1, tzinfo=UTC))
    stage.run()

    assert only(stage).status is Status.COMPLETED


def test_the_outbox_does_not_send_a_short_countdown_before_its_moment(stage, add, monkeypatch):
    """The caller died before it sent: the message comes at its moment, not at once."""
    with monkeypatch.context() as patched:
        patched.setattr(stage._worker, "publish", lambda *_: None)
        patched.setattr(stage.axme.runtime.relay, "settled", lambda *_: None)
        add.apply_async((1,), countdown=40)
    stage.pass_time("39s")
    assert only(stage).status is Status.SUBMITTED
    stage.pass_time("3s")

    assert only(stage).status is Status.COMPLETED


def test_a_link_with_a_long_countdown_is_a_timer_with_the_rest_of_its_chain(stage, add, plain):
    """Celery publishes it when the link before has ended; the chain goes on after it."""
    result = chain(plain.s(1), add.s(5).set(countdown=7200), plain.s()).delay()
    stage.run()
    assert stage._worker._messages == []
    stage.pass_time("2h")

    assert result.get(timeout=1) == 150


# -- retries and failures ---------------------------------------------------------------------------


def test_a_named_task_is_retried_by_celerys_rules(stage, app):
    """``autoretry_for``: further runs of the same leg."""
    tries = []

    @app.task(name="reports.flaky", shared=False, autoretry_for=(ConnectionError,), default_retry_delay=300)
    def flaky():
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError("not yet")
        return len(tries)

    result = flaky.delay()
    stage.pass_time("11m")

    assert result.get(timeout=1) == 3
    assert only(stage).legs()[0].run == 3


def test_a_named_task_that_puts_its_message_back_gets_it_again(stage, app):
    """``Reject(requeue=True)`` means what it means in Celery; without, the task has failed."""
    tries = []

    @app.task(name="reports.busy", shared=False, acks_late=True)
    def busy(requeue):
        tries.append(1)
        if len(tries) < 3:
            raise Reject("no room", requeue=requeue)
        return len(tries)

    result = busy.delay(True)
    stage.run()
    assert (result.get(timeout=1), only(stage).legs()[0].run) == (3, 3)

    tries.clear()
    busy.delay(False)
    stage.run()
    assert next(iter(stage.axme.intents())).status is Status.FAILED


def test_a_named_task_that_fails_is_a_dead_letter(stage, app):
    """With its exception; Celery's caller gets it as ever."""

    @app.task(name="reports.broken", shared=False)
    def broken():
        raise ValueError("no such month")

    result = broken.delay()
    stage.run()

    with pytest.raises(ValueError, match="no such month"):
        result.get(timeout=1)
    with pytest.raises(IntentFailed):
        only(stage).wait(1)
    assert [letter.code for letter in stage.dead_letters()] == ["ValueError"]
    assert only(stage).legs()[0].status is LegStatus.FAILED


# -- the trace -------------------------------------------------------------------------------------------


def test_a_call_carries_on_the_trace_it_was_made_in(stage, add):
    """In the intent, in its message, and in every later one."""
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    with trace.within({"traceparent": parent}):
        add.delay(1)
    (_, _, message) = stage._worker._messages[0]

    assert message.headers["traceparent"] == parent
    assert stage.axme.runtime.ledger.intent(only(stage).id).trace["traceparent"] == parent
    assert only(stage).legs()[0].signature["options"]["headers"]["traceparent"] == parent


# -- settings -----------------------------------------------------------------------------------------


def make(**config):
    app = Celery("settings", broker="memory://", set_as_current=False)
    app.conf.update(**config)
    Axme(app)
    app.task(name="reports.add", shared=False)(lambda: 1)
    return app


def test_with_nothing_configured_no_call_is_looked_into():
    """Nor with a setting that is refused: the project's tasks are called as ever, and the log says it."""
    assert make().axme.calls.takes("reports.add") is False


def test_refused_settings_are_said_once_and_calls_go_as_ever(caplog):
    app = make(axme_tiks=1)
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            assert app.axme.calls.takes("reports.add") is False

    (record,) = caplog.records
    assert record.message.startswith("no call becomes an intent: unknown setting axme_tiks")


def test_refused_settings_are_raised_where_calls_are_promises():
    """Which calls are promises cannot be known then."""
    with pytest.raises(BadSetting, match="axme_tasks is 5"):
        make(axme_tasks=5).send_task("reports.add")
    given = Celery("given", broker="memory://", set_as_current=False)
    Axme(given, tasks=["reports.*"], tick=1)
    with pytest.raises(BadSetting, match="axme_tick"):
        given.send_task("reports.add")


def test_a_header_less_chord_body_is_named_too(stage, add, app):
    """The body is sent by Celery when the last of its header has ended."""

    @app.task(name="reports.total", shared=False)
    def total(numbers):
        return sum(numbers)

    signature = total.s()
    result = chord([add.s(1), add.s(2)])(signature)
    stage.run()
    stage.pass_time("1m")

    assert result.get(timeout=1) == 5
    assert sorted(intent.type for intent in stage.axme.intents()) == ["reports.add", "reports.add", "reports.total"]
