"""One clock for due times. In: the event loop's clock. Out: ns since 1970, without jumps.

A due time is stored as ns since 1970, because it outlives the process. Within one run only monotonic time counts: the
system's clock is read once, when the broker starts. If an administrator or NTP changes it later, no deferred message is
delayed or delivered early.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class Clock:
    """monotonic: the clock of deadlines, seconds. wall: the time now, ns since 1970; read from the system by
    default."""

    __slots__ = ("_epoch", "_monotonic")

    def __init__(self, monotonic: Callable[[], float], wall: int | None = None) -> None:
        self._monotonic = monotonic
        self._epoch = (time.time_ns() if wall is None else wall) - round(monotonic() * 1e9)

    def wall(self) -> int:
        """The time, ns since 1970."""
        return self.due(self._monotonic())

    def due(self, when: float) -> int:
        """Convert a monotonic time to ns since 1970."""
        return self._epoch + round(when * 1e9)

    def when(self, due: int) -> float:
        """Convert ns since 1970 to a monotonic time."""
        return (due - self._epoch) / 1e9
