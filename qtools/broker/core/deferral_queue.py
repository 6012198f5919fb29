"""Deferred messages in memory, in the order of their due times. In: ranges and times. Out: the ranges that are due.

Times are ns since 1970. Neighbours that are deferred one by one until the same time become one entry again. Ranges of
one block share one Block object.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from qtools.broker.core.block import Block, MessageRange

GRAIN = 1_000_000  # ns: times of requeued messages are rounded up to it, so that neighbours share an entry

DeferredEntry = tuple[int, int, int, MessageRange]  # due time, number of the block, order of adding, range


class DeferralQueue:
    """A heap of ranges. `len` counts entries, not messages.

    shares: ranges of one block may have different Block objects, as those read from a store do.
    """

    __slots__ = ("_added", "_blocks", "_heap", "_last", "_last_due", "_shares", "frame_bytes")

    def __init__(self, *, shares: bool = True) -> None:
        self._shares = shares
        self.frame_bytes = 0  # bytes of frames that are in memory because of the entries
        self._heap: list[DeferredEntry] = []
        self._added = 0
        self._last: MessageRange | None = None
        self._last_due = 0
        self._blocks: dict[int, tuple[Block, int]] = {}  # by the first message number; with the number of entries

    def add(self, run: MessageRange, due: int) -> None:
        """Add `run`, which is due at `due`."""
        base = run.block.base
        last = self._last
        if (
            last is not None
            and self._last_due == due
            and last.block.base == base
            and last.stop == run.start
            and last.attempts == run.attempts
        ):
            last.stop = run.stop
            return
        if self._shares:
            block, entries = self._blocks.get(base, (run.block, 0))
            if not entries:
                self.frame_bytes += len(block.frames)
            run.block = block
            self._blocks[base] = block, entries + 1
        self._added += 1
        heapq.heappush(self._heap, (due, run.block.seq, self._added, run))
        self._last, self._last_due = run, due

    def _leave(self, run: MessageRange) -> None:
        if not self._shares:
            return
        base = run.block.base
        block, entries = self._blocks[base]
        if entries > 1:
            self._blocks[base] = block, entries - 1
        else:
            del self._blocks[base]
            self.frame_bytes -= len(block.frames)

    def next(self) -> int | None:
        """When the first message is due; None when there is none."""
        return self._heap[0][0] if self._heap else None

    def take_due(self, wall: int) -> Iterator[MessageRange]:
        """Remove and return all ranges that are due at `wall`."""
        self._last = None
        while self._heap and self._heap[0][0] <= wall:
            run = heapq.heappop(self._heap)[3]
            self._leave(run)
            yield run

    def evict(self, keep: int) -> tuple[int, int, list[tuple[int, MessageRange]]]:
        """Remove all entries but the first `keep`.

        Returns the due time and the block number of the last entry that stays, 0 and 0 when none does; and the removed
        ranges with their due times. Entries with the same time and block as the last one stay.
        """
        self._last = None
        self._heap.sort()  # a sorted list is a heap
        last_due, last_seq = self._heap[keep - 1][:2] if keep else (0, 0)
        while keep < len(self._heap) and self._heap[keep][:2] == (last_due, last_seq):
            keep += 1
        gone = [(due, run) for due, _, _, run in self._heap[keep:]]
        del self._heap[keep:]
        for _, run in gone:
            self._leave(run)
        return last_due, last_seq, gone

    def messages(self) -> int:
        """How many messages the entries have, counted one entry after another."""
        return sum(entry[3].stop - entry[3].start for entry in self._heap)

    def clear(self) -> None:
        self._heap.clear()
        self._blocks.clear()
        self._last = None
        self.frame_bytes = 0

    def __len__(self) -> int:
        return len(self._heap)
