"""The small records a tracker keeps."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Lease:
    """A worker's right to run a leg, for one run of it."""

    leg_id: str
    #: The leg's fencing token, from 1.
    run: int


@dataclass(frozen=True)
class Timer:
    """A moment at which something must be looked at in the ledger."""

    #: What falls due: "wait", "leg" or "intent".
    kind: str
    #: Of the wait, leg or intent.
    id: str
    #: Aware, UTC, by the ledger's clock.
    due_at: datetime


@dataclass(frozen=True)
class Progress:
    """How far a leg says it is."""

    done: float
    #: What ``done`` counts up to, where the leg knows.
    total: float | None
    note: str | None
    #: When it was said, UTC, by the tracker's clock.
    at: datetime
