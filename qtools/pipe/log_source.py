"""Rotated logs as one Source. In: a LogReader, which runs in a thread. Out: batches of bodies, and what is confirmed.

Each chunk is a block, the origin of its messages. As messages are confirmed, in order, the entries of their files move
on, each to the end of a complete message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from isal.isal_zlib import crc32

from qtools.cli import logs
from qtools.errors import InputError
from qtools.formats.lines import Splitter
from qtools.message import Batch
from qtools.pipe.blocks import BlockSource, InputBlock, Position
from qtools.pipe.logs.log_file import MARK, LogFile, fingerprint
from qtools.pipe.logs.log_reader import LogReader
from qtools.pipe.logs.rotating_log import Chunk, End, Idle, Step
from qtools.pipe.logs.rotation import Fingerprint


@dataclass(slots=True)
class LogBlock(InputBlock):
    """A block of `file`, of the log at `path`. mark: the fingerprint of the last bytes before its end. checksum: a
    length and the CRC-32 of all bytes before its end."""

    file: LogFile | None = None
    path: str = ""
    mark: Fingerprint | None = None
    checksum: tuple[int, int] | None = None


class LogSource(BlockSource):
    """The messages that `reader` reads. start: the total that was confirmed before. Other arguments: those of
    BlockSource. held_back: bytes of incomplete last messages; set by close()."""

    def __init__(self, reader: LogReader, splitter: Callable[[int], Splitter], start: Position, **options: Any) -> None:
        super().__init__(splitter, start, **options)
        self.held_back = 0
        self._reader = reader
        self._changed: set[str] = set()  # paths of the logs that moved on since the last take_changed()
        self._step: asyncio.Future[Step | None] | None = None

    def check(self) -> None:
        """As LogReader.check."""
        self._reader.check()

    # ── Source ──

    async def read(self) -> Batch | None:
        """The next batch: the messages of a chunk, or of a part of it. None at the end."""
        while not self._done:
            if (piece := self._next_piece()) is not None:
                return piece
            if self._step is None:
                self._step = self._worker.call(self._reader.step)
            try:
                step = await asyncio.shield(self._step)
            finally:
                self._say_notes()
                if self._step.done():
                    self._step = None
            if step is None:
                break
            if isinstance(step, Idle):
                await asyncio.sleep(step.seconds)
                continue
            self._split(step)
            self._step = self._worker.call(self._reader.step)
        return None

    async def close(self) -> None:
        self._done = True
        if self._step is not None:
            await asyncio.wait((self._step,))  # its thread may be opening files
            if not self._step.cancelled():
                self._step.exception()  # its error does not matter any more
        self._say_notes()
        self.held_back = sum(log.held_back for log in self._reader.logs.values())
        self._reader.close()

    # ── positions ──

    def _note_confirmed(self, block: InputBlock, whole: bool) -> None:
        assert isinstance(block, LogBlock)
        assert block.file is not None
        entry = block.file.entry
        entry.offset = self.confirmed.offset
        self._changed.add(block.path)
        if whole:
            entry.mark = block.mark or entry.mark
            entry.checksum = block.checksum or entry.checksum

    def take_changed(self) -> set[str]:
        """The paths of the logs whose entries moved on since the last call."""
        changed, self._changed = self._changed, set()
        return changed

    def _split(self, step: Chunk | End) -> None:
        """Split a chunk, or the end of a file, into messages, and cut these into batches."""
        file = step.file
        splitter = file.splitter
        if splitter is None:
            splitter = file.splitter = self._make_splitter(file.base)
        data = step.data if isinstance(step, Chunk) else b""
        try:
            bodies = splitter.feed(data) if data else splitter.end()
        except InputError as error:
            raise InputError(f"{file.name}: {error}", error.offset) from error
        block = self._block(step.log.path, file, splitter, bodies, data)
        self._cut_up(block)

    def _block(self, path: str, file: LogFile, splitter: Splitter, bodies: list[bytes], data: bytes) -> LogBlock:
        begin = Position(0, file.taken, self._reached.total, self._reached.messages)
        taken = file.base + splitter.consumed
        end = Position(0, taken, begin.total + taken - file.taken, begin.messages + len(bodies))
        ends = splitter.ends
        if ends is not None:
            ends = [each - (begin.offset - file.base) for each in ends]
        name = f"{file.name} from byte {file.base} on" if file.base else file.name
        block = LogBlock(self, name, bodies, begin, end, file.lines + 1, splitter.overhead, ends, splitter.empty_at)
        block.file, block.path, block.records = file, path, splitter.records
        seen = file.tail + data[-2 * MARK :] if len(data) < MARK else data
        block.mark = _mark(seen, file.position_split + len(data), taken)
        _add_to_sum(file, block, data, taken)
        file.tail = (file.tail + data)[-MARK:] if len(data) < MARK else data[-MARK:]
        file.position_split += len(data)
        file.lines += self._add(block)
        if self._broken is not None:
            block.mark = block.checksum = None
        file.taken = taken
        return block

    def _say_notes(self) -> None:
        while self._reader.notes:
            logs.log(*self._reader.notes.popleft())


def _add_to_sum(file: LogFile, block: LogBlock, data: bytes, taken: int) -> None:
    """Update the checksum of `file` with `data`; set that of `block` if `taken` is within `data`."""
    if file.sum_split is None:
        return
    count = taken - file.position_split
    if 0 <= count <= len(data):
        view = memoryview(data)
        value = crc32(view[:count], file.sum_split)
        block.checksum = taken, value
        file.sum_split = crc32(view[count:], value)
    else:
        file.sum_split = crc32(data, file.sum_split)


def _mark(seen: bytes, seen_end: int, at: int) -> Fingerprint | None:
    """The fingerprint of the last bytes before `at`. seen: bytes of the file up to `seen_end`. None if it has none."""
    stop = len(seen) - (seen_end - at)
    return fingerprint(seen[max(0, stop - MARK) : stop], at - min(stop, MARK)) if stop > 0 else None
