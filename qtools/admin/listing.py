"""q-admin topics and show: asks an engine, and prints. In: an engine. Out: text or JSON on stdout."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

from qtools.admin.rows import Row, chosen, left_in, sorted_rows, with_sums
from qtools.admin.tables import Cell, shown, table
from qtools.engines.contract import Engine
from qtools.errors import TopicMissing
from qtools.names import Subscription


async def statistics_of(engine: Engine) -> list[Row]:
    """All topics of `engine`; StartError, NetworkError, PeerError."""
    statistics = engine.statistics()
    try:
        return await statistics.topics()
    finally:
        await statistics.close()


async def print_topics(
    engine: Engine, patterns: Sequence[str], *, channels: bool, sort: str, as_json: bool, width: int
) -> int:
    """Print the topics that match `patterns`; return the exit status. width: of the terminal, 0 for no limit."""
    rows = sorted_rows(with_sums(chosen(await statistics_of(engine), patterns)), sort)
    if as_json:
        _print_json(rows)
        return 0
    head = ["TOPIC", "CHANNELS", "LEFT", "IN FLIGHT", "DEFERRED", "CLIENTS", "MESSAGES", ""]
    cells: list[list[Cell]] = []
    for row in rows:
        cells.append(
            [
                row["topic"], len(row["channels"]), row["waiting"], row["in_flight"], row["deferred"], row["clients"],
                row["messages"], "paused" if row["paused"] else "",
            ]
        )  # fmt: skip
        if channels:
            cells += map(_channel_cells, sorted_rows(row["channels"], sort))
    _print_lines(table(head, cells, width) if cells else [])
    return 0


def _channel_cells(channel: Row) -> list[Cell]:
    return [
        f"  /{channel['channel']}", None, left_in(channel), channel["in_flight"], channel["deferred"],
        channel["clients"], channel["messages"], "paused" if channel["paused"] else "",
    ]  # fmt: skip


async def print_one(engine: Engine, name: Subscription, *, as_json: bool) -> int:
    """Print one topic, or one channel; TopicMissing if it does not exist."""
    rows = [row for row in await statistics_of(engine) if row["topic"] == name.topic]
    if not rows:
        raise TopicMissing(f"there is no topic {name.topic} on {engine}")
    [row] = rows
    if name.channel:
        found = [channel for channel in row["channels"] if channel["channel"] == name.channel]
        if not found:
            others = ", ".join(channel["channel"] for channel in row["channels"]) or "none"
            raise TopicMissing(f"{name.topic} has no channel {name.channel}; it has {others}")
        row = {"topic": name.topic, **found[0]}
    if as_json:
        _print_json([row])
        return 0
    lines = [f"{_label(field)}{_text(value)}" for field, value in row.items() if field != "channels"]
    if row.get("channels"):
        fields = [field for field in row["channels"][0] if field not in ("channel", "paused")]
        head = ["channel", *(field.replace("_", " ") for field in fields), ""]
        cells = [
            [f"/{each['channel']}", *(each[field] for field in fields), "paused" if each["paused"] else ""]
            for each in row["channels"]
        ]
        lines += ["", *table(head, cells)]
    _print_lines(lines)
    return 0


def _label(field: str) -> str:
    return f"{field.replace('_', ' ') + ':':<12} "


def _text(value: Any) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else shown(value)


def _print_json(rows: Sequence[Row]) -> None:
    _print_lines([json.dumps(row) for row in rows])


def _print_lines(lines: Sequence[str]) -> None:
    click.echo("".join(line + "\n" for line in lines), nl=False)
