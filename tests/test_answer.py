"""Answers from outside: the first committed one wins, and whatever does not fit changes nothing."""

from __future__ import annotations

import pytest

from axme_celery import BadInput, IntentEnded, NotAllowed, NotFound, NotJson, TooLarge, WaitClosed, wait_for_human
from axme_celery.answer import child_ended, match_early, poll_answered
from axme_celery.model import Status, WaitStatus
from axme_celery.wait import wait_for_time, wait_for_tool


@pytest.fixture
def ask(stage, axme):
    """``ask(**arguments)``: an intent that waits for a person, and returns their outcome."""

    @axme.task
    def asking(arguments):
        return wait_for_human(**({"title": "Publish?", "to": "ana"} | arguments)).outcome

    return lambda **arguments: stage.submit(asking.s(arguments))


@pytest.fixture
def run_job(stage, axme):
    """``run_job(job)``: an intent that waits for a job of the warehouse, and returns its result."""

    @axme.task
    def running(job, arguments):
        return wait_for_tool("warehouse", job, **arguments)

    return lambda job="job-1", **arguments: stage.submit(running.s(job, arguments))


def standing(stage, intent):
    """Everything an answer could have changed."""
    return stage.intent(intent.id).seq, stage.waits(intent), stage.intent(intent.id).legs()


# -- people ------------------------------------------------------------------------------


def test_a_second_answer_is_refused_and_changes_nothing(stage, ask):
    """The first answer wins; whoever comes second is told who it was and when."""
    intent = ask()
    wait = stage.waits(intent)[0]
    stage.answer(wait, "approved", by="ana")
    decided_at, before = stage.now, standing(stage, intent)

    stage.pass_time("1h")
    with pytest.raises(WaitClosed, match="answered by ana") as late:
        stage.answer(wait, "rejected", by="ben")

    assert (late.value.status, late.value.closed_by, late.value.closed_at) == ("ANSWERED", "ana", decided_at)
    assert standing(stage, intent) == before
    assert stage.intent(intent.id).result == "approved"


def test_the_same_answer_again_is_told_that_it_stands(stage, ask):
    """A double click and a retry after a lost reply are no errors."""
    intent = ask()
    wait = stage.waits(intent)[0]
    stage.answer(wait, "approved", by="ana")
    before = standing(stage, intent)

    again = stage.answer(wait, "approved", by="ana")

    assert again.id == intent.id
    assert standing(stage, intent) == before


def test_a_vote_given_twice_counts_once_and_stands(stage, ask):
    """Before the quorum is reached, and after somebody else has completed it; another answer is refused."""
    intent = ask(quorum=2)
    wait = stage.waits(intent)[0]

    stage.answer(wait, "approved", by="ana")
    stage.answer(wait, "approved", by="ana")
    with pytest.raises(NotAllowed, match="already answered"):
        stage.answer(wait, "rejected", by="ana")
    votes = [vote["by"] for vote in stage.waits(intent)[0].votes]
    stage.answer(wait, "approved", by="ben")
    stands = stage.answer(wait, "approved", by="ana")

    assert votes == ["ana"]
    assert stands.status is Status.COMPLETED
    assert [e.type for e in stage.history(intent)].count("intent.voted") == 1


def test_a_vote_that_was_overruled_does_not_stand(stage, ask):
    """Ana said yes, Ben's no closed it: Ana's click now would change nothing, and she is told."""
    intent = ask(quorum=2)
    wait = stage.waits(intent)[0]
    stage.answer(wait, "approved", by="ana")
    stage.answer(wait, "rejected", by="ben")

    with pytest.raises(WaitClosed, match="by ben"):
        stage.answer(wait, "approved", by="ana")

    assert stage.intent(intent.id).result == "rejected"


def test_whoever_may_not_answer_is_refused_and_the_wait_stays_open(stage, ask):
    """Who asked for it does not approve it."""
    intent = ask(not_by=["ana"])
    before = standing(stage, intent)

    with pytest.raises(NotAllowed, match="ana may not answer"):
        stage.answer(intent, "approved", by="ana")

    assert standing(stage, intent) == before
    assert stage.answer(intent, "approved", by="ben").status is Status.COMPLETED


