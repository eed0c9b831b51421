"""The beat schedule's part: one entry that sweeps at every tick."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from celery import Celery, signals

from . import answer, scenarios
from .config import Settings
from .errors import BadSetting, ToolFailed
from .model import JsonDict
from .sweep import sweep

if TYPE_CHECKING:
    from .extension import Axme

log = logging.getLogger(__name__)

SWEEP_TASK = "axme.sweep"
POLL_TASK = "axme.poll"
ENTRY = "axme-sweep"


def register(axme: Axme, app: Celery) -> None:
    """Define our two tasks on the app, and the beat entry once its configuration is known."""

    # Not shared: Celery would give this app's sweep to every other app of the process, in place of their own.
    @app.task(name=SWEEP_TASK, ignore_result=True, acks_late=False, bind=True, shared=False)  # type: ignore[untyped-decorator]
    def sweep_once(self: Any, sweeper: str | None = None) -> dict[str, int]:
        return sweep(axme.runtime, axme.senders, sweeper or self.request.origin or "beat")

    @app.task(name=POLL_TASK, ignore_result=True, shared=False)  # type: ignore[untyped-decorator]
    def poll(wait_id: str) -> None:
        ask_tool(axme, wait_id)

    @axme.task(name=scenarios.TASK)  # type: ignore[untyped-decorator]
    def scenario(program: JsonDict, payload: JsonDict) -> JsonDict:
        return scenarios.run(program, payload)

    def schedule(sender: Any = None, **_: Any) -> None:
        add_entry(axme, app)

    def beat_init(sender: Any = None, **_: Any) -> None:
        # The project may have replaced its whole schedule since, or set another tick.
        if sender.app is app:
            axme.calls.beat_thread = threading.get_ident()
            sender.scheduler.update_from_dict({ENTRY: add_entry(axme, app)})

    signals.beat_init.connect(beat_init, weak=False, dispatch_uid=f"axme-{id(axme)}-beat_init")
    if app.configured:
        add_entry(axme, app)
    else:
        app.on_after_configure.connect(schedule, weak=False)


def add_entry(axme: Axme, app: Celery) -> dict[str, Any]:
    """Put the sweep on the beat schedule, beside whatever is there; returns its entry."""
    try:
        tick = axme.read_settings().tick_seconds
    except BadSetting:
        # Whoever uses the settings is told of it; an app must not fail to load for its beat's sake.
        tick = Settings.tick_seconds
    # Sweeps that could not run while workers were down are of no use afterwards: the first one does it all.
    entry: dict[str, Any] = {"task": SWEEP_TASK, "schedule": tick, "options": {"expires": max(10 * tick, 10.0)}}
    app.conf.beat_schedule = {**(app.conf.beat_schedule or {}), ENTRY: entry}
    return entry


def ask_tool(axme: Axme, wait_id: str) -> None:
    """Run a wait's poll signature here and now, and pass on what it found out."""
    rt = axme.runtime
    record = rt.ledger.wait(wait_id)
    signature = None if record is None else record.wait.request.get("poll")
    if signature is None:
        return
    task = axme.app.tasks[signature["task"]]
    try:
        result = task(*signature["args"], **signature["kwargs"])
    except ToolFailed as failed:
        answer.poll_answered(rt, wait_id, error=failed.error)
        return
    if result is not None:
        answer.poll_answered(rt, wait_id, result=result)
