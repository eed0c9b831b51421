"""DBOS: its workflows; ``dbos_worker.py`` serves them."""

from __future__ import annotations

import time

from dbos import DBOS, DBOSConfig

from tests.bench import crash

QUEUE = "bench"


@DBOS.step()
def trivial(number: int) -> dict[str, int]:
    return {"page": number}


@DBOS.workflow()
def steps(count: int) -> list[float]:
    """Seconds that each of ``count`` steps took, as the workflow sees it."""
    taken = []
    for number in range(count):
        before = time.perf_counter()
        trivial(number)
        taken.append(time.perf_counter() - before)
    return taken


@DBOS.workflow()
def one(number: int) -> dict[str, int]:
    return trivial(number)


@DBOS.step()
def page(log: str, number: int) -> int:
    return crash.page(log, number)


@DBOS.workflow()
def pages(log: str) -> None:
    for number in range(1, crash.STEPS + 1):
        page(log, number)


def launch(url: str) -> None:
    """Start DBOS in this process on the database at ``url``, everything else in its defaults."""
    config: DBOSConfig = {"name": "bench", "system_database_url": url, "log_level": "ERROR"}
    DBOS(config=config)
    DBOS.launch()
