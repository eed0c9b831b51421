"""The gate: a fork finds background threads between two pieces of work, and no lock of theirs taken."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

import pytest

from axme_celery import forkgate
from axme_celery.forkgate import ForkGate


def in_child(work: Callable[[], object]) -> int:
    """The exit code of a forked child that did this; 0 when it went well, and it may take five seconds."""
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(5)
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def passes(gate: ForkGate) -> bool:
    """Whether another thread gets through."""
    through = threading.Event()

    def go() -> None:
        with gate:
            through.set()

    threading.Thread(target=go, daemon=True).start()
    return through.wait(2)


def test_a_fork_waits_until_the_thread_has_finished_its_piece_of_work() -> None:
    """What the thread had locked meanwhile is free in the child."""
    gate, lock, inside = ForkGate(), threading.Lock(), threading.Event()

    def work() -> None:
        with gate, lock:
            inside.set()
            time.sleep(0.3)

    thread = threading.Thread(target=work)
    thread.start()
    inside.wait()

    def take() -> None:
        assert lock.acquire(timeout=2)

    assert in_child(take) == 0
    assert not thread.is_alive()


def test_the_gate_is_open_on_both_sides_of_a_fork() -> None:
    """For threads old and new, as often as one forks."""
    gate = ForkGate()
    for _ in range(3):
        assert in_child(lambda: passes(gate) or os._exit(2)) == 0
        assert passes(gate)


def test_a_fork_does_not_wait_long_for_a_thread_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hung broker must not stop a pool from healing; the gate is open in the child all the same."""
    monkeypatch.setattr(forkgate, "PATIENCE_SECONDS", 0.2)
    gate, inside, done = ForkGate(), threading.Event(), threading.Event()

    def hang() -> None:
        with gate:
            inside.set()
            done.wait(10)

    thread = threading.Thread(target=hang)
    thread.start()
    inside.wait()
    began = time.monotonic()
    assert in_child(lambda: passes(gate) or os._exit(2)) == 0
    assert time.monotonic() - began < 3

    assert not passes(gate)
    done.set()
    thread.join()
    assert passes(gate)


def test_a_thread_may_fork_inside_its_own_gate() -> None:
    """It waits for itself as little as for others."""
    gate = ForkGate()
    with gate:
        assert in_child(lambda: passes(gate) or os._exit(2)) == 0
    assert passes(gate)


def test_threads_that_fork_at_once_leave_the_gate_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """One holds the gate for its fork while the other gives up waiting for it; each opens only what it closed."""
    monkeypatch.setattr(forkgate, "PATIENCE_SECONDS", 0.1)
    gate = ForkGate()
    gate._before()
    other = threading.Thread(target=lambda: (gate._before(), gate._after_in_parent()))
    other.start()
    other.join()
    gate._after_in_parent()

    assert passes(gate)

    codes: list[int] = []
    threads = [
        threading.Thread(target=lambda: codes.append(in_child(lambda: passes(gate) or os._exit(2)))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [0] * 4
    assert passes(gate)


def test_a_gate_nobody_uses_any_more_is_forgotten() -> None:
    """Gates of past applications do not slow down every fork."""
    gate = ForkGate()
    assert gate in forkgate._gates
    before = len(forkgate._gates)
    del gate
    assert len(forkgate._gates) == before - 1
