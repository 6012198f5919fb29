"""What one channel has deferred, on disk but for what is due first. In: runs, due times. Out: runs that are due.

    defer ─┬─▶ window: in memory, up to the horizon ──due──▶ put back into the backlog
           └─▶ far: beyond the horizon, in a block that is in memory for another message's sake
                 └─written─▶ parked: on disk only ──load──▶ window
                                                   └─▶ late: due, on disk only, while there is no room in memory

The horizon is a due time and a block number: what is deferred until then is in the window, what is deferred for longer
is not. It is infinite as long as everything fits, comes down when the window is full, and goes up when the next blocks
are read. A block is parked as a whole, when all of its messages that are not finished are deferred beyond the horizon
and its row in the database says so. Only its number stays in memory, as a bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtools.broker.core.block import Block, MessageRange
from qtools.broker.core.deferral_queue import DeferralQueue
from qtools.broker.disk.channel.progress import Progress, Row, Stretch
from qtools.broker.disk.channel.seq_set import SeqSet

if TYPE_CHECKING:
    from qtools.broker.disk.channel.backlog import ChannelBacklog

Key = tuple[int, int]  # due time, ns since 1970; number of the block
LoadedRow = tuple[int, Block, Row | None]  # the key's due time, the block, its progress if there is a row of it

EVER: Key = ((1 << 63) - 1, 0)  # the largest that the database takes
_LAST_SEQ = 1 << 62
FAILURES = 3  # reads that fail, before the order of due times counts as damaged
FRAME_BYTES = 2 * 1024 * 1024  # in memory for the window; what is deferred then is read again when it is due


class Deferred:
    """One channel's. count: messages that are deferred.

    late: blocks that are due and were not read yet; their messages wait, and are not counted here.
    """

    def __init__(self, backlog: ChannelBacklog, limit: int) -> None:
        self.count = 0
        self.late = SeqSet()
        self._backlog = backlog
        self._limit = max(limit, 2)  # entries of the window
        self._evict_at = self._limit
        self._window = DeferralQueue()
        self._horizon: Key = EVER
        self._parked = SeqSet()
        self._far: dict[int, tuple[int, Block]] = {}  # by number: the earliest due time beyond the horizon, the block
        self._failures = 0  # of reads, one after another
        self._gate = 0  # ns since 1970: nothing is read before
        self._generation = 0
        self._loading = False
        self._is_later = False
        self._parked_meanwhile: set[int] = set()  # since the read began, which may have been too early to find them
        self._first_meanwhile: Key = EVER  # the earliest of them

    # ── what the backlog asks ───────────────────────────────────────────────────────────────────

    def has(self, seq: int) -> bool:
        """Whether the block is on disk only."""
        return seq in self._parked or seq in self.late

    @property
    def lowest(self) -> int:
        """The lowest number of a block that is on disk only."""
        return min(self._parked.lowest(_LAST_SEQ), self.late.lowest(_LAST_SEQ))

    def next_due(self) -> int | None:
        """When `take_due` should be called, ns since 1970."""
        due = self._window.next()
        if self._gate and self._parked:
            return self._gate if due is None else min(due, self._gate)
        return due

    # ── messages are deferred ───────────────────────────────────────────────────────────────────

    def defer(self, run: MessageRange, due: int, *, near: bool) -> None:
        """`run` waits until `due`; its progress has it, unless it is a block that was never delivered.

        near: so soon that its frames may stay in memory.
        """
        self.count += run.stop - run.start
        block = run.block
        seq = block.seq
        if (due, seq) > self._horizon:
            if run.attempts:
                self._is_far(block, due)
            else:
                self._park(due, seq)
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
        """The window keeps its first entries."""
        due, seq, gone = self._window.evict(keep)
        self._horizon = due, seq
        self._evict_at = max(self._limit, 2 * len(self._window))
        parkable = set()
        for due, run in gone:
            seq = run.block.seq
            if run.attempts:
                self._is_far(run.block, due)
                parkable.add(seq)
            else:
                self._backlog.release(seq)
                self._park(due, seq)
        for seq in parkable:
            self.written(seq)

    def _is_far(self, block: Block, due: int) -> None:
        """A message of a block that is in memory is deferred beyond the horizon."""
        known = self._far.get(block.seq)
        if known is None:
            self._far[block.seq] = due, block if block.is_cold else block.cold()
        elif due < known[0]:
            self._far[block.seq] = due, known[1]

    def _park(self, due: int, seq: int) -> None:
        self._parked.add(seq)
        if self._loading:
            self._parked_meanwhile.add(seq)
            self._first_meanwhile = min(self._first_meanwhile, (due, seq))

    def written(self, seq: int) -> None:
        """The row of the block may say what is in memory of it: then it can be parked."""
        if seq not in self._far or not self._backlog.is_written(seq):
            return
        progress = self._backlog.progress(seq)
        if progress is None:
            return
        due = progress.next_due
        if due and (due, seq) > self._horizon:
            del self._far[seq]
            self._backlog.release(seq)
            self._park(due, seq)

    def extend(self, blocks: SeqSet, count: int, gate: int) -> None:
        """Blocks that were published deferred are for this channel too; none of them is due before `gate`."""
        self._evict(0)  # where the horizon comes to lie is not known
        self._parked.update(blocks)
        self.count += count
        self._gate = gate
        if self._loading:  # a read that is under way proves nothing
            self._parked_meanwhile.add(blocks.lowest(0))
            self._first_meanwhile = (0, 0)

    def restore(self, blocks: SeqSet, count: int, late: SeqSet, wall: int) -> None:
        """As it was when the broker ended: blocks deferred beyond `wall`, with `count` messages; and due ones."""
        self._parked, self.count, self.late = blocks, count, late
        if blocks:
            self._horizon = (wall, _LAST_SEQ)

    def clear(self) -> None:
        """Forget everything."""
        self._generation += 1
        self._loading = False
        self.count = self._gate = 0
        self._window.clear()
        self._parked.clear()
        self.late.clear()
        self._far.clear()
        self._horizon = EVER

    # ── messages are due ────────────────────────────────────────────────────────────────────────

    def take_due(self, wall: int) -> bool:
        """Put what is due at `wall` back into the backlog; True when there was something."""
        came = False
        for run in self._window.take_due(wall):
            self.count -= run.stop - run.start
            self._backlog.put(run)
            came = True
        if self._gate and wall >= self._gate:
            self._gate = 0
        self.load()
        return came

    def load(self) -> None:
        """Read what is due next, if it is on disk and there is room for it."""
        if self._loading or self._horizon == EVER or self._gate or 4 * len(self._window) > self._limit:
            return
        if not self._parked and not self._far:
            self._horizon = EVER
            return
        self._loading = True
        self._parked_meanwhile.clear()
        self._first_meanwhile = EVER
        generation, limit = self._generation, min(self._limit, 1000)
        # Without room for more, what is due is counted, and is read later; it is looked for again from time to time.
        upto = self._backlog.wall() if self._backlog.is_full else EVER[0]

        def answer(rows: list[LoadedRow] | None) -> None:
            if generation == self._generation:
                self._loaded(rows, limit, upto)

        self._backlog.read_deferred(self._horizon, upto, limit, answer)

    def _load_later(self) -> None:
        if not self._is_later:
            self._is_later = True
            self._backlog.later(self._load_again)

    def _load_again(self) -> None:
        self._is_later = False
        self.load()

    def _loaded(self, rows: list[LoadedRow] | None, limit: int, upto: int) -> None:
        """The next blocks by due time, up to `upto`; fewer than `limit` when there are no more."""
        self._loading = False
        if rows is None:
            self._failures += 1
            if self._failures < FAILURES:
                self._load_later()
                return
            rows = []  # the index is damaged: what is parked is looked for block by block
            upto = EVER[0]
        self._failures = 0
        everything = EVER if upto == EVER[0] else (upto, _LAST_SEQ)
        horizon = everything if len(rows) < limit else (rows[-1][0], rows[-1][1].seq)
        if self._parked_meanwhile and self._first_meanwhile <= horizon:
            due, seq = self._first_meanwhile
            horizon = due, seq - 1
        if horizon > self._horizon:
            self._raise(horizon, rows)
        if self._horizon == EVER and self._parked:
            self._look_for_parked()
        self._backlog.deferred_loaded()
        if len(rows) < limit and everything != EVER:
            self._load_later()
        else:
            self.load()

    def _look_for_parked(self) -> None:
        """Blocks that are parked, and not found by due time: they are read by their numbers, and sorted then."""
        parked, self._parked = self._parked, SeqSet()
        messages = self.count - self._window.messages()
        self.count -= messages
        self._backlog.depth += messages
        self.late.update(parked)
        self._backlog.fetch()

    def _raise(self, horizon: Key, rows: list[LoadedRow]) -> None:
        """The horizon goes up: `rows` up to it leave the disk."""
        before, self._horizon = self._horizon, horizon
        for due, block, row in rows:
            seq = block.seq
            if (due, seq) > horizon:
                break
            if seq in self._parked and seq not in self._parked_meanwhile:
                self._parked.discard(seq)
                self._admit(due, block, row)
        for seq, (_, block) in [one for one in self._far.items() if before < (one[1][0], one[0]) <= horizon]:
            progress = self._backlog.progress(seq)
            if progress is not None:
                self._into_window(block, progress, before)
        if len(self._window) > self._evict_at:
            self._evict(self._limit // 2)

    def _admit(self, due: int, block: Block, row: Row | None) -> None:
        """A block that was parked is in memory again; or late, when it is due and there is no room."""
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
        """What is deferred beyond `before` and not beyond the horizon goes into the window."""
        seq = block.seq
        self._far.pop(seq, None)
        for start, stop, attempts, due in progress.stretches():
            if not due or (due, seq) <= before:
                continue
            if (due, seq) <= self._horizon:
                self._window.add(MessageRange(block, start, stop, attempts), due)
            else:
                self._is_far(block, due)

    def admit_late(self, block: Block, row: Row | None, wall: int) -> list[MessageRange]:
        """A block that was late was read: answers what of it may be delivered, the rest is deferred."""
        backlog, seq = self._backlog, block.seq
        self.late.discard(seq)
        if row is None:
            backlog.hold(seq, None)
            ready, later = split_by_due(block, None, wall, backlog.latest_due(wall))
            for start, stop, attempts, due in later:
                backlog.depth -= stop - start
                self.count += stop - start
                self._window.add(MessageRange(block.cold(), start, stop, attempts), due)
            return _runs(block, ready)
        progress = Progress.load(*row)
        backlog.hold(seq, progress)
        backlog.touch(seq)
        before = self.count
        runs = self.take_ready(block, progress, wall)
        backlog.depth -= self.count - before
        return runs

    def take_ready(self, block: Block, progress: Progress, wall: int) -> list[MessageRange]:
        """Answers what of a block may be delivered; the rest is deferred."""
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
                self._is_far(cold, due)
        if len(self._window) > self._evict_at:
            self._evict(self._limit // 2)
        return _runs(block, ready)


def due_runs(block: Block, row: Row | None, wall: int, latest: int) -> list[MessageRange]:
    """What of a block, of which a channel has the progress `row`, is due at `wall`: as `take_ready` answers it, without
    taking it. Times as for `split_by_due`."""
    ready, _ = split_by_due(block, None if row is None else Progress.load(*row), wall, latest)
    return _runs(block, ready)


def split_by_due(
    block: Block, progress: Progress | None, wall: int, latest: int
) -> tuple[list[Stretch], list[Stretch]]:
    """What of a block is not finished: the stretches that are due at `wall`, and those that are due later.

    progress: None for a block that was never delivered. latest: no message is due after it, whatever was stored while
    the clock was ahead. All times are ns since 1970.
    """
    ready: list[Stretch] = []
    later: list[Stretch] = []
    stretches = ((0, block.count, 0, block.due),) if progress is None else progress.stretches()
    for start, stop, attempts, due in stretches:
        due = min(due, latest)
        (ready if due <= wall else later).append((start, stop, attempts, due))
    return ready, later


def _runs(block: Block, stretches: list[Stretch]) -> list[MessageRange]:
    return [MessageRange(block, start, stop, attempts) for start, stop, attempts, _ in stretches]
