"""Crash-point enumeration: each commit and each publish of an intent's life is hit, in every mode, and all must end well.

Three parts, shared out to lanes that run beside each other: every point of every kind of intent in every mode; every
commit held up for longer than a lease (``stalls.py``); and random cases, mostly with a second fault in the recovery
from the first, until enough processes were killed.
"""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from . import stalls
from .checker import Rule
from .injector import MODES, Fault, Mode
from .life import Variant
from .trial import Case, Lane, Outcome

KINDS = ("reference", "family", "poison", "pipeline")
#: How often each is taken for a random case.
OFTEN = {"reference": 6, "family": 1, "poison": 1, "pipeline": 4}
#: How often a lane says how far it is.
PROGRESS_SECONDS = 60.0
PLAIN = Variant()
#: The other side of everything that may vary.
OTHER = Variant(acks_late=True, twice=True, rival=True, eager=True)


@dataclass(frozen=True)
class Scope:
    """How much is enumerated."""

    modes: tuple[Mode, ...] = MODES
    variants: tuple[Variant, ...] = (PLAIN, OTHER)
    kinds: tuple[str, ...] = KINDS
    #: Of the cases of a kind, one in so many.
    every: dict[str, int] = field(default_factory=lambda: dict.fromkeys((*KINDS, "stall"), 1))


WHOLE = Scope()
#: For the test suite: every point of the reference intent in one mode or two of three, and a share of the rest.
BRIEF = Scope(
    modes=(Mode.BEFORE, Mode.AFTER, Mode.UNKNOWN),
    variants=(PLAIN,),
    every={"reference": 2, "family": 4, "poison": 12, "pipeline": 8, "stall": 4},
)


@dataclass
class Figures:
    """What was done, added up."""

    trials: int = 0
    #: Points of the undisturbed lives.
    points: int = 0
    kills: int = 0
    lost_replies: int = 0
    held_up: int = 0
    extra: int = 0
    #: Cases that were to hit something and did not.
    unreached: list[str] = field(default_factory=list)
    failures: list[Outcome] = field(default_factory=list)
    #: How often each place was hit: "before publish work.publish".
    places: Counter[str] = field(default_factory=Counter)
    reached: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        return not self.failures and not self.unreached

    def add(self, outcome: Outcome, *, must_hit: bool) -> None:
        """``must_hit``: the case was made from a life that reached what it hits."""
        self.trials += 1
        self.kills += outcome.kills
        self.lost_replies += outcome.hit - outcome.kills
        self.held_up += outcome.held_up
        self.extra += outcome.extra
        self.reached.update(outcome.reached)
        for fault in outcome.case.faults[: outcome.hit]:
            self.places[f"{fault.mode:8} {outcome.places[fault.at - 1]}"] += 1
        if must_hit and not outcome.was_hit:
            self.unreached.append(str(outcome.case))
        if outcome.findings:
            self.failures.append(outcome)

    def __add__(self, other: Figures) -> Figures:
        """Of two lanes side by side."""
        return Figures(
            self.trials + other.trials, max(self.points, other.points), self.kills + other.kills,
            self.lost_replies + other.lost_replies, self.held_up + other.held_up, self.extra + other.extra,
            self.unreached + other.unreached, self.failures + other.failures, self.places + other.places,
            self.reached + other.reached, max(self.seconds, other.seconds),
        )  # fmt: skip

    def count(self, *rules: Rule) -> int:
        """How often these promises were broken."""
        begins = tuple(f"{rule.name} " for rule in rules)
        return sum(finding.startswith(begins) for o in self.failures for finding in o.findings)

    def numbers(self) -> dict[str, int]:
        """The figures by name."""
        return {
            "trials": self.trials, "points": self.points, "processes killed": self.kills,
            "replies lost": self.lost_replies, "processes held up": self.held_up,
            "intents lost": self.count(Rule.LOST), "recorded steps repeated": self.count(Rule.REPEATED, Rule.TWICE),
            "recorded results changed": self.count(Rule.CHANGED, Rule.RESULT),
            "second outcomes": self.count(Rule.OUTCOME), "stale writes": self.count(Rule.STALE),
            "executions beyond the first": self.extra, "cases that hit nothing": len(self.unreached),
            "trials with a finding": len(self.failures), "seconds": round(self.seconds),
        }  # fmt: skip

    def __str__(self) -> str:
        return "\n".join(f"  {name:30}{value:>10,}" for name, value in self.numbers().items())


