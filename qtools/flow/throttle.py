"""How many messages may pass now. In: the time. Out: a count, and how long to wait for more. No clock.

A token bucket that holds a tenth of a second's worth, at least one, unless told otherwise: a batch is not held back
longer than it must be, and within any second so much more than the rate may pass, after a pause. At first it holds one
message, so that no more than the rate passes in the first second of a run.
"""

from __future__ import annotations


class Throttle:
    """`rate` messages a second; `room` is how many may pass at once after a pause, and at first where it is given."""

    def __init__(self, rate: float, room: float | None = None) -> None:
        self._rate = rate
        self._room = max(1.0, rate / 10) if room is None else room
        self._tokens = 1.0 if room is None else room
        self._at: float | None = None

    def take(self, wanted: int, now: float) -> int:
        """How many of `wanted` may pass at `now` (s, any origin, never going back); they are taken."""
        if self._at is not None:
            self._tokens = min(self._room, self._tokens + (now - self._at) * self._rate)
        self._at = now
        count = min(wanted, int(self._tokens))
        self._tokens -= count
        return count

    def wait_for(self, wanted: int) -> float:
        """Seconds from the last `take` until `wanted`, or as many as ever pass at once, may pass."""
        return max(0.0, (min(float(wanted), self._room) - self._tokens) / self._rate)
