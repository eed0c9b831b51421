"""Zombies: a process held up on its way into a commit, longer than its lease, while others take over; then it goes on.

How far the others get is the case's: "claimed" (another run has begun, and is killed before its first commit), or
"finished" (the intent has ended). Whatever the held-up process commits afterwards must be refused, or be the same.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from axme_celery.model import Change, LegStatus

from . import injector
from .injector import KILLED
from .life import Life
from .world import LEASE_SECONDS, World

if TYPE_CHECKING:
    from .enumeration import Case

CLAIMED, FINISHED = "claimed", "finished"
HOWS = (CLAIMED, FINISHED)


def hold_up(world: World, case: Case) -> None:
    """Arrange that this process is held up before the commit that the case names."""
    assert case.stall is not None
    how, at = case.stall

    def pause(number: int, changes: Sequence[Change]) -> None:
        if number == at:
            world.clock.advance(LEASE_SECONDS + 1)
            pid = os.fork()
            if pid == 0:
                os._exit(_others(world, case, how))
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            if code not in (0, KILLED):
                raise RuntimeError(f"the others ended with {code}")

    world.axme.runtime.ledger.pause = pause  # type: ignore[attr-defined]


def _others(world: World, case: Case, how: str) -> int:
    """In a process of its own, and in a thread that knows nothing of the leg that was held up."""
    injector.watch(None)
    ended: list[int] = []

    def live() -> None:
        world.axme.runtime.ledger.pause = (  # type: ignore[attr-defined]
            _killed_once_claimed() if how == CLAIMED else lambda number, changes: None
        )
        Life(world, case.kind, case.variant).live()
        ended.append(0)

    with contextlib.suppress(Exception):
        thread = threading.Thread(target=live)
        thread.start()
        thread.join()
    return ended[0] if ended else 70


def _killed_once_claimed() -> Callable[[int, Sequence[Change]], None]:
    claimed = False

    def pause(number: int, changes: Sequence[Change]) -> None:
        nonlocal claimed
        if claimed:
            os._exit(KILLED)
        claimed = any(
            was is not None and was.status is LegStatus.QUEUED and now.status is LegStatus.RUNNING
            for change in changes
            for was, now in change.legs
        )

    return pause
