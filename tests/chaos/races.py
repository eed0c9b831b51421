"""Races: threads that meet at one wait, one leg, one report or one key, again and again. Exactly one may win.

No process is killed here. Each race is set up by itself, its contenders start at a barrier a random moment apart, and
afterwards everything is run to its end and the checker reads the whole history. A race in which one side always wins
shows nothing: that is a finding too.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from kombu.utils.json import loads
from sqlalchemy import insert

from axme_celery import leg as legs
from axme_celery.errors import StaleChange
from axme_celery.model import Change, Checkpoint, Lease, WaitStatus
from axme_celery.sweep import fire_one, lose, sweep

from . import witness
from .checker import Finding, Rule, check
from .client import Client
from .facts import History, collect
from .reference import TOOL, bookings
from .worker import Worker
from .world import Place, WallClock, World

#: A contender starts at most this long after the barrier.
APART_SECONDS = 0.004
#: Of the outcomes a race can have, each comes at least once in so many races.
RAREST = 50
HOUR = 3600


@dataclass
class Figures:
    """How a kind of race went."""

    what: str
    ledger: str
    races: int
    ended: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        return not self.findings

    def must_come(self, *outcomes: str) -> None:
        """A race between sides of which one never wins is none."""
        least = self.races // RAREST
        self.findings += [
            Finding(Rule.VACUOUS, "", f"{self.what}: {outcome!r} came {self.ended[outcome]} times, at least {least} were meant")
            for outcome in outcomes
            if self.ended[outcome] < least
        ]  # fmt: skip

    def __str__(self) -> str:
        ended = ", ".join(f"{count:,} {outcome}" for outcome, count in self.ended.most_common())
        broken = "".join(f"\n    {finding}" for finding in self.findings[:10])
        said = f"{len(self.findings)} broken promises" if self.findings else "no promise broken"
        return f"  {self.ledger}: {self.races:,} {self.what} in {self.seconds:.0f} s: {ended}; {said}{broken}"


class Arena:
    """A world whose threads use the real clock, and what races need of it."""

    def __init__(self, place: Place, seed: int) -> None:
        self.world = World(place.folder, place.url, WallClock())
        self.world.make_ledger()
        self.ledger = place.ledger
        self.random = random.Random(seed)
        self.client = Client(self.world.axme)
        self.worker = Worker(self.world)

    @property
    def rt(self) -> Any:
        return self.world.axme.runtime

    def reset(self) -> None:
        self.world.axme.close()
        self.world.reset()
        self.world.empty_ledger()

    def submit(self, kind: str, count: int) -> list[Any]:
        """So many intents of a kind, named by their numbers."""
        return [self.client.submit(self.world.tasks.work(kind, f"{kind}-{n}"), key=f"{kind}-{n}") for n in range(count)]

    def settle(self) -> None:
        """Send what is to be sent and run what is to be run, until there is nothing."""
        while self.rt.relay.work() or (path := self.worker.next()) is not None:
            if (path := self.worker.next()) is not None:
                self.worker.run(path)

    def by_intent(self, intents: Sequence[Any]) -> list[Path]:
        """The message of each intent."""
        found = {loads(path.read_text())["headers"]["axme"]["intent"]: path for path in self.world.messages}
        return [found[intent.id] for intent in intents]

    def meet(self, *contenders: Callable[[], object], pauses: Sequence[float] | None = None) -> None:
        """Let each act in a thread of its own, from one barrier, ``pauses`` or a random moment later.

        Raises what one of them raised.
        """
        if pauses is None:
            pauses = [self.random.uniform(0, APART_SECONDS) for _ in contenders]
        barrier, trouble = threading.Barrier(len(contenders)), list[Exception]()

        def contend(act: Callable[[], object], pause: float) -> None:
            barrier.wait()
            time.sleep(pause)
            try:
                act()
            except Exception as error:
                trouble.append(error)

        threads = [threading.Thread(target=contend, args=both) for both in zip(contenders, pauses, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if trouble:
            raise trouble[0]

    def history(self) -> History:
        return History(lines=witness.read(self.world.history), intents=collect(self.world.axme, celery=True))


Race = Callable[[Arena, Figures], None]


def decisions(arena: Arena, figures: Figures) -> None:
    """Two people, the timeout and a cancellation at one wait."""
    intents = arena.submit("question", figures.races)
    arena.settle()
    waits = {intent.id: intent.waits()[0].id for intent in intents}
    arena.world.clock.advance(HOUR)
    for number, intent in enumerate(intents):
        wait_id = waits[intent.id]
        pauses = [arena.random.uniform(0, APART_SECONDS) for _ in range(4)]
        if number % 3 == 0:
            # It reads the most before it writes: setting out with the others, it would hardly ever be the first.
            pauses = [*(2 * APART_SECONDS + pause for pause in pauses[:3]), 0.0]
        arena.meet(
            partial(Client(arena.world.axme).answer, wait_id, "approved", "ana"),
            partial(Client(arena.world.axme).answer, wait_id, "rejected", "ben"),
            partial(fire_one, arena.rt, wait_id),
            partial(Client(arena.world.axme).cancel, intent.id, "dan"),
            pauses=pauses,
        )
    arena.settle()
    for intent in intents:
        (wait,) = intent.waits()
        figures.ended[
            {WaitStatus.EXPIRED: "timed out", WaitStatus.CANCELED: "canceled"}.get(wait.status, f"{wait.outcome}")
        ] += 1
    figures.must_come("approved", "rejected", "timed out", "canceled")


def handovers(arena: Arena, figures: Figures) -> None:
    """Somebody answers, leaves the answer to another, is given more time, is timed out and canceled, all at once."""
    intents = arena.submit("question", figures.races)
    arena.settle()
    waits = {intent.id: intent.waits()[0].id for intent in intents}
    arena.world.clock.advance(HOUR)
    told: dict[str, dict[str, bool]] = {}
    for intent in intents:
        wait_id, axme = waits[intent.id], arena.world.axme
        heard = told.setdefault(intent.id, {})

        def hear(what: str, ask: Callable[[], bool], heard: dict[str, bool] = heard) -> None:
            heard[what] = ask()

        arena.meet(
            partial(hear, "answered", partial(Client(axme).answer, wait_id, "approved", "ana")),
            partial(hear, "delegated", partial(Client(axme).delegate, wait_id, "cem", "ana")),
            partial(fire_one, arena.rt, wait_id),
            # Not always: with more time nothing times out, and where it is canceled early there is nothing to see.
            *([partial(hear, "extended", partial(Client(axme).extend, wait_id, "2h", "ops"))] if len(told) % 2 else []),
            *([partial(Client(axme).cancel, intent.id, "dan")] if len(told) % 5 == 0 else []),
        )
    for intent in intents:
        (wait,) = intent.waits()
        heard = told[intent.id]
        if wait.status is WaitStatus.OPEN:
            # It was given away and given more time, and nobody has answered yet.
            if not (heard["delegated"] and heard.get("extended")):
                figures.findings.append(Finding(Rule.OUTCOME, intent.id, f"the wait is open after {heard}"))
            figures.ended["left to another"] += 1
            arena.client.answer(wait.id, "approved", "cem")
            continue
        if wait.status is WaitStatus.EXPIRED and heard.get("extended"):
            figures.findings.append(Finding(Rule.TOO_EARLY, intent.id, "a wait that was given more time was timed out"))
        if heard["answered"] and heard["delegated"]:
            figures.findings.append(Finding(Rule.VOICES, intent.id, "ana gave the answer, and gave it away"))
        figures.ended[
            {WaitStatus.EXPIRED: "timed out", WaitStatus.CANCELED: "canceled"}.get(wait.status, f"{wait.outcome}")
        ] += 1
    arena.settle()
    figures.must_come("approved", "timed out", "left to another")


def crowds(arena: Arena, figures: Figures) -> None:
    """A hundred clicks of three people at a wait for two of them."""
    boards = max(1, figures.races // 20)
    intents = arena.submit("board", boards)
    arena.settle()
    for intent in intents:
        wait_id = intent.waits()[0].id
        people = ["ana", "ben", "cem"] * 33 + ["ana"]
        arena.random.shuffle(people)
        arena.meet(*[partial(Client(arena.world.axme).answer, wait_id, "approved", who) for who in people])
    queued = {intent.id: [event.type for event in intent.events()].count("intent.voted") for intent in intents}
    arena.settle()
    for intent in intents:
        (leg,), (wait,) = intent.legs(), intent.waits()
        if (leg.run, len(wait.votes), queued[intent.id]) != (2, 2, 1):
            what = f"run {leg.run} after {len(wait.votes)} voices, {queued[intent.id]} of them counted and waited"
            figures.findings.append(Finding(Rule.VOICES, intent.id, what))
        figures.ended["closed by two of three"] += 1
    figures.races = boards


def reports(arena: Arena, figures: Figures) -> None:
    """A tool's report at the moment its wait opens."""
    intents = arena.submit("job", figures.races)
    while arena.rt.relay.work():
        pass
    # About as long as this machine takes to come to the wait, today: found by missing it on either side.
    opens_after_seconds = APART_SECONDS
    for intent, path in zip(intents, arena.by_intent(intents), strict=True):
        job = f"{intent.key}:late"
        report = partial(Client(arena.world.axme).complete_tool, TOOL, job, {"of": job})
        pause = opens_after_seconds * arena.random.uniform(0.7, 1.3)
        arena.meet(partial(arena.worker.run, path), report, pauses=(0, pause))
        before = arena.rt.ledger.early_answer(TOOL, job) is not None
        figures.ended["reported before" if before else "reported after"] += 1
        opens_after_seconds *= 1.2 if before else 1 / 1.2
    arena.settle()
    figures.must_come("reported before", "reported after")


