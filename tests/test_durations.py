"""What people may write for a duration or a moment, and how it reads back."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from axme_celery.durations import LATEST, LONGEST_SECONDS, moment, seconds, utc_iso, words
from axme_celery.errors import BadInput

# How long an example takes depends on who else uses the machine, and says nothing here.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (0, 0.0),
        (90, 90.0),
        (1.5, 1.5),
        (timedelta(days=1, hours=12), 129600.0),
        ("250ms", 0.25),
        ("90s", 90.0),
        ("15m", 900.0),
        ("4h", 14400.0),
        ("2d", 172800.0),
        ("1w", 604800.0),
        ("1d12h", 129600.0),
        (" 1d 12h ", 129600.0),
        ("1.5h", 5400.0),
        ("1w2d3h4m5s6ms", 788645.006),
        ("0s", 0.0),
        (LONGEST_SECONDS, LONGEST_SECONDS),
    ],
)
def test_a_duration_means_the_same_in_every_way_of_writing_it(written, meant):
    """Numbers, timedeltas and text all become seconds."""
    assert seconds(written, "timeout") == pytest.approx(meant)


@pytest.mark.parametrize(
    "nonsense",
    [
        -1,
        -0.001,
        timedelta(seconds=-1),
        "-5s",
        float("nan"),
        float("inf"),
        float("-inf"),
        True,
        False,
        None,
        "",
        "  ",
        "soon",
        "5",
        "5 5s",
        "1y",
        "15M",
        "1d1d",
        "1h1d",
        "s",
        "ms",
        "1e3s",
        "1,5h",
        "٣s",
        ".5s",
        "5.s",
        [],
        {},
        b"5s",
        Decimal("1"),
        10**400,
        -(10**400),
        pytest.param(10**5000, id="huge"),
        LONGEST_SECONDS + 1,
        "36526d",
        "9" * 60 + "d",
        "1s" * 1000,
        timedelta.max,
        date(2026, 1, 1),
    ],
)
def test_a_duration_that_makes_no_sense_is_refused_by_name_with_examples(nonsense):
    """The refusal names the argument and shows how to write one, however long the nonsense is."""
    with pytest.raises(BadInput) as refused:
        seconds(nonsense, "remind_every")

    assert str(refused.value).startswith("remind_every is ")
    assert '"' in str(refused.value) and "s" in str(refused.value)
    assert len(str(refused.value)) < 300


def test_a_number_written_as_text_is_refused_with_the_two_ways_out():
    """Text without a unit could be minutes: ask."""
    with pytest.raises(BadInput, match="timeout is '15', which is no duration; did you mean 15 or \"15s\"\\?"):
        seconds("15", "timeout")


@settings(UNHURRIED)
@given(st.floats(min_value=0, max_value=LONGEST_SECONDS))
def test_words_are_short_and_read_back_to_within_their_smaller_unit(value):
    """What is shown to a person may be typed back in."""
    shown = words(value)

    assert len(shown.split()) <= 2
    off = abs(seconds(shown, "shown") - value)
    assert off <= (1800 if "d" in shown else 30 if "h" in shown else 0.5 if value >= 0.9995 else 0.0005) * 1.0001


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0s"),
        (0.0001, "0s"),
        (0.25, "250ms"),
        (0.9996, "1s"),
        (1, "1s"),
        (59.4, "59s"),
        (59.7, "1m"),
        (200, "3m 20s"),
        (3599.9, "1h"),
        (3660, "1h 1m"),
        (86399, "1d"),
        (187200, "2d 4h"),
        (604800, "7d"),
        (-90, "-1m 30s"),
    ],
)
def test_words_round_instead_of_showing_sixty_of_a_unit(value, shown):
    """59.7 s is a minute, not 60 s."""
    assert words(value) == shown


def test_a_moment_in_any_zone_is_kept_in_utc():
    """One form inside: aware, UTC."""
    paris = datetime(2026, 10, 31, 18, tzinfo=ZoneInfo("Europe/Paris"))
    expected = datetime(2026, 10, 31, 17, tzinfo=UTC)

    for written in (paris, "2026-10-31T18:00:00+01:00", "2026-10-31T17:00:00Z", "2026-10-31T17:00+00:00", expected):
        found = moment(written, "until")
        assert found == expected
        assert found.tzinfo is UTC


@pytest.mark.parametrize(
    ("written", "words_of_refusal"),
    [
        (datetime(2026, 10, 31), "until is 2026-10-31T00:00:00, a time without a zone"),
        ("2026-10-31", "a time without a zone"),
        ("2026-10-31T18:00:00", "end the text in Z"),
        ("tomorrow", "no ISO 8601 time"),
        ("", "no ISO 8601 time"),
        (date(2026, 10, 31), "no moment"),
        (1793462400, "no moment"),
        (None, "no moment"),
        (datetime.min.replace(tzinfo=timezone(timedelta(hours=5))), "years 1 to 9799"),
        (datetime.max.replace(tzinfo=timezone(timedelta(hours=-5))), "years 1 to 9799"),
        (datetime.max.replace(tzinfo=UTC), "years 1 to 9799"),
    ],
)
def test_a_moment_without_a_zone_or_sense_is_refused_by_name(written, words_of_refusal):
    """A naive time is another moment on every machine."""
    with pytest.raises(BadInput, match=words_of_refusal) as refused:
        moment(written, "until")
    assert str(refused.value).startswith("until is ")


def test_the_longest_duration_after_the_latest_moment_is_still_a_moment():
    """What is reckoned from a moment must not fail later, in a sweep, where nobody is told."""
    latest = moment(LATEST - timedelta(microseconds=1), "eta")

    assert latest + timedelta(seconds=LONGEST_SECONDS) > latest


@settings(UNHURRIED)
@given(st.datetimes(timezones=st.timezones()), st.datetimes(timezones=st.just(UTC)))
def test_utc_text_sorts_as_it_happened_and_reads_back(one, other):
    """Fixed width, microseconds, Z."""
    try:
        first = moment(one, "at")
    except BadInput:  # a moment before year 1 in UTC has no text, and one after 9799 is not taken
        return
    assert moment(utc_iso(one), "at") == first
    assert len(utc_iso(one)) == 27 and utc_iso(one).endswith("Z")
    assert (utc_iso(first) < utc_iso(other)) == (first < other)


def test_utc_text_of_a_time_without_a_zone_is_refused():
    """It would be wrong on every machine but one."""
    with pytest.raises(BadInput, match="without a zone"):
        utc_iso(datetime(2026, 1, 1))
