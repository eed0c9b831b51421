"""Business hours: spans of time that count only while people are at work. Pure; right across changes of the clocks.

A duration is reckoned as people mean it: whole days are working days (two days from Tuesday at three is Thursday at
three), the rest is time at work (four hours from Friday at three, closing at five, is Monday at eleven).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from .errors import BadInput

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_SPAN = re.compile(r"([0-9]{1,2}):([0-9]{2})\s*-\s*([0-9]{1,2}):([0-9]{2})")
_DAY_SECONDS = 86400.0
_EXAMPLE = '{"days": "mon-fri", "hours": "09:00-17:00", "tz": "Europe/Berlin"}'


@dataclass(frozen=True)
class BusinessHours:
    """When people are at work."""

    #: Days of the week, Monday is 0.
    days: tuple[int, ...]
    #: From and to, in minutes of the day, in order and apart.
    spans: tuple[tuple[int, int], ...]
    tz: str
    #: Days on which nobody works.
    holidays: frozenset[date] = frozenset()

    @classmethod
    def read(cls, value: Any, what: str) -> BusinessHours:
        """Hours as people write them.

        value: a mapping with ``days`` ("mon-fri", "mon,wed,fri" or a list), ``hours`` ("09:00-17:00", several with
               commas or as a list), ``tz`` ("Europe/Berlin") and perhaps ``holidays`` (dates, "2026-12-25").
        what:  the argument's name, for the refusal.

        Raises BadInput.
        """
        if isinstance(value, BusinessHours):
            return value
        if not isinstance(value, Mapping):
            raise BadInput(f"{what} is {str(value)[:80]!r}; write it like {_EXAMPLE}")
        unknown = set(value) - {"days", "hours", "tz", "holidays"}
        if unknown or not value.get("tz"):
            wrong = f"has {sorted(map(str, unknown))[0]!r}" if unknown else "names no tz"
            raise BadInput(f"{what} {wrong}; write it like {_EXAMPLE}, with holidays if there are some")
        return cls(
            _days(value.get("days", "mon-fri"), what),
            _spans(value.get("hours", "09:00-17:00"), what),
            _zone_name(value["tz"], what),
            _holidays(value.get("holidays", ()), what),
        )

    def as_json(self) -> dict[str, Any]:
        """As ``read`` takes it, in one form only."""
        hours = [f"{a // 60:02}:{a % 60:02}-{b // 60:02}:{b % 60:02}" for a, b in self.spans]
        shown: dict[str, Any] = {"days": [_DAYS[day] for day in self.days], "hours": hours, "tz": self.tz}
        return shown | ({"holidays": [each.isoformat() for each in sorted(self.holidays)]} if self.holidays else {})

    def add(self, start: datetime, seconds: float) -> datetime:
        """The moment by which so much working time has passed since ``start``; aware UTC.

        What begins outside working hours counts from the next opening. 24 hours are one working day.
        """
        days, rest = divmod(seconds, _DAY_SECONDS)
        moment = self.next_open(start)
        if days:
            moment = self._days_later(moment, int(days))
        return self._add_hours(moment, rest) if rest else moment

    def next_open(self, moment: datetime) -> datetime:
        """The moment itself where it is in working hours, else the next opening."""
        for opens, closes in self._open_from(moment):
            if closes > moment:
                return max(opens, moment)
        raise AssertionError("unreachable")

    def is_open(self, moment: datetime) -> bool:
        """Whether people are at work; at the moment of closing they are not."""
        return self.next_open(moment) == moment

    # -- how ------------------------------------------------------------------------

    def _days_later(self, moment: datetime, days: int) -> datetime:
        local = moment.astimezone(_zone(self.tz))
        day, at = local.date(), local.time().replace(tzinfo=None)
        while days:
            day += timedelta(days=1)
            days -= self._works(day)
        return self.next_open(_moment(day, at, self.tz))

    def _add_hours(self, moment: datetime, seconds: float) -> datetime:
        left = timedelta(seconds=seconds)
        for opens, closes in self._open_from(moment):
            begins = max(opens, moment)
            if closes <= begins:
                continue
            if closes - begins >= left:
                return begins + left
            left -= closes - begins
        raise AssertionError("unreachable")

    def _open_from(self, moment: datetime) -> Iterator[tuple[datetime, datetime]]:
        """Opening and closing, from the day before the moment's on, for ever."""
        day = moment.astimezone(_zone(self.tz)).date() - timedelta(days=1)
        while True:
            if self._works(day):
                for begins, ends in self.spans:
                    yield self._at(day, begins), self._at(day, ends)
            day += timedelta(days=1)

    def _at(self, day: date, minute: int) -> datetime:
        days, minute = divmod(minute, 1440)
        return _moment(day + timedelta(days=days), time(minute // 60, minute % 60), self.tz)

    def _works(self, day: date) -> bool:
        return day.weekday() in self.days and day not in self.holidays


def later(start: datetime, seconds: float, hours: Mapping[str, Any] | None) -> datetime:
    """So long after ``start``: around the clock, or in business hours as ``BusinessHours.as_json`` gave them."""
    if hours is None:
        return start + timedelta(seconds=seconds)
    return BusinessHours.read(hours, "business_hours").add(start, seconds)


def _moment(day: date, at: time, tz: str) -> datetime:
    """A local time as UTC: the first of two where the clocks are put back, the change itself where it is left out."""
    zone = _zone(tz)
    first, second = (datetime.combine(day, at, zone).replace(fold=fold) for fold in (0, 1))
    early, late = sorted(each.astimezone(UTC) for each in (first, second))
    if early == late or early.astimezone(zone).replace(tzinfo=None) == datetime.combine(day, at):
        return early
    # Left out: the clocks are put forward between the two readings. Find the moment at which that happens.
    before = early.astimezone(zone).utcoffset()
    while late - early > timedelta(microseconds=1):
        middle = early + (late - early) / 2
        if middle.astimezone(zone).utcoffset() == before:
            early = middle
        else:
            late = middle
    return late


# -- what people write ------------------------------------------------------------


def _days(value: Any, what: str) -> tuple[int, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    found: set[int] = set()
    if isinstance(parts, Sequence):
        for part in parts:
            names = [name.strip().lower()[:3] for name in str(part).split("-")]
            if not 1 <= len(names) <= 2 or not all(name in _DAYS for name in names):
                raise BadInput(f"{what} has the days {str(value)[:80]!r}; write them like 'mon-fri' or 'mon,wed,fri'")
            first, last = _DAYS.index(names[0]), _DAYS.index(names[-1])
            found |= {day % 7 for day in range(first, last + 1 if last >= first else last + 8)}
    if not found:
        raise BadInput(f"{what} has the days {str(value)[:80]!r}; write them like 'mon-fri' or 'mon,wed,fri'")
    return tuple(sorted(found))


def _spans(value: Any, what: str) -> tuple[tuple[int, int], ...]:
    parts = value.split(",") if isinstance(value, str) else value
    wrong = BadInput(
        f"{what} has the hours {str(value)[:80]!r}; write them like '09:00-17:00' or '09:00-12:00,13:00-17:00', "
        f"in order, apart, and within one day"
    )
    if not isinstance(parts, Sequence) or not parts:
        raise wrong
    spans: list[tuple[int, int]] = []
    for part in parts:
        found = _SPAN.fullmatch(str(part).strip())
        if found is None:
            raise wrong
        a, b, c, d = map(int, found.groups())
        begins, ends = a * 60 + b, c * 60 + d
        if b > 59 or d > 59 or not begins < ends <= 1440 or (spans and begins <= spans[-1][1]):
            raise wrong
        spans.append((begins, ends))
    return tuple(spans)


def _zone_name(value: Any, what: str) -> str:
    try:
        _zone(value)
    except (ValueError, KeyError, OSError, TypeError, AttributeError):
        raise BadInput(
            f"{what} has the tz {str(value)[:80]!r}, which is no time zone; use one like 'Europe/Berlin'"
        ) from None
    return str(value)


def _holidays(value: Any, what: str) -> frozenset[date]:
    if isinstance(value, str) or not isinstance(value, Sequence | set | frozenset) or len(value) > 1000:
        raise BadInput(f"{what} has holidays that are no list of at most 1000 dates like '2026-12-25'")
    try:
        return frozenset(each if type(each) is date else date.fromisoformat(each) for each in value)
    except (ValueError, TypeError):
        raise BadInput(f"{what} has holidays that are no dates like '2026-12-25'") from None


@functools.lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


__all__ = ["BusinessHours", "later"]
