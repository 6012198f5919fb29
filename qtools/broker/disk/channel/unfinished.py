"""The blocks that one channel has in memory and has not finished. In: blocks, deliveries, finished messages.
Out: rows for the database.

in_order      blocks in the memory queue, in flight or requeued, in the order of their numbers
out_of_order  blocks that were published deferred, read again, or begun before a restart

Each has a Progress if a part of it is finished or was requeued, and None otherwise.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence

from qtools.broker.core.block import Block
from qtools.broker.disk.channel.progress import Progress
from qtools.broker.disk.database import Statement

_UPDATE = (
    "UPDATE channel SET low = ?1, sent = ?2, checksum = row_checksum(id, topic, name, paused, ?1, ?2) WHERE id = ?3"
)
_KEEP = (
    "INSERT OR REPLACE INTO progress (channel, seq, done, attempts, due, next_due, unfinished, checksum)"
    " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, row_checksum(?1, ?2, ?3, ?4, ?5, ?6, ?7))"
)
_FORGET = "DELETE FROM progress WHERE channel = ? AND seq = ?"
_FORGET_BELOW = "DELETE FROM progress WHERE channel = ? AND seq < ?"


class UnfinishedBlocks:
    """The unfinished blocks of the channel `channel`. `sent`: messages below this number were delivered once.

    rows: blocks in memory, or finished, that may have a row in the table progress.
    """

    __slots__ = (
        "_being_written", "_channel", "_dirty", "_has_rows_below", "_heap", "_written",
        "in_order", "out_of_order", "rows", "sent",
    )  # fmt: skip

    def __init__(self, channel: int, sent: int) -> None:
        self.sent = sent
        self.in_order: dict[int, Progress | None] = {}
        self.out_of_order: dict[int, Progress | None] = {}
        self.rows: set[int] = set()
        self._channel = channel
        self._heap: list[int] = []  # the numbers in out_of_order, and some that have left it
        self._dirty: set[int] = set()
        self._being_written: set[int] = set()
        self._has_rows_below = False  # there may be rows of blocks that are no longer deferred
        self._written: tuple[int, int] | None = None

    def __contains__(self, seq: int) -> bool:
        return seq in self.in_order or seq in self.out_of_order

    def hold(self, seq: int, progress: Progress | None) -> None:
        """Add a block out of order. A block with `progress` has a row in the database."""
        if seq not in self.out_of_order and seq not in self.in_order:
            self.out_of_order[seq] = progress
            heapq.heappush(self._heap, seq)
            if progress is not None:
                self.rows.add(seq)

    def release(self, seq: int) -> None:
        """Remove a block that leaves the memory."""
        self._of(seq).pop(seq, None)
        self.rows.discard(seq)

    def clear(self) -> None:
        """Forget all blocks, because the channel was emptied. Their rows are deleted with the next statements."""
        self.in_order.clear()
        self.out_of_order.clear()
        self._heap.clear()
        self._dirty.clear()
        self._has_rows_below = True

    def _of(self, seq: int) -> dict[int, Progress | None]:
        return self.out_of_order if seq in self.out_of_order else self.in_order

    def lowest(self, default: int) -> int:
        """The lowest number of a block in here; `default` when there is none, or when it is lower."""
        heap = self._heap
        while heap and heap[0] not in self.out_of_order:
            heapq.heappop(heap)
        return min(next(iter(self.in_order), default), heap[0] if heap else default, default)

    # ── progress ──

    def progress(self, seq: int) -> Progress | None:
        """The progress of a block, if it has one."""
        return self.in_order.get(seq) or self.out_of_order.get(seq)

    def delivered(self, block: Block) -> int:
        """How many messages of a block, its first ones, were delivered in order; 0 for a deferred block."""
        return 0 if block.due else min(max(self.sent - block.base, 0), block.count)

    def counting(self, block: Block) -> Progress:
        """The progress of a block, made if necessary, that counts the attempts of each message."""
        blocks = self._of(block.seq)
        progress = blocks.get(block.seq)
        if progress is None:
            progress = blocks[block.seq] = Progress(block.count)
        progress.count(self.delivered(block))
        return progress

    def finish(self, block: Block, which: range | Sequence[bytes]) -> bool | None:
        """Finish messages of `block`: places in it, or ids. Returns whether all of the block is finished now, or None
        when the block is not in here, because the channel was emptied."""
        seq = block.seq
        blocks = self.out_of_order if seq in self.out_of_order else self.in_order
        if seq not in blocks:
            return None
        progress = blocks[seq]
        if progress is None and len(which) < block.count:
            progress = blocks[seq] = Progress(block.count)
        if progress is not None:
            progress.finish(block, which)
            if progress.left:
                return False
        del blocks[seq]
        return True

    # ── the database ──

    def touch(self, seq: int) -> None:
        """Note that the row of a block has to be written."""
        self._dirty.add(seq)

    def is_written(self, seq: int) -> bool:
        """Whether the database has everything that is known here of a block."""
        return seq not in self._dirty and seq not in self._being_written

    def forget_changes(self) -> None:
        """Forget what would have to be written."""
        self._dirty.clear()

    def written(self) -> set[int]:
        """Note that everything returned by `statements` is in the database. Returns the numbers of those blocks."""
        written, self._being_written = self._being_written, set()
        return written

    def statements(self, low: int, is_finished_on_disk: Callable[[int], bool]) -> tuple[list[Statement], bool]:
        """What has changed since the last call, and whether `low` or `sent` is part of it.

        low: all blocks with a lower number are finished. is_finished_on_disk: whether a block that is not in here is
        finished by this channel and still on disk.
        """
        made: list[Statement] = []
        kept: list[tuple[object, ...]] = []
        forgotten: list[tuple[object, ...]] = []
        for seq in self._dirty:
            progress = self.progress(seq)
            if progress is not None:
                kept.append((self._channel, seq, *progress.row(), progress.next_due, progress.left))
            elif seq >= low and is_finished_on_disk(seq):
                kept.append((self._channel, seq, None, None, None, 0, 0))
            elif seq in self.rows:
                forgotten.append((self._channel, seq))
        self._being_written |= self._dirty
        self._dirty.clear()
        if kept:
            made.append((_KEEP, kept))
            self.rows.update(row[1] for row in kept)  # type: ignore[misc]
        if forgotten:
            made.append((_FORGET, forgotten))
            self.rows.difference_update(row[1] for row in forgotten)
        if (low, self.sent) == self._written:
            return made, False
        self._written = (low, self.sent)
        made.append((_UPDATE, [(low, self.sent, self._channel)]))
        if self._has_rows_below or any(seq < low for seq in self.rows):
            self._has_rows_below = False
            made.append((_FORGET_BELOW, [(self._channel, low)]))
            self.rows = {seq for seq in self.rows if seq >= low}
        return made, True
