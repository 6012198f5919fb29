"""Logical types of Avro, and bytes, as plain JSON, and back. Functions of one value.

    bytes, fixed         base64
    decimal              a string with all its digits: "12.50"
    date                 "2026-11-29"
    time-…               "13:07:00.123", with as many digits as the type has
    timestamp-…          "2026-11-29T13:07:00.123Z"; a time outside the years 1 to 9999 stays the number that is stored
    local-timestamp-…    the same without Z
    duration             {"months":1,"days":2,"milliseconds":3}
    uuid                 a string

`to_plain` makes the functions for reading. `from_plain` makes those for writing, which return a value that they do not
know as it is: the type of the schema refuses it then.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any
from uuid import UUID

from qtools.times import parse_iso

Convert = Callable[[Any], Any]

EPOCH = datetime(1970, 1, 1)
_EPOCH_DAY = EPOCH.toordinal()
_DAY = 86_400
# The unit of a logical type: how many there are in a second, and the digits that this makes.
_UNITS = {"millis": (1000, 3), "micros": (1_000_000, 6), "nanos": (1_000_000_000, 9)}
# No number in practice has more digits. The text of an integer takes a time that grows with the square of its size.
MOST_DIGITS = 2000
_NUMBER = re.compile(r"-?[0-9]{1,2000}(?:\.[0-9]{1,2000})?(?:[eE][+-]?[0-9]{1,4})?", re.ASCII)
_TIME_OF_DAY = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9]):([0-5][0-9])(?:\.([0-9]{1,9}))?", re.ASCII)


def to_plain(kind: str, schema: Mapping[str, Any]) -> Convert | None:
    """The function that makes plain JSON of a value as Avro stores it; None where the value is plain JSON already.

    kind: the type of Avro that stores the value. schema: with "logicalType", "scale" and "precision" if they are valid.
    """
    logical = schema.get("logicalType")
    if logical == "decimal":
        scale = int(schema.get("scale", 0))
        return lambda data: decimal_text(data, scale)
    if logical == "date":
        return date_text
    if logical == "duration":
        return duration_object
    if logical == "uuid":
        return None if kind == "string" else lambda data: str(UUID(bytes=data))
    if isinstance(logical, str) and (unit := _UNITS.get(logical.rpartition("-")[2])):
        per_second, digits = unit
        if logical.startswith("time-"):
            return lambda number: time_text(number, per_second, digits)
        return _timestamp_converter(per_second, f"%s.%0{digits}d{'' if logical.startswith('local-') else 'Z'}")
    return base64_text if kind in ("bytes", "fixed") else None


def from_plain(kind: str, schema: Mapping[str, Any]) -> Convert | None:
    """The reverse of `to_plain`. The function also takes numbers as Avro stores them."""
    logical = schema.get("logicalType")
    size = schema.get("size") if kind == "fixed" else None
    if logical == "decimal":
        scale = int(schema.get("scale", 0))
        return lambda value: decimal_bytes(value, scale, size)
    if logical == "date":
        return _date_number
    if logical == "duration":
        return _duration_bytes
    if logical == "uuid":
        return None if kind == "string" else _uuid_bytes
    if isinstance(logical, str) and (unit := _UNITS.get(logical.rpartition("-")[2])):
        per_second, _ = unit
        if logical.startswith("time-"):
            return lambda value: _time_number(value, per_second)
        return lambda value: _timestamp_number(value, per_second)
    return _base64_bytes if kind in ("bytes", "fixed") else None


# ── to plain JSON ──


def base64_text(data: bytes) -> str:
    return b64encode(data).decode("ascii")


def decimal_text(data: bytes, scale: int) -> str:
    """A decimal: `data` is an integer, big-endian, two's complement, of units of 10^-scale. ValueError if it is too
    long."""
    if len(data) * 2 > MOST_DIGITS:
        raise ValueError(f"a decimal of {len(data)} bytes")
    number = int.from_bytes(data, "big", signed=True)
    digits = str(abs(number)).rjust(scale + 1, "0")
    sign = "-" if number < 0 else ""
    return f"{sign}{digits[:-scale]}.{digits[-scale:]}" if scale else sign + digits


def date_text(days: int) -> Any:
    try:
        return date.fromordinal(_EPOCH_DAY + days).isoformat()
    except (ValueError, OverflowError):
        return days


def time_text(number: int, per_second: int, digits: int) -> Any:
    seconds, fraction = divmod(number, per_second)
    if not 0 <= seconds < _DAY:
        return number
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{fraction:0{digits}d}"


def _timestamp_converter(per_second: int, form: str) -> Convert:
    """form: for the text of the seconds, and the fraction."""

    def convert(number: int) -> Any:
        seconds, fraction = divmod(number, per_second)
        text = _second_text(seconds)
        return form % (text, fraction) if text else number

    return convert


@lru_cache(maxsize=4096)  # the messages of a batch were made within seconds
def _second_text(seconds: int) -> str:
    """A second since 1970; "" outside the years 1 to 9999."""
    try:
        return (EPOCH + timedelta(0, seconds)).isoformat()
    except OverflowError:
        return ""


def duration_object(data: bytes) -> dict[str, int]:
    months, days, milliseconds = (int.from_bytes(data[at : at + 4], "little") for at in (0, 4, 8))
    return {"months": months, "days": days, "milliseconds": milliseconds}


# ── from plain JSON ──


def _base64_bytes(value: Any) -> Any:
    try:
        return b64decode(value, validate=True) if isinstance(value, str) else value
    except ValueError:
        return value


def decimal_bytes(value: Any, scale: int, size: int | None) -> Any:
    """A decimal as bytes, `size` of them or as few as possible; `value` itself if it is no number of that scale."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return value
    text = value if isinstance(value, str) else repr(value)
    if not _NUMBER.fullmatch(text):
        return value
    try:
        sign, digits, exponent = Decimal(text).as_tuple()
    except InvalidOperation:
        return value
    zeros = int(exponent) + scale
    if zeros > MOST_DIGITS:
        return value
    shown = "".join(map(str, digits))
    if zeros < 0:
        if shown[zeros:].strip("0"):
            return value  # it has more decimals than the schema
        shown = shown[:zeros] or "0"
    number = int(shown + "0" * max(0, zeros)) * (-1 if sign else 1)
    length = (number + (number < 0)).bit_length() // 8 + 1
    if size is not None and length > size:
        return value
    return number.to_bytes(size or length, "big", signed=True)


