"""Crash-point enumeration: each commit and each publish of an intent's life is hit, in every mode, and all must end well.

A trial runs one intent to its end in a process of its own. Where the process is killed another takes over, which may be
killed as well. Afterwards the checker reads the history.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import json
import os
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from . import injector, stalls, witness
from .checker import Finding, Rule, check, coverage, extra_executions
from .facts import History, collect
from .injector import KILLED, MODES, Control, Fault
from .life import Life, Stuck, Variant
from .reference import POISON_ATTEMPTS
from .world import REQUEUE_SECONDS, World

KINDS = ("reference", "family", "poison")
#: More processes than this, one after the other, and the trial is stuck.
MOST_PROCESSES = 12
#: A process that takes longer than this, in real time, hangs.
TRIAL_SECONDS = 60


@dataclass(frozen=True)
class Case:
    """What is tried: an intent's kind, the faults, and what else may vary."""

    kind: str
    ledger: str
    faults: tuple[Fault, ...] = ()
    variant: Variant = field(default_factory=Variant)
    seed: int = 0
    #: "claimed" or "finished" and the number of a commit: see ``stalls.py``.
    stall: tuple[str, int] | None = None

    def __str__(self) -> str:
        stall = "" if self.stall is None else f"stall={self.stall[0]}:{self.stall[1]}"
        faults = " ".join(map(str, self.faults))
        return " ".join(x for x in (self.kind, self.ledger, faults, stall, str(self.variant), f"seed={self.seed}") if x)

    @classmethod
    def parse(cls, text: str) -> Case:
        """The case that ``str`` wrote."""
        kind, ledger, *words = text.split()
        faults, seed, stall, on = [], 0, None, {}
        for word in words:
            if word.startswith("seed="):
                seed = int(word.removeprefix("seed="))
            elif word.startswith("stall="):
                how, _, at = word.removeprefix("stall=").partition(":")
                stall = (how, int(at))
            elif ":" in word:
                faults.append(Fault.parse(word))
            else:
                on[word] = True
        return cls(kind, ledger, tuple(faults), Variant(**on), seed, stall)


@dataclass(kw_only=True)
class Outcome:
    """How a trial went."""

    case: Case
    findings: list[str] = field(default_factory=list)
    #: Points reached, faults that happened, processes that were killed.
    points: int = 0
    hit: int = 0
    kills: int = 0
    extra: int = 0
    #: How long the intent took, by its own clock.
    passed_seconds: float = 0.0
    swept: dict[str, int] = field(default_factory=dict)
    #: Times that the last process went into the ledger to commit: where it can be held up.
    commits: int = 0
    places: list[str] = field(default_factory=list)
    reached: Counter[str] = field(default_factory=Counter)
    #: The history file's text, kept when something was found.
    history: str = ""


