"""Waits from inside: what they ask for, what they give back, and what they refuse."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from axme_celery import (
    AgentFailed,
    BadInput,
    OutsideIntent,
    ToolFailed,
    WaitTimedOut,
    current_intent,
    step,
    wait_for_agent,
    wait_for_human,
    wait_for_time,
    wait_for_tool,
)
from axme_celery.model import FINAL, LegStatus, Status, WaitStatus
from axme_celery.testing import Stage

FORM = {"type": "object", "properties": {"amount": {"type": "integer"}}, "required": ["amount"]}


@pytest.fixture
def waiter(axme):
    """``waiter(call)``: the signature of a task that makes this one call and returns what comes of it."""
    calls = []

    @axme.task
    def work(n):
        try:
            return {"value": calls[n]()}
        except Exception as error:
            return {"error": type(error).__name__, "words": str(error)}

    def make(call):
        calls.append(call)
        return work.s(len(calls) - 1)

    return make


# -- people ------------------------------------------------------------------------------


def test_a_wait_for_a_person_rests_until_they_answer_and_gives_back_their_decision(stage, axme):
    """Nothing is held meanwhile; the body goes on with who, what, why and when."""
    decisions = []

    @axme.task
    def work():
        decisions.append(wait_for_human("Publish?", to=["ana", "group:analysts"], form=FORM))
        return decisions[-1].approved

    intent = stage.submit(work.s())
    resting = (intent.status, intent.waiting_reason, intent.legs()[0].status)
    stage.pass_time("3d")
    intent = stage.answer(intent, "approved", by="ana", comment="looks right", data={"amount": 7})

    assert resting == (Status.WAITING, "WAITING_FOR_HUMAN", LegStatus.WAITING)
    (decision,) = decisions
    assert (decision.outcome, decision.by, decision.comment, decision.data) == (
        "approved", "ana", "looks right", {"amount": 7},
    )  # fmt: skip
    assert decision.decided_at == stage.now
    assert intent.result is True


def test_a_wait_is_in_the_inbox_of_everybody_it_is_for_until_it_closes(stage, waiter):
    """Of all of them, and of nobody else."""
    intent = stage.submit(waiter(lambda: wait_for_human("Publish?", to=["ana", "analysts"])))
    before = [[w.title for w in stage.inbox(who)] for who in ("ana", "analysts", "ben")]

    stage.answer(intent, "rejected", by="ana")

    assert before == [["Publish?"], ["Publish?"], []]
    assert [stage.inbox(who) for who in ("ana", "analysts", "ben")] == [[], [], []]


@pytest.mark.parametrize(
    ("type", "outcomes"),
    [
        ("approval", ("approved", "rejected")),
        ("confirmation", ("confirmed", "denied")),
        ("review", ("approved", "changes_requested", "rejected")),
        ("assignment", ("assigned", "declined")),
        ("form", ("submitted",)),
        ("clarification", ("provided", "declined")),
        ("manual_action", ("completed", "failed")),
        ("override", ("override_approved", "rejected")),
    ],
)
def test_each_of_the_eight_task_types_takes_its_usual_outcomes_and_no_other(stage, waiter, type, outcomes):
    """AXP's types and outcomes; others can be given."""
    taken = []

    for outcome in outcomes:
        intent = stage.submit(waiter(lambda: wait_for_human("?", to="ana", type=type).outcome))
        with pytest.raises(BadInput, match=", ".join(outcomes)):
            stage.answer(intent, "whatever", by="ana", comment="c")
        taken.append(stage.answer(intent, outcome, by="ana", comment="c").result["value"])

    assert taken == list(outcomes)


def test_own_outcomes_replace_the_usual_ones(stage, waiter):
    """The first of them is the one that says yes, and the one a quorum is asked of."""
    ask = waiter(lambda: wait_for_human("Colour?", to="ana", outcomes=["blue", "red"], quorum=2).outcome)
    intent = stage.submit(ask)

    stage.answer(intent, "blue", by="ana")
    after_one = stage.intent(intent.id).status
    intent = stage.answer(intent, "blue", by="ben")

    assert after_one is Status.WAITING
    assert intent.result == {"value": "blue"}