def _date_number(value: Any) -> Any:
    try:
        return date.fromisoformat(value).toordinal() - _EPOCH_DAY if isinstance(value, str) else value
    except ValueError:
        return value


def _time_number(value: Any, per_second: int) -> Any:
    found = _TIME_OF_DAY.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return value
    hours, minutes, seconds, fraction = found.groups("")
    whole = (int(hours) * 60 + int(minutes)) * 60 + int(seconds)
    return whole * per_second + int(fraction.ljust(9, "0")) * per_second // 1_000_000_000


def _timestamp_number(value: Any, per_second: int) -> Any:
    try:
        return parse_iso(value) * per_second // 1_000_000_000 if isinstance(value, str) else value
    except ValueError:
        return value


def _duration_bytes(value: Any) -> Any:
    names = ("months", "days", "milliseconds")
    if not isinstance(value, dict) or value.keys() != set(names):
        return value
    numbers = [value[name] for name in names]
    if not all(number.__class__ is int and 0 <= number < 1 << 32 for number in numbers):
        return value
    return b"".join(number.to_bytes(4, "little") for number in numbers)


def _uuid_bytes(value: Any) -> Any:
    try:
        return UUID(value).bytes if isinstance(value, str) else value
    except ValueError:
        return value


def iso_of_seconds(seconds: int, nanoseconds: int) -> str:
    """A point in time with as many digits as it needs: none, 3, 6 or 9. ValueError outside the years 1 to 9999."""
    try:
        when = datetime.fromtimestamp(0, UTC) + timedelta(0, seconds)
    except OverflowError as error:
        raise ValueError("a time outside the years 1 to 9999") from error
    text = when.replace(tzinfo=None).isoformat()
    for digits in (0, 3, 6, 9):
        if not nanoseconds % 10 ** (9 - digits):
            return f"{text}.{nanoseconds // 10 ** (9 - digits):0{digits}d}Z" if digits else f"{text}Z"
    raise AssertionError
