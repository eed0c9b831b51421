"""Durations and moments: what people write, and the one form the house keeps.

A duration is kept as float seconds, a moment as an aware UTC ``datetime``.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta

from .errors import BadInput

#: Seconds as a number, a ``timedelta``, or text such as "90s", "15m", "4h", "2d", "1w", "1d12h", "250ms".
Duration = int | float | str | timedelta

#: The longest duration taken: 100 years. Longer is a slip of units, and overflows dates.
LONGEST_SECONDS = 36525 * 86400.0
#: The latest moment taken: any duration can still be added to it.
LATEST = datetime(9800, 1, 1, tzinfo=UTC)

_UNIT_SECONDS = {"w": 604800.0, "d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}

# Each unit at most once and largest first, so that "1m1h" or "1d1d", which are slips, are refused.
_NUMBER = r"([0-9]+(?:\.[0-9]+)?)"
_TEXT = re.compile(r"\s*".join(rf"(?:{_NUMBER}\s*{unit})?" for unit in _UNIT_SECONDS))

_EXAMPLES = 'write seconds (90), a timedelta, or text like "90s", "15m", "4h", "2d", "1w", "1d12h"'


def seconds(value: Duration, what: str) -> float:
    """A duration as seconds, 0 or more.

    value: see ``Duration``. Text may have blanks between its parts ("1d 12h") and fractions ("1.5h").
    what:  the argument's name, for the refusal ("timeout", "axme_lease_seconds").

    Raises BadInput for what is negative, not finite, without a unit, over 100 years, or no duration at all.
    """
    if isinstance(value, timedelta):
        found = value.total_seconds()
    elif isinstance(value, str):
        found = _parse(value, what)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            found = float(value)
        except OverflowError:
            found = math.inf
        if math.isnan(found):
            raise BadInput(f"{what} is not a number (NaN); {_EXAMPLES}")
    else:
        raise BadInput(f"{what} is {_shown(value)}, which is no duration; {_EXAMPLES}")
    if found < 0:
        raise BadInput(f"{what} is negative ({_shown(value)}); {_EXAMPLES}")
    if found > LONGEST_SECONDS:
        raise BadInput(f"{what} is {_shown(value)}, longer than 100 years; {_EXAMPLES}")
    return found


def moment(value: datetime | str, what: str) -> datetime:
    """A point in time as an aware UTC ``datetime``.

    value: an aware ``datetime``, or ISO 8601 text with its offset ("2026-10-31T18:00:00+01:00", "...Z").

    Raises BadInput for a time without a zone, since it means another moment on every machine, and for one after the
    year 9799.
    """
    at: object = value
    if isinstance(value, str):
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            raise BadInput(
                f"{what} is {_shown(value)}, which is no ISO 8601 time; write it like 2026-10-31T18:00:00+01:00"
            ) from None
    if not isinstance(at, datetime):
        raise BadInput(
            f"{what} is {_shown(value)}, which is no moment; "
            f"pass an aware datetime, or ISO 8601 text like 2026-10-31T18:00:00+01:00"
        )
    if at.utcoffset() is None:
        raise BadInput(
            f"{what} is {at.isoformat()}, a time without a zone; "
            f"pass datetime.now(timezone.utc) or one with tzinfo, or end the text in Z or +01:00"
        )
    try:
        found = at.astimezone(UTC)
    except OverflowError:
        found = None
    if found is None or found >= LATEST:
        raise BadInput(f"{what} is {at.isoformat()}, which is outside the years 1 to 9799 in UTC")
    return found


def utc_iso(at: datetime) -> str:
    """An aware ``datetime`` as UTC text of fixed width, "2026-10-31T17:00:00.000000Z": it sorts as it happened."""
    if at.utcoffset() is None:
        raise BadInput(f"{at.isoformat()} is a time without a zone; pass an aware datetime")
    return at.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"


def words(seconds: float) -> str:
    """Seconds for people, in the two largest units: "2d 4h", "3m 20s", "12s", "250ms", "0s"."""
    if seconds < 0:
        return "-" + words(-seconds)
    if seconds < 0.9995:
        millis = round(seconds * 1000)
        return f"{millis}ms" if millis else "0s"
    for large, small, large_seconds, small_seconds in _PAIRS:
        # Round before splitting, so that 59.7 s reads "1m" and never "60s".
        rest = round(seconds / small_seconds) * small_seconds
        if rest >= large_seconds:
            many, rest = divmod(rest, large_seconds)
            return f"{many}{large} {rest // small_seconds}{small}" if rest else f"{many}{large}"
    return f"{round(seconds)}s"


_PAIRS = (("d", "h", 86400, 3600), ("h", "m", 3600, 60), ("m", "s", 60, 1))


def _parse(text: str, what: str) -> float:
    match = _TEXT.fullmatch(text.strip()) if len(text) <= 64 else None
    if match is None or not any(match.groups()):
        bare = text.strip()
        out = f'did you mean {bare} or "{bare}s"?' if re.fullmatch("[0-9.]{1,20}", bare) else _EXAMPLES
        raise BadInput(f"{what} is {_shown(text)}, which is no duration; {out}")
    parts = zip(match.groups(), _UNIT_SECONDS.values(), strict=True)
    return math.fsum(float(number) * unit for number, unit in parts if number)


def _shown(value: object) -> str:
    # A number of thousands of digits cannot be written out (Python refuses), and a long text should not be.
    try:
        text = repr(value)
    except ValueError:
        text = f"a {type(value).__name__} too long to show"
    return text if len(text) <= 80 else text[:77] + "..."
