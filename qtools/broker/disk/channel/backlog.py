"""What waits in one channel, on disk. In: runs, new or given back; ids that are finished. Out: runs to deliver.

    put ─▶ hot: in memory, in the order of delivery ─▶ take ─▶ in flight ─▶ finish
      └──▶ cold: only on disk, from one block on ──fetch──▶ hot        └─▶ put (came back), defer (deferred.py)

Memory is bounded: so many messages, and so many bytes, are hot; what comes then is only counted. Of the deferred
messages those that are due first are in memory.

`_open` are the blocks that are hot, in flight or came back, in their order; `_aside` those that go their own way
(published deferred, read again, or begun before a restart). Below the first of them, below what is cold, and below what
is deferred on disk, all is finished.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from qtools.broker.core.block import Block, MessageRange
from qtools.broker.core.store import first_runs
from qtools.broker.disk.channel.deferred import Deferred, due_runs
from qtools.broker.disk.channel.memory_queue import BYTES, MemoryQueue
from qtools.broker.disk.channel.progress import Progress, Row
from qtools.broker.disk.channel.seq_set import SeqSet

if TYPE_CHECKING:
    from qtools.broker.disk.channel.deferred import LoadedRow
    from qtools.broker.disk.topic_log import TopicLog

Statement = tuple[str, list[tuple[object, ...]]]

SOON = 2_000_000_000  # ns: the frames of what is deferred for longer leave the memory

_UPDATE = (
    "UPDATE channel SET low = ?1, sent = ?2, checksum = row_checksum(id, topic, name, paused, ?1, ?2) WHERE id = ?3"
)
_KEEP = (
    "INSERT OR REPLACE INTO progress (channel, seq, done, attempts, due, next_due, unfinished, checksum)"
    " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, row_checksum(?1, ?2, ?3, ?4, ?5, ?6, ?7))"
)
_FORGET = "DELETE FROM progress WHERE channel = ? AND seq = ?"
_FORGET_BELOW = "DELETE FROM progress WHERE channel = ? AND seq < ?"


class ChannelBacklog:
    """One channel's part. `keeps`: it outlives the broker; else it is one of an ephemeral channel.

    depth: messages that wait; ready: how many of them are in memory.
    first: the number of the first block that may be put here.
    """

    def __init__(self, log: TopicLog, ident: int, name: str, *, first: int, sent: int = 0, keeps: bool = True) -> None:
        self.ident = ident
        self.name = name
        self.first = first
        self.keeps = keeps
        self.is_paused = False
        self.depth = 0
        self._log = log
        self._store = log.store
        self._sent = sent
        self._queue = MemoryQueue(log.store.budget)
        self._again: deque[MessageRange] = deque()  # to be delivered again, and cold
        self._cold_from: int | None = None
        self._cold_count = 0
        self._skip: set[int] = set()  # of what is cold: blocks that are finished, or in _aside
        self._open: dict[int, Progress | None] = {}
        self._aside: dict[int, Progress | None] = {}
        self._aside_order: list[int] = []  # a heap of their numbers, and of some that are there no more
        self._deferred = Deferred(self, log.store.budget.messages)
        self._dirty: set[int] = set()
        self._being_written: set[int] = set()
        self._rows: set[int] = set()  # blocks in memory, or finished, with a row in the database
        self._has_rows_below = False  # there may be rows of blocks that are deferred no more
        self._written: tuple[int, int] | None = None
        self._fetching = False
        self._generation = 0
        self._on_ready: Callable[[], None] = lambda: None

    # ── messages come ───────────────────────────────────────────────────────────────────────────

    def watch(self, on_ready: Callable[[], None]) -> None:
        """`on_ready` is to be called when something was fetched."""
        self._on_ready = on_ready

    def put(self, run: MessageRange) -> None:
        """Behind all others that are in memory."""
        block = run.block
        self.depth += run.stop - run.start
        if run.attempts:
            self._counting(block).came_back(run.start, run.stop, run.attempts)
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
            self._open[block.seq] = None
        self._add(run)

    def _add(self, run: MessageRange) -> None:
        if not run.block.is_cold:
            self._queue.put(run)
            return
        if self._again:
            last = self._again[-1]
            # Neighbours that come back one by one, in order, become one run again.
            if last.block.seq == run.block.seq and last.stop == run.start and last.attempts == run.attempts:
                last.stop = run.stop
                return
        self._again.append(run)

    def defer(self, run: MessageRange, due: int, wall: int) -> None:
        """Messages that were taken, or a block that was never put, wait until `due`."""
        if run.attempts:
            self._counting(run.block).came_back(run.start, run.stop, run.attempts, due)
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
        """What is due waits again; True when there was something."""
        return self._deferred.take_due(wall)

    def extend_deferred(self, blocks: SeqSet, count: int, gate: int) -> None:
        """`count` messages that were published deferred are for this channel too; none before `gate`."""
        if count:
            self._deferred.extend(blocks, count, gate)
            self._note()

    def extend(self, start: int, count: int) -> None:
        """`count` messages are for this channel too, from block `start` on to the newest that came."""
        self.depth += count
        self._cold_count += count
        if self._cold_from is None or start < self._cold_from:
            self._cold_from = start
        self._note()  # what is below its mark on disk may be its own from now on

    # ── messages go ─────────────────────────────────────────────────────────────────────────────

    def take(self, count: int, size: int) -> MessageRange:
        """The first messages, as Backlog says."""
        run = self._queue.take(count, size)
        self.depth -= len(run)
        block = run.block
        progress = self._open.get(block.seq)
        if run.attempts or block.seq in self._aside or (progress is not None and progress.counts):
            self._counting(block).came_back(run.start, run.stop, run.attempts + 1)
            self.touch(block.seq)
        elif block.base + run.stop > self._sent:
            self._sent = block.base + run.stop
            self._note()
        if self._queue.is_low:
            self.fetch()
        self._store.in_flight.add(run)
        return run

    def touched(self, run: MessageRange) -> None:
        """`run` was in flight, and is for longer."""
        self._store.in_flight.add(run)

    def finish(self, block: Block, which: range | Sequence[bytes]) -> None:
        """Messages of `block` are done with: places in it, or ids."""
        seq = block.seq
        held = self._aside if seq in self._aside else self._open
        if seq not in held:
            return  # the channel was emptied meanwhile
        progress = held[seq]
        if progress is None and len(which) < block.count:
            progress = held[seq] = Progress(block.count)
        if progress is not None:
            progress.finish(block, which)
        if progress is None or not progress.left:
            del held[seq]
            if self._cold_from is not None and seq >= self._cold_from:
                self._skip.add(seq)
            self._log.finished(seq)
        self.touch(seq)

    def clear(self) -> None:
        """Forget everything that came so far."""
        self._generation += 1
        self._fetching = False
        self._queue.clear()
        self._again.clear()
        self._deferred.clear()
        self._skip.clear()
        self._open.clear()
        self._aside.clear()
        self._aside_order.clear()
        self._dirty.clear()
        self._has_rows_below = True
        self.depth = self._cold_count = 0
        self._cold_from = None
        self._note()
        self._log.sweep()

    # ── what is on disk ─────────────────────────────────────────────────────────────────────────

    @property
    def ready(self) -> int:
        """How many of those that wait are in memory."""
        return self._queue.count

    @property
    def cold(self) -> int:
        """How many of those that wait are not in memory."""
        return self.depth - self._queue.count

    @property
    def low(self) -> int:
        """All blocks below are finished here."""
        given = self._log.given
        order = self._aside_order
        while order and order[0] not in self._aside:
            heapq.heappop(order)
        first, aside = next(iter(self._open), given), order[0] if order else given
        return min(first, aside, given if self._cold_from is None else self._cold_from, given, self._deferred.lowest)

    def is_done(self, seq: int) -> bool:
        """Whether the block `seq`, which has come, is finished here, or never was for this channel."""
        if seq in self._open or seq in self._aside or self._deferred.has(seq):
            return False
        return self._cold_from is None or seq < self._cold_from or seq in self._skip

    def fetch(self) -> None:
        """Read what waits on disk, if something does, there is room for it, and nothing is being read."""
        if self._fetching or not self.cold or not self._queue.has_room:
            return
        self._fetching = True
        generation = self._generation
        messages, size = self._queue.wants
        late = self._deferred.late
        if not self._again and late:
            first = late.first(256)
            self._store.reader.these_with_progress(
                self._log.ident, self.ident, first, size, lambda found: self._fetched_late(generation, first, found)
            )
        elif self._again:
            wanted = sorted({run.block.seq for run in self._again})[:256]
            self._store.reader.these(
                self._log.ident, wanted, size, lambda blocks: self._fetched_again(generation, wanted, blocks)
            )
        elif self._cold_from is not None:
            start, stop = self._cold_from, self._log.given
            self._store.reader.range(
                self._log.ident, start, stop, messages, size,
                lambda blocks: self._fetched(generation, start, stop, blocks),
            )  # fmt: skip

    def _fetched(self, generation: int, start: int, stop: int, blocks: list[Block] | None) -> None:
        """Blocks in order, from where it is cold; none when there are no more below `stop`."""
        if generation != self._generation:
            return
        self._fetching = False
        if blocks is None:  # it has been said why
            self._store.later(self.fetch)
            return
        lost: list[int] = []
        for block in blocks:
            self._cold_from = block.seq + 1
            if block.seq in self._skip:
                self._skip.discard(block.seq)
                continue
            if block.seq in self._aside or self._deferred.has(block.seq):
                continue
            self._cold_count -= block.count
            if block.is_cold:  # it is damaged, and has been reported
                self.depth -= block.count
                lost.append(block.seq)
                continue
            self._open[block.seq] = None
            for run in self._runs(block):
                self._add(run)
        if not blocks:
            self._cold_from = stop if stop < self._log.given else None
        if not self._cold_count or self._cold_from is None:
            self._cold_from = None
            if self._cold_count > 0:
                self._store.missing(self._log, start, stop - 1, self._cold_count)
            self.depth -= self._cold_count  # else nothing
            self._cold_count = 0
            self._skip.clear()
        for seq in lost:
            self._log.finished(seq)
            self._note()
        if self.cold and not self.ready:
            self.fetch()
        self._deferred.load()  # there may be room for it again
        self._on_ready()

    def _fetched_again(self, generation: int, wanted: list[int], blocks: list[Block] | None) -> None:
        if generation != self._generation:
            return
        self._fetching = False
        if blocks is None:
            self._store.later(self.fetch)
            return
        have = {block.seq: block for block in blocks}
        looked_at = set(wanted if not blocks else [seq for seq in wanted if seq <= blocks[-1].seq])
        again, self._again = self._again, deque()
        for run in again:
            block = have.get(run.block.seq)
            if block is not None and not block.is_cold:
                self._add(MessageRange(block, run.start, run.stop, run.attempts))
            elif run.block.seq in looked_at:  # it is damaged
                if block is None:
                    self._store.missing(self._log, run.block.seq, run.block.seq, len(run))
                self.depth -= len(run)
                self.finish(run.block, range(run.start, run.stop))
            else:
                self._again.append(run)
        if self.cold and not self.ready:
            self.fetch()
        self._deferred.load()  # there may be room for it again
        self._on_ready()

    def _fetched_late(self, generation: int, wanted: list[int], found: list[tuple[Block, Row | None]] | None) -> None:
        """Blocks that are due, with their progress; without those that are not there any more."""
        if generation != self._generation:
            return
        self._fetching = False
        if found is None:
            self._store.later(self.fetch)
            return
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
        if not self._deferred.late:  # then it is known how many messages the blocks had that are not there
            missing = self.depth - self._queue.count - self._cold_count - sum(map(len, self._again))
            if missing > 0:
                self._store.missing(self._log, wanted[0], wanted[-1], missing)
            self.depth -= missing
        if self.cold and not self.ready:
            self.fetch()
        self._deferred.load()  # there may be room for it again
        self._on_ready()

    def _is_lost(self, seq: int) -> None:
        """A block that was due is not there, or damaged: nothing more is to be expected of it."""
        self._deferred.late.discard(seq)
        if self._cold_from is not None and seq >= self._cold_from:
            self._skip.add(seq)  # what is cold was counted without it
        self._rows.add(seq)  # there may be one, which must not count at the next start
        self._log.finished(seq)
        self.touch(seq)

    # ── what deferred.py asks for ───────────────────────────────────────────────────────────────

    def hold(self, seq: int, progress: Progress | None) -> None:
        """A block is in memory, out of its turn; with `progress` there is a row of it."""
        if seq not in self._aside and seq not in self._open:
            self._aside[seq] = progress
            heapq.heappush(self._aside_order, seq)
            if progress is not None:
                self._rows.add(seq)

    def release(self, seq: int) -> None:
        """A block is not in memory any more."""
        held = self._aside if seq in self._aside else self._open
        held.pop(seq, None)
        self._rows.discard(seq)

    def progress(self, seq: int) -> Progress | None:
        """Of a block that is in memory."""
        return self._open.get(seq) or self._aside.get(seq)

    def is_written(self, seq: int) -> bool:
        """Whether the database has what is in memory of a block."""
        return self.keeps and seq not in self._dirty and seq not in self._being_written

    def written(self) -> None:
        """What `statements` answered is in the database."""
        written, self._being_written = self._being_written, set()
        for seq in written:
            self._deferred.written(seq)

    @property
    def has_room(self) -> bool:
        """Whether what is due may come into memory."""
        return self._queue.has_room and not self.is_full

    @property
    def is_full(self) -> bool:
        """Whether so much is due and not read yet that nothing more should be."""
        return len(self._again) >= self._store.budget.messages

    def came_late(self, seq: int, count: int) -> None:
        """A block is due that stays on disk for now."""
        self.depth += count
        self._deferred.late.add(seq)

    def read_deferred(
        self, after: tuple[int, int], upto: int, limit: int, answer: Callable[[list[LoadedRow] | None], None]
    ) -> None:
        self._store.reader.next_due(self._log.ident, self.ident, after, upto, limit, answer)

    def deferred_loaded(self) -> None:
        """Something may be due earlier than before."""
        self._on_ready()

    def later(self, what: Callable[[], None]) -> None:
        self._store.later(what)

    def wall(self) -> int:
        """The time, ns since 1970."""
        return self._store.clock.wall()

    def latest_due(self, wall: int) -> int:
        """A message cannot be deferred for longer."""
        return wall + self._store.longest_deferral

    def _runs(self, block: Block) -> list[MessageRange]:
        """A whole block, as runs: what was delivered before a restart has had an attempt."""
        sent = self._delivered(block)
        if sent == 0 or sent == block.count:
            return [MessageRange(block, 0, block.count, 1 if sent else 0)]
        return [MessageRange(block, 0, sent, 1), MessageRange(block, sent, block.count)]

    # ── what is kept ────────────────────────────────────────────────────────────────────────────

    def restore(self, low: int, cold_count: int, kept: dict[int, tuple[Block, Progress | None]], wall: int) -> None:
        """As it was when the broker ended. `kept`, in order: blocks that are not simply cold, None when finished.

        cold_count: messages of the other blocks from `low` on, without deferred ones.
        """
        self._cold_from = low if cold_count else None
        self._cold_count = cold_count
        self.depth += cold_count
        for seq, (block, progress) in kept.items():
            self._rows.add(seq)
            self._skip.add(seq)
            if progress is None:
                continue
            self.hold(seq, progress)
            progress.count(self._delivered(block))
            if not block.due or progress.next_due:  # from now on the mark `sent` moves without it
                self.touch(seq)
            for run in self._deferred.take_ready(block, progress, wall):
                self.depth += run.stop - run.start
                self._again.append(run)

    def restore_deferred(self, blocks: SeqSet, count: int, late: SeqSet, late_count: int, wall: int) -> None:
        """Blocks that are on disk only: deferred beyond `wall`, with `count` messages; and due, with `late_count`."""
        self.depth += late_count
        self._deferred.restore(blocks, count, late, wall)

    def statements(self) -> list[Statement]:
        """What has changed since the last call, for the database."""
        if not self.keeps:
            self._dirty.clear()
            return []
        made: list[Statement] = []
        low = self.low
        kept: list[tuple[object, ...]] = []
        forgotten: list[tuple[object, ...]] = []
        for seq in self._dirty:
            progress = self._open.get(seq) or self._aside.get(seq)
            if progress is not None:
                kept.append((self.ident, seq, *progress.row(), progress.next_due, progress.left))
            elif seq >= low and self._log.has(seq) and self.is_done(seq):
                kept.append((self.ident, seq, None, None, None, 0, 0))
            elif seq in self._rows:
                forgotten.append((self.ident, seq))
        self._being_written |= self._dirty
        self._dirty.clear()
        if kept:
            made.append((_KEEP, kept))
            self._rows.update(row[1] for row in kept)  # type: ignore[misc]
        if forgotten:
            made.append((_FORGET, forgotten))
            self._rows.difference_update(row[1] for row in forgotten)
        if (low, self._sent) != self._written:
            self._written = (low, self._sent)
            self._log.advanced()
            made.append((_UPDATE, [(low, self._sent, self.ident)]))
            if self._has_rows_below or any(seq < low for seq in self._rows):
                self._has_rows_below = False
                made.append((_FORGET_BELOW, [(self.ident, low)]))
                self._rows = {seq for seq in self._rows if seq >= low}
        return made

    def removed(self, seq: int) -> None:
        """The block is gone, as every channel is done with it."""
        if seq in self._rows:
            self.touch(seq)

    def _delivered(self, block: Block) -> int:
        """How many messages of a block, its first ones, went out in their turn; what is deferred has none."""
        return 0 if block.due else min(max(self._sent - block.base, 0), block.count)

    def _counting(self, block: Block) -> Progress:
        """The progress of a block of which something comes again."""
        held = self._aside if block.seq in self._aside else self._open
        progress = held.get(block.seq)
        if progress is None:
            progress = held[block.seq] = Progress(block.count)
        progress.count(self._delivered(block))
        return progress

    def touch(self, seq: int) -> None:
        self._dirty.add(seq)
        self._note()

    def _note(self) -> None:
        self._store.touched(self)

    def peek(self, count: int, answer: Callable[[list[MessageRange] | None], None]) -> None:
        """The first that wait: those in memory, those that come again, those that are due and not read yet, and then
        what was never read."""
        runs = first_runs(self._queue, count)
        again = first_runs(self._again, count - sum(map(len, runs)))
        if not again:
            self._peek_late(runs, count, answer)
            return

        def found(blocks: list[Block] | None) -> None:
            if blocks is None:
                answer(None)
                return
            have = {block.seq: block for block in blocks if not block.is_cold}
            for run in again:
                if run.block.seq in have:
                    runs.append(MessageRange(have[run.block.seq], run.start, run.stop, run.attempts))
            self._peek_late(runs, count, answer)

        self._store.reader.these(self._log.ident, sorted({run.block.seq for run in again}), BYTES, found)

    def _peek_late(
        self, runs: list[MessageRange], count: int, answer: Callable[[list[MessageRange] | None], None]
    ) -> None:
        missing = count - sum(map(len, runs))
        if missing <= 0 or not self._deferred.late:
            self._peek_cold(runs, count, answer)
            return

        def found(blocks: list[tuple[Block, Row | None]] | None) -> None:
            if blocks is None:
                answer(None)
                return
            wall = self.wall()
            latest = self.latest_due(wall)
            late = [run for block, row in blocks if not block.is_cold for run in due_runs(block, row, wall, latest)]
            self._peek_cold(runs + first_runs(late, missing), count, answer)

        first = self._deferred.late.first(missing)
        self._store.reader.these_with_progress(self._log.ident, self.ident, first, BYTES, found)

    def _peek_cold(
        self, runs: list[MessageRange], count: int, answer: Callable[[list[MessageRange] | None], None]
    ) -> None:
        missing = count - sum(map(len, runs))
        if missing <= 0 or self._cold_from is None:
            answer(runs)
            return
        skip = set(self._skip)

        def is_cold(block: Block) -> bool:
            """Whether it waits, was not looked at above, and can be read."""
            seq = block.seq
            goes_its_own_way = seq in skip or seq in self._skip or seq in self._aside or self._deferred.has(seq)
            return not goes_its_own_way and not block.is_cold

        def found(blocks: list[Block] | None) -> None:
            if blocks is None:
                answer(None)
                return
            cold = [run for block in blocks if is_cold(block) for run in self._runs(block)]
            answer(runs + first_runs(cold, missing))

        self._store.reader.range(self._log.ident, self._cold_from, self._log.given, missing, BYTES, found)

    def __repr__(self) -> str:
        return f"<ChannelBacklog {self._log.name}/{self.name} depth={self.depth} ready={self.ready} low={self.low}>"
