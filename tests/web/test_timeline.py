"""The drawing of an intent: every run and wait has its place, and long ones leave room for short ones."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from axme_celery.model import Checkpoint, Leg, Wait, WaitKind, WaitStatus
from axme_celery.web.pages import timeline

START = datetime(2026, 10, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def leg(name="a", ended=None):
    return Leg(id=name, intent_id="i", task=f"shop.{name}", signature={}, created_at=START, ended_at=ended)


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

    chart = timeline.draw([leg(ended=at(200_020))], [], waits, [], at(300_000), folded=folded)

    bars = chart.lanes[0].bars
    assert [bar.kind for bar in bars] == ["run", "wait", "run", "wait", "run"]
    assert [(bar.start, bar.end) for bar in bars][1:] == [(bars[n].end, bars[n + 1].end) for n in range(4)], (
        "each begins where the one before ends"
    )
    assert not any(bar.goes_on for bar in bars)


def test_work_of_seconds_is_to_be_seen_beside_a_wait_of_days():
    """Which is what folding is for."""
    waits = [wait("a", at(5), at(200_000))]
    given = ([leg(ended=at(200_010))], [], waits, [], at(200_010))

    folded, even = (timeline.draw(*given, folded=folded) for folded in (True, False))

    assert folded.lanes[0].bars[0].width > 20 > 5 > even.lanes[0].bars[0].width


def test_what_goes_on_goes_on_until_now():
    """An open wait, a running leg."""
    chart = timeline.draw([leg()], [], [wait("a", at(5), None)], [], at(60), folded=True)

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
            legs.append(leg(name, ended=moments[4] if dice.random() < 0.7 else None))
            waits.append(wait(name, moments[1], moments[2] if dice.random() < 0.7 else None))
            steps.append(Checkpoint(leg_id=name, name="s", nth=1, position=0, run=1, at=moments[3]))
        chart = timeline.draw(legs, steps, waits, [], at(90_000), folded=dice.random() < 0.5)
        for lane in chart.lanes:
            for bar in lane.bars:
                assert 0 <= bar.x <= timeline.WIDTH and 0 < bar.width <= timeline.WIDTH + 4
            assert all(0 <= mark.x <= timeline.WIDTH for mark in lane.marks)
        places = [x for x, _, _ in chart.ticks]
        assert places == sorted(places) and places[-1] == timeline.WIDTH
