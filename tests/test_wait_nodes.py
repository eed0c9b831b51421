"""Waits as nodes of a pipeline: opened by the commit that comes to them, ended by whoever closes them."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from celery import chain, chord, group

from axme_celery import (
    BadInput,
    IntentFailed,
    step,
    wait_for_agent,
    wait_for_human,
    wait_for_time,
    wait_for_tool,
)
from axme_celery.audit import verify
from axme_celery.model import LegStatus, Status, WaitStatus
from axme_celery.wire import event_text


@pytest.fixture
def calls():
    """What ran, in order."""
    return []


@pytest.fixture
def note(app, calls):
    """An ordinary task that notes what it is called with, and passes its first argument on."""

    @app.task(shared=False, name="note")
    def note(*args):
        calls.append(args)
        return args[0] if args else None

    return note


def test_a_pipeline_waits_for_a_tool_and_a_person_and_holds_nothing_meanwhile(stage, note, calls):
    """The job's id is the result before the wait; the decision comes with what it was about."""
    pipeline = note.s("job-7") | wait_for_tool.s("warehouse") | wait_for_human.s("Publish?", to="analysts") | note.s()
    intent = stage.submit(pipeline)

    assert (intent.status, intent.waiting_reason) == (Status.WAITING, "WAITING_FOR_TOOL")
    stage.complete_tool("warehouse", "job-7", {"rows": 3})
    (question,) = stage.inbox("analysts")
    assert (question.title, question.request["context"]) == ("Publish?", {"input": {"rows": 3}})
    assert [leg.status for leg in intent.legs()] == [
        LegStatus.DONE, LegStatus.DONE, LegStatus.WAITING, LegStatus.PENDING,
    ]  # fmt: skip
    stage.answer(question, "approved", by="ana", comment="fine")

    ((decision,),) = calls[1:]
    assert intent.refresh().status is Status.COMPLETED
    assert (decision["approved"], decision["by"], decision["comment"], decision["input"]) == (
        True, "ana", "fine", {"rows": 3},
    )  # fmt: skip
    assert [e.type.removeprefix("intent.") for e in stage.history(intent)] == [
        "created", "submitted", "in_progress", "waiting", "wait_closed", "waiting", "human_task_assigned",
        "in_progress", "completed",
    ]  # fmt: skip


def test_a_wait_node_opens_without_a_worker(stage, axme, note):
    """At the head of a pipeline, in the very commit of its submission."""
    intent = axme.submit(wait_for_human.s("Start?", to="ana") | note.s())

    assert (intent.status, intent.waiting_reason) == (Status.WAITING, "WAITING_FOR_HUMAN")
    assert [w.title for w in axme.runtime.ledger.inbox(["ana"], None, 9)] == ["Start?"]
    stage.answer(intent.id, "approved", by="ana")
    assert intent.refresh().result["approved"] is True


def test_a_wait_alone_is_a_pipeline_too(stage, axme):
    """Its decision is the intent's result."""
    intent = axme.submit(wait_for_human.s("Yes?", to="ana"))
    stage.answer(intent.id, "approved", by="ana")

    assert (intent.refresh().status, intent.result["outcome"]) == (Status.COMPLETED, "approved")


def test_a_rejected_approval_ends_the_pipeline(stage, app, note, calls):
    """FAILED with the code ``rejected``, saying who and why; nothing after it runs."""
    intent = stage.submit(note.s(1) | wait_for_human.s("Publish?", to="ana") | note.s())
    stage.answer(intent.id, "rejected", by="ana", comment="too early")

    assert (intent.refresh().status, intent.error["code"], calls) == (Status.FAILED, "rejected", [(1,)])
    assert "ana" in intent.error["message"] and "too early" in intent.error["message"]
    assert app.AsyncResult(intent.legs()[2].id).state == "FAILURE"
    with pytest.raises(IntentFailed):
        intent.wait()


def test_on_reject_takes_the_place_of_all_that_follows(stage, note, calls):
    """It is given the decision; its result is the pipeline's."""
    question = wait_for_human.s("Publish?", to="ana", on_reject=note.s("told") | note.s("twice"))
    intent = stage.submit(note.s(1) | question | note.s("published"))
    stage.answer(intent.id, "rejected", by="ana")

    assert intent.refresh().status is Status.COMPLETED
    assert [args[1:] for args in calls[1:]] == [("told",), ("twice",)]
    assert intent.result["outcome"] == "rejected"
    assert {leg.status for leg in intent.legs()} == {LegStatus.DONE, LegStatus.CANCELED}


def test_the_usual_way_is_taken_when_it_is_approved(stage, note, calls):
    """And the other one is closed at the end."""
    question = wait_for_human.s("Publish?", to="ana", on_reject=note.s("told"), on_timeout=note.s("late"), timeout="1d")
    intent = stage.submit(question | note.s("published"))
    stage.answer(intent.id, "approved", by="ana")

    assert [args[1] for args in calls] == ["published"]
    assert intent.refresh().result["approved"] is True