@pytest.mark.parametrize("type", ["clarification", "override"])
def test_a_clarification_and_an_override_need_words(stage, waiter, type):
    """Without them nobody knows afterwards why."""
    intent = stage.submit(waiter(lambda: wait_for_human("?", to="ana", type=type).comment))
    outcome = stage.waits(intent)[0].request["outcomes"][0]

    with pytest.raises(BadInput, match="asks for a comment"):
        stage.answer(intent, outcome, by="ana", comment="  ")
    intent = stage.answer(intent, outcome, by="ana", comment="because")

    assert intent.result == {"value": "because"}


def test_a_form_must_fit_when_the_answer_says_yes_and_need_not_when_it_says_no(stage, waiter):
    """Nothing is stored of what does not fit, and the wait stays open."""
    ask = waiter(lambda: wait_for_human("How much?", to="ana", form=FORM).data)
    first, second = stage.submit(ask), stage.submit(ask)

    for wrong in (None, {}, {"amount": "seven"}, [7]):
        with pytest.raises(BadInput, match="form data"):
            stage.answer(first, "approved", by="ana", data=wrong)
    untouched = stage.waits(first)[0]
    first = stage.answer(first, "approved", by="ana", data={"amount": 7})
    second = stage.answer(second, "rejected", by="ana")

    assert (untouched.status, untouched.votes, untouched.data) == (WaitStatus.OPEN, (), None)
    assert (first.result, second.result) == ({"value": {"amount": 7}}, {"value": None})


def test_a_wait_that_times_out_raises_unless_an_outcome_was_named(stage, waiter):
    """There is no silent default, neither of the timeout nor of what it decides."""
    failing = stage.submit(waiter(lambda: wait_for_human("Publish?", to="ana", timeout="2d")))
    named = stage.submit(
        waiter(lambda: vars_of(wait_for_human("Publish?", to="ana", timeout="2d", on_timeout="rejected")))
    )
    open_ended = stage.submit(waiter(lambda: wait_for_human("Publish?", to="ana")))

    stage.pass_time("365d")

    assert failing.refresh().result["error"] == "WaitTimedOut"
    assert "'Publish?'" in failing.result["words"]
    assert named.refresh().result["value"][:2] == ["rejected", "clock"]
    assert open_ended.refresh().status is Status.WAITING


def vars_of(decision):
    return [decision.outcome, decision.by, decision.comment]


def test_a_timeout_nobody_handles_fails_the_intent_as_such(stage, axme):
    """Its code tells operators from a bug."""

    @axme.task
    def work():
        wait_for_human("Publish?", to="ana", timeout="1h")

    intent = stage.submit(work.s())
    stage.pass_time("1h")

    assert (intent.refresh().status, intent.error["code"]) == (Status.FAILED, "wait_timeout")


def test_reminders_and_the_escalation_reach_people_at_their_moments(stage, waiter):
    """The notices that would have gone out, and the inboxes, say the same."""
    began = stage.now
    intent = stage.submit(
        waiter(
            lambda: (
                wait_for_human(
                    "Publish?", to="ana", remind_every="4h", max_reminders=2, escalate_to="boss", timeout="2d"
                ).outcome
            )
        )
    )

    stage.pass_time("1d")

    assert [(n.kind, n.to, (n.at - began) / timedelta(hours=1)) for n in stage.notices] == [
        ("wait_opened", ("ana",), 0),
        ("reminder", ("ana",), 4),
        ("reminder", ("ana",), 8),
        ("escalation", ("boss",), 12),
    ]
    assert [len(stage.inbox(who)) for who in ("ana", "boss")] == [1, 1]
    assert stage.answer(intent, "approved", by="boss").status is Status.COMPLETED


def test_reminders_stop_when_the_wait_closes(stage, waiter):
    """Nobody is reminded of what is done."""
    intent = stage.submit(waiter(lambda: wait_for_human("?", to="ana", remind_every="1h", max_reminders=9).outcome))
    stage.pass_time("90m")

    stage.answer(intent, "approved", by="ana")
    stage.pass_time("9h")

    assert [n.kind for n in stage.notices] == ["wait_opened", "reminder"]


def test_an_escalation_after_a_while_needs_no_reminders(stage, waiter):
    """``escalate_after`` alone."""
    stage.submit(waiter(lambda: wait_for_human("?", to="ana", escalate_to="boss", escalate_after="6h")))

    stage.pass_time("1d")

    assert [(n.kind, n.to) for n in stage.notices] == [("wait_opened", ("ana",)), ("escalation", ("boss",))]


