"""Counts values, such as latencies, by size. In: values, one by one. Out: a HistogramValue, the state at one moment.

A command observes values in every run. metrics_format.py, which makes text of them, is imported only in a run with
metrics.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

# From half a millisecond, which a local nsqd needs, to ten seconds, a common timeout.
LATENCY_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class HistogramValue(NamedTuple):
    """The state of a Histogram at one moment. `counts` has one more item than `bounds`, for values above the last."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float

    @property
    def total(self) -> int:
        """The number of values."""
        return sum(self.counts)

    def since(self, before: HistogramValue | None) -> HistogramValue:
        """The difference to an earlier state; None stands for an empty one."""
        if before is None:
            return self
        counts = tuple(now - then for now, then in zip(self.counts, before.counts, strict=True))
        return HistogramValue(self.bounds, counts, self.sum - before.sum)

    def quantile(self, share: float) -> float:
        """The `share` quantile (0 to 1), interpolated linearly within a bucket, as Prometheus' histogram_quantile does.

        Values above the last bound count as that bound. An empty histogram has the quantile 0.0.
        """
        rank, seen, low = share * self.total, 0, 0.0
        for bound, count in zip(self.bounds, self.counts, strict=False):
            if count and seen + count >= rank:
                return low + (bound - low) * max(0.0, rank - seen) / count
            seen += count
            low = bound
        return low if self.total else 0.0


class Histogram:
    """Counts values by bucket. bounds: the upper bounds of the buckets, inclusive and ascending."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float] = LATENCY_SECONDS) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float, count: int = 1) -> None:
        """Count `value`, `count` times."""
        self._counts[bisect_left(self._bounds, value)] += count
        self._sum += value * count

    def value(self) -> HistogramValue:
        """The state so far."""
        return HistogramValue(self._bounds, tuple(self._counts), self._sum)
