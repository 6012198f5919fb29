"""q-admin topics and show: asks an engine, and prints. In: an engine. Out: text or JSON on stdout."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

import click

from qtools.admin.rows import Row, chosen, left_in, sorted_rows, with_sums
from qtools.admin.tables import Cell, shown, table
from qtools.cli import logs
from qtools.engines.contract import Engine, Statistics
from qtools.errors import NetworkError, StartError, TopicMissing
from qtools.names import Subscription


async def statistics_of(engine: Engine) -> tuple[list[Row], bool]:
    """All topics of `engine`, and whether all its brokers have answered; those that have not are logged. StartError,
    PeerError."""
    statistics = engine.statistics()
    try:
        rows = await first_look(statistics)
    finally:
        await statistics.close()
    return rows, log_unanswered(statistics)


async def first_look(statistics: Statistics) -> list[Row]:
    """All topics. StartError also when no broker could be reached."""
    try:
        return await statistics.topics()
    except NetworkError as error:
        raise StartError(str(error)) from error


def unanswered(statistics: Statistics) -> Sequence[BaseException]:
    """Why some brokers are not in the last statistics, with engines that ask each of several."""
    failures: Sequence[BaseException] = getattr(statistics, "failures", ())
    return failures


def log_unanswered(statistics: Statistics) -> bool:
    """Log which brokers are not in the last statistics; return whether there are none."""
    for error in unanswered(statistics):
        logs.log(logging.WARNING, f"{error}; what it has is not counted")
    return not unanswered(statistics)


async def print_topics(
    engine: Engine, patterns: Sequence[str], *, channels: bool, sort: str, as_json: bool, width: int
) -> int:
    """Print the topics that match `patterns`; return the exit status. width: of the terminal, 0 for no limit."""
    found, is_complete = await statistics_of(engine)
    rows = sorted_rows(with_sums(chosen(found, patterns)), sort)
    status = 0 if is_complete else 1
    if as_json:
        _print_json(rows)
        return status
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
    return status


def _channel_cells(channel: Row) -> list[Cell]:
    return [
        f"  /{channel['channel']}", None, left_in(channel), channel["in_flight"], channel["deferred"],
        channel["clients"], channel["messages"], "paused" if channel["paused"] else "",
    ]  # fmt: skip


async def print_one(engine: Engine, name: Subscription, *, as_json: bool) -> int:
    """Print one topic, or one channel; TopicMissing if it does not exist."""
    found_topics, is_complete = await statistics_of(engine)
    rows = [row for row in found_topics if row["topic"] == name.topic]
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
        return 0 if is_complete else 1
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
    return 0 if is_complete else 1


def _label(field: str) -> str:
    return f"{field.replace('_', ' ') + ':':<12} "


def _text(value: Any) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else shown(value)


def _print_json(rows: Sequence[Row]) -> None:
    _print_lines([json.dumps(row) for row in rows])


def _print_lines(lines: Sequence[str]) -> None:
    click.echo("".join(line + "\n" for line in lines), nl=False)