def test_what_a_person_is_shown_is_stored_with_the_wait(stage, waiter):
    """As JSON gives it back, so that every page shows the same."""
    context = {"rows": 120, "at": datetime(2026, 10, 5, tzinfo=UTC), "pair": (1, 2)}

    intent = stage.submit(waiter(lambda: wait_for_human("Publish?", to="ana", context=context)))

    (wait,) = stage.waits(intent)
    assert wait.request["context"] == {**context, "pair": [1, 2]}


# -- tools -------------------------------------------------------------------------------


def test_a_tools_report_is_the_value_of_its_wait(stage, waiter):
    """What the tool reported comes back, a failure as an exception with what it said."""
    good = stage.submit(waiter(lambda: wait_for_tool("warehouse", "job-1")))
    bad = stage.submit(waiter(lambda: wait_for_tool("warehouse", "job-2")))

    stage.complete_tool("warehouse", "job-1", {"rows": 120})
    stage.complete_tool("warehouse", "job-2", error={"code": 5})

    assert good.refresh().result == {"value": {"rows": 120}}
    assert bad.refresh().result["error"] == "ToolFailed" and "{'code': 5}" in bad.result["words"]


def test_a_report_that_comes_before_its_wait_opens_is_kept_for_it(stage, axme):
    """A fast job loses nothing, and the wait does not even rest long."""

    @axme.task
    def work():
        stage.axme.complete_tool("warehouse", "job-1", "done already")
        return wait_for_tool("warehouse", "job-1")

    intent = stage.submit(work.s())

    assert intent.result == "done already"
    assert stage.waits(intent)[0].status is WaitStatus.ANSWERED


def test_a_report_that_comes_days_before_its_wait_is_kept_as_well(stage, waiter):
    """Whoever is second sees the first."""
    stage.complete_tool("warehouse", "job-1", error="no rows")
    stage.pass_time("3d")

    intent = stage.submit(waiter(lambda: wait_for_tool("warehouse", "job-1")))

    assert intent.result["error"] == "ToolFailed"


def test_a_tool_that_falls_silent_is_given_up_and_one_that_gives_signs_is_not(stage, waiter):
    """``heartbeat`` is how long it may be silent."""
    silent = stage.submit(waiter(lambda: wait_for_tool("warehouse", "job-1", heartbeat="1m")))
    alive = stage.submit(waiter(lambda: wait_for_tool("warehouse", "job-2", heartbeat="1m")))

    for _ in range(5):
        stage.pass_time("50s")
        stage.axme.heartbeat_tool("warehouse", "job-2", progress=0.5)

    assert silent.refresh().result["error"] == "WaitTimedOut"
    assert stage.waits(silent)[0].outcome == "heartbeat_missed"
    assert alive.refresh().status is Status.WAITING
    assert alive.progress()[alive.legs()[0].id].done == 0.5


def test_a_timeout_ends_a_wait_for_a_tool_whatever_its_heartbeat(stage, waiter):
    """Alive is not done."""
    intent = stage.submit(waiter(lambda: wait_for_tool("warehouse", "job-1", timeout="5m", heartbeat="1m")))

    for _ in range(6):
        stage.pass_time("50s")
        if intent.refresh().status is Status.WAITING:
            stage.axme.heartbeat_tool("warehouse", "job-1")

    assert intent.refresh().result["error"] == "WaitTimedOut"
    assert stage.waits(intent)[0].outcome == "timeout"


def test_a_tool_that_cannot_call_back_is_asked(stage, app, waiter):
    """As often as was said, until it has an answer; then no more."""
    asked = []

    @app.task(shared=False)
    def is_ready(job):
        asked.append((job, stage.now))
        return {"rows": 7} if len(asked) == 3 else None

    began = stage.now
    ask = waiter(lambda: wait_for_tool("warehouse", "job-1", poll=is_ready.s("job-1"), every="30s"))
    intent = stage.submit(ask)
    stage.pass_time("10m")

    assert [(job, (at - began).total_seconds()) for job, at in asked] == [("job-1", 30), ("job-1", 60), ("job-1", 90)]
    assert intent.refresh().result == {"value": {"rows": 7}}


