"""The deferred messages of one channel. Those that are due first are in memory, the others on disk.
In: ranges of messages, due times. Out: ranges that are due.

    defer ─┬─▶ window: in memory, up to the horizon ──due──▶ put into the backlog
           └─▶ beyond the horizon, in a block that is in memory because of another message
                 └─written─▶ on disk only ──load──▶ window
                                           └─▶ late: due, but on disk only while the memory has no room

The horizon is a due time and a block number. Messages that are due up to the horizon are in the window, later ones are
not. The horizon is infinite as long as all messages fit. It falls when the window is full, and rises when the next
blocks are read. A block leaves the memory as a whole, once all of its unfinished messages are deferred beyond the
horizon and its row in the database says so. Only its number stays in memory, as a bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from qtools.broker.core.block import Block, MessageRange
from qtools.broker.core.deferral_queue import DeferralQueue
from qtools.broker.disk.channel.progress import Progress, Row, ranges, split_by_due
from qtools.broker.disk.channel.seq_set import SeqSet

Key = tuple[int, int]  # due time, ns since 1970; number of the block
LoadedRow = tuple[int, Block, Row | None]  # the due time of the key, the block, its progress if it has a row

EVER: Key = ((1 << 63) - 1, 0)  # the largest that the database takes
_LAST_SEQ = 1 << 62
FAILURES = 3  # reads in a row that fail before the index of due times counts as damaged
FRAME_BYTES = 2 * 1024 * 1024  # frames in memory for the window; the frames of more messages are read when they are due


class DeferringBacklog(Protocol):
    """The backlog of the channel, which receives the messages that are due. depth: messages that wait."""

    depth: int

    @property
    def has_room(self) -> bool:
        """Whether messages that are due may come into memory."""
        ...

    @property
    def is_full(self) -> bool:
        """Whether so many messages are due and not in memory that no more should be looked for."""
        ...

    def put(self, run: MessageRange) -> None: ...
    def hold(self, seq: int, progress: Progress | None) -> None: ...
    def release(self, seq: int) -> None: ...
    def progress(self, seq: int) -> Progress | None: ...
    def is_written(self, seq: int) -> bool: ...
    def touch(self, seq: int) -> None: ...
    def fetch(self) -> None: ...
    def came_late(self, seq: int, count: int) -> None:
        """Count `count` messages of a block that is due and stays on disk for now."""
        ...

    def read_deferred(
        self, after: Key, upto: int, limit: int, answer: Callable[[list[LoadedRow] | None], None]
    ) -> None:
        """Read the next `limit` blocks by due time; `answer` gets None when that fails."""
        ...

    def loaded(self) -> None:
        """Note that a message may be due earlier than before."""
        ...

    def later(self, what: Callable[[], None]) -> None: ...
    def wall(self) -> int: ...
    def latest_due(self, wall: int) -> int: ...


class Deferred:
    """The deferred messages of one channel. count: how many there are.

    late: blocks that are due and were not read yet. Their messages are counted in the backlog, and not here.
    """

    def __init__(self, backlog: DeferringBacklog, limit: int) -> None:
        self.count = 0
        self.late = SeqSet()
        self._backlog = backlog
        self._limit = max(limit, 2)  # entries of the window
        self._evict_at = self._limit
        self._window = DeferralQueue()
        self._horizon: Key = EVER
        self._on_disk = SeqSet()  # blocks on disk only, deferred beyond the horizon
        # By number: the earliest due time beyond the horizon, and the block.
        self._beyond_horizon: dict[int, tuple[int, Block]] = {}
        self._failures = 0  # reads in a row that failed
        self._not_before = 0  # ns since 1970: no read is started before
        self._generation = 0
        self._loading = False
        self._will_load_later = False
        self._added_meanwhile: set[int] = set()  # blocks on disk only since the read began: it may not find them
        self._first_meanwhile: Key = EVER  # the earliest of those blocks

    # ── state ───────────────────────────────────────────────────────────────────

    def has(self, seq: int) -> bool:
        """Whether the block is on disk only."""
        return seq in self._on_disk or seq in self.late

    @property
    def lowest(self) -> int:
        """The lowest number of a block that is on disk only."""
        return min(self._on_disk.lowest(_LAST_SEQ), self.late.lowest(_LAST_SEQ))

    def next_due(self) -> int | None:
        """When `take_due` should be called, ns since 1970."""
        due = self._window.next()
        if self._not_before and self._on_disk:
            return self._not_before if due is None else min(due, self._not_before)
        return due

    # ── messages are deferred ───────────────────────────────────────────────────────────────────

    def defer(self, run: MessageRange, due: int, *, near: bool) -> None:
        """Hold back `run` until `due`. Its progress says so too, unless it is a block that was never delivered.

        near: it is due so soon that its frames may stay in memory.
        """
        self.count += run.stop - run.start
        block = run.block
        seq = block.seq
        if (due, seq) > self._horizon:
            if run.attempts:
                self._add_beyond_horizon(block, due)
            else:
                self._keep_on_disk(due, seq)
            return
        if not run.attempts:
            self._backlog.hold(seq, None)
        if not block.is_cold and not (near and self._window.frame_bytes < FRAME_BYTES):
            run = MessageRange(block.cold(), run.start, run.stop, run.attempts)
        self._add(run, due)

    def _add(self, run: MessageRange, due: int) -> None:
        self._window.add(run, due)
        if len(self._window) > self._evict_at:
            self._evict(self._limit // 2)

    def _evict(self, keep: int) -> None:
        """Remove all entries of the window but the first `keep`."""
        due, seq, gone = self._window.evict(keep)
        self._horizon = due, seq
        self._evict_at = max(self._limit, 2 * len(self._window))
        may_leave_memory = set()
        for due, run in gone:
            seq = run.block.seq
            if run.attempts:
                self._add_beyond_horizon(run.block, due)
                may_leave_memory.add(seq)
            else:
                self._backlog.release(seq)
                self._keep_on_disk(due, seq)
        for seq in may_leave_memory:
            self.written(seq)

    def _add_beyond_horizon(self, block: Block, due: int) -> None:
        """Note that a message of a block in memory is deferred beyond the horizon."""
        known = self._beyond_horizon.get(block.seq)
        if known is None:
            self._beyond_horizon[block.seq] = due, block if block.is_cold else block.cold()
        elif due < known[0]:
            self._beyond_horizon[block.seq] = due, known[1]

    def _keep_on_disk(self, due: int, seq: int) -> None:
        self._on_disk.add(seq)
        if self._loading:
            self._added_meanwhile.add(seq)
            self._first_meanwhile = min(self._first_meanwhile, (due, seq))

    def written(self, seq: int) -> None:
        """Keep the block on disk only, if its row in the database says everything that is known of it."""
        if seq not in self._beyond_horizon or not self._backlog.is_written(seq):
            return
        progress = self._backlog.progress(seq)
        if progress is None:
            return
        due = progress.next_due
        if due and (due, seq) > self._horizon:
            del self._beyond_horizon[seq]
            self._backlog.release(seq)
            self._keep_on_disk(due, seq)

    def extend(self, blocks: SeqSet, count: int, not_before: int) -> None:
        """Add blocks on disk that were published deferred; none of them is due before `not_before`."""
        self._evict(0)  # the blocks may be due before anything in the window
        self._on_disk.update(blocks)
        self.count += count
        self._not_before = not_before
        if self._loading:  # a read under way may not find them
            self._added_meanwhile.add(blocks.lowest(0))
            self._first_meanwhile = (0, 0)

    def restore(self, blocks: SeqSet, count: int, late: SeqSet, wall: int) -> None:
        """Set the blocks on disk: `blocks` are deferred beyond `wall`, with `count` messages; `late` are due."""
        self._on_disk, self.count, self.late = blocks, count, late
        if blocks:
            self._horizon = (wall, _LAST_SEQ)

    def clear(self) -> None:
        """Forget all messages."""
        self._generation += 1
        self._loading = False
        self.count = self._not_before = 0
        self._window.clear()
        self._on_disk.clear()
        self.late.clear()
        self._beyond_horizon.clear()
        self._horizon = EVER

    # ── messages are due ────────────────────────────────────────────────────────────────────────

    def take_due(self, wall: int) -> bool:
        """Put the messages that are due at `wall` into the backlog. Returns True when there were any."""
        came = False
        for run in self._window.take_due(wall):
            self.count -= run.stop - run.start
            self._backlog.put(run)
            came = True
        if self._not_before and wall >= self._not_before:
            self._not_before = 0
        self.load()
        return came

    def load(self) -> None:
        """Read the blocks that are due next, if they are on disk and there is room for them."""
        if self._loading or self._horizon == EVER or self._not_before or 4 * len(self._window) > self._limit:
            return
        if not self._on_disk and not self._beyond_horizon:
            self._horizon = EVER
            return
        self._loading = True
        self._added_meanwhile.clear()
        self._first_meanwhile = EVER
        generation, limit = self._generation, min(self._limit, 1000)
        # Without room for more, messages that are due are only counted. They are read later.
        upto = self._backlog.wall() if self._backlog.is_full else EVER[0]

        def answer(rows: list[LoadedRow] | None) -> None:
            if generation == self._generation:
                self._loaded(rows, limit, upto)

        self._backlog.read_deferred(self._horizon, upto, limit, answer)

    def _load_later(self) -> None:
        if not self._will_load_later:
            self._will_load_later = True
            self._backlog.later(self._load_again)

    def _load_again(self) -> None:
        self._will_load_later = False
        self.load()

    def _loaded(self, rows: list[LoadedRow] | None, limit: int, upto: int) -> None:
        """Add the next blocks by due time, up to `upto`. Fewer than `limit` means that there are no more."""
        self._loading = False
        if rows is None:
            self._failures += 1
            if self._failures < FAILURES:
                self._load_later()
                return
            rows = []  # the index is damaged: the blocks on disk are read one by one
            upto = EVER[0]
        self._failures = 0
        everything = EVER if upto == EVER[0] else (upto, _LAST_SEQ)
        horizon = everything if len(rows) < limit else (rows[-1][0], rows[-1][1].seq)
        if self._added_meanwhile and self._first_meanwhile <= horizon:
            due, seq = self._first_meanwhile
            horizon = due, seq - 1
        if horizon > self._horizon:
            self._raise(horizon, rows)
        if self._horizon == EVER and self._on_disk:
            self._read_by_number()
        self._backlog.loaded()
        if len(rows) < limit and everything != EVER:
            self._load_later()
        else:
            self.load()

    def _read_by_number(self) -> None:
        """Read the blocks on disk by their numbers, because the index of due times does not have them."""
        on_disk, self._on_disk = self._on_disk, SeqSet()
        messages = self.count - self._window.messages()
        self.count -= messages
        self._backlog.depth += messages
        self.late.update(on_disk)
        self._backlog.fetch()

    def _raise(self, horizon: Key, rows: list[LoadedRow]) -> None:
        """Raise the horizon, and take the `rows` up to it into memory."""
        before, self._horizon = self._horizon, horizon
        for due, block, row in rows:
            seq = block.seq
            if (due, seq) > horizon:
                break
            if seq in self._on_disk and seq not in self._added_meanwhile:
                self._on_disk.discard(seq)
                self._admit(due, block, row)
        for seq, (_, block) in [one for one in self._beyond_horizon.items() if before < (one[1][0], one[0]) <= horizon]:
            progress = self._backlog.progress(seq)
            if progress is not None:
                self._into_window(block, progress, before)
        if len(self._window) > self._evict_at:
            self._evict(self._limit // 2)

    def _admit(self, due: int, block: Block, row: Row | None) -> None:
        """Take a block on disk into memory; or make it late, when it is due and the memory has no room."""
        backlog, seq = self._backlog, block.seq
        wall = backlog.wall()
        if row is None:
            if due <= wall and not backlog.has_room:
                self.count -= block.count
                backlog.came_late(seq, block.count)
            else:
                backlog.hold(seq, None)
                self._window.add(MessageRange(block, 0, block.count), due)
            return
        progress = Progress.load(*row)
        capped = progress.cap(backlog.latest_due(wall))
        if progress.last_due <= wall and not backlog.has_room:
            self.count -= progress.left
            backlog.came_late(seq, progress.left)
            return
        backlog.hold(seq, progress)
        if capped:
            backlog.touch(seq)
        self._into_window(block, progress, (0, 0))

    def _into_window(self, block: Block, progress: Progress, before: Key) -> None:
        """Add the messages of a block to the window that are due after `before` and not after the horizon."""
        seq = block.seq
        self._beyond_horizon.pop(seq, None)
        for start, stop, attempts, due in progress.stretches():
            if not due or (due, seq) <= before:
                continue
            if (due, seq) <= self._horizon:
                self._window.add(MessageRange(block, start, stop, attempts), due)
            else:
                self._add_beyond_horizon(block, due)

    def admit_late(self, block: Block, row: Row | None, wall: int) -> list[MessageRange]:
        """Take a late block that was read into memory. Returns what may be delivered; the rest is deferred."""
        backlog, seq = self._backlog, block.seq
        self.late.discard(seq)
        if row is None:
            backlog.hold(seq, None)
            ready, later = split_by_due(block, None, wall, backlog.latest_due(wall))
            for start, stop, attempts, due in later:
                backlog.depth -= stop - start
                self.count += stop - start
                self._window.add(MessageRange(block.cold(), start, stop, attempts), due)
            return ranges(block, ready)
        progress = Progress.load(*row)
        backlog.hold(seq, progress)
        backlog.touch(seq)
        before = self.count
        runs = self.take_ready(block, progress, wall)
        backlog.depth -= self.count - before
        return runs

    def take_ready(self, block: Block, progress: Progress, wall: int) -> list[MessageRange]:
        """Returns what of a block may be delivered; the rest is deferred."""
        latest = self._backlog.latest_due(wall)
        if progress.cap(latest):
            self._backlog.touch(block.seq)
        ready, later = split_by_due(block, progress, wall, latest)
        for start, stop, attempts, due in ready:
            if due:
                progress.came_back(start, stop, attempts)
        cold = block.cold() if later and not block.is_cold else block
        for start, stop, attempts, due in later:
            self.count += stop - start
            if (due, block.seq) <= self._horizon:
                self._window.add(MessageRange(cold, start, stop, attempts), due)
            else:
                self._add_beyond_horizon(cold, due)
        if len(self._window) > self._evict_at:
            self._evict(self._limit // 2)
        return ranges(block, ready)
