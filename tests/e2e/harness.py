"""Real workers and beats of ``tests.e2e.project``, and the hands a test has on them.

A ``Stage`` is a project with a broker, a ledger and a folder. Its processes are
started in sessions of their own and ended by their own ids; a worker with its
pool children is one process group, which one SIGKILL takes down like a machine
that lost its power. Tests wait for conditions, never for time to pass.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import psutil

from axme_celery.ledger.migrate import upgrade
from axme_celery.model import Leg, LegStatus
from tests.servers import PrivateRedis, janitor

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
#: A machine with two cores and other work to do starts a worker in about two seconds.
START_SECONDS = 40.0
STOP_SECONDS = 15.0
#: Usual patience with a condition: far more than it takes, so that only what never comes fails.
PATIENCE_SECONDS = 20.0
LEASE_SECONDS = 3.0
TICK_SECONDS = 0.2


def until(condition: Callable[[], T], what: str, seconds: float = PATIENCE_SECONDS) -> T:
    """What the condition returns, as soon as that is true; fails saying ``what`` never came."""
    give_up_at = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > give_up_at:
            raise AssertionError(f"within {seconds:g} seconds there was no {what}")
        time.sleep(0.02)


def make_ledger(url: str) -> None:
    """The tables of a PostgreSQL ledger, with its id."""
    upgrade(url)


class Program:
    """One process of the project, with a session of its own and its output in a file."""

    def __init__(
        self, name: str, project: str, arguments: list[str], folder: Path, environment: Mapping[str, str]
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", project, *arguments],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=ROOT,
                env={**os.environ, **environment}, start_new_session=True,
            )  # fmt: skip
        self.pid = self._process.pid
        janitor.promise_server(self.pid, signal.SIGTERM, folder / "nothing")

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    @property
    def text(self) -> str:
        """All it has written."""
        return self.log.read_text(errors="replace")

    def wait_ready(self, sign: str) -> None:
        """Until it has written this."""
        until(lambda: sign in self.text or not self.is_running, f"{sign!r} from {self.name}", START_SECONDS)
        assert self.is_running, f"{self.name} ended while it started:\n{self.text[-3000:]}"

    def children(self) -> list[psutil.Process]:
        """Its children that live: pool processes."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return [c for c in psutil.Process(self.pid).children() if c.status() != psutil.STATUS_ZOMBIE]
        return []

    def send(self, number: signal.Signals) -> None:
        """A signal to it alone, not to its children."""
        os.kill(self.pid, number)

    def kill_group(self) -> None:
        """SIGKILL to it and all its children at once: nothing is said, nothing handed back."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait(STOP_SECONDS)
        janitor.release(self.pid)

    def pause_group(self) -> None:
        """SIGSTOP to it and all its children: silent, not dead."""
        os.killpg(self.pid, signal.SIGSTOP)

    def resume_group(self) -> None:
        os.killpg(self.pid, signal.SIGCONT)

    def wait_ended(self, seconds: float = STOP_SECONDS) -> None:
        """Until it has ended."""
        self._process.wait(seconds)

    def stop(self) -> None:
        """SIGTERM, and wait until it has ended in its own way."""
        self.send(signal.SIGTERM)
        self.wait_ended()
        janitor.release(self.pid)


class Stage:
    """A project on a broker and a ledger: its processes, its effects, and the module itself to submit with."""

    _modules = itertools.count()
    #: The module of the project; another kind of stage has another.
    project_name = "tests.e2e.project"

    def __init__(
        self, broker: str, ledger: str | None = None, redis: PrivateRedis | None = None, **config: Any
    ) -> None:
        self._redis = redis
        self.folder = Path(tempfile.mkdtemp(prefix="axme-test-e2e-"))
        janitor.promise_folder(self.folder)
        self.effects_file.touch()
        self.config: dict[str, Any] = {
            "broker_url": broker,
            "result_backend": broker,
            "broker_connection_retry_on_startup": True,
            "axme_ledger_url": ledger or f"sqlite:///{self.folder}/ledger.db",
            "axme_lease_seconds": LEASE_SECONDS,
            "axme_tick_seconds": TICK_SECONDS,
            **config,
        }
        self.programs: list[Program] = []
        self._names = itertools.count(1)
        self.project = self._load()
        self.axme = getattr(self.project, "axme", None)

    # -- the project in this process ------------------------------------------------

    def _load(self) -> Any:
        """The project's module, loaded afresh for this stage."""
        path = ROOT / f"{self.project_name.replace('.', '/')}.py"
        spec = importlib.util.spec_from_file_location(f"{self.project_name}_{next(self._modules)}", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        with _environment(self.environment):
            spec.loader.exec_module(module)
        module.app.finalize()
        return module

    @property
    def redis(self) -> PrivateRedis:
        """The stage's own Redis."""
        assert self._redis is not None, "this stage has no Redis of its own"
        return self._redis

    @property
    def environment(self) -> dict[str, str]:
        return {"E2E_CONFIG": json.dumps(self.config), "E2E_FOLDER": str(self.folder)}

    # -- processes ----------------------------------------------------------------------

    def worker(
        self,
        *,
        pool: str = "prefork",
        concurrency: int = 2,
        beat: bool = False,
        environment: Mapping[str, str] | None = None,
        ready: bool = True,
    ) -> Program:
        """Start a worker. ``beat``: with the beat inside it (``-B``)."""
        name = f"worker{next(self._names)}"
        arguments = ["worker", "-P", pool, "-c", str(concurrency), "-n", f"{name}@%h", "-l", "INFO"]
        arguments += ["--without-mingle", "--without-gossip"]
        if beat:
            arguments += ["-B", "-s", str(self.folder / f"{name}-schedule")]
        return self._start(name, arguments, environment, " ready." if ready else None)

    def beat(self, *, ready: bool = True) -> Program:
        """Start a beat process."""
        name = f"beat{next(self._names)}"
        schedule = str(self.folder / f"{name}-schedule")
        arguments = ["beat", "-s", schedule, "-l", "INFO", "--pidfile", str(self.folder / f"{name}.pid")]
        return self._start(name, arguments, None, "beat: Starting" if ready else None)

    def _start(
        self, name: str, arguments: list[str], environment: Mapping[str, str] | None, sign: str | None
    ) -> Program:
        program = Program(name, self.project_name, arguments, self.folder, {**self.environment, **(environment or {})})
        self.programs.append(program)
        if sign is not None:
            program.wait_ready(sign)
        return program

    # -- what happened --------------------------------------------------------------------

    @property
    def effects_file(self) -> Path:
        return self.folder / "effects.jsonl"

    def effects(self, what: str | None = None, name: str | None = None) -> list[dict[str, Any]]:
        """What tasks did, in the order they did it."""
        lines = [json.loads(line) for line in self.effects_file.read_text().splitlines()]
        return [e for e in lines if what in (None, e["what"]) and name in (None, e.get("name"))]

    def pages_done(self, name: str) -> list[int]:
        """The pages whose step came to its end, in that order."""
        return [e["page"] for e in self.effects("done", name)]

    @contextlib.contextmanager
    def held(self, place: str) -> Iterator[None]:
        """Tasks that come to this place stay there meanwhile."""
        marker = self.folder / f"hold-{place}"
        marker.touch()
        try:
            yield
        finally:
            marker.unlink(missing_ok=True)

    def wait_started(self, name: str, page: int, run: int | None = None) -> dict[str, Any]:
        """Until this step has started (in this run): its effect."""
        return until(
            lambda: next(
                (e for e in self.effects("started", name) if e["page"] == page and run in (None, e["run"])), None
            ),
            f"start of page {page} of {name}",
        )

    def leg(self, intent: Any) -> Leg:
        """The intent's one leg as it is now."""
        (leg,) = intent.legs()
        return leg

    def wait_running(self, intent: Any, run: int, seconds: float = PATIENCE_SECONDS) -> Leg:
        """Until this run (or a later one) of the intent's leg has been claimed."""

        def claimed() -> Leg | None:
            leg = self.leg(intent)
            return leg if leg.run >= run and leg.status is not LegStatus.QUEUED else None

        return until(claimed, f"run {run} of intent {intent.id}", seconds)

    def wait_status(self, intent: Any, status: str, seconds: float = PATIENCE_SECONDS) -> Any:
        """Until the intent stands so."""
        until(lambda: intent.refresh().status == status, f"{status} of intent {intent.id}", seconds)
        return intent

    def wait_asked(self, intent: Any, seconds: float = PATIENCE_SECONDS) -> Any:
        """Until the intent waits for something: that wait."""
        return until(
            lambda: next((w for w in intent.waits() if w.status == "OPEN"), None), f"wait of {intent.id}", seconds
        )

    def intent_of(self, result: Any) -> Any:
        """The intent that a ``.delay()`` made."""
        return self.axme.intent(result.intent_id)

    def events(self, intent: Any) -> list[str]:
        """The types of an intent's events."""
        return [event.type for event in intent.events()]

    # -- the end ---------------------------------------------------------------------------

    def close(self) -> None:
        """Kill what still runs (an orderly end takes seconds, and is the subject of tests of its own); tidy up."""
        for program in self.programs:
            program.kill_group()
        if self.axme is not None:
            self.axme.drain(1.0)
            self.axme.close()
        self.project.app.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def story(self) -> str:
        """What a person wants to see when a test has failed: histories, effects, and the ends of the logs."""
        parts = []
        with contextlib.suppress(Exception):
            for intent in self.axme.intents(limit=5):
                parts.append(f"{intent!r} error={intent.error} legs={intent.legs()}")
                parts += [f"    {e.seq} {e.at:%H:%M:%S.%f} {e.type} {e.actor} {e.details}" for e in intent.events()]
        parts += ["effects:", *map(str, self.effects()[-40:])]
        for program in self.programs:
            lines = [
                line for line in program.text.splitlines() if "axme.sweep" not in line and "axme-sweep" not in line
            ]
            parts += [f"-- {program.name} ({program.pid}) --", *lines[-40:]]
        return "\n".join(parts)


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