def deliveries(arena: Arena, figures: Figures) -> None:
    """One message, delivered three times at once."""
    arena.submit("child", figures.races)
    while arena.rt.relay.work():
        pass
    for path in arena.world.messages:
        text = path.read_text()
        arena.meet(*[partial(arena.worker.run, path, text=text)] * 3)
    arena.settle()
    bodies = Counter(line["intent"] for line in witness.read(arena.world.history) if line["ev"] == "B")
    figures.ended.update(f"run {'once' if count == 1 else f'{count} times'}" for count in bodies.values())


def takeovers(arena: Arena, figures: Figures) -> None:
    """A run that records a step while the sweep takes its leg away and another run claims it."""
    for number, intent in enumerate(arena.submit("child", figures.races)):
        (leg,) = intent.legs()
        first = legs.claim(arena.rt, leg.id, 1)
        running = legs.RunningLeg(arena.rt, first.intent, first.leg, {}, lambda: None)
        told: dict[str, Any] = {}
        arena.meet(
            partial(_record_a_step, arena, running, told, in_transaction=bool(number % 2)),
            partial(_take_over, arena, leg.id, told),
        )
        kept = bool(arena.rt.ledger.checkpoints(intent.id))
        seen = bool(told["claimed"].checkpoints)
        recorded = "recorded" in told
        if not recorded == kept == seen:
            what = f"told recorded: {recorded}, in the ledger: {kept}, seen by the next run: {seen}"
            figures.findings.append(Finding(Rule.STALE, intent.id, what))
        figures.ended["recorded first" if recorded else "refused"] += 1
        arena.client.cancel(intent.id, "dan")
    figures.must_come("recorded first", "refused")