class Lane:
    """Runs trials, one after the other, in one world."""

    def __init__(self, ledger: str, url: str, folder: Path) -> None:
        self.ledger = ledger
        self.world = World(folder, url)
        self.control = Control(folder / "points.log")
        self._verdict = folder / "verdict.json"
        self._errors = folder / "errors.log"
        self._in_child(self.world.make_ledger)
        injector.watch(None)
        self._warm_up()

    def run(self, case: Case) -> Outcome:
        """One trial, from an empty ledger to the checker's verdict."""
        assert case.ledger == self.ledger
        self.world.reset()
        self.control.arm(case.faults)
        self._verdict.unlink(missing_ok=True)
        outcome = Outcome(case=case)
        for process in range(MOST_PROCESSES):
            code = self._in_child(lambda process=process: self._live(case, first=process == 0))
            if code == 0:
                break
            if code != KILLED:
                outcome.findings.append(f"process {process} ended with {code}: {self._errors.read_text()[-1500:]}")
                break
            outcome.kills += 1
        else:
            outcome.findings.append(
                str(Finding(Rule.LOST, "", f"{MOST_PROCESSES} processes died and it has not ended"))
            )
        outcome.points, outcome.hit, outcome.places = self.control.count, self.control.hit, self.control.places()
        if self._verdict.exists():
            said = json.loads(self._verdict.read_text())
            outcome.findings += said["findings"]
            outcome.extra, outcome.passed_seconds = said["extra"], said["passed_seconds"]
            outcome.swept, outcome.reached, outcome.commits = said["swept"], Counter(said["reached"]), said["commits"]
        if outcome.findings:
            outcome.history = self.world.history.read_text() if self.world.history.exists() else ""
        return outcome

    def _warm_up(self) -> None:
        """Live each kind's calm life here, so that what is loaded and compiled at first use is inherited by all trials."""
        for kind in ("reference", "family"):
            self.world.reset()
            self.world.empty_ledger()
            life = Life(self.world, kind, Variant())
            life.live()
            life.tidy()
            collect(self.world.axme, celery=True)
            self.world.axme.forget()
        gc.collect()
        gc.freeze()

    # -- in a child ------------------------------------------------------------------

    def _live(self, case: Case, *, first: bool) -> None:
        random.seed(case.seed)
        if first:
            self.world.empty_ledger()
        injector.watch(self.control)
        life = Life(self.world, case.kind, case.variant)
        if case.stall is not None and first:
            stalls.hold_up(self.world, case)
        trouble = []
        try:
            life.live()
        except Stuck as stuck:
            trouble.append(Finding(Rule.LOST, "", str(stuck)))
        injector.watch(None)
        passed_seconds, commits = self.world.clock.passed_seconds, self.world.axme.runtime.ledger.commits
        if not trouble:
            life.tidy()
        faults = self.control.hit
        if case.stall is not None:
            faults += 2 if case.stall[0] == stalls.CLAIMED else 1
        if case.kind == "poison":
            faults += POISON_ATTEMPTS  # it kills each of its runs by itself
        history = History(
            lines=witness.read(self.world.history),
            intents=collect(self.world.axme, celery=True),
            faults=faults,
            leftovers=() if trouble else self.world.leftovers(),
        )
        trouble += check(history) + _late(case, life.swept, passed_seconds) + _ended(case, history)
        self._verdict.write_text(
            json.dumps(
                {
                    "findings": [str(finding) for finding in trouble],
                    "extra": extra_executions(line for line in history.lines if "op" not in line),
                    "passed_seconds": passed_seconds,
                    "swept": life.swept,
                    "reached": coverage(history),
                    "commits": commits,
                }
            )
        )

    def _in_child(self, act: Callable[[], object]) -> int:
        """Do it in a child process, which ends without ceremony. Returns its exit code."""
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                with self._errors.open("w") as errors:
                    os.dup2(errors.fileno(), 2)
                    faulthandler.dump_traceback_later(TRIAL_SECONDS, exit=True)
                    act()
                code = 0
            except BaseException:
                with contextlib.suppress(Exception), self._errors.open("a") as errors:
                    traceback.print_exc(file=errors)
            finally:
                # Nothing inherited may be closed, flushed or told goodbye twice.
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _late(case: Case, swept: dict[str, int], passed_seconds: float) -> list[Finding]:
    """The safety nets are for what was hit: they may not carry what was not."""
    found = []
    if not case.faults and case.stall is None:
        for broom in ("resent", "matched") + (("leases",) if case.kind != "poison" else ()):
            if swept.get(broom):
                found.append(Finding(Rule.LATE, "", f"nothing was hit, and the sweep found something {broom}"))
    # A message may be lost only where the broker had handed it out, acknowledged, to a process that was killed.
    lossy = not case.variant.acks_late and (any(f.mode.kills for f in case.faults) or case.kind == "poison")
    if swept.get("resent") and not lossy:
        found.append(
            Finding(Rule.LATE, "", f"it was published again after {REQUEUE_SECONDS} s, and no message was lost")
        )
    return found


def _ended(case: Case, history: History) -> list[Finding]:
    """Each kind ends in its own way; a reference intent that was hit too often still completes."""
    expected = {"poison": "FAILED"}.get(case.kind, "COMPLETED")
    statuses = [facts.intent.status for facts in history.intents.values()]
    count = 2 if case.kind == "family" else 1
    if statuses != [expected] * count:
        return [Finding(Rule.END, "", f"ended {statuses}; {count} {expected} was to come")]
    return []


# -- which cases -------------------------------------------------------------------------


def first_faults(lane: Lane, kind: str, variant: Variant, seed: int) -> tuple[Outcome, list[Case]]:
    """The undisturbed life, and a case for each of its points and each mode."""
    calm = lane.run(Case(kind, lane.ledger, variant=variant, seed=seed))
    cases = [
        Case(kind, lane.ledger, (Fault(at, mode),), variant, seed) for at in range(1, calm.points + 1) for mode in MODES
    ]
    return calm, cases


