"""How long to wait before the next attempt. In: the number of failures so far. Out: seconds. No clock."""

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
