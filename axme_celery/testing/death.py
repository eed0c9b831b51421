"""Death of a worker, as by SIGKILL, in the middle of a run.

The stores a run works with are wrapped. When the moment has come they raise
``Killed``, and from then on they raise it at every touch: a dead process
writes nothing any more, whatever its ``finally`` blocks would like to do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from ..model import Change, Checkpoint, Fence, LegStatus, Recorded


class Killed(BaseException):
    """The worker died here. Not to be caught, as death is not."""


@dataclass(frozen=True)
class Kill:
    """One death to come: at which record, and whether that one is still made."""

    #: "name#n", a step or wait; None: whatever is recorded next.
    at_step: str | None
    recorded: bool

    def __str__(self) -> str:
        return f"kill(at_step={self.at_step!r}{', recorded=True' if self.recorded else ''})"


@dataclass
class Fate:
    """Which deaths are planned, and whether the worker of the run under way is dead."""

    planned: list[Kill] = field(default_factory=list)
    #: True while a message is worked on: only then is there a worker to kill.
    running: bool = False
    dead: bool = False

    def check(self) -> None:
        """Raises Killed when the worker is dead."""
        if self.dead:
            raise Killed

    def met_by(self, names: list[str]) -> Kill | None:
        """The planned death that these records bring, if any; it is then no longer planned."""
        if not self.running or not names:
            return None
        for kill in self.planned:
            if kill.at_step is None or kill.at_step in names:
                self.planned.remove(kill)
                return kill
        return None

    def die(self) -> NoReturn:
        """The worker is dead from here on."""
        self.dead = True
        raise Killed


class MortalTracker:
    """A tracker as a worker that may die has it."""

    def __init__(self, kept: Any, fate: Fate) -> None:
        self._kept, self._fate = kept, fate

    def __getattr__(self, name: str) -> Any:
        self._fate.check()
        return getattr(self._kept, name)


class MortalLedger(MortalTracker):
    """A ledger as a worker that may die has it; here the planned deaths happen."""

    def commit(self, *changes: Change, connection: Any = None) -> tuple[Change, ...]:
        self._fate.check()
        kill = self._fate.met_by([name for change in changes for name in records(change)])
        if kill is not None and not kill.recorded:
            self._fate.die()
        written: tuple[Change, ...] = self._kept.commit(*changes, connection=connection)
        if kill is not None:
            self._fate.die()
        return written

    def transaction(self, checkpoint: Callable[[Any], Checkpoint], fence: Fence) -> Checkpoint:
        self._fate.check()
        met: list[Kill] = []

        def within(connection: Any) -> Checkpoint:
            made = checkpoint(connection)
            kill = self._fate.met_by([f"{made.name}#{made.nth}"])
            if kill is not None and not kill.recorded:
                # Its SQL is rolled back with it, as the database does for a client that is gone.
                self._fate.die()
            met.extend([kill] if kill is not None else [])
            return made

        made: Checkpoint = self._kept.transaction(within, fence)
        if met:
            self._fate.die()
        return made


def records(change: Change) -> list[str]:
    """What a change records of a run under way: steps and waits as "name#n", and "end"."""
    if change.intent is not None and change.was is None:
        # A new intent, which may bring finished work of another along.
        return []
    names = [f"{c.name}#{c.nth}" for c in change.checkpoints if c.recorded is not Recorded.STARTED]
    names += [f"{wait.name}#{wait.nth}" for was, wait in change.waits if was is None]
    names += ["end" for _, leg in change.legs if leg.status in (LegStatus.DONE, LegStatus.FAILED)]
    return names
