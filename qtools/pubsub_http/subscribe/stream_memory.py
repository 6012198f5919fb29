"""The memory that a stream uses, for the memory budget of the process. In: a source, a delivery. Out: bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from qtools.pubsub_http.subscribe.delivery import DeliverySource, StreamDelivery
from qtools.pubsub_http.subscribe.fanout import FanoutReader
from qtools.web.memory_budget import MemoryBudget
from qtools.web.tracked_transport import TrackedTransport


class StreamMemory:
    """A subscriber as a user of memory. what: its topic and channel, for messages."""

    def __init__(self, source: DeliverySource, delivery: StreamDelivery, tracked: TrackedTransport, what: str) -> None:
        self._source = source
        self._delivery = delivery
        self._tracked = tracked
        self._what = what

    def memory(self) -> int:
        if self._tracked.is_closing():
            return 0  # its memory is being freed
        return self._source.memory() + self._delivery.memory()

    def shed(self) -> str | None:
        """End the stream; what it has not finished goes back to its channel."""
        if self._tracked.is_closing():
            return None
        self._tracked.abort()
        self._source.discard()
        return f"ended the slow subscriber {self._tracked.peer} of {self._what}"


@contextmanager
def counted_memory(
    budget: MemoryBudget, source: DeliverySource, delivery: StreamDelivery, tracked: TrackedTransport | None, what: str
) -> Iterator[None]:
    """Count the memory of the stream in `budget` as long as the context lasts. tracked: None without a server."""
    if tracked is None:
        yield
        return
    holder = StreamMemory(source, delivery, tracked, what)
    if isinstance(source, FanoutReader):
        source.cut = holder.shed
    budget.add(holder)
    try:
        yield
    finally:
        budget.remove(holder)
