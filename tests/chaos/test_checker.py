"""The checker finds every kind of broken promise in histories made bad by hand, and nothing in good ones.

A checker that never complains would pass everything: this is where it is shown to see.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from axme_celery import audit
from axme_celery.model import (
    Checkpoint,
    DeadLetter,
    EarlyAnswer,
    Event,
    Intent,
    Leg,
    LegStatus,
    Recorded,
    Status,
    Wait,
    WaitKind,
    WaitStatus,
)

from .checker import Rule, check, coverage, vacuous
from .facts import History, IntentFacts
from .reference import TOOL
from .witness import Line, digest

BEGAN = datetime(2030, 1, 1, tzinfo=UTC)
ID, NAME = "intent-1", "one"


def at(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


@dataclass
class Story:
    """A history that can be bent: the good one is of an intent whose first run was killed in its second step."""

    lines: list[Line] = field(default_factory=list)
    intent: Intent = field(default_factory=lambda: _intent())
    moves: list[tuple[str, Status]] = field(default_factory=list)
    leg: Leg = field(
        default_factory=lambda: Leg(
            id="leg-1",
            intent_id=ID,
            task="t",
            signature={"args": [NAME]},
            status=LegStatus.DONE,
            run=4,
            attempts=1,
            max_attempts=3,
            created_at=at(0),
        )
    )
    checkpoints: list[Checkpoint] = field(default_factory=list)
    waits: list[Wait] = field(default_factory=list)
    letters: tuple[DeadLetter, ...] = ()
    early: tuple[EarlyAnswer, ...] = ()
    bookings: tuple[tuple[int, str], ...] = ((2, "ref"),)
    celery: tuple[str, Any] | None = None
    faults: int = 1
    leftovers: tuple[str, ...] = ()
    #: Bends the events after they were chained.
    tamper: Callable[[list[Event]], list[Event]] = list

    def line(self, ev: str, run: int, step: str = "", value: Any = None, **more: Any) -> Line:
        line = {"ev": ev, "intent": ID, "run": run, **more}
        if step:
            line |= {"step": step, "nth": more.get("nth", 1)}
        if ev == "S":
            line.setdefault("attempt", 1)
        elif ev != "B":
            line["value"] = digest(value)
        return line

    def say(self, *lines: Line) -> None:
        self.lines += lines

    def call(self, op: str, end: str | None, **asked: Any) -> None:
        """A client's call; ``end`` None: the client died."""
        line = {"op": op, "id": f"call-{len(self.lines)}", **asked}
        self.lines.append({"ev": "invoke", **line})
        if end is not None:
            self.lines.append({"ev": end, **line, "intent": asked.get("intent", ID)})

    def find(self, ev: str, run: int | None = None, step: str | None = None) -> Line:
        """The first line of this kind."""
        return next(
            x for x in self.lines
            if x["ev"] == ev and (run is None or x.get("run") == run) and (step is None or x.get("step") == step)
        )  # fmt: skip

    def record(self, name: str, **changes: Any) -> None:
        """Change a step's record."""
        self.checkpoints = [replace(c, **changes) if c.name == name else c for c in self.checkpoints]

    def wait(self, name: str, **changes: Any) -> None:
        self.waits = [replace(w, **changes) if w.name == name else w for w in self.waits]

    def history(self) -> History:
        events = [
            Event(intent_id=ID, seq=n, type=type, status=status, at=at(n))
            for n, (type, status) in enumerate(self.moves, 1)
        ]
        chained = self.tamper(list(audit.seal_all(events, audit.GENESIS, None)))
        intent = replace(self.intent, seq=len(chained), head_hash=chained[-1].hash)
        facts = IntentFacts(
            intent=intent, events=tuple(chained), leg=self.leg, checkpoints=tuple(self.checkpoints),
            waits=tuple(self.waits), letters=self.letters, early=self.early,
            audit_trouble=audit.verify(intent, chained, None), bookings=self.bookings, celery=self.celery,
        )  # fmt: skip
        return History(lines=self.lines, intents={ID: facts}, faults=self.faults, leftovers=self.leftovers)


