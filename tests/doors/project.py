"""A small project whose intents come to every state a command line may meet.

``make_app`` makes it in this process; ``celery -A tests.doors.project`` takes its
configuration from ``DOORS_CONFIG``, a JSON object.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from celery import Celery

from axme_celery import Axme, progress, step, wait_for_human, wait_for_tool


@step
def fetch_page(number: int) -> dict[str, int]:
    """A step with a value to look at."""
    return {"page": number, "rows": number * 10}


@step
def old_step() -> str:
    return "old"


@step
def new_step() -> str:
    return "new"


def make_app(**config: Any) -> Celery:
    """The project on this configuration; ``app.axme`` is its Axme."""
    app = Celery("doors", set_as_current=False)
    app.conf.update(broker_connection_retry_on_startup=True, **config)
    axme = Axme(app)

    @app.task(name="doors.plain", shared=False)
    def plain() -> str:
        return "an ordinary task"

    @axme.task(name="doors.add", shared=False)
    def add(x: int, y: int) -> int:
        return x + y

    @axme.task(name="doors.report", shared=False)
    def report(pages: int, title: str = "Publish?") -> dict[str, Any]:
        """Pages with progress, then a person."""
        for number in range(1, pages + 1):
            fetch_page(number)
            progress(number, pages, f"page {number}")
        decision = wait_for_human(title, to=["analysts", "ana"], timeout="2d", remind_every="4h")
        return {"pages": pages, "outcome": decision.outcome, "by": decision.by}

    @axme.task(name="doors.ask", shared=False)
    def ask(options: dict[str, Any]) -> dict[str, Any]:
        """Whatever a person can be asked."""
        decision = wait_for_human(**{"title": "Well?", "to": "ana", **options})
        return {"outcome": decision.outcome, "by": decision.by, "comment": decision.comment, "data": decision.data}

    @axme.task(name="doors.votes", shared=False)
    def votes(rounds: int, quorum: int) -> list[str]:
        """Many must agree, again and again: an event each."""
        return [wait_for_human("All of you?", to="everybody", quorum=quorum).outcome for _ in range(rounds)]

    @axme.task(name="doors.timed", shared=False)
    def timed(path: str) -> str:
        """Says when it went on after a person's answer."""
        outcome = wait_for_human("Go on?", to=["ana", "analysts"]).outcome
        Path(path).write_text(repr(time.time()))
        return outcome

    @axme.task(name="doors.job", shared=False)
    def job(job_id: str) -> Any:
        return wait_for_tool("warehouse", job_id)

    @axme.task(name="doors.needs", shared=False)
    def needs(path: str) -> str:
        """Fails until the file is there; its step is done by then."""
        fetch_page(1)
        if not Path(path).exists():
            raise ValueError(f"there is no {path}")
        return "done"

    @axme.task(name="doors.changes", shared=False)
    def changes(path: str) -> list[str]:
        """Other code once the file is there: before the wait it then does another step than is recorded."""
        first = new_step() if Path(path).exists() else old_step()
        decision = wait_for_human("Go on?", to="ana")
        return [first, decision.outcome]

    return app


if "DOORS_CONFIG" in os.environ:
    app = make_app(**json.loads(os.environ["DOORS_CONFIG"]))
