"""Numbers as text, and as JSON. In: series and ratios. Out: lines for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from measure.rounds import Ratio, Series, ratios

Cell = Callable[[Series], str]


def number(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def rate(value: float | None) -> str:
    """Three digits are what a measurement like this can tell."""
    if value is None or value < 1000:
        return number(value)
    magnitude = 10 ** (len(str(int(value))) - 3)
    return number(round(value / magnitude) * magnitude)


def scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


COLUMNS: dict[str, tuple[str, str, Cell]] = {
    "messages": ("messages", "", lambda s: number(s.count)),
    "rate": ("messages/s", "whole", lambda s: rate(s.rate())),
    "rate_running": ("", "running", lambda s: rate(s.rate_running())),
    "cpu": ("CPU s/M", "whole", lambda s: number(s.cpu(), 2)),
    "cpu_running": ("", "running", lambda s: number(s.cpu_running(), 2)),
    "peak": ("peak", "MB", lambda s: number(scaled(s.peak(), 1e-6), 1)),
    "broker_cpu": ("broker's", "CPU s/M", lambda s: number(s.broker_cpu(), 2)),
    "broker_rate": ("broker alone", "messages/s", lambda s: rate(s.broker_rate())),
    "syncs": ("syncs", "/s", lambda s: rate(s.syncs())),
    "per_sync": ("messages", "per sync", lambda s: number(s.per_sync())),
    "start": ("start", "ms", lambda s: number(scaled(s.start(), 1e3))),
}
COMMAND = ("messages", "rate", "rate_running", "cpu", "cpu_running", "peak", "broker_cpu", "start")
ARCHIVE = ("messages", "rate", "rate_running", "syncs", "per_sync", "cpu", "peak", "broker_cpu")
START = ("peak", "start")
BROKER = ("messages", "rate", "rate_running", "broker_cpu", "broker_rate", "cpu")


@dataclass(slots=True)
class Table:
    """One comparison."""

    title: str
    columns: tuple[str, ...]
    series: list[Series]
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        rows = [
            ["", *(COLUMNS[c][0] for c in self.columns)],
            ["", *(COLUMNS[c][1] for c in self.columns)],
            *([s.name, *(COLUMNS[c][2](s) for c in self.columns)] for s in self.series),
        ]
        return [
            self.title,
            *aligned(rows),
            *map(ratio_line, ratios(self.series)),
            *self._wrongs(),
            *(f"  {note}" for note in self.notes),
        ]

    def _wrongs(self) -> list[str]:
        return [
            f"  NOT COUNTED: {len(wrong)} runs of {s.name} ({'; '.join(dict.fromkeys(wrong))})"
            for s in self.series
            if (wrong := s.wrong())
        ]

    def right(self) -> bool:
        return not any(s.wrong() for s in self.series)

    def as_json(self) -> dict[str, Any]:
        told = [
            {
                "name": s.name,
                "messages": s.count,
                "rate": s.rate(),
                "rate_running": s.rate_running(),
                "cpu_per_million": s.cpu(),
                "cpu_per_million_running": s.cpu_running(),
                "peak_bytes": s.peak(),
                "broker_cpu_per_million": s.broker_cpu(),
                "syncs_per_second": s.syncs(),
                "messages_per_sync": s.per_sync(),
                "start_seconds": s.start(),
                "runs": [asdict(run) for run in s.runs],
                "starts": [asdict(run) for run in s.starts],
            }
            for s in self.series
        ]
        return {"title": self.title, "series": told, "ratios": [asdict(r) for r in ratios(self.series)]}


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        (
            "  "
            + row[0].ljust(widths[0])
            + "".join(f"  {cell:>{w}}" for cell, w in zip(row[1:], widths[1:], strict=True))
        )
        for row in rows
    ]


def ratio_line(ratio: Ratio) -> str:
    return (
        f"  {ratio.ours} : {ratio.theirs} = {ratio.middle:.1f} times the messages/s"
        f" ({ratio.least:.1f} to {ratio.most:.1f} in {ratio.pairs} pairs)"
    )
