"""The messages of one channel that wait and are on disk only. In: ranges that the memory has no room for. Out: reads;
ranges for the memory queue, as it has room again.

    requeued   ranges that were delivered, were requeued, and whose frames left the memory meanwhile    read first
    late       blocks that were deferred, are due, and did not fit into memory (deferred.py)            read next
    cold       all blocks from one number on that were put and never read, except those to skip        read last

Messages that a read does not find are damaged or lost: they are reported, and count as finished.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from qtools.broker.core.block import Block, MessageRange
from qtools.broker.disk.channel.contract import ChannelTopic, ChannelWriter
from qtools.broker.disk.channel.deferred import Deferred
from qtools.broker.disk.channel.memory_queue import MemoryQueue
from qtools.broker.disk.channel.progress import Row
from qtools.broker.disk.channel.unfinished import UnfinishedBlocks

_MOST_WANTED = 256  # blocks that one read asks for by their numbers


class FetchingBacklog(ChannelWriter, Protocol):
    """The backlog of the channel. depth: messages that wait, in memory and on disk. ident: the channel's number."""

    depth: int

    @property
    def ident(self) -> int: ...
    def fetch(self) -> None: ...
    def finish(self, block: Block, which: range) -> None: ...
    def touch(self, seq: int) -> None: ...
    def loaded(self) -> None:
        """Note that messages have come into memory."""
        ...

    def wall(self) -> int: ...
    def whole(self, block: Block) -> list[MessageRange]:
        """All messages of a block that was never read."""
        ...