def _intent() -> Intent:
    return Intent(id=ID, type="t", status=Status.COMPLETED, created_at=at(0), updated_at=at(9))


DECISION = {"outcome": "approved", "by": "ana"}
REPORT = {"rows": 2}
PARTS = [["plan", 1, "p"], ["charge", 1, "c"], ["book", 1, "ref"], ["wait_for_human", 1, DECISION],
         [f"wait_for_tool:{TOOL}", 1, REPORT], ["wait_for_time", 1, None]]  # fmt: skip
RESULT = {"parts": PARTS}


def good() -> Story:
    """Killed once, in run 1, after ``plan`` was recorded and while ``charge``'s record was under way; then well."""
    story = Story()
    story.call("submit", "ok", key=NAME)
    story.say(
        story.line("B", 1), story.line("S", 1, "plan"), story.line("E", 1, "plan", "p"), story.line("N", 1, "plan", "p")
    )
    story.say(story.line("S", 1, "charge"), story.line("E", 1, "charge", "c"), story.line("N", 1, "charge", "c"))
    story.say(story.line("S", 1, "book"), story.line("E", 1, "book", "lost"))
    story.say(story.line("B", 2), story.line("N", 2, "plan", "p"), story.line("N", 2, "charge", "c"))
    story.say(story.line("S", 2, "book"), story.line("E", 2, "book", "ref"), story.line("N", 2, "book", "ref"))
    story.say({"ev": "W+", "intent": ID, "run": 2, "step": "wait_for_human", "nth": 1})
    story.call("answer", "ok", wait="wait-h", outcome="approved", by="ana")
    story.call("answer", "fail", wait="wait-h", outcome="rejected", by="cem")
    story.call("complete_tool", "ok", tool=TOOL, job=f"{NAME}:late", result=REPORT)
    replayed = [story.line("N", 3, name, value) for name, value in (("plan", "p"), ("charge", "c"), ("book", "ref"))]
    story.say(story.line("B", 3), *replayed, story.line("W-", 3, "wait_for_human", DECISION))
    replayed = [story.line("N", 4, name, value) for name, value in (("plan", "p"), ("charge", "c"), ("book", "ref"))]
    story.say(story.line("B", 4), *replayed, story.line("W-", 4, "wait_for_human", DECISION))
    story.say(story.line("W-", 4, f"wait_for_tool:{TOOL}", REPORT))
    story.say(story.line("W-", 4, "wait_for_time", None, now=at(8).isoformat()), story.line("D", 4, "", RESULT))

    def kept(name: str, position: int, run: int, value: Any) -> Checkpoint:
        return Checkpoint(leg_id="leg-1", name=name, nth=1, position=position, run=run, value=json.dumps(value))

    story.checkpoints = [kept("plan", 0, 1, "p"), kept("charge", 1, 1, "c"), kept("book", 2, 2, "ref")]
    common: dict[str, Any] = {"intent_id": ID, "leg_id": "leg-1", "nth": 1, "title": "?", "status": WaitStatus.ANSWERED}
    story.waits = [
        Wait(
            id="wait-h", name="wait_for_human", position=3, run=2, kind=WaitKind.HUMAN, outcome="approved",
            answered_by="ana", opened_at=at(3), closed_at=at(4), **common,
        ),
        Wait(
            id="wait-t", name=f"wait_for_tool:{TOOL}", position=4, run=3, kind=WaitKind.TOOL, tool=TOOL,
            job_id=f"{NAME}:late", outcome="completed", data=json.dumps(REPORT), opened_at=at(5), closed_at=at(6), **common,
        ),
        Wait(
            id="wait-c", name="wait_for_time", position=5, run=3, kind=WaitKind.TIME, timeout_at=at(8),
            outcome="woke", opened_at=at(6), closed_at=at(8), **common,
        ),
    ]  # fmt: skip
    story.moves = [
        ("intent.created", Status.CREATED), ("intent.submitted", Status.SUBMITTED),
        ("intent.in_progress", Status.IN_PROGRESS), ("intent.leg_lost", Status.IN_PROGRESS),
        ("intent.waiting", Status.WAITING), ("intent.in_progress", Status.IN_PROGRESS),
        ("intent.completed", Status.COMPLETED),
    ]  # fmt: skip
    story.intent = replace(story.intent, result=json.dumps(RESULT), ended_at=at(9))
    story.celery = ("SUCCESS", RESULT)
    story.say(*({"ev": "R", "leg": "leg-1", "state": state} for state in ("WAITING", "WAITING", "SUCCESS", "SUCCESS")))
    return story


