"""When a cron expression fires, on the clocks of a place."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from axme_celery.cron import next_moment
from axme_celery.errors import BadInput

# How long an example takes depends on who else uses the machine, and says nothing here.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)


@pytest.mark.parametrize(
    ("expression", "tz", "after", "expected"),
    [
        ("0 9 * * *", None, utc(2026, 3, 1, 8, 59, 59), utc(2026, 3, 1, 9)),
        ("0 9 * * *", None, utc(2026, 3, 1, 9), utc(2026, 3, 2, 9)),
        ("0 9 * * *", "Europe/Paris", utc(2026, 1, 1), utc(2026, 1, 1, 8)),
        ("0 9 * * *", "Europe/Paris", utc(2026, 7, 1), utc(2026, 7, 1, 7)),
        ("0 9 * * mon-fri", "Asia/Kolkata", utc(2026, 11, 20, 4), utc(2026, 11, 23, 3, 30)),
        ("  0   0 1 1   * ", None, utc(2026, 1, 1), utc(2027, 1, 1)),
        ("*/15 * * * *", None, utc(2026, 1, 1, 0, 15), utc(2026, 1, 1, 0, 30)),
        ("59 23 31 12 *", None, utc(2026, 12, 31, 23, 58), utc(2026, 12, 31, 23, 59)),
        ("0 0 31 * *", None, utc(2026, 2, 1), utc(2026, 3, 31)),
        ("0 0 29 2 *", None, utc(2026, 1, 1), utc(2028, 2, 29)),
        ("0 0 29 2 mon", None, utc(2026, 1, 1), utc(2044, 2, 29)),
        ("0 0 29 2 mon", None, utc(2073, 1, 1), utc(2112, 2, 29)),
        ("0 12 * jan sun", None, utc(2026, 6, 1), utc(2027, 1, 3, 12)),
        ("30 5-7/2,20 * * *", None, utc(2026, 6, 1, 5, 30), utc(2026, 6, 1, 7, 30)),
    ],
)
def test_the_next_moment_is_strictly_later_and_in_utc(expression, tz, after, expected):
    """An intent that waits for nine o'clock and is woken at nine o'clock waits for tomorrow."""
    found = next_moment(expression, tz, after)
    assert found == expected
    assert found.tzinfo is UTC


def test_a_day_of_month_and_a_day_of_week_must_both_match():
    """Celery's meaning: the first Monday of each month. The cron of Unix would take the 2nd to the 7th too."""
    assert next_moment("0 9 1-7 * mon", None, utc(2026, 11, 1)) == utc(2026, 11, 2, 9)
    assert next_moment("0 9 1-7 * mon", None, utc(2026, 11, 2, 9)) == utc(2026, 12, 7, 9)
    assert next_moment("0 0 13 * fri", None, utc(2026, 3, 14)) == utc(2026, 11, 13)


def test_a_time_that_clocks_skip_fires_at_the_first_moment_after_the_gap():
    """New York, 8 March 2026: 01:59:59 is followed by 03:00:00."""
    gap_ends = utc(2026, 3, 8, 7)
    for expression in ("30 2 * * *", "0 2 * * *", "59 2 * * *"):
        assert next_moment(expression, "America/New_York", utc(2026, 3, 8, 1)) == gap_ends
        assert next_moment(expression, "America/New_York", gap_ends) > utc(2026, 3, 9)
    # Three skipped ones and 03:00 itself are the same moment, and fire once.
    after = utc(2026, 3, 8, 6, 40)
    assert next_moment("*/20 * * * *", "America/New_York", after) == gap_ends
    assert next_moment("*/20 * * * *", "America/New_York", gap_ends) == gap_ends + timedelta(minutes=20)


def test_a_day_that_a_place_skipped_fires_when_the_next_one_begins():
    """Samoa had no 30 December 2011."""
    assert next_moment("0 12 30 12 *", "Pacific/Apia", utc(2011, 12, 29)) == utc(2011, 12, 30, 10)
    assert next_moment("0 12 30 12 *", "Pacific/Apia", utc(2011, 12, 30, 10)) == utc(2012, 12, 29, 22)


def test_a_half_hour_change_is_met_to_the_second():
    """Lord Howe Island goes forward by thirty minutes, at 15:30 UTC."""
    assert next_moment("15 2 * * *", "Australia/Lord_Howe", utc(2026, 10, 3, 12)) == utc(2026, 10, 3, 15, 30)


def test_a_time_that_clocks_show_twice_fires_once_the_first_time():
    """New York, 1 November 2026: 01:30 comes at 05:30 and at 06:30 UTC."""
    first = utc(2026, 11, 1, 5, 30)
    assert next_moment("30 1 * * *", "America/New_York", utc(2026, 11, 1)) == first
    assert next_moment("30 1 * * *", "America/New_York", first) == utc(2026, 11, 2, 6, 30)
    for within_the_second in (utc(2026, 11, 1, 6), utc(2026, 11, 1, 6, 29, 59)):
        assert next_moment("30 1 * * *", "America/New_York", within_the_second) == utc(2026, 11, 2, 6, 30)
    # So "every twenty minutes" rests for the hour that is shown again.
    assert next_moment("*/20 * * * *", "America/New_York", utc(2026, 11, 1, 5, 40)) == utc(2026, 11, 1, 7)


