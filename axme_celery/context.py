"""What a task may ask about the intent it runs in."""

from __future__ import annotations

import time
from contextvars import ContextVar

from .errors import BadInput, TrackerUnavailable
from .handle import IntentHandle
from .leg import current, required

#: Progress is said at most this often: it is for eyes.
PROGRESS_SECONDS = 0.25

_said: ContextVar[tuple[str, float]] = ContextVar("axme_said", default=("", 0.0))


def current_intent() -> IntentHandle:
    """The intent whose leg is running here. Raises OutsideIntent."""
    running = required("current_intent()")
    return IntentHandle(running.rt, running.intent)


def progress(done: float, total: float | None = None, note: str | None = None) -> None:
    """Say how far this leg is; shown as a bar. Cheap: kept in the tracker only, and throttled. Outside a leg, nothing."""
    running = current()
    if running is None:
        return
    if not _is_amount(done) or not (total is None or _is_amount(total)):
        raise BadInput(f"progress({done!r}, {total!r}): both are numbers, 0 or more")
    leg_id, at = _said.get()
    now = time.monotonic()
    if leg_id == running.leg.id and now - at < PROGRESS_SECONDS and done != total:
        return
    _said.set((running.leg.id, now))
    try:
        running.rt.tracker.put_progress(running.leg.id, done, total, note)
    except TrackerUnavailable:
        return


def _is_amount(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value < float("inf")
