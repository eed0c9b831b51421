"""A page's project: a folder with the files the page makes, its Python session, its shell, and its servers.

The addresses a page names (Redis on localhost, PostgreSQL on localhost) stand for the test's own servers.
"""

from __future__ import annotations

import contextlib
import doctest
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.servers import janitor

from .pages import ROOT, RUN, Block
from .shown import Ids

#: How long one command, or one thing typed in, may take.
SECONDS = 60
#: Commands that serve until they are stopped.
SERVER = re.compile(r"^(?:axme-)?celery -A \S+ (?P<what>worker|beat|dev|web)\b")
READY = {"worker": " ready.", "beat": "beat: Starting", "dev": " ready.", "web": "Booting worker"}
#: What a test may do without: a worker looks for its neighbours for a second before it starts.
FASTER = {"worker": ("--without-mingle", "--without-gossip")}


class PageIsWrong(AssertionError):
    """What the page says is not what happens."""


class Project:
    """Where one page is carried out."""

    def __init__(
        self, folder: Path, addresses: Mapping[str, str], environment: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        self._addresses = addresses
        self._ids = Ids()
        self._session: subprocess.Popen[str] | None = None
        self._servers: list[subprocess.Popen[bytes]] = []
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AXME_", "CELERY_"))},
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "COLUMNS": "200",
            **(environment or {}),
        }

    def carry_out(self, page: Iterable[Block]) -> None:
        """Do what the page says. Raises PageIsWrong, naming the line."""
        runs = [block for block in page if block.kind in RUN]
        for block in runs:
            if block.file is not None and not block.changes_its_file:
                self._write(block, "a")
        for block in runs:
            if block.changes_its_file:
                self._write(block, "w")
            elif block.file is None:
                {"python": self._python, "pycon": self._typed, "console": self._console}[block.kind](block)

    def close(self) -> None:
        """Stop the session and every server, by their ids."""
        if self._session is not None:
            self._session.kill()
            self._session.wait()
        for server in self._servers:
            # The whole of it at once, beat and pool too: nothing of it is needed any more.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()
            janitor.release(server.pid)

    def _write(self, block: Block, mode: str) -> None:
        assert block.file is not None
        path = self.folder / block.file
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open(mode) as file:
            file.write(("\n\n" if file.tell() else "") + self._here(block.text))

    # -- Python ------------------------------------------------------------------------

    def _python(self, block: Block) -> None:
        self._say(f"{block}", "\n" * (block.line - 1) + self._here(block.text), "exec")

    def _typed(self, block: Block) -> None:
        for example in doctest.DocTestParser().get_examples(self._here(block.text, ids=False)):
            where = f"{block.page}:{block.line + example.lineno}"
            source = self._ids.translate(example.source)
            printed = self._say(where, source, "single", may_raise=example.exc_msg is not None)
            if not self._ids.matches(example.want, printed):
                raise PageIsWrong(f"{where} shows\n{example.want}\nbut what was printed is\n{printed}")

    def _say(self, where: str, text: str, mode: str, *, may_raise: bool = False) -> str:
        if self._session is None:
            self._session = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("session.py"))],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log("session"), text=True,
                cwd=self.folder, env=self._environment,
            )  # fmt: skip
        assert self._session.stdin is not None
        assert self._session.stdout is not None
        self._session.stdin.write(json.dumps({"text": text, "mode": mode}) + "\n")
        self._session.stdin.flush()
        line = self._session.stdout.readline()
        if not line:
            raise PageIsWrong(f"{where} ended the session\n{self._logs()}")
        answer = json.loads(line)
        if answer["error"] is None:
            return str(answer["printed"])
        if may_raise:
            # As a session shows it, and as a page shows it: the first line, and the exception's own.
            return "Traceback (most recent call last):\n" + answer["error"].strip().splitlines()[-1]
        raise PageIsWrong(f"{where} raised\n{answer['error']}\n{self._logs()}")

    # -- the shell -----------------------------------------------------------------------

    def _console(self, block: Block) -> None:
        commands: list[tuple[int, str, list[str]]] = []
        for number, line in enumerate(block.text.splitlines(), block.line):
            if line.startswith("$ "):
                commands.append((number, line[2:], []))
            elif commands and commands[-1][1].endswith("\\"):
                commands[-1] = (commands[-1][0], commands[-1][1][:-1] + line.strip(), [])
            elif commands:
                commands[-1][2].append(line)
            elif line.strip():
                raise PageIsWrong(f"{block.page}:{number} begins with output; a command begins with '$ '")
        for number, command, shown in commands:
            self._run(f"{block.page}:{number}", self._here(command), [self._here(line, ids=False) for line in shown])

    def _run(self, where: str, command: str, shown: list[str]) -> None:
        if server_command := SERVER.match(command):
            self._serve(where, command, server_command["what"])
            return
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.folder, env=self._environment, capture_output=True, text=True,
            timeout=SECONDS, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        printed = done.stdout + done.stderr
        should_fail = any(line.startswith(("Error", "PROBLEM")) for line in shown)
        if (done.returncode != 0) != should_fail:
            raise PageIsWrong(f"{where}: {command}\nended with {done.returncode} and\n{printed}\n{self._logs()}")
        missing = self._ids.missing(shown, printed)
        if missing is not None:
            raise PageIsWrong(f"{where}: {command}\ndid not print\n{missing}\nbut\n{printed}\n{self._logs()}")

    def _serve(self, where: str, command: str, what: str) -> None:
        log = self._log(f"server-{len(self._servers)}")
        server = subprocess.Popen(
            [*shlex.split(command), *FASTER.get(what, ())], cwd=self.folder, env=self._environment, stdout=log, stderr=log,
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        self._servers.append(server)
        janitor.promise_server(server.pid, signal.SIGTERM, self.folder / "nothing")
        give_up_at = time.monotonic() + SECONDS
        while READY[what] not in Path(log.name).read_text(errors="replace"):
            # All are asked: one that was killed is to be gone, as it is where a shell started it.
            ended = [each for each in self._servers if each.poll() is not None]
            if server in ended or time.monotonic() > give_up_at:
                raise PageIsWrong(f"{where}: {command}\ndid not come up\n{self._logs()}")
            time.sleep(0.05)

    # -- small parts ----------------------------------------------------------------------

    def _here(self, text: str, *, ids: bool = True) -> str:
        """Text of the page with this run's addresses, and ids unless it is what must be printed."""
        for named, real in self._addresses.items():
            text = text.replace(named, real)
        return self._ids.translate(text) if ids else text

    def _log(self, name: str) -> Any:
        logs = self.folder / ".logs"
        logs.mkdir(exist_ok=True)
        return (logs / f"{name}.log").open("a")

    def _logs(self) -> str:
        """The ends of all logs, for the message of a failure."""
        ends = []
        for log in sorted((self.folder / ".logs").glob("*.log")):
            lines = log.read_text(errors="replace").splitlines()[-25:]
            ends.append("\n".join([f"-- {log.name}", *lines]))
        return "\n".join(ends)