def run(lane: Lane, number: int, of: int, *, scope: Scope, kills: int, seed: int) -> Figures:
    """This lane's share, the ``number``-th ``of`` so many: of every case in scope, and of the kills."""
    figures, began = Figures(), time.monotonic()
    points = {}
    told = began

    def add(case: Case, *, must_hit: bool) -> None:
        nonlocal told
        figures.add(lane.run(case), must_hit=must_hit)
        if time.monotonic() - told >= PROGRESS_SECONDS:
            told = time.monotonic()
            print(
                f"  {lane.ledger}, lane {number + 1} of {of}: {figures.trials:,} trials, {figures.kills:,} of {kills:,} "
                f"kills, {len(figures.failures)} with a finding, {told - began:.0f} s",
                flush=True,
            )

    for kind, variant in itertools.product(scope.kinds, scope.variants):
        calm = lane.run(Case(kind, lane.ledger, variant=variant, seed=seed))
        figures.add(calm, must_hit=True)
        figures.points += calm.points
        points[kind] = calm.points
        cases = [*point_cases(calm, scope), *stall_cases(calm, scope)]
        for case in cases[number::of]:
            add(case, must_hit=True)
    for case in random_cases(lane.ledger, points, random.Random(f"{seed}:{number}")):
        if figures.kills >= kills:
            break
        add(case, must_hit=False)
    figures.seconds = time.monotonic() - began
    return figures


def point_cases(calm: Outcome, scope: Scope) -> Iterator[Case]:
    """Each point of a life, in each mode."""
    case = calm.case
    all_of_it = itertools.product(range(1, calm.points + 1), scope.modes)
    for at, mode in itertools.islice(all_of_it, 0, None, scope.every[case.kind]):
        yield Case(case.kind, case.ledger, (Fault(at, mode),), case.variant, case.seed)


def stall_cases(calm: Outcome, scope: Scope) -> Iterator[Case]:
    """Each of a life's ways into the ledger, and each of how far the others get meanwhile."""
    case = calm.case
    if case.kind == "poison":
        return  # its own kills leave nobody to be held up
    all_of_it = itertools.product(range(1, calm.commits + 1), stalls.HOWS)
    for at, how in itertools.islice(all_of_it, 0, None, scope.every["stall"]):
        yield Case(case.kind, case.ledger, variant=case.variant, seed=case.seed, stall=(how, at))


def random_cases(ledger: str, points: dict[str, int], rng: random.Random) -> Iterator[Case]:
    """Cases with one to three faults, the later ones mostly in the recovery from the earlier; for ever."""
    while True:
        kind = rng.choices(KINDS, [OFTEN[kind] * (kind in points) for kind in KINDS])[0]
        most = points[kind]
        at, faults = 0, []
        for _ in range(rng.choices((1, 2, 3), (1, 6, 3))[0]):
            at = rng.randint(1, most) if at == 0 else at + rng.randint(1, max(2, most // 3))
            faults.append(Fault(at, rng.choice(MODES)))
        variant = Variant(*(rng.random() < 0.5 for _ in range(4)))
        yield Case(kind, ledger, tuple(faults), variant, rng.randrange(2**31))


#: What every enumeration reaches at least, whatever its scope.
MINIMUMS = {
    "CREATED>SUBMITTED": 50, "SUBMITTED>IN_PROGRESS": 50, "IN_PROGRESS>WAITING": 50, "WAITING>IN_PROGRESS": 50,
    "IN_PROGRESS>COMPLETED": 50, "IN_PROGRESS>FAILED": 2, "intent.leg_lost": 20, "HUMAN ANSWERED": 50,
    "TOOL ANSWERED": 100, "TIME ANSWERED": 50, "AGENT ANSWERED": 5, "X": 50, "fail": 20,
}  # fmt: skip
