"""``python -m tests.bench [workload ...] [--quick] [--write]``: measure, show, and with --write keep the page."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from tests.bench import machine
from tests.bench.document import Run, page, table
from tests.bench.harness import run_workload
from tests.bench.services import open_services
from tests.bench.turn import take_turn
from tests.bench.workloads import WORKLOADS

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"


def main() -> int:
    """Exit code 1 when a turn broke, 2 when what was asked for makes no sense."""
    names = [workload.name for workload in WORKLOADS]
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Benchmarks; ratios within one run.")
    parser.add_argument("workloads", nargs="*", metavar="workload", help=f"of {', '.join(names)}; all by default")
    parser.add_argument("--quick", action="store_true", help="one round, small counts: about two minutes")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.parent.name}/{PAGE.name}; a run of all only")
    asked = parser.parse_args()
    if unknown := sorted(set(asked.workloads) - set(names)):
        parser.error(f"no workload {', '.join(unknown)}; there are {', '.join(names)}")
    chosen = [each for each in WORKLOADS if not asked.workloads or each.name in asked.workloads]
    if asked.write and len(chosen) < len(WORKLOADS):
        parser.error("--write keeps a page of all workloads; run it without naming some")

    started_at, began, results = datetime.now(UTC), time.monotonic(), {}
    with open_services() as services:
        conditions = machine.describe(
            redis_url=services.redis_url, postgres_url=services.postgres_libpq_url,
            directory=services.directory or Path(tempfile.gettempdir()),
        )  # fmt: skip
        for workload in chosen:
            print(f"{workload.title} ({workload.name})", flush=True)
            outcomes = run_workload(workload, take_turn(services, quick=asked.quick), quick=asked.quick, report=_say)
            results[workload.name] = outcomes
            print("", *table(workload, outcomes), sep="\n", flush=True)
    run = Run(
        started_at=started_at, seconds=time.monotonic() - began, quick=asked.quick, machine=conditions, results=results
    )
    print(f"{run.seconds:.0f} s")
    broken = [outcome.case.subject for outcomes in results.values() for outcome in outcomes if outcome.failed]
    if broken:
        print(f"\nBroke, so nothing is written: {'; '.join(broken)}", file=sys.stderr)
        return 1
    if asked.write:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(page(run, WORKLOADS))
        print(f"wrote {PAGE}")
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
