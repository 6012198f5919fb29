"""Counts of values by size, for latencies. In: values, one by one. Out: a HistogramValue, when it is asked for.

A command observes values in every run; metrics_format.py, which makes text of them, is imported only where metrics are
asked for.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

# From half a millisecond, which a local nsqd needs, to the ten seconds after which nobody waits any more.
LATENCY_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class HistogramValue(NamedTuple):
    """What a Histogram holds at one moment. `counts` has one more than `bounds`: what is above the last."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float

    @property
    def total(self) -> int:
        """How many values it holds."""
        return sum(self.counts)

    def since(self, before: HistogramValue | None) -> HistogramValue:
        """What was added after `before`."""
        if before is None:
            return self
        counts = tuple(now - then for now, then in zip(self.counts, before.counts, strict=True))
        return HistogramValue(self.bounds, counts, self.sum - before.sum)

    def quantile(self, share: float) -> float:
        """Below what a `share` (0..1) of it lies; linear within a bucket, as Prometheus' histogram_quantile has it.

        What is above the last bound counts as that bound. 0.0 of nothing.
        """
        rank, seen, low = share * self.total, 0, 0.0
        for bound, count in zip(self.bounds, self.counts, strict=False):
            if count and seen + count >= rank:
                return low + (bound - low) * max(0.0, rank - seen) / count
            seen += count
            low = bound
        return low if self.total else 0.0


class Histogram:
    """How often what was how large. `bounds` ascend; a value falls into the first that it is not above."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float] = LATENCY_SECONDS) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float, count: int = 1) -> None:
        """`value` was seen `count` times."""
        self._counts[bisect_left(self._bounds, value)] += count
        self._sum += value * count

    def value(self) -> HistogramValue:
        """What was seen so far."""
        return HistogramValue(self._bounds, tuple(self._counts), self._sum)