def rules_broken(story: Story) -> set[Rule]:
    return {finding.rule for finding in check(story.history())}


# -- good ones ---------------------------------------------------------------------------


def test_a_history_in_which_all_was_kept_has_no_findings():
    """A killed run, a step done again because its record was lost, an answer refused: all of it is promised so."""
    assert check(good().history()) == []


def test_two_voices_of_a_quorum_of_two_are_both_told_ok():
    """The one that closed it, and the one before; who gave it away gave none."""
    story = good()
    _of_two(story, "ben", "ana", gave=("dan",))
    story.call("answer", "ok", wait="wait-h", outcome="approved", by="ben")
    story.call("delegate", "ok", wait="wait-h", to="cem", by="dan")

    assert check(story.history()) == []


def test_what_a_client_never_learned_may_have_happened_or_not():
    """A client that died, or was told that nobody knows, proves neither."""
    story = good()
    story.lines = [x for x in story.lines if not (x.get("op") == "answer" and x["ev"] == "ok")]
    story.call("cancel", "info", intent=ID, by="dan")
    story.call("submit", None, key="another")

    assert check(story.history()) == []


def test_an_intent_that_died_of_its_attempts_is_an_end_as_promised():
    """Three runs, three deaths, one dead letter."""
    story = _given_up()

    assert check(story.history()) == []


def test_an_intent_canceled_before_its_tool_was_waited_for_keeps_the_report():
    """The report was told ok, and is on record as early."""
    story = _canceled()
    story.call("complete_tool", "ok", tool=TOOL, job=f"{NAME}:late", result=REPORT)
    story.early = (EarlyAnswer(tool=TOOL, job_id=f"{NAME}:late", answer="completed:{}", at=at(1)),)

    assert check(story.history()) == []


def _canceled() -> Story:
    story = good()
    story.lines = [x for x in story.lines if x.get("op") == "submit"]
    story.say(story.line("B", 1), story.line("S", 1, "plan"), story.line("N", 1, "plan", "p"))
    story.call("cancel", "ok", intent=ID, by="dan")
    story.checkpoints = story.checkpoints[:1]
    story.waits, story.bookings, story.celery = [], (), None
    story.leg = replace(story.leg, status=LegStatus.CANCELED, run=1)
    story.moves = [*story.moves[:3], ("intent.canceled", Status.CANCELED)]
    story.intent = replace(story.intent, status=Status.CANCELED, result=None)
    return story


def _given_up() -> Story:
    story = good()
    story.lines = [x for x in story.lines if x.get("op") == "submit"]
    story.say({"ev": "R", "leg": "leg-1", "state": "FAILURE"})
    for run in (1, 2, 3):
        story.say(story.line("B", run), story.line("S", run, "plan"))
    error = {"code": "worker_lost", "message": "3 runs"}
    story.checkpoints, story.waits, story.bookings, story.celery = [], [], (), ("FAILURE", "3 runs")
    story.leg = replace(story.leg, status=LegStatus.FAILED, run=3, attempts=3)
    lost = ("intent.leg_lost", Status.IN_PROGRESS)
    story.moves = [*story.moves[:3], lost, lost, ("intent.failed", Status.FAILED)]
    story.intent = replace(story.intent, status=Status.FAILED, result=None, error=error)
    story.letters = (DeadLetter(id="d", kind="leg", intent_id=ID, code="worker_lost", reason="3 runs", at=at(9)),)
    story.faults = 3
    return story


# -- bad ones ----------------------------------------------------------------------------

Bend = Callable[[Story], None]
BAD: dict[str, tuple[Rule, Bend]] = {}


def bad(rule: Rule) -> Callable[[Bend], Bend]:
    """Register a way to bend the good story, and the rule that must notice."""

    def register(bend: Bend) -> Bend:
        BAD[bend.__name__.strip("_")] = (rule, bend)
        return bend

    return register