def test_on_reject_continue_leaves_it_to_the_next_leg(stage, note):
    """For choices that are none between yes and no."""
    question = wait_for_human.s("Which?", to="ana", outcomes=["fast", "slow"], on_reject="continue")
    intent = stage.submit(question | note.s())
    stage.answer(intent.id, "slow", by="ana")

    assert intent.refresh().result["outcome"] == "slow"


def test_a_wait_that_nobody_answers_fails_the_pipeline_or_takes_its_own_way(stage, note, calls):
    """By ``on_timeout``: a signature, an outcome, or nothing."""
    late = stage.submit(wait_for_human.s("A?", to="ana", timeout="1h") | note.s("on"))
    way = stage.submit(wait_for_human.s("B?", to="ana", timeout="1h", on_timeout=note.s("late")) | note.s("on"))
    outcome = stage.submit(wait_for_human.s("C?", to="ana", timeout="1h", on_timeout="approved") | note.s("on"))
    tool = stage.submit(wait_for_tool.s("w", "j", timeout="1h", on_timeout=note.s("gone")) | note.s("on"))
    stage.pass_time("61m")

    assert (late.refresh().status, late.error["code"]) == (Status.FAILED, "wait_timeout")
    assert [one.refresh().status for one in (way, outcome, tool)] == [Status.COMPLETED] * 3
    assert sorted(args[1] for args in calls) == ["gone", "late", "on"]
    assert outcome.result["approved"] is True


def test_time_passes_on_what_it_was_given(stage, note, calls):
    """A pause in a pipeline."""
    intent = stage.submit(note.s({"rows": 3}) | wait_for_time.s("2h") | note.s("after"))
    stage.pass_time("119m")
    assert (intent.refresh().waiting_reason, len(calls)) == ("WAITING_FOR_TIME", 1)
    stage.pass_time("1m")

    assert (intent.refresh().result, calls[1]) == ({"rows": 3}, ({"rows": 3}, "after"))


def test_what_came_together_at_a_join_passes_through_a_wait_however_large_it_is(stage, app, note, calls):
    """The join let it through; more than one result may hold, it must not stop the wait from ending."""

    @app.task(shared=False)
    def large(n):
        return str(n) * 700_000

    @app.task(shared=False)
    def sizes(all_of_it):
        return [len(one) for one in all_of_it]

    intent = stage.submit(group(large.s(1), large.s(2)) | wait_for_time.s("1m") | sizes.s())
    stage.pass_time("2m")

    assert intent.refresh().result == [700_000, 700_000]


def test_an_agent_is_given_the_result_before_it_and_gives_its_own(stage, app, note):
    """As a child intent, which may be a pipeline itself."""

    @app.task(shared=False)
    def fails(*args):
        raise ValueError("no score")

    intent = stage.submit(note.s(5) | wait_for_agent.s(note.s() | note.s("scored")) | note.s())
    assert intent.result == 5
    failed = stage.submit(note.s(5) | wait_for_agent.s(fails.s()) | note.s())
    assert (failed.status, failed.error["code"]) == (Status.FAILED, "agent_failed")


def test_an_agent_may_be_the_first_of_a_pipeline_and_of_the_one_it_is_given(stage, app, note, calls):
    """What begins with an intent begins in the same commit, however deep it lies."""

    @app.task(shared=False)
    def double(n):
        return 2 * n

    inner = wait_for_agent.s(double.s(21)) | note.s("inner")
    intent = stage.submit(wait_for_agent.s(inner) | note.s("outer"))
    beside = stage.submit(group(wait_for_agent.s(double.s(1)), wait_for_agent.s(double.s(2))) | note.s())

    assert intent.refresh().status is Status.COMPLETED
    assert calls[:2] == [(42, "inner"), (42, "outer")]
    assert beside.refresh().result == [2, 4]


def test_a_member_that_is_added_to_a_group_may_be_an_agents_work(stage, app, note, calls):
    """It is begun in the commit that adds it."""

    @app.task(shared=False)
    def double(n):
        return 2 * n

    @app.task(shared=False, bind=True)
    def adds(self):
        self.add_to_chord(wait_for_agent.s(double.s(4)))
        return 1

    intent = stage.submit(chord([adds.s(), note.si(2)], note.s()))

    assert intent.refresh().result == [1, 2, 8]


def test_an_agent_outside_celery_is_sent_the_result_before_it(stage, note):
    """To its address; what it answers goes on."""
    intent = stage.submit(note.s({"order": 7}) | wait_for_agent.s("agent://acme/shop/scorer") | note.s())
    (wait,) = stage.waits(intent)
    child = stage.intent(wait.job_id)
    assert (intent.waiting_reason, child.payload) == ("WAITING_FOR_AGENT", {"order": 7})
    stage.axme.complete_agent(child.id, {"score": 3}, by="agent://acme/shop/scorer")
    stage.run()

    assert intent.refresh().result == {"score": 3}


