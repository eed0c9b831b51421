"""The chord that is shot at: its application, for workers and for who submits it."""

from __future__ import annotations

import json
import os
from pathlib import Path

from celery import Celery

from axme_celery import Axme

app = Celery("chord")
app.conf.update(json.loads(os.environ["CHORD_CONFIG"]))
app.conf.broker_connection_retry_on_startup = True
axme = Axme(app)


@app.task(ignore_result=True)
def member(number: int) -> int:
    return number


@app.task
def body(numbers: list[int], log: str) -> dict[str, object]:
    """Notes that it was called: a second call is to be seen."""
    with Path(log).open("a") as file:
        file.write(f"{len(numbers)}\n")
    return {"count": len(numbers), "in_order": numbers == sorted(set(numbers))}
