"""Blocks of input: the position of each message, and how far they are confirmed. In: blocks. Out: batches, positions.

A block is the origin of its messages, which it knows by their numbers in the ledger of its source. The position up to
which the input is confirmed is before the first message that is not finished, or behind the last one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from qtools.cli.upload_run import FileOrigin
from qtools.cli.worker import Worker
from qtools.errors import InputError
from qtools.flow.gather import request_ends
from qtools.flow.ledger import SpanLedger
from qtools.formats.lines import Splitter
from qtools.message import Batch


@dataclass(slots=True)
class Position:
    """How far the input is confirmed. `total` counts bytes over all files, `offset` within file number `file`."""

    file: int = 0
    offset: int = 0
    total: int = 0
    messages: int = 0


class Confirming(Protocol):
    """The source of a block."""

    def finish(self, numbers: Sequence[int]) -> None:
        """The messages with these numbers are finished."""


@dataclass(slots=True)
class InputBlock(FileOrigin):
    """A block that was read: the origin of its messages."""

    source: Confirming
    name: str  # of the file
    bodies: list[bytes]
    begin: Position  # before its first message or empty line
    end: Position  # behind its last one
    first_line: int  # the line number of its first message or empty line, counted from 1 where reading its file began
    overhead: int  # bytes that a message takes in the input beyond its body; not used where `ends` is given
    ends: list[int] | None  # bytes from `begin` to the end of each message, empty ones included
    empty_at: list[int] = field(default_factory=list)  # places of the empty messages among all of them
    first: int = 0  # the number of its first message in the ledger of the source
    records: list[Any] | None = None  # of its messages, if these have more than a body (formats/envelope_records.py)

    def finish(self, ids: Sequence[int]) -> None:
        self.source.finish(ids)

    def after(self, count: int) -> Position:
        """The position behind the first `count` messages; behind all of them, that is `end`."""
        begin = self.begin
        if count == len(self.bodies):
            return self.end
        if not count:
            return begin
        places = self._place(count - 1) + 1
        if self.ends is not None:
            size = self.ends[places - 1]
        else:
            size = sum(map(len, self.bodies[:count])) + self.overhead * places
        return Position(begin.file, begin.offset + size, begin.total + size, begin.messages + count)

    def cut(self, count: int) -> None:
        """Keep only the first `count` messages, none of which is empty."""
        self.end = self.after(count)
        self.bodies, self.empty_at = self.bodies[:count], []
        if self.records is not None:
            self.records = self.records[:count]

    # ── names of its messages ──

    def line_of(self, number: int) -> int:
        """The line, or the message of the file, that the message with this number in the ledger came from."""
        return self.first_line + self._place(number - self.first)

    def _place(self, nth: int) -> int:
        """The place of `bodies[nth]` among all messages of the block, empty ones included."""
        for empty in self.empty_at:
            if empty > nth:
                break
            nth += 1
        return nth


class BlockSource:
    """The common part of sources of blocks: it cuts the messages of each block into batches, and moves `confirmed` on
    as they are finished. A derived class reads the blocks.

    splitter: makes a splitter for each file, given the byte at which reading begins. start: the position that was
    confirmed before. batch_count, batch_bytes: the limits of a batch, which are those of an MPUB, so that a batch is
    confirmed as a whole. fail_on_empty: whether an empty message is an error. on_confirm: called whenever `confirmed`
    has moved on. empty: the number of empty messages that were left out.
    """

    def __init__(
        self,
        splitter: Callable[[int], Splitter],
        start: Position,
        *,
        batch_count: int = 5000,
        batch_bytes: int = 1024 * 1024,
        fail_on_empty: bool = False,
        on_confirm: Callable[[], None] = lambda: None,
    ) -> None:
        self.confirmed = start
        self.empty = 0
        self._make_splitter = splitter
        self._batch_count = batch_count
        self._batch_bytes = batch_bytes
        self._fail_on_empty = fail_on_empty
        self._on_confirm = on_confirm
        self._worker = Worker("input")
        self._pieces: deque[Batch] = deque()  # batches of the last block that were not returned by read() yet
        self._ledger: SpanLedger[InputBlock] = SpanLedger()
        self._reached = replace(start)  # the position up to which the input was read
        self._broken: InputError | None = None  # raised once all messages before the error were returned
        self._done = False

    def finish(self, numbers: Sequence[int]) -> None:
        """The messages with these numbers are finished."""
        if self._ledger.finish(numbers):
            self._confirm()

    def _confirm(self) -> None:
        """Move `confirmed` on to the first message that is not finished."""
        before = self.confirmed
        for block, count in self._ledger.advance():
            self.confirmed = block.after(count)
            self._note_confirmed(block, count == len(block.bodies))
        if self.confirmed.total != before.total:
            self._on_confirm()

    def _note_confirmed(self, block: InputBlock, whole: bool) -> None:
        """`block` is confirmed up to `self.confirmed`. whole: all of it is."""

    def _next_piece(self) -> Batch | None:
        """The next batch of the last block, or None. Raises the InputError behind the last batch, if there is one."""
        if self._pieces:
            return self._pieces.popleft()
        if self._broken is not None:
            raise self._broken
        return None

    def _add(self, block: InputBlock) -> int:
        """Take a block that was read. Returns the number of its messages, empty ones included."""
        if block.empty_at and self._fail_on_empty:
            place = block.empty_at[0]
            block.cut(place)
            self._broken = InputError(
                f"{block.name}: message {block.first_line + place} is empty, and NSQ has no empty messages"
                " (--empty skip leaves them out)"
            )
        self.empty += len(block.empty_at)
        self._reached = block.end
        block.first = self._ledger.add(len(block.bodies), block).start
        return len(block.bodies) + len(block.empty_at)

    def _cut_up(self, block: InputBlock) -> None:
        """Cut a block into batches. A block without messages is confirmed with those before it."""
        bodies = block.bodies
        if bodies:
            ends = request_ends(bodies, self._batch_count, self._batch_bytes)
            start = 0
            for end in ends:
                piece = bodies if len(ends) == 1 else bodies[start:end]
                records = None if block.records is None else block.records[start:end]
                self._pieces.append(Batch.of_bodies(block, piece, block.first + start, records))
                start = end
        else:
            self._confirm()
