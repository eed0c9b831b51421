"""Where a trial happens: one application on a ledger, a broker and a result backend that outlive its processes.

The ledger is real (SQLite or PostgreSQL), the broker and the result backend are kombu's and Celery's own on the file
system. Time is a number in shared memory that all processes of the trial read as the ledger's and the tracker's clock:
it moves when the trial says so, so a lease of 15 seconds lapses at once.
"""

from __future__ import annotations

import mmap
import shutil
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from celery import Celery
from sqlalchemy import Engine, delete, func, select

from axme_celery import Axme, beats, extension, ledger, relay
from axme_celery.ledger import SqlLedger, tables
from axme_celery.ledger.engine import Engines
from axme_celery.ledger.migrate import upgrade
from axme_celery.model import Change, Fence
from axme_celery.ports import Runtime
from axme_celery.relay import RelayThread
from axme_celery.signals import install
from axme_celery.tracker import open_tracker

from . import reference, witness

START = datetime(2030, 1, 1, tzinfo=UTC)
LEASE_SECONDS, REQUEUE_SECONDS = 15, 600


class Clock:
    """Microseconds since ``START``, shared by the processes of a trial. Each reading is later than the one before."""

    _LAYOUT = struct.Struct("q")

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)

    def __call__(self) -> datetime:
        return START + timedelta(microseconds=self._move(1))

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._move(round(seconds * 1_000_000))

    def reset(self) -> None:
        self._LAYOUT.pack_into(self._memory, 0, 0)

    @property
    def passed_seconds(self) -> float:
        """Since the trial began."""
        return float(self._LAYOUT.unpack_from(self._memory)[0]) / 1_000_000

    def _move(self, by: int) -> int:
        (now,) = self._LAYOUT.unpack_from(self._memory)
        self._LAYOUT.pack_into(self._memory, 0, now + by)
        return int(now) + by


class WallClock(Clock):
    """The host's time, which may be put forward; for threads that meet at one moment."""

    def __init__(self) -> None:
        self._ahead_seconds, self._began = 0.0, time.monotonic()

    def __call__(self) -> datetime:
        return START + timedelta(seconds=self.passed_seconds)

    def advance(self, seconds: float) -> None:
        self._ahead_seconds += seconds

    def reset(self) -> None:
        """Nothing: ledgers that have read it would not follow it back."""

    @property
    def passed_seconds(self) -> float:
        return time.monotonic() - self._began + self._ahead_seconds


class _NothingToDo(Exception):
    pass


class _NeverWaits(threading.Condition):
    def wait(self, timeout: float | None = None) -> bool:
        raise _NothingToDo


class CalledRelay(RelayThread):
    """The relay thread's own work, done when it is called for: where a thread's turn comes is then no accident.

    With ``eager_relay`` it is called as soon as there is something to do, else when the process has nothing else to do.
    """

    def __init__(self, axme: ChaosAxme, senders: Any) -> None:
        self._axme = axme
        super().__init__(lambda: axme.runtime, senders)

    def work(self) -> bool:
        """What the thread does until it waits. True when it did something."""
        self._worked = False
        try:
            self._run()
        except _NothingToDo:
            return self._worked

    def _reset(self) -> None:
        super()._reset()
        self._changed = _NeverWaits()

    def _wake(self) -> None:
        if self._axme.eager_relay and not self._busy:
            self.work()

    def _work(self, *what: Any) -> None:
        self._worked = True
        super()._work(*what)


class PausableLedger:
    """A ledger that can be held up on its way into ``commit``: ``pause(number)`` is called before the number-th one."""

    def __init__(self, ledger: SqlLedger) -> None:
        self._ledger = ledger
        self.commits = 0
        self.pause: Callable[[int, Sequence[Change]], None] = lambda number, changes: None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    def commit(self, *changes: Change, connection: Any = None) -> tuple[Change, ...]:
        self._held(changes)
        return self._ledger.commit(*changes, connection=connection)

    def transaction(self, checkpoint: Callable[[Any], Any], fence: Fence) -> Any:
        self._held(())

        def held_after(connection: Any) -> Any:
            made = checkpoint(connection)
            if not self._ledger.engines.is_sqlite:
                # On SQLite whoever is held up here holds up all writers: nobody can overtake it.
                self._held(())
            return made

        return self._ledger.transaction(held_after, fence)

    def _held(self, changes: Sequence[Change]) -> None:
        self.commits += 1
        self.pause(self.commits, changes)


