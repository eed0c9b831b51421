"""The drawing of an intent: every run and wait has its place, and long ones leave room for short ones."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from axme_celery.model import Event, Leg, LegStatus, Status, StepMark, Wait, WaitKind, WaitStatus
from axme_celery.web.pages import timeline

START = datetime(2026, 10, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def leg(name="a", ended=None, status=None, run=1, began=START, **more):
    status = status or (LegStatus.DONE if ended else LegStatus.RUNNING)
    return Leg(
        id=name, intent_id="i", task=f"shop.{name}", signature={}, status=status, run=run, created_at=START,
        started_at=began, ended_at=ended, **more,
    )  # fmt: skip


def step(run, moment, name="s"):
    return StepMark(leg_id="a", name=name, nth=1, position=0, run=run, at=moment)


def told(type, moment, run):
    return Event(
        intent_id="i", seq=1, type=f"intent.{type}", status=Status.IN_PROGRESS, at=moment, leg_id="a",
        details={"run": run},
    )  # fmt: skip


def drawn(leg, steps=(), waits=(), events=(), now=1000):
    """[(kind, words, from, until)] of its lane, in seconds; until is None for what goes on."""
    bars = timeline.draw([leg], steps, waits, events, at(now), folded=True).lanes[0].bars
    seconds = [((bar.start - START).total_seconds(), (bar.end - START).total_seconds()) for bar in bars]
    return [
        (bar.kind, bar.words, start, None if bar.goes_on else end)
        for bar, (start, end) in zip(bars, seconds, strict=True)
    ]


def wait(leg_id, opened, closed, nth=1):
    return Wait(
        id=f"{leg_id}{nth}", intent_id="i", leg_id=leg_id, name="wait_for_human", nth=nth, position=nth, run=nth,
        kind=WaitKind.HUMAN, status=WaitStatus.ANSWERED if closed else WaitStatus.OPEN, title="Go on?", to=("ana",),
        opened_at=opened, closed_at=closed,
    )  # fmt: skip


@pytest.mark.parametrize("folded", [True, False])
def test_runs_and_waits_follow_one_another_without_a_gap(folded):
    """From the leg's beginning to its end."""
    waits = [wait("a", at(5), at(100_000)), wait("a", at(100_010), at(200_000), 2)]

    chart = timeline.draw([leg(ended=at(200_020), run=3)], [], waits, [], at(300_000), folded=folded)

    bars = chart.lanes[0].bars
    assert [bar.kind for bar in bars] == ["run", "wait", "unsure", "wait", "unsure"]
    assert [(bar.start, bar.end) for bar in bars][1:] == [(bars[n].end, bars[n + 1].end) for n in range(4)], (
        "each begins where the one before ends"
    )
    assert not any(bar.goes_on for bar in bars)


def test_work_of_seconds_is_to_be_seen_beside_a_wait_of_days():
    """Which is what folding is for."""
    waits = [wait("a", at(5), at(200_000))]
    given = ([leg(ended=at(200_010), run=2)], [], waits, [], at(200_010))

    folded, even = (timeline.draw(*given, folded=folded) for folded in (True, False))

    assert folded.lanes[0].bars[0].width > 20 > 5 > even.lanes[0].bars[0].width


@pytest.mark.parametrize(("status", "words"), [(LegStatus.PENDING, "not started"), (LegStatus.QUEUED, "queued")])
def test_a_leg_that_nobody_has_begun_is_not_drawn_as_running(status, words):
    """Whether its turn has not come or no worker took it yet."""
    assert drawn(leg(status=status, began=None)) == [("idle", words, 0, None)]


def test_a_leg_runs_from_when_a_worker_took_it():
    """The time before was spent in a queue."""
    assert drawn(leg(began=at(40), ended=at(50))) == [("idle", "not started", 0, 40), ("run", "run 1", 40, 50)]
    assert drawn(leg(began=None, ended=at(50), status=LegStatus.CANCELED)) == [("idle", "not started", 0, 50)]


