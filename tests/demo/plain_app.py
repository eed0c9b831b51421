"""An ordinary Celery app on a demo's broker, for worker and beat processes of the tests."""

from __future__ import annotations

import os

from celery import Celery

from axme_celery.demo import files
from axme_celery.demo.home import DemoHome

files.register()
home = DemoHome.from_environment()
app = Celery("plain")
app.conf.update(home.read_config().celery_settings())
app.conf.beat_schedule = {"mark": {"task": "plain.mark", "schedule": 0.5}}


@app.task(name="plain.add")
def add(x: int, y: int) -> tuple[int, int]:
    return x + y, os.getpid()


@app.task(name="plain.mark")
def mark() -> None:
    (home.path / "marked-by-beat").touch()
