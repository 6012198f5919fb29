"""Points in time: what a number counts, what a date says in every year, and what is neither."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qtools.times import event_time, number_to_ns, parse_iso, parse_time

S = 1_000_000_000
DAY = 86400 * S
MORNING = 1_795_420_800 * S  # 2026-11-23 08:00:00 UTC

NUMBERS = [
    ("0", 0),
    ("1", S),
    ("1795420800", MORNING),
    ("1795420800.5", MORNING + S // 2),
    ("1795420800.123456789", MORNING + 123456789),
    ("1795420800.1234567899", MORNING + 123456789),
    ("1795420800123", MORNING + 123_000_000),
    ("1795420800123.25", MORNING + 123_250_000),
    ("1795420800123456", MORNING + 123_456_000),
    ("1795420800123456.789", MORNING + 123_456_789),
    ("1795420800123456789", MORNING + 123_456_789),
    ("99999999999", 99_999_999_999 * S),
    ("100000000000", 100_000_000 * S),
    ("99999999999999", 99_999_999_999_999 * 1_000_000),
    ("100000000000000", 100_000_000 * S),
    ("99999999999999999", 99_999_999_999_999_999 * 1000),
    ("100000000000000000", 100_000_000 * S),
    ("99999999999999999999", 99_999_999_999_999_999_999),
]

DATES = [
    ("2026-11-23", MORNING - 8 * 3600 * S),
    ("20261123", MORNING - 8 * 3600 * S),
    ("2026-W48-1", MORNING - 8 * 3600 * S),
    ("2026-11-23T08", MORNING),
    ("2026-11-23T08:00", MORNING),
    ("2026-11-23 08:00:00", MORNING),
    ("20261123T080000Z", MORNING),
    ("20261123t080000.5z", MORNING + S // 2),
    ("2026-11-23t08:00:00z", MORNING),
    (" 2026-11-23T08:00:00Z\n", MORNING),
    ("2026-11-23T08:00:00,5Z", MORNING + S // 2),
    ("2026-11-23T08:00:00.1Z", MORNING + 100_000_000),
    ("2026-11-23T08:00:00.123456789Z", MORNING + 123456789),
    ("2026-11-23T08:00:00.123456789012+00:00", MORNING + 123456789),
    ("2026-11-23T08:00:00.0000000019Z", MORNING + 1),
    ("2026-11-23T13:30:00+05:30", MORNING),
    ("2026-11-23T13:30+0530", MORNING),
    ("2026-11-23T13:30:00.000000001+05:30", MORNING + 1),
    ("2026-11-22T20:00:00-12:00", MORNING),
    ("2026-11-23T22:00:00+14", MORNING),
    ("1969-12-31T23:59:59", -S),
    ("1969-12-31T23:59:59.999999999", -1),
    ("0001-01-01", -719162 * DAY),
    ("0001-01-01T00:00:00+14:00", -719162 * DAY - 14 * 3600 * S),
    ("5138-11-16T09:46:40Z", 100_000_000_000 * S),
    ("9999-12-31T23:59:59Z", 253402300799 * S),
    ("9999-12-31T23:59:59.999999999-12:00", 253402300800 * S + 12 * 3600 * S - 1),
    # Leap seconds, which POSIX's time does not count.
    ("2016-12-31T23:59:60Z", 1483228800 * S - 1),
    ("2016-12-31T23:59:60.5Z", 1483228800 * S - 1),
    ("20161231T235960Z", 1483228800 * S - 1),
    ("2017-01-01T05:29:60+05:30", 1483228800 * S - 1),
    ("2026-11-23T08:60:00Z", None),
    ("2026-11-23T08:00:60Z", None),
    ("2016-12-31T23:59:61Z", None),
    ("2016-12-31T23:59:60+01:00", None),
]

NEITHER = [
    "", " ", "now", "yesterday", "-5", "+5", "1e9", "0x10", "5.", ".5", "1,5", "٢٠٢٦", "１７０", "1_000",
    "9" * 21, "9" * 5000, "2026-13-01", "2026-02-29", "2026-11-23T25:00", "08:00", "0000-01-01", "10000-01-01",
    "nan", "inf", "20261323x", "2026-11-23T08:00:00+25:00", "2026-11-23T08:00:00 Europe/Berlin", "-0001-01-01", "\0",
]  # fmt: skip


@pytest.mark.parametrize(("text", "ns"), [*NUMBERS, *DATES])
def test_in_ns(text: str, ns: int | None) -> None:
    if ns is None:
        with pytest.raises(ValueError):  # noqa: PT011 the words are partly Python's
            parse_time(text)
    else:
        assert parse_time(text) == ns
    assert event_time(text) == ns


@pytest.mark.parametrize("text", NEITHER)
def test_what_is_neither_a_number_nor_a_date(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 the words are partly Python's
        parse_time(text)
    assert event_time(text) is None


@pytest.mark.parametrize(("text", "ns"), [(text, ns) for text, ns in NUMBERS if "." not in text])
def test_a_number_means_the_same_as_its_digits(text: str, ns: int) -> None:
    assert number_to_ns(int(text)) == ns
    assert event_time(int(text)) == ns


@pytest.mark.parametrize(
    ("number", "ns"),
    [
        (1795420800.5, MORNING + S // 2),
        (1795420799.9999998, MORNING - 239),  # not rounded into the next hour
        (1795420800123.25, MORNING + 123_250_000),
        (1e11, 100_000_000 * S),
        (1.7954208e18, MORNING),
        (0.0, 0),
        (-0.0, 0),
        (5e-324, 0),
    ],
)
def test_numbers_with_a_fraction(number: float, ns: int) -> None:
    assert number_to_ns(number) == event_time(number) == ns


@pytest.mark.parametrize(
    "value", [None, True, False, -1, -0.5, math.nan, math.inf, -math.inf, 1e20, 10**20, 10**400, [], {}, b"5"]
)
def test_what_is_no_time(value: object) -> None:
    assert event_time(value) is None


def test_eight_digits_are_a_date_where_they_can_be_one() -> None:
    assert parse_time("20261123") == parse_time("2026-11-23")
    assert parse_time("20261323") == 20261323 * S
    assert event_time(20261123) == 20261123 * S  # a number is a number
    assert parse_time("20261123", needs_zone=True) == 20261123 * S


def test_a_zone_may_be_needed() -> None:
    assert parse_iso("2026-11-23T08:00Z", needs_zone=True) == MORNING
    for text in ("2026-11-23", "2026-11-23T08:00"):
        with pytest.raises(ValueError, match="has no time zone"):
            parse_time(text, needs_zone=True)


@given(st.datetimes(timezones=st.timezones() | st.just(UTC)), st.integers(0, 999))
def test_what_python_writes_is_read_back(when: datetime, ns: int) -> None:
    if (when.utcoffset() or timedelta()) % timedelta(seconds=1):
        return
    text = when.isoformat(timespec="microseconds")
    exact = (when - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000
    assert parse_time(text) == exact
    assert parse_time(f"{text[:26]}{ns:03}{text[26:]}") == exact + ns


@given(st.text() | st.text("0123456789-:.,TZ+W "))
def test_any_text_is_a_time_or_is_not(text: str) -> None:
    assert event_time(text) is None or isinstance(event_time(text), int)
