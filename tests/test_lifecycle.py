"""The rules alone: no clock, no store. What may follow what, and what each decision writes."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from axme_celery import BadInput, IntentEnded, NotAllowed, WaitClosed, lifecycle
from axme_celery.errors import StaleChange
from axme_celery.lifecycle import MOVES, NOTES, Occasion
from axme_celery.model import (
    FINAL,
    Change,
    Checkpoint,
    DeliveryKind,
    Event,
    Intent,
    Leg,
    LegStatus,
    Recorded,
    Status,
    Wait,
    WaitKind,
    WaitRecord,
    WaitStatus,
)

NOON = datetime(2026, 10, 5, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
_ids = itertools.count(1)


def at(moment: datetime) -> Occasion:
    return Occasion(now=moment, new_id=lambda: f"id-{next(_ids):06}", requeue=timedelta(minutes=10))


def new_intent(**fields: Any) -> Intent:
    whole = {"id": f"i-{next(_ids)}", "type": "t", "status": Status.CREATED, "created_at": NOON, "updated_at": NOON}
    return Intent(**(whole | fields))


def new_leg(intent: Intent, **fields: Any) -> Leg:
    whole = {"id": f"l-{next(_ids)}", "intent_id": intent.id, "task": "t", "signature": {}, "created_at": NOON}
    return Leg(**(whole | fields))


def running_leg(**fields: Any) -> tuple[Intent, Leg]:
    """An intent whose leg has been claimed."""
    intent = new_intent()
    submitted = lifecycle.submit(intent, new_leg(intent, **fields), start_at=None, on=at(NOON))
    claimed = lifecycle.claim(submitted.intent, submitted.legs[0][1], 1, worker="w", token="x", on=at(NOON))
    return claimed.intent, claimed.legs[0][1]


def waiting(kind: WaitKind = WaitKind.HUMAN, **fields: Any) -> WaitRecord:
    """An intent that has come to rest on a wait opened at noon."""
    intent, leg = running_leg()
    request = {"outcomes": ["approved", "rejected"]} | fields.pop("request", {})
    wait = Wait(
        id=f"w-{next(_ids)}", intent_id=intent.id, leg_id=leg.id, name="wait", nth=1, position=0, run=1, kind=kind,
        title="Publish?", to=("ana",), request=request, opened_at=NOON, **fields,
    )  # fmt: skip
    (change,) = lifecycle.open_wait(intent, leg, wait, on=at(NOON))
    return WaitRecord(change.intent, change.legs[0][1], change.waits[0][1])


def after(record: WaitRecord, change: Change) -> WaitRecord:
    """The record as the change leaves it."""
    return WaitRecord(
        change.intent or record.intent,
        change.legs[0][1] if change.legs else record.leg,
        change.waits[0][1] if change.waits else record.wait,
    )


def fire(record: WaitRecord, moment: datetime) -> Change | None:
    return lifecycle.fire(record, ahead=timedelta(0), on=at(moment))


def told(change: Change) -> list[str]:
    return [event.type.removeprefix("intent.") for event in change.events]


# -- the tables, by eye --------------------------------------------------------------


def test_each_open_status_leads_exactly_where_the_published_lifecycle_says():
    """AXP Intent Lifecycle v1, word for word; TIMED_OUT besides, from every open status."""
    published = {
        "CREATED": {"SUBMITTED"},
        "SUBMITTED": {"DELIVERED", "IN_PROGRESS", "WAITING", "FAILED", "CANCELED"},
        "DELIVERED": {"ACKNOWLEDGED", "IN_PROGRESS", "WAITING", "FAILED", "CANCELED"},
        "ACKNOWLEDGED": {"IN_PROGRESS", "WAITING", "FAILED", "CANCELED"},
        "IN_PROGRESS": {"WAITING", "COMPLETED", "FAILED", "CANCELED"},
        "WAITING": {"IN_PROGRESS", "FAILED", "CANCELED"},
    }

    ours = {status.value: {to.value for to in moves.values()} for status, moves in MOVES.items() if moves}

    # An intent that was never submitted cannot fail there; a new wait may follow another at once.
    assert ours["CREATED"] - published["CREATED"] == {"FAILED", "CANCELED", "TIMED_OUT"}
    assert ours["WAITING"] - published["WAITING"] == {"WAITING", "TIMED_OUT"}
    for status in published.keys() - {"CREATED", "WAITING"}:
        assert ours[status] - published[status] == {"TIMED_OUT"}, status
    assert all(published[status] <= ours[status] for status in published)


def test_nothing_follows_a_final_status():
    """COMPLETED, FAILED, CANCELED and TIMED_OUT are for ever."""
    final = [status for status in Status if status.is_final]

    ways_out = {status: MOVES[status] for status in final}

    assert set(final) == FINAL
    assert ways_out == {key: {} for key in final}


def test_every_status_can_be_reached_and_every_open_one_can_end():
    """No status is a dead name, and none is a trap."""
    reached, frontier = {Status.CREATED}, [Status.CREATED]

    while frontier:
        found = set(MOVES[frontier.pop()].values()) - reached
        reached |= found
        frontier += found

    assert reached == set(Status)
    assert all({Status.FAILED, Status.CANCELED, Status.TIMED_OUT} <= set(MOVES[s].values()) for s in Status if MOVES[s])


def test_an_event_moves_an_intent_or_is_a_note_but_not_both():
    """A reader of the history can tell from its type whether an event changed the status."""
    moving = {event for moves in MOVES.values() for event in moves}

    both = moving & NOTES

    assert both == set()
    assert all(event.startswith("intent.") for event in moving | NOTES)


@pytest.mark.parametrize("status", sorted(FINAL))
def test_an_ended_intent_refuses_every_decision(status):
    """It says that it has ended, and how."""
    intent, leg = running_leg()
    ended = replace(intent, status=status, ended_at=NOON)
    record = replace(waiting(), intent=ended)

    decisions = [
        lambda: lifecycle.complete(ended, leg, "1", guard_at=None, token="x", on=at(NOON)),
        lambda: lifecycle.fail(
            ended, leg, {"code": "c", "message": "m"}, seen_by_celery=True, guard_at=None, token="x", on=at(NOON)
        ),
        lambda: lifecycle.cancel(ended, [leg], [], reason="r", by="ana", on=at(NOON)),
        lambda: lifecycle.time_out(ended, [leg], [], on=at(NOON)),
        lambda: lifecycle.lose(ended, leg, 1, cause="c", on=at(NOON)),
        lambda: lifecycle.park(ended, leg, code="c", reason="r", on=at(NOON)),
        lambda: lifecycle.answer(record, outcome="approved", by="ana", on=at(NOON)),
    ]

    for decide in decisions:
        with pytest.raises(IntentEnded) as refused:
            decide()
        assert refused.value.status == status
    assert fire(replace(record, wait=replace(record.wait, timeout_at=NOON)), NOON + HOUR) is None


# -- runs ----------------------------------------------------------------------------


def test_only_the_queued_run_can_be_claimed():
    """A duplicate of a message, an old one, and one for an ended intent find nothing to do."""
    intent = new_intent()
    submitted = lifecycle.submit(intent, new_leg(intent), start_at=None, on=at(NOON))
    intent, queued = submitted.intent, submitted.legs[0][1]
    claimed = lifecycle.claim(intent, queued, 1, worker="w", token="x", on=at(NOON)).legs[0][1]

    for leg, run in ((queued, 2), (queued, 0), (claimed, 1), (replace(queued, status=LegStatus.PARKED), 1)):
        with pytest.raises(StaleChange):
            lifecycle.claim(intent, leg, run, worker="w", token="y", on=at(NOON))

    assert (claimed.status, claimed.run, claimed.attempts) == (LegStatus.RUNNING, 1, 1)


def test_a_run_that_dies_is_followed_by_the_next_until_the_attempts_are_used_up():
    """The last one leaves a failed intent and a dead letter that names the worker."""
    intent, leg = running_leg(max_attempts=3)
    history = []

    for run in (1, 2, 3):
        change = lifecycle.lose(intent, leg, run, cause="its worker fell silent", on=at(NOON))
        history += told(change)
        intent, leg = change.intent, change.legs[0][1]
        if not leg.status.is_final:
            claimed = lifecycle.claim(intent, leg, run + 1, worker="w2", token="x", on=at(NOON))
            leg = claimed.legs[0][1]

    assert history == ["leg_lost", "leg_lost", "failed"]
    assert (intent.status, leg.status, leg.attempts) == (Status.FAILED, LegStatus.FAILED, 3)
    assert change.dead[0].code == "worker_lost" and "w2" in change.dead[0].reason


@pytest.mark.parametrize("decision", ["hand_back", "retry", "open_wait", "park"])
def test_only_runs_that_die_count_as_attempts(decision):
    """A deploy, a retry that Celery bounds, a wait and a parking cost nothing."""
    intent, leg = running_leg()
    wait = replace(waiting().wait, intent_id=intent.id, leg_id=leg.id)

    change = {
        "hand_back": lambda: lifecycle.hand_back(intent, leg, on=at(NOON)),
        "retry": lambda: lifecycle.retry(intent, leg, {}, cause="c", start_at=NOON, on=at(NOON)),
        "open_wait": lambda: lifecycle.open_wait(intent, leg, wait, on=at(NOON))[0],
        "park": lambda: lifecycle.park(intent, leg, code="drift", reason="r", on=at(NOON)),
    }[decision]()
    resting = change.legs[0][1]
    if decision == "park":
        resting = lifecycle.unpark(change.intent, resting, accept_drift=False, by="ops", on=at(NOON)).legs[0][1]

    assert leg.attempts == 1
    assert resting.attempts == 0


def test_a_message_nobody_started_is_sent_again_after_twice_as_long_up_to_eight_times():
    """The run stays the same, so whichever copy comes first is the one that runs. No leg sleeps for days over it."""
    intent = new_intent()
    leg = lifecycle.submit(intent, new_leg(intent), start_at=None, on=at(NOON)).legs[0][1]
    pauses, runs = [leg.due_at - NOON], []

    for _ in range(12):
        change = lifecycle.resend(leg, on=at(leg.due_at))
        pauses.append(change.legs[0][1].due_at - leg.due_at)
        leg = change.legs[0][1]
        runs.append((leg.run, change.outbox[0].run))

    minutes = [pause / timedelta(minutes=1) for pause in pauses]
    assert minutes == [10, 20, 40, *[80] * 10]
    assert set(runs) == {(1, 1)}


def test_a_start_in_the_future_is_a_delivery_in_the_future():
    """Nothing holds it meanwhile, and it is not taken for lost before its time."""
    intent = new_intent()

    change = lifecycle.submit(intent, new_leg(intent), start_at=NOON + 48 * HOUR, on=at(NOON))

    assert change.outbox[0].next_at == NOON + 48 * HOUR
    assert change.legs[0][1].due_at == NOON + 48 * HOUR + timedelta(minutes=10)


# -- waits ---------------------------------------------------------------------------


def test_an_answer_closes_the_wait_and_queues_the_next_run():
    """One change: the wait, the leg, the event and the message are written together or not at all."""
    record = waiting()

    change = lifecycle.answer(record, outcome="approved", by="ana", comment="fine", data='{"n":1}', on=at(NOON + HOUR))

    wait, leg = change.waits[0][1], change.legs[0][1]
    assert (wait.status, wait.outcome, wait.answered_by, wait.comment) == (
        WaitStatus.ANSWERED, "approved", "ana", "fine",
    )  # fmt: skip
    assert (wait.data, wait.closed_at, wait.due_at) == ('{"n":1}', NOON + HOUR, None)
    assert (leg.status, leg.run) == (LegStatus.QUEUED, 2)
    assert [(d.kind, d.run) for d in change.outbox] == [(DeliveryKind.LEG, 2)]
    assert told(change) == ["in_progress"]


@pytest.mark.parametrize("status", [WaitStatus.ANSWERED, WaitStatus.EXPIRED, WaitStatus.CANCELED])
def test_a_closed_wait_refuses_an_answer_and_says_who_closed_it_when(status):
    """The late approver learns what happened."""
    record = waiting()
    closed = replace(record.wait, status=status, closed_at=NOON, answered_by="ben")

    with pytest.raises(WaitClosed) as late:
        lifecycle.answer(replace(record, wait=closed), outcome="approved", by="ana", on=at(NOON + HOUR))

    assert (late.value.status, late.value.closed_by, late.value.closed_at) == (status.value, "ben", NOON)


def test_a_quorum_needs_that_many_different_people():
    """The votes before the last leave the wait open and are on record."""
    record = waiting(request={"quorum": 3})
    opinions = []

    for person in ("ana", "ben"):
        change = lifecycle.answer(record, outcome="approved", by=person, on=at(NOON))
        opinions.append((told(change), change.waits[0][1].status))
        record = after(record, change)
        with pytest.raises(NotAllowed):
            lifecycle.answer(record, outcome="approved", by=person, on=at(NOON))
    last = lifecycle.answer(record, outcome="approved", by="cem", on=at(NOON))

    assert opinions == [(["voted"], WaitStatus.OPEN)] * 2
    assert last.waits[0][1].status is WaitStatus.ANSWERED
    assert [vote["by"] for vote in last.waits[0][1].votes] == ["ana", "ben", "cem"]


def test_one_no_is_enough_whatever_the_quorum():
    """A quorum is asked of the outcome that says yes."""
    record = waiting(request={"quorum": 3})
    record = after(record, lifecycle.answer(record, outcome="approved", by="ana", on=at(NOON)))

    change = lifecycle.answer(record, outcome="rejected", by="ben", on=at(NOON))

    assert (change.waits[0][1].status, change.waits[0][1].outcome) == (WaitStatus.ANSWERED, "rejected")


def test_whoever_is_excluded_may_not_answer():
    """Who asked for it does not approve it."""
    record = waiting(request={"not_by": ["ana"]})

    with pytest.raises(NotAllowed, match="ana may not answer"):
        lifecycle.answer(record, outcome="approved", by="ana", on=at(NOON))

    assert lifecycle.answer(record, outcome="approved", by="ben", on=at(NOON)).waits[0][1].answered_by == "ben"


def test_reminders_come_at_their_interval_and_then_the_escalation():
    """Three reminders, then somebody else is asked as well; after that it is quiet."""
    request = {
        "remind_every_seconds": 3600,
        "max_reminders": 3,
        "escalation": [{"to": ["boss"], "after_seconds": None}],
    }
    record = waiting(request=request, remind_at=NOON + HOUR)
    diary = []

    for hours in range(1, 8):
        change = fire(record, NOON + hours * HOUR)
        if change is not None:
            diary.append((hours, *told(change), change.outbox[0].body["kind"], change.outbox[0].body["to"]))
            record = after(record, change)

    assert diary == [
        (1, "reminder", "reminder", ["ana"]),
        (2, "reminder", "reminder", ["ana"]),
        (3, "reminder", "reminder", ["ana"]),
        (4, "escalated", "escalation", ["boss"]),
    ]
    assert record.wait.to == ("ana", "boss")
    assert (record.wait.status, record.wait.due_at) == (WaitStatus.OPEN, None)


def test_a_sweep_that_comes_late_does_not_make_up_for_missed_reminders():
    """After a day without a sweep there is one reminder, not twenty-four, and the next not at once."""
    record = waiting(request={"remind_every_seconds": 3600, "max_reminders": 50}, remind_at=NOON + HOUR)

    change = fire(record, NOON + 24 * HOUR + timedelta(minutes=50))

    assert told(change) == ["reminder"]
    assert after(record, change).wait.reminders == 1
    assert after(record, change).wait.remind_at == NOON + 25 * HOUR + timedelta(minutes=20)


def test_an_escalation_in_time_ends_the_reminders():
    """``escalate_after`` does not wait for the last reminder."""
    request = {
        "remind_every_seconds": 3600,
        "max_reminders": 9,
        "escalation": [{"to": ["boss"], "after_seconds": None}],
    }
    record = waiting(request=request, remind_at=NOON + HOUR, escalate_at=NOON + 1.5 * HOUR)

    record = after(record, fire(record, NOON + HOUR))
    change = fire(record, NOON + 1.5 * HOUR)

    assert told(change) == ["escalated"]
    assert after(record, change).wait.due_at is None


def test_a_timeout_goes_before_reminder_and_escalation():
    """A late sweep does not remind anybody of what is over."""
    request = {
        "remind_every_seconds": 3600,
        "escalation": [{"to": ["boss"], "after_seconds": None}],
        "on_timeout": "fail",
    }
    record = waiting(request=request, remind_at=NOON + HOUR, escalate_at=NOON + HOUR, timeout_at=NOON + 2 * HOUR)

    change = fire(record, NOON + 24 * HOUR)

    assert told(change) == ["timeout", "in_progress"]
    assert [d.kind for d in change.outbox] == [DeliveryKind.LEG]


@pytest.mark.parametrize(
    ("on_timeout", "outcome"), [("fail", "timeout"), ("rejected", "rejected"), ("approved", "approved")]
)
def test_a_timeout_decides_as_it_was_asked_to(on_timeout, outcome):
    """It fails the wait, or gives the outcome named; the history says that the clock did it."""
    record = waiting(request={"on_timeout": on_timeout}, timeout_at=NOON + HOUR)

    early = fire(record, NOON + HOUR - timedelta(microseconds=1))
    change = fire(record, NOON + HOUR)

    wait = change.waits[0][1]
    assert early is None
    assert (wait.status, wait.outcome, wait.answered_by) == (WaitStatus.EXPIRED, outcome, "clock")
    assert {event.actor for event in change.events} == {"clock"}


def test_a_silent_tool_is_given_up_and_a_heartbeat_puts_that_off():
    """Each sign of life gives it the same while again."""
    record = waiting(WaitKind.TOOL, request={"heartbeat_seconds": 60}, heartbeat_at=NOON + timedelta(seconds=60))

    beaten = lifecycle.heartbeat(record.wait, on=at(NOON + timedelta(seconds=50)))
    record = after(record, beaten)
    still = fire(record, NOON + timedelta(seconds=109))
    silent = fire(record, NOON + timedelta(seconds=110))

    assert beaten.events == ()
    assert still is None
    assert (silent.waits[0][1].status, silent.waits[0][1].outcome) == (WaitStatus.EXPIRED, "heartbeat_missed")


def test_a_poll_is_sent_at_its_interval_and_leaves_no_event():
    """Polls may come every second; the history is for people."""
    record = waiting(WaitKind.TOOL, request={"poll_every_seconds": 30}, poll_at=NOON + timedelta(seconds=30))

    change = fire(record, NOON + timedelta(seconds=31))

    assert [d.kind for d in change.outbox] == [DeliveryKind.POLL]
    assert (change.events, change.intent) == ((), None)
    assert change.waits[0][1].poll_at == change.waits[0][1].due_at == NOON + timedelta(seconds=61)


def test_a_sleeper_woken_ahead_of_time_runs_at_its_moment():
    """The sweep may commit a wake-up early; its message still leaves on time, never before."""
    record = waiting(WaitKind.TIME, timeout_at=NOON + HOUR)

    too_early = lifecycle.fire(record, ahead=timedelta(seconds=2), on=at(NOON + HOUR - timedelta(seconds=3)))
    change = lifecycle.fire(record, ahead=timedelta(seconds=2), on=at(NOON + HOUR - timedelta(seconds=1)))

    assert too_early is None
    assert change.outbox[0].next_at == NOON + HOUR
    assert change.waits[0][1].closed_at == NOON + HOUR


def test_the_next_look_at_a_wait_is_at_its_earliest_moment():
    """One column is all the sweep has to look for."""
    moments = {
        "timeout_at": NOON + 5 * HOUR, "remind_at": NOON + 3 * HOUR, "escalate_at": NOON + 4 * HOUR,
        "heartbeat_at": NOON + 2 * HOUR, "poll_at": NOON + HOUR,
    }  # fmt: skip
    wait = waiting(**moments).wait
    seen = [lifecycle.due(wait)]

    for name in ("poll_at", "heartbeat_at", "remind_at", "escalate_at", "timeout_at"):
        wait = replace(wait, **{name: None})
        seen.append(lifecycle.due(wait))

    assert seen == [*sorted(moments.values()), None]
    assert lifecycle.due(replace(wait, status=WaitStatus.ANSWERED, timeout_at=NOON)) is None


def test_ending_an_intent_ends_all_that_is_open_of_it():
    """Legs, waits and the child intents somebody waits for."""
    record = waiting(WaitKind.AGENT, tool="intent", job_id="child-1")

    change = lifecycle.cancel(record.intent, [record.leg], [record.wait], reason="no need", by="ana", on=at(NOON))

    assert change.intent.status is Status.CANCELED and change.intent.ended_at == NOON
    assert [leg.status for _, leg in change.legs] == [LegStatus.CANCELED]
    assert [wait.status for _, wait in change.waits] == [WaitStatus.CANCELED]
    cancels = [d.body["intent_id"] for d in change.outbox if d.kind is DeliveryKind.CANCEL]
    assert cancels == ["child-1"]


# -- starting again from recorded work --------------------------------------------------


def checkpoint(position: int, recorded: Recorded = Recorded.DONE) -> Checkpoint:
    return Checkpoint(leg_id="old", name=f"s{position}", nth=1, position=position, run=4, recorded=recorded)


@pytest.mark.parametrize(
    ("last", "start"),
    [
        (checkpoint(1), None),
        (checkpoint(1, Recorded.FAILED), 1),
        (checkpoint(1, Recorded.STARTED), None),
    ],
    ids=["all is well recorded", "the last step failed", "the last step was interrupted"],
)
def test_a_replay_starts_at_what_failed_last(last, start):
    """An interrupted at-most-once step keeps its mark: nobody knows whether it happened."""
    checkpoints = [checkpoint(0), last]

    found = lifecycle.replay_from(checkpoints, [])

    assert found == start


def test_a_replay_asks_an_expired_wait_again_but_not_an_answered_one():
    """What a person decided stays decided."""
    answered = replace(waiting().wait, status=WaitStatus.ANSWERED, position=1)
    expired = replace(waiting().wait, status=WaitStatus.EXPIRED, position=1)

    from_answered = lifecycle.replay_from([checkpoint(0)], [answered])
    from_expired = lifecycle.replay_from([checkpoint(0)], [expired])

    assert (from_answered, from_expired) == (None, 1)


def test_recorded_work_brought_along_is_older_than_every_run_of_the_new_leg():
    """So that an operator who accepts drift in the new intent accepts what the old one brought."""
    intent = new_intent()
    wait = replace(waiting().wait, status=WaitStatus.ANSWERED, position=1, run=4)

    change = lifecycle.repeat(intent, new_leg(intent), [checkpoint(0)], [wait], upto=None, on=at(NOON))

    leg = change.legs[0][1]
    assert [c.run < leg.run for c in change.checkpoints] == [True]
    assert [w.run < leg.run for _, w in change.waits] == [True]
    assert leg.has_history


# -- any sequence of decisions -----------------------------------------------------------


class Decisions(RuleBasedStateMachine):
    """One intent and everybody who may decide about it, in any order, at any time."""

    waits_opened = Bundle("waits_opened")

    @initialize(max_attempts=st.integers(1, 3), deadline=st.booleans())
    def submitted(self, max_attempts: int, deadline: bool) -> None:
        self.now = NOON
        intent = new_intent(deadline_at=NOON + 50 * HOUR if deadline else None)
        change = lifecycle.submit(intent, new_leg(intent, max_attempts=max_attempts), start_at=None, on=at(NOON))
        self.intent, self.leg = change.intent, change.legs[0][1]
        self.waits: dict[str, Wait] = {}
        self.events: list[Event] = list(change.events)
        self.messages = {(d.leg_id, d.run) for d in change.outbox if d.kind is DeliveryKind.LEG}
        self.closed: dict[str, Wait] = {}

    def decide(self, decision: Any) -> None:
        """Carry out a decision as the ledger would; a refusal changes nothing."""
        try:
            changes = decision()
        except (StaleChange, IntentEnded, WaitClosed, NotAllowed, BadInput):
            return
        for change in changes if isinstance(changes, tuple) else (changes,):
            if change is None:
                continue
            assert not self.intent.status.is_final or change.intent is None, "an ended intent was changed"
            if change.intent is not None:
                assert change.before == self.intent.seq
                self.intent = change.intent
            self.events += change.events
            for was, leg in change.legs:
                assert was == self.leg
                self.leg = leg
            for was, wait in change.waits:
                assert was == self.waits.get(wait.id)
                self.waits[wait.id] = wait
            self.messages |= {(d.leg_id, d.run) for d in change.outbox if d.kind is DeliveryKind.LEG}

    def running(self) -> bool:
        return self.leg.status is LegStatus.RUNNING

    def any_wait(self, data: st.DataObject) -> WaitRecord | None:
        if not self.waits:
            return None
        return WaitRecord(self.intent, self.leg, self.waits[data.draw(st.sampled_from(sorted(self.waits)))])

    @rule(hours=st.floats(0, 9))
    def time_passes(self, hours: float) -> None:
        self.now += hours * HOUR

    @rule(off=st.sampled_from([0, 0, 0, -1, 1]))
    def a_worker_claims(self, off: int) -> None:
        run = self.leg.run + off
        self.decide(lambda: lifecycle.claim(self.intent, self.leg, run, worker="w", token="x", on=at(self.now)))

    @precondition(running)
    @rule(guarded=st.booleans())
    def the_body_returns(self, guarded: bool) -> None:
        guard = self.now if guarded else None
        self.decide(lambda: lifecycle.complete(self.intent, self.leg, "1", guard_at=guard, token="y", on=at(self.now)))

    @precondition(running)
    @rule()
    def the_body_raises(self) -> None:
        error = {"code": "E", "message": "m"}
        self.decide(
            lambda: lifecycle.fail(
                self.intent, self.leg, error, seen_by_celery=True, guard_at=None, token="y", on=at(self.now)
            )
        )

    @precondition(running)
    @rule()
    def the_task_asks_for_a_retry(self) -> None:
        self.decide(
            lambda: lifecycle.retry(self.intent, self.leg, {}, cause="c", start_at=self.now + HOUR, on=at(self.now))
        )

    @precondition(running)
    @rule()
    def the_worker_is_stopped(self) -> None:
        self.decide(lambda: lifecycle.hand_back(self.intent, self.leg, on=at(self.now)))

    @rule(off=st.sampled_from([0, 0, -1]))
    def the_worker_dies(self, off: int) -> None:
        self.decide(lambda: lifecycle.lose(self.intent, self.leg, self.leg.run + off, cause="c", on=at(self.now)))

    @precondition(running)
    @rule()
    def the_code_has_drifted(self) -> None:
        self.decide(lambda: lifecycle.park(self.intent, self.leg, code="drift", reason="r", on=at(self.now)))

    @rule(accept=st.booleans())
    def an_operator_unparks(self, accept: bool) -> None:
        if not self.intent.status.is_final:
            self.decide(lambda: lifecycle.unpark(self.intent, self.leg, accept_drift=accept, by="ops", on=at(self.now)))

    @precondition(running)
    @rule(
        kind=st.sampled_from(WaitKind),
        quorum=st.integers(1, 2),
        moments=st.lists(st.floats(0.1, 9), min_size=5, max_size=5),
        present=st.lists(st.booleans(), min_size=5, max_size=5),
        on_timeout=st.sampled_from(["fail", "rejected"]),
        policy=st.sampled_from(["any", "quorum"]),
        fallback=st.booleans(),
    )
    def the_body_waits(self, kind, quorum, moments, present, on_timeout, policy, fallback) -> None:
        names = ("timeout_at", "remind_at", "escalate_at", "heartbeat_at", "poll_at")
        chosen = {n: self.now + h * HOUR for n, h, on in zip(names, moments, present, strict=True) if on}
        if kind is WaitKind.TIME:
            chosen = {"timeout_at": self.now + moments[0] * HOUR}
        request = {
            "outcomes": ["approved", "rejected"], "quorum": quorum, "remind_every_seconds": 3600, "max_reminders": 2,
            "escalation": [{"to": ["boss"], "after_seconds": None}, {"to": ["cto"], "after_seconds": 20000}],
            "heartbeat_seconds": 1800, "poll_every_seconds": 900, "on_timeout": on_timeout, "reject_policy": policy,
        }  # fmt: skip
        if fallback and "timeout_at" in chosen:
            request |= {"fallback": ["night"], "timeout_seconds": 7200.0}
        wait = Wait(
            id=f"w-{next(_ids)}", intent_id=self.intent.id, leg_id=self.leg.id, name="w", nth=len(self.waits) + 1,
            position=0, run=self.leg.run, kind=kind, title="?", to=("ana",), request=request, opened_at=self.now,
            tool="t", job_id="j", **chosen,
        )  # fmt: skip
        self.decide(lambda: lifecycle.open_wait(self.intent, self.leg, wait, on=at(self.now)))

    @rule(data=st.data(), outcome=st.sampled_from(["approved", "rejected"]), by=st.sampled_from(["ana", "ben", "cem"]))
    def somebody_answers(self, data: st.DataObject, outcome: str, by: str) -> None:
        record = self.any_wait(data)
        if record is not None:
            self.decide(lambda: lifecycle.answer(record, outcome=outcome, by=by, on=at(self.now)))

    @rule(data=st.data(), by=st.sampled_from(["ana", "ben", "boss"]), to=st.sampled_from(["ben", "cem", "boss"]))
    def somebody_delegates(self, data: st.DataObject, by: str, to: str) -> None:
        record = self.any_wait(data)
        if record is not None:
            self.decide(lambda: lifecycle.delegate(record, to, by=by, names=(), reason=None, on=at(self.now)))

    @rule(data=st.data(), to=st.sets(st.sampled_from(["ana", "ben", "cem"]), min_size=1))
    def an_operator_reassigns(self, data: st.DataObject, to: set[str]) -> None:
        record = self.any_wait(data)
        if record is not None:
            self.decide(lambda: lifecycle.reassign(record, tuple(sorted(to)), by="ops", reason="r", on=at(self.now)))

    @rule(data=st.data(), hours=st.floats(0.1, 9), whole=st.booleans())
    def somebody_asks_for_more_time(self, data: st.DataObject, hours: float, whole: bool) -> None:
        record, until = self.any_wait(data), self.now + hours * HOUR
        if whole:
            self.decide(lambda: lifecycle.extend_intent(self.intent, until, by="ops", reason=None, on=at(self.now)))
        elif record is not None:
            self.decide(lambda: lifecycle.extend_wait(record, until, by="ops", reason=None, on=at(self.now)))

    @rule(data=st.data())
    def the_sweep_comes_by(self, data: st.DataObject) -> None:
        record = self.any_wait(data)
        if record is not None:
            self.decide(lambda: lifecycle.fire(record, ahead=timedelta(seconds=2), on=at(self.now)))

    @rule(data=st.data())
    def the_tool_is_alive(self, data: st.DataObject) -> None:
        record = self.any_wait(data)
        if record is not None:
            self.decide(lambda: lifecycle.heartbeat(record.wait, on=at(self.now)))

    @rule()
    def the_message_was_lost(self) -> None:
        if self.leg.status is LegStatus.QUEUED:
            self.decide(lambda: lifecycle.resend(self.leg, on=at(self.now)))

    @rule(seldom=st.integers(0, 9))
    def somebody_cancels(self, seldom: int) -> None:
        if seldom == 0:
            waits = list(self.waits.values())
            self.decide(lambda: lifecycle.cancel(self.intent, [self.leg], waits, reason="r", by="ana", on=at(self.now)))

    @rule()
    def the_deadline_is_looked_at(self) -> None:
        if self.intent.deadline_at is not None and self.intent.deadline_at <= self.now:
            waits = list(self.waits.values())
            self.decide(lambda: lifecycle.time_out(self.intent, [self.leg], waits, on=at(self.now)))

    # -- what always holds --

    @invariant()
    def the_history_is_gapless_and_each_event_may_follow_the_one_before(self) -> None:
        assert [event.seq for event in self.events] == list(range(1, self.intent.seq + 1))
        status, reason = Status.CREATED, None
        for event in self.events[1:]:
            if event.type in NOTES:
                assert (event.status, event.waiting_reason) == (status, reason)
            else:
                assert MOVES[status][event.type] is event.status
            status, reason = event.status, event.waiting_reason
            assert (reason is not None) == (status is Status.WAITING)
        assert (self.intent.status, self.intent.waiting_reason) == (status, reason)
        assert (self.intent.ended_at is not None) == status.is_final

    @invariant()
    def a_wait_closes_once(self) -> None:
        for wait in self.waits.values():
            if wait.status is not WaitStatus.OPEN:
                assert self.closed.setdefault(wait.id, wait) == wait
                assert wait.due_at is None and wait.closed_at is not None

    @invariant()
    def nobody_has_two_voices(self) -> None:
        for wait in self.waits.values():
            voices = [vote["by"] for vote in wait.votes] + [given["by"] for given in wait.delegations]
            assert len(set(voices)) == len(voices)
            assert wait.kind is not WaitKind.HUMAN or wait.to

    @invariant()
    def what_is_shown_stays_as_it_was(self) -> None:
        for wait in self.waits.values():
            if wait.kind is WaitKind.HUMAN:
                assert wait.payload_hash == lifecycle.shown_hash(wait.title, wait.request, self.intent.payload)

    @invariant()
    def whatever_rests_has_something_that_will_move_it(self) -> None:
        open_waits = [w for w in self.waits.values() if w.status is WaitStatus.OPEN]
        match self.leg.status:
            case LegStatus.QUEUED:
                assert (self.leg.id, self.leg.run) in self.messages and self.leg.due_at is not None
            case LegStatus.WAITING:
                assert [w.kind.waiting_reason for w in open_waits] == [self.intent.waiting_reason]
                assert all(w.due_at is not None for w in open_waits if w.timeout_at is not None)
            case LegStatus.RUNNING | LegStatus.PARKED:
                assert self.intent.status is Status.IN_PROGRESS
        if self.leg.status is not LegStatus.WAITING:
            assert open_waits == []
        assert self.intent.status.is_final == self.leg.status.is_final
        assert 0 <= self.leg.attempts <= self.leg.max_attempts


TestDecisions = Decisions.TestCase
TestDecisions.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