@bad(Rule.LOST)
def _an_accepted_intent_is_not_there(story: Story) -> None:
    story.call("submit", "ok", key="two", intent="intent-2")


@bad(Rule.LOST)
def _an_intent_never_ends(story: Story) -> None:
    story.moves.pop()
    story.intent = replace(story.intent, status=Status.IN_PROGRESS)
    story.leg = replace(story.leg, status=LegStatus.QUEUED)


@bad(Rule.LOST)
def _a_body_ran_of_an_intent_nobody_knows(story: Story) -> None:
    story.say({"ev": "B", "intent": "intent-2", "run": 1})


@bad(Rule.END)
def _an_intent_fails_for_no_reason_of_its_own(story: Story) -> None:
    story.intent = replace(story.intent, status=Status.FAILED, error={"code": "OperationalError"})


@bad(Rule.END)
def _an_intent_is_canceled_by_nobody(story: Story) -> None:
    story.moves[-1] = ("intent.canceled", Status.CANCELED)
    story.intent = replace(story.intent, status=Status.CANCELED)


@bad(Rule.END)
def _a_cancel_that_was_told_ok_has_no_effect(story: Story) -> None:
    story.call("cancel", "ok", intent=ID, by="dan")


@bad(Rule.END)
def _an_intent_times_out_before_its_deadline(story: Story) -> None:
    story.moves[-1] = ("intent.timed_out", Status.TIMED_OUT)
    story.intent = replace(story.intent, status=Status.TIMED_OUT, deadline_at=at(100))


@bad(Rule.REPEATED)
def _a_recorded_step_is_started_by_a_later_run(story: Story) -> None:
    story.say(story.line("S", 3, "plan"))


@bad(Rule.REPEATED)
def _a_step_is_started_again_after_it_was_given(story: Story) -> None:
    story.lines.insert(story.lines.index(story.find("N", 1, "charge")) + 1, story.line("S", 1, "plan", attempt=2))


@bad(Rule.TWICE)
def _the_same_run_of_a_body_starts_twice(story: Story) -> None:
    story.say(story.line("B", 2))


@bad(Rule.TWICE)
def _the_same_try_of_a_step_starts_twice(story: Story) -> None:
    story.lines.insert(story.lines.index(story.find("S", 2, "book")), story.line("S", 2, "book"))


@bad(Rule.EXTRA)
def _more_is_done_again_than_was_hit(story: Story) -> None:
    story.faults = 0


@bad(Rule.CHANGED)
def _a_step_gives_another_value_when_replayed(story: Story) -> None:
    story.find("N", 3, "plan")["value"] = digest("q")


@bad(Rule.CHANGED)
def _a_record_differs_from_what_the_step_gave(story: Story) -> None:
    story.record("plan", value='"q"')


@bad(Rule.STALE)
def _a_step_was_given_and_is_not_recorded(story: Story) -> None:
    story.checkpoints = [c for c in story.checkpoints if c.name != "charge"]


@bad(Rule.STALE)
def _a_replaced_run_takes_its_step_for_recorded(story: Story) -> None:
    story.lines.insert(story.lines.index(story.find("S", 2, "book")), story.line("N", 1, "book", "ref"))


def _of_two(story: Story, *votes: str, gave: tuple[str, ...] = ()) -> None:
    """The human wait as one for two people, closed by the last of these."""
    story.waits[0] = replace(
        story.waits[0],
        request={"outcomes": ["approved", "rejected"], "quorum": 2},
        votes=tuple({"by": who, "outcome": "approved"} for who in votes),
        delegations=tuple({"by": who, "to": "cem"} for who in gave),
    )


@bad(Rule.VOICES)
def somebody_voted_twice(story: Story) -> None:
    _of_two(story, "ana", "ana")


@bad(Rule.VOICES)
def who_gave_it_away_voted(story: Story) -> None:
    _of_two(story, "ben", "ana", gave=("ben",))


@bad(Rule.VOICES)
def one_of_two_was_enough(story: Story) -> None:
    _of_two(story, "ana")