def test_a_killed_run_is_drawn_as_one_until_its_last_sign_of_life_only():
    """Between that and when it was found lost it died; when the next began, only that one's first step tells."""
    lost = told("leg_lost", at(25), 1)
    steps = [step(1, at(5)), step(1, at(10), "t"), step(2, at(60), "u")]

    assert drawn(leg(run=2, ended=at(70)), steps, (), [lost]) == [
        ("run", "run 1", 0, 10),
        ("lost", "run 1, found lost at the end of this", 10, 25),
        ("unsure", "queued, or in run 2", 25, 60),
        ("run", "run 2", 60, 70),
    ]


def test_between_two_runs_nothing_is_claimed_that_is_not_recorded():
    """A leg that waits for a worker again is queued; one that is taken began its run at some moment since."""
    lost = told("leg_lost", at(25), 1)

    queued = drawn(leg(run=2, status=LegStatus.QUEUED), [step(1, at(5))], (), [lost])
    running = drawn(leg(run=2), [step(1, at(5))], (), [lost])

    assert queued[-1] == ("idle", "queued", 25, None)
    assert running[-1] == ("unsure", "queued, or in run 2", 25, None)


def test_the_last_run_of_a_leg_that_lost_its_workers_is_drawn_as_lost():
    """Its attempts were used up, so nothing says that it was lost but how the leg ended."""
    lost = leg(ended=at(30), status=LegStatus.FAILED, error={"code": "worker_lost", "message": "1 runs ended"})

    assert drawn(lost, [step(1, at(5))])[-1] == ("lost", "run 1, found lost at the end of this", 5, 30)


def test_a_parked_leg_is_drawn_as_parked_until_an_operator_lets_it_go_on():
    """With why."""
    parked, unparked = told("parked", at(5), 1), told("unparked", at(90), 2)
    at_rest = leg(status=LegStatus.PARKED, parked="the code has changed")

    assert drawn(at_rest, (), (), [parked]) == [
        ("run", "run 1", 0, 5),
        ("parked", "parked", 5, None),
    ]
    assert drawn(leg(run=2, status=LegStatus.QUEUED), (), (), [parked, unparked])[1:] == [
        ("parked", "parked", 5, 90),
        ("idle", "queued", 90, None),
    ]


def test_a_history_of_which_the_beginning_is_not_read_claims_no_more_runs_than_it_knows():
    """Only the last so many events are, so that which run was when can be open."""
    assert drawn(leg(run=3, ended=at(50))) == [("run", "runs 1 to 3", 0, 50)]


def test_what_goes_on_goes_on_until_now():
    """An open wait, a running leg."""
    chart = timeline.draw([leg(status=LegStatus.WAITING)], [], [wait("a", at(5), None)], [], at(60), folded=True)

    last = chart.lanes[0].bars[-1]
    assert last.goes_on and last.end == at(60) and chart.lines[-1][3] is None
    assert timeline.draw([], [], [], [], at(0), folded=True) is None


def test_a_moment_is_a_drawing_too():
    """Everything at once divides by nothing."""
    chart = timeline.draw([leg(ended=START)], [], [], [], START, folded=False)

    assert chart is not None and chart.lanes[0].bars[0].width >= 1


def test_nothing_ever_leaves_the_canvas():
    """A thousand random lives."""
    dice = random.Random(5)
    for _ in range(300):
        legs, waits, steps = [], [], []
        for name in "abc"[: dice.randrange(1, 4)]:
            moments = sorted(at(dice.choice([0, 1, 60, 86400]) * dice.random()) for _ in range(5))
            legs.append(leg(name, ended=moments[4] if dice.random() < 0.7 else None, run=dice.randrange(1, 3)))
            waits.append(wait(name, moments[1], moments[2] if dice.random() < 0.7 else None))
            steps.append(StepMark(leg_id=name, name="s", nth=1, position=0, run=1, at=moments[3]))
        chart = timeline.draw(legs, steps, waits, [], at(90_000), folded=dice.random() < 0.5)
        for lane in chart.lanes:
            for bar in lane.bars:
                assert 0 <= bar.x <= timeline.WIDTH and 0 < bar.width <= timeline.WIDTH + 4
            assert all(0 <= mark.x <= timeline.WIDTH for mark in lane.marks)
        places = [x for x, _, _ in chart.ticks]
        assert places == sorted(places) and places[-1] == timeline.WIDTH
