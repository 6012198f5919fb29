"""Percentiles of many latencies, from few counters."""

from __future__ import annotations

from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from qtools.soak.latency import LatencyCounter

SHARES = (1.0, 50.0, 90.0, 99.0, 99.9, 100.0)


@given(st.lists(st.integers(0, 10**13), min_size=1, max_size=300))
def test_percentiles_are_at_most_a_32nd_too_high(values: list[int]) -> None:
    latency = LatencyCounter()
    for value in values:
        latency.observe(value)
    ordered = sorted(values)
    for share, found in latency.percentiles(SHARES):
        true = ordered[max(0, ceil(share / 100 * len(ordered)) - 1)]
        assert true <= round(found * 1e9) <= true * 33 / 32 + 1
    assert latency.highest == ordered[-1]


def test_counters_stay_few_and_weights_count() -> None:
    latency = LatencyCounter()
    for exponent in range(44):
        latency.observe(2**exponent + exponent, 1000)
    latency.observe(-5)
    assert latency.count == 44_001
    assert len(latency._counts) <= 64 * 32
    assert dict(latency.percentiles((100.0,))) == {100.0: latency.highest / 1e9}


def test_nothing_was_observed() -> None:
    assert dict(LatencyCounter().percentiles((50.0, 99.0))) == {50.0: 0.0, 99.0: 0.0}
