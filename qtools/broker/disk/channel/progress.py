"""How far one channel is with one block. In: messages that are finished, requeued, deferred. Out: a row for the
database.

    done      a byte for each message: 1 when it is finished
    attempts  uint16 for each message: how often it was delivered; only after one of them was requeued
    due       int64 for each message, ns since 1970: not to be delivered before; only after one of them was deferred

Most blocks never have one: it is needed only when a part of a block is finished, or was requeued.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from itertools import groupby

from qtools.broker.core.block import MAX_ATTEMPTS, Block, MessageRange

NEVER = 1 << 62  # a due time later than all others, for finished messages

Row = tuple[bytes, bytes | None, bytes | None]
Stretch = tuple[int, int, int, int]  # start, stop, attempts, due


class Progress:
    """left: how many messages of the block are not finished."""

    __slots__ = ("_attempts", "_done", "_due", "left")

    def __init__(self, count: int) -> None:
        self._done = bytearray(count)
        self._attempts: array[int] | None = None
        self._due: array[int] | None = None
        self.left = count

    @classmethod
    def load(cls, done: bytes, attempts: bytes | None, due: bytes | None) -> Progress:
        """Build it from the columns of a row."""
        progress = cls(len(done))
        progress._done[:] = done
        progress.left = done.count(0)
        if attempts is not None:
            progress._attempts = array("H")
            progress._attempts.frombytes(attempts)
        if due is not None:
            progress._due = array("q")
            progress._due.frombytes(due)
        return progress

    def row(self) -> Row:
        """The columns for the database."""
        attempts = None if self._attempts is None else self._attempts.tobytes()
        due = None if self._due is None else self._due.tobytes()
        return bytes(self._done), attempts, due

    def finish(self, block: Block, which: range | Sequence[bytes]) -> None:
        """Finish messages, none of which was finished before: consecutive places, or ids."""
        self.left -= len(which)
        if isinstance(which, range):
            self._finish(which.start, which.stop)
            return
        start = block.place(which[0])
        stop = start + len(which)
        if len(which) == 1 or (stop <= block.count and block.ids(start, stop) == list(which)):
            self._finish(start, stop)
            return
        for ident in which:
            place = block.place(ident)
            self._finish(place, place + 1)

    def _finish(self, start: int, stop: int) -> None:
        self._done[start:stop] = b"\1" * (stop - start)
        if self._due is not None:
            self._due[start:stop] = array("q", [NEVER]) * (stop - start)

    @property
    def next_due(self) -> int:
        """When the first unfinished message is due; 0 when one of them is not deferred."""
        due = 0 if self._due is None else min(self._due)
        return due if due < NEVER else 0

    @property
    def last_due(self) -> int:
        """When the last unfinished message is due."""
        return 0 if self._due is None else max((due for due in self._due if due < NEVER), default=0)

    def cap(self, latest: int) -> bool:
        """Bring due times down to `latest`. Returns True when one was later."""
        if self._due is None or self.last_due <= latest:
            return False
        self._due = array("q", [latest if latest < due < NEVER else due for due in self._due])
        return True

    @property
    def counts(self) -> bool:
        """Whether it counts how often each message was delivered, and so has to be updated."""
        return self._attempts is not None

    def count(self, delivered: int) -> None:
        """Begin to count deliveries: the first `delivered` messages were delivered once so far, the others never."""
        if self._attempts is None:
            self._attempts = array("H", [1]) * delivered + array("H", bytes(2 * (len(self._done) - delivered)))

    def came_back(self, start: int, stop: int, attempts: int, due: int = 0) -> None:
        """Note that messages were delivered `attempts` times, and may be delivered again at `due`. Only when it
        `counts`."""
        assert self._attempts is not None
        count = array("H", [min(attempts, MAX_ATTEMPTS)])
        self._attempts[start:stop] = count * (stop - start)
        if due and self._due is None:
            self._due = array("q", bytes(8 * len(self._done)))
        if self._due is not None:
            self._due[start:stop] = array("q", [due]) * (stop - start)

    def stretches(self) -> Iterator[Stretch]:
        """The unfinished messages, in stretches with the same attempts and due time."""
        count = len(self._done)
        attempts = self._attempts or array("H", bytes(2 * count))
        due = self._due or array("q", bytes(8 * count))
        start = 0
        for (done, tries, when), same in groupby(zip(self._done, attempts, due, strict=True)):
            stop = start + len(list(same))
            if not done:
                yield start, stop, tries, when
            start = stop


def due_runs(block: Block, row: Row | None, wall: int, latest: int) -> list[MessageRange]:
    """The messages of a block with the progress `row` that are due at `wall`; nothing is changed. Times are as for
    `split_by_due`."""
    ready, _ = split_by_due(block, None if row is None else Progress.load(*row), wall, latest)
    return ranges(block, ready)


def split_by_due(
    block: Block, progress: Progress | None, wall: int, latest: int
) -> tuple[list[Stretch], list[Stretch]]:
    """The unfinished messages of a block: stretches that are due at `wall`, and stretches that are due later.

    progress: None for a block that was never delivered. latest: no message is due later, even if one was stored so
    while the clock was ahead. All times are ns since 1970.
    """
    ready: list[Stretch] = []
    later: list[Stretch] = []
    stretches = ((0, block.count, 0, block.due),) if progress is None else progress.stretches()
    for start, stop, attempts, due in stretches:
        due = min(due, latest)
        (ready if due <= wall else later).append((start, stop, attempts, due))
    return ready, later


def ranges(block: Block, stretches: list[Stretch]) -> list[MessageRange]:
    """The messages of `stretches`, to be delivered."""
    return [MessageRange(block, start, stop, attempts) for start, stop, attempts, _ in stretches]
