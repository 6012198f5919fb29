"""Files and stdin as one Source that knows how far it is confirmed. In: paths. Out: batches of bodies.

Blocks are read in a thread, one call each, one block ahead of the work. Every block is the origin of its
messages; as they are finished, in order and with all blocks before it, the position moves on. A position counts
bytes of input over all files, in the order they were given, and always stands between two messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import stat
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Protocol

from qtools.cli.worker import Worker
from qtools.errors import InputError, StartError, UsageError
from qtools.flow.lines import Splitter
from qtools.message import Batch

BLOCK = 256 * 1024
PIPE_SIZE = 1024 * 1024  # what Linux lets anybody ask for (/proc/sys/fs/pipe-max-size)


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


class InputSource:
    """`names` are paths, "-" is stdin; `start` is where to begin.

    batch_count, batch_bytes: the most that one batch has, so that as much as one MPUB is confirmed together.
    on_confirm: called whenever `confirmed` has moved on.
    """

    def __init__(
        self,
        names: Sequence[str],
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
        self._names = list(names)
        self._make_splitter = splitter
        self._batch_count = batch_count
        self._batch_bytes = batch_bytes
        self._pieces: deque[Batch] = deque()  # of the block that was read last
        self._fail_on_empty = fail_on_empty
        self._on_confirm = on_confirm
        self._worker = Worker("input")
        self._blocks: deque[Block] = deque()
        self._skip_total = start.total if not start.file and not start.offset else 0
        self._file = start.file - 1
        self._fd = -1
        self._splitter = splitter(0)
        self._broken: InputError | None = None  # raised when what stands before it was handed over
        self._begin = replace(start)  # where the file is begun
        self._reached = replace(start)  # how far it was read
        self._lines = 0
        self._ahead: asyncio.Future[bytes] | None = None
        self._done = False

    def check(self) -> None:
        """Say now what would fail later: a file that is not there, a directory; UsageError."""
        for name in self._names:
            if name == "-":
                continue
            try:
                mode = os.stat(name).st_mode
                if stat.S_ISDIR(mode):
                    raise UsageError(f"{name} is a directory")
                if stat.S_ISREG(mode):  # others may notice: who writes to a pipe would lose his reader
                    os.close(os.open(name, os.O_RDONLY))
            except OSError as error:
                raise UsageError(f"cannot read {name}: {error.strerror or error}") from error

    # ── Source ──

    async def read(self) -> Batch | None:
        """The messages of the next block that has any, or of a part of it that makes a batch."""
        while not self._done:
            if self._pieces:
                return self._pieces.popleft()
            if self._broken is not None:
                raise self._broken
            if self._fd < 0 and not await self._open_next():
                break
            if self._ahead is None:
                self._ahead = self._worker.call(_read_block, self._fd)
            try:
                chunk = await asyncio.shield(self._ahead)
                self._ahead = self._worker.call(_read_block, self._fd) if chunk else None
                bodies = self._splitter.feed(chunk) if chunk else self._splitter.end()
            except InputError as error:
                raise InputError(f"{self.name}: {error}", error.offset) from error
            block = self._block(bodies)
            if not chunk:
                self._close_file()
            if block.left:
                pieces = cut_batches(block.bodies, self._batch_count, self._batch_bytes)
                self._pieces.extend(Batch.of_bodies(block, piece) for piece in pieces)
            else:
                self.confirm()
        return None

    async def close(self) -> None:
        self._done = True

    # ── positions ──

    def confirm(self) -> None:
        """Move on over every block that is finished, up to the first that is not."""
        before = self.confirmed
        while self._blocks:
            self.confirmed = self._blocks[0].reached
            if self._blocks[0].left:
                break
            self._blocks.popleft()
        if self.confirmed.total != before.total:
            self._on_confirm()

    @property
    def name(self) -> str:
        """What is being read, for people."""
        name = self._names[min(max(self._file, 0), len(self._names) - 1)]
        return "stdin" if name == "-" else name

    @property
    def _told_name(self) -> str:
        """`name`, and where messages are counted from when that is not its beginning."""
        offset = self._begin.offset
        return f"{self.name} from byte {offset} on" if offset else self.name

    def _block(self, bodies: list[bytes]) -> Block:
        splitter, file = self._splitter, self._begin
        empty_at, ends = splitter.empty_at, splitter.ends
        begin = self._reached
        end = Position(self._file, file.offset + splitter.consumed, file.total + splitter.consumed)
        end.messages = begin.messages + len(bodies)
        if ends is not None:
            ends = [each - (begin.offset - file.offset) for each in ends]
        block = Block(
            self, self._told_name, bodies, begin, end, self._lines + 1, splitter.overhead, ends, empty_at, len(bodies)
        )
        if empty_at and self._fail_on_empty:
            block.cut(empty_at[0])
            line = block.first_line + empty_at[0]
            self._broken = InputError(
                f"{block.name}: message {line} is empty, and NSQ has no empty messages (--empty skip leaves them out)"
            )
        self.empty += len(block.empty_at)
        self._lines += len(bodies) + len(empty_at)
        self._reached = block.end
        self._blocks.append(block)
        return block

    # ── files ──

    async def _open_next(self) -> bool:
        """Open the next file at the place to begin; False when there is none."""
        self._file += 1
        if self._file >= len(self._names):
            self._done = True
            return False
        name = self._names[self._file]
        begin = self._begin
        try:
            self._fd = 0 if name == "-" else os.open(name, os.O_RDONLY | os.O_CLOEXEC)
            info = os.fstat(self._fd)
        except OSError as error:
            if name == "-":
                raise StartError("stdin is closed: pipe something in, or name a file") from error
            raise InputError(f"cannot read {name}: {error.strerror or error}") from error
        if stat.S_ISFIFO(info.st_mode):
            _widen(self._fd)
        if begin.file != self._file:
            begin.file, begin.offset = self._file, 0
        if self._skip_total and stat.S_ISREG(info.st_mode) and info.st_size <= self._skip_total and self._more_files:
            self._skip_total -= info.st_size
            self._close_file()
            self._begin = Position(self._file + 1, 0, begin.total, begin.messages)
            return await self._open_next()
        if self._skip_total:
            begin.offset, self._skip_total = self._skip_total, 0
        self._reached = replace(begin)
        self._splitter = self._make_splitter(begin.offset)
        self._lines = 0
        if begin.offset:
            await self._skip(begin.offset, info)
        return True

    @property
    def _more_files(self) -> bool:
        return self._file + 1 < len(self._names)

    async def _skip(self, count: int, info: os.stat_result) -> None:
        """Go `count` bytes into the file that was just opened."""
        if stat.S_ISREG(info.st_mode):
            if info.st_size < count:
                raise InputError(
                    f"{self.name} has only {info.st_size} bytes, {count} were to be skipped: is it another?"
                )
            os.lseek(self._fd, count, os.SEEK_SET)
            return
        left = count
        while left:
            chunk = await self._worker.call(os.read, self._fd, min(left, BLOCK))
            if not chunk:
                raise InputError(f"{self.name} ended after {count - left} bytes, {count} were to be skipped")
            left -= len(chunk)

    def _close_file(self) -> None:
        if self._fd > 0:
            os.close(self._fd)
        self._fd = -1
        self._begin = Position(self._file + 1, 0, self._reached.total, self._reached.messages)


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


def _read_block(fd: int) -> bytes:
    """Up to a block: all that is there, but without waiting for more than the first byte."""
    try:
        first = os.read(fd, BLOCK)
        have = len(first)
        if not first or have == BLOCK or os.isatty(fd):  # a terminal says only once that it has ended
            return first
        chunks = [first]
        ready = select.poll()
        ready.register(fd, select.POLLIN)
        while have < BLOCK and ready.poll(0):
            chunk = os.read(fd, BLOCK - have)
            if not chunk:
                break
            chunks.append(chunk)
            have += len(chunk)
        return b"".join(chunks)
    except OSError as error:
        raise InputError(f"cannot read on: {error.strerror or error}") from error


def _widen(fd: int) -> None:
    """Let the pipe hold more, where the system can: fewer, larger blocks."""
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import fcntl

        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
