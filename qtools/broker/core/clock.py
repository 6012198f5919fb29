"""One clock for due times. In: the loop's clock. Out: ns since 1970 that never jump.

A due time is stored as ns since 1970, so that it outlives the process; within one run only monotonic time decides.
The system's clock is therefore read once, when the broker starts: what an administrator or NTP does to it afterwards
neither delays a deferred message nor delivers one early.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class Clock:
    """monotonic: seconds, as deadlines are counted. wall: ns since 1970 at this moment, read from the system once."""

    __slots__ = ("_epoch", "_monotonic")

    def __init__(self, monotonic: Callable[[], float], wall: int | None = None) -> None:
        self._monotonic = monotonic
        self._epoch = (time.time_ns() if wall is None else wall) - round(monotonic() * 1e9)

    def wall(self) -> int:
        """The time, ns since 1970."""
        return self.due(self._monotonic())

    def due(self, when: float) -> int:
        """A monotonic time as ns since 1970."""
        return self._epoch + round(when * 1e9)

    def when(self, due: int) -> float:
        """A time in ns since 1970 as a monotonic one."""
        return (due - self._epoch) / 1e9
