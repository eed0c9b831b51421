"""The reference intents as a project of its own: what the live part's workers, beats and clients import.

``CHAOS_PROJECT`` holds Celery's settings as JSON, and ``linger_seconds``: how long a step may take. A step that takes a
while is what kills, pauses and lost databases find under way.

SIGUSR2 makes any process of it write the stacks of all its threads into ``CHAOS_STACKS``. (Celery keeps SIGUSR1 to
itself: for its own dump in a worker's parent, for soft time limits in its children.)
"""

from __future__ import annotations

import faulthandler
import json
import os
import random
import signal
import time

from celery import Celery

from axme_celery import Axme

from . import reference

config = json.loads(os.environ["CHAOS_PROJECT"])
linger_seconds: float = config.pop("linger_seconds", 0.0)
app = Celery("chaos")
app.conf.update(config)
axme = Axme(app)
tasks = reference.Tasks(axme)


def linger() -> None:
    """Most steps are quick, some take up to ``linger_seconds``, and a few much longer: as long as a lease."""
    kind = random.random()
    if linger_seconds and kind < 0.05:
        time.sleep(random.uniform(2.0, 6.0) * linger_seconds)
    elif linger_seconds and kind < 0.3:
        time.sleep(random.uniform(0.0, linger_seconds))


reference.linger = linger

if stacks := os.environ.get("CHAOS_STACKS"):
    faulthandler.register(signal.SIGUSR2, file=open(stacks, "a"), all_threads=True)  # noqa: SIM115, open for good