def _record_a_step(arena: Arena, running: legs.RunningLeg, told: dict[str, Any], *, in_transaction: bool) -> None:
    name = "book" if in_transaction else "plan"
    step = Checkpoint(leg_id=running.leg.id, name=name, nth=1, position=0, run=1, value='"ref"')

    def booked(connection: Any) -> Checkpoint:
        connection.execute(insert(bookings), {"intent": running.intent.id, "run": 1, "ref": "ref"})
        return step

    with contextlib.suppress(StaleChange):
        if in_transaction:
            arena.rt.ledger.transaction(booked, running.fence)
        else:
            arena.rt.ledger.commit(Change(fence=running.fence, checkpoints=(step,)))
        told["recorded"] = name


def _take_over(arena: Arena, leg_id: str, told: dict[str, Any]) -> None:
    lose(arena.rt, Lease(leg_id, 1), "chaos")
    told["claimed"] = legs.claim(arena.rt, leg_id, 2)


def sweepers(arena: Arena, figures: Figures) -> None:
    """Five sweepers at timers that are due."""
    at_once = 20
    for number in range(max(1, figures.races // at_once)):
        for nth in range(at_once):
            name = f"nap-{number}-{nth}"
            arena.client.submit(arena.world.tasks.work("nap", name), key=name)
        arena.settle()
        arena.world.clock.advance(HOUR)
        # Twice: the first one tells the tracker of the timers that were too far off when they were made.
        for _ in range(2):
            arena.meet(*[partial(sweep, arena.rt, arena.world.axme.senders, name, slow=True) for name in "abcde"])
        arena.world.clock.advance(3)
        arena.settle()
    runs = Counter(facts.leg.run for facts in collect(arena.world.axme).values())
    figures.races = at_once * max(1, figures.races // at_once)
    figures.ended.update({f"woken {'once' if run == 2 else f'{run - 1} times'}": n for run, n in runs.items()})
    if set(runs) != {2}:
        figures.findings.append(
            Finding(Rule.OUTCOME, "", f"legs ended at runs {dict(runs)}, each was to be woken once")
        )


def submissions(arena: Arena, figures: Figures) -> None:
    """Four submitters with one key."""
    for number in range(figures.races):
        work = arena.world.tasks.work("child", f"child-{number}")
        told: list[Any] = []

        def submit(work: Any = work, key: str = f"key-{number}", told: list[Any] = told) -> None:
            told.append(Client(arena.world.axme).submit(work, key=key))

        arena.meet(*[submit] * 4)
        ids = {None if handle is None else handle.id for handle in told}
        figures.ended["one intent" if len(ids) == 1 and None not in ids else f"{len(ids)} intents"] += 1
    arena.settle()
    if set(figures.ended) != {"one intent"}:
        figures.findings.append(Finding(Rule.OUTCOME, "", "submitters with one key were given different intents"))


RACES: Sequence[tuple[str, Race]] = (
    ("races of two people, a timeout and a cancellation", decisions),
    ("races of an answer, a delegation, an extension and a timeout", handovers),
    ("crowds of a hundred at a wait for two", crowds),
    ("reports as their wait opens", reports),
    ("messages delivered three times at once", deliveries),
    ("runs taken over while they record", takeovers),
    ("timers with five sweepers", sweepers),
    ("submissions of one key by four", submissions),
)


def run(place: Place, count: int, seed: int) -> list[Figures]:
    """So many races of each kind."""
    arena, found = Arena(place, seed), []
    for what, race in RACES:
        arena.reset()
        figures, began = Figures(what, place.ledger, count), time.monotonic()
        race(arena, figures)
        figures.findings += check(arena.history())
        figures.seconds = time.monotonic() - began
        found.append(figures)
    return found
