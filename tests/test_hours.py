"""Business hours: what counts, and that no change of the clocks loses or gains anybody an hour."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from axme_celery import BadInput
from axme_celery.hours import BusinessHours, later

BERLIN = BusinessHours.read({"days": "mon-fri", "hours": "09:00-17:00", "tz": "Europe/Berlin"}, "h")


def berlin(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo("Europe/Berlin"))


@pytest.mark.parametrize(
    ("start", "seconds", "end"),
    [
        # 2026-10-23 is a Friday; on the Sunday after it the clocks are put back.
        ("2026-10-23 15:00", 2 * 3600, "2026-10-23 17:00"),
        ("2026-10-23 15:00", 4 * 3600, "2026-10-26 11:00"),
        ("2026-10-23 15:00", 86400, "2026-10-26 15:00"),
        ("2026-10-23 15:00", 2 * 86400, "2026-10-27 15:00"),
        ("2026-10-23 15:00", 86400 + 4 * 3600, "2026-10-27 11:00"),
        ("2026-10-24 12:00", 3600, "2026-10-26 10:00"),
        ("2026-10-24 12:00", 86400, "2026-10-27 09:00"),
        ("2026-10-23 17:00", 60, "2026-10-26 09:01"),
        ("2026-10-23 08:00", 8 * 3600, "2026-10-23 17:00"),
        ("2026-10-23 20:00", 0, "2026-10-26 09:00"),
        ("2026-03-27 16:30", 3600, "2026-03-30 09:30"),
    ],
)
def test_hours_count_at_work_and_days_are_working_days(start, seconds, end):
    """As people mean it."""
    assert BERLIN.add(berlin(start), seconds) == berlin(end)


def test_nobody_works_on_a_holiday_or_over_lunch():
    """Several spans a day, and days that are left out."""
    hours = BusinessHours.read(
        {"days": ["mon", "wed-fri"], "hours": "09:00-12:00, 13:00-17:00", "tz": "UTC", "holidays": ["2026-10-29"]}, "h"
    )
    wednesday = datetime(2026, 10, 28, 11, tzinfo=UTC)

    assert hours.add(wednesday, 2 * 3600) == datetime(2026, 10, 28, 14, tzinfo=UTC)
    assert hours.add(wednesday, 86400) == datetime(2026, 10, 30, 11, tzinfo=UTC)
    assert hours.add(wednesday, 5 * 3600 + 60) == datetime(2026, 10, 30, 9, 1, tzinfo=UTC)


def test_a_time_that_a_change_of_the_clocks_leaves_out_is_the_change_itself():
    """In Berlin there is no 02:30 on 2026-03-29, in Apia no 2011-12-30 at all."""
    night = BusinessHours.read({"days": "sun", "hours": "02:30-04:00", "tz": "Europe/Berlin"}, "h")
    apia = BusinessHours.read({"days": "mon-sun", "hours": "09:00-17:00", "tz": "Pacific/Apia"}, "h")

    assert night.next_open(datetime(2026, 3, 28, tzinfo=UTC)) == datetime(2026, 3, 29, 1, tzinfo=UTC)
    assert night.add(datetime(2026, 3, 28, tzinfo=UTC), 3600) == datetime(2026, 3, 29, 2, tzinfo=UTC)
    end = apia.add(datetime(2011, 12, 29, 16, tzinfo=ZoneInfo("Pacific/Apia")), 2 * 3600)
    assert end == datetime(2011, 12, 31, 10, tzinfo=ZoneInfo("Pacific/Apia"))


# -- properties -------------------------------------------------------------------

ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "America/Sao_Paulo", "UTC")
#: Around changes of the clocks of one or the other of these zones, and in between.
STARTS = st.sampled_from(
    [datetime(2026, 3, 27, tzinfo=UTC), datetime(2026, 10, 23, tzinfo=UTC), datetime(2018, 11, 1, tzinfo=UTC)]
).flatmap(lambda day: st.integers(0, 14 * 1440).map(lambda minutes: day + timedelta(minutes=minutes)))


@st.composite
def hours_of_people(draw):
    days = draw(st.sets(st.integers(0, 6), min_size=1))
    cuts = sorted(draw(st.sets(st.integers(0, 96).map(lambda n: n * 15), min_size=2, max_size=4)))
    spans = [(a, b) for a, b in zip(cuts[::2], cuts[1::2], strict=False)]
    # The clocks change on Sundays; most days are kept, so that something is left of short weeks.
    return BusinessHours(tuple(sorted(days | {0})), tuple(spans), draw(st.sampled_from(ZONES)))


def is_at_work(hours: BusinessHours, moment: datetime) -> bool:
    """Said the simple way, from the clock on the wall."""
    wall = moment.astimezone(ZoneInfo(hours.tz))
    minute = wall.hour * 60 + wall.minute
    return wall.weekday() in hours.days and any(begins <= minute < ends for begins, ends in hours.spans)


def minutes_at_work(hours: BusinessHours, start: datetime, end: datetime) -> int:
    found, moment = 0, start
    while moment < end:
        found += is_at_work(hours, moment)
        moment += timedelta(minutes=1)
    return found


@settings(max_examples=60, deadline=None)
@given(hours_of_people(), STARTS, st.integers(1, 600))
@example(BusinessHours((6,), ((0, 1440),), "Europe/Berlin"), datetime(2026, 10, 24, tzinfo=UTC), 600)
@example(BusinessHours((6,), ((0, 1440),), "Europe/Berlin"), datetime(2026, 3, 28, tzinfo=UTC), 600)
@example(BusinessHours((0, 6), ((0, 60),), "America/Sao_Paulo"), datetime(2018, 11, 3, tzinfo=UTC), 60)
def test_exactly_the_minutes_asked_for_have_passed_at_work(hours, start, minutes):
    """Counted one by one on the wall's clock, also through nights in which an hour is doubled or left out."""
    end = hours.add(start, minutes * 60)

    assert minutes_at_work(hours, start, end) == minutes
    assert is_at_work(hours, end - timedelta(minutes=1))