def test_an_answer_after_the_timeout_is_refused(stage, ask):
    """It says that the clock closed it."""
    intent = ask(timeout="1h", on_timeout="rejected")
    stage.pass_time("1h")

    with pytest.raises(WaitClosed, match="expired by clock"):
        stage.answer(intent, "approved", by="ana")

    assert stage.intent(intent.id).result == "rejected"


def test_an_answer_to_a_canceled_intent_is_refused(stage, ask):
    """With who canceled it."""
    intent = ask()
    stage.axme.cancel(intent.id, "no need", by="ben")

    with pytest.raises(WaitClosed, match="canceled by ben"):
        stage.answer(intent, "approved", by="ana")

    assert stage.intent(intent.id).status is Status.CANCELED


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        ({"outcome": "maybe"}, BadInput, "approved, rejected"),
        ({"outcome": ""}, BadInput, "approved, rejected"),
        ({"outcome": ["approved"]}, BadInput, "approved, rejected"),
        ({"by": ""}, BadInput, "by is ''"),
        ({"by": "  "}, BadInput, "by is"),
        ({"by": None}, BadInput, "by is None"),
        ({"by": "x" * 256}, BadInput, "1 to 255"),
        ({"by": "ana\0"}, BadInput, "printable"),
        ({"comment": 7}, BadInput, "comment is 7"),
        ({"comment": "x" * 4001}, BadInput, "4000"),
        ({"comment": "a\0b"}, BadInput, "without NUL"),
        ({"comment": "half \ud800"}, BadInput, "comment is"),
        ({"data": {1, 2}}, NotJson, "data of the answer"),
        ({"data": float("nan")}, NotJson, "nan"),
        ({"data": {"x": "a\0"}}, NotJson, "NUL"),
        ({"data": "x" * 200_000}, TooLarge, "axme_payload_bytes"),
    ],
    ids=str,
)
def test_an_answer_that_does_not_fit_is_refused_and_leaves_the_wait_as_it_was(stage, ask, answer, error, words):
    """One clear error, nothing half-stored, and a good answer still closes it."""
    intent = ask()
    before = standing(stage, intent)

    with pytest.raises(error) as refused:
        stage.answer(intent, **({"outcome": "approved", "by": "ana"} | answer))

    assert words in str(refused.value) and len(str(refused.value)) < 500
    assert standing(stage, intent) == before
    assert stage.answer(intent, "approved", by="ana", comment="two\nlines").status is Status.COMPLETED


def test_an_answer_may_name_the_intent_if_it_waits_for_people_once(stage, ask):
    """A chat bot knows the intent's id; of an intent whose wait has closed it is told so."""
    intent = ask()

    stage.answer(intent.id, "approved", by="ana")

    assert stage.intent(intent.id).status is Status.COMPLETED
    with pytest.raises(WaitClosed):
        stage.answer(intent.id, "rejected", by="ben")


def test_what_nobody_waits_for_cannot_be_answered(stage, axme, run_job):
    """Unknown ids, waits for tools and for time, and intents that wait for no person."""

    @axme.task
    def sleeping():
        wait_for_time("1h")

    job, sleeper = run_job(), stage.submit(sleeping.s())

    with pytest.raises(NotFound, match="axme_ledger_url"):
        stage.answer("01a20000-0000-7000-8000-000000000000", "approved", by="ana")
    with pytest.raises(BadInput, match="for a tool, not for a person"):
        stage.answer(stage.waits(job)[0], "completed", by="ana")
    with pytest.raises(BadInput, match="for a time, not for a person"):
        stage.answer(stage.waits(sleeper)[0], "woke", by="ana")
    with pytest.raises(BadInput, match="waits for no person"):
        stage.answer(sleeper, "approved", by="ana")
    sleeper.cancel("enough")
    with pytest.raises(IntentEnded, match="asked no person"):
        stage.answer(sleeper, "approved", by="ana")

    assert [stage.intent(i.id).status for i in (job, sleeper)] == [Status.WAITING, Status.CANCELED]


# -- tools -------------------------------------------------------------------------------


def test_the_same_report_again_is_fine_and_another_is_refused(stage, run_job):
    """A tool may repeat itself after a lost reply; it may not change its mind."""
    intent = run_job()
    stage.complete_tool("warehouse", "job-1", {"rows": 7})
    before = standing(stage, intent)

    stage.complete_tool("warehouse", "job-1", {"rows": 7})
    for other in ({"result": {"rows": 8}}, {"error": "no"}, {}):
        with pytest.raises(WaitClosed, match=r"answered by warehouse.*nothing was changed"):
            stage.complete_tool("warehouse", "job-1", **other)

    assert standing(stage, intent) == before
    assert stage.intent(intent.id).result == {"rows": 7}
    assert stage.axme.runtime.ledger.early_answer("warehouse", "job-1") is None


