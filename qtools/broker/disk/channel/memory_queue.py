"""The waiting messages of one channel that are in memory, in the order of delivery. In: ranges with their frames.
Out: the first ones.

The queue is bounded by messages, by bytes, and by the bytes of all channels together. An empty queue always has room
for one range.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from qtools.broker.core.block import MessageRange

BYTES = 8 * 1024 * 1024  # of one channel
TOTAL = 32 * 1024 * 1024  # over all channels


class Budget:
    """What all channels share. messages: how many each may have in memory; used: bytes that all have."""

    __slots__ = ("messages", "used")

    def __init__(self, messages: int) -> None:
        self.messages = max(messages, 1)
        self.used = 0


class MemoryQueue:
    """A queue of ranges. count: messages in it."""

    __slots__ = ("_budget", "_bytes", "_runs", "count")

    def __init__(self, budget: Budget) -> None:
        self.count = 0
        self._budget = budget
        self._runs: deque[MessageRange] = deque()
        self._bytes = 0

    @property
    def has_room(self) -> bool:
        """Whether more may be added."""
        budget = self._budget
        return not self._runs or (self.count < budget.messages and self._bytes < BYTES and budget.used < TOTAL)

    @property
    def is_low(self) -> bool:
        """Whether it is time to fetch more."""
        return self.count * 2 < self._budget.messages

    @property
    def room(self) -> tuple[int, int]:
        """How many messages, and how many bytes, a read may bring: at least one of each."""
        return max(self._budget.messages - self.count, 1), max(BYTES - self._bytes, 1)

    def put(self, run: MessageRange) -> None:
        """Append `run`."""
        self.count += run.stop - run.start
        self._weigh(run.block.size(run.start, run.stop))
        if self._runs:
            last = self._runs[-1]
            # Neighbours that are requeued one by one, in order, become one range again.
            if last.block is run.block and last.stop == run.start and last.attempts == run.attempts:
                last.stop = run.stop
                return
        self._runs.append(run)

    def take(self, count: int, size: int) -> MessageRange:
        """Remove and return the first messages: at most `count` and at most `size` bytes of frames, yet at least one
        message."""
        run = self._runs[0]
        block, start = run.block, run.start
        count = min(count, run.stop - start)
        while count > 1 and block.size(start, start + count) > size:
            count >>= 1
        self.count -= count
        self._weigh(-block.size(start, start + count))
        if count == run.stop - start:
            return self._runs.popleft()
        run.start += count
        return MessageRange(block, start, start + count, run.attempts)

    def clear(self) -> None:
        self._weigh(-self._bytes)
        self._runs.clear()
        self.count = 0

    def _weigh(self, size: int) -> None:
        self._bytes += size
        self._budget.used += size

    def __iter__(self) -> Iterator[MessageRange]:
        return iter(self._runs)

    def __bool__(self) -> bool:
        return bool(self._runs)
