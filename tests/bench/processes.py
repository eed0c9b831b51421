"""Worker programs of a turn: started, stopped, killed, and none left over."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

STOP_SECONDS = 3


class Program:
    """A process with a process group of its own, so that it can be killed with its children and nobody else.

    It stays in the turn's session, so that ``kill_session`` finds it if the turn itself dies.
    """

    def __init__(self, arguments: Sequence[str], log: Path) -> None:
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, *arguments], stdin=subprocess.DEVNULL, stdout=output, stderr=output, process_group=0
            )
        self.pid = self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        """SIGTERM to the program, SIGKILL to its group if it does not end."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL to the program and its children at once; returns when the program is gone."""
        kill_group(self.pid)
        self._process.wait(STOP_SECONDS)


def celery_worker(
    app: str, log: Path, *, pool: str = "prefork", concurrency: int = 2, name: str = "one", queues: str = "celery"
) -> Program:
    """A Celery worker of the module ``app``, in its defaults but for its greeting of other workers (a second)."""
    options = ["--pool", pool, "--concurrency", str(concurrency), "--hostname", f"{name}@bench", "--queues", queues]
    return Program(
        ["-m", "celery", "-A", app, "worker", "--loglevel", "WARNING", "--without-mingle", *options],
        log.with_name(f"worker-{name}.log"),
    )


def celery_beat(app: str, log: Path) -> Program:
    """The beat process of the module ``app``, its schedule kept beside the log."""
    return Program(
        ["-m", "celery", "-A", app, "beat", "--loglevel", "WARNING", "--schedule", str(log.with_name("beat-schedule"))],
        log.with_name("beat.log"),
    )


def axme_web(app: str, log: Path, port: int, *, workers: int = 2) -> Program:
    """The web server of the module ``app``, as ``axme web`` starts it."""
    options = ["--port", str(port), "--workers", str(workers)]
    return Program(["-m", "celery", "-A", app, "axme", "web", *options], log.with_name("web.log"))


def kill_group(pid: int) -> None:
    """SIGKILL to the process group that ``pid`` belongs to, unless it is our own."""
    with contextlib.suppress(ProcessLookupError):
        group = os.getpgid(pid)
        if group != os.getpgrp():
            os.killpg(group, signal.SIGKILL)


def kill_session(leader: int) -> int:
    """SIGKILL whatever still runs in the session that ``leader`` opened; returns how many processes that were.

    Reads /proc, so it finds nothing on systems without it.
    """
    killed = 0
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            pid = int(entry.name)
            if os.getsid(pid) == leader and not _is_zombie(entry):
                os.kill(pid, signal.SIGKILL)
                killed += 1
    return killed


def _is_zombie(entry: Path) -> bool:
    with contextlib.suppress(OSError):
        return (entry / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def settle(seconds: float = 0.3) -> None:
    """Let what a program does after it said that it is ready end before time is taken."""
    time.sleep(seconds)
