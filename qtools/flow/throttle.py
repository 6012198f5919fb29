"""How many messages may pass now. In: the time. Out: a count, and how long to wait for more. No clock.

This is a token bucket. By default it holds the tokens of a tenth of a second, and at least one. So after a pause, at
most a tenth more than the rate passes within a second. At first it holds one token, so that no more than the rate
passes in the first second of a run.
"""

from __future__ import annotations


class Throttle:
    """A limit of `rate` messages/s. burst: how many may pass at once after a pause and, if given, at the start."""

    def __init__(self, rate: float, burst: float | None = None) -> None:
        self._rate = rate
        self._burst = max(1.0, rate / 10) if burst is None else burst
        self._tokens = 1.0 if burst is None else burst
        self._at: float | None = None

    def take(self, wanted: int, now: float) -> int:
        """How many of `wanted` messages may pass at `now`; takes their tokens. now: s, by a clock that never goes
        back."""
        if self._at is not None:
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        count = min(wanted, int(self._tokens))
        self._tokens -= count
        return count

    def wait_for(self, wanted: int) -> float:
        """Seconds from the last `take` until `wanted` messages may pass, or `burst` of them if that is fewer."""
        return max(0.0, (min(float(wanted), self._burst) - self._tokens) / self._rate)
