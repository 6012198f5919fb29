"""Files and stdin as one Source that knows how far it is confirmed. In: paths. Out: batches of bodies.

A thread reads one block ahead, with one call for each block. A position counts the bytes of all files, in the order in
which they were given. A file whose name has the suffix of a compression is decompressed, and its position counts
decompressed bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import stat
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import IO, Any

from qtools.errors import InputError, StartError, UsageError
from qtools.formats.lines import Splitter
from qtools.message import Batch
from qtools.pipe.blocks import BlockSource, InputBlock, Position

BLOCK = 256 * 1024
PIPE_SIZE = 1024 * 1024  # bytes: the most that Linux allows every process (/proc/sys/fs/pipe-max-size)


class InputSource(BlockSource):
    """names: paths; "-" is stdin. start: the position to begin at. decompress: decompress files named *.gz, *.zst,
    *.bz2 and *.xz. Other arguments: those of BlockSource."""

    def __init__(
        self,
        names: Sequence[str],
        splitter: Callable[[int], Splitter],
        start: Position,
        *,
        decompress: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(splitter, start, **options)
        self._names = list(names)
        self._decompress = decompress
        self._compressed: IO[bytes] | None = None  # the open file, if it is compressed
        self._skip_total = start.total if not start.file and not start.offset else 0
        self._file = start.file - 1
        self._fd = -1
        self._splitter = splitter(0)
        self._begin = replace(start)  # where reading the file begins
        self._lines = 0
        self._ahead: asyncio.Future[bytes] | None = None

    def check(self) -> None:
        """Raise UsageError now for a file that does not exist or cannot be read, and for a directory."""
        for name in self._names:
            if name == "-":
                continue
            try:
                mode = os.stat(name).st_mode
                if stat.S_ISDIR(mode):
                    raise UsageError(f"{name} is a directory")
                if stat.S_ISREG(mode):  # opening and closing a pipe would disturb its writer
                    os.close(os.open(name, os.O_RDONLY))
            except OSError as error:
                raise UsageError(f"cannot read {name}: {error.strerror or error}") from error

    # ── Source ──

    async def read(self) -> Batch | None:
        """The next batch: the messages of a block, or of a part of it. None at the end."""
        while not self._done:
            if (piece := self._next_piece()) is not None:
                return piece
            if self._fd < 0 and not await self._open_next():
                break
            if self._ahead is None:
                self._ahead = self._read_ahead()
            try:
                chunk = await asyncio.shield(self._ahead)
                self._ahead = self._read_ahead() if chunk else None
                bodies = self._splitter.feed(chunk) if chunk else self._splitter.end()
            except InputError as error:
                raise self._of_file(error) from error
            block = self._block(bodies)
            if not chunk:
                self._close_file()
            self._cut_up(block)
        return None

    async def close(self) -> None:
        self._done = True

    # ── positions ──

    @property
    def name(self) -> str:
        """The name of the current input, for messages."""
        name = self._names[min(max(self._file, 0), len(self._names) - 1)]
        return "stdin" if name == "-" else name

    @property
    def _described_name(self) -> str:
        """`name`, and the byte from which messages are counted if that is not 0."""
        offset = self._begin.offset
        return f"{self.name} from byte {offset} on" if offset else self.name

    def _block(self, bodies: list[bytes]) -> InputBlock:
        splitter, file = self._splitter, self._begin
        empty_at, ends = splitter.empty_at, splitter.ends
        begin = self._reached
        end = Position(self._file, file.offset + splitter.consumed, file.total + splitter.consumed)
        end.messages = begin.messages + len(bodies)
        if ends is not None:
            ends = [each - (begin.offset - file.offset) for each in ends]
        name, line = self._described_name, self._lines + 1
        block = InputBlock(self, name, bodies, begin, end, line, splitter.overhead, ends, empty_at)
        block.records = splitter.records
        self._lines += self._add(block)
        return block

    # ── files ──

    def _of_file(self, error: InputError) -> InputError:
        """The error with the name of the file, and with a hint for a compressed file."""
        hint = ""
        if self._compressed is not None and isinstance(error.__cause__, Exception) and not self._reached.offset:
            hint = f" (to send its bytes as they are: q-pipe TOPIC < {self.name})"
        return InputError(f"{self.name}: {error}{hint}", error.offset)

    def _read_ahead(self) -> asyncio.Future[bytes]:
        if self._compressed is not None:
            return self._worker.call(_read_compressed, self._compressed, BLOCK)
        return self._worker.call(_read_block, self._fd)

    async def _open_next(self) -> bool:
        """Open the next file, and go to the position to begin at; False when there is no next file."""
        self._file += 1
        if self._file >= len(self._names):
            self._done = True
            return False
        name = self._names[self._file]
        begin = self._begin
        try:
            self._fd = 0 if name == "-" else os.open(name, os.O_RDONLY | os.O_CLOEXEC)
            info = os.fstat(self._fd)
            if self._decompress and stat.S_ISREG(info.st_mode) and self._fd:
                self._open_compressed(name)
        except OSError as error:
            if name == "-":
                raise StartError("stdin is closed: pipe something in, or name a file") from error
            raise InputError(f"cannot read {name}: {error.strerror or error}") from error
        if stat.S_ISFIFO(info.st_mode):
            _widen(self._fd)
        if begin.file != self._file:
            begin.file, begin.offset = self._file, 0
        if self._skip_total and stat.S_ISREG(info.st_mode) and self._more_files:
            size = info.st_size if self._compressed is None else await self._skip_compressed(self._skip_total)
            if size < self._skip_total or (size == self._skip_total and self._compressed is None):
                self._skip_total -= size
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

    def _open_compressed(self, name: str) -> None:
        """Open the file `name` once more to decompress it, if it has the suffix of a compression."""
        from qtools.pipe.logs.rotated_names import compression_of

        if not (compression := compression_of(name)):
            return
        from qtools.pipe.logs.log_file import open_file

        os.close(self._fd)
        self._compressed = open_file(name, compression)
        self._fd = self._compressed.fileno()

    @property
    def _more_files(self) -> bool:
        return self._file + 1 < len(self._names)

    async def _skip(self, count: int, info: os.stat_result) -> None:
        """Skip the first `count` bytes of the file that was just opened."""
        if self._compressed is not None:
            size = await self._skip_compressed(count)
            if size < count:
                raise InputError(f"{self.name} has only {size} bytes in it, {count} were to be skipped: is it another?")
            return
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

    async def _skip_compressed(self, count: int) -> int:
        """Skip the first `count` bytes of the compressed file; returns how many it had, at most `count`."""
        assert self._compressed is not None
        await self._worker.call(self._compressed.seek, 0)
        done = 0
        try:
            while done < count:
                chunk = await self._worker.call(_read_compressed, self._compressed, min(BLOCK, count - done))
                if not chunk:
                    break
                done += len(chunk)
        except InputError as error:
            raise self._of_file(error) from error
        return done

    def _close_file(self) -> None:
        if self._compressed is not None:
            self._compressed.close()
            self._compressed = None
        elif self._fd > 0:
            os.close(self._fd)
        self._fd = -1
        self._begin = Position(self._file + 1, 0, self._reached.total, self._reached.messages)


def _read_block(fd: int) -> bytes:
    """Read up to a block: wait for the first byte, then take what can be read without waiting."""
    try:
        first = os.read(fd, BLOCK)
        have = len(first)
        if not first or have == BLOCK or os.isatty(fd):  # a terminal reports its end only once
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


def _read_compressed(file: IO[bytes], count: int) -> bytes:
    from qtools.pipe.logs.log_file import damage_named

    with damage_named("it"):
        return file.read(count)


def _widen(fd: int) -> None:
    """Enlarge the buffer of the pipe, if the system can, so that blocks are fewer and larger."""
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import fcntl

        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
