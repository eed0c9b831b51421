"""``python -m tests.experiments [name ...]``: all, or those of these names, which write no table."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from celery.result import AsyncResult

from tests.docs.generated import write
from tests.servers import PrivateRedis

from .trials import TRIALS, Outcome, Trial
from .world import Way, World

#: The project reads the environment as it is loaded.
_loading = threading.Lock()
PAGE, WRITER = "docs/guarantees.md", "tests.experiments"


def outcome(trial: Trial, way: Way) -> Outcome:
    """Do it, on a Redis of its own."""
    with PrivateRedis() as redis:
        with _loading:
            world = World(way, redis, **trial.config)
        with world:
            try:
                return trial.run(world)
            except AssertionError as failure:
                print(world.story())
                return Outcome(f"did not end: {failure}", False)


def table(outcomes: dict[tuple[str, Way], Outcome]) -> str:
    """The outcomes, a line an experiment."""
    lines = ["| what happens | " + " | ".join(way.value for way in Way) + " |", "|---|" + "---|" * len(Way)]
    for trial in TRIALS:
        cells = [outcomes[trial.name, way].told for way in Way]
        lines.append(f"| {trial.title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(names: list[str]) -> int:
    """Do them, two at a time; 1 when plain Celery did well or we did not."""
    # A result that is let go asks its backend, for minutes where that is gone.
    AsyncResult.__del__ = lambda self: None
    chosen = [trial for trial in TRIALS if not names or trial.name in names]
    todo = [(trial, way) for trial in chosen for way in Way]
    found: dict[tuple[str, Way], Outcome] = {}
    with ThreadPoolExecutor(2) as pool:
        for (trial, way), came in zip(todo, pool.map(lambda one: outcome(*one), todo), strict=True):
            found[trial.name, way] = came
            print(
                f"{trial.name:12}  {way.value:22}  {'well' if came.well else 'LOST OR DOUBLED'}: {came.told}",
                flush=True,
            )
    wrong = [one for one, came in found.items() if came.well == (one[1] is Way.PLAIN)]
    for name, way in wrong:
        print(f"not as the page says: {name}, {way.value}")
    if not names and not wrong:
        write(WRITER, {PAGE: {"experiments": lambda: table(found)}})
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