def test_a_poll_that_finds_the_job_failed_fails_the_wait(stage, app, waiter):
    """It raises ToolFailed; any other exception is trouble with asking, and it is asked again."""
    asked = []

    @app.task(shared=False)
    def is_ready():
        asked.append(1)
        if len(asked) == 1:
            raise ConnectionError("try again")
        raise ToolFailed("warehouse", "job-1", "no rows")

    intent = stage.submit(waiter(lambda: wait_for_tool("warehouse", "job-1", poll=is_ready.s(), every="30s")))
    stage.pass_time("10m")

    assert len(asked) == 2
    assert intent.refresh().result["error"] == "ToolFailed" and "no rows" in intent.result["words"]


# -- time --------------------------------------------------------------------------------


def test_a_sleeper_is_woken_at_its_moment_and_never_before(stage, axme):
    """By the ledger's clock, to the second."""
    woken = []

    @axme.task
    def work():
        wait_for_time("2d")
        woken.append(stage.now)

    began = stage.now
    stage.submit(work.s())
    stage.pass_time(2 * 86400 - 1)
    before = list(woken)
    stage.pass_time("5h")

    assert before == []
    assert woken == [began + timedelta(days=2)]


def test_a_moment_in_the_past_wakes_at_once(stage, waiter):
    """It has come already."""
    past = stage.now - timedelta(days=9)

    intent = stage.submit(waiter(lambda: wait_for_time(until=past)))

    assert intent.status is Status.COMPLETED
    assert stage.waits(intent)[0].status is WaitStatus.ANSWERED


def test_until_takes_a_moment_in_any_zone(stage, axme):
    """As a datetime or as text with its offset."""
    wakes = (stage.now + timedelta(hours=3)).replace(microsecond=0)
    woken = []

    @axme.task
    def work(until):
        wait_for_time(until=until)
        woken.append(stage.now)

    stage.submit(work.s(wakes.astimezone(datetime.fromisoformat("2026-01-01T00:00:00+09:00").tzinfo).isoformat()))
    stage.pass_time("1d")

    assert woken == [wakes]


def test_a_worker_behind_the_ledgers_time_does_not_wait_for_the_same_nine_twice(stage, axme):
    """What it believes the ledger's time to be is a round trip old; the moment it was woken for has come all the same."""
    now, ledger = [timedelta(0)], stage._ledger
    true = ledger._clock

    class Behind:
        def now(self, *, fresh=False):
            return true.now(fresh=fresh) - now[0]

    @axme.task
    def daily():
        now[0] = timedelta(milliseconds=10)
        try:
            for _ in range(3):
                wait_for_time(cron="0 9 * * *")
        finally:
            now[0] = timedelta(0)

    ledger._clock = Behind()
    intent = stage.submit(daily.s())
    stage.pass_time("80h")

    first, second, third = (wait.timeout_at for wait in stage.waits(intent))
    assert (second - first, third - second) == (timedelta(days=1), timedelta(days=1))


def test_a_cron_expression_is_meant_in_its_zone(stage, waiter):
    """Nine in the morning in Berlin is not nine in UTC, in summer still less."""
    berlin = ZoneInfo("Europe/Berlin")

    in_berlin = stage.submit(waiter(lambda: wait_for_time(cron="0 9 * * *", tz="Europe/Berlin")))
    in_utc = stage.submit(waiter(lambda: wait_for_time(cron="0 9 * * *")))

    local = stage.waits(in_berlin)[0].timeout_at.astimezone(berlin)
    assert (local.hour, local.minute) == (9, 0)
    assert stage.now < stage.waits(in_berlin)[0].timeout_at <= stage.now + timedelta(hours=25)
    assert stage.waits(in_utc)[0].timeout_at.hour == 9
    stage.pass_time("1d1h")
    assert {in_berlin.refresh().status, in_utc.refresh().status} == {Status.COMPLETED}


def test_a_zero_delay_is_no_wait_to_speak_of(stage, waiter):
    """It rests and runs on at the same moment."""
    intent = stage.submit(waiter(lambda: wait_for_time(0)))

    assert intent.status is Status.COMPLETED


# -- agents ------------------------------------------------------------------------------


@pytest.fixture
def child(axme):
    """A child's work: waits for a person, then returns, or raises when told so."""

    @axme.task
    def child(fails=False):
        decision = wait_for_human("Which one?", to="expert")
        if fails:
            raise ValueError("could not decide")
        return decision.outcome

    return child


