"""The next moment of a cron expression, in a time zone with its summer time.

The expression is read by Celery's own ``crontab``, so it means what it means in ``beat_schedule``: where day of month
and day of week are both restricted, **both** must match ("0 9 1-7 * mon" is the first Monday of each month), while
the cron of Unix takes either. Sunday is 0 or "sun"; 7 is refused.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock_time
from zoneinfo import ZoneInfo, available_timezones

from celery.schedules import crontab

from .errors import BadInput

# 29 February on a given weekday comes back within 40 years (over 2100); nothing else is rarer.
_YEARS_AHEAD = 41


def next_moment(expression: str, tz: str | None, after: datetime) -> datetime:
    """The first moment strictly after ``after`` that the expression names, in UTC.

    expression: five fields, "minute hour day-of-month month day-of-week", as in Celery's ``crontab``.
    tz:         IANA name of the zone whose clocks are meant ("Europe/Paris"); None: UTC.
    after:      an aware ``datetime``.

    A local time that does not exist (clocks go forward over it) stands for the first moment after the gap.
    One that exists twice (clocks go back) stands for its first occurrence only, also for "every ten minutes".

    Raises BadInput for an expression or zone that cannot be read, one that names no moment (30 February),
    or ``after`` without a zone.
    """
    if after.utcoffset() is None:
        raise BadInput(f"after is {after.isoformat()}, a time without a zone; pass an aware datetime")
    schedule = _read(expression)
    zone = _zone(tz)
    after = after.astimezone(UTC)
    # No earlier local time can fire later than this one, so nothing before it need be looked at.
    since = after.astimezone(zone).replace(tzinfo=None)
    for local in _local_times(schedule, since):
        fires_at = _fires_at(local, zone)
        if fires_at > after:
            return fires_at
    raise BadInput(f"cron {expression!r} names no moment from {since:%Y} on; check its day and month")


# Celery's parser reads a field as far as it can and is silent about the rest: "1-2-3" as 1-2, "*x" as *.
_PART = r"(\*|[0-9a-zA-Z]+(-[0-9a-zA-Z]+)?)(/[0-9]+)?"
_FIELD = re.compile(f"{_PART}(,{_PART})*")


def _read(expression: str) -> crontab:
    if not isinstance(expression, str) or len(expression) > 200:
        raise BadInput(
            f"cron is {str(expression)[:80]!r}, which is no expression; write five fields like '0 9 * * mon-fri'"
        )
    fields = expression.split()
    if len(fields) != 5:
        raise BadInput(
            f"cron {expression!r} has {len(fields)} fields; "
            f"write five: minute hour day-of-month month day-of-week, like '0 9 * * mon-fri'"
        )
    for field in fields:
        if not _FIELD.fullmatch(field):
            raise BadInput(
                f"cron {expression!r} cannot be read: {field!r} is no list of *, 5, mon, 1-5, */15 or 1-30/2"
            )
    try:
        return crontab.from_string(" ".join(fields))
    except Exception as wrong:  # its parser raises ValueError, ParseException, KeyError, ...
        raise BadInput(f"cron {expression!r} cannot be read: {wrong or type(wrong).__name__}") from wrong


def _zone(tz: str | None) -> ZoneInfo:
    try:
        return ZoneInfo(tz or "UTC")
    except (KeyError, ValueError, TypeError, OSError):
        close = difflib.get_close_matches(str(tz), available_timezones(), n=1)
        hint = f"did you mean {close[0]!r}?" if close else "use an IANA name like 'Europe/Paris'"
        raise BadInput(f"time zone {str(tz)[:80]!r} is not known on this machine; {hint}") from None


def _local_times(schedule: crontab, since: datetime) -> Iterator[datetime]:
    """Every time the expression names, as clocks show it, in order, later than ``since``."""
    minutes, hours = sorted(schedule.minute), sorted(schedule.hour)
    for day in _days(schedule, since.date()):
        for hour in hours:
            if day == since.date() and hour < since.hour:
                continue
            for minute in minutes:
                local = datetime.combine(day, clock_time(hour, minute))
                if local > since:
                    yield local


def _days(schedule: crontab, since: date) -> Iterator[date]:
    for year in range(since.year, min(since.year + _YEARS_AHEAD, date.max.year + 1)):
        for month in sorted(schedule.month_of_year):
            for number in sorted(schedule.day_of_month):
                try:
                    day = date(year, month, number)
                except ValueError:
                    break  # this month is shorter
                if day >= since and day.isoweekday() % 7 in schedule.day_of_week:
                    yield day


def _fires_at(local: datetime, zone: ZoneInfo) -> datetime:
    """The moment, in UTC, at which clocks of the zone first show this time, or first pass it."""
    before = local.replace(tzinfo=zone, fold=0)
    moment = before.astimezone(UTC)
    if moment.astimezone(zone).replace(tzinfo=None) == local:
        return moment
    # No clock shows it: the offset changes between the readings by the new and by the old offset.
    # Halve that span down to the second of the change, which zones keep whole.
    old, early, late = before.utcoffset(), local.replace(tzinfo=zone, fold=1).astimezone(UTC), moment
    while late - early > timedelta(seconds=1):
        middle = (early + (late - early) / 2).replace(microsecond=0)
        early, late = (middle, late) if middle.astimezone(zone).utcoffset() == old else (early, middle)
    return late
