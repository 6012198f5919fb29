"""Points in time as people and programs write them. In: text, numbers. Out: ns since 1970, as an exact integer.

    2026-11-23   20261123   2026-11-23T08:00:00.123456789+05:30      ISO 8601; UTC where it names no zone
    1795420800   1795420800.5   1795420800123   …456   …789          a number of s, ms, µs or ns since 1970

The size of a number decides its unit: s below 10¹¹, ms below 10¹⁴, µs below 10¹⁷, ns above that. So each unit covers
the years 1973 (s: 1970) to 5138. A date in ISO 8601 may have any year from 1 to 9999.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = 1_000_000_000  # ns
_UNITS = (
    (10**11, _SECOND),
    (10**14, 1_000_000),
    (10**17, 1000),
    (10**20, 1),
)  # (upper bound of the numbers in a unit, ns in that unit)

_NUMBER = re.compile(r"([0-9]{1,20})(?:\.([0-9]+))?", re.ASCII)
_BASIC_DATE = re.compile(r"[0-9]{8}", re.ASCII)
# The seconds of a time of day, and their fraction: 08:00:60,5 or T080060.5
_SECONDS = re.compile(
    r"((?<=[T ][0-9]{2}:[0-9]{2}:)|(?<=[T ][0-9]{4}))(?P<seconds>[0-9]{2})([.,](?P<fraction>[0-9]+))?"
)


def number_to_ns(number: float) -> int | None:
    """A number of s, ms, µs or ns since 1970 → ns since 1970; None if it is negative, NaN, or 10²⁰ or more."""
    if not 0 <= number < 10**20:  # NaN is in no range
        return None
    whole = int(number)
    unit = next(unit for limit, unit in _UNITS if whole < limit)
    # The fraction is multiplied separately: a product of the whole number would be rounded, into the next hour too.
    return whole * unit + int((number - whole) * unit)


def parse_iso(text: str, *, needs_zone: bool = False) -> int:
    """A date, or a date with a time of day, in ISO 8601 → ns since 1970, negative before it; ValueError for other text.

    Digits beyond ns are cut off. A leap second (23:59:60 UTC) counts as the last ns of its minute, so that it stays in
    its hour and day. needs_zone: a time without a zone is a ValueError, instead of UTC.
    """
    if not text.isascii():
        raise ValueError(f"{text!r} is not a time in ISO 8601")
    text = text.strip().upper()
    leap, fraction = False, 0
    point = text.find(".") + 1 or text.find(",") + 1
    if ((point and text[point + 6 : point + 7].isdigit()) or "60" in text) and (found := _SECONDS.search(text)):
        # datetime.fromisoformat accepts neither digits beyond µs nor a 60th second.
        leap = found["seconds"] == "60"
        fraction = _SECOND - 1 if leap else int((found["fraction"] or "")[:9].ljust(9, "0"))
        text = f"{text[: found.start()]}{'59' if leap else found['seconds']}{text[found.end() :]}"
    when = datetime.fromisoformat(text)
    if when.tzinfo is None:
        if needs_zone:
            raise ValueError(f"{text} has no time zone, such as Z or +01:00")
        when = when.replace(tzinfo=UTC)
    since = when - _EPOCH
    if leap and (since + timedelta(seconds=1)) % timedelta(days=1):
        raise ValueError(f"{text} has a 60th second, which exists at 23:59 UTC only")
    return (since.days * 86400 + since.seconds) * _SECOND + since.microseconds * 1000 + fraction


def parse_time(text: str, *, needs_zone: bool = False) -> int:
    """A number, as in `number_to_ns`, or a date, as in `parse_iso` → ns since 1970; ValueError for any other text.

    Eight digits that form a date, as 20261123, are read as that date; as s since 1970 they would be a moment in 1970.
    """
    text = text.strip()
    if text[4:5] == "-":
        return parse_iso(text, needs_zone=needs_zone)
    if _BASIC_DATE.fullmatch(text) and not needs_zone:
        try:
            return parse_iso(text)
        except ValueError:
            pass
    if found := _NUMBER.fullmatch(text):
        whole = int(found[1])
        for limit, unit in _UNITS:
            if whole < limit:
                digits = (found[2] or "")[:9].ljust(9, "0")
                return whole * unit + int(digits) * unit // _SECOND
    return parse_iso(text, needs_zone=needs_zone)


def event_time(value: object) -> int | None:
    """The time of an event, ns since 1970, from a value in its JSON: a number or text as in `parse_time`. None for any
    other value, and for negative numbers, which usually stand for an unknown time."""
    if isinstance(value, str):
        try:
            return parse_time(value)
        except (ValueError, OverflowError):
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return number_to_ns(value)