def test_an_agents_work_is_an_intent_of_its_own_whose_result_comes_back(stage, waiter, child):
    """With its own legs, waits and history, and the parent's id as who asked."""
    parent = stage.submit(waiter(lambda: wait_for_agent(child.s(), payload={"topic": "colours"})))
    (wait,) = stage.waits(parent)
    made = stage.intent(wait.job_id)

    stage.answer(made, "approved", by="expert")

    assert (parent.waiting_reason, made.requester, made.payload) == (
        "WAITING_FOR_AGENT", f"intent:{parent.id}", {"topic": "colours"},
    )  # fmt: skip
    assert made.refresh().result == "approved"
    assert parent.refresh().result == {"value": "approved"}


def test_an_agent_that_fails_is_an_exception_in_its_parent(stage, waiter, child):
    """It names the child and its error."""
    parent = stage.submit(waiter(lambda: wait_for_agent(child.s(fails=True))))
    made = stage.intent(stage.waits(parent)[0].job_id)

    stage.answer(made, "approved", by="expert")

    assert made.refresh().status is Status.FAILED
    assert parent.refresh().result["error"] == "AgentFailed"
    assert made.id in parent.result["words"] and "could not decide" in parent.result["words"]


def test_an_agent_that_takes_too_long_is_canceled(stage, waiter, child):
    """Nobody waits for it any more, so nobody is asked any more."""
    parent = stage.submit(waiter(lambda: wait_for_agent(child.s(), timeout="1h")))
    made = stage.intent(stage.waits(parent)[0].job_id)

    stage.pass_time("1h")

    assert parent.refresh().result["error"] == "WaitTimedOut"
    assert made.refresh().status is Status.CANCELED
    assert stage.inbox("expert") == []


def test_canceling_a_parent_cancels_its_child(stage, waiter, child):
    """And the child's child."""
    grandparent = stage.submit(waiter(lambda: wait_for_agent(waiter(lambda: wait_for_agent(child.s())))))
    parent = stage.intent(stage.waits(grandparent)[0].job_id)
    made = stage.intent(stage.waits(parent)[0].job_id)

    stage.axme.cancel(grandparent.id, "no need", by="ana")
    stage.run()

    assert {parent.refresh().status, made.refresh().status} == {Status.CANCELED}


def test_a_child_that_was_canceled_is_an_exception_in_its_parent(stage, waiter, child):
    """Whoever cancels a child tells its parent so."""
    parent = stage.submit(waiter(lambda: wait_for_agent(child.s())))

    stage.axme.cancel(stage.waits(parent)[0].job_id, "not today", by="ana")
    stage.run()

    assert parent.refresh().result["error"] == "AgentFailed" and "not today" in parent.result["words"]


# -- in a body ------------------------------------------------------------------------------


def test_a_tasks_except_exception_cannot_swallow_a_wait(stage, axme):
    """What carries the leg out is no ``Exception``."""
    swallowed = []

    @axme.task
    def work():
        try:
            wait_for_time("1h")
        except Exception as error:
            swallowed.append(error)
        return "woke"

    intent = stage.submit(work.s())
    resting = intent.status
    stage.pass_time("1h")

    assert (resting, swallowed, intent.refresh().result) == (Status.WAITING, [], "woke")


def test_a_bare_except_that_swallows_a_wait_records_nothing_and_does_no_harm(stage, axme):
    """The leg rests all the same; what the body does after that is for nothing."""
    done = []

    @step
    def effect():
        done.append(1)

    @axme.task
    def work():
        try:
            wait_for_time("1h")
        except:  # noqa: E722
            effect()
        return "returned"

    intent = stage.submit(work.s())
    resting = (intent.status, intent.result, list(done))
    stage.pass_time("1h")

    assert resting == (Status.WAITING, None, [])
    assert (intent.refresh().result, done) == ("returned", [])


def test_waits_of_one_kind_are_told_apart_by_their_order(stage, axme):
    """The n-th call gets the n-th answer."""

    @axme.task
    def work():
        return [wait_for_human(f"Question {n}?", to="ana").outcome for n in range(3)]

    intent = stage.submit(work.s())
    for outcome in ("approved", "rejected", "approved"):
        intent = stage.answer(intent, outcome, by="ana")

    assert intent.result == ["approved", "rejected", "approved"]
    assert [(w.name, w.nth) for w in stage.waits(intent)] == [("wait_for_human", n) for n in (1, 2, 3)]


