"""How long messages take from published to finished: quantiles over a window. In: finished messages. Out: ns.

A histogram whose buckets grow by 2 %, so that a quantile is off by at most 1 % at any size, with at most 2,206 buckets
(292 years in ns). Empty buckets are not stored. Messages of one block share a timestamp, so finishing a batch costs one
count for each block, not one for each message.

The window has two halves: a quantile covers between half of the window and all of it, as in nsqd (internal/quantile).
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from qtools.broker.core.consumer import Done

_GROWTH = math.log(1.02)

Plain = dict[str, Any]


class Latency:
    """The latencies of one channel. window: seconds; clock: returns ns since 1970."""

    __slots__ = ("_clock", "_counts", "_half", "_older", "_turns_at")

    def __init__(self, window: float, clock: Callable[[], int] = time.time_ns) -> None:
        self._clock = clock
        self._half = max(1, round(window * 1e9 / 2))
        self._turns_at = clock() + self._half
        self._counts: dict[int, int] = {}
        self._older: dict[int, int] = {}

    def add(self, done: Iterable[Done]) -> None:
        """Add messages that were just finished, by block."""
        now = self._clock()
        self._turn(now)
        counts = self._counts
        for block, which in done:
            age = now - block.timestamp
            bucket = int(math.log(age) / _GROWTH) if age > 0 else 0
            counts[bucket] = counts.get(bucket, 0) + len(which)

    def counts(self) -> Counter[int]:
        """How many messages of the window are in each bucket."""
        self._turn(self._clock())
        return Counter(self._counts) + Counter(self._older)

    def _turn(self, now: int) -> None:
        """Forget messages that are older than the window."""
        if now >= self._turns_at:
            late = now >= self._turns_at + self._half
            self._older = {} if late else self._counts
            self._counts = {}
            self._turns_at = now + self._half


def summary(latencies: Sequence[Latency], quantiles: Sequence[float]) -> Plain:
    """The quantiles of one channel, or of all channels of a topic together, as /stats shows them."""
    if not quantiles:
        return {"count": 0, "percentiles": None}
    counts = sum((one.counts() for one in latencies), Counter[int]())
    total = counts.total()
    buckets = sorted(counts)
    values = [{"quantile": one, "value": _value(buckets, counts, math.ceil(one * total))} for one in quantiles]
    return {"count": total, "percentiles": values}


def _value(buckets: Sequence[int], counts: Counter[int], rank: int) -> int:
    """The `rank`-th smallest, in ns; 0 when there is none."""
    for bucket in buckets:
        rank -= counts[bucket]
        if rank <= 0:
            return round(math.exp((bucket + 0.5) * _GROWTH))
    return 0


def shown(ns: float) -> str:
    """A duration as nsqd's /stats shows it: `744.8ms`."""
    for least, unit in ((1e9, "s"), (1e6, "ms"), (1e3, "us")):
        if ns > least:
            return f"{ns / least:.1f}{unit}"
    return f"{ns:.1f}ns"
