"""Two facts a worker's parent shares with its pool children: whether it is stopping, and when it renewed its leases.

They live in a few bytes of anonymous shared memory, made before any fork, so
that a child reads them at no cost between two steps.
"""

from __future__ import annotations

import mmap
import struct
import time

_RENEWED = struct.Struct("d")


class WorkerState:
    """Written by a worker's parent, read by its children. Everything is calm in a process that is no worker."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 16)

    def stop(self) -> None:
        """This worker was asked to stop: legs go back to the queue at their next checkpoint."""
        self._memory[0] = 1

    def start(self) -> None:
        """This process becomes a worker."""
        self._memory[0] = 0

    def stopping(self) -> bool:
        """Whether this worker was asked to stop."""
        return self._memory[0] == 1

    def renewed(self) -> None:
        """The leases were renewed just now. Monotonic time is the same clock in all processes of a host."""
        _RENEWED.pack_into(self._memory, 8, time.monotonic())

    def lease_age_seconds(self) -> float:
        """Seconds since the leases were renewed; 0 where nobody renews any."""
        (at,) = _RENEWED.unpack_from(self._memory, 8)
        return time.monotonic() - at if at else 0.0
