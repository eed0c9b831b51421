"""The demo's processes: killed as a group, stopped to the last one, strangers left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from axme_celery.demo import processes
from axme_celery.demo.processes import Crew

#: A parent with a child, which prints the child's id and then sleeps.
FAMILY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def crew(tmp_path):
    with Crew(tmp_path) as crew:
        yield crew


def first_line(crew: Crew, name: str) -> str:
    give_up_at = time.monotonic() + 20
    while not (said := crew.tail(name)):
        assert time.monotonic() < give_up_at, f"{name} says nothing"
        time.sleep(0.02)
    return said.splitlines()[0]


def is_gone(pid: int) -> bool:
    """Ended, whether or not somebody has collected it."""
    give_up_at = time.monotonic() + 10
    while time.monotonic() < give_up_at:
        try:
            with open(f"/proc/{pid}/stat") as stat:
                if stat.read().rsplit(")", 1)[1].split()[0] == "Z":
                    return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False


def test_a_killed_group_takes_its_children_along(crew):
    """As when the machine loses its power: SIGKILL to all, at once."""
    parent = crew.start("family", [sys.executable, "-c", FAMILY])
    child = int(first_line(crew, "family"))
    assert crew.group_of(child) == "family"

    crew.kill_group("family")

    assert is_gone(parent) and is_gone(child)
    assert not crew.is_running("family")
    assert crew.exit_code("family") == -signal.SIGKILL


def test_stopping_leaves_no_orphan_behind(crew):
    """A parent that ends at SIGTERM and forgets its child: the child is ended too."""
    crew.start("family", [sys.executable, "-c", FAMILY])
    child = int(first_line(crew, "family"))

    crew.stop_all()

    assert is_gone(child)


def test_what_does_not_heed_sigterm_is_killed(crew, monkeypatch):
    """After its time is up; leaving the context does it, too."""
    monkeypatch.setattr(processes, "STOP_SECONDS", 0.3)
    crew.start("stubborn", [sys.executable, "-c", STUBBORN])
    first_line(crew, "stubborn")

    crew.stop("stubborn")

    assert crew.exit_code("stubborn") == -signal.SIGKILL


def test_a_failure_stops_everything(tmp_path):
    """However the context is left."""
    with pytest.raises(ZeroDivisionError), Crew(tmp_path) as crew:
        pid = crew.start("family", [sys.executable, "-c", FAMILY])
        raise ZeroDivisionError

    assert is_gone(pid)


def test_a_stranger_is_no_member(crew):
    """Nobody's name is given for a process that was not started here."""
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"], start_new_session=True)
    try:
        assert crew.group_of(stranger.pid) is None
        assert crew.group_of(os.getpid()) is None
    finally:
        stranger.kill()
        stranger.wait()
    assert crew.group_of(stranger.pid) is None


def test_the_tail_of_a_log_is_its_last_lines(crew):
    """And of a log that is not there, nothing."""
    crew.start("counter", [sys.executable, "-c", "for n in range(100): print(n)"])
    while crew.is_running("counter"):
        time.sleep(0.02)

    assert crew.tail("counter", lines=3) == "97\n98\n99"
    assert crew.tail("nobody") == ""
