"""Statistics as rows. In: what Statistics.topics returns. Out: the rows of the topics that were asked for, sorted.

A count that the engine cannot tell is None, and sorts below 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

Row = dict[str, Any]

SORTED_BY = {"depth": "depth", "in-flight": "in_flight", "messages": "messages", "rate": "rate"}


def chosen(rows: Sequence[Row], patterns: Sequence[str]) -> list[Row]:
    """The rows of the topics that match one of `patterns` (with * ? [ ]); all without a pattern."""
    return [row for row in rows if not patterns or any(fnmatchcase(row["topic"], each) for each in patterns)]


def with_sums(rows: Sequence[Row]) -> list[Row]:
    """Rows with `waiting`, `in_flight`, `deferred` and `clients` of all channels of a topic.

    waiting: the most that is left in one of its channels, or what the topic has kept for its first one.
    """
    made = []
    for row in rows:
        channels = row["channels"]
        left = [left_in(channel) for channel in channels]
        known = [count for count in left if count is not None]
        waiting = max(known) if known else None if channels else row["depth"]
        sums = {name: _sum(channels, name) for name in ("in_flight", "deferred", "clients")}
        made.append({**row, "waiting": waiting, **sums})
    return made


def left_in(channel: Row) -> int | None:
    """Messages of a channel that are not finished, None if that is not known."""
    if channel["depth"] is None:
        return None
    return int(channel["depth"]) + int(channel["in_flight"] or 0) + int(channel["deferred"] or 0)


def sorted_rows(rows: Sequence[Row], by: str) -> list[Row]:
    """By name, or by a count, the largest first."""
    named = sorted(rows, key=lambda row: str(row.get("topic") or row.get("channel")))
    if by == "name":
        return named
    field = "waiting" if by == "depth" and all("waiting" in row for row in rows) else SORTED_BY[by]
    return sorted(named, key=lambda row: -1.0 if row.get(field) is None else float(row[field]), reverse=True)


def _sum(channels: Sequence[Row], name: str) -> int | None:
    known = [channel[name] for channel in channels if channel[name] is not None]
    return sum(known) if known or not channels else None