@bad(Rule.VOICES)
def a_delegation_that_was_told_ok_is_nowhere(story: Story) -> None:
    story.call("delegate", "ok", wait="wait-h", to="cem", by="ben")


@bad(Rule.OUTCOME)
def a_vote_that_was_told_ok_is_nowhere(story: Story) -> None:
    _of_two(story, "ben", "ana")
    story.call("answer", "ok", wait="wait-h", outcome="approved", by="cem")


@bad(Rule.OUTCOME)
def _two_people_are_told_that_their_answer_stands(story: Story) -> None:
    story.call("answer", "ok", wait="wait-h", outcome="rejected", by="ben")


@bad(Rule.OUTCOME)
def _an_answer_nobody_gave_stands(story: Story) -> None:
    story.wait("wait_for_human", answered_by="eve")


@bad(Rule.OUTCOME)
def _a_refused_answer_stands(story: Story) -> None:
    story.find("ok", step=None)  # the submit's
    for line in story.lines:
        if line.get("op") == "answer" and line["ev"] == "ok":
            line["ev"] = "fail"


@bad(Rule.OUTCOME)
def _a_wait_gives_different_outcomes_to_two_runs(story: Story) -> None:
    story.find("W-", 4, "wait_for_human")["value"] = digest({"outcome": "rejected", "by": "ben"})


@bad(Rule.OUTCOME)
def _a_wait_gives_an_outcome_while_it_is_open(story: Story) -> None:
    story.wait("wait_for_human", status=WaitStatus.OPEN)


@bad(Rule.OUTCOME)
def _a_wait_that_was_answered_ok_has_timed_out(story: Story) -> None:
    story.wait("wait_for_human", status=WaitStatus.EXPIRED, outcome="timeout", answered_by="clock", timeout_at=at(4))


@bad(Rule.ANSWER_LOST)
def _a_report_told_ok_is_not_what_the_wait_got(story: Story) -> None:
    story.wait(f"wait_for_tool:{TOOL}", data='{"rows": 7}')


@bad(Rule.ANSWER_LOST)
def _a_report_told_ok_met_no_wait(story: Story) -> None:
    story.call("complete_tool", "ok", tool=TOOL, job=f"{NAME}:early", result=1)


@bad(Rule.TOO_EARLY)
def _a_timer_closes_before_it_is_due(story: Story) -> None:
    story.wait("wait_for_time", closed_at=at(7))


@bad(Rule.TOO_EARLY)
def _a_body_goes_on_before_the_timer_is_due(story: Story) -> None:
    story.find("W-", 4, "wait_for_time")["now"] = at(7.99).isoformat()


@bad(Rule.HISTORY)
def _an_event_is_missing(story: Story) -> None:
    story.tamper = lambda events: [*events[:2], *events[3:]]


@bad(Rule.HISTORY)
def _an_event_follows_the_end(story: Story) -> None:
    story.moves.append(("intent.in_progress", Status.IN_PROGRESS))


@bad(Rule.HISTORY)
def _a_move_is_not_in_the_table(story: Story) -> None:
    story.moves[5] = ("intent.completed", Status.COMPLETED)
    story.moves.pop()


@bad(Rule.HISTORY)
def _the_intent_is_elsewhere_than_its_events_say(story: Story) -> None:
    story.moves.pop()


@bad(Rule.DEAD_LETTER)
def _a_completed_intent_has_a_dead_letter(story: Story) -> None:
    story.letters = (DeadLetter(id="d", kind="leg", intent_id=ID, code="drift", reason="?", at=at(9)),)


@bad(Rule.DEAD_LETTER)
def _more_attempts_than_allowed(story: Story) -> None:
    story.leg = replace(story.leg, attempts=4)


@bad(Rule.AUDIT)
def _an_event_was_edited_afterwards(story: Story) -> None:
    story.tamper = lambda events: [replace(events[0], actor="eve"), *events[1:]]


@bad(Rule.AUDIT)
def _the_tail_of_the_events_is_cut_off(story: Story) -> None:
    story.tamper = lambda events: [*events[:-1], replace(events[-1], prev_hash=events[-3].hash)]


