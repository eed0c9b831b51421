"""Keep background threads quiet while their process forks.

A worker's parent forks a new pool child whenever one dies, which is when our
threads are busiest. A fork in the middle of their work would copy locks that
nobody in the child will ever release. So a thread works behind a gate, and a
fork waits at all gates for a moment first.

What those threads use at their work (SQLite's connections) is shut only behind
the gates: shut first, it would keep a thread from finishing while the fork
waits at its gate for it to finish, and both would stand until patience ends.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from types import TracebackType

#: A fork does not wait longer than this for one thread: a hung broker must not stop a pool from healing.
PATIENCE_SECONDS = 1.0

_gates: weakref.WeakSet[ForkGate] = weakref.WeakSet()


class ForkGate:
    """``with gate:`` around each piece of a background thread's work."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        #: Threads that hold the gate for a fork of theirs. Two may fork at once, and one may have given up waiting.
        self._forking: set[int] = set()
        _gates.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._lock.release()

    def _before(self) -> None:
        if self._lock.acquire(timeout=PATIENCE_SECONDS):
            self._forking.add(threading.get_ident())

    def _after_in_parent(self) -> None:
        if threading.get_ident() in self._forking:
            self._forking.remove(threading.get_ident())
            self._lock.release()

    def _after_in_child(self) -> None:
        # The threads are gone; so is whatever they held.
        self._lock = threading.RLock()
        self._forking = set()


#: What is shut behind the gates: (before the fork, after it in the parent, after it in the child).
_behind: list[tuple[Callable[[], object], Callable[[], object], Callable[[], object]]] = []


def behind_gates(
    before: Callable[[], object], after_in_parent: Callable[[], object], after_in_child: Callable[[], object]
) -> None:
    """As ``os.register_at_fork``, but ``before`` is called once no thread is at work behind its gate any more."""
    _behind.append((before, after_in_parent, after_in_child))


def _before_fork() -> None:
    for gate in list(_gates):
        gate._before()
    for before, _, _ in _behind:
        before()


def _after_in_parent() -> None:
    for _, after, _ in _behind:
        after()
    for gate in list(_gates):
        gate._after_in_parent()


def _after_in_child() -> None:
    for _, _, after in _behind:
        after()
    for gate in list(_gates):
        gate._after_in_child()


os.register_at_fork(before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
