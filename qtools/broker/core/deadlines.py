"""Items by due time. In: items and times. Out: the items that are due, earliest first.

One heap. The caller chooses the unit of time; no clock is read here. Cancelled entries stay in the heap until they are
due or outnumber the others, so that cancelling costs nothing and the memory stays in proportion.
"""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

Item = TypeVar("Item")

_FEW = 64  # with fewer cancelled entries they are not removed


class Deadline(Generic[Item]):
    """One item and its time. item: None once it was cancelled or was due."""

    __slots__ = ("_number", "item", "when")

    def __init__(self, when: float, number: int, item: Item) -> None:
        self.when = when
        self._number = number
        self.item: Item | None = item

    def __lt__(self, other: Deadline[Item]) -> bool:
        return (self.when, self._number) < (other.when, other._number)


class Deadlines(Generic[Item]):
    """Items in the order of their times; those of the same time in the order in which they were added."""

    __slots__ = ("_count", "_heap", "_stale")

    def __init__(self) -> None:
        self._heap: list[Deadline[Item]] = []
        self._count = 0
        self._stale = 0

    def add(self, when: float, item: Item) -> Deadline[Item]:
        """Add an item that is due at `when`. Returns the entry, which `cancel` takes."""
        self._count += 1
        entry = Deadline(when, self._count, item)
        heapq.heappush(self._heap, entry)
        return entry

    def cancel(self, entry: Deadline[Item]) -> None:
        """Remove an entry. Does nothing for one that was due or is cancelled already."""
        if entry.item is None:
            return
        entry.item = None
        self._stale += 1
        if self._stale > _FEW and self._stale * 2 > len(self._heap):
            self._heap = [kept for kept in self._heap if kept.item is not None]
            heapq.heapify(self._heap)
            self._stale = 0

    def next(self) -> float | None:
        """When the earliest item is due; None when there is none."""
        heap = self._heap
        while heap and heap[0].item is None:
            heapq.heappop(heap)
            self._stale -= 1
        return heap[0].when if heap else None

    def take_due(self, now: float) -> list[Item]:
        """Remove and return all items that are due."""
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