def test_an_early_report_may_be_repeated_too_but_not_changed(stage, run_job):
    """Before anybody waits for it, the first one counts already."""
    stage.complete_tool("warehouse", "job-1", 7)

    stage.complete_tool("warehouse", "job-1", 7)
    with pytest.raises(WaitClosed):
        stage.complete_tool("warehouse", "job-1", 8)
    intent = run_job()

    assert intent.result == 7


def test_reports_reach_the_job_they_are_for(stage, run_job):
    """Tool and job together name it."""
    first, second = run_job("job-1"), run_job("job-2")

    stage.complete_tool("forge", "job-1", "not mine")
    stage.complete_tool("warehouse", "job-2", "mine")

    assert (first.refresh().status, second.refresh().result) == (Status.WAITING, "mine")


def test_a_report_after_the_timeout_is_refused_and_changes_nothing(stage, run_job):
    """The tool learns that nobody waits any more."""
    intent = run_job(timeout="1h")
    stage.pass_time("1h")
    before = standing(stage, intent)

    with pytest.raises(WaitClosed, match="expired"):
        stage.complete_tool("warehouse", "job-1", 7)

    assert standing(stage, intent) == before


@pytest.mark.parametrize("ended", ["expired", "canceled"])
@pytest.mark.parametrize("replayed", ["before the report", "after the report"])
def test_a_report_that_comes_too_late_is_there_for_a_replay(stage, run_job, axme, ended, replayed):
    """It is told that nobody waits, and that it is kept: the wait that the replay opens anew has it at once."""
    intent = run_job(timeout="1h")
    if ended == "canceled":
        axme.cancel(intent.id, "not now", by="ops")
    stage.pass_time("1h")
    if replayed == "before the report":
        again = axme.replay(intent.id, by="ops")

    for _ in range(2):
        with pytest.raises(WaitClosed, match=f"{ended}.*kept for a wait that opens later") as refused:
            axme.complete_tool("warehouse", "job-1", 7)
        assert refused.value.kept
    with pytest.raises(WaitClosed, match=f"{ended}.*nothing was changed"):
        axme.complete_tool("warehouse", "job-1", 8)
    if replayed == "after the report":
        again = axme.replay(intent.id, by="ops")
    stage.run()

    assert (again.refresh().status, again.result) == (Status.COMPLETED, 7)


def test_a_report_that_an_earlier_wait_was_given_is_not_kept_for_a_later_one(stage, run_job, axme):
    """It came early, and was used up by the wait it came before."""
    axme.complete_tool("warehouse", "job-1", 7)
    assert run_job().result == 7
    stage.pass_time("1m")
    run_job(timeout="1h")
    stage.pass_time("1h")

    with pytest.raises(WaitClosed, match=r"expired.*nothing was changed") as refused:
        axme.complete_tool("warehouse", "job-1", 7)

    assert not refused.value.kept


