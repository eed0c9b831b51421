"""dev: worker, beat and pages of a project together, and no process left when it ends."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import threading
import urllib.request

import psutil
import pytest

from tests.servers import free_port, janitor

from .command_line import PATIENCE_SECONDS, Desk, desk_fixture, until  # noqa: F401


class Running:
    """``axme-celery -A project dev`` in a process of its own, and what it has said so far."""

    def __init__(self, desk: Desk) -> None:
        self.port = free_port()
        self.process = desk.start("dev", "-P", "threads", "-c", "2", "--port", str(self.port))
        self._said: list[str] = []
        assert self.process.stdout is not None
        self._reader = threading.Thread(target=lambda: self._said.extend(iter(self.process.stdout.readline, "")))  # type: ignore
        self._reader.start()
        until(lambda: "web is process" in self.said, "word of all processes")
        self.worker, self.beat, self.web = (
            int(re.search(rf"{name} is process (\d+)", self.said)[1]) for name in ("worker", "beat", "web")
        )
        for pid in (self.worker, self.beat, self.web):
            janitor.promise_server(pid, signal.SIGTERM, desk.folder / "nothing")
        until(lambda: " ready." in self.said, "worker")

    @property
    def said(self) -> str:
        return "".join(self._said)

    def end(self, with_signal: signal.Signals | None = None) -> int:
        """Its exit code, once it has ended; ``with_signal``: after it was sent that."""
        if with_signal is not None:
            self.process.send_signal(with_signal)
        try:
            code = self.process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            self._reader.join(PATIENCE_SECONDS)
        for pid in (self.worker, self.beat, self.web):
            janitor.release(pid)
        return code


@pytest.fixture
def running(desk):
    running = Running(desk)
    yield running
    if running.process.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.end(signal.SIGINT)


@pytest.mark.parametrize("with_signal", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_dev_runs_worker_beat_and_pages_until_it_is_stopped(desk, running, with_signal):
    """Intents complete, the beat sweeps, the pages answer, each line says whose it is; then all are gone, with code 0."""
    assert desk.reach(desk.submit("doors.add", 2, 3), "COMPLETED").result == 5
    until(lambda: any(name.startswith("gen") for name in desk.axme.runtime.tracker.ticks()), "sweep by the beat")
    children = {pid: psutil.Process(pid) for pid in (running.worker, running.beat, running.web)}
    until(lambda: "Listening at" in running.said, "pages")
    with urllib.request.urlopen(f"http://127.0.0.1:{running.port}/health", timeout=10) as answer:
        assert json.load(answer)["status"] == "ok"
    assert re.search(r"^web    \| .*/sign-in\?link=axl_", running.said, re.MULTILINE)
    assert all(os.getpgid(pid) == pid for pid in children), "Ctrl-C at the terminal must reach dev alone"

    assert running.end(with_signal) == 0

    assert not any(process.is_running() for process in children.values())
    assert re.search(r"^worker \| .*ready\.", running.said, re.MULTILINE)
    assert re.search(r"^beat   \| ", running.said, re.MULTILINE)
    assert "axme.sweep[" not in running.said, "one line a tick would hide everything else"


def test_a_worker_that_ends_by_itself_is_not_started_again(desk, running):
    """It is something to look at: the beat is stopped too, and the code is 1."""
    beat = psutil.Process(running.beat)
    os.kill(running.worker, signal.SIGKILL)

    assert running.end() == 1

    assert not beat.is_running()
    assert running.process.stderr is not None
    assert "worker ended by itself (exit code -9)" in running.process.stderr.read()


def test_dev_refuses_a_postgresql_ledger_that_is_not_migrated(desk, postgres_url):
    """That is an operator's to decide; nothing is started."""
    process = desk.another(axme_ledger_url=postgres_url).start("dev")

    out, said = process.communicate(timeout=PATIENCE_SECONDS)

    assert process.returncode == 4 and "migrate" in said and "is process" not in out


def without_gunicorn(desk):
    """A folder that, before all others on the path, makes gunicorn what it is without the extra: not there."""
    folder = desk.folder / "without"
    (folder / "gunicorn").mkdir(parents=True)
    (folder / "gunicorn" / "__init__.py").write_text("raise ModuleNotFoundError('no gunicorn', name='gunicorn')\n")
    return folder


@pytest.mark.parametrize("verb", ["dev", "web"])
def test_without_what_the_pages_need_nothing_is_started_and_the_way_out_is_named(desk, monkeypatch, verb):
    """Rather than a worker and a beat that are stopped again."""
    monkeypatch.setenv("PYTHONPATH", str(without_gunicorn(desk)))
    process = desk.start(verb)

    out, said = process.communicate(timeout=PATIENCE_SECONDS)

    assert process.returncode == 2 and "is process" not in out
    assert "gunicorn is not installed: pip install 'axme-celery[web]'" in said
    assert ("--port 0" in said) == (verb == "dev")


def test_dev_needs_the_name_of_the_project(desk):
    """It must start other processes of it."""
    assert "-A" in desk.run("dev", code=2).stderr
