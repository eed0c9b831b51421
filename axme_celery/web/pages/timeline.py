"""An intent's life as a drawing: a lane for each leg, its runs and waits as bars, everything else as marks on them.

Work takes seconds and waiting takes days: drawn evenly, the work would be invisible. So long stretches are folded,
which the axis says by the moments at its ticks, and the same is in a table below.

It claims no more than the ledger has. That keeps when a leg was first taken by a worker and how each run ended, but
not when a later run began, for to claim it writes no event; nor when a worker died. Of both, what a run left behind
(steps, waits, its end) is the proof, and a stretch without proof is drawn as such.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from itertools import pairwise

from ...model import Event, Leg, LegStatus, StepMark, Wait

WIDTH = 1000.0
LANE = 50.0
TOP = 24.0
#: Legs beyond these are not drawn.
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
    """A stretch of time: a run, a wait, or the time between."""

    kind: str  # "run", "wait", "parked"; "idle": nobody's; "unsure": a queue or a run; "lost": a run, or nobody's
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
    #: Whether it has more legs than are drawn.
    is_cut: bool
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
    steps: Sequence[StepMark],
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
    return Chart(lanes, axis.ticks(), TOP + LANE * len(lanes) + 8, len(legs) > MOST_LANES, axis.seconds)


def _lane(
    number: int, leg: Leg, steps: Sequence[StepMark], waits: Sequence[Wait], events: Sequence[Event], now: datetime
) -> Lane:
    lane = Lane(leg.task, TOP + LANE * number)
    steps = [step for step in steps if step.leg_id == leg.id and step.at is not None and step.run]
    events = [event for event in events if event.leg_id == leg.id]
    waits = [wait for wait in waits if wait.leg_id == leg.id and wait.run]
    life = _Life(leg)
    for _, turn in sorted(_turns(leg, steps, waits, events), key=lambda one: one[0]):
        turn(life)
    lane.bars = life.until(leg.ended_at or now)
    lane.marks += [Mark("step", f"step {step.name}", step.at) for step in steps if step.at is not None]
    for event in events:
        if event.type in _MARKS:
            words = event.type.removeprefix("intent.").replace("_", " ")
            lane.marks.append(Mark(_MARKS[event.type], words, event.at))
    return lane


_Turn = tuple[tuple[datetime, int], Callable[["_Life"], None]]


def _turns(leg: Leg, steps: Sequence[StepMark], waits: Sequence[Wait], events: Sequence[Event]) -> Iterator[_Turn]:
    """The moments of a leg that say what it did, each with what that makes of its life."""
    if leg.started_at is not None:
        yield (leg.started_at, 0), partial(_Life.seen, at=leg.started_at)
    for step in steps:
        if step.at is not None:
            yield (step.at, 1), partial(_Life.seen, at=step.at, run=step.run)
    for wait in waits:
        yield (wait.opened_at, 2), partial(_Life.waits, wait=wait)
        if wait.closed_at is not None:
            yield (wait.closed_at, 3), partial(_Life.woken, at=wait.closed_at)
    for event in events:
        match event.type:
            case "intent.leg_lost":
                yield (event.at, 2), partial(_Life.queued, at=event.at, after=event.details.get("run"), lost=True)
            case "intent.leg_retried" | "intent.handed_back":
                yield (event.at, 2), partial(_Life.queued, at=event.at, after=event.details.get("run"))
            case "intent.parked":
                yield (event.at, 2), partial(_Life.becomes, at=event.at, kind="parked", words="parked")
            case "intent.unparked":
                yield (event.at, 3), partial(_Life.queued, at=event.at)


class _Life:
    """A leg's bars, moment after moment."""

    def __init__(self, leg: Leg) -> None:
        self._leg = leg
        self._bars: list[Bar] = []
        self._at = leg.created_at
        self._kind, self._words = "idle", "not started"
        #: The last that is known of the run that goes on.
        self._sign = leg.created_at
        self.run = 1

    def seen(self, at: datetime, run: int | None = None) -> None:
        """A run was at work."""
        before, self.run = self.run, max(self.run, run or 0)
        if self._kind == "run":
            if self.run > before:
                self._words = f"runs {before} to {self.run}"
        else:
            self.becomes(at, "run", f"run {self.run}")
        self._sign = at

    def waits(self, wait: Wait) -> None:
        """A run came to a wait; one that is answered already does not stop it."""
        for_whom = ", ".join(wait.to) or wait.tool or wait.kind.lower()
        words = f"waiting for {for_whom}: {wait.title}"
        if wait.closed_at is not None and wait.closed_at <= wait.opened_at:
            self.seen(wait.opened_at, wait.run)
            self._bars.append(Bar("wait", words, wait.opened_at, wait.opened_at))
        else:
            self.becomes(wait.opened_at, "wait", words)
            self.run = max(self.run, wait.run)

    def woken(self, at: datetime) -> None:
        """A wait closed. That of a parked leg moves nothing."""
        if self._kind == "wait":
            self.queued(at)

    def queued(self, at: datetime, *, after: int | None = None, lost: bool = False) -> None:
        """A run, or a rest ``after`` one, ended; the leg is queued as its next. ``lost``: nobody saw the run end."""
        if lost:
            self._lose(at)
        self.becomes(at, "unsure", "")
        self.run = (after or self.run) + 1
        self._words = f"queued, or in run {self.run}"

    def becomes(self, at: datetime, kind: str, words: str) -> None:
        """What it was ends, and this begins."""
        if at > self._at:
            self._bars.append(Bar(self._kind, self._words, self._at, at))
        self._at, self._kind, self._words = max(at, self._at), kind, words

    def until(self, end: datetime) -> list[Bar]:
        """All bars, the last of them until now or until the leg ended."""
        leg = self._leg
        if leg.error is not None and leg.error.get("code") == "worker_lost":
            self._lose(end)
        if self._kind == "unsure" and leg.status is LegStatus.QUEUED:
            self._kind = "idle"
        if self._kind == "idle" and leg.status is LegStatus.QUEUED:
            self._words = "queued"
        if self._kind == "run" and leg.run > self.run:
            # Of a long history only the end is read.
            self._words = f"runs {self.run} to {leg.run}"
        if end > self._at or not self._bars:
            goes_on = leg.ended_at is None
            self._bars.append(Bar(self._kind, self._words, self._at, max(end, self._at), goes_on=goes_on))
        return self._bars

    def _lose(self, at: datetime) -> None:
        """The run that went on was found lost: it lived until its last sign, and died some time after that."""
        if self._kind == "run":
            self.becomes(min(self._sign, at), "lost", f"{self._words}, found lost at the end of this")


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
