"""The first messages that wait in a channel, without taking them. In: a channel, a number. Out: ranges, to a callback.

memory queue ─▶ requeued, read from disk ─▶ due, read from disk ─▶ never read so far ─▶ answer
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from qtools.broker.core.block import Block, MessageRange, first_ranges
from qtools.broker.disk.channel.memory_queue import BYTES
from qtools.broker.disk.channel.progress import Row, due_runs
from qtools.broker.disk.reader import BlockReader

Answer = Callable[[list[MessageRange] | None], None]


class PeekSource(Protocol):
    """A channel. topic, ident: the numbers of the topic and of the channel in the database."""

    @property
    def ident(self) -> int: ...
    @property
    def topic(self) -> int: ...
    def first_in_memory(self, count: int) -> list[MessageRange]:
        """The first ranges of the memory queue."""
        ...

    def first_requeued(self, count: int) -> list[MessageRange]:
        """The first ranges that were requeued and are not in memory."""
        ...

    def first_late(self, count: int) -> list[int]:
        """The numbers of the first blocks that are due and not in memory."""
        ...

    def never_read(self) -> tuple[int, int] | None:
        """Between which numbers are the blocks that were never read; None when there are none."""
        ...

    def skipped(self) -> set[int]:
        """Blocks among those that are already finished, or were counted elsewhere."""
        ...

    def is_never_read(self, seq: int) -> bool:
        """Whether a block among those waits, and is neither skipped nor in memory."""
        ...

    def whole(self, block: Block) -> list[MessageRange]:
        """All messages of a block that was never read."""
        ...

    def wall(self) -> int: ...
    def latest_due(self, wall: int) -> int: ...


class PeekRequest:
    """One look at the first `count` messages. `answer` gets None when they cannot be read."""

    def __init__(self, source: PeekSource, reader: BlockReader, count: int, answer: Answer) -> None:
        self._source = source
        self._reader = reader
        self._count = count
        self._answer = answer
        self._found: list[MessageRange] = []

    def start(self) -> None:
        self._found = self._source.first_in_memory(self._count)
        requeued = self._source.first_requeued(self._missing)
        if not requeued:
            self._add_late()
            return

        def found(blocks: list[Block] | None) -> None:
            if blocks is None:
                self._answer(None)
                return
            have = {block.seq: block for block in blocks if not block.is_cold}
            for run in requeued:
                if run.block.seq in have:
                    self._found.append(MessageRange(have[run.block.seq], run.start, run.stop, run.attempts))
            self._add_late()

        wanted = sorted({run.block.seq for run in requeued})
        self._reader.these(self._source.topic, wanted, BYTES, found)

    @property
    def _missing(self) -> int:
        return self._count - sum(map(len, self._found))

    def _add(self, ranges: Sequence[MessageRange]) -> None:
        self._found += first_ranges(ranges, self._missing)

    def _add_late(self) -> None:
        late = self._source.first_late(self._missing) if self._missing > 0 else []
        if not late:
            self._add_never_read()
            return

        def found(blocks: list[tuple[Block, Row | None]] | None) -> None:
            if blocks is None:
                self._answer(None)
                return
            wall = self._source.wall()
            latest = self._source.latest_due(wall)
            self._add([run for block, row in blocks if not block.is_cold for run in due_runs(block, row, wall, latest)])
            self._add_never_read()

        self._reader.these_with_progress(self._source.topic, self._source.ident, late, BYTES, found)

    def _add_never_read(self) -> None:
        source = self._source
        bounds = source.never_read() if self._missing > 0 else None
        if bounds is None:
            self._answer(self._found)
            return
        skipped = source.skipped()  # as it is now: a block may be taken off it while the read is under way

        def found(blocks: list[Block] | None) -> None:
            if blocks is None:
                self._answer(None)
                return
            for block in blocks:
                if not block.is_cold and block.seq not in skipped and source.is_never_read(block.seq):
                    self._add(source.whole(block))
            self._answer(self._found)

        self._reader.range(source.topic, *bounds, self._missing, BYTES, found)
