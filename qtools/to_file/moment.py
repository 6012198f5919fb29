"""A point in time as people write it, as a click type. In: text. Out: ns since 1970."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import click

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBER = re.compile(r"[0-9]{1,19}")
# From so many digits on a number counts ms, µs, ns: in s it would be the year 5138 and later.
_UNITS = ((12, 1_000_000_000), (15, 1_000_000), (18, 1000), (20, 1))


def parse_moment(text: str) -> int:
    """`2026-11-23`, `2026-11-23T08:00:00.5+01:00` (UTC where no zone is named), or a number of s, ms, µs or ns since
    1970, told apart by their size → ns since 1970; ValueError otherwise."""
    text = text.strip()
    if _NUMBER.fullmatch(text):
        return int(text) * next(unit for digits, unit in _UNITS if len(text) < digits)
    try:
        when = datetime.fromisoformat(text)
        if when.tzinfo is None:
            when = when.replace(tzinfo=UTC)
        return (when - _EPOCH) // timedelta(microseconds=1) * 1000
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is not a time such as 2026-11-23T08:00, 2026-11-23 or 1763884800") from None


class Moment(click.ParamType[int]):
    """ns since 1970."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return parse_moment(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
