"""How long to wait before the next attempt, and how long attempts have failed. In: failures. Out: seconds. No clock."""

from __future__ import annotations

FIRST = 0.25
LONGEST = 15.0


def next_delay(failures: int, draw: float | None = None) -> float:
    """Seconds to wait after `failures` failures in a row, at least 1: a quarter second, doubled each time.

    Half of it is random ("equal jitter"), so that clients that lost their connections together do not return together.
    The first delay is at most a quarter second, and none is longer than LONGEST. draw: 0 to 1, replaces the random
    number in tests.
    """
    most = min(LONGEST, FIRST * 2.0 ** min(failures - 1, 16))
    if draw is None:
        import random

        draw = random.random()
    return most / 2 + most / 2 * draw


class Outage:
    """What is tried again until it works: since when it has failed, and why. Times in s, by a clock that does not go
    back.

    reason: of the last failure; "" while it works. failures: in a row.
    """

    __slots__ = ("_since", "failures", "reason")

    def __init__(self) -> None:
        self.reason = ""
        self.failures = 0
        self._since = 0.0

    def fail(self, reason: str, now: float) -> bool:
        """A try has failed. Returns whether an outage begins with it, so that it is logged once."""
        self.failures += 1
        self.reason = reason
        if self.failures == 1:
            self._since = now
        return self.failures == 1

    def lasted(self, now: float) -> float:
        """How long it has failed; 0 while it works."""
        return now - self._since if self.failures else 0.0

    def end(self, now: float) -> float | None:
        """A try has succeeded. Returns how long it had failed, or None if it had not."""
        if not self.failures:
            return None
        lasted = now - self._since
        self.reason, self.failures = "", 0
        return lasted
