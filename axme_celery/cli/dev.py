"""``dev``: a project's worker, beat and pages on this machine, for development.

Each is a process in a session of its own, so that Ctrl-C reaches this one
alone, which then stops all by their ids. Neither is started again when it
ends: what ends by itself is something to look at.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from . import web
from .output import is_fancy
from .project import with_axme

if TYPE_CHECKING:
    from ..extension import Axme

#: How long a process may take to end before it is killed. A second Ctrl-C does not wait.
STOP_SECONDS = 10.0
_COLOURS = {"worker": "green", "beat": "blue", "web": "magenta"}


@click.command(short_help="Run the project's worker, beat and pages here, for development.")
@click.option("-c", "--concurrency", type=click.IntRange(min=1), help="Processes of the worker.")
@click.option("-P", "--pool", help="The worker's pool: prefork, threads, solo, gevent.")
@click.option("-l", "--loglevel", default="info", show_default=True)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8710, show_default=True, help="Of the pages; 0: no pages."
)
@click.argument("worker_arguments", metavar="[-- WORKER OPTION...]", nargs=-1, type=click.UNPROCESSED)
@with_axme
def dev(
    axme: Axme,
    concurrency: int | None,
    pool: str | None,
    loglevel: str,
    port: int,
    worker_arguments: tuple[str, ...],
) -> None:
    """Run the project's worker, beat and pages here until Ctrl-C, their output side by side.

    The pages print a link to sign in by once. A SQLite ledger is migrated first.
    What comes after -- goes to the worker: dev -- -Q reports.
    """
    name = click.get_current_context().find_root().params.get("app")
    if not isinstance(name, str):
        raise click.UsageError("which project? Name it with -A, so that its worker and beat can be started")
    if port:
        # A worker and a beat that run already would be stopped again, and the message be far up.
        web.need_extra(", or leave the pages out: --port 0")
    _migrate(axme)
    celery = [sys.executable, "-m", "celery", "-A", name]
    worker = [*celery, "worker", "-n", f"axme-dev-{os.getpid()}@%h", "-l", loglevel]
    worker += ["-c", str(concurrency)] if concurrency else []
    worker += ["-P", pool] if pool else []
    with tempfile.TemporaryDirectory(prefix="axme-dev-") as folder, Crew() as crew:
        beat = [
            *celery,
            "beat",
            "-l",
            loglevel,
            "-s",
            str(Path(folder, "schedule")),
            "--pidfile",
            str(Path(folder, "pid")),
        ]
        crew.start("worker", [*worker, *worker_arguments])
        crew.start("beat", beat)
        if port:
            crew.start(
                "web", [sys.executable, "-m", "axme_celery.cli", "-A", name, "web", "--dev", "--port", str(port)]
            )
        ended = crew.watch()
    if ended is not None:
        click.echo(f"Error: {ended[0]} ended by itself (exit code {ended[1]}); the others were stopped", err=True)
        sys.exit(1)


def _migrate(axme: Axme) -> None:
    """Bring a SQLite ledger up to date; for PostgreSQL that is an operator's to decide."""
    from ..ledger.migrate import upgrade

    if axme.settings.ledger_url.startswith("sqlite"):
        upgrade(axme.settings.ledger_url)
    next(axme.intents(limit=1), None)  # raises LedgerNotMigrated


class Crew:
    """Processes started here, their output line by line on ours; a context that on leaving stops them all."""

    def __init__(self) -> None:
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._printing = threading.Lock()
        self._readers: list[threading.Thread] = []

    def __enter__(self) -> Crew:
        # SIGTERM (a process manager's) ends us as Ctrl-C does: with both stopped.
        self._before = signal.signal(signal.SIGTERM, _interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            signal.signal(signal.SIGTERM, self._before)

    def start(self, name: str, command: Sequence[str]) -> None:
        """Start a process in a session, and so a process group, of its own."""
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
        self._processes[name] = process
        click.echo(f"{name} is process {process.pid}")
        assert process.stdout is not None
        reader = threading.Thread(target=self._print, args=(name, process.stdout), daemon=True)
        reader.start()
        self._readers.append(reader)

    def watch(self) -> tuple[str, int] | None:
        """Until Ctrl-C (then None), or until one ends by itself: its name and exit code."""
        try:
            while True:
                for name, process in self._processes.items():
                    if (code := process.poll()) is not None:
                        return name, code
                time.sleep(0.2)
        except KeyboardInterrupt:
            click.echo("\nstopping (Ctrl-C again: at once)")
            return None

    def stop(self) -> None:
        """Ask them to end; kill, with their children, what has not after STOP_SECONDS or at a second Ctrl-C."""
        for process in self._processes.values():
            if process.poll() is None:
                process.terminate()
        until = time.monotonic() + STOP_SECONDS
        try:
            for process in self._processes.values():
                try:
                    process.wait(max(0.0, until - time.monotonic()))
                except subprocess.TimeoutExpired:
                    pass  # killed below
        except KeyboardInterrupt:
            pass
        for process in self._processes.values():
            try:
                # The group's id is the process's. It cannot be another's while a member lives; with none left this raises.
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
        for reader in self._readers:
            reader.join(1.0)

    def _print(self, name: str, output: IO[bytes]) -> None:
        shown = name.ljust(max(map(len, _COLOURS)))
        prefix = click.style(shown, fg=_COLOURS.get(name)) if is_fancy() else shown
        for line in output:
            if b"INFO/" in line and b"axme.sweep" in line:
                continue  # once a tick, from both; what goes wrong with it is no INFO
            with self._printing:
                click.echo(f"{prefix} | {line.decode('utf-8', 'replace').rstrip()}")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
