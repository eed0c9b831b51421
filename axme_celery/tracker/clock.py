"""Moments as both trackers keep them: whole microseconds since 1970, UTC.

Microseconds, because a moment then comes back from Redis (a score, which is a
double: exact until the year 2255) and from SQL exactly as the ledger gave it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

#: Tells the time, aware and UTC. Given to a tracker, it replaces the store's own clock.
Clock = Callable[[], datetime]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)

HOUR = 3_600_000_000
DAY = 24 * HOUR


def to_microseconds(moment: datetime) -> int:
    """An aware moment as a number."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def to_moment(microseconds: float | str) -> datetime:
    """The moment back from a number or a Redis score, aware and UTC."""
    # Past 2255 a score is rounded, and the last moment there is must not be rounded out of the calendar.
    return _EPOCH + timedelta(microseconds=min(int(float(microseconds)), _LAST))


def length(seconds: float) -> int:
    """A length of time in microseconds."""
    return round(seconds * 1_000_000)
