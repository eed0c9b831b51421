"""What happens while nobody answers: the ladder, the fallback, business hours; and how many must say what."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from axme_celery import NotAllowed, wait_for_human
from axme_celery.model import Status, WaitStatus
from axme_celery.testing import Stage


@pytest.fixture
def ask(stage, axme):
    """``ask(**arguments)``: an intent that waits for a person, and returns who answered what."""
    return asker(stage, axme)


def asker(stage, axme):
    @axme.task
    def asking(arguments):
        decision = wait_for_human(**({"title": "Publish?", "to": "ana"} | arguments))
        return [decision.outcome, decision.by]

    return lambda **arguments: stage.submit(asking.s(arguments))


def wait_of(stage, intent):
    return stage.waits(intent)[0]


def hours_of_notices(stage, began):
    return [(n.kind, n.to, (n.at - began) / timedelta(hours=1)) for n in stage.notices]


# -- the ladder ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ladder",
    [
        [("head", "4h"), (["cto", "cfo"], "1d")],
        [["head", "4h"], [["cto", "cfo"], "1d"]],
        [{"to": "head", "after": "4h"}, {"to": ["cto", "cfo"], "after": "1d"}],
    ],
)
def test_each_rung_of_the_ladder_is_asked_at_its_time_after_the_opening(stage, ask, ladder):
    """One more each time; each is an event with whom it was escalated to."""
    began = stage.now
    intent = ask(escalate_to=ladder)

    stage.pass_time("2d")

    assert hours_of_notices(stage, began) == [
        ("wait_opened", ("ana",), 0),
        ("escalation", ("head",), 4),
        ("escalation", ("cto", "cfo"), 24),
    ]
    assert wait_of(stage, intent).to == ("ana", "head", "cto", "cfo")
    told = [e.details for e in stage.history(intent) if e.type == "intent.escalated"]
    assert [(d["escalated_to"], d["rung"], d["rungs"]) for d in told] == [(["head"], 1, 2), (["cto", "cfo"], 2, 2)]
    assert stage.answer(intent, "approved", by="cfo").result == ["approved", "cfo"]


def test_names_without_delays_are_one_rung(stage, ask):
    """A list of names is asked all at once, after the last reminder."""
    began = stage.now
    ask(escalate_to=["head", "cto"], remind_every="1h", max_reminders=1)

    stage.pass_time("1d")

    assert hours_of_notices(stage, began)[-2:] == [("reminder", ("ana",), 1), ("escalation", ("head", "cto"), 2)]


def test_who_has_answered_or_may_not_is_not_reminded(stage, axme, ask):
    """Only those who can still do something about it."""
    intent = ask(to=["ana", "ben", "eve", "analysts"], not_by="eve", quorum=3, remind_every="1h", max_reminders=1)
    stage.answer(intent, "approved", by="ben")
    axme.delegate(intent, "cara", by="dan", groups=["analysts"])

    stage.pass_time("1h")

    assert [n.to for n in stage.notices if n.kind == "reminder"] == [("ana", "analysts", "cara")]
    (told,) = [e.details for e in stage.history(intent) if e.type == "intent.reminder"]
    assert told["to"] == ["ana", "analysts", "cara"]


# -- the fallback ---------------------------------------------------------------------------


def test_the_fallback_has_the_same_time_again_before_the_wait_is_given_up(stage, ask):
    """Those who were asked first may still answer."""
    began = stage.now
    intent = ask(timeout="4h", on_timeout="rejected", fallback="night-shift")

    stage.pass_time("5h")
    then = wait_of(stage, intent)
    stage.pass_time("3h")

    assert (then.status, then.to) == (WaitStatus.OPEN, ("ana", "night-shift"))
    assert hours_of_notices(stage, began)[-1] == ("escalation", ("night-shift",), 4)
    assert [e.details["cause"] for e in stage.history(intent) if e.type == "intent.escalated"] == ["timeout"]
    assert stage.intent(intent.id).result == ["rejected", "clock"]
    assert wait_of(stage, intent).closed_at - began == timedelta(hours=8)


def test_the_fallback_is_asked_at_once_where_nobody_else_may_answer(stage, ask):
    """The only one it was for is kept out of it."""
    intent = ask(to="ana", not_by="ana", fallback="ben", timeout="4h")

    assert wait_of(stage, intent).to == ("ben",)
    assert [n.to for n in stage.notices] == [("ben",)]
    stage.pass_time("4h")
    assert stage.intent(intent.id).status is Status.FAILED


# -- business hours ---------------------------------------------------------------------------

BERLIN = {"days": "mon-fri", "hours": "09:00-17:00", "tz": "Europe/Berlin"}


@pytest.fixture
def friday(app, axme):
    """A stage that begins on Friday, 23 October 2026 at 15:00 in Berlin; the clocks are put back on the Sunday."""
    with Stage(app, business_hours=BERLIN) as stage:
        stage._now = datetime(2026, 10, 23, 13, tzinfo=UTC)
        yield stage


def test_reminders_escalations_and_timeouts_keep_business_hours(friday, axme):
    """Nobody is reminded on a Sunday, and a weekend is not held against anybody."""
    ask = asker(friday, axme)

    intent = ask(remind_every="4h", max_reminders=1, escalate_to="head", timeout="2d", due="1d")
    wait = wait_of(friday, intent)
    friday.pass_time("7d")

    assert [(n.kind, n.at) for n in friday.notices if n.wait_id] == [
        ("wait_opened", datetime(2026, 10, 23, 13, tzinfo=UTC)),
        ("reminder", datetime(2026, 10, 26, 10, tzinfo=UTC)),
        ("escalation", datetime(2026, 10, 26, 14, tzinfo=UTC)),
    ]
    assert wait.timeout_at == datetime(2026, 10, 27, 14, tzinfo=UTC)
    assert wait.wanted_at == datetime(2026, 10, 26, 14, tzinfo=UTC)
    assert friday.intent(intent.id).status is Status.FAILED


def test_a_wait_may_keep_its_own_hours_or_none(friday, axme):
    """``business_hours=False`` is around the clock, a mapping its own."""
    ask = asker(friday, axme)

    always = wait_of(friday, ask(timeout="4h", business_hours=False))
    own = wait_of(friday, ask(timeout="4h", business_hours={"days": "sat", "tz": "UTC"}))
    house = wait_of(friday, ask(timeout="4h", business_hours=True))

    assert always.timeout_at == datetime(2026, 10, 23, 17, tzinfo=UTC)
    assert own.timeout_at == datetime(2026, 10, 24, 13, tzinfo=UTC)
    assert house.timeout_at == datetime(2026, 10, 26, 10, tzinfo=UTC)
    assert (always.request.get("business_hours"), house.request["business_hours"]["tz"]) == (None, "Europe/Berlin")


def test_more_time_is_working_time_too(friday, axme):
    """An extension by four hours late on a Friday is not over before Monday."""
    intent = asker(friday, axme)(timeout="1h")

    axme.extend(wait_of(friday, intent), "4h", by="ops")

    assert wait_of(friday, intent).timeout_at == datetime(2026, 10, 26, 11, tzinfo=UTC)


def test_when_an_answer_is_wanted_is_the_first_escalation_or_the_timeout_unless_it_is_said(stage, ask):
    """What inboxes are sorted by."""
    hour = timedelta(hours=1)

    wanted = [
        wait_of(stage, ask(**arguments)).wanted_at
        for arguments in (
            {}, {"timeout": "4h"}, {"timeout": "4h", "escalate_to": "b", "escalate_after": "2h"}, {"due": "3h"},
        )
    ]  # fmt: skip

    assert wanted == [None, stage.now + 4 * hour, stage.now + 2 * hour, stage.now + 3 * hour]


# -- how many must say what ----------------------------------------------------------------------


def test_a_no_may_need_a_quorum_as_well(stage, ask):
    """``reject_policy="quorum"``: one no of three does not close it; two do."""
    intent = ask(to=["ana", "ben", "cara"], quorum=2, reject_policy="quorum")

    stage.answer(intent, "rejected", by="ana")
    stage.answer(intent, "approved", by="ben")
    still = stage.intent(intent.id).status
    with pytest.raises(NotAllowed, match="already answered"):
        stage.answer(intent, "approved", by="ana")

    assert still is Status.WAITING
    assert stage.answer(intent, "rejected", by="cara").result == ["rejected", "cara"]
    assert [e.details["outcome"] for e in stage.history(intent) if e.type == "intent.voted"] == ["rejected", "approved"]


def test_the_code_is_told_what_everybody_said(stage, axme):
    """Not only who was last."""

    @axme.task
    def asking():
        votes = wait_for_human("Publish?", to=["ana", "ben"], quorum=2).votes
        return [[vote["by"], vote["outcome"], vote.get("comment")] for vote in votes]

    intent = stage.submit(asking.s())
    stage.answer(intent, "approved", by="ben", comment="fine")

    assert stage.answer(intent, "approved", by="ana").result == [["ben", "approved", "fine"], ["ana", "approved", None]]


def test_changes_are_not_requested_without_saying_which(stage, axme):
    """The comment goes back to the code, which can change it and ask again."""
    from axme_celery import BadInput

    @axme.task
    def drafting():
        draft, rounds = "first", []
        while True:
            decision = wait_for_human(f"Publish {draft}?", to="ana", type="review")
            rounds.append((draft, decision.outcome, decision.comment))
            if not decision.changes_requested:
                return rounds
            draft = decision.comment

    intent = stage.submit(drafting.s())
    with pytest.raises(BadInput, match="asks for a comment with its answer 'changes_requested'"):
        stage.answer(intent, "changes_requested", by="ana")
    stage.answer(intent, "changes_requested", by="ana", comment="second")
    intent = stage.answer(intent, "approved", by="ana")

    assert intent.result == [["first", "changes_requested", "second"], ["second", "approved", None]]


def test_some_answers_need_a_comment_and_others_do_not(stage, ask):
    """``require_comment`` may name them."""
    from axme_celery import BadInput

    intent = ask(require_comment="rejected")

    with pytest.raises(BadInput, match="asks for a comment"):
        stage.answer(intent, "rejected", by="ana", comment="  ")

    assert stage.answer(intent, "approved", by="ana").result == ["approved", "ana"]


def test_a_node_of_a_pipeline_takes_every_argument_too(stage, axme):
    """As JSON has them; what cannot be is refused when the pipeline is submitted."""
    from axme_celery import BadInput

    @axme.task
    def begin():
        return 12

    @axme.task
    def end(decision):
        return [decision["outcome"], decision["by"], decision["input"]]

    asked = wait_for_human.s(
        "Publish?", to=["ana", "analysts"], not_by="requester", quorum=2, reject_policy="quorum", delegates=["cara"],
        escalate_to=[("head", "4h"), (["cto"], "1d")], fallback="night", timeout="2d", due="1h",
        business_hours={"days": "mon-sun", "hours": "00:00-24:00", "tz": "UTC"}, require_comment="rejected", bulk=True,
    )  # fmt: skip
    intent = stage.submit(begin.s() | asked | end.s(), requester="eve")
    (wait,) = stage.waits(intent)
    with pytest.raises(NotAllowed, match="eve may not answer"):
        axme.answer(wait, "approved", by="eve", groups=["analysts"])
    axme.delegate(wait, "cara", by="ana", groups=[])
    stage.pass_time("2d")
    stage.pass_time("1h")
    for who in ("cara", "night"):
        axme.answer(wait, "approved", by=who, groups=[], expected_hash=wait.payload_hash)
    stage.run()

    assert wait.request["context"] == {"input": 12}
    assert wait_of(stage, intent).to == ("cara", "analysts", "head", "cto", "night")
    assert stage.intent(intent.id).result == ["approved", "night", 12]
    with pytest.raises(BadInput, match="must climb"):
        stage.submit(begin.s() | wait_for_human.s("?", to="ana", escalate_to=[("a", "2h"), ("b", "1h")]))
