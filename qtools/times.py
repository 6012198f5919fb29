"""Points in time as people and programs write them. In: text, numbers. Out: ns since 1970, as an exact integer.

    2026-11-23   20261123   2026-11-23T08:00:00.123456789+05:30      ISO 8601; UTC where it names no zone
    1795420800   1795420800.5   1795420800123   …456   …789          a number of s, ms, µs or ns since 1970

The size of a number says what it counts: below 10¹¹ it counts s, below 10¹⁴ ms, below 10¹⁷ µs, above that ns, so each
unit reaches from 1973 (s: from 1970) to the year 5138. A date in ISO 8601 has no such bounds: it means what it says
from the year 1 to the year 9999.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = 1_000_000_000  # ns
_UNITS = ((10**11, _SECOND), (10**14, 1_000_000), (10**17, 1000), (10**20, 1))  # below which number, how many ns

_NUMBER = re.compile(r"([0-9]{1,20})(?:\.([0-9]+))?", re.ASCII)
_BASIC_DATE = re.compile(r"[0-9]{8}", re.ASCII)
# The seconds of a time of day, and their fraction: 08:00:60,5 or T080060.5
_SECONDS = re.compile(
    r"((?<=[T ][0-9]{2}:[0-9]{2}:)|(?<=[T ][0-9]{4}))(?P<seconds>[0-9]{2})([.,](?P<fraction>[0-9]+))?"
)


def number_to_ns(number: float) -> int | None:
    """A number of s, ms, µs or ns since 1970 → ns since 1970; None where it is negative, too large or not a number."""
    if not 0 <= number < 10**20:  # NaN is in no range
        return None
    whole = int(number)
    unit = next(unit for limit, unit in _UNITS if whole < limit)
    # The fraction by itself: as one product the whole would be rounded, across the border of an hour too.
    return whole * unit + int((number - whole) * unit)


def parse_iso(text: str, *, needs_zone: bool = False) -> int:
    """A date or a date with a time of day, as ISO 8601 writes it → ns since 1970; ValueError otherwise.

    Digits beyond ns are cut off. A leap second (23:59:60 UTC) counts as the last ns of its minute, so that it stays in
    its hour and day. needs_zone: refuse a time without one, instead of taking it for UTC.
    """
    if not text.isascii():
        raise ValueError(f"{text!r} is not a time as ISO 8601 writes it")
    text = text.strip().upper()
    leap, fraction = False, 0
    point = text.find(".") + 1 or text.find(",") + 1
    if ((point and text[point + 6 : point + 7].isdigit()) or "60" in text) and (found := _SECONDS.search(text)):
        # What datetime does not know: digits beyond µs, and a 60th second.
        leap = found["seconds"] == "60"
        fraction = _SECOND - 1 if leap else int((found["fraction"] or "")[:9].ljust(9, "0"))
        text = f"{text[: found.start()]}{'59' if leap else found['seconds']}{text[found.end() :]}"
    when = datetime.fromisoformat(text)
    if when.tzinfo is None:
        if needs_zone:
            raise ValueError(f"{text} does not say in which time zone")
        when = when.replace(tzinfo=UTC)
    since = when - _EPOCH
    if leap and (since + timedelta(seconds=1)) % timedelta(days=1):
        raise ValueError(f"{text} has a 60th second, which there is at 23:59 UTC only")
    return (since.days * 86400 + since.seconds) * _SECOND + since.microseconds * 1000 + fraction


def parse_time(text: str, *, needs_zone: bool = False) -> int:
    """A number, as `number_to_ns` reads it, or a date, as `parse_iso` does → ns since 1970; ValueError otherwise.

    Eight digits that are a date, 20261123, are one: as s since 1970 they would be a moment of that year.
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
    """When an event happened, ns since 1970, from a value of its JSON: a number or text as above. None for anything
    else, negative numbers too: they mostly stand for a time that is not known."""
    if isinstance(value, str):
        try:
            return parse_time(value)
        except (ValueError, OverflowError):
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return number_to_ns(value)
