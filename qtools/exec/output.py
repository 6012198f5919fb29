"""The output of commands, on this process's own stdout and stderr. In: pipes and files of commands. Out: writes.

    default    stdout: the command has ours          stderr: a pipe ─▶ passed on as it comes
    --tag      both: a pipe ─▶ whole lines, with the message's name before each
    --group    both: a file ─▶ passed on when the command has ended; with --tag line by line

The end of stderr is kept, as the reason if the message fails. A thread writes, so that a stalled reader blocks no
command that runs; while more than FULL bytes wait for it, no pipe is read.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

from qtools.cli.worker import Worker
from qtools.descriptors import write_until_error
from qtools.errors import one_line
from qtools.exec.process import temporary_file

FULL = 1024 * 1024  # bytes that wait for a writer, beyond which no pipe is read
BLOCK = 65_536
KEPT = 2000  # bytes of the end of stderr
MOST_READS = 32  # of what is in a pipe when its command has ended: Linux holds 1 MiB in it at most
LONGEST_LINE = 65_536  # bytes after which --tag ends a line
CLOSE_TIMEOUT = 2.0  # s that the end waits for the readers of our output
MOST_LINGERING = 64  # pipes that are read though their command has ended, as a process that it has started holds them


class _File(NamedTuple):
    """A file of --group that is to be copied; tag: what each line begins with. It is closed then."""

    fd: int
    tag: bytes


_Item = bytes | _File | Callable[[], None]  # what to write, or what to call when all before it is written


class OutputWriter:
    """Writes to the descriptor `fd`, in a thread. on_error: called once, with the first error; nothing is written after
    it."""

    def __init__(self, fd: int, on_error: Callable[[OSError], None]) -> None:
        self._fd = fd
        self._on_error = on_error
        self._worker = Worker(f"output {fd}")
        self._items: deque[_Item] = deque()
        self._waiting_bytes = 0
        self._is_writing = False
        self._has_failed = False
        self._when_room: list[Callable[[], None]] = []

    @property
    def is_full(self) -> bool:
        """Whether so much waits that its sources are to stop."""
        return self._waiting_bytes > FULL

    def call_when_room(self, call: Callable[[], None]) -> None:
        """Call `call` once `is_full` is false again."""
        self._when_room.append(call)

    def write(self, data: bytes) -> None:
        """Write `data` after all that came before."""
        self._waiting_bytes += len(data)
        self._add(data)

    def copy(self, fd: int, tag: bytes) -> None:
        """Copy the file `fd` from its beginning, and close it."""
        self._add(_File(fd, tag))

    def call_when_written(self, call: Callable[[], None]) -> None:
        """Call `call` when all that was given before is written, or cannot be written."""
        if self._is_writing or self._items:
            self._add(call)
        else:
            call()

    async def flush(self) -> None:
        """Return when all that was given before is written."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.call_when_written(lambda: None if done.done() else done.set_result(None))
        await done

    def _add(self, item: _Item) -> None:
        self._items.append(item)
        if not self._is_writing:
            self._write_next()

    def _write_next(self) -> None:
        items, self._items = list(self._items), deque()
        self._is_writing = True
        done = self._worker.call(_write_items, self._fd, items, self._has_failed)
        done.add_done_callback(lambda future: self._written(items, future.result()))

    def _written(self, items: list[_Item], error: OSError | None) -> None:
        self._is_writing = False
        self._waiting_bytes -= sum(len(item) for item in items if isinstance(item, bytes))
        if error is not None and not self._has_failed:
            self._has_failed = True
            self._on_error(error)
        if not self.is_full:
            waiting, self._when_room = self._when_room, []
            for call in waiting:
                call()
        for item in items:
            if callable(item):
                item()
        if self._items and not self._is_writing:
            self._write_next()


def _write_items(fd: int, items: list[_Item], is_broken: bool) -> OSError | None:
    """Write and copy `items`; return the first error. is_broken: an earlier write failed, and nothing is written."""
    error: OSError | None = None
    block: list[bytes] = []
    for item in items:
        if isinstance(item, bytes):
            block.append(item)
        elif isinstance(item, _File):
            try:
                for piece in _pieces_of(item):
                    block.append(piece)
                    if not is_broken and error is None:
                        _, error = write_until_error(fd, b"".join(block))
                    block.clear()
            finally:
                os.close(item.fd)
    if block and not is_broken and error is None:
        _, error = write_until_error(fd, b"".join(block))
    return error


def _pieces_of(file: _File) -> Iterator[bytes]:
    os.lseek(file.fd, 0, os.SEEK_SET)
    lines = _TaggedLines(file.tag)
    while data := os.read(file.fd, BLOCK):
        yield lines.add(data) if file.tag else data
    if file.tag:
        yield lines.end()


