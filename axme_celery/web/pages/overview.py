"""How the house is: what is late, what is stuck, and how much it has done; every number leads to the list it counts."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from flask import url_for

from ... import inbox as inboxes
from ...errors import AxmeError
from ..house import house, need
from . import blueprint
from .paging import filters
from .shown import page, part_wanted

#: Window -> (its length, the width of a bar).
WINDOWS = {"24h": (timedelta(hours=24), 3600), "7d": (timedelta(days=7), 6 * 3600), "1h": (timedelta(hours=1), 120)}
#: A sweep this many ticks ago means that nobody sweeps.
TICKS_LATE = 10


@blueprint.get("/overview")
def overview() -> Any:
    """Figures now, and charts of the last day or week."""
    actor = need()
    rt = house().rt
    given = filters("window")
    window = given["window"] if given["window"] in WINDOWS else "24h"
    ledger_ms, health = _timed(rt.ledger.health)
    if actor.owner is not None:
        health = None  # these figures are of the whole house
    tracker_ms, ticks = _timed(rt.tracker.ticks)
    now = rt.ledger.now()
    last_tick = max(ticks.values(), default=None) if ticks else None
    length, width = WINDOWS[window]
    charts = _charts(now, length, width, actor.owner)
    return page(
        "_overview_live.html" if part_wanted() else "overview.html",
        tab="overview",
        health=health,
        ledger_ms=ledger_ms,
        tracker_ms=tracker_ms,
        tracker="Redis" if rt.settings.redis_url else "the ledger's database",
        last_tick=last_tick,
        is_swept=last_tick is not None
        and (now - last_tick).total_seconds() < max(TICKS_LATE * rt.settings.tick_seconds, 5),
        counts=rt.ledger.views.count_by_status(actor.owner),
        letters=rt.ledger.views.count_letters(actor.owner),
        asked=inboxes.count(rt, inboxes.query(rt, owner=actor.owner)),
        overdue=inboxes.count(rt, inboxes.query(rt, owner=actor.owner, overdue=True)),
        charts=charts,
        window=window,
        windows=list(WINDOWS),
        address=url_for("axme.pages.overview"),
    )


def _timed(ask: Callable[[], Any]) -> tuple[float | None, Any]:
    """The milliseconds an answer took, and the answer; None and None when there was none."""
    began = time.perf_counter()
    try:
        answer = ask()
    except AxmeError:
        return None, None
    return (time.perf_counter() - began) * 1000, answer


def _charts(now: datetime, length: timedelta, width: int, owner: str | None) -> dict[str, Any]:
    """What came and went, and how long people took: for each bar its start and figures."""
    ledger = house().rt.ledger
    since = now - length
    first = int(since.timestamp()) // width * width
    starts = list(range(first, int(now.timestamp()) + 1, width))
    counts: dict[tuple[int, str], int] = {}
    for at, what, count in ledger.views.throughput(since, width, owner):
        counts[at, what] = counts.get((at, what), 0) + count
    waited: dict[int, list[float]] = {}
    for opened, closed, _ in ledger.views.waited(since, owner):
        waited.setdefault(int(closed.timestamp()) // width * width, []).append((closed - opened).total_seconds())
    return {
        "at": starts,
        "submitted": [counts.get((at, "SUBMITTED"), 0) for at in starts],
        "completed": [counts.get((at, "COMPLETED"), 0) for at in starts],
        "not": [sum(counts.get((at, s), 0) for s in ("FAILED", "TIMED_OUT", "CANCELED")) for at in starts],
        "waited": [round(statistics.median(waited[at]), 1) if at in waited else None for at in starts],
        "answers": [len(waited.get(at, [])) for at in starts],
    }
