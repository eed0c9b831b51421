"""The demo's processes: each started in a session of its own, logged to a file, and stopped by its own id.

A session of its own does two things: Ctrl-C at the terminal reaches the runner alone,
which then stops the others in order; and a worker with its pool children is one
process group, which one SIGKILL takes down like a machine that lost its power.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from ..errors import AxmeError

#: How long a process may take to end after SIGTERM before it is killed.
STOP_SECONDS = 4.0


class DemoFailed(AxmeError):
    """The demo did not go on; the message says at which point, the logs of the processes why."""


class Crew:
    """The processes one run of the demo has started. A context: on leaving it, all of them are stopped."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._started: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_all()

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
        """Start a process under a name, output to ``<logs>/<name>.log``. Returns its id, also that of its group."""
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        self._started[name] = process
        return process.pid

    def log(self, name: str) -> Path:
        """The log of a process, there or not yet."""
        return self._logs / f"{name}.log"

    def tail(self, name: str, lines: int = 15) -> str:
        """The last lines of a process's log."""
        try:
            return "\n".join(self.log(name).read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return ""

    @property
    def names(self) -> list[str]:
        """Everything ever started, in that order."""
        return list(self._started)

    def pid(self, name: str) -> int:
        """The id of a process started here."""
        return self._started[name].pid

    def is_running(self, name: str) -> bool:
        """Whether a process started here still runs."""
        return self._started[name].poll() is None

    def exit_code(self, name: str) -> int | None:
        """How a process ended: its exit code, or minus the signal that ended it; None while it runs."""
        return self._started[name].poll()

    def group_of(self, pid: int) -> str | None:
        """The name under which the group of this process was started; None for a stranger or one that is gone."""
        try:
            group = os.getpgid(pid)
        except ProcessLookupError:
            return None
        return next((name for name, process in self._started.items() if process.pid == group), None)

    def kill_group(self, name: str) -> None:
        """SIGKILL to the process and all its children at once: no handler runs, nothing is handed back."""
        process = self._started[name]
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self, *names: str) -> None:
        """Ask these to end, wait up to STOP_SECONDS for all of them together, kill what is left of their groups."""
        running = [self._started[name] for name in names if self.is_running(name)]
        for process in running:
            process.terminate()
        give_up_at = time.monotonic() + STOP_SECONDS
        for process in running:
            try:
                process.wait(max(0.0, give_up_at - time.monotonic()))
            except subprocess.TimeoutExpired:
                pass  # killed below
            try:
                # Also where the process itself has ended: a pool child may have outlived its parent.
                # The group's id cannot have been reused while a member lives, and with none left this raises.
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()

    def stop_all(self) -> None:
        """Stop everything, those started last first."""
        servers = [name for name in self._started if name == "redis"]
        # The broker last: a worker that stops still has messages to hand back.
        self.stop(*[name for name in reversed(self._started) if name not in servers])
        self.stop(*servers)
