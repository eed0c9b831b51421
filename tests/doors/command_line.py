"""The command line as tests use it: a project with or without a worker, and its verbs to call."""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
from click.testing import CliRunner, Result

from axme_celery import Intent
from axme_celery.cli import axme as command
from tests.servers import PrivateRedis, janitor

from .project import make_app

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
#: Far longer than anything takes, so that only what never comes fails.
PATIENCE_SECONDS = 30.0

_numbers = itertools.count(1)


def until(condition: Callable[[], T], what: str) -> T:
    """What the condition returns, as soon as that is true."""
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < give_up_at, f"there was no {what} within {PATIENCE_SECONDS:g} seconds"
        time.sleep(0.02)
    return found


class Desk:
    """A project and somebody at its command line."""

    def __init__(self, folder: Path, broker: str, **config: Any) -> None:
        self.folder = folder
        self.config = {
            "broker_url": broker,
            "result_backend": broker,
            # A queue of its own: another desk's worker has another ledger.
            "task_default_queue": f"desk{os.getpid()}-{next(_numbers)}",
            "axme_ledger_url": f"sqlite:///{folder}/ledger.db",
            "axme_tick_seconds": 0.2,
            "axme_lease_seconds": 3,
            **config,
        }
        self.app = make_app(**self.config)
        self.axme = self.app.axme

    def another(self, **config: Any) -> Desk:
        """Another process's view of the same project, configured otherwise."""
        return Desk(self.folder, **{**self.config, "broker": self.config["broker_url"], **config})

    @property
    def environment(self) -> dict[str, str]:
        """For a process of this project."""
        return {**os.environ, "DOORS_CONFIG": json.dumps(self.config), "AXME_ACTOR": "olga"}

    def run(self, *words: str, code: int = 0, stdin: str | None = None, actor: str | None = "olga") -> Result:
        """Call a verb in this process. It must end with ``code``, and must not show anybody a traceback."""
        result = CliRunner().invoke(
            command, list(words), obj=SimpleNamespace(app=self.app), input=stdin, env={"AXME_ACTOR": actor}
        )
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, f"exit code {result.exit_code}:\n{result.output}"
        return result

    def json(self, *words: str) -> Any:
        """What a verb prints with --json, read."""
        return json.loads(self.run(*words, "--json").stdout)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Call the script in a process of its own."""
        return subprocess.Popen(
            [*SCRIPT, "-A", "tests.doors.project", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL, text=True, cwd=ROOT, env=self.environment,
        )  # fmt: skip

    def on_a_terminal(self, *words: str, **environment: str) -> tuple[int, subprocess.Popen[bytes]]:
        """Call the script with a terminal of 200 columns as its output: our end of that, and the process."""
        ours, theirs = pty.openpty()
        environment = {"TERM": "xterm-256color", "COLUMNS": "200", "LINES": "40", **environment}
        process = subprocess.Popen(
            [*SCRIPT, "-A", "tests.doors.project", *words], stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT,
            env={**self.environment, **environment},
        )  # fmt: skip
        os.close(theirs)
        return ours, process

    # -- intents to work on --

    def submit(self, task: str, *args: Any, **options: Any) -> Intent:
        """An intent, and its message sent."""
        intent = self.axme.submit(self.app.signature(task, args=args), **options)
        assert self.axme.drain()
        return intent

    def reach(self, intent: Intent, status: str) -> Intent:
        """The intent, once it has come to this status."""
        until(lambda: intent.refresh().status == status, f"{status} of {intent} ({intent.error})")
        return intent

    def waiting(self, task: str, *args: Any, **options: Any) -> Intent:
        """An intent that waits."""
        return self.reach(self.submit(task, *args, **options), "WAITING")

    def parked(self) -> tuple[Intent, Path]:
        """An intent whose leg is parked because its code changed, and the file that changed it."""
        path = self.folder / f"changed-{next(_numbers)}"
        intent = self.waiting("doors.changes", str(path))
        path.touch()
        self.axme.answer(intent.id, "approved", by="ana")
        until(lambda: intent.legs()[0].status == "PARKED", "parked leg")
        return intent, path


def read_until(terminal: int, word: str | None = None) -> str:
    """What comes out of a terminal: up to this word and the end of a line, or all there is."""
    seen, give_up_at = "", time.monotonic() + PATIENCE_SECONDS
    while word is None or word not in seen or not seen.endswith("\n"):
        assert time.monotonic() < give_up_at, f"no {word!r} in {seen!r}"
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                seen += os.read(terminal, 65536).decode()
            except OSError:  # the other end is closed
                break
    assert word is None or word in seen
    return seen


#: The script ``axme-celery``, as the Python that runs the tests has it.
SCRIPT = [sys.executable, "-c", "import sys; sys.argv[0] = 'axme-celery'; from axme_celery.cli import main; main()"]


CELERY = [sys.executable, "-m", "celery", "-A", "tests.doors.project"]


@functools.cache
def _redis() -> PrivateRedis:
    """Of this test process, apart from the one that other tests flush."""
    return PrivateRedis().start()


@functools.cache
def _served() -> Desk:
    """A desk with a worker and a beat, for all tests of this process."""
    folder = Path(tempfile.mkdtemp(prefix="axme-test-desk-"))
    janitor.promise_folder(folder)
    desk = Desk(folder, _redis().url)
    assert desk.axme.runtime.ledger.id  # its tables are made once, here
    log = folder / "worker.log"
    with log.open("wb") as output:
        worker = subprocess.Popen(
            [*CELERY, "worker", "-P", "threads", "-c", "4", "-B", "-s", str(folder / "schedule"), "-l", "INFO"],
            stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd=ROOT, env=desk.environment,
            start_new_session=True,
        )  # fmt: skip
    janitor.promise_server(worker.pid, signal.SIGTERM, folder)

    @atexit.register
    def stop() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
        janitor.release(worker.pid)
        shutil.rmtree(folder, ignore_errors=True)

    until(lambda: " ready." in log.read_text(errors="replace") or worker.poll() is not None, "worker")
    assert worker.poll() is None, log.read_text(errors="replace")[-3000:]
    return desk


@pytest.fixture(name="served")
def served_fixture() -> Desk:
    """A project whose worker and beat run."""
    return _served()


@pytest.fixture(name="desk")
def desk_fixture(tmp_path: Path) -> Iterator[Desk]:
    """A project on a new SQLite ledger and a real Redis; no worker runs."""
    desk = Desk(tmp_path, _redis().url)
    yield desk
    desk.axme.close()


__all__ = ["PATIENCE_SECONDS", "ROOT", "SCRIPT", "Desk", "desk_fixture", "read_until", "served_fixture", "until"]
