"""A whole house on this machine: Redis, a ledger, a worker with its beat, and the pages on two gunicorn workers."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from axme_celery import keys
from tests.doors.command_line import CELERY, ROOT, Desk
from tests.servers import PrivateRedis, free_port

SECRET = "a secret of more than thirty-two characters"
PATIENCE_SECONDS = 60.0


@dataclass
class House:
    """What measures need of it."""

    desk: Desk
    port: int

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def key(self, name: str, role: str = "approver", groups: tuple[str, ...] = ("analysts", "everybody")) -> str:
        """A new key's secret."""
        return keys.create(self.desk.axme.runtime, name=name, role=role, groups=groups)[1]


@contextlib.contextmanager
def open_house(folder: Path, *, live_clients: int, **config: object) -> Iterator[House]:
    """With the settings as they are by default, but for these."""
    with PrivateRedis() as redis, contextlib.ExitStack() as stack:
        desk = Desk(
            folder, redis.url, axme_tick_seconds=1.0, axme_lease_seconds=15.0, axme_secret_key=SECRET,
            axme_live_clients=live_clients, **config,
        )  # fmt: skip
        desk.run("migrate")
        house = House(desk, free_port())
        worker = [*CELERY, "worker", "-c", "2", "-B", "-s", str(folder / "schedule"), "-l", "INFO"]
        stack.enter_context(_running(desk, worker, folder / "worker.log", lambda log: " ready." in log))
        web = [*_script(), "-A", "tests.doors.project", "web", "--port", str(house.port), "--workers", "2"]
        stack.enter_context(_running(desk, web, folder / "web.log", lambda log: _answers(house)))
        yield house
        desk.axme.close()


def _script() -> list[str]:
    return [CELERY[0], "-m", "axme_celery.cli"]


@contextlib.contextmanager
def _running(desk: Desk, command: list[str], log: Path, is_up: Callable[[str], bool]) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd=ROOT, env=desk.environment,
            start_new_session=True,
        )  # fmt: skip
    try:
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while not is_up(log.read_text(errors="replace")):
            assert process.poll() is None and time.monotonic() < give_up_at, log.read_text(errors="replace")[-3000:]
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(house: House) -> bool:
    try:
        with urllib.request.urlopen(f"{house.address}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
