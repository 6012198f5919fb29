"""Deliveries that this process counts and delays, for an engine whose broker does neither. In: messages that were
requeued. Out: their batches again, when their delays are over.

A message that is delivered more often than --max-attempts says becomes a dead letter in the command; an engine only has
to count (RecordOrigin.delivered_more_than).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from qtools.message import Batch

MOST_ATTEMPTS = 65_535  # that a Message can hold


class AttemptCounts(dict[Any, int]):
    """Id → how often the message was delivered, of messages that were delivered more than once. `get(id, 1)` is the
    number of deliveries of any message. An id is whatever tells the message from others of its origin."""

    __slots__ = ()

    def add(self, ident: Any) -> None:
        """The message will be delivered once more."""
        self[ident] = min(MOST_ATTEMPTS, self.get(ident, 1) + 1)

    def forget(self, ids: Iterable[Any]) -> None:
        """The messages are finished."""
        if self:  # as nearly never
            for ident in ids:
                self.pop(ident, None)

    def more_than(self, times: int, ids: Iterable[Any]) -> dict[int, int]:
        """The messages with more than `times` deliveries: index in `ids` → deliveries."""
        if not self:
            return {}
        found = {place: self.get(ident, 1) for place, ident in enumerate(ids)}
        return {place: deliveries for place, deliveries in found.items() if deliveries > times}


class DelayedDeliveries:
    """Batches that were requeued and wait for their delays. deliver: called with each batch when its delay is over."""

    def __init__(self, deliver: Callable[[Batch], None]) -> None:
        self._deliver = deliver
        self._timers: set[asyncio.TimerHandle] = set()

    def add(self, batch: Batch, delay_ms: int) -> None:
        timer: asyncio.TimerHandle

        def deliver() -> None:
            self._timers.discard(timer)
            self._deliver(batch)

        timer = asyncio.get_running_loop().call_later(delay_ms / 1000, deliver)
        self._timers.add(timer)

    def __len__(self) -> int:
        """How many batches wait."""
        return len(self._timers)

    def cancel(self) -> None:
        """Drop the batches that wait."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
