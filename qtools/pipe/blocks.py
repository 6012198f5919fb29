"""Blocks of input: where each message stands, and how far they are confirmed. In: blocks. Out: batches, positions.

Every block is the origin of its messages, which it only counts. As they are finished, in order and with all blocks
before it, the position moves on; it always stands between two messages.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Protocol

from qtools.cli.worker import Worker
from qtools.errors import InputError
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
    """What a block is of: it looks at its blocks anew when messages of one were finished."""

    def confirm(self) -> None: ...


@dataclass(slots=True)
class Block:
    """A block that was read: the origin of its messages, which it only counts."""

    source: Confirming
    name: str  # of the file
    bodies: list[bytes]
    begin: Position  # before its first message or empty line
    end: Position  # behind its last one
    first_line: int  # of its first message or empty line, counted from 1 where its file is begun
    overhead: int  # bytes that each takes in the input beyond its body, where `ends` does not tell
    ends: list[int] | None  # bytes from `begin` to the end of each, empty ones among them
    empty_at: list[int] = field(default_factory=list)
    left: int = 0
    done: int = 0  # finished with none before it that is not
    named: int = 0  # the last one whose line was asked for: the next is most often behind it

    topic = ""
    address = ""

    def finish(self, ids: Sequence[bytes]) -> None:
        self.left -= len(ids)
        if self.left:
            for mine, body in zip(self.bodies[self.done : self.done + len(ids)], ids, strict=False):
                if mine is not body:  # one was refused: the position stays before it until all are finished
                    break
                self.done += 1
        self.source.confirm()

    def after(self, count: int) -> Position:
        """Behind the first `count` messages."""
        begin = self.begin
        if not count:
            return begin
        places = self._place(count - 1) + 1
        if self.ends is not None:
            size = self.ends[places - 1]
        else:
            size = sum(map(len, self.bodies[:count])) + self.overhead * places
        return Position(begin.file, begin.offset + size, begin.total + size, begin.messages + count)

    @property
    def reached(self) -> Position:
        """Behind the last message that is finished with all before it."""
        return self.after(self.done) if self.left else self.end

    def cut(self, count: int) -> None:
        """Have only the first `count` messages, which have no empty one among them."""
        self.end = self.after(count)
        self.bodies, self.empty_at, self.left = self.bodies[:count], [], count

    def requeue(self, ids: Sequence[bytes], delay_ms: int) -> None:
        """Nothing to give back to: what is not confirmed is still in the input."""

    def touch(self, ids: Sequence[bytes]) -> None:
        """A file waits for ever."""

    def line_of(self, body: bytes) -> int:
        """The number of the line, or message, that `body` (one of `bodies`, not a copy) came from."""
        bodies, named = self.bodies, self.named
        self.named = next(nth for nth in chain(range(named, len(bodies)), range(named)) if bodies[nth] is body)
        return self.first_line + self._place(self.named)

    def _place(self, nth: int) -> int:
        """Where `bodies[nth]` stands among all that the block has, empty ones counted."""
        for empty in self.empty_at:
            if empty > nth:
                break
            nth += 1
        return nth


class BlockSource:
    """What sources of blocks have in common: the messages of a block go out as batches, and `confirmed` moves on as
    blocks are finished, in order. A class derived from it reads the blocks.

    splitter: makes one for each file, given the byte that it is begun at. start: what was confirmed before.
    batch_count, batch_bytes: the most that one batch has, so that as much as one MPUB is confirmed together.
    fail_on_empty: an empty message is an error. on_confirm: called whenever `confirmed` has moved on.
    empty: messages that were left out as they were empty.
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
        self._pieces: deque[Batch] = deque()  # of the block that was read last
        self._blocks: deque[Block] = deque()  # those that are not finished, in order
        self._reached = replace(start)  # how far it was read
        self._broken: InputError | None = None  # raised when what stands before it was handed over
        self._done = False

    def confirm(self) -> None:
        """Move on over every block that is finished, up to the first that is not."""
        before = self.confirmed
        while self._blocks:
            block = self._blocks[0]
            self.confirmed = block.reached
            self._note_confirmed(block)
            if block.left:
                break
            self._blocks.popleft()
        if self.confirmed.total != before.total:
            self._on_confirm()

    def _note_confirmed(self, block: Block) -> None:
        """`block` is confirmed up to `self.confirmed`."""

    def _next_piece(self) -> Batch | None:
        """A batch of the block that was read last, if there is one left. InputError where the input ends there."""
        if self._pieces:
            return self._pieces.popleft()
        if self._broken is not None:
            raise self._broken
        return None

    def _add(self, block: Block) -> int:
        """Have a block that was read; how many messages it has, empty ones too."""
        if block.empty_at and self._fail_on_empty:
            place = block.empty_at[0]
            block.cut(place)
            self._broken = InputError(
                f"{block.name}: message {block.first_line + place} is empty, and NSQ has no empty messages"
                " (--empty skip leaves them out)"
            )
        self.empty += len(block.empty_at)
        self._reached = block.end
        self._blocks.append(block)
        return len(block.bodies) + len(block.empty_at)

    def _cut_up(self, block: Block) -> None:
        """Have the batches of a block; confirm one that has no messages."""
        if block.left:
            pieces = cut_batches(block.bodies, self._batch_count, self._batch_bytes)
            self._pieces.extend(Batch.of_bodies(block, piece) for piece in pieces)
        else:
            self.confirm()


def cut_batches(bodies: list[bytes], count: int, size: int) -> Iterator[list[bytes]]:
    """`bodies` in order, cut into what one MPUB of at most `count` messages and `size` bytes holds."""
    if len(bodies) <= count and 4 + sum(map(len, bodies)) + 4 * len(bodies) <= size:
        yield bodies
        return
    start, held = 0, 4
    for place, body in enumerate(bodies):
        if place - start == count or (held + 4 + len(body) > size and place > start):
            yield bodies[start:place]
            start, held = place, 4
        held += 4 + len(body)
    yield bodies[start:]
