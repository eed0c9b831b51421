"""A trial: one intent lives to its end in a process of its own, which a fault may kill; then another takes over.

Afterwards the checker reads the history. A trial is named by its ``Case``, and can be run again from its name.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import json
import os
import random
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from . import injector, pipelines, stalls, witness
from .checker import Finding, Rule, check, coverage, extra_executions
from .facts import History, collect
from .injector import KILLED, Control, Fault
from .life import Life, Stuck, Variant
from .reference import POISON_ATTEMPTS
from .world import REQUEUE_SECONDS, Place, World

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
    #: Points reached, and faults that happened.
    points: int = 0
    hit: int = 0
    held_up: int = 0
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

    @property
    def was_hit(self) -> bool:
        """Whether everything happened that the case meant to happen."""
        return self.hit == len(self.case.faults) and self.held_up == (self.case.stall is not None)

    @property
    def kills(self) -> int:
        """Processes killed at a point. Those that a poison leg kills by itself are not among them."""
        return sum(fault.mode.kills for fault in self.case.faults[: self.hit])


class Lane:
    """Runs trials, one after the other, in one world."""

    def __init__(self, place: Place) -> None:
        self.ledger = place.ledger
        self.world = World(place.folder, place.url)
        self.control = Control(place.folder / "points.log", lambda: self.world.clock.passed_seconds)
        self._verdict = place.folder / "verdict.json"
        self._errors = place.folder / "errors.log"
        self._in_child(self.world.make_ledger)
        injector.watch(None)
        self._warm_up()

    def run(self, case: Case, *, keep: bool = False) -> Outcome:
        """One trial, from an empty ledger to the checker's verdict. ``keep`` its history even if nothing is found."""
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
        else:
            outcome.findings.append(
                str(Finding(Rule.LOST, "", f"{MOST_PROCESSES} processes died and it has not ended"))
            )
        outcome.points, outcome.hit, outcome.held_up = self.control.count, self.control.hit, self.control.held_up
        outcome.places = self.control.places()
        if self._verdict.exists():
            said = json.loads(self._verdict.read_text())
            outcome.findings += said["findings"]
            outcome.extra, outcome.passed_seconds = said["extra"], said["passed_seconds"]
            outcome.swept, outcome.reached, outcome.commits = said["swept"], Counter(said["reached"]), said["commits"]
        if outcome.findings or keep:
            outcome.history = self.world.history.read_text() if self.world.history.exists() else ""
        return outcome

    def _warm_up(self) -> None:
        """Live each kind's calm life here, so that what is loaded and compiled at first use is inherited by all trials."""
        for kind in ("reference", "family", "pipeline"):
            self.world.reset()
            self.world.empty_ledger()
            life = Life(self.world, kind, Variant())
            life.live()
            life.tidy()
            if kind != "pipeline":
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
            stalls.hold_up(self.world, self.control, case)
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
        is_pipeline = case.kind == "pipeline"
        lines = witness.read(self.world.history)
        history = History(
            lines=lines,
            intents={} if is_pipeline else collect(self.world.axme, celery=True),
            faults=faults,
            leftovers=() if trouble else self.world.leftovers(),
        )
        if is_pipeline:
            trouble += [Finding(Rule.LEFTOVER, "", left) for left in history.leftovers]
            trouble += pipelines.check(self.world.axme, lines, faults)
        else:
            trouble += check(history) + _ended(case, history)
        trouble += _late(case, life.swept, self.control.places())
        self._verdict.write_text(
            json.dumps(
                {
                    "findings": [str(finding) for finding in trouble],
                    "extra": extra_executions(line for line in history.lines if "op" not in line),
                    "passed_seconds": passed_seconds,
                    "swept": life.swept,
                    "reached": pipelines.reached(self.world.axme) if is_pipeline else coverage(history),
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


def _late(case: Case, swept: dict[str, int], places: list[str]) -> list[Finding]:
    """The safety nets are for what was hit: they may not carry what was not."""
    found = []
    if not case.faults and case.stall is None:
        for broom in ("resent", "matched", "joins") + (("leases",) if case.kind != "poison" else ()):
            if swept.get(broom):
                found.append(Finding(Rule.LATE, "", f"nothing was hit, and the sweep found something {broom}"))
    # A message may be lost only where the broker had handed it out, acknowledged, to a process that was killed, or that
    # then could not put it back.
    hits = [(fault.mode, places[fault.at - 1]) for fault in case.faults if fault.at <= len(places)]
    lost = any(mode.kills or place == "publish calls.send" for mode, place in hits)
    lossy = not case.variant.acks_late and (lost or case.kind == "poison")
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