def stall_cases(lane: Lane, kind: str, variant: Variant, seed: int) -> list[Case]:
    """A case for each way into the ledger, and for how far the others get meanwhile."""
    calm = lane.run(Case(kind, lane.ledger, variant=variant, seed=seed))
    return [
        Case(kind, lane.ledger, variant=variant, seed=seed, stall=(how, at))
        for at in range(1, calm.commits + 1)
        for how in stalls.HOWS
    ]


def random_cases(ledger: str, points: dict[str, int], rng: random.Random) -> Iterator[Case]:
    """Cases with one to three faults, the later ones mostly in the recovery from the earlier; for ever."""
    while True:
        kind = rng.choices(KINDS, (8, 1, 1))[0]
        most = points[kind]
        at, faults = 0, []
        for _ in range(rng.choices((1, 2, 3), (1, 6, 3))[0]):
            at = rng.randint(1, most) if at == 0 else at + rng.randint(1, max(2, most // 3))
            faults.append(Fault(at, rng.choice(MODES)))
        variant = Variant(*(rng.random() < 0.5 for _ in range(4)))
        yield Case(kind, ledger, tuple(faults), variant, rng.randrange(2**31))


# -- many trials ----------------------------------------------------------------------------


@dataclass
class Figures:
    """What was done, added up."""

    trials: int = 0
    points: int = 0
    kills: int = 0
    lost_replies: int = 0
    extra: int = 0
    unreached: list[str] = field(default_factory=list)
    failures: list[Outcome] = field(default_factory=list)
    #: place -> how often it was hit
    places: Counter[str] = field(default_factory=Counter)
    reached: Counter[str] = field(default_factory=Counter)
    began: float = field(default_factory=time.monotonic)

    def add(self, outcome: Outcome, *, must_hit: bool = False) -> None:
        self.trials += 1
        self.kills += outcome.kills
        self.lost_replies += max(0, outcome.hit - sum(f.mode.kills for f in outcome.case.faults[: outcome.hit]))
        self.extra += outcome.extra
        self.reached.update(outcome.reached)
        for fault in outcome.case.faults[: outcome.hit]:
            if fault.at <= len(outcome.places):
                self.places[outcome.places[fault.at - 1]] += 1
        if must_hit and outcome.hit < len(outcome.case.faults):
            self.unreached.append(str(outcome.case))
        if outcome.findings:
            self.failures.append(outcome)

    def count(self, rule: Rule) -> int:
        """How often a promise was broken."""
        return sum(finding.startswith(rule.name + " ") for o in self.failures for finding in o.findings)

    def __str__(self) -> str:
        seconds = time.monotonic() - self.began
        rows = {
            "trials": self.trials, "points": self.points, "kills": self.kills, "lost replies": self.lost_replies,
            "lost intents": self.count(Rule.LOST), "repeated recorded steps": self.count(Rule.REPEATED),
            "changed results": self.count(Rule.CHANGED), "second outcomes": self.count(Rule.OUTCOME),
            "extra executions": self.extra, "points not reached": len(self.unreached),
            "trials with a finding": len(self.failures), "seconds": round(seconds, 1),
        }  # fmt: skip
        return "\n".join(f"  {name:24}{value:>10}" for name, value in rows.items())


def every_point(lane: Lane, kinds: Iterable[str], variant: Variant, seed: int, figures: Figures) -> dict[str, int]:
    """Every point of each kind in every mode; returns how many points each kind's calm life has."""
    points = {}
    for kind in kinds:
        calm, cases = first_faults(lane, kind, variant, seed)
        figures.add(calm)
        points[kind] = calm.points
        figures.points += calm.points
        if calm.findings:
            continue
        for case in cases:
            figures.add(lane.run(case), must_hit=True)
    return points


def places_hit(figures: Figures) -> str:
    """Which places were hit and how often, for the reader who wants to know what was enumerated."""
    return "\n".join(f"  {count:6}  {place}" for place, count in sorted(figures.places.items()))


__all__ = ["Case", "Figures", "Lane", "Outcome", "every_point", "first_faults", "random_cases", "stall_cases"]