def test_a_leg_killed_while_it_comes_to_rest_rests_in_the_end(stage, axme):
    """Before the wait was written, and just after."""

    @axme.task
    def work():
        wait_for_time("1h")
        return wait_for_human("Publish?", to="ana").outcome

    stage.kill("wait_for_time")
    stage.kill("wait_for_human", recorded=True)
    intent = stage.submit(work.s())
    stage.pass_time("2h")
    intent = stage.answer(intent, "approved", by="ana")

    assert intent.result == "approved"
    assert len(stage.waits(intent)) == 2
    assert [n.kind for n in stage.notices] == ["wait_opened"]


@pytest.mark.parametrize(
    "wait",
    [
        lambda: wait_for_human("?", to="ana"),
        lambda: wait_for_tool("warehouse", "job-1"),
        lambda: wait_for_time(1),
        lambda: wait_for_agent(None),
        current_intent,
    ],
    ids=["human", "tool", "time", "agent", "current_intent"],
)
def test_outside_an_intent_there_is_no_waiting(wait):
    """The message says how to be inside one."""
    with pytest.raises(OutsideIntent, match="only inside a leg"):
        wait()


@pytest.mark.parametrize(
    "wait",
    [
        lambda child: wait_for_human("?", to="ana"),
        lambda child: wait_for_tool("warehouse", "job-1"),
        lambda child: wait_for_time(1),
        lambda child: wait_for_agent(child.s()),
    ],
    ids=["human", "tool", "time", "agent"],
)
def test_a_step_cannot_wait(stage, waiter, child, wait):
    """A step is done or not done; the wait goes between two."""

    @step
    def stuck():
        wait(child)

    intent = stage.submit(waiter(stuck))

    assert intent.result["error"] == "OutsideIntent" and "inside a step" in intent.result["words"]
    assert (stage.waits(intent), len(list(stage.axme.intents()))) == ([], 1)


# -- refusals --------------------------------------------------------------------------------


def human(**arguments):
    return lambda: wait_for_human(**({"title": "Publish?", "to": "ana"} | arguments))


def tool(*named, **arguments):
    return lambda: wait_for_tool(*(named or ("warehouse", "job-1")), **arguments)