def test_a_late_report_goes_with_its_intent(stage, run_job, axme):
    """Who prunes an intent keeps nothing of what was reported of its jobs."""
    intent = run_job(timeout="1h")
    stage.pass_time("1h")
    with pytest.raises(WaitClosed):
        axme.complete_tool("warehouse", "job-1", 7)
    kept = axme.runtime.ledger.early_answer("warehouse", "job-1")

    axme.runtime.ledger.prune([intent.id])

    assert kept is not None
    assert axme.runtime.ledger.early_answer("warehouse", "job-1") is None


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"tool": ""}, BadInput, "tool is ''"),
        ({"tool": "x" * 241}, BadInput, "1 to 240"),
        ({"job_id": 7}, BadInput, "job_id is 7"),
        ({"job_id": "a\0"}, BadInput, "printable"),
        ({"job_id": "x" * 256}, BadInput, "1 to 255"),
        ({"result": 1, "error": 2}, BadInput, "not both"),
        ({"result": {1}}, NotJson, "warehouse job job-1"),
        ({"error": float("inf")}, NotJson, "inf"),
        ({"result": "x" * 2_000_000}, TooLarge, "axme_result_bytes"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_report_that_does_not_fit_is_refused_and_nothing_is_kept(stage, run_job, arguments, error, words):
    """Neither for the open wait nor for one that may come."""
    intent = run_job()
    before = standing(stage, intent)

    with pytest.raises(error) as refused:
        stage.complete_tool(**({"tool": "warehouse", "job_id": "job-1"} | arguments))

    assert words in str(refused.value) and len(str(refused.value)) < 1000
    assert standing(stage, intent) == before
    stage.complete_tool("warehouse", "job-1", "good")
    assert intent.refresh().result == "good"


def test_an_early_report_waits_for_its_wait_even_if_the_process_that_opened_it_died(stage, run_job, axme):
    """Killed between opening the wait and looking for a report: the sweep brings them together."""
    stage.complete_tool("warehouse", "job-1", 7)

    stage.kill("wait_for_tool:warehouse", recorded=True)
    intent = run_job()

    assert intent.result == 7
    assert intent.legs()[0].run == 2


def test_looking_for_an_early_report_twice_gives_it_once(stage, run_job):
    """Both the opener and the sweep look."""
    stage.complete_tool("warehouse", "job-1", 7)
    intent = run_job()
    before = standing(stage, intent)

    match_early(stage.axme.runtime, "warehouse", "job-1")
    match_early(stage.axme.runtime, "warehouse", "no such job")

    assert standing(stage, intent) == before


@pytest.mark.parametrize("progress", [-0.1, 1.1, float("nan"), "half"])
def test_a_heartbeat_with_an_impossible_progress_is_refused_as_a_whole(stage, run_job, progress):
    """It is no sign of life either: nothing of it is kept."""
    intent = run_job(heartbeat="1m")
    before = standing(stage, intent)
    stage.pass_time("30s")

    with pytest.raises(BadInput, match="from 0 to 1"):
        stage.axme.heartbeat_tool("warehouse", "job-1", progress=progress)

    assert standing(stage, intent) == before


def test_a_heartbeat_for_nobody_is_harmless_and_one_for_a_closed_wait_is_refused(stage, run_job):
    """Before the wait opens it is not needed; afterwards the tool should stop."""
    stage.axme.heartbeat_tool("warehouse", "job-1", progress=0.1)
    intent = run_job(heartbeat="1m")
    stage.axme.heartbeat_tool("warehouse", "job-1")
    stage.complete_tool("warehouse", "job-1", 7)

    with pytest.raises(WaitClosed):
        stage.axme.heartbeat_tool("warehouse", "job-1")

    assert intent.refresh().result == 7


def test_a_heartbeat_leaves_no_event(stage, run_job):
    """It may come every second for a week."""
    intent = run_job(heartbeat="1m")
    before = intent.refresh().seq

    for _ in range(3):
        stage.axme.heartbeat_tool("warehouse", "job-1")

    assert intent.refresh().seq == before


# -- repeats -----------------------------------------------------------------------------


def test_what_is_delivered_twice_answers_once(stage, ask, run_job):
    """A child's end and a poll's finding may both be repeated."""
    intent = run_job()
    wait = stage.waits(intent)[0]
    rt = stage.axme.runtime
    poll_answered(rt, wait.id, result=7)
    stage.run()
    before = standing(stage, intent)

    poll_answered(rt, wait.id, result=7)
    poll_answered(rt, wait.id, error="changed its mind")
    child_ended(rt, wait.id, rt.ledger.intent(intent.id))
    child_ended(rt, "no such wait", rt.ledger.intent(intent.id))

    assert standing(stage, intent) == before
    assert stage.waits(intent)[0].status is WaitStatus.ANSWERED


def test_an_answer_and_a_cancel_exclude_each_other(stage, ask):
    """Whichever is second is refused, and says by what."""
    answered, canceled = ask(), ask()
    stage.answer(answered, "approved", by="ana")
    stage.axme.cancel(canceled.id, "no need", by="ana")

    with pytest.raises(IntentEnded, match="COMPLETED"):
        stage.axme.cancel(answered.id, "too late", by="ben")
    with pytest.raises(WaitClosed, match="canceled"):
        stage.answer(canceled, "approved", by="ben")

    assert (answered.refresh().status, canceled.refresh().status) == (Status.COMPLETED, Status.CANCELED)
