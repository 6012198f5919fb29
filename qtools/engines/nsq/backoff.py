"""The next delay before another try, given the failures so far. In: a count. Out: seconds. No clock."""

from __future__ import annotations

FIRST = 0.25
LONGEST = 15.0


def next_delay(failures: int, draw: float | None = None) -> float:
    """Seconds to wait after `failures` failures in a row, at least 1: a quarter second, doubled each time.

    Half of it is drawn at random ("equal jitter"), so that clients dropped together do not come back
    together; the first retry comes within a quarter second, none later than LONGEST. `draw` in 0..1 stands
    in for chance in tests.
    """
    most = min(LONGEST, FIRST * 2.0 ** min(failures - 1, 16))
    if draw is None:
        import random

        draw = random.random()
    return most / 2 + most / 2 * draw
