"""One server process: started, stopped, killed, paused, and never left behind."""

from __future__ import annotations

import atexit
import contextlib
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import psutil

from . import janitor

START_SECONDS = 60
RETRY_SECONDS = 10
STOP_SECONDS = 20


class ServerDidNotStart(Exception):
    """The program is there but did not come up. The message carries the end of its log."""


def free_port() -> int:
    """A port nobody listens on, outside the range the kernel gives to outgoing connections.

    From that range a stopped server's port could be taken before it is started
    again, even by a client that keeps trying to reach it.
    """
    for _ in range(200):
        port = random.SystemRandom().randint(15_000, 30_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise ServerDidNotStart("no free port between 15000 and 30000 on 127.0.0.1")


_open: set[PrivateServer] = set()


def close_all() -> None:
    """Stop every server this process started, and none that a parent of it did. Called at exit too."""
    for server in [server for server in _open if server.owner == os.getpid()]:
        server.close()


atexit.register(close_all)


class PrivateServer:
    """One server process: started, stopped, killed, paused, on one port for its whole life.

    Not started until ``start()`` or ``with``. ``config`` overrides settings of the
    server itself, under the server's own names.
    """

    name: ClassVar[str]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, config: Mapping[str, str] | None = None) -> None:
        self.program = self.find_program()
        self.config = dict(config or {})
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix=f"axme-test-{self.name}-", dir=folder_for_servers()))
        self.owner = os.getpid()
        self._process: subprocess.Popen[bytes] | None = None
        _open.add(self)

    # what each kind of server says about itself

    def find_program(self) -> Path:
        """The program to start. Raises MissingService."""
        raise NotImplementedError

    @property
    def url(self) -> str:
        raise NotImplementedError

    def arguments(self) -> list[str]:
        """What the program is told."""
        return []

    def answers(self) -> bool:
        """Whether it takes work now."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return dict(os.environ, LC_ALL="C")

    def user(self) -> int | None:
        """The user id to run as; None is this process's own."""
        return None

    # its life

    @property
    def pid(self) -> int | None:
        """The process id of the server, None when it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def start(self) -> Self:
        """Start it and return when it takes work; nothing when it runs already. Raises ServerDidNotStart."""
        began = time.monotonic()
        while not self._ready():
            elapsed_seconds = time.monotonic() - began
            if self.pid is None:
                # What a killed server left behind (a port, shared memory) can take a moment to go: try again.
                if elapsed_seconds > RETRY_SECONDS:
                    raise ServerDidNotStart(f"{self.program} did not start; the end of {self.log}:\n{self.log_end()}")
                self._spawn()
            elif elapsed_seconds > START_SECONDS:
                self.kill()
                raise ServerDidNotStart(f"{self.program} did not answer within {START_SECONDS} s:\n{self.log_end()}")
            time.sleep(0.02)
        return self

    def stop(self, with_signal: signal.Signals | None = None) -> None:
        """End it in its own orderly way and wait; killed if it does not listen. Data on disk stays."""
        if (process := self._process) is None or self.pid is None:
            return
        process.send_signal(with_signal or self.stop_signal)
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        janitor.release(process.pid)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        if (process := self._process) is not None and self.pid is not None:
            process.kill()
            process.wait(STOP_SECONDS)
            janitor.release(process.pid)

    def restart(self) -> None:
        """Stop and start; what was not on disk is gone."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Hang it: connections are accepted by the kernel and nothing answers, until ``resume()``."""
        for process in self._family():
            # One of its processes may end by itself just now: PostgreSQL's come and go.
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()

    def resume(self) -> None:
        for process in self._family():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        self.pause()
        try:
            yield
        finally:
            self.resume()

    def close(self) -> None:
        """Stop it for good and remove its folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        _open.discard(self)

    def log_end(self) -> str:
        """The last lines the server wrote."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:]) if self.log.exists() else "(empty)"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _spawn(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(self.program), *self.arguments()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=self.environment(),
                start_new_session=True,
                **as_user(self.user()),
            )
        janitor.promise_server(self._process.pid, self.stop_signal, self.folder)

    def _ready(self) -> bool:
        """Whether it takes work, and is itself who listens: another's server may sit on the port."""
        if self.pid is None:
            return False
        with contextlib.suppress(psutil.Error):
            sockets = psutil.Process(self.pid).net_connections("tcp")
            return any(s.status == psutil.CONN_LISTEN and s.laddr.port == self.port for s in sockets) and self.answers()
        return False

    def _family(self) -> list[psutil.Process]:
        if self.pid is None:
            raise ServerDidNotStart(f"{self.name} is not running, so it cannot be paused or resumed")
        parent = psutil.Process(self.pid)
        return [parent, *parent.children(recursive=True)]


def as_user(uid: int | None) -> dict[str, Any]:
    """Arguments of ``subprocess`` to run as another user; none for this process's own."""
    return {} if uid is None else {"user": uid, "group": pwd.getpwuid(uid).pw_gid, "extra_groups": []}


def open_to_all(path: Path) -> bool:
    """Whether another user can walk down to ``path``."""
    return all(folder.stat().st_mode & 0o001 for folder in path.resolve().parents)


def folder_for_servers() -> str:
    """Where temporary folders are made: one that a server with less rights than ours can reach."""
    usual = tempfile.gettempdir()
    return usual if os.geteuid() != 0 or open_to_all(Path(usual, "any")) else "/tmp"