class _TaggedLines:
    """Whole lines, each after a tag."""

    def __init__(self, tag: bytes) -> None:
        self._tag = tag
        self._rest = b""

    def add(self, data: bytes) -> bytes:
        """The lines that `data` completes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST_LINE:
            lines.append(self._rest)
            self._rest = b""
        return b"".join([self._tag + line + b"\n" for line in lines])

    def end(self) -> bytes:
        """The last line, if it has no end."""
        rest, self._rest = self._rest, b""
        return self._tag + rest + b"\n" if rest else b""


class _Pipe:
    """Reads a pipe of a command, and passes on what comes. keep: keep the end of it in `last`."""

    def __init__(self, writer: OutputWriter, tag: bytes, *, keep: bool, on_closed: Callable[[_Pipe], None]) -> None:
        self.last = b""
        self._writer = writer
        self._lines = _TaggedLines(tag) if tag else None
        self._keep = keep
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._fd, self.command_end = os.pipe()
        os.set_blocking(self._fd, False)
        self._is_open = True
        self._loop.add_reader(self._fd, self._readable)

    def read_rest(self) -> bool:
        """Read all that is in the pipe. Returns whether a process still holds it open."""
        for _ in range(MOST_READS):  # a process that was left behind may write without end
            if not self._is_open or not self._read():
                break
        return self._is_open

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            if self._lines is not None and (data := self._lines.end()):
                self._writer.write(data)
            self._on_closed(self)

    def _readable(self) -> None:
        if self._writer.is_full:
            self._loop.remove_reader(self._fd)
            self._writer.call_when_room(self._resume)
        else:
            self._read()

    def _resume(self) -> None:
        if self._is_open:
            self._loop.add_reader(self._fd, self._readable)

    def _read(self) -> bool:
        """Read once. Returns whether there may be more."""
        try:
            data = os.read(self._fd, BLOCK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self.close()
            return False
        if self._keep:
            self.last = (self.last + data)[-KEPT:]
        shown = data if self._lines is None else self._lines.add(data)
        if shown:
            self._writer.write(shown)
        return True


class JobOutput:
    """The output of one command. descriptors: the command's → ours, to be closed after its start (`started`). OSError
    if the system has no room for another pipe or file."""

    def __init__(self, output: CommandOutput, tag: bytes) -> None:
        self._output = output
        self._tag = tag if output.has_tags else b""
        self._pipes: list[_Pipe] = []
        self._files: list[tuple[OutputWriter, int]] = []
        self.descriptors: dict[int, int] = {}
        try:
            for number, writer in ((1, output.stdout), (2, output.stderr)):
                self._open(number, writer)
        except OSError:
            self.started()
            self.abandon()
            raise

    def _open(self, number: int, writer: OutputWriter) -> None:
        """Open what the command gets as its descriptor `number`, unless that is ours."""
        if self._output.is_grouped:
            fd = temporary_file()
            self._files.append((writer, fd))
            self.descriptors[number] = fd
        elif number == 2 or self._output.has_tags:
            pipe = _Pipe(writer, self._tag, keep=number == 2, on_closed=self._output.forget)
            self._pipes.append(pipe)
            self.descriptors[number] = pipe.command_end

    def started(self) -> None:
        """The command has its descriptors, or could not be started."""
        for pipe in self._pipes:
            os.close(pipe.command_end)

    def abandon(self) -> None:
        """The command could not be started."""
        for pipe in self._pipes:
            pipe.close()
        for _, fd in self._files:
            os.close(fd)

    def end(self, then: Callable[[str], None]) -> None:
        """The command has ended: pass on the rest; call `then` with its last words on stderr, when all is written that
        passes through this process: a log line about the command follows what the command says."""
        last = b""
        for pipe in self._pipes:
            if pipe.read_rest():
                self._output.linger(pipe)
            last = pipe.last or last
        for writer, fd in self._files:
            if writer is self._output.stderr:
                size = os.lseek(fd, 0, os.SEEK_END)
                last = os.pread(fd, KEPT, max(0, size - KEPT))
            writer.copy(fd, self._tag)
        words = last_words(last)
        stdout, stderr = self._output.stdout, self._output.stderr
        stdout.call_when_written(lambda: stderr.call_when_written(lambda: then(words)))


class CommandOutput:
    """Where the output of all commands goes. on_closed: called when the reader of stdout has closed it, or it cannot be
    written."""

    def __init__(self, *, tag: bool, group: bool, on_closed: Callable[[OSError], None]) -> None:
        self.has_tags, self.is_grouped = tag, group
        self.stdout = OutputWriter(1, on_closed)
        self.stderr = OutputWriter(2, lambda _: None)  # the run goes on without it
        self._lingering: dict[_Pipe, None] = {}

    def of_job(self, tag: bytes) -> JobOutput:
        """The output of a command; tag: what names its message, with what follows it."""
        return JobOutput(self, tag)

    def linger(self, pipe: _Pipe) -> None:
        """Go on reading `pipe`, which a process holds that a command has started and left behind."""
        self._lingering[pipe] = None
        if len(self._lingering) > MOST_LINGERING:
            next(iter(self._lingering)).close()

    def forget(self, pipe: _Pipe) -> None:
        """`pipe` is closed."""
        self._lingering.pop(pipe, None)

    async def close(self) -> None:
        """Read no pipe any more, and return when all is written, or the readers of our output stand still for long."""
        for pipe in list(self._lingering):
            pipe.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self.stdout.flush()
                await self.stderr.flush()


def last_words(data: bytes) -> str:
    """The last line in `data` that is not empty, as one printable line."""
    lines = data.decode("utf-8", "replace").strip().splitlines()
    return one_line(lines[-1]) if lines else ""