ZONES = ["UTC", "America/New_York", "Europe/Dublin", "Australia/Lord_Howe", "Asia/Kathmandu", "Africa/Casablanca"]
EXPRESSIONS = ["*/7 * * * *", "30 2 * * *", "0,30 1-3 * * *", "15 0 * * sun", "0 0 1 * *", "45 23 * 3,10,11 *"]


@settings(UNHURRIED, max_examples=150)
@given(
    st.sampled_from(EXPRESSIONS),
    st.sampled_from(ZONES),
    st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),
)
def test_every_moment_is_one_the_expression_names_or_the_end_of_a_gap_over_one(expression, tz, after):
    """Judged by walking the clocks of the place minute by minute."""
    found = next_moment(expression, tz, after)
    zone = ZoneInfo(tz)
    assume(found - after < timedelta(days=3))

    def named(local: datetime) -> bool:
        minute, hour, day, month, weekday = expression.split()
        ranges = {
            "*": None, "*/7": range(0, 60, 7), "0,30": {0, 30}, "1-3": {1, 2, 3}, "sun": {0}, "3,10,11": {3, 10, 11},
        }  # fmt: skip

        def fits(field: str, value: int) -> bool:
            allowed = ranges.get(field, {int(field)} if field.isdigit() else None)
            return allowed is None or value in allowed

        pairs = ((minute, local.minute), (hour, local.hour), (day, local.day), (month, local.month))
        return all(fits(*pair) for pair in pairs) and fits(weekday, local.isoweekday() % 7)

    # Walk real minutes; what clocks skip between two of them is judged at the later one.
    at = after.replace(second=0, microsecond=0)
    shown = at.astimezone(zone).replace(tzinfo=None)
    highest = shown if at.astimezone(zone).fold == 0 else shown + timedelta(hours=1)
    expected = None
    while expected is None:
        at += timedelta(minutes=1)
        shown = at.astimezone(zone).replace(tzinfo=None)
        fires = False
        while highest < shown:
            highest += timedelta(minutes=1)
            fires = fires or named(highest)
        if fires and at > after:
            expected = at
    assert found == expected


@pytest.mark.parametrize(
    ("expression", "refusal"),
    [
        ("* * * *", "has 4 fields; write five"),
        ("", "has 0 fields"),
        ("0 9 * * * *", "has 6 fields"),
        ("60 * * * *", "cannot be read: Invalid end range: 60 > 59"),
        ("* 24 * * *", "cannot be read"),
        ("* * 0 * *", "cannot be read"),
        ("* * * 13 *", "cannot be read"),
        ("* * * * 7", "cannot be read"),
        ("* * * * someday", "cannot be read"),
        ("*/0 * * * *", "cannot be read"),
        ("-5 * * * *", "cannot be read"),
        ("1-2-3 * * * *", "cannot be read: '1-2-3' is no list of"),
        ("*x * * * *", "cannot be read: '*x' is no list of"),
        ("٣ * * * *", "cannot be read"),
        (", * * * *", "cannot be read"),
        ("/ * * * *", "cannot be read"),
        ("@daily", "has 1 fields"),
        ("0 0 30 2 *", "cannot be read"),
        ("0 0 31 4,6,9,11 *", "cannot be read"),
        ("1," * 200, "no expression"),
        (None, "no expression"),
        (5, "no expression"),
    ],
)
def test_an_expression_that_names_no_moment_is_refused(expression, refusal):
    """When it is written, not when the wait should have ended."""
    with pytest.raises(BadInput, match=r"^cron ") as refused:
        next_moment(expression, None, utc(2026, 1, 1))
    assert refusal in str(refused.value) and len(str(refused.value)) < 300


@settings(UNHURRIED)
@given(st.text("0123456789*/,- monjan", max_size=20))
def test_no_text_breaks_the_reader(text):
    """It fires, or it is refused."""
    with contextlib.suppress(BadInput):
        assert next_moment(text, None, utc(2026, 1, 1)) > utc(2026, 1, 1)


@pytest.mark.parametrize(
    "tz", ["Europe/Pari", "Mars/Olympus", "../etc/passwd", "/etc/passwd", "America", "\0", 5, "x" * 500]
)
def test_a_zone_that_is_not_known_is_refused_by_name(tz):
    """With the nearest one that is."""
    with pytest.raises(BadInput, match=r"^time zone ") as refused:
        next_moment("0 9 * * *", tz, utc(2026, 1, 1))
    assert ("did you mean 'Europe/Paris'?" in str(refused.value)) == (tz == "Europe/Pari")


def test_a_time_without_a_zone_and_the_end_of_time_are_refused():
    """Nothing is guessed."""
    with pytest.raises(BadInput, match="a time without a zone"):
        next_moment("0 9 * * *", None, datetime(2026, 1, 1))
    with pytest.raises(BadInput, match="names no moment from 9999 on"):
        next_moment("0 0 1 1 *", None, datetime(9999, 6, 1, tzinfo=UTC))
