"""How often one actor may ask for one thing: a bucket each, in this process.

The limit is per web process: with several, one actor has as many buckets. It is there to keep one program that runs
wild from taking a process for itself, and answers it before any store is asked.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict

from flask import Blueprint, Response, g, request

from ..house import current_actor, house
from .problems import Problem

#: Buckets kept; the longest unused goes first.
MOST = 20_000


class Buckets:
    """Token buckets: so many requests a minute, all at once if need be."""

    def __init__(self, clock: object = None) -> None:
        self._clock = clock if callable(clock) else time.monotonic
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()

    def take(self, who: str, what: str, per_minute: int) -> tuple[int, float]:
        """Take one of the bucket: (how many are left, seconds until there is one again or 0)."""
        now = float(self._clock())
        with self._lock:
            tokens, at = self._kept.pop((who, what), (float(per_minute), now))
            tokens = min(float(per_minute), tokens + (now - at) * per_minute / 60)
            left = tokens - 1 if tokens >= 1 else tokens
            self._kept[who, what] = (left, now)
            if len(self._kept) > MOST:
                self._kept.popitem(last=False)
        if tokens >= 1:
            return int(left), 0.0
        return 0, (1 - tokens) * 60 / per_minute


BUCKETS = Buckets()


def install(blueprint: Blueprint) -> None:
    """Hold the blueprint's requests to the limit, and tell in every response how much of it is left."""
    blueprint.before_request(_before)
    blueprint.after_request(_after)


def _before() -> None:
    limit = house().axme.settings.requests_per_minute
    if limit is None:
        return
    actor = current_actor()
    who = actor.id if actor is not None else f"address {request.remote_addr}"
    # Per project too: tests and hosts may have several in one process.
    left, pause = BUCKETS.take(f"{id(house())}:{who}", f"{request.method} {request.url_rule}", limit)
    reset = math.ceil(pause) if pause else math.ceil((limit - left) * 60 / limit)
    g.axme_rate = {
        "X-RateLimit-Limit": str(limit), "X-RateLimit-Remaining": str(left), "X-RateLimit-Reset": str(max(1, reset)),
    }  # fmt: skip
    if pause:
        raise Problem(
            429, "rate_limit_exceeded", f"more than {limit} requests a minute to this endpoint; slow down",
            retryable=True, headers={"Retry-After": str(max(1, math.ceil(pause)))},
        )  # fmt: skip


def _after(response: Response) -> Response:
    for name, value in g.get("axme_rate", {}).items():
        response.headers[name] = value
    return response
