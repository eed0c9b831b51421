"""An intent's life as a drawing: a lane for each leg, its runs and waits as bars, everything else as marks on them.

Work takes seconds and waiting takes days: drawn evenly, the work would be invisible. So long stretches are folded,
which the axis says by the moments at its ticks, and the same is in a table below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise

from ...model import Checkpoint, Event, Leg, Wait

WIDTH = 1000.0
LANE = 50.0
TOP = 24.0
#: Lanes beyond these are in the table only.
MOST_LANES = 40
#: Marks of one lane; beyond them they would be one black bar.
MOST_MARKS = 200

_MARKS = {
    "intent.reminder": "reminder", "intent.escalated": "escalation", "intent.leg_retried": "retry",
    "intent.leg_lost": "lost", "intent.handed_back": "retry", "intent.voted": "vote", "intent.delegated": "vote",
    "intent.reassigned": "vote", "intent.extended": "vote", "intent.parked": "lost",
}  # fmt: skip


@dataclass(frozen=True)
class Bar:
    """A stretch of time: a run or a wait."""

    kind: str  # "run", "wait", "idle"
    words: str
    start: datetime
    end: datetime
    x: float = 0.0
    width: float = 0.0
    goes_on: bool = False


@dataclass(frozen=True)
class Mark:
    """A moment: a step recorded, a reminder, a retry."""

    kind: str
    words: str
    at: datetime
    x: float = 0.0


@dataclass
class Lane:
    """A leg."""

    name: str
    y: float
    bars: list[Bar] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)


@dataclass(frozen=True)
class Chart:
    """What is drawn, in units of a canvas ``WIDTH`` wide."""

    lanes: list[Lane]
    ticks: list[tuple[float, datetime, str]]
    height: float
    left_out: int
    #: How long it is from end to end.
    seconds: float

    @property
    def lines(self) -> list[tuple[str, str, datetime, datetime | None]]:
        """The same as a table: leg, what, from, until; in the order it happened."""
        found: list[tuple[str, str, datetime, datetime | None]] = []
        for lane in self.lanes:
            found += [(lane.name, bar.words, bar.start, None if bar.goes_on else bar.end) for bar in lane.bars]
            found += [(lane.name, mark.words, mark.at, mark.at) for mark in lane.marks if mark.kind != "step"]
        return sorted(found, key=lambda line: line[2])


def draw(
    legs: Sequence[Leg],
    steps: Sequence[Checkpoint],
    waits: Sequence[Wait],
    events: Sequence[Event],
    now: datetime,
    *,
    folded: bool,
) -> Chart | None:
    """The drawing; None while there is nothing to draw."""
    lanes = [_lane(n, leg, steps, waits, events, now) for n, leg in enumerate(legs[:MOST_LANES])]
    if not lanes:
        return None
    moments = [bar.start for lane in lanes for bar in lane.bars] + [bar.end for lane in lanes for bar in lane.bars]
    axis = _Axis(moments, folded)
    for lane in lanes:
        lane.bars = [_placed(bar, axis) for bar in lane.bars]
        lane.marks = [
            Mark(mark.kind, mark.words, mark.at, axis.x(mark.at)) for mark in lane.marks[:MOST_MARKS]
        ]  # fmt: skip
    return Chart(lanes, axis.ticks(), TOP + LANE * len(lanes) + 8, max(0, len(legs) - MOST_LANES), axis.seconds)


def _lane(
    number: int, leg: Leg, steps: Sequence[Checkpoint], waits: Sequence[Wait], events: Sequence[Event], now: datetime
) -> Lane:
    lane = Lane(leg.task, TOP + LANE * number)
    end = leg.ended_at or now
    own = sorted((wait for wait in waits if wait.leg_id == leg.id and wait.run), key=lambda wait: wait.opened_at)
    at = leg.created_at
    for wait in own:
        if wait.opened_at > at:
            lane.bars.append(Bar("run", "running", at, wait.opened_at))
        until = wait.closed_at or end
        for_whom = ", ".join(wait.to) or wait.tool or wait.kind.lower()
        lane.bars.append(
            Bar("wait", f"waiting for {for_whom}: {wait.title}", wait.opened_at, until, goes_on=wait.closed_at is None)
        )
        at = max(at, until)
    if end > at or not own:
        lane.bars.append(Bar("run", "running", at, max(end, at), goes_on=leg.ended_at is None))
    lane.marks += [
        Mark("step", f"step {step.name}", step.at)
        for step in steps
        if step.leg_id == leg.id and step.at is not None and step.run
    ]
    for event in events:
        if event.leg_id == leg.id and event.type in _MARKS:
            words = event.type.removeprefix("intent.").replace("_", " ")
            lane.marks.append(Mark(_MARKS[event.type], words, event.at))
    return lane


def _placed(bar: Bar, axis: _Axis) -> Bar:
    x = axis.x(bar.start)
    return Bar(bar.kind, bar.words, bar.start, bar.end, x, max(4.0, axis.x(bar.end) - x), bar.goes_on)


class _Axis:
    """From moments to places. Folded: a stretch is as wide as the cube root of its length."""

    def __init__(self, moments: Sequence[datetime], folded: bool) -> None:
        stops = sorted(set(moments))
        if len(stops) == 1:
            stops.append(stops[0] + timedelta(seconds=1))
        lengths = [max((b - a).total_seconds(), 1e-6) for a, b in pairwise(stops)]
        widths = [length ** (1 / 3) if folded else length for length in lengths]
        scale = WIDTH / sum(widths)
        self._stops = [(stops[0], 0.0)]
        for stop, width in zip(stops[1:], widths, strict=True):
            self._stops.append((stop, self._stops[-1][1] + width * scale))

    @property
    def seconds(self) -> float:
        """From end to end."""
        return (self._stops[-1][0] - self._stops[0][0]).total_seconds()

    def x(self, at: datetime) -> float:
        """Where a moment is."""
        if at <= self._stops[0][0]:
            return 0.0
        for (a, x1), (b, x2) in pairwise(self._stops):
            if at <= b:
                return round(x1 + (x2 - x1) * ((at - a) / (b - a)), 1)
        return WIDTH

    def ticks(self) -> list[tuple[float, datetime, str]]:
        """Moments to write along the axis, far enough apart to be read: (place, moment, how it is aligned)."""
        chosen: list[tuple[float, datetime, str]] = []
        for at, x in self._stops:
            if not chosen or (x - chosen[-1][0] > 130 and x < WIDTH - 130):
                chosen.append((round(x, 1), at, "start" if not chosen else "middle"))
        chosen.append((WIDTH, self._stops[-1][0], "end"))
        return chosen
