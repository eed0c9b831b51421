"""An ordinary Celery project that knows nothing of steps or waits. ``EXPERIMENT_WITH`` adds the one line for us."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from celery import Celery

folder = Path(os.environ["E2E_FOLDER"])
app = Celery("experiments")
app.conf.update(json.loads(os.environ["E2E_CONFIG"]))
if os.environ["EXPERIMENT_WITH"]:
    from axme_celery import Axme

    axme = Axme(app)

#: A held task goes on by itself after this long, should its experiment have died.
HOLD_SECONDS = 60.0


def note(what: str, name: str) -> None:
    """One effect on the outside world, written at once."""
    line = json.dumps({"what": what, "name": name, "pid": os.getpid()}) + "\n"
    with open(folder / "effects.jsonl", "ab", buffering=0) as effects:
        effects.write(line.encode())


@app.task(name="shop.do", shared=False)
def do(name: str) -> str:
    """Says when it begins and when it is done; stands still in between while an experiment holds it."""
    note("began", name)
    give_up_at = time.monotonic() + HOLD_SECONDS
    while (folder / f"hold-{name}").exists() and time.monotonic() < give_up_at:
        time.sleep(0.01)
    note("done", name)
    return name


@app.task(name="shop.join", shared=False)
def join(names: list[str]) -> str:
    """The body of a chord."""
    note("began", "body")
    note("done", "body")
    return "+".join(names)


@app.task(name="shop.do_late", shared=False, acks_late=True, reject_on_worker_lost=True)
def do_late(name: str) -> str:
    """Acknowledged when it has ended, as is advised for what must not be lost."""
    return str(do.run(name))


@app.task(name="idle.look", shared=False)
def look() -> None:
    """Comes after everything else in the queue."""


__all__: list[Any] = ["app"]
