"""What comes due, and when. In: items and times. Out: the items whose time has come, earliest first.

One heap. A time is whatever the caller counts in; no clock is asked here. Cancelled entries stay until
they come up or outnumber the live ones, so that cancelling costs nothing and memory stays in proportion.
"""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

Item = TypeVar("Item")

_FEW = 64  # below this many stale entries a sweep is not worth it


class Deadline(Generic[Item]):
    """One item waiting for its time; `item` is None once it was cancelled or has come up."""

    __slots__ = ("_number", "item", "when")

    def __init__(self, when: float, number: int, item: Item) -> None:
        self.when = when
        self._number = number
        self.item: Item | None = item

    def __lt__(self, other: Deadline[Item]) -> bool:
        return (self.when, self._number) < (other.when, other._number)


class Deadlines(Generic[Item]):
    """Items in order of their times; those of one time in the order they were added."""

    __slots__ = ("_count", "_heap", "_stale")

    def __init__(self) -> None:
        self._heap: list[Deadline[Item]] = []
        self._count = 0
        self._stale = 0

    def add(self, when: float, item: Item) -> Deadline[Item]:
        """Wait for `when`; the entry is for cancelling."""
        self._count += 1
        entry = Deadline(when, self._count, item)
        heapq.heappush(self._heap, entry)
        return entry

    def cancel(self, entry: Deadline[Item]) -> None:
        """Forget an entry; one that has come up or was cancelled is left alone."""
        if entry.item is None:
            return
        entry.item = None
        self._stale += 1
        if self._stale > _FEW and self._stale * 2 > len(self._heap):
            self._heap = [kept for kept in self._heap if kept.item is not None]
            heapq.heapify(self._heap)
            self._stale = 0

    def next(self) -> float | None:
        """When the earliest comes due, None with nothing to wait for."""
        heap = self._heap
        while heap and heap[0].item is None:
            heapq.heappop(heap)
            self._stale -= 1
        return heap[0].when if heap else None

    def take_due(self, now: float) -> list[Item]:
        """Everything whose time has come, out of the heap."""
        due: list[Item] = []
        heap = self._heap
        while heap and heap[0].when <= now:
            entry = heapq.heappop(heap)
            if entry.item is None:
                self._stale -= 1
                continue
            due.append(entry.item)
            entry.item = None
        return due

    def clear(self) -> None:
        self._heap.clear()
        self._stale = 0

    def __len__(self) -> int:
        return len(self._heap) - self._stale
