"""``python -m tests.chaos``: every commit and publish of an intent's life is hit, then more of them at random.

    python -m tests.chaos [--kills N] [--seed S] [--ledger sqlite|postgres|both]
    python -m tests.chaos live [--seconds S] [--seed S]      real workers under load, while everything fails
    python -m tests.chaos soak [--minutes M] [--seed S]      the same, for as long as you like

Prints the seed and the figures; ends with 1 when a promise was broken or a point was not reached.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

from tests.servers import PrivatePostgres

from .enumeration import KINDS, Figures, Lane, every_point, places_hit, random_cases
from .life import Variant


def enumerate_crashes(ledger: str, url: str, folder: Path, kills: int, seed: int) -> Figures:
    """Every point in every mode, and then random pairs until so many processes were killed."""
    lane, figures = Lane(ledger, url, folder), Figures()
    points = every_point(lane, KINDS, Variant(), seed, figures)
    cases = random_cases(ledger, points, random.Random(seed))
    while figures.kills < kills and not figures.failures:
        figures.add(lane.run(next(cases)))
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("part", nargs="?", choices=("crashes", "live", "soak"), default="crashes")
    parser.add_argument("--kills", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    parser.add_argument("--ledger", choices=("sqlite", "postgres", "both"), default="both")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--minutes", type=float, default=60.0)
    asked = parser.parse_args()
    print(f"seed {asked.seed}", flush=True)
    if asked.part != "crashes":
        from .live import run_live, run_soak

        runs = (
            run_soak(asked.minutes, asked.seed)
            if asked.part == "soak"
            else [run_live(asked.seed, seconds=asked.seconds)]
        )
        print(runs[-1])
        return 0 if all(run.passed for run in runs) else 1
    broken = False
    ledgers = ("sqlite", "postgres") if asked.ledger == "both" else (asked.ledger,)
    for ledger in ledgers:
        with tempfile.TemporaryDirectory() as folder:
            if ledger == "sqlite":
                url = f"sqlite:///{folder}/ledger.db"
                figures = enumerate_crashes(ledger, url, Path(folder), asked.kills // len(ledgers), asked.seed)
            else:
                with PrivatePostgres() as server:
                    url = server.create_database()
                    figures = enumerate_crashes(ledger, url, Path(folder), asked.kills // len(ledgers), asked.seed)
        print(f"{ledger}\n{figures}\n{places_hit(figures)}", flush=True)
        for failure in figures.failures:
            print(f"BROKEN {failure.case}\n  " + "\n  ".join(failure.findings))
        for case in figures.unreached:
            print(f"NOT REACHED {case}")
        broken = broken or bool(figures.failures or figures.unreached)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
