"""Latencies, counted by size. In: ns. Out: percentiles, at most 1/32 above the true value; a few thousand counters at
most, however many values there are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

_STEPS = 5  # each power of two is divided into 2 ** _STEPS equal buckets
PERCENTILES = (50.0, 90.0, 99.0, 99.9)


class LatencyCounter:
    """Counts latencies."""

    def __init__(self) -> None:
        self.count = 0
        self.highest = 0  # ns
        self._counts: dict[int, int] = {}  # by bucket

    def observe(self, nanoseconds: int, count: int = 1) -> None:
        """Count a latency, `count` times. A negative one counts as 0."""
        value = max(0, nanoseconds)
        shift = max(0, value.bit_length() - 1 - _STEPS)
        bucket = (shift << (_STEPS + 1)) | (value >> shift)
        self._counts[bucket] = self._counts.get(bucket, 0) + count
        self.count += count
        self.highest = max(self.highest, value)

    def percentiles(self, shares: Sequence[float] = PERCENTILES) -> Iterator[tuple[float, float]]:
        """(share in percent, seconds) for each of `shares`, ascending; the upper end of the bucket."""
        buckets = iter(sorted(self._counts))
        seen, upper = 0, 0
        for share in shares:
            while seen < self.count and (not seen or seen < share / 100 * self.count):
                bucket = next(buckets)
                seen += self._counts[bucket]
                shift, low = bucket >> (_STEPS + 1), bucket & ((1 << (_STEPS + 1)) - 1)
                upper = ((low + 1) << shift) - 1
            yield share, min(upper, self.highest) / 1e9