class ChaosAxme(Axme):
    """The extension as it is, but for whose time it goes by and when its relay works."""

    def __init__(self, app: Celery, clock: Clock) -> None:
        super().__init__(app)
        self.clock = clock
        self.eager_relay = False
        self._engines: Engines | None = None
        self._engine: Engine | None = None

    def forget(self) -> None:
        """Be as new, but for the engines: they have no connections and know how every statement is compiled.

        Done before forking, so that a trial's processes need not learn that each by themselves.
        """
        if self._runtime is not None:
            self._engines = self._runtime.ledger.engines  # type: ignore[attr-defined]
            self._engine = self._engines.durable
            self._engine.dispose()
        self._runtime = None

    def _wire(self) -> Runtime:
        with (
            mock.patch.object(ledger, "SqlLedger", self._ledger),
            mock.patch.object(extension, "open_tracker", self._tracker),
            mock.patch.object(extension, "RelayThread", lambda _, senders: CalledRelay(self, senders)),
        ):
            return replace(super()._wire(), sleep=self.clock.advance)

    def _ledger(self, url: str, **options: Any) -> PausableLedger:
        made = SqlLedger(url, clock=self.clock, **options)
        if self._engines is not None:
            # A fork leaves the parent's engine alone, as it must; but this one has no connections.
            self._engines._engine = self._engine
            made.engines = made._access.engines = self._engines
        return PausableLedger(made)

    def _tracker(self, *arguments: Any, **options: Any) -> Any:
        return open_tracker(*arguments, **options, clock=self.clock)


@dataclass(frozen=True)
class Place:
    """Where a world may be: a database and a folder, for nobody else."""

    ledger: str
    url: str
    folder: Path


class World:
    """One trial's surroundings, used again for the next after ``reset``. Nothing connects in the process that makes it."""

    def __init__(self, folder: Path, ledger_url: str, clock: Clock | None = None) -> None:
        self.folder, self.ledger_url = folder, ledger_url
        self.is_sqlite = ledger_url.startswith("sqlite")
        for part in ("broker", "control", "results"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        self.history = folder / "history.jsonl"
        self.clock = clock or Clock()
        # The relay waits by the monotonic clock for what is due by the ledger's.
        relay.time = SimpleNamespace(monotonic=lambda: self.clock.passed_seconds)  # type: ignore[attr-defined]
        # And who tries again after a while does so in the trial's time.
        ledger.access.time = beats.time = SimpleNamespace(sleep=self.clock.advance)  # type: ignore[attr-defined]
        self.app = Celery("chaos", broker="filesystem://", backend=f"file://{folder}/results", set_as_current=False)
        broker = f"{folder}/broker"
        self.app.conf.update(
            axme_ledger_url=ledger_url, axme_redis_url=None, axme_notifiers=(), axme_lease_seconds=LEASE_SECONDS,
            axme_requeue_seconds=REQUEUE_SECONDS, task_ignore_result=False, worker_hijack_root_logger=False,
            broker_transport_options={
                "data_folder_in": broker, "data_folder_out": broker, "control_folder": f"{folder}/control",
            },
        )  # fmt: skip
        _witness_results(self.app)
        self.axme = ChaosAxme(self.app, self.clock)
        self.tasks = reference.Tasks(self.axme)
        install(self.axme)

    @property
    def messages(self) -> list[Path]:
        """What lies in the broker, the oldest first."""
        return sorted((self.folder / "broker").iterdir())

    def make_ledger(self) -> None:
        """Create the tables. In a child: this opens connections."""
        upgrade(self.ledger_url)
        ledger = SqlLedger(self.ledger_url)
        with ledger.engines.connect() as connection, connection.begin():
            reference.bookings.create(connection)
        ledger.close()
        if self.is_sqlite:
            shutil.copy(self._database, self._pristine)

    def reset(self) -> None:
        """An empty ledger, broker and history, and the start of time. The ledger's part in ``empty_ledger``."""
        self.clock.reset()
        for part in ("broker", "results"):
            for path in (self.folder / part).iterdir():
                path.unlink()
        self.history.unlink(missing_ok=True)
        witness.write_to(self.history)
        if self.is_sqlite:
            for suffix in ("-wal", "-shm"):
                self._database.with_name(self._database.name + suffix).unlink(missing_ok=True)
            shutil.copy(self._pristine, self._database)

    def empty_ledger(self) -> None:
        """PostgreSQL: delete what the trial before left. In a child: this opens connections."""
        if self.is_sqlite:
            return
        with self.axme.runtime.ledger.engines.connect() as connection, connection.begin():
            for table in _all_tables():
                if table is not tables.meta:
                    connection.execute(delete(table))

    def leftovers(self) -> tuple[str, ...]:
        """Rows of tables that hold only what is open, once nothing is open any more."""
        found = []
        with self.axme.runtime.ledger.engines.connect() as connection:
            for table in _all_tables():
                if table.name in ("axme_outbox", "axme_leases", "axme_timers"):
                    count = connection.scalar(select(func.count()).select_from(table))
                    if count:
                        found.append(f"{table.name} has {count} rows")
        return tuple(found)

    @property
    def _database(self) -> Path:
        return Path(self.ledger_url.removeprefix("sqlite:///"))

    @property
    def _pristine(self) -> Path:
        return self.folder / "pristine.db"


def _all_tables() -> list[Any]:
    return [*reversed(tables.metadata.sorted_tables), reference.bookings]


def _witness_results(app: Celery) -> None:
    """Let the history show what Celery's result backend is told."""
    backend = app.backend
    store = backend.store_result

    def store_result(task_id: str, result: Any, state: str, *args: Any, **kwargs: Any) -> Any:
        witness.note("R", leg=task_id, state=state)
        return store(task_id, result, state, *args, **kwargs)

    backend.store_result = store_result
