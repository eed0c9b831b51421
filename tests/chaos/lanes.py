"""Lanes: processes side by side, each with a database and a folder of its own."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

from tests.servers import PrivatePostgres

from .world import Place

R = TypeVar("R")

#: The machine the suite is meant for has two cores.
LANES = 2
SQLITE, POSTGRES = "sqlite", "postgres"


def in_lanes(ledger: str, act: Callable[[Place, int, int], R], lanes: int = LANES) -> list[R]:
    """What ``act(place, number, of)`` gives in each lane. PostgreSQL is a private one that does not wait for the disk.

    The kills are of our processes, never of the database.
    """
    if ledger == SQLITE:
        return _run([""] * lanes, ledger, act)
    with PrivatePostgres(fsync=False) as server:
        return _run([server.create_database() for _ in range(lanes)], ledger, act)


def _run(urls: list[str], ledger: str, act: Callable[[Place, int, int], R]) -> list[R]:
    # Forked: a lane inherits what is imported, and forks its own trials from there.
    context = multiprocessing.get_context("fork")
    running = []
    for number, url in enumerate(urls):
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=_lane, args=(there, ledger, url, act, number, len(urls)))
        process.start()
        there.close()
        running.append((process, here))
    results: list[R] = []
    for process, here in running:
        try:
            found = here.recv()
        except EOFError:
            found = RuntimeError("it ended without a word")
        process.join()
        if isinstance(found, BaseException):
            raise RuntimeError(f"lane {len(results)} on {ledger} broke down: {found!r}") from found
        results.append(found)
    return results


def _lane(there: Connection, ledger: str, url: str, act: Callable[[Place, int, int], R], number: int, of: int) -> None:
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="axme-chaos-", dir=memory if memory.is_dir() else None) as name:
        folder = Path(name)
        try:
            there.send(act(Place(ledger, url or f"sqlite:///{folder}/axme.db", folder), number, of))
        except Exception as error:
            there.send(error)