BAD = {
    "no title": (human(title=""), "title"),
    "blank title": (human(title="  "), "title"),
    "title of two lines": (human(title="a\nb"), "title"),
    "title with NUL": (human(title="a\0b"), "title"),
    "title too long": (human(title="x" * 256), "255"),
    "title is no text": (human(title=7), "title"),
    "nobody": (human(to=[]), "1 to 20 names"),
    "no name": (human(to=""), "'ana'"),
    "a name with a blank": (human(to="ana b"), "no assignee"),
    "a name with a newline": (human(to="ana\n"), "no assignee"),
    "a name with a tag": (human(to="<script>"), "no assignee"),
    "a name that is a number": (human(to=[7]), "no assignee"),
    "a crowd": (human(to=[f"p{n}" for n in range(21)]), "1 to 20 names"),
    "to is a dict": (human(to={"ana": 1}), "1 to 20 names"),
    "to is None": (human(to=None), "1 to 20 names"),
    "unknown type": (human(type="vote"), "approval, confirmation"),
    "type is no text": (human(type=["approval"]), "approval, confirmation"),
    "no outcomes": (human(outcomes=[]), "1 to 20"),
    "the same outcome twice": (human(outcomes=["a", "a"]), "1 to 20 different"),
    "an outcome in capitals": (human(outcomes=["Approved"]), "lower-case"),
    "an outcome named fail": (human(outcomes=["fail"]), "lower-case"),
    "an outcome that is a number": (human(outcomes=[1]), "lower-case"),
    "an outcome that is a list": (human(outcomes=[["a"]]), "lower-case"),
    "outcomes is a number": (human(outcomes=5), "outcomes is 5"),
    "on_timeout is no outcome": (human(timeout=1, on_timeout="maybe"), "approved, rejected"),
    "on_timeout without a timeout": (human(on_timeout="rejected"), "timeout"),
    "negative timeout": (human(timeout=-1), "timeout is negative"),
    "no timeout": (human(timeout=0), "longer than nothing"),
    "timeout without a unit": (human(timeout="5"), "timeout"),
    "timeout of a century and a day": (human(timeout="36526d"), "100 years"),
    "timeout is NaN": (human(timeout=float("nan")), "NaN"),
    "negative reminders": (human(remind_every=-1), "remind_every is negative"),
    "reminders all the time": (human(remind_every=0), "longer than nothing"),
    "max_reminders below nothing": (human(remind_every=1, max_reminders=-1), "0 to 100"),
    "max_reminders is a flag": (human(remind_every=1, max_reminders=True), "0 to 100"),
    "escalation at no moment": (human(escalate_to="boss"), "escalate_after"),
    "escalation without reminders": (human(escalate_to="boss", remind_every=1, max_reminders=0), "escalate_after"),
    "escalation to nobody": (human(escalate_after="1h"), "escalate_to"),
    "escalation to no assignee": (human(escalate_to="bo ss", escalate_after=1), "no assignee"),
    "negative escalation": (human(escalate_to="boss", escalate_after=-1), "escalate_after is negative"),
    "a ladder that goes down": (human(escalate_to=[("boss", "1d"), ("cto", "4h")]), "must climb"),
    "a ladder of eleven rungs": (human(escalate_to=[("boss", n + 1) for n in range(11)]), "ten are the most"),
    "a rung without a delay": (human(escalate_to=[("boss", "4h"), "cto"]), "write rungs like"),
    "a rung with more to say": (human(escalate_to={"to": "cto", "when": "1d"}), "write rungs like"),
    "a ladder with one delay for all": (
        human(escalate_to=[("boss", "4h")], escalate_after="1h"),
        "leave escalate_after",
    ),
    "a fallback to nobody": (human(timeout=1, fallback=[]), "fallback"),
    "an answer wanted at once": (human(due=0), "longer than nothing"),
    "business hours of nowhere": (human(business_hours={"tz": "Mars/Olympus"}), "no time zone"),
    "business hours that are not set": (human(business_hours=True), "axme_business_hours is not set"),
    "an unknown policy": (human(reject_policy="most"), "'any'"),
    "a comment for no outcome": (human(require_comment=["maybe"]), "approved, rejected"),
    "delegates who are none": (human(delegates="a b"), "delegates"),
    "many forms at once": (human(bulk=True, form={"type": "object"}), "without a form"),
    "a quorum of nobody": (human(quorum=0), "1 to 20"),
    "a quorum of half a person": (human(quorum=1.5), "1 to 20"),
    "a quorum that is a flag": (human(quorum=True), "1 to 20"),
    "not_by is no assignee": (human(not_by="a b"), "not_by"),
    "context is no mapping": (human(context="see attachment"), "context"),
    "context is no JSON": (human(context={"x": {1}}), "a set"),
    "context with NaN": (human(context={"x": float("nan")}), "nan"),
    "context with NUL": (human(context={"x": "a\0"}), "NUL"),
    "context too deep": (human(context={"x": eval("[" * 70 + "]" * 70)}), "64 levels"),
    "context too large": (human(context={"x": "y" * 200_000}), "axme_payload_bytes"),
    "form is no schema": (human(form={"type": "objekt"}), "form"),
    "form of no object": (human(form={"type": "string"}), "object"),
    "form from elsewhere": (human(form={"type": "object", "$ref": "http://x/y"}), "form"),
    "tool is no text": (tool(7, "job"), "tool is 7"),
    "tool has no name": (tool("", "job"), "tool is"),
    "tool's name is too long": (tool("x" * 241, "job"), "240"),
    "tool with NUL": (tool("a\0", "job"), "printable"),
    "job has no id": (tool("warehouse", " "), "job_id is"),
    "job is a number": (tool("warehouse", 7), "job_id is 7"),
    "job's id is too long": (tool("warehouse", "x" * 256), "255"),
    "negative heartbeat": (tool(heartbeat=-1), "heartbeat is negative"),
    "no heartbeat": (tool(heartbeat=0), "longer than nothing"),
    "every without poll": (tool(every=1), "belong together"),
    "poll that is no signature": (tool(poll=7, every=1), "no Celery signature"),
    "poll all the time": (lambda: wait_for_tool("w", "j", poll=SIGNATURE, every=0), "longer than nothing"),
    "negative delay": (lambda: wait_for_time(-1), "delay is negative"),
    "no time at all": (lambda: wait_for_time(), "exactly one"),
    "two times": (lambda: wait_for_time(1, until="2030-01-01T00:00:00Z"), "exactly one"),
    "a time without a zone": (lambda: wait_for_time(until=datetime(2030, 1, 1)), "without a zone"),
    "no time": (lambda: wait_for_time(until="tomorrow"), "ISO 8601"),
    "a zone without a cron": (lambda: wait_for_time(1, tz="Europe/Berlin"), "tz belongs to cron"),
    "no cron": (lambda: wait_for_time(cron="every day"), "five"),
    "the 30th of February": (lambda: wait_for_time(cron="0 0 30 2 *"), "0 0 30 2 *"),
    "an unknown zone": (lambda: wait_for_time(cron="0 9 * * *", tz="Europe/Berlim"), "Europe/Berlin"),
    "an agent that is no signature": (lambda: wait_for_agent("agent"), "no Celery signature"),
    "an agent's payload that is no JSON": (lambda: wait_for_agent(SIGNATURE, payload={1}), "a set"),
    "an agent with no time": (lambda: wait_for_agent(SIGNATURE, timeout=0), "longer than nothing"),
}

