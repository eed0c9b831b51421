"""A large chord under real workers that are killed all the time: its body is called once, with all results in order.

    python -m tests.chaos chord --legs 10000 --chord-kills 20

Two prefork workers on a private Redis and a private PostgreSQL; every so often one of them, with all its processes, gets
SIGKILL and another starts in its place. The kills are spread over the members: the last comes well before the body.
"""

from __future__ import annotations

import json
import os
import random
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from celery import chord
from sqlalchemy import func, select

from axme_celery.ledger import tables
from axme_celery.ledger.migrate import upgrade
from tests.bench.processes import Program, celery_beat, celery_worker, kill_group
from tests.servers import PrivatePostgres, PrivateRedis, create_database

APP = "tests.chaos.chord_app"
WORKERS = 2
#: The kills come while the first so much of the members end.
SHARE = 0.9


@dataclass
class Shot:
    """How it went."""

    legs: int
    kills: int = 0
    submit_seconds: float = 0.0
    seconds: float = 0.0
    body_calls: int = 0
    result: Any = None
    lost_runs: int = 0
    findings: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.findings

    def __str__(self) -> str:
        figures = {
            "legs": self.legs, "workers killed": self.kills, "body called": self.body_calls,
            "legs run again": self.lost_runs, "seconds to submit": round(self.submit_seconds, 2),
            "seconds to the result": round(self.seconds), "legs a second": round(self.legs / max(self.seconds, 0.001)),
        }  # fmt: skip
        told = "\n".join(f"  {name:30}{value:>10,}" for name, value in figures.items())
        return f"chord under fire\n{told}" + "".join(f"\n  BROKEN: {finding}" for finding in self.findings)


def run(
    legs: int,
    kills: int,
    seed: int,
    *,
    lease_seconds: float = 2.0,
    requeue_seconds: float = 60.0,
    at_most_seconds: float = 1800.0,
) -> Shot:
    """Shoot at one chord of so many members, and look at what is left.

    requeue_seconds: what a killed worker had only just received is sent again then; what is queued for longer, too.
    """
    shot, rng = Shot(legs), random.Random(seed)
    with (
        PrivateRedis() as redis,
        PrivatePostgres() as postgres,
        tempfile.TemporaryDirectory(prefix="axme-chord-", ignore_cleanup_errors=True) as folder,
    ):
        ledger = create_database(postgres.url)
        upgrade(ledger)
        os.environ["CHORD_CONFIG"] = json.dumps(
            {
                "broker_url": redis.url, "result_backend": redis.url, "axme_ledger_url": ledger,
                "axme_lease_seconds": lease_seconds, "axme_requeue_seconds": requeue_seconds, "axme_tick_seconds": 0.5,
                "worker_prefetch_multiplier": 4,
            }
        )  # fmt: skip
        from tests.chaos import chord_app

        log, called = Path(folder) / "program.log", Path(folder) / "called"
        programs: list[Program] = [celery_beat(APP, log)]
        workers = [celery_worker(APP, log, name=f"w{number}") for number in range(WORKERS)]
        try:
            began = time.monotonic()
            canvas = chord([chord_app.member.s(number) for number in range(legs)], chord_app.body.s(str(called)))
            intent = chord_app.axme.submit(canvas)
            shot.submit_seconds = time.monotonic() - began
            while not intent.refresh().status.is_final:
                if time.monotonic() - began > at_most_seconds:
                    shot.findings.append(f"it is {intent.status} after {at_most_seconds:g} s")
                    break
                if shot.kills < kills and _done(chord_app.axme) >= legs * SHARE * (shot.kills + 0.5) / kills:
                    number = rng.randrange(WORKERS)
                    kill_group(workers[number].pid)
                    shot.kills += 1
                    workers[number] = celery_worker(APP, log, name=f"w{number}k{shot.kills}")
                time.sleep(0.2)
            shot.seconds = time.monotonic() - began
            _judge(shot, chord_app.axme, intent, called, kills)
        finally:
            for program in (*programs, *workers):
                program.stop()
            chord_app.axme.close()
    return shot


def _done(axme: Any) -> int:
    with axme.runtime.ledger.engines.connect() as connection:
        done = select(func.count()).select_from(tables.legs).where(tables.legs.c.status == "DONE")
        return int(connection.scalar(done) or 0)


def _judge(shot: Shot, axme: Any, intent: Any, called: Path, kills: int) -> None:
    shot.body_calls = len(called.read_text().splitlines()) if called.exists() else 0
    shot.result = intent.result
    if intent.result != {"count": shot.legs, "in_order": True}:
        shot.findings.append(f"{intent.status} {intent.error}: the body said {intent.result}")
    if shot.body_calls != 1:
        shot.findings.append(f"the body was called {shot.body_calls} times")
    if shot.kills != kills:
        shot.findings.append(f"{shot.kills} workers were killed, {kills} were to be")
    with axme.runtime.ledger.engines.connect() as connection:
        c = tables.legs.c
        shot.lost_runs = int(connection.scalar(select(func.coalesce(func.sum(c.run - 1), 0))) or 0)
        open_legs = connection.scalar(select(func.count()).select_from(tables.legs).where(c.status != "DONE"))
    if open_legs:
        shot.findings.append(f"{open_legs} legs are not DONE")
