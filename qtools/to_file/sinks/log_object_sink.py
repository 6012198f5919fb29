"""An archive of a log (Kafka) without a local disk. In: batches. Out: objects, each of one partition of the log.

    split by partition and directory, without what is archived ─▶ put, only if the name is free ─▶ the chain goes on

The name of an object follows from its first offset, so that two processes cannot both continue a chain. The one that is
too late looks up how far the chain is now, and puts what is left of its messages behind that.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import replace

from qtools.backoff import next_delay
from qtools.cli.metrics.metrics_format import Family
from qtools.errors import InputError, ObjectDiffers, SinkError
from qtools.message import Batch
from qtools.to_file.archive.archive import Encoding
from qtools.to_file.archive.archived_partitions import ArchivedPartition, ArchivedPartitions, ChainEnd
from qtools.to_file.archive.layout import Layout
from qtools.to_file.archive.partitioner import Group, Partitioner
from qtools.to_file.sinks.archive_sink import skipped_families
from qtools.to_file.sinks.object_sink import AT_ONCE, ObjectSink
from qtools.to_file.sinks.store_chains import StoreChains
from qtools.to_file.stores.object_store import ObjectStore

Piece = tuple[str, ArchivedPartition, Batch]  # directory, partition, messages


class LogObjectSink(ObjectSink):
    """Writes batches to `store`; each message is stored once."""

    def __init__(self, store: ObjectStore, layout: Layout, partitioner: Partitioner, encoding: Encoding) -> None:
        super().__init__(store, layout, partitioner, encoding)
        self._chains = StoreChains(store, layout)
        self._sources = ArchivedPartitions(self._chains.look_up, store.url)

    async def write(self, batch: Batch) -> None:
        """Return when the store has all of `batch`, however long that takes. What was taken away is left out."""
        limit = asyncio.Semaphore(AT_ONCE)
        groups = await asyncio.to_thread(self._partitioner.sort, batch)
        pieces: dict[ArchivedPartition, list[Piece]] = {}
        for _, directory, source, part in await self._split(groups):
            pieces.setdefault(source, []).append((directory, source, part))

        async def put(some: Iterable[Piece]) -> None:
            async with limit:
                for piece in some:
                    await self._put_piece(*piece)

        putting = [asyncio.create_task(put(some)) for some in pieces.values()]
        try:
            await asyncio.gather(*putting)
        finally:
            for task in putting:
                task.cancel()

    def families(self) -> list[Family]:
        return [*super().families(), *skipped_families(self._sources.skipped)]

    def notes(self) -> list[str]:
        skipped = [f"{self._sources.skipped:,} archived before"] if self._sources.skipped else []
        return [*super().notes(), *skipped]

    async def _split(self, groups: list[Group]) -> list[tuple[str, str, ArchivedPartition, Batch]]:
        """The groups by partition, without what is archived; it is tried until the store answers."""
        failures = 0
        while True:
            try:
                found = await asyncio.to_thread(self._sources.split, groups)
            except OSError as error:
                failures += 1
                self._outage.fail(str(error))
                await asyncio.sleep(next_delay(failures))
                continue
            self._outage.end()
            return found

    async def _put_piece(self, directory: str, source: ArchivedPartition, part: Batch) -> None:
        ownership_lock = source.origin.ownership_lock
        while part.bodies:
            finished, content = await asyncio.to_thread(self._object, (source.topic, directory, part))
            lost = source.lost or (-1, -1)
            finished = replace(
                finished, lost_from=lost[0], lost_to=lost[1],
                partition=source.number, first_offset=part.ids[0], last_offset=part.ids[-1],
                follows=source.end_of(directory), topic_id=source.topic_id,
            )  # fmt: skip
            ownership_lock.acquire()  # only for a moment has another thread locked it
            try:
                if source.is_over:
                    return
                await self._put_until_stored(finished, content)
            except InputError as error:
                raise SinkError(str(error)) from error
            except ObjectDiffers as error:
                part = await self._behind(directory, source, part, error)
            else:
                self.written += len(part)
                self.written_bytes += finished.bytes
                source.set_end(directory, finished.last_offset)
                source.settle(directory, finished.first_offset, finished.last_offset)
                return
            finally:
                ownership_lock.release()

    async def _behind(self, directory: str, source: ArchivedPartition, part: Batch, error: ObjectDiffers) -> Batch:
        """What is left of `part`, whose first messages another process has archived."""
        end: ChainEnd = await asyncio.to_thread(
            self._chains.look_up, source.topic, source.number, directory, part.ids[0]
        )  # fmt: skip
        archived, rest = part.split(bisect_right(part.ids, end.offset))
        if not archived.bodies:
            raise SinkError(str(error)) from error
        self._sources.count_skipped(part, len(archived))
        source.set_end(directory, end.offset)
        return rest
