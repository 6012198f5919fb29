"""The messages of one channel that wait, in memory and on disk. In: ranges of messages, new or requeued; finished ids.
Out: ranges to deliver.

    put ─▶ memory queue, in the order of delivery ─▶ take ─▶ in flight ─▶ finish
      └──▶ cold: on disk only, from one block on ──fetch──▶ memory queue    └─▶ put (requeued), defer (deferred.py)

The memory is bounded: the memory queue takes a number of messages and of bytes. What is put after that is only counted,
and is cold. Of the deferred messages, those that are due first are in memory.

The channel has finished all blocks below the first one that is unfinished (unfinished.py), cold, or deferred on disk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from qtools.broker.core.block import Block, MessageRange, first_ranges
from qtools.broker.disk.channel.contract import ChannelTopic
from qtools.broker.disk.channel.deferred import Deferred, LoadedRow
from qtools.broker.disk.channel.memory_queue import MemoryQueue
from qtools.broker.disk.channel.peek import Peek
from qtools.broker.disk.channel.progress import Progress, Row
from qtools.broker.disk.channel.seq_set import SeqSet
from qtools.broker.disk.channel.unfinished import UnfinishedBlocks
from qtools.broker.disk.database import Statement

SOON = 2_000_000_000  # ns: the frames of messages that are deferred for longer leave the memory
_MOST_WANTED = 256  # blocks that one read asks for by their numbers


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
        self._requeued: deque[MessageRange] = deque()  # ranges that were requeued and are not in memory
        self._cold_from: int | None = None
        self._cold_count = 0
        self._skip: set[int] = set()  # blocks in the cold range that are finished or unfinished, and so not cold
        self._unfinished = UnfinishedBlocks(ident, sent)
        self._deferred = Deferred(self, log.store.budget.messages)
        self._fetching = False
        self._generation = 0  # grows when the channel is emptied: answers to earlier reads are then ignored
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
        elif self._cold_from is not None or not self._queue.has_room:
            if self._cold_from is None:
                self._cold_from = block.seq
            self._cold_count += run.stop - run.start
            return
        else:
            self._unfinished.in_order[block.seq] = None
        self._add(run)

    def _add(self, run: MessageRange) -> None:
        if not run.block.is_cold:
            self._queue.put(run)
            return
        if self._requeued:
            last = self._requeued[-1]
            # Neighbours that are requeued one by one, in order, become one range again.
            if last.block.seq == run.block.seq and last.stop == run.start and last.attempts == run.attempts:
                last.stop = run.stop
                return
        self._requeued.append(run)

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

    def extend_deferred(self, blocks: SeqSet, count: int, gate: int) -> None:
        """Add `blocks` on disk, with `count` messages that were published deferred; none is delivered before `gate`."""
        if count:
            self._deferred.extend(blocks, count, gate)
            self._note()

    def extend(self, start: int, count: int) -> None:
        """Add the blocks on disk from `start` to the newest one, with `count` messages."""
        self.depth += count
        self._cold_count += count
        if self._cold_from is None or start < self._cold_from:
            self._cold_from = start
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
            if self._cold_from is not None and seq >= self._cold_from:
                self._skip.add(seq)
            self._log.finished(seq)
        self.touch(seq)

    def clear(self) -> None:
        """Forget all messages."""
        self._generation += 1
        self._fetching = False
        self._queue.clear()
        self._requeued.clear()
        self._deferred.clear()
        self._skip.clear()
        self._unfinished.clear()
        self.depth = self._cold_count = 0
        self._cold_from = None
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
        cold_from = given if self._cold_from is None else self._cold_from
        return min(self._unfinished.lowest(given), cold_from, self._deferred.lowest)

    def is_done(self, seq: int) -> bool:
        """Whether the channel has finished the block `seq`, or was never to receive it. The block was published."""
        if seq in self._unfinished or self._deferred.has(seq):
            return False
        return self._cold_from is None or seq < self._cold_from or seq in self._skip

    def fetch(self) -> None:
        """Read waiting messages from disk, if there are some, the memory has room, and no read is under way."""
        if self._fetching or not self.cold or not self._queue.has_room:
            return
        self._fetching = True
        generation = self._generation
        messages, size = self._queue.room
        late = self._deferred.late
        if not self._requeued and late:
            first = late.first(_MOST_WANTED)
            self._store.reader.these_with_progress(
                self._log.ident, self.ident, first, size, lambda found: self._fetched_late(generation, first, found)
            )
        elif self._requeued:
            wanted = sorted({run.block.seq for run in self._requeued})[:_MOST_WANTED]
            self._store.reader.these(
                self._log.ident, wanted, size, lambda blocks: self._fetched_requeued(generation, wanted, blocks)
            )
        elif self._cold_from is not None:
            start, stop = self._cold_from, self._log.given
            self._store.reader.range(
                self._log.ident, start, stop, messages, size,
                lambda blocks: self._fetched_cold(generation, start, stop, blocks),
            )  # fmt: skip

    def _is_stale(self, generation: int, found: object) -> bool:
        """Whether the answer to a read is of no use: the channel was emptied, or the read failed and is tried again."""
        if generation != self._generation:
            return True
        self._fetching = False
        if found is None:  # the reader has logged the reason
            self._store.later(self.fetch)
        return found is None

    def _fetch_is_over(self) -> None:
        if self.cold and not self.ready:
            self.fetch()
        self._deferred.load()  # there may be room for it again
        self._on_ready()

    def _fetched_cold(self, generation: int, start: int, stop: int, blocks: list[Block] | None) -> None:
        """Add blocks of the cold range, in order; no blocks means that there are none left below `stop`."""
        if self._is_stale(generation, blocks):
            return
        assert blocks is not None
        lost: list[int] = []
        for block in blocks:
            self._cold_from = block.seq + 1
            if block.seq in self._skip:
                self._skip.discard(block.seq)
                continue
            if block.seq in self._unfinished.out_of_order or self._deferred.has(block.seq):
                continue
            self._cold_count -= block.count
            if block.is_cold:  # it is damaged, and has been reported
                self.depth -= block.count
                lost.append(block.seq)
                continue
            self._unfinished.in_order[block.seq] = None
            for run in self.whole(block):
                self._add(run)
        if not blocks:
            self._cold_from = stop if stop < self._log.given else None
        if not self._cold_count or self._cold_from is None:
            self._cold_from = None
            if self._cold_count > 0:
                self._store.missing(self._log.name, start, stop - 1, self._cold_count)
            self.depth -= self._cold_count
            self._cold_count = 0
            self._skip.clear()
        for seq in lost:
            self._log.finished(seq)
            self._note()
        self._fetch_is_over()

    def _fetched_requeued(self, generation: int, wanted: list[int], blocks: list[Block] | None) -> None:
        """Add the blocks of requeued ranges. The read may have ended before the last of `wanted`."""
        if self._is_stale(generation, blocks):
            return
        assert blocks is not None
        have = {block.seq: block for block in blocks}
        looked_at = set(wanted if not blocks else [seq for seq in wanted if seq <= blocks[-1].seq])
        requeued, self._requeued = self._requeued, deque()
        for run in requeued:
            block = have.get(run.block.seq)
            if block is not None and not block.is_cold:
                self._add(MessageRange(block, run.start, run.stop, run.attempts))
            elif run.block.seq in looked_at:  # it is damaged
                if block is None:
                    self._store.missing(self._log.name, run.block.seq, run.block.seq, len(run))
                self.depth -= len(run)
                self.finish(run.block, range(run.start, run.stop))
            else:
                self._requeued.append(run)
        self._fetch_is_over()

    def _fetched_late(self, generation: int, wanted: list[int], found: list[tuple[Block, Row | None]] | None) -> None:
        """Add blocks that are due, with their progress; blocks that are no longer on disk are not in `found`."""
        if self._is_stale(generation, found):
            return
        assert found is not None
        wall = self.wall()
        for block, row in found:
            if block.is_cold:  # it is damaged, and has been reported
                self.depth -= block.count if row is None else row[0].count(0)
                self._is_lost(block.seq)
                continue
            for run in self._deferred.admit_late(block, row, wall):
                self._add(run)
        there = {block.seq for block, _ in found}
        for seq in wanted:
            if seq not in there and (not found or seq < found[-1][0].seq):
                self._is_lost(seq)
        if not self._deferred.late:  # only now is the number of messages in the lost blocks known
            missing = self.depth - self._queue.count - self._cold_count - sum(map(len, self._requeued))
            if missing > 0:
                self._store.missing(self._log.name, wanted[0], wanted[-1], missing)
            self.depth -= missing
        self._fetch_is_over()

    def _is_lost(self, seq: int) -> None:
        """Finish a block that is due, because it is damaged or no longer on disk."""
        self._deferred.late.discard(seq)
        if self._cold_from is not None and seq >= self._cold_from:
            self._skip.add(seq)  # the cold messages were counted without it
        self._unfinished.rows.add(seq)  # it may have a row, which must not count at the next start
        self._log.finished(seq)
        self.touch(seq)

    # ── for deferred.py ─────────────────────────────────────────────────────────────────────────

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
        return len(self._requeued) >= self._store.budget.messages

    def came_late(self, seq: int, count: int) -> None:
        """Count `count` messages of a block that is due and stays on disk for now."""
        self.depth += count
        self._deferred.late.add(seq)

    def read_deferred(
        self, after: tuple[int, int], upto: int, limit: int, answer: Callable[[list[LoadedRow] | None], None]
    ) -> None:
        self._store.reader.next_due(self._log.ident, self.ident, after, upto, limit, answer)

    def deferred_loaded(self) -> None:
        """Note that a message may be due earlier than before."""
        self._on_ready()

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
        self._cold_from = low if cold_count else None
        self._cold_count = cold_count
        self.depth += cold_count
        for seq, (block, progress) in kept.items():
            self._unfinished.rows.add(seq)
            self._skip.add(seq)
            if progress is None:
                continue
            self.hold(seq, progress)
            progress.count(self._unfinished.delivered(block))
            if not block.due or progress.next_due:  # from now on `sent` grows without regard to it
                self.touch(seq)
            for run in self._deferred.take_ready(block, progress, wall):
                self.depth += run.stop - run.start
                self._requeued.append(run)

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
        Peek(self, self._store.reader, count, answer).start()

    @property
    def topic(self) -> int:
        """The number of the topic in the database."""
        return self._log.ident

    def first_in_memory(self, count: int) -> list[MessageRange]:
        return first_ranges(self._queue, count)

    def first_requeued(self, count: int) -> list[MessageRange]:
        return first_ranges(self._requeued, count)

    def first_late(self, count: int) -> list[int]:
        return self._deferred.late.first(count)

    def never_read(self) -> tuple[int, int] | None:
        return None if self._cold_from is None else (self._cold_from, self._log.given)

    def skipped(self) -> set[int]:
        return set(self._skip)

    def is_never_read(self, seq: int) -> bool:
        return not (seq in self._skip or seq in self._unfinished.out_of_order or self._deferred.has(seq))

    def whole(self, block: Block) -> list[MessageRange]:
        """A whole block, as ranges: messages that were delivered before a restart have had one attempt."""
        sent = self._unfinished.delivered(block)
        if sent == 0 or sent == block.count:
            return [MessageRange(block, 0, block.count, 1 if sent else 0)]
        return [MessageRange(block, 0, sent, 1), MessageRange(block, sent, block.count)]

    def __repr__(self) -> str:
        return f"<ChannelBacklog {self._log.name}/{self.name} depth={self.depth} ready={self.ready} low={self.low}>"
