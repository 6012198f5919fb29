"""Rates and histories, from statistics at several times. In: rows, the time. Out: the same rows with more fields.

rate       messages/s that came to a topic or a channel since the last look; None at the first look
history    what was left at the last HISTORY looks, the oldest first
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from qtools.admin.rows import Row, left_in

HISTORY = 24  # looks
BARS = "▁▂▃▄▅▆▇█"
PLAIN_BARS = "_.-=+*#@"


class Rates:
    """What was seen at the last looks. Of a topic or channel that is gone, nothing is kept."""

    def __init__(self) -> None:
        self._seen_at: float | None = None
        self._messages: dict[tuple[str, str], int | None] = {}
        self._histories: dict[tuple[str, str], deque[int]] = {}

    def add(self, rows: Sequence[Row], now: float) -> None:
        """Add `rate` and `history` to topics, which have sums (rows.py), and to their channels. now: s."""
        seconds = None if self._seen_at is None else max(1e-9, now - self._seen_at)
        before, histories = self._messages, self._histories
        self._seen_at, self._messages, self._histories = now, {}, {}
        for row in rows:
            self._add(row, (row["topic"], ""), row["waiting"], seconds, before, histories)
            for channel in row["channels"]:
                name = (row["topic"], channel["channel"])
                self._add(channel, name, left_in(channel), seconds, before, histories)

    def _add(
        self,
        row: Row,
        name: tuple[str, str],
        left: int | None,
        seconds: float | None,
        before: dict[tuple[str, str], int | None],
        histories: dict[tuple[str, str], deque[int]],
    ) -> None:
        count = self._messages[name] = row["messages"]
        known = before.get(name)
        row["rate"] = None
        if seconds is not None and count is not None and known is not None:
            row["rate"] = max(0.0, count - known) / seconds  # a broker that was restarted counts from 0
        history = self._histories[name] = histories.get(name) or deque(maxlen=HISTORY)
        if left is not None:
            history.append(left)
        row["history"] = history


def sparkline(history: Sequence[int], *, plain: bool = False) -> str:
    """Numbers as bars of their height; "" if all are 0. plain: in ASCII."""
    bars = PLAIN_BARS if plain else BARS
    most = max(history, default=0)
    if not most:
        return ""
    return "".join(bars[min(len(bars) - 1, count * len(bars) // (most + 1))] for count in history)


def shown_rate(rate: float | None) -> str:
    """Such as 12.5/s or 1,204/s; - if it is not known."""
    if rate is None:
        return "-"
    return f"{rate:.1f}/s" if 0 < rate < 100 else f"{rate:,.0f}/s"
