"""Files of an archive as one Source that knows how far it is confirmed. In: a plan. Out: batches of bodies.

A block of a file is one batch and the origin of its messages. As they are finished, in order and with all blocks before
it, the place moves on; it stands between two messages of a file, and counts those that were left out as well.
"""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from qtools.cli.types import plural
from qtools.errors import InputError
from qtools.message import Batch
from qtools.to_file.archive.manifest import Manifested
from qtools.to_file.read.record_reader import RecordReader, Records, read_records
from qtools.to_file.read.replay_plan import ReplayPlan, ReplayPosition, Span
from qtools.to_file.stores.object_store import ObjectStore, StoredObject

logger = logging.getLogger("qtools.to_file")


@dataclass(slots=True)
class ReplayBlock:
    """A block that was read: the origin of its messages, which it only counts."""

    source: ArchiveSource
    name: str  # of the file
    bodies: list[bytes]
    numbers: Sequence[int]  # of each message in its file, from 0 on
    end: ReplayPosition  # behind all of it, those left out included
    sent: int  # before the first
    left: int
    done: int = 0  # finished with none before it that is not

    topic = ""
    address = ""

    def finish(self, ids: Sequence[bytes]) -> None:
        self.left -= len(ids)
        if self.left:
            for mine, body in zip(self.bodies[self.done : self.done + len(ids)], ids, strict=False):
                if mine is not body:  # one was refused: the place stays before it until all are finished
                    break
                self.done += 1
        self.source.confirm()

    def requeue(self, ids: Sequence[bytes], delay_ms: int) -> None:
        """Nothing to give back to: what is not confirmed is still in the archive."""

    def touch(self, ids: Sequence[bytes]) -> None:
        """An archive waits for ever."""

    @property
    def reached(self) -> ReplayPosition | None:
        """Behind the last message that is finished with all before it; None before the first."""
        if not self.left:
            return self.end
        return ReplayPosition(self.name, self.numbers[self.done - 1] + 1, self.sent + self.done) if self.done else None

    def number_of(self, body: bytes) -> int:
        """The number in its file, from 1 on, of `body` (one of `bodies`, not a copy)."""
        return self.numbers[next(nth for nth, mine in enumerate(self.bodies) if mine is body)] + 1


class ArchiveSource:
    """The messages of `plan` that lie in `span`.

    on_confirm: called whenever `confirmed` has moved on. left_out: messages that do not.
    """

    def __init__(
        self,
        store: ObjectStore,
        entries: dict[str, StoredObject],
        plan: ReplayPlan,
        span: Span,
        *,
        delimiter: bytes = b"\n",
    ) -> None:
        self.on_confirm: Callable[[], None] = lambda: None
        self.confirmed = plan.start
        self.left_out = 0
        self.files = 0  # read to their end
        self._store = store
        self._entries = entries
        self._plan = plan
        self._span = span
        self._delimiter = delimiter
        self._blocks: deque[ReplayBlock] = deque()
        self._sent = plan.start.sent
        self._batches = self._read_all()

    async def read(self) -> Batch | None:
        return await anext(self._batches, None)

    async def close(self) -> None:
        await self._batches.aclose()  # type: ignore[attr-defined]

    def confirm(self) -> None:
        """Move on over every block that is finished, up to the first that is not."""
        before = self.confirmed
        while self._blocks:
            self.confirmed = self._blocks[0].reached or self.confirmed
            if self._blocks[0].left:
                break
            self._blocks.popleft()
        if self.confirmed != before:
            self.on_confirm()

    async def _read_all(self) -> AsyncIterator[Batch]:
        skip = self._plan.start.records
        for file in self._plan.files:
            number = 0
            async for records in self._read_file(file):
                block = self._block(file, records, number, skip)
                number += len(records)
                self._blocks.append(block)
                if block.bodies:
                    yield Batch.of_bodies(block, block.bodies)
                else:
                    self.confirm()
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
            async for records in read_records(hashed(), RecordReader(file.format, file.compression, self._delimiter)):
                count += len(records)
                yield records
        except InputError as error:
            raise InputError(f"{file.name}: {error}") from error
        if sha256.hexdigest() != file.sha256:
            raise InputError(f"{file.name} was altered: its sha256 is not what the manifest says")
        if count != file.count:  # raw, with another delimiter, or with bodies that have it in them
            logger.warning("%s: %s were found in it, %s put in", file.name, plural(count, "message"), f"{file.count:,}")

    def _block(self, file: Manifested, records: Records, number: int, skip: int) -> ReplayBlock:
        """`records`, the first of which is number `number` of the file, without what does not pass."""
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
        return ReplayBlock(self, file.name, bodies, [number + nth for nth in keep], end, before, len(bodies))