@settings(max_examples=200, deadline=None)
@given(hours_of_people(), STARTS, st.integers(1, 43000), st.integers(1, 43000))
def test_time_added_in_two_parts_is_time_added_at_once(hours, start, first, second):
    """So a reminder after a reminder is where it would be anyhow."""
    assert hours.add(hours.add(start, first), second) == hours.add(start, first + second)


@settings(max_examples=200, deadline=None)
@given(hours_of_people(), STARTS, st.integers(0, 3000), st.integers(0, 5 * 86400))
def test_what_begins_later_does_not_end_earlier(hours, start, by, seconds):
    """And no end is before its beginning, nor outside working hours."""
    end = hours.add(start, seconds)

    assert start <= end <= hours.add(start + timedelta(minutes=by), seconds)
    assert hours.is_open(end) or is_at_work(hours, end - timedelta(minutes=1))


@settings(max_examples=100, deadline=None)
@given(hours_of_people())
def test_hours_are_read_back_as_they_were_kept(hours):
    """The form a wait keeps is the one ``read`` takes."""
    assert BusinessHours.read(hours.as_json(), "h") == hours
    assert later(datetime(2026, 1, 1, tzinfo=UTC), 3600, hours.as_json()) == hours.add(
        datetime(2026, 1, 1, tzinfo=UTC), 3600
    )


def test_without_business_hours_every_hour_counts():
    """Around the clock."""
    start = datetime(2026, 10, 24, 12, tzinfo=UTC)

    assert later(start, 90000, None) == start + timedelta(hours=25)


def test_days_are_read_in_every_way_people_write_them():
    """Ranges may go over the weekend."""
    read = lambda days: BusinessHours.read({"days": days, "tz": "UTC"}, "h").days  # noqa: E731

    assert read("mon-fri") == read(["Monday", "tuesday", "wed", "thu", "fri"]) == (0, 1, 2, 3, 4)
    assert read("sat-mon") == (0, 5, 6)
    assert read("sun") == (6,)
    assert BusinessHours.read({"tz": "UTC", "holidays": [date(2026, 12, 25)]}, "h").holidays == {date(2026, 12, 25)}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("9-5", "write it like"),
        ({"hours": "09:00-17:00"}, "names no tz"),
        ({"tz": "UTC", "day": "mon"}, "has 'day'"),
        ({"tz": "Mars/Olympus"}, "no time zone"),
        ({"tz": "../../etc/passwd"}, "no time zone"),
        ({"tz": 7}, "no time zone"),
        ({"tz": "UTC", "days": "mon-xyz"}, "days"),
        ({"tz": "UTC", "days": []}, "days"),
        ({"tz": "UTC", "days": "mon-tue-wed"}, "days"),
        ({"tz": "UTC", "hours": "17:00-09:00"}, "hours"),
        ({"tz": "UTC", "hours": "09:00-24:01"}, "hours"),
        ({"tz": "UTC", "hours": "09:60-17:00"}, "hours"),
        ({"tz": "UTC", "hours": ["09:00-12:00", "11:00-13:00"]}, "hours"),
        ({"tz": "UTC", "hours": []}, "hours"),
        ({"tz": "UTC", "holidays": "2026-12-25"}, "holidays"),
        ({"tz": "UTC", "holidays": ["Christmas"]}, "holidays"),
    ],
)
def test_hours_that_cannot_be_are_refused(value, words):
    """With what is wrong and how they are written."""
    with pytest.raises(BadInput, match=words):
        BusinessHours.read(value, "business_hours")
