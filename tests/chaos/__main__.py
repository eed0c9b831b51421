"""``python -m tests.chaos``, which is ``make chaos`` and ``make soak``.

    python -m tests.chaos [enumerate|races|live|webhooks|all] [--ledger sqlite|postgres|both] [--seed S] [--kills N] ...
    python -m tests.chaos soak [--minutes M]
    python -m tests.chaos --case "reference sqlite 37:before seed=1"

Prints the seed and the figures; ends with 1 when a promise was broken, or when something was not reached that was
meant to be.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from . import enumeration, lanes, races
from .checker import vacuous
from .enumeration import BRIEF, KINDS, MINIMUMS, WHOLE, Figures
from .trial import Case, Lane, Outcome
from .world import Place

PARTS = ("enumerate", "races", "live", "webhooks", "chord")
KILLS = 10_000
LIVE_SECONDS = 300.0


def main(arguments: list[str] | None = None) -> int:
    """0 when every promise was kept and everything was reached that was meant to be."""
    options = _options(arguments)
    if options.case:
        return _one_case(Case.parse(options.case))
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 31)
    print(f"seed {seed}", flush=True)
    began = time.monotonic()
    if options.part == "soak":
        from .live import run_soak

        return 0 if all(run.passed for run in run_soak(options.minutes, seed)) else 1
    ledgers = (lanes.SQLITE, lanes.POSTGRES) if options.ledger == "both" else (options.ledger,)
    parts = PARTS if options.part == "all" else (options.part,)
    passed = True
    if "enumerate" in parts:
        for ledger in ledgers:
            passed &= _enumerate(
                ledger, options.kills // len(ledgers), seed, brief=options.brief, kinds=options.kind,
                figures=options.figures,
            )  # fmt: skip
    if "races" in parts:
        passed &= _race(ledgers, options.races, seed)
    if "live" in parts:
        from .live import run_live

        figures = run_live(seed, seconds=options.seconds)
        print(figures)
        passed &= figures.passed
    if "webhooks" in parts:
        from .webhooks import run_webhooks

        told = run_webhooks(seed, events=options.events, kills=options.sender_kills)
        print(told, flush=True)
        passed &= told.passed
    if "chord" in parts:
        from . import chord

        shot = chord.run(options.legs, options.chord_kills, seed)
        print(shot, flush=True)
        passed &= shot.passed
    print(f"{'kept every promise' if passed else 'BROKEN'}: seed {seed}, {time.monotonic() - began:.0f} s")
    return 0 if passed else 1


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("part", nargs="?", choices=(*PARTS, "all", "soak"), default="all")
    parser.add_argument("--ledger", choices=(lanes.SQLITE, lanes.POSTGRES, "both"), default="both")
    parser.add_argument("--seed", type=int, help="the one that an earlier run printed; else a new one")
    parser.add_argument("--kills", type=int, default=KILLS, help="processes to kill at a commit or a publish")
    parser.add_argument("--races", type=int, default=1000, help="races of each kind, on each ledger")
    parser.add_argument("--seconds", type=float, default=LIVE_SECONDS, help="how long the live part makes trouble")
    parser.add_argument("--events", type=int, default=5000, help="events of the webhooks part")
    parser.add_argument("--sender-kills", type=int, default=100, help="how often it kills a sender of webhooks")
    parser.add_argument("--legs", type=int, default=10_000, help="members of the chord whose workers are killed")
    parser.add_argument("--chord-kills", type=int, default=20, help="workers to kill while it runs")
    parser.add_argument("--minutes", type=float, default=60.0, help="how long a soak repeats the live part")
    parser.add_argument(
        "--kind", action="append", choices=KINDS, help="enumerate this kind of intent only; may be given again"
    )
    parser.add_argument("--brief", action="store_true", help="the test suite's share of the enumeration")
    parser.add_argument("--figures", type=Path, help="write the figures there, as JSON lines")
    parser.add_argument("--case", help="run one case again, by the name that was printed, and show its history")
    return parser.parse_args(arguments)


def _enumerate(
    ledger: str, kills: int, seed: int, *, brief: bool, kinds: list[str] | None, figures: Path | None
) -> bool:
    scope, of = (BRIEF, 1) if brief else (WHOLE, lanes.LANES)
    scope = replace(scope, kinds=tuple(kinds)) if kinds else scope

    def share(place: Place, number: int, of: int) -> Figures:
        return enumeration.run(Lane(place), number, of, scope=scope, kills=-(-kills // of), seed=seed)

    first, *others = lanes.in_lanes(ledger, share, of)
    total = sum(others, first)
    print(f"enumeration, {ledger}\n{total}", flush=True)
    if not brief:
        print("  where, and how often:")
        for place, count in sorted(total.places.items(), key=lambda item: item[0].split(maxsplit=1)[::-1]):
            print(f"  {count:8,}  {place}")
    shown_nothing = [] if total.failures or kinds else vacuous(total.reached, MINIMUMS)
    _show_failures(total.failures)
    for case in total.unreached[:20]:
        print(f"  NOT REACHED: {case}")
    for finding in shown_nothing:
        print(f"  {finding}")
    if figures is not None:
        with figures.open("a") as file:
            file.write(json.dumps({"ledger": ledger, **total.numbers()}) + "\n")
    return total.passed and not shown_nothing


def _show_failures(failures: list[Outcome]) -> None:
    if not failures:
        return
    folder = Path(tempfile.mkdtemp(prefix="axme-chaos-failures-"))
    for number, outcome in enumerate(failures):
        (folder / f"{number}.jsonl").write_text(outcome.history)
    for number, outcome in enumerate(failures[:10]):
        print(f"  FAILED: --case '{outcome.case}'  (its history: {folder}/{number}.jsonl)")
        for finding in outcome.findings:
            print(f"    {finding}")


def _race(ledgers: tuple[str, ...], count: int, seed: int) -> bool:
    passed = True
    for ledger in ledgers:
        (found,) = lanes.in_lanes(ledger, lambda place, number, of: races.run(place, count, seed), 1)
        for figures in found:
            print(figures, flush=True)
            passed &= figures.passed
    return passed


def _one_case(case: Case) -> int:
    (outcome,) = lanes.in_lanes(case.ledger, lambda place, number, of: Lane(place).run(case, keep=True), 1)
    print(outcome.history)
    print(f"{case}: {outcome.points} points, {outcome.hit} hit, {outcome.passed_seconds:g} s, swept {outcome.swept}")
    for number, place in enumerate(outcome.places, 1):
        print(f"  {number:4} {place}")
    for finding in outcome.findings:
        print(finding)
    return 1 if outcome.findings else 0


if __name__ == "__main__":
    sys.exit(main())
