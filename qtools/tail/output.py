"""stdout as a Sink. In: batches. Out: their messages in one of the formats, one write a batch.

The write runs in a thread, so that a stalled reader of stdout does not block the event loop. If the reader closes the
pipe during a write, the messages that were written completely are finished, and the others are requeued.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable, Sequence

from qtools.cli.worker import Worker
from qtools.descriptors import write_until_error
from qtools.errors import SinkClosed, SinkError
from qtools.formats import encoders
from qtools.formats.encoders import Format
from qtools.message import Batch


def make_format(name: str, delimiter: bytes, *, print_topic: bool, on_terminal: bool) -> Format:
    """The format `name`. print_topic: begin each raw message with `TOPIC | `. on_terminal: make control characters in
    text formats visible."""
    if name == "json":
        from qtools.tail.json_envelope import encode_json

        form = Format(encode_json)
    else:
        form = _with_topic(delimiter) if print_topic else encoders.make_format(name, delimiter)
    if not on_terminal or name in ("msgpack", "length32"):
        return form
    # JSON escapes C0 characters, but not C1 and bidirectional marks.
    return visible_on_terminal(form, delimiter if name == "raw" else b"")


def visible_on_terminal(form: Format, delimiter: bytes) -> Format:
    """`form` with control characters made visible. The delimiter is the user's choice and stays as it is."""
    from qtools.tail.terminal import visible

    end = len(delimiter)
    pieces = form.pieces

    def shown(piece: bytes) -> bytes:
        return visible(piece[: len(piece) - end]) + piece[len(piece) - end :]

    return Format(lambda batch: [shown(piece) for piece in pieces(batch)])


def _with_topic(delimiter: bytes) -> Format:
    def pieces(batch: Batch) -> list[bytes]:
        lines: list[bytes] = []
        bodies = batch.bodies
        for origin, start, stop in batch.parts:
            head = origin.topic.encode() + b" | "
            lines += [head + body + delimiter for body in bodies[start:stop]]
        return lines

    return Format(pieces)


class Output:
    """Writes to file descriptor `fd`.

    sample: the share of messages that is printed, 0 to 1; the others count as written.
    limit: the number of messages to print; then `write` raises SinkClosed.
    on_closed: called when the reader closes the pipe while no write is in progress.
    """

    def __init__(
        self,
        fd: int,
        form: Format,
        *,
        sample: float = 1.0,
        limit: int | None = None,
        on_closed: Callable[[], None] = lambda: None,
    ) -> None:
        self.before_write: Callable[[], None] = lambda: None  # called before each write
        self.printed = 0
        self.printed_bytes = 0
        self.is_writing = False
        self._fd = fd
        self._form = form
        self._sample = sample
        self._limit = limit
        self._worker = Worker("output")
        self._on_closed = on_closed
        self._watched = False
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            # The write end of a pipe becomes readable only when the last reader has closed its end.
            self._watched = True
            asyncio.get_running_loop().add_reader(fd, self._reader_gone)

    async def write(self, batch: Batch) -> None:
        """Print `batch`. SinkClosed if the reader has closed the pipe or the limit is reached, SinkError on a full
        disk."""
        places: Sequence[int] = range(len(batch))
        if self._sample < 1.0:
            from random import random as draw

            share = self._sample
            places = [place for place in places if draw() < share]
        room = len(places) if self._limit is None else self._limit - self.printed
        last = self._limit is not None and len(places) >= room
        places = places[:room]
        if len(places) == len(batch):
            await self._print(batch, places)
        elif places:
            await self._print(batch.pick(places), places)
        if last:
            raise SinkClosed("as many messages as requested are printed", _upto(places, len(places)))

    async def close(self) -> None:
        """Stop watching the pipe. A write that blocks is left to its thread."""
        if self._watched:
            self._watched = False
            asyncio.get_running_loop().remove_reader(self._fd)

    async def _print(self, batch: Batch, places: Sequence[int]) -> None:
        """Print `batch`, whose messages have the indices `places` in the batch that `write` got."""
        data = self._form.join(batch)
        self.before_write()
        self.is_writing = True
        # After a stop, an earlier write may still block in the thread; this write is queued after it.
        written, error = await self._worker.call(write_until_error, self._fd, data)
        self.is_writing = False
        self.printed_bytes += written
        if error is None:
            self.printed += len(batch)
            return
        whole = 0
        for piece in self._form.pieces(batch):
            written -= len(piece)
            if written < 0:
                break
            whole += 1
        self.printed += whole
        if isinstance(error, BrokenPipeError):
            raise SinkClosed("the reader of stdout has closed it", _upto(places, whole))
        raise SinkError(f"cannot write to stdout: {error.strerror or error}", _upto(places, whole))

    def _reader_gone(self) -> None:
        self._on_closed()
        asyncio.get_running_loop().remove_reader(self._fd)
        self._watched = False


def _upto(places: Sequence[int], printed: int) -> int:
    """How many messages at the beginning of a batch can be finished when `printed` of those at `places` are written."""
    return places[printed - 1] + 1 if printed else 0