@bad(Rule.TRANSACTION)
def _the_steps_own_row_was_written_twice(story: Story) -> None:
    story.bookings = ((1, "lost"), (2, "ref"))


@bad(Rule.TRANSACTION)
def _the_step_is_recorded_and_its_own_row_is_not_there(story: Story) -> None:
    story.bookings = ()


@bad(Rule.AT_MOST_ONCE)
def _a_step_to_be_done_at_most_once_starts_twice(story: Story) -> None:
    story.record("charge", recorded=Recorded.STARTED)
    story.lines.insert(story.lines.index(story.find("S", 2, "book")), story.line("S", 2, "charge"))


@bad(Rule.RESULT)
def _the_result_is_not_what_the_body_returned(story: Story) -> None:
    story.intent = replace(story.intent, result=json.dumps({"parts": PARTS[:-1]}))
    story.celery = None


@bad(Rule.RESULT)
def _the_result_holds_another_value_than_the_record(story: Story) -> None:
    bent = {"parts": [["plan", 1, "q"], *PARTS[1:]]}
    story.intent = replace(story.intent, result=json.dumps(bent))
    story.find("D")["value"], story.celery = digest(bent), ("SUCCESS", bent)


@bad(Rule.RESULT)
def _celery_shows_no_result(story: Story) -> None:
    story.celery = ("WAITING", None)


@bad(Rule.RESULT)
def _celery_is_told_of_a_failure_that_is_taken_back(story: Story) -> None:
    story.say({"ev": "R", "leg": "leg-1", "state": "FAILURE"}, {"ev": "R", "leg": "leg-1", "state": "SUCCESS"})


@bad(Rule.RESULT)
def _celery_is_told_that_it_waits_after_the_end(story: Story) -> None:
    story.say({"ev": "R", "leg": "leg-1", "state": "SUCCESS"}, {"ev": "R", "leg": "leg-1", "state": "WAITING"})


@bad(Rule.LEFTOVER)
def _a_row_is_left_in_the_outbox(story: Story) -> None:
    story.leftovers = ("axme_outbox has 1 rows",)


@pytest.mark.parametrize("name", BAD)
def test_it_finds(name: str):
    """Each bent history breaks the rule it was bent against."""
    rule, bend = BAD[name]
    story = good()

    bend(story)

    assert rule in rules_broken(story)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda s: setattr(s, "letters", ()), Rule.DEAD_LETTER),
        (lambda s: setattr(s, "leg", replace(s.leg, attempts=2)), Rule.DEAD_LETTER),
        (lambda s: setattr(s, "celery", ("SUCCESS", 1)), Rule.RESULT),
    ],
    ids=["no letter", "given up too soon", "celery says it succeeded"],
)
def test_it_finds_what_is_wrong_with_an_intent_that_was_given_up(change: Bend, rule: Rule):
    """Dead letters are filed when the attempts are used up: not before, and not without."""
    story = _given_up()

    change(story)

    assert rule in rules_broken(story)


def test_it_finds_a_report_that_a_canceled_intent_lost():
    """Told ok, and neither a wait nor an early answer has it."""
    story = _canceled()
    story.call("complete_tool", "ok", tool=TOOL, job=f"{NAME}:late", result=REPORT)

    assert rules_broken(story) == {Rule.ANSWER_LOST}


def test_a_run_that_did_not_reach_what_it_meant_to_is_vacuous():
    """A harness whose kills hit nothing must not pass."""
    reached = coverage(good().history())

    assert vacuous(reached, {"WAITING>IN_PROGRESS": 1, "HUMAN ANSWERED": 1, "S": 4}) == []
    assert [f.rule for f in vacuous(reached, {"IN_PROGRESS>FAILED": 1})] == [Rule.VACUOUS]
    assert [f.rule for f in vacuous(reached, {"intent.leg_lost": 2})] == [Rule.VACUOUS]


def test_every_rule_that_reads_a_history_is_shown_to_see():
    """Whoever adds a rule adds a history that breaks it. Two are about a run of the harness, not about a history."""
    assert {rule for rule, _ in BAD.values()} == set(Rule) - {Rule.LATE, Rule.VACUOUS}
