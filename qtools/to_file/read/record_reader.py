"""The messages of a file of an archive. In: blocks of the file. Out: messages by column, in batches.

    blocks ─▶ inflate ─▶ split by format ─▶ Records(bodies, timestamps, ids)

The formats envelope and msgpack have the timestamp and the id of each message; raw and length32 have bodies only. Each
block is decoded in a thread, so the event loop is not blocked, and memory is bounded.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtools.errors import InputError
from qtools.formats.lines import DelimiterSplitter, LengthSplitter
from qtools.to_file.read.decompressor import Inflater

if TYPE_CHECKING:
    from qtools.formats.envelope_records import EnvelopeRecord

FORMATS = ("raw", "envelope", "msgpack", "length32")


@dataclass(slots=True)
class Records:
    """Messages in their order. timestamps (ns), ids (nsqd, message id) and places (partition and offset in a log) are
    None where the format has none. records: keys, headers and the like, if the reader keeps them."""

    bodies: list[bytes]
    timestamps: list[int] | None = None
    ids: list[tuple[str, str]] | None = None
    records: list[EnvelopeRecord] | None = None
    places: list[tuple[int, int]] | None = None

    def __len__(self) -> int:
        return len(self.bodies)


class RecordReader:
    """Decodes one file. InputError for an unknown format or compression, and for damaged data. keeps_records: whether
    keys and headers are read too. keeps_empty: whether an empty line of raw is a message, as a log has such."""

    def __init__(
        self,
        format: str,
        compression: str,
        delimiter: bytes = b"\n",
        *,
        keeps_records: bool = False,
        keeps_empty: bool = False,
    ) -> None:
        self._inflater = Inflater(compression)
        self._splitter: Any
        self._split: Callable[[bytes], list[bytes]] | None = None
        self._keeps = format in ("envelope", "msgpack")
        self._keeps_records = keeps_records and self._keeps
        if format == "raw":
            self._splitter = DelimiterSplitter(delimiter)
            if keeps_empty:
                self._split = self._splitter.feed_all
        elif format == "length32":
            self._splitter = LengthSplitter(keep_empty=True)
        elif self._keeps:
            from qtools.formats.envelope import EnvelopeSplitter, MsgpackSplitter
            from qtools.formats.envelope_records import RECORD_OF

            make = EnvelopeSplitter if format == "envelope" else MsgpackSplitter
            self._splitter = make(record_of=RECORD_OF[format] if keeps_records else _as_it_is, keep_empty=True)
        else:
            raise InputError(f"the format {format!r} is unknown to this program")

    def feed(self, chunk: bytes) -> Iterator[Records]:
        """The messages that end in `chunk`. Iterate to the end before the next call."""
        for block in self._inflater.feed(chunk):
            bodies = self._split(block) if self._split is not None else self._splitter.feed(block)
            if bodies:
                yield self._records(bodies)

    def end(self) -> Records:
        """The last messages, when the file has ended. InputError if it ended within one."""
        self._inflater.end()
        return self._records(self._splitter.end())

    def _records(self, bodies: list[bytes]) -> Records:
        if not self._keeps:
            return Records(bodies)
        records: list[EnvelopeRecord] | None = self._splitter.records if self._keeps_records else None
        maps = self._splitter.records if records is None else [record.fields for record in records]
        timestamps = [stamp if type(stamp := each.get("timestamp")) is int else 0 for each in maps]
        # "nsqd" is what "source" was called in archives of older versions.
        names = [(str(each.get("source", each.get("nsqd", ""))), str(each.get("id", ""))) for each in maps]
        places = None
        if maps and "offset" in maps[0]:
            places = [(_number(each.get("partition")), _number(each.get("offset"))) for each in maps]
        return Records(bodies, timestamps, names, records, places)


def _number(value: Any) -> int:
    return value if type(value) is int else -1


def _as_it_is(envelope: dict[str, Any]) -> dict[str, Any]:
    return envelope


async def read_records(chunks: AsyncIterator[bytes], reader: RecordReader) -> AsyncIterator[Records]:
    """All messages of a file, in batches."""
    async for chunk in chunks:
        steps = reader.feed(chunk)
        while (records := await asyncio.to_thread(next, steps, None)) is not None:
            yield records
    last = reader.end()
    if last.bodies:
        yield last


class Sum:
    """A checksum of the bodies in a file that ignores their order: their number, their size, and the sum of their
    hashes."""

    def __init__(self) -> None:
        self.count = self.bytes = self._sum = 0

    def add(self, bodies: list[bytes]) -> None:
        total = 0
        for body in bodies:
            total += int.from_bytes(hashlib.blake2b(body, digest_size=16).digest(), "big")
        self._sum = (self._sum + total) % (1 << 128)
        self.count += len(bodies)
        self.bytes += sum(map(len, bodies))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Sum)
            and (self.count, self.bytes, self._sum) == (other.count, other.bytes, other._sum)
        )  # fmt: skip

    __hash__ = None  # type: ignore[assignment]
