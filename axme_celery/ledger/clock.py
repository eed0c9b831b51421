"""The ledger's clock, as seen from this process.

What is due is judged by the database's time, whatever the host's clock says.
Asking costs a round trip, so the answer is carried on by the host's monotonic
clock for a few seconds. The estimate is never ahead of the database: it starts
from when the answer had already arrived.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import datetime, timedelta

#: An estimate older than this is asked for again.
TRUST_SECONDS = 5.0


class LedgerClock:
    """``now()`` by the database's time."""

    def __init__(self, ask: Callable[[], datetime]) -> None:
        self._ask = ask
        # (pid, database time, monotonic seconds then): one tuple, so that threads see all of it or none.
        self._known: tuple[int, datetime, float] | None = None

    def now(self, *, fresh: bool = False) -> datetime:
        """The database's present time, at most a round trip behind; ``fresh`` asks now."""
        known = self._known
        if not fresh and known is not None and known[0] == os.getpid():
            passed = time.monotonic() - known[2]
            if passed < TRUST_SECONDS:
                return known[1] + timedelta(seconds=passed)
        answered = self._ask()
        self._known = (os.getpid(), answered, time.monotonic())
        return answered


class HostClock:
    """The host's time that never goes back: SQLite's, whose ledger lives on one host."""

    def __init__(self, ask: Callable[[], datetime]) -> None:
        self._ask = ask
        self._last: datetime | None = None

    def now(self, *, fresh: bool = False) -> datetime:
        """The host's time, or the last one given should the host's clock have stepped back."""
        present = self._ask()
        if self._last is not None and present < self._last:
            return self._last
        self._last = present
        return present
