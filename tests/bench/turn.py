"""One turn of one case, in a process and a session of its own: ``python -m tests.bench.turn ORDER``.

ORDER is a file of JSON: which workload and subject, and where the servers are. The figures are written beside it.
The harness starts it (``take_turn``), and kills the session when it takes too long.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.bench.harness import Case, Figures, Measure, TurnFailed, Workload
from tests.bench.processes import Program, kill_session
from tests.bench.services import Services, redis_database
from tests.servers import libpq_url

TURN_SECONDS = 600
PROJECT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a turn is told."""

    workload: str
    subject: str
    round: int
    quick: bool
    redis_url: str
    postgres_url: str
    directory: str


@dataclass
class Turn:
    """What a case gets to measure with: its servers, its folder, and the programs it starts.

    broker, results: URLs of two empty databases of Redis.
    postgres:        SQLAlchemy URL of an empty database of PostgreSQL.
    """

    order: Order
    programs: list[Program] = field(default_factory=list)

    @property
    def broker(self) -> str:
        return redis_database(self.order.redis_url, 0)

    @property
    def results(self) -> str:
        return redis_database(self.order.redis_url, 1)

    @property
    def postgres(self) -> str:
        return self.order.postgres_url

    @property
    def postgres_libpq(self) -> str:
        """The same as libpq and psycopg read it."""
        return libpq_url(self.order.postgres_url)

    @property
    def directory(self) -> Path:
        return Path(self.order.directory)

    @property
    def log(self) -> Path:
        return self.directory / "program.log"

    def pick(self, full: int, quick: int) -> int:
        """How many of something: in a full run, in a quick one."""
        return quick if self.order.quick else full

    def start(self, begin: Callable[[], Program]) -> Program:
        """Start a program that is stopped when the turn ends."""
        self.programs.append(program := begin())
        return program

    def close(self) -> None:
        for program in reversed(self.programs):
            program.stop()


def take_turn(services: Services, *, quick: bool) -> Measure:
    """How the harness has a case measured: a new process, an empty database, an empty Redis, nothing left after."""

    def measure(workload: Workload, case: Case, number: int) -> Figures:
        with (
            tempfile.TemporaryDirectory(prefix="axme-bench-", ignore_cleanup_errors=True) as directory,
            services.for_one_turn() as database_url,
        ):
            order = Order(
                workload=workload.name, subject=case.subject, round=number, quick=quick, redis_url=services.redis_url,
                postgres_url=database_url, directory=directory,
            )  # fmt: skip
            return _run(order, Path(directory))

    return measure


def _run(order: Order, directory: Path) -> Figures:
    written, log = directory / "order.json", directory / "turn.log"
    written.write_text(json.dumps(asdict(order)))
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.turn", str(written)], stdin=subprocess.DEVNULL, stdout=output,
            stderr=output, cwd=PROJECT, start_new_session=True,
        )  # fmt: skip
    try:
        code = process.wait(TURN_SECONDS)
    except subprocess.TimeoutExpired:
        code = None
    finally:
        kill_session(process.pid)
        process.wait()
    figures = directory / "figures.json"
    if code != 0 or not figures.exists():
        raise TurnFailed(f"{'took too long' if code is None else f'exit {code}'}\n{_logs(directory)}")
    found: Figures = json.loads(figures.read_text())
    return found


def _logs(directory: Path) -> str:
    """The end of what the turn and its programs printed."""
    ends = []
    for path in sorted(directory.glob("*.log")):
        lines = path.read_text(errors="replace").splitlines()[-12:]
        if lines:
            ends.append("\n".join([f"--- {path.name}", *lines]))
    return "\n".join(ends)


def main(path: str) -> None:
    from tests.bench.workloads import WORKLOADS

    order = Order(**json.loads(Path(path).read_text()))
    turn = Turn(order)
    # For the worker programs, and for this process where it imports one of them as a client.
    os.environ.update(
        BENCH_BROKER=turn.broker, BENCH_RESULTS=turn.results, BENCH_DIRECTORY=order.directory, PYTHONUNBUFFERED="1"
    )
    workload = next(workload for workload in WORKLOADS if workload.name == order.workload)
    try:
        figures = workload.case(order.subject).run(turn)
    finally:
        turn.close()
    (turn.directory / "figures.json").write_text(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1])