SIGNATURE = {"task": "somewhere.else", "args": [], "kwargs": {}, "options": {"queue": "there"}, "subtask_type": None}


@pytest.mark.parametrize(("call", "words"), BAD.values(), ids=BAD.keys())
def test_a_wait_that_cannot_work_is_refused_and_leaves_nothing_behind(stage, axme, call, words):
    """One clear error that names the argument and the way out; no wait, no notice, no child, and the body goes on."""
    errors = []

    @axme.task
    def work():
        try:
            call()
        except BadInput as error:
            errors.append(str(error))
        return "went on"

    intent = stage.submit(work.s())

    assert intent.result == "went on"
    (error,) = errors
    assert words in error and len(error) < 1000
    assert (stage.waits(intent), intent.steps(), stage.notices) == ([], [], [])
    assert len(list(stage.axme.intents())) == 1
    assert "intent.waiting" not in [e.type for e in stage.history(intent)]


def test_a_refused_wait_is_not_counted_as_a_call(stage, axme):
    """The one that follows is the first of its name, in this run and in the next."""

    @axme.task
    def work():
        try:
            wait_for_human("", to="ana")
        except BadInput:
            pass
        return wait_for_human("Publish?", to="ana").outcome

    intent = stage.submit(work.s())
    intent = stage.answer(intent, "approved", by="ana")

    assert intent.result == "approved"
    assert [(w.name, w.nth) for w in stage.waits(intent)] == [("wait_for_human", 1)]


def test_waits_stay_within_the_stages_own_limits(app, axme):
    """A team may lower what a person is shown; the message names the setting."""

    @axme.task
    def work():
        wait_for_human("Publish?", to="ana", context={"rows": "x" * 2000})

    with Stage(app, payload_bytes=1024) as stage:
        intent = stage.submit(work.s())

    assert intent.status in FINAL
    assert intent.error["code"] == "TooLarge" and "axme_payload_bytes" in intent.error["message"]


def test_every_exception_of_a_wait_can_be_caught_by_name(stage, waiter):
    """Each of them has what a handler needs."""
    caught = []

    def handle(call):
        try:
            call()
        except (WaitTimedOut, ToolFailed, AgentFailed) as error:
            caught.append(error)
        return type(caught[-1]).__name__

    timed = stage.submit(waiter(lambda: handle(lambda: wait_for_human("?", to="ana", timeout=60))))
    tooled = stage.submit(waiter(lambda: handle(lambda: wait_for_tool("warehouse", "job-1"))))
    stage.complete_tool("warehouse", "job-1", error={"code": 5})
    stage.pass_time("1m")

    by_name = {type(error).__name__: error for error in caught}
    assert (timed.refresh().result, tooled.refresh().result) == ({"value": "WaitTimedOut"}, {"value": "ToolFailed"})
    assert by_name["WaitTimedOut"].wait_id == stage.waits(timed)[0].id
    assert (by_name["ToolFailed"].tool, by_name["ToolFailed"].error) == ("warehouse", {"code": 5})
