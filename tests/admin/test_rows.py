"""Rows, tables, rates and sparklines."""

from __future__ import annotations

import pytest

from qtools.admin.rates import HISTORY, Rates, shown_rate, sparkline
from qtools.admin.rows import Row, chosen, left_in, sorted_rows, with_sums
from qtools.admin.tables import table


def channel(name: str, depth: int | None = 0, in_flight: int | None = 0, messages: int | None = 0) -> Row:
    return {
        "channel": name, "depth": depth, "in_flight": in_flight, "deferred": 0, "clients": 1, "messages": messages,
        "paused": False,
    }  # fmt: skip


def topic(name: str, *channels: Row, depth: int = 0, messages: int | None = 0) -> Row:
    return {"topic": name, "depth": depth, "messages": messages, "paused": False, "channels": list(channels)}


def test_what_is_left() -> None:
    rows = with_sums(
        [
            topic("a", depth=7),
            topic("b", channel("x", 3, 2), channel("y", 9), depth=1),
            topic("c", channel("x", None, None)),
            topic("d", channel("x", 4, None)),
        ]
    )
    assert [row["waiting"] for row in rows] == [7, 9, None, 4]
    assert [row["in_flight"] for row in rows] == [0, 2, None, None]
    assert left_in(channel("x", None)) is None


def test_choosing_and_sorting() -> None:
    rows = with_sums([topic("b.x", depth=1), topic("a", depth=5), topic("b.y"), topic("c", channel("n", None))])
    assert [row["topic"] for row in chosen(rows, ["b.*", "a"])] == ["b.x", "a", "b.y"]
    assert chosen(rows, []) == rows
    assert chosen(rows, ["[ab]"]) == [rows[1]]
    assert [row["topic"] for row in sorted_rows(rows, "name")] == ["a", "b.x", "b.y", "c"]
    assert [row["topic"] for row in sorted_rows(rows, "depth")] == ["a", "b.x", "b.y", "c"]
    channels = [channel("x", 1, 5), channel("y", 3, 0), channel("z", None)]
    assert [row["channel"] for row in sorted_rows(channels, "in-flight")] == ["x", "y", "z"]


def test_tables() -> None:
    lines = table(["TOPIC", "LEFT", ""], [["orders", 12345, "paused"], ["a", None, ""], ["evil\x1b[2J\n", 0, ""]])
    assert lines == [
        "TOPIC        LEFT",
        "orders     12,345  paused",
        "a               -",
        "evil?[2J?       0",
    ]
    narrow = table(["TOPIC", "LEFT"], [["a" * 50, 1], ["b", 123]], 24)
    assert max(map(len, narrow)) == 24
    assert narrow[1] == "a" * 17 + "…" + " " * 5 + "1"


def test_rates() -> None:
    rates = Rates()
    first = with_sums([topic("a", channel("x", 5, messages=10), messages=10)])
    rates.add(first, 100.0)
    assert first[0]["rate"] is None
    second = with_sums([topic("a", channel("x", 7, messages=30), messages=30), topic("new", messages=5)])
    rates.add(second, 102.0)
    assert second[0]["rate"] == second[0]["channels"][0]["rate"] == 10.0
    assert list(second[0]["channels"][0]["history"]) == [5, 7]
    assert second[1]["rate"] is None
    third = with_sums([topic("a", messages=3), topic("new", messages=None)])
    rates.add(third, 103.0)
    assert third[0]["rate"] == 0.0  # the broker was restarted
    assert third[1]["rate"] is None
    for at in range(2 * HISTORY):
        rates.add(third, 104.0 + at)
    assert len(third[0]["history"]) == HISTORY


@pytest.mark.parametrize(
    ("history", "bars"),
    [([], ""), ([0, 0], ""), ([0, 1], "▁▅"), ([0, 50, 100], "▁▄█"), (list(range(8)), "▁▂▃▄▅▆▇█")],
)
def test_sparklines(history: list[int], bars: str) -> None:
    assert sparkline(history) == bars
    assert sparkline(history, plain=True).isascii()


@pytest.mark.parametrize(
    ("rate", "text"), [(None, "-"), (0.0, "0/s"), (0.25, "0.2/s"), (99.94, "99.9/s"), (12345.6, "12,346/s")]
)
def test_shown_rates(rate: float | None, text: str) -> None:
    assert shown_rate(rate) == text
