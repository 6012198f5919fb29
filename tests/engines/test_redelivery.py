"""Deliveries that a process counts and delays: how often, and when they come again."""

from __future__ import annotations

import asyncio
import time

from qtools.engines.redelivery import MOST_ATTEMPTS, AttemptCounts, DelayedDeliveries
from qtools.message import Batch


def test_deliveries_are_counted_until_a_message_is_finished() -> None:
    counts = AttemptCounts()
    assert not counts
    assert counts.more_than(0, ["a"]) == {}  # nothing came more than once
    counts.add("a")
    counts.add("a")
    counts.add("b")
    assert [counts.get(ident, 1) for ident in ("a", "b", "c")] == [3, 2, 1]
    assert counts.more_than(1, ["c", "b", "a"]) == {1: 2, 2: 3}
    assert counts.more_than(2, ["c", "b", "a"]) == {2: 3}
    counts.forget(["a", "c"])
    assert counts == {"b": 2}
    for _ in range(MOST_ATTEMPTS):
        counts.add("b")
    assert counts == {"b": MOST_ATTEMPTS}


async def test_batches_come_again_when_their_delays_are_over() -> None:
    came: list[tuple[Batch, float]] = []
    both = asyncio.Event()

    def deliver(batch: Batch) -> None:
        came.append((batch, time.monotonic()))
        if len(came) == 2:
            both.set()

    delayed = DelayedDeliveries(deliver)
    late, soon, never = Batch.empty(), Batch.empty(), Batch.empty()
    begun = time.monotonic()
    delayed.add(late, 100)
    delayed.add(soon, 0)
    assert len(delayed) == 2
    await both.wait()
    assert [batch for batch, _ in came] == [soon, late]
    assert came[1][1] - begun >= 0.1
    assert not delayed
    delayed.add(never, 0)
    delayed.cancel()
    assert not delayed
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(came) == 2