def test_a_tool_that_fails_ends_the_pipeline(stage, note, calls):
    """With what it reported."""
    intent = stage.submit(note.s("j") | wait_for_tool.s("w") | note.s())
    stage.complete_tool("w", "j", error={"why": "full"})

    assert (intent.refresh().error["code"], intent.error["data"]) == ("tool_failed", {"why": "full"})


@pytest.mark.parametrize("early", [False, True], ids=["in time", "early"])
def test_what_a_tool_reports_of_its_failure_is_told_as_plain_json(stage_on_each_database, note, early):
    """Dates, amounts and bytes as their texts: the history is sealed, verified and sent on with them."""
    stage = stage_on_each_database
    error = {"at": datetime(2026, 10, 5, 8, 30, tzinfo=UTC), "amount": Decimal("1.50"), "raw": b"\x00\xff"}
    if early:
        stage.complete_tool("w", "j", error=error)
    intent = stage.submit(note.s("j") | wait_for_tool.s("w"))
    if not early:
        stage.complete_tool("w", "j", error=error)

    events = stage.history(intent)
    assert intent.refresh().status is Status.FAILED
    assert intent.error["data"] == {
        "at": "2026-10-05T08:30:00+00:00", "amount": "1.50", "raw": "AP8="
    }  # fmt: skip
    record = stage.axme.runtime.ledger.intent(intent.id)
    assert verify(record, events, None) is None
    assert '"amount":"1.50"' in event_text(events[-1], record)


def test_an_answer_that_came_early_is_given_to_the_node_when_it_opens(stage, note):
    """Tools may be faster than pipelines."""
    stage.complete_tool("w", "j", 42)
    assert stage.submit(note.s("j") | wait_for_tool.s("w")).result == 42
    stage.complete_tool("w", "k", 43)
    assert stage.submit(wait_for_tool.s("w", "k") | note.s()).result == 43


def test_approvals_side_by_side_all_have_to_say_yes(stage, axme, note, calls):
    """A chord of people: its body runs once with all decisions, in order."""
    both = group(wait_for_human.s("Money?", to="finance"), wait_for_human.s("Law?", to="legal"))
    intent = axme.submit(both | note.s())
    assert intent.status is Status.WAITING
    stage.answer(stage.inbox("legal")[0], "approved", by="leo")
    still = (intent.refresh().status, [w.title for w in stage.waits(intent) if w.status is WaitStatus.OPEN])
    stage.answer(stage.inbox("finance")[0], "approved", by="fay")

    assert still == (Status.WAITING, ["Money?"])
    (((money, law),),) = calls
    assert (money["by"], law["by"]) == ("fay", "leo")
    assert intent.refresh().status is Status.COMPLETED


def test_one_no_of_several_ends_them_all(stage, axme, note):
    """The others need not be asked any more."""
    intent = axme.submit(group(wait_for_human.s("A?", to="ana"), wait_for_human.s("B?", to="bob")) | note.s())
    stage.answer(stage.inbox("bob")[0], "rejected", by="bob")

    assert (intent.refresh().error["code"], stage.inbox("ana")) == ("rejected", [])


def test_an_intent_waits_only_while_nothing_else_of_it_goes_on(stage, app, note):
    """A question beside running tasks does not make it WAITING; when they are done it is."""
    seen = []

    @app.task(shared=False)
    def look():
        (intent,) = stage.axme.intents()
        seen.append(intent.status)

    intent = stage.submit(group(wait_for_human.s("A?", to="ana"), look.s(), look.s()) | note.s())

    assert seen == [Status.IN_PROGRESS] * 2
    assert (intent.refresh().status, intent.waiting_reason) == (Status.WAITING, "WAITING_FOR_HUMAN")
    stage.answer(intent.id, "approved", by="ana")
    assert intent.refresh().status is Status.COMPLETED


def test_a_group_in_a_group_that_ends_leaves_the_intent_waiting_too(stage, note):
    """The last that went on was a join, which counts in another."""
    inner = note.s(1) | group(note.s("a"), note.s("b"))
    intent = stage.submit(group(wait_for_human.s("A?", to="ana"), inner) | note.s())

    assert (intent.status, intent.waiting_reason) == (Status.WAITING, "WAITING_FOR_HUMAN")
    stage.answer(intent.id, "approved", by="ana")
    assert intent.refresh().status is Status.COMPLETED


