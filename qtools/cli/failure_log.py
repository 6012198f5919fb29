"""Log lines about messages that failed, few however many fail. In: the fate of messages, and why. Out: log lines.

3 messages sent to events.dead: it is not JSON (2), .id is missing (1)
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable

QUIET = 5.0  # s between two lines about messages that could not be routed
NAMED_REASONS = 3  # that such a line names; the other messages are counted together
MOST_REASONS = 100  # that are counted one by one until the next line: a reason may quote the message
OTHER_REASONS = "other reasons"


class FailureLog:
    """Logs messages that failed: the first of each fate at once, later ones as counts, at most one line every QUIET s.
    name: the logger's."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)
        self._loop = asyncio.get_running_loop()
        self._last: dict[str, float] = {}
        self._unlogged: dict[str, Counter[str]] = {}  # messages since the last line, by fate and reason

    def log(self, fate: str, reasons: Iterable[str]) -> None:
        """Note messages with the same `fate`: why each failed."""
        counts = self._unlogged.setdefault(fate, Counter())
        for why in reasons:
            counts[why if why in counts or len(counts) < MOST_REASONS else OTHER_REASONS] += 1
        now = self._loop.time()
        if now - self._last.get(fate, -QUIET) < QUIET:
            return
        self._last[fate] = now
        self._write(fate)

    def flush(self) -> None:
        """At the end of a run: log what was only counted so far."""
        for fate in list(self._unlogged):
            self._write(fate)

    def _write(self, fate: str) -> None:
        counts = self._unlogged.pop(fate)
        count = counts.total()
        self._logger.warning("%s %s: %s", f"{count:,} message{'' if count == 1 else 's'}", fate, _listed(counts))


def _listed(counts: Counter[str]) -> str:
    """`REASON`, or `REASON (20), REASON (12), other reasons (7)`, the most frequent first."""
    if len(counts) == 1:
        return next(iter(counts))
    others = counts.pop(OTHER_REASONS, 0)
    named = counts.most_common(NAMED_REASONS)
    others += counts.total() - sum(count for _, count in named)
    texts = [f"{why} ({count:,})" for why, count in named] + ([f"{OTHER_REASONS} ({others:,})"] if others else [])
    return ", ".join(texts)
