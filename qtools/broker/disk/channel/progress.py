"""How far one channel is with one block. In: what is finished, given back, put off. Out: a row for the database.

    done      a byte a message: 1 when it is finished
    attempts  uint16 a message: how often it was delivered so far; only once one came back, and for all from then on
    due       int64 a message, ns since 1970: not to be delivered before; only once one of them was put off

Only for blocks of which part is finished, or something came back: most never have one of these.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from itertools import groupby

from qtools.broker.core.block import MAX_ATTEMPTS, Block

NEVER = 1 << 62  # a due time beyond all others, for what is finished

Row = tuple[bytes, bytes | None, bytes | None]
Stretch = tuple[int, int, int, int]  # start, stop, attempts, due


class Progress:
    """`left` messages of the block are not finished."""

    __slots__ = ("_attempts", "_done", "_due", "left")

    def __init__(self, count: int) -> None:
        self._done = bytearray(count)
        self._attempts: array[int] | None = None
        self._due: array[int] | None = None
        self.left = count

    @classmethod
    def load(cls, done: bytes, attempts: bytes | None, due: bytes | None) -> Progress:
        """As it was kept."""
        made = cls(len(done))
        made._done[:] = done
        made.left = done.count(0)
        if attempts is not None:
            made._attempts = array("H")
            made._attempts.frombytes(attempts)
        if due is not None:
            made._due = array("q")
            made._due.frombytes(due)
        return made

    def row(self) -> Row:
        """To be kept."""
        attempts = None if self._attempts is None else self._attempts.tobytes()
        due = None if self._due is None else self._due.tobytes()
        return bytes(self._done), attempts, due

    def finish(self, block: Block, which: range | Sequence[bytes]) -> None:
        """Messages of it, each of which was not finished before: places in a row, or ids."""
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
        """When the first of them is due that are not finished; 0 when one of them is not deferred."""
        due = 0 if self._due is None else min(self._due)
        return due if due < NEVER else 0

    @property
    def last_due(self) -> int:
        """When all of them are due that are not finished."""
        return 0 if self._due is None else max((due for due in self._due if due < NEVER), default=0)

    def cap(self, latest: int) -> bool:
        """No message is deferred beyond `latest`; True when one was."""
        if self._due is None or self.last_due <= latest:
            return False
        self._due = array("q", [latest if latest < due < NEVER else due for due in self._due])
        return True

    @property
    def counts(self) -> bool:
        """Whether it knows how often each message was delivered, and has to be told."""
        return self._attempts is not None

    def count(self, delivered: int) -> None:
        """Begin to: the first `delivered` messages were delivered once so far, the others never."""
        if self._attempts is None:
            self._attempts = array("H", [1]) * delivered + array("H", bytes(2 * (len(self._done) - delivered)))

    def came_back(self, start: int, stop: int, attempts: int, due: int = 0) -> None:
        """A stretch was delivered `attempts` times by now, and may come again at `due`. Only when it `counts`."""
        assert self._attempts is not None
        told = array("H", [min(attempts, MAX_ATTEMPTS)])
        self._attempts[start:stop] = told * (stop - start)
        if due and self._due is None:
            self._due = array("q", bytes(8 * len(self._done)))
        if self._due is not None:
            self._due[start:stop] = array("q", [due]) * (stop - start)

    def stretches(self) -> Iterator[Stretch]:
        """What is not finished, in stretches that have had the same fate."""
        count = len(self._done)
        attempts = self._attempts or array("H", bytes(2 * count))
        due = self._due or array("q", bytes(8 * count))
        start = 0
        for (done, tries, when), same in groupby(zip(self._done, attempts, due, strict=True)):
            stop = start + len(list(same))
            if not done:
                yield start, stop, tries, when
            start = stop
