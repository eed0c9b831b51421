"""The tracker: who is running what until when, what falls due, and live notices.

It is an index of the ledger and nothing else: losing it costs lateness, never work.
Any answer of it may only cause a look at the ledger; the sweep refills it.

Two of them keep one port: ``RedisTracker`` (redis.py and the .lua files), and
``SqlTracker`` (sql.py), in the ledger's own database, where there is no Redis.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from axme_celery.model import Lease, Progress, Timer
from axme_celery.tracker.clock import Clock

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from axme_celery.tracker.redis import RedisTracker
    from axme_celery.tracker.sql import SqlTracker

__all__ = ["Clock", "Lease", "Progress", "Timer", "open_tracker"]


def open_tracker(
    redis_url: str | None,
    namespace: str,
    engine_source: Callable[[], Engine],
    clock: Clock | None = None,
) -> RedisTracker | SqlTracker:
    """The tracker of these settings; nothing is connected yet.

    redis_url:      a redis://, rediss://, unix:// or redis+socket:// URL, or None for the ledger's database.
    namespace:      keeps two ledgers on one Redis apart; not used in SQL, where each ledger has its own tables.
    engine_source:  gives the ledger's engine, this process's own, at each call.
    clock:          replaces the store's own clock; tests move it.

    Raises BadSetting when the URL cannot be a Redis.
    """
    # Imported here, so that a process loads the client library of its own tracker only.
    if redis_url:
        from axme_celery.tracker.redis import RedisTracker

        return RedisTracker(redis_url, namespace, clock=clock)

    from axme_celery.tracker.sql import SqlTracker

    return SqlTracker(engine_source, clock)
