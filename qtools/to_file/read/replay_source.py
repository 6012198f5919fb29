"""Files of an archive as one Source that knows how far it is confirmed. In: a plan. Out: batches of bodies.

A block of a file is one batch, and the origin of its messages. The position up to which the archive is confirmed is
before the first message that is not finished; it counts the messages of a file that were left out too.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from qtools.cli.types import plural
from qtools.cli.upload_run import FileOrigin
from qtools.errors import InputError
from qtools.flow.ledger import SpanLedger
from qtools.message import Batch
from qtools.to_file.archive.manifest import Manifested
from qtools.to_file.read.record_reader import RecordReader, Records, read_records
from qtools.to_file.read.replay_plan import ReplayPlan, ReplayPosition, TimeSpan
from qtools.to_file.stores.object_store import ObjectStore, StoredObject

logger = logging.getLogger("qtools.to_file")


@dataclass(slots=True)
class ReplayBlock(FileOrigin):
    """A block that was read: the origin of its messages."""

    source: ArchiveSource
    name: str  # of the file
    bodies: list[bytes]
    records: Sequence[int]  # the place of each message in its file, from 0 on
    end: ReplayPosition  # behind the whole block, messages that were left out included
    sent: int  # the number of messages before its first
    first: int = 0  # the number of its first message in the ledger of the source
    envelopes: list[Any] | None = None  # of its messages, in the formats that have more than bodies
    topic: str = ""  # of the file

    def finish(self, ids: Sequence[int]) -> None:
        self.source.finish(ids)

    # ── positions ──

    def after(self, count: int) -> ReplayPosition:
        """The position behind the first `count` messages, of which there is one at least, or behind all."""
        if count == len(self.bodies):
            return self.end
        return ReplayPosition(self.name, self.records[count - 1] + 1, self.sent + count)

    def number_of(self, number: int) -> int:
        """The place in its file, from 1 on, of the message with this number in the ledger."""
        return self.records[number - self.first] + 1


class ArchiveSource:
    """The messages of `plan` whose timestamps are in `span`.

    on_confirm: called whenever `confirmed` has moved on. left_out: the number of messages outside of `span`.
    keeps_records: whether batches have the keys and headers of the envelopes.
    """

    def __init__(
        self,
        store: ObjectStore,
        entries: dict[str, StoredObject],
        plan: ReplayPlan,
        span: TimeSpan,
        *,
        delimiter: bytes = b"\n",
        keeps_records: bool = False,
    ) -> None:
        self.on_confirm: Callable[[], None] = lambda: None
        self.confirmed = plan.start
        self.left_out = 0
        self.files = 0  # files that were read to their end
        self.miscounted = 0  # of these: files with another number of messages than their manifest says
        self._store = store
        self._entries = entries
        self._plan = plan
        self._span = span
        self._delimiter = delimiter
        self._keeps_records = keeps_records
        self._ledger: SpanLedger[ReplayBlock] = SpanLedger()
        self._sent = plan.start.sent
        self._batches = self._read_all()

    async def read(self) -> Batch | None:
        return await anext(self._batches, None)

    async def close(self) -> None:
        await self._batches.aclose()  # type: ignore[attr-defined]

    def finish(self, numbers: Sequence[int]) -> None:
        """The messages with these numbers in the ledger are finished."""
        if self._ledger.finish(numbers):
            self._confirm()

    def _confirm(self) -> None:
        """Move `confirmed` on to the first message that is not finished."""
        before = self.confirmed
        for block, count in self._ledger.advance():
            self.confirmed = block.after(count)
        if self.confirmed != before:
            self.on_confirm()

    async def _read_all(self) -> AsyncIterator[Batch]:
        skip = self._plan.start.records
        for file in self._plan.files:
            number = 0
            async for records in self._read_file(file):
                block = self._block(file, records, number, skip)
                number += len(records)
                block.first = self._ledger.add(len(block.bodies), block).start
                if block.bodies:
                    yield Batch.of_bodies(block, block.bodies, block.first, block.envelopes)
                else:
                    self._confirm()
            skip = 0
            self.files += 1

    async def _read_file(self, file: Manifested) -> AsyncIterator[Records]:
        sha256 = hashlib.sha256()

        async def hashed() -> AsyncIterator[bytes]:
            async for chunk in self._store.stream(self._entries[file.name]):
                sha256.update(chunk)
                yield chunk

        count = 0
        try:
            reader = RecordReader(
                file.format, file.compression, self._delimiter,
                keeps_records=self._keeps_records, keeps_empty=file.partition >= 0,
            )  # fmt: skip
            async for records in read_records(hashed(), reader):
                count += len(records)
                yield records
        except InputError as error:
            raise InputError(f"{file.name}: {error}") from error
        if sha256.hexdigest() != file.sha256:
            raise InputError(f"{file.name} was altered: its sha256 is not what the manifest says")
        if count != file.count:  # raw, with another delimiter, or with bodies that have it in them
            self.miscounted += 1
            logger.warning("%s: %s were found in it, %s put in", file.name, plural(count, "message"), f"{file.count:,}")

    def _block(self, file: Manifested, records: Records, number: int, skip: int) -> ReplayBlock:
        """A block of those of `records` that are replayed. number: the place of the first of them in the file.
        skip: how many records of the file are confirmed already."""
        count = len(records)
        begin = min(max(0, skip - number), count)
        keep: Sequence[int] = range(begin, count)
        if records.timestamps is not None and not self._span.covers(file):
            stamps, has = records.timestamps, self._span.has
            keep = [nth for nth in keep if has(stamps[nth])]
        self.left_out += count - begin - len(keep)
        bodies = [records.bodies[nth] for nth in keep]
        before, self._sent = self._sent, self._sent + len(bodies)
        end = ReplayPosition(file.name, max(number + count, skip if begin == count else 0), self._sent)
        block = ReplayBlock(self, file.name, bodies, [number + nth for nth in keep], end, before, topic=file.topic)
        if records.records is not None:
            block.envelopes = [records.records[nth] for nth in keep]
        return block