class MessagesOnDisk:
    """cold_from: the number of the first cold block; None when there is none. skip: blocks from there on that are
    finished or unfinished, and so not cold. requeued: the ranges, in the order of delivery."""

    def __init__(
        self,
        backlog: FetchingBacklog,
        topic: ChannelTopic,
        queue: MemoryQueue,
        unfinished: UnfinishedBlocks,
        deferred: Deferred,
    ) -> None:
        self.cold_from: int | None = None
        self.skip: set[int] = set()
        self.requeued: deque[MessageRange] = deque()
        self._first_cold = 0  # what `cold_from` was before any of them was read
        self._cold_count = 0  # messages of the cold blocks
        self._backlog = backlog
        self._topic = topic
        self._store = topic.store
        self._queue = queue
        self._unfinished = unfinished
        self._deferred = deferred
        self._is_reading = False
        self._generation = 0  # grows when the channel is emptied: answers to earlier reads are then ignored

    # ── messages come ───────────────────────────────────────────────────────────────────────────

    def append(self, seq: int, count: int) -> None:
        """Add the newest block, with `count` messages."""
        if self.cold_from is None:
            self.cold_from = self._first_cold = seq
        self._cold_count += count

    def extend(self, start: int, count: int) -> None:
        """Add the blocks from `start` to the newest one, with `count` messages."""
        self._cold_count += count
        if self.cold_from is None or start < self.cold_from:
            self.cold_from = self._first_cold = start

    def requeue(self, run: MessageRange) -> None:
        """Add a range that was requeued. Neighbours that are requeued one by one, in order, become one range again."""
        if self.requeued:
            last = self.requeued[-1]
            if last.block.seq == run.block.seq and last.stop == run.start and last.attempts == run.attempts:
                last.stop = run.stop
                return
        self.requeued.append(run)

    def clear(self) -> None:
        """Forget all messages."""
        self._generation += 1
        self._is_reading = False
        self.requeued.clear()
        self.skip.clear()
        self._cold_count = 0
        self.cold_from = None

    def has_never_read(self, seq: int) -> bool:
        """Whether the block `seq` is cold."""
        return self.cold_from is not None and seq >= self.cold_from and seq not in self.skip

    # ── messages are read ───────────────────────────────────────────────────────────────────────

    def fetch(self) -> None:
        """Read as many messages as the memory has room for, unless a read is under way."""
        if self._is_reading:
            return
        generation, reader = self._generation, self._store.reader
        topic, channel = self._topic.ident, self._backlog.ident
        messages, size = self._queue.room
        late = self._deferred.late
        if self.requeued:
            self._is_reading = True
            wanted = sorted({run.block.seq for run in self.requeued})[:_MOST_WANTED]
            reader.these(topic, wanted, size, lambda blocks: self._read_requeued(generation, wanted, blocks))
        elif late:
            self._is_reading = True
            first = late.first(_MOST_WANTED)
            reader.these_with_progress(
                topic, channel, first, size, lambda found: self._read_late(generation, first, found)
            )
        elif self.cold_from is not None:
            self._is_reading = True
            start, stop = self.cold_from, self._topic.given
            reader.range(topic, start, stop, messages, size, lambda blocks: self._read_cold(generation, stop, blocks))

    def _is_stale(self, generation: int, found: object) -> bool:
        """Whether the answer to a read is of no use: the channel was emptied, or the read failed and is tried again."""
        if generation != self._generation:
            return True
        self._is_reading = False
        if found is None:  # the reader has logged the reason
            self._store.later(self._backlog.fetch)
        return found is None

    def _end_of_read(self) -> None:
        if not self._queue.count:
            self._backlog.fetch()
        self._deferred.load()  # there may be room for it again
        self._backlog.loaded()

    def _read_cold(self, generation: int, stop: int, blocks: list[Block] | None) -> None:
        """Take cold blocks, in order; no blocks means that there are none left below `stop`."""
        if self._is_stale(generation, blocks):
            return
        assert blocks is not None
        lost: list[int] = []
        for block in blocks:
            self.cold_from = block.seq + 1
            if block.seq in self.skip:
                self.skip.discard(block.seq)
                continue
            if block.seq in self._unfinished.out_of_order or self._deferred.has(block.seq):
                continue
            self._cold_count -= block.count
            if block.is_cold:  # it is damaged, and has been reported
                self._backlog.depth -= block.count
                lost.append(block.seq)
                continue
            self._unfinished.in_order[block.seq] = None
            for run in self._backlog.whole(block):
                self._queue.put(run)
        if not blocks:
            self.cold_from = stop if stop < self._topic.given else None
        if not self._cold_count or self.cold_from is None:
            self.cold_from = None
            if self._cold_count > 0:
                self._store.missing(self._topic.name, self._first_cold, stop - 1, self._cold_count)
            self._backlog.depth -= self._cold_count
            self._cold_count = 0
            self.skip.clear()
        for seq in lost:
            self._topic.finished(seq)
            self._store.touched(self._backlog)
        self._end_of_read()

    def _read_requeued(self, generation: int, wanted: list[int], blocks: list[Block] | None) -> None:
        """Take the blocks of requeued ranges. The read may have ended before the last of `wanted`."""
        if self._is_stale(generation, blocks):
            return
        assert blocks is not None
        have = {block.seq: block for block in blocks}
        looked_at = set(wanted if not blocks else [seq for seq in wanted if seq <= blocks[-1].seq])
        requeued, self.requeued = self.requeued, deque()
        for run in requeued:
            block = have.get(run.block.seq)
            if block is not None and not block.is_cold:
                self._queue.put(MessageRange(block, run.start, run.stop, run.attempts))
            elif run.block.seq in looked_at:  # it is damaged
                if block is None:
                    self._store.missing(self._topic.name, run.block.seq, run.block.seq, len(run))
                self._backlog.depth -= len(run)
                self._backlog.finish(run.block, range(run.start, run.stop))
            else:
                self.requeued.append(run)
        self._end_of_read()

    def _read_late(self, generation: int, wanted: list[int], found: list[tuple[Block, Row | None]] | None) -> None:
        """Take blocks that are due, with their progress; blocks that are no longer on disk are not in `found`."""
        if self._is_stale(generation, found):
            return
        assert found is not None
        backlog = self._backlog
        wall = backlog.wall()
        for block, row in found:
            if block.is_cold:  # it is damaged, and has been reported
                backlog.depth -= block.count if row is None else row[0].count(0)
                self._lose(block.seq)
                continue
            for run in self._deferred.admit_late(block, row, wall):
                self._queue.put(run)
        there = {block.seq for block, _ in found}
        for seq in wanted:
            if seq not in there and (not found or seq < found[-1][0].seq):
                self._lose(seq)
        if not self._deferred.late:  # only now is the number of messages in the lost blocks known
            missing = backlog.depth - self._queue.count - self._cold_count - sum(map(len, self.requeued))
            if missing > 0:
                self._store.missing(self._topic.name, wanted[0], wanted[-1], missing)
            backlog.depth -= missing
        self._end_of_read()

    def _lose(self, seq: int) -> None:
        """Finish a block that is due, because it is damaged or no longer on disk."""
        self._deferred.late.discard(seq)
        if self.cold_from is not None and seq >= self.cold_from:
            self.skip.add(seq)  # the cold messages were counted without it
        self._unfinished.rows.add(seq)  # it may have a row, which must not count at the next start
        self._topic.finished(seq)
        self._backlog.touch(seq)