def test_a_task_that_waits_in_a_group_does_not_hold_up_its_siblings(stage, axme, note, calls):
    """The same for waits inside a task's own code."""

    @axme.task(name="asks")
    def asks():
        return wait_for_human("In here?", to="ana").outcome

    intent = stage.submit(group(asks.s(), note.s(1), note.s(2)) | note.s())
    assert (intent.status, [args[0] for args in calls]) == (Status.WAITING, [1, 2])
    stage.answer(intent.id, "approved", by="ana")

    assert intent.refresh().result == ["approved", 1, 2]


def test_a_pipeline_with_waits_survives_crashes_on_both_sides_of_them(stage, axme, note, calls):
    """A worker dies before the wait, and after."""

    @step
    def once(x):
        calls.append(("once", x))

    @axme.task(name="work")
    def work(x):
        once(1)
        return "job"

    stage.kill("once#1", recorded=True)
    intent = stage.submit(work.s(0) | wait_for_tool.s("w") | work.s() | wait_for_human.s("?", to="ana") | note.s())
    stage.kill("once#1", recorded=True)
    stage.complete_tool("w", "job", 1)
    stage.answer(intent.id, "approved", by="ana")

    assert intent.refresh().status is Status.COMPLETED
    assert calls[:2] == [("once", 1), ("once", 1)]


def test_celerys_own_results_say_how_a_wait_node_ended(stage, app, note):
    """``AsyncResult`` of the node is the decision."""
    intent = stage.submit(wait_for_human.s("?", to="ana") | note.s())
    stage.answer(intent.id, "approved", by="ana")

    assert app.AsyncResult(intent.legs()[0].id).get()["approved"] is True


def test_a_wait_in_a_plain_celery_chain_waits_too(stage, axme, app, note, calls):
    """There it is a durable task that waits; the chain goes on afterwards."""
    chain(note.si(1), wait_for_human.si("Go on?", to="ana"), note.s("then")).delay()
    stage.run()
    (intent,) = axme.intents()
    assert (intent.type, intent.status) == ("axme.wait_for_human", Status.WAITING)
    stage.answer(intent.id, "approved", by="ana")

    assert calls[-1][0]["approved"] is True


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (lambda note: wait_for_human.s("?"), "missing"),
        (lambda note: wait_for_human.s("?", to="ana", type="vote"), "no human task type"),
        (lambda note: wait_for_human.s("?", to="ana", on_reject="stop"), "on_reject is 'stop'"),
        (lambda note: wait_for_tool.s("w", "j", on_reject=note.s()), "only people reject"),
        (lambda note: wait_for_time.s("1h", until="2030-01-01"), "exactly one"),
        (lambda note: wait_for_time.s("1h", on_timeout=note.s()), "no timeout"),
        (lambda note: wait_for_tool.s("w", "j", poll=note.s(), every=None), "belong together"),
    ],
)
def test_a_wait_node_that_cannot_work_is_refused_at_submit(stage, axme, note, node, words):
    """Not days later when the pipeline comes to it; with its place."""
    with pytest.raises(BadInput, match=f"node 1 .*{words}"):
        axme.submit(note.s() | node(note))
    assert list(axme.intents()) == []


def test_a_job_id_that_is_none_fails_the_pipeline_when_it_comes_there(stage, note, calls):
    """Only then is it known."""
    intent = stage.submit(note.s({"job": 1}) | wait_for_tool.s("w") | note.s())

    assert (intent.status, intent.error["code"], len(calls)) == (Status.FAILED, "bad_wait", 1)
    assert "job_id=" in intent.error["message"]


def test_no_agent_begins_beside_a_wait_that_cannot_be_opened(stage, axme, note):
    """The pipeline has failed: nobody would hear what the agent found."""
    work = note.s({"job": 1}) | group(wait_for_agent.s("agent://acme/bot"), wait_for_tool.s("w")) | note.s()
    intent = stage.submit(work)

    assert (intent.status, intent.error["code"]) == (Status.FAILED, "bad_wait")
    assert [one.id for one in axme.intents()] == [intent.id]


def test_an_answer_that_leads_to_a_wait_that_cannot_be_opened_stands(stage, note):
    """The pipeline fails there, and says why. Whoever answered is not told that somebody else was faster."""
    intent = stage.submit(note.s("?") | wait_for_human.s("Go on?", to="ana") | wait_for_tool.s("w") | note.s())
    intent = stage.answer(intent, "approved", by="ana")

    assert (intent.status, intent.error["code"]) == (Status.FAILED, "bad_wait")
    assert [wait.status for wait in stage.waits(intent)] == [WaitStatus.ANSWERED]


def test_a_canceled_pipeline_takes_its_questions_back(stage, axme, note):
    """All that are open."""
    intent = axme.submit(group(wait_for_human.s("A?", to="ana"), wait_for_human.s("B?", to="ana")) | note.s())
    intent.cancel("no need", by="bob")
    stage.run()

    assert (intent.refresh().status, stage.inbox("ana")) == (Status.CANCELED, [])
