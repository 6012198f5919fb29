"""An archive without a local disk. In: batches. Out: objects, one for each topic and partition of a batch.

A message is finished when the store has confirmed the object that contains it. So an object has no more messages than
may be in flight. If the store fails, the sink tries again until it works: meanwhile nothing is acknowledged, and the
messages in flight are touched. SIGHUP has no effect, as no file is open.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from pathlib import Path

from qtools.backoff import next_delay
from qtools.cli.metrics.metrics_format import Family, counter, gauge
from qtools.errors import InputError, ObjectDiffers, SinkError, StoreError
from qtools.message import Batch
from qtools.to_file.archive.archive import Encoding
from qtools.to_file.archive.compression import ending, open_stream
from qtools.to_file.archive.content_hash import ContentHash
from qtools.to_file.archive.file_record import FileRecord
from qtools.to_file.archive.layout import Layout, fill_rev
from qtools.to_file.archive.partitioner import Group, Partitioner
from qtools.to_file.sinks.spool import check
from qtools.to_file.sinks.upload import upload
from qtools.to_file.sinks.write_outage import WriteOutage
from qtools.to_file.stores.object_store import ObjectStore

logger = logging.getLogger("qtools.to_file")

AT_ONCE = 8  # objects of one batch that are uploaded at once


class ObjectSink:
    """Writes batches to `store`."""

    failed = False

    def __init__(self, store: ObjectStore, layout: Layout, partitioner: Partitioner, encoding: Encoding) -> None:
        self.written = 0
        self.written_bytes = 0
        self.objects = 0
        self.existed = 0
        self._store = store
        self._layout = layout
        self._partitioner = partitioner
        self._encoding = encoding
        self._outage = WriteOutage("%s; nothing is acknowledged until that is over, trying again")

    @property
    def trouble(self) -> str:
        """Why nothing can be written now, or ""."""
        return self._outage.reason

    async def start(self) -> None:
        """StartError if the store can never work."""
        await check(self._store)

    async def write(self, batch: Batch) -> None:
        """Return when the store has all of `batch`, however long that takes."""
        limit = asyncio.Semaphore(AT_ONCE)

        async def put(group: Group) -> None:
            async with limit:
                await self._put(*await asyncio.to_thread(self._object, group))

        groups = await asyncio.to_thread(self._partitioner.sort, batch)
        putting = [asyncio.create_task(put(group)) for group in groups if len(group[2])]
        try:
            await asyncio.gather(*putting)
        finally:
            for task in putting:
                task.cancel()
        self.written += len(batch)
        self.written_bytes += sum(map(len, batch.bodies))

    def hang_up(self) -> None:
        """There is nothing to do: no file is open."""

    async def close(self) -> None: ...

    async def wait_sent(self) -> None: ...

    async def release(self) -> None: ...

    def notes(self) -> list[str]:
        there = [f"{self.existed:,} there already"] if self.existed else []
        return [f"{self.objects:,} object" + ("" if self.objects == 1 else "s"), *there]

    def families(self) -> list[Family]:
        return [
            counter("qtools_to_file_uploaded_total", "Uploaded objects.", self.objects),
            counter("qtools_to_file_existed_total", "Objects that the store had already.", self.existed),
            gauge("qtools_to_file_paused", "1 while nothing can be written.", bool(self.trouble)),
        ]

    @property
    def unready(self) -> str:
        return self.trouble

    def _object(self, group: Group) -> tuple[FileRecord, bytes]:
        """The record and the content of the object for one topic and partition."""
        topic, partition, batch = group
        encoding = self._encoding
        block = encoding.form.join(batch)
        stream = open_stream(encoding.compression, encoding.level)
        content = stream.add(block) + stream.flush()
        content += ending(encoding.compression, stream.crc, len(block))
        ids = ContentHash(topic)
        messages = batch.messages
        for origin, start, stop in batch.parts:
            ids.add(origin.address, messages.ids[start:stop])
        relative = fill_rev(self._layout.name(topic, partition, time.time()), 0)
        first, last = messages.first_and_last()
        return FileRecord(
            Path(relative), relative, topic, len(batch), sum(map(len, batch.bodies)), len(content),
            hashlib.sha256(content).hexdigest(),
            first, last, ids.hexdigest(), encoding.format, encoding.compression,
        ), content  # fmt: skip

    async def _put(self, finished: FileRecord, content: bytes) -> None:
        try:
            await self._put_until_stored(finished, content)
        except (ObjectDiffers, InputError) as error:
            raise SinkError(str(error)) from error

    async def _put_until_stored(self, finished: FileRecord, content: bytes) -> None:
        """Store an object, however long that takes. ObjectDiffers when its name has other content; InputError."""
        failures = 0
        while True:
            try:
                outcome = await upload(self._store, finished, content)
            except (ObjectDiffers, InputError):
                raise
            except StoreError as error:
                failures += 1
                self._outage.fail(str(error))
                await asyncio.sleep(next_delay(failures))
                continue
            break
        if outcome == "created":
            self.objects += 1
        else:
            self.existed += 1
        self._outage.end()
