"""The messages of one channel that wait, in memory and on disk. In: ranges of messages, new or requeued; finished ids.
Out: ranges to deliver.

    put ─▶ memory queue, in the order of delivery ─▶ take ─▶ in flight ─▶ finish
      └──▶ on disk only (on_disk.py) ──fetch──▶ memory queue                └─▶ put (requeued), defer (deferred.py)

The memory is bounded: the memory queue takes a number of messages and of bytes. What is put after that is only counted,
and is cold. Of the deferred messages, those that are due first are in memory.

The channel has finished all blocks below the first one that is unfinished (unfinished.py), cold, or deferred on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qtools.broker.core.block import Block, MessageRange, first_ranges
from qtools.broker.disk.channel.contract import ChannelTopic
from qtools.broker.disk.channel.deferred import Deferred, LoadedRow
from qtools.broker.disk.channel.memory_queue import MemoryQueue
from qtools.broker.disk.channel.on_disk import MessagesOnDisk
from qtools.broker.disk.channel.peek import PeekRequest
from qtools.broker.disk.channel.progress import Progress
from qtools.broker.disk.channel.seq_set import SeqSet
from qtools.broker.disk.channel.unfinished import UnfinishedBlocks
from qtools.broker.disk.database import Statement

SOON = 2_000_000_000  # ns: the frames of messages that are deferred for longer leave the memory


class ChannelBacklog:
    """One channel. keeps: the channel outlives the broker; False for an ephemeral one.

    depth: messages that wait. first: the number of the first block that may be put here. sent: all messages with a
    lower number were delivered at least once.
    """

    def __init__(
        self, log: ChannelTopic, ident: int, name: str, *, first: int, sent: int = 0, keeps: bool = True
    ) -> None:
        self.ident = ident
        self.name = name
        self.first = first
        self.keeps = keeps
        self.is_paused = False
        self.depth = 0
        self._log = log
        self._store = log.store
        self._queue = MemoryQueue(log.store.budget)
        self._unfinished = UnfinishedBlocks(ident, sent)
        self._deferred = Deferred(self, log.store.budget.messages)
        self._disk = MessagesOnDisk(self, log, self._queue, self._unfinished, self._deferred)
        self._on_ready: Callable[[], None] = lambda: None

    # ── messages come ───────────────────────────────────────────────────────────────────────────

    def watch(self, on_ready: Callable[[], None]) -> None:
        """Call `on_ready` whenever messages were fetched."""
        self._on_ready = on_ready

    def put(self, run: MessageRange) -> None:
        """Append `run`."""
        block = run.block
        self.depth += run.stop - run.start
        if run.attempts:
            self._unfinished.counting(block).came_back(run.start, run.stop, run.attempts)
            self.touch(block.seq)
        elif block.due:
            if not self.has_room:
                self.release(block.seq)
                self._deferred.late.add(block.seq)
                return
            self.hold(block.seq, None)
        elif self._disk.cold_from is not None or not self._queue.has_room:
            self._disk.append(block.seq, run.stop - run.start)
            return
        else:
            self._unfinished.in_order[block.seq] = None
        if block.is_cold:
            self._disk.requeue(run)
        else:
            self._queue.put(run)

    def defer(self, run: MessageRange, due: int, wall: int) -> None:
        """Hold back messages that were taken, or a block that was never put, until `due`."""
        if run.attempts:
            self._unfinished.counting(run.block).came_back(run.start, run.stop, run.attempts, due)
            self.touch(run.block.seq)
        self._deferred.defer(run, due, near=due - wall <= SOON)

    @property
    def deferred(self) -> int:
        """How many messages are deferred."""
        return self._deferred.count

    def next_due(self) -> int | None:
        """When `take_due` should be called next."""
        return self._deferred.next_due()

    def take_due(self, wall: int) -> bool:
        """Append the messages that are due at `wall`. Returns True when there were any."""
        return self._deferred.take_due(wall)

    def extend_deferred(self, blocks: SeqSet, count: int, not_before: int) -> None:
        """Add `blocks` on disk, with `count` messages that were published deferred. None is delivered before
        `not_before`, ns since 1970."""
        if count:
            self._deferred.extend(blocks, count, not_before)
            self._note()

    def extend(self, start: int, count: int) -> None:
        """Add the blocks on disk from `start` to the newest one, with `count` messages."""
        self.depth += count
        self._disk.extend(start, count)
        self._note()  # `low` in the database has to come down to `start`

    # ── messages go ─────────────────────────────────────────────────────────────────────────────

    def take(self, count: int, size: int) -> MessageRange:
        """Remove and return the first messages, as Backlog.take says."""
        run = self._queue.take(count, size)
        self.depth -= len(run)
        block = run.block
        unfinished = self._unfinished
        progress = unfinished.in_order.get(block.seq)
        if run.attempts or block.seq in unfinished.out_of_order or (progress is not None and progress.counts):
            unfinished.counting(block).came_back(run.start, run.stop, run.attempts + 1)
            self.touch(block.seq)
        elif block.base + run.stop > unfinished.sent:
            unfinished.sent = block.base + run.stop
            self._note()
        if self._queue.is_low:
            self.fetch()
        self._store.in_flight.add(run)
        return run

    def touched(self, run: MessageRange) -> None:
        """Note that the client has extended the timeout of `run`."""
        self._store.in_flight.add(run)

    def finish(self, block: Block, which: range | Sequence[bytes]) -> None:
        """Finish messages of `block`: places in it, or ids."""
        is_whole = self._unfinished.finish(block, which)
        if is_whole is None:
            return  # the channel was emptied meanwhile
        seq = block.seq
        if is_whole:
            disk = self._disk
            if disk.cold_from is not None and seq >= disk.cold_from:
                disk.skip.add(seq)
            self._log.finished(seq)
        self.touch(seq)

    def clear(self) -> None:
        """Forget all messages."""
        self._queue.clear()
        self._disk.clear()
        self._deferred.clear()
        self._unfinished.clear()
        self.depth = 0
        self._note()
        self._log.sweep()

    # ── what is on disk ─────────────────────────────────────────────────────────────────────────

    @property
    def ready(self) -> int:
        """How many of the waiting messages are in memory."""
        return self._queue.count

    @property
    def cold(self) -> int:
        """How many of the waiting messages are not in memory."""
        return self.depth - self._queue.count

    @property
    def low(self) -> int:
        """The channel has finished all blocks with a lower number."""
        given = self._log.given
        cold_from = given if self._disk.cold_from is None else self._disk.cold_from
        return min(self._unfinished.lowest(given), cold_from, self._deferred.lowest)

    def is_done(self, seq: int) -> bool:
        """Whether the channel has finished the block `seq`, or was never to receive it. The block was published."""
        return not (seq in self._unfinished or self._deferred.has(seq) or self._disk.has_never_read(seq))

    def fetch(self) -> None:
        """Read waiting messages from disk, if there are some, the memory has room, and no read is under way."""
        if self.cold and self._queue.has_room:
            self._disk.fetch()

    # ── for deferred.py and on_disk.py ──────────────────────────────────────────────────────────

    def loaded(self) -> None:
        """Note that messages have come into memory, or that one may be due earlier than before."""
        self._on_ready()

    def hold(self, seq: int, progress: Progress | None) -> None:
        """Add a block to the memory, out of order. A block with `progress` has a row in the database."""
        self._unfinished.hold(seq, progress)

    def release(self, seq: int) -> None:
        """Remove a block from the memory."""
        self._unfinished.release(seq)

    def progress(self, seq: int) -> Progress | None:
        """The progress of a block in memory, if it has one."""
        return self._unfinished.progress(seq)

    def is_written(self, seq: int) -> bool:
        """Whether the database has everything that is in memory of a block."""
        return self.keeps and self._unfinished.is_written(seq)

    @property
    def has_room(self) -> bool:
        """Whether messages that are due may come into memory."""
        return self._queue.has_room and not self.is_full

    @property
    def is_full(self) -> bool:
        """Whether so many messages are due and not in memory that no more should be looked for."""
        return len(self._disk.requeued) >= self._store.budget.messages

    def came_late(self, seq: int, count: int) -> None:
        """Count `count` messages of a block that is due and stays on disk for now."""
        self.depth += count
        self._deferred.late.add(seq)

    def read_deferred(
        self, after: tuple[int, int], upto: int, limit: int, answer: Callable[[list[LoadedRow] | None], None]
    ) -> None:
        self._store.reader.next_due(self._log.ident, self.ident, after, upto, limit, answer)

    def later(self, what: Callable[[], None]) -> None:
        self._store.later(what)

    def wall(self) -> int:
        """The time, ns since 1970."""
        return self._store.clock.wall()

    def latest_due(self, wall: int) -> int:
        """The latest due time that a message can have."""
        return wall + self._store.longest_deferral

    # ── what is kept ────────────────────────────────────────────────────────────────────────────

    def restore(self, low: int, cold_count: int, kept: dict[int, tuple[Block, Progress | None]], wall: int) -> None:
        """Continue as the broker ended. kept: the blocks with a row in progress, in order; None when finished.

        cold_count: messages of the other blocks from `low` on, without deferred ones.
        """
        if cold_count:
            self.depth += cold_count
            self._disk.extend(low, cold_count)
        for seq, (block, progress) in kept.items():
            self._unfinished.rows.add(seq)
            self._disk.skip.add(seq)
            if progress is None:
                continue
            self.hold(seq, progress)
            progress.count(self._unfinished.delivered(block))
            if not block.due or progress.next_due:  # from now on `sent` grows without regard to it
                self.touch(seq)
            for run in self._deferred.take_ready(block, progress, wall):
                self.depth += run.stop - run.start
                self._disk.requeued.append(run)

    def restore_deferred(self, blocks: SeqSet, count: int, late: SeqSet, late_count: int, wall: int) -> None:
        """Set the blocks that are on disk only: `blocks` are deferred beyond `wall`, with `count` messages; `late` are
        due, with `late_count` messages."""
        self.depth += late_count
        self._deferred.restore(blocks, count, late, wall)

    def statements(self) -> list[Statement]:
        """What has changed since the last call, for the database."""
        if not self.keeps:
            self._unfinished.forget_changes()
            return []
        made, has_advanced = self._unfinished.statements(self.low, lambda seq: self._log.has(seq) and self.is_done(seq))
        if has_advanced:
            self._log.advanced()
        return made

    def written(self) -> None:
        """Note that everything returned by `statements` is in the database."""
        for seq in self._unfinished.written():
            self._deferred.written(seq)

    def removed(self, seq: int) -> None:
        """Note that the block was deleted, because every channel has finished it."""
        if seq in self._unfinished.rows:
            self.touch(seq)

    def touch(self, seq: int) -> None:
        """Write the row of a block with the next commit."""
        self._unfinished.touch(seq)
        self._store.touched(self)

    def _note(self) -> None:
        self._store.touched(self)

    # ── for peek.py ─────────────────────────────────────────────────────────────────────────────

    def peek(self, count: int, answer: Callable[[list[MessageRange] | None], None]) -> None:
        """Call `answer` with the first `count` waiting messages, or with None when they cannot be read."""
        PeekRequest(self, self._store.reader, count, answer).start()

    @property
    def topic(self) -> int:
        """The number of the topic in the database."""
        return self._log.ident

    def first_in_memory(self, count: int) -> list[MessageRange]:
        return first_ranges(self._queue, count)

    def first_requeued(self, count: int) -> list[MessageRange]:
        return first_ranges(self._disk.requeued, count)

    def first_late(self, count: int) -> list[int]:
        return self._deferred.late.first(count)

    def never_read(self) -> tuple[int, int] | None:
        return None if self._disk.cold_from is None else (self._disk.cold_from, self._log.given)

    def skipped(self) -> set[int]:
        return set(self._disk.skip)

    def is_never_read(self, seq: int) -> bool:
        return not (seq in self._disk.skip or seq in self._unfinished.out_of_order or self._deferred.has(seq))

    def whole(self, block: Block) -> list[MessageRange]:
        """A whole block, as ranges: messages that were delivered before a restart have had one attempt."""
        sent = self._unfinished.delivered(block)
        if sent == 0 or sent == block.count:
            return [MessageRange(block, 0, block.count, 1 if sent else 0)]
        return [MessageRange(block, 0, sent, 1), MessageRange(block, sent, block.count)]

    def __repr__(self) -> str:
        return f"<ChannelBacklog {self._log.name}/{self.name} depth={self.depth} ready={self.ready} low={self.low}>"
