"""A click type for points in time. In: text. Out: ns since 1970."""

from __future__ import annotations

from typing import Any

import click

from qtools.times import parse_time


def parse_moment(text: str) -> int:
    """Parse `2026-11-23` or `2026-11-23T08:00:00.5+01:00` (UTC without a zone), or a number since 1970 whose size tells
    whether it counts s, ms, µs or ns. Returns ns since 1970. ValueError for anything else."""
    try:
        return parse_time(text)
    except (ValueError, OverflowError):
        raise ValueError(f"{text.strip()!r} is not a time such as 2026-11-23T08:00, 2026-11-23 or 1763884800") from None


class TimeType(click.ParamType[int]):
    """A point in time, as ns since 1970."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return parse_moment(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
