"""A private Redis and PostgreSQL, real Celery workers, beats and clients of ``project.py``, and hands on all of them.

Every program is started in a session of its own and ended by its own id: one SIGKILL to its group takes a worker down
with its pool, like a machine that lost its power. A program that ends without having been told to is started again, as
a supervisor would, and counted.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import psutil
import psycopg
from celery import Celery

from axme_celery import Axme
from axme_celery.ledger import SqlLedger, migrate
from tests.servers import PrivatePostgres, PrivateRedis, janitor, libpq_url

from . import reference, witness
from .wires import Copier, LossyProxy

ROOT = Path(__file__).parents[2]
LEASE_SECONDS, TICK_SECONDS, REQUEUE_SECONDS = 2.5, 0.5, 3.0
WORKERS = ("one", "two")
PEOPLE = ("ana", "bob")
#: How long a program that was asked to stop may take.
STOP_SECONDS = 8.0


class Program:
    """A command that runs until it is told to stop: started again if it ends by itself."""

    def __init__(self, name: str, arguments: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        self.name, self.log = name, folder / f"{name}.log"
        self._command = [sys.executable, *arguments]
        self._environment = {**os.environ, **environment}
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.RLock()
        self._wanted = False
        #: Where in the log its present life begins, and since when it is seen to be ready.
        self._life_begins, self._ready_since = 0, 0.0
        #: The exit codes with which it ended without having been told to; a negative one is a signal's.
        self.died: list[int] = []

    @property
    def pid(self) -> int | None:
        """Its process id, None when it does not run."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> None:
        with self._lock:
            self._wanted = True
            self._life_begins, self._ready_since = self.log.stat().st_size if self.log.exists() else 0, 0.0
            with self.log.open("ab") as output:
                self._process = subprocess.Popen(
                    self._command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=ROOT,
                    env=self._environment, start_new_session=True,
                )  # fmt: skip
            janitor.promise_server(self._process.pid, signal.SIGQUIT, self.log.parent / "nothing")

    def keep_up(self) -> None:
        """Start it again if it should run and does not. Not while somebody has a hand on it."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._wanted and self.pid is None:
                assert self._process is not None
                self.died.append(self._process.returncode)
                self._forget()
                self.start()
        finally:
            self._lock.release()

    def kill(self) -> None:
        """SIGKILL to it and all its children at once: nothing is said, nothing handed back."""
        with self._lock:
            self._wanted = False
            if (process := self._process) is not None:
                self._signal_group(signal.SIGKILL)
                process.wait(STOP_SECONDS)
                self._forget()

    def stop(self) -> None:
        """SIGTERM, and SIGKILL to its group if it does not end."""
        with self._lock:
            self._wanted = False
            if (process := self._process) is not None and self.pid is not None:
                process.terminate()
                self._signal_group(signal.SIGCONT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(STOP_SECONDS)
            self.kill()

    @contextlib.contextmanager
    def paused(self, *, with_children: bool) -> Iterator[None]:
        """Silent, not dead, meanwhile. Without its children: a parent that no longer renews leases."""
        with self._lock:
            pid = self.pid
            if pid is None:
                yield
                return
            self._stop_and_go(pid, signal.SIGSTOP, with_children)
            try:
                yield
            finally:
                self._stop_and_go(pid, signal.SIGCONT, with_children)

    def is_up(self, for_seconds: float = 0.0) -> bool:
        """Whether a worker has said that it is ready, and been seen to be so for so long."""
        if self.pid is None:
            return False
        if not self._ready_since:
            with self.log.open("rb") as log:
                log.seek(self._life_begins)
                if b" ready." in log.read():
                    self._ready_since = time.monotonic()
        return bool(self._ready_since) and time.monotonic() - self._ready_since >= for_seconds

    def children(self, older_than_seconds: float = 0.0) -> list[psutil.Process]:
        """Its children that live and are not quite new: pool processes."""
        born_before = time.time() - older_than_seconds
        with contextlib.suppress(psutil.Error, TypeError):
            return [
                child
                for child in psutil.Process(self.pid).children()
                if child.status() != psutil.STATUS_ZOMBIE and child.create_time() <= born_before
            ]
        return []

    def log_end(self, lines: int = 30) -> str:
        """The last lines it wrote."""
        if not self.log.exists():
            return "(nothing)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _stop_and_go(self, pid: int, number: signal.Signals, with_children: bool) -> None:
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if with_children else os.kill)(pid, number)

    def _signal_group(self, number: signal.Signals) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _forget(self) -> None:
        if self._process is not None:
            janitor.release(self._process.pid)
            self._process = None


class WallClock:
    """The wall clock of whatever program is started with ``environment``, movable while it runs. Needs a C compiler."""

    def __init__(self, folder: Path) -> None:
        self._file, self._library = folder / "wallshift", folder / "wallshift.so"
        self._file.write_bytes(struct.pack("q", 0))
        #: Why it cannot be moved; None when it can.
        self.missing = self._build()

    @property
    def environment(self) -> dict[str, str]:
        return {} if self.missing else {"LD_PRELOAD": str(self._library), "WALLSHIFT_FILE": str(self._file)}

    def shift(self, seconds: float) -> None:
        """So far from the truth, from now on."""
        with self._file.open("r+b") as file:
            file.write(struct.pack("q", round(seconds * 1e9)))

    def _build(self) -> str | None:
        how = "install a C compiler (Debian, Ubuntu: apt-get install gcc libc6-dev)"
        compiler = shutil.which("gcc") or shutil.which("cc")
        if compiler is None or not sys.platform.startswith("linux"):
            return f"no worker's wall clock can be moved here: {how}, on Linux"
        source = Path(__file__).with_name("wallshift.c")
        command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(self._library), str(source), "-ldl"]
        made = subprocess.run(command, capture_output=True, text=True)
        return (
            None if made.returncode == 0 else f"no worker's wall clock can be moved here: {how}. {made.stderr[-300:]}"
        )


class Cluster:
    """Everything that runs. Each worker and client connects its own way:

    worker "one"   to PostgreSQL directly; its wall clock can be moved
    worker "two"   to PostgreSQL through the proxy that loses replies
    "submitter"    through that proxy too; may be killed
    "warehouse", "ana", "bob"   directly
    """

    def __init__(self, seed: int, *, linger_seconds: float = 0.4) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="axme-chaos-"))
        self.redis, self.postgres = PrivateRedis(), PrivatePostgres()
        self.history = self.folder / "history.jsonl"
        self.stacks = self.folder / "stacks.txt"
        self.wall = WallClock(self.folder)
        self._linger_seconds, self._seed = linger_seconds, seed
        self.workers: dict[str, Program] = {}
        self.clients: dict[str, Program] = {}
        self._beats: list[Program] = []
        #: How often any beat was started.
        self._beat_number = 0
        self._lock = threading.RLock()

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _open(self) -> None:
        self.redis.start()
        self.postgres.start()
        self.proxy = LossyProxy(self.postgres.port, self._seed).start()
        self.copier = Copier(self.redis.port)
        self._database = self.postgres.create_database()
        migrate.upgrade(self._database)
        ledger = SqlLedger(self._database)
        with ledger.engines.connect() as connection, connection.begin():
            reference.bookings.create(connection)
        ledger.close()
        self.history.touch()
        app = Celery("chaos-observer", set_as_current=False)
        app.conf.update(self.config())
        self.axme = Axme(app)
        for name in WORKERS:
            how = {"lossy": name == "two"}
            environment = self.environment(**how) | (self.wall.environment if name == "one" else {})
            options = ["-P", "prefork", "-c", "2", "-n", f"{name}@chaos", "--without-mingle", "--without-gossip"]
            self.workers[name] = self._celery(f"worker-{name}", ["worker", *options, "-l", "INFO"], environment)
        for name in ("submitter", "warehouse", *PEOPLE):
            environment = self.environment(lossy=name == "submitter")
            arguments = ["-m", "tests.chaos.crowd", name, "--seed", str(self._seed)]
            self.clients[name] = Program(name, arguments, self.folder, environment)

    def start(self, *, at_once: int, intents: int) -> None:
        """Workers, one beat, and the clients, which submit so many ``intents``, ``at_once`` at a time."""
        submitter = self.clients["submitter"]
        submitter._command += ["--at-once", str(at_once), "--intents", str(intents)]
        for program in (*self.workers.values(), *self.clients.values()):
            program.start()
        self.set_beats(1)

    def config(self, *, lossy: bool = False) -> dict[str, Any]:
        """Celery's settings: its own defaults but for where things are and how fast the house reacts."""
        ledger = self._database
        if lossy:
            ledger = ledger.replace(f":{self.postgres.port}/", f":{self.proxy.port}/")
            ledger += "?sslmode=disable&gssencmode=disable"
        return {
            "broker_url": self.redis.url,
            "result_backend": self.redis.url,
            "broker_connection_retry_on_startup": True,
            "broker_connection_max_retries": None,
            "axme_ledger_url": ledger,
            "axme_lease_seconds": LEASE_SECONDS,
            "axme_tick_seconds": TICK_SECONDS,
            "axme_requeue_seconds": REQUEUE_SECONDS,
            "axme_notifiers": [],
            "axme_secret_key": "a key of the chaos tests, thirty-two characters and more",
        }

    def environment(self, *, lossy: bool = False) -> dict[str, str]:
        """What a program of the project is started with."""
        config = {**self.config(lossy=lossy), "linger_seconds": self._linger_seconds}
        return {
            "CHAOS_PROJECT": json.dumps(config),
            "CHAOS_STACKS": str(self.stacks),
            "CHAOS_FOLDER": str(self.folder),
            witness.ENVIRONMENT: str(self.history),
        }

    # -- hands on it ---------------------------------------------------------------

    @property
    def programs(self) -> list[Program]:
        with self._lock:
            return [*self.workers.values(), *self._beats, *self.clients.values()]

    def keep_up(self) -> None:
        """Start again what ended by itself."""
        for program in self.programs:
            program.keep_up()

    @property
    def beats(self) -> int:
        """How many beats run."""
        return len(self._beats)

    def set_beats(self, count: int) -> None:
        """So many beats from now on; those too many are killed."""
        with self._lock:
            while len(self._beats) > count:
                self._beats.pop().kill()
            while len(self._beats) < count:
                self._beat_number += 1
                name = f"beat-{self._beat_number}"
                files = ["-s", str(self.folder / f"{name}-schedule"), "--pidfile", ""]
                beat = self._celery(name, ["beat", "-l", "INFO", *files], self.environment())
                self._beats.append(beat)
                beat.start()

    def busy_pids(self, *, in_a_step: bool = False) -> set[int]:
        """Processes that are in the middle of an intent's body (or even of a step), as far as the history's end tells."""
        with self.history.open("rb") as file:
            file.seek(max(0, self.history.stat().st_size - 50_000))
            _, *lines = file.read().split(b"\n")
        last: dict[int, str] = {}
        for line in lines[:-1]:
            told = json.loads(line)
            if "op" not in told:
                last[told["pid"]] = told["ev"]
        return {pid for pid, ev in last.items() if ev == "S" or not (in_a_step or ev in ("D", "W+"))}

    def open_human_waits(self) -> int:
        """How many questions are open to people; 0 while the database is away."""
        ((count,),) = self.rows("SELECT count(*) FROM axme_waits WHERE status = 'OPEN' AND kind = 'HUMAN'") or [(0,)]
        return int(count)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """What the ledger's database answers; nothing while it is away."""
        with contextlib.suppress(psycopg.Error):
            with psycopg.connect(libpq_url(self._database), autocommit=True, connect_timeout=3) as connection:
                return connection.execute(sql).fetchall()
        return []

    @contextlib.contextmanager
    def hurried(self) -> Iterator[None]:
        """Meanwhile the submitter submits, however much is open already."""
        (self.folder / "hurry").touch()
        try:
            yield
        finally:
            (self.folder / "hurry").unlink()

    def close_doors(self) -> None:
        """The submitter submits no more; what it submitted goes on."""
        (self.folder / "closing").touch()

    @property
    def deaths(self) -> dict[str, list[int]]:
        """Programs that ended by themselves, with their exit codes."""
        return {p.name: p.died for p in self.programs if p.died}

    def write_stacks(self) -> str:
        """The stacks of all threads of all workers and clients, as they are now."""
        for program in (*self.workers.values(), *self.clients.values()):
            if program.pid is not None:
                for pid in (program.pid, *(child.pid for child in program.children())):
                    with contextlib.suppress(ProcessLookupError):
                        with self.stacks.open("a") as file:
                            file.write(f"\n== {program.name}, process {pid} ==\n")
                        os.kill(pid, signal.SIGUSR2)
                        time.sleep(0.2)
        return self.stacks.read_text() if self.stacks.exists() else ""

    def stop_programs(self) -> None:
        for program in self.programs:
            program.stop()

    def close(self) -> None:
        """End everything. The folder stays: it holds the history and the logs; ``forget`` removes it."""
        for program in self.programs:
            program.kill()
        for attribute in ("copier", "proxy"):
            if (part := getattr(self, attribute, None)) is not None:
                part.close()
        if (axme := getattr(self, "axme", None)) is not None:
            axme.close()
        self.redis.close()
        self.postgres.close()

    def forget(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _celery(self, name: str, arguments: Sequence[str], environment: Mapping[str, str]) -> Program:
        return Program(name, ["-m", "celery", "-A", "tests.chaos.project", *arguments], self.folder, environment)
