"""An archive that is uploaded to a store. In: batches. Out: files in a local spool, then objects.

A message is finished when it is fsynced in the local spool. The uploader then uploads its file, and deletes it when the
store has confirmed the object. While the store is unreachable, archiving goes on until the disk is full.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from pathlib import Path

from qtools.cli.metrics.metrics_format import Family, counter, gauge
from qtools.cli.types import plural
from qtools.errors import StartError, StoreError
from qtools.to_file.archive.archive import Archive
from qtools.to_file.archive.file_record import FileRecord
from qtools.to_file.archive.manifest import mark_complete
from qtools.to_file.sinks.archive_sink import ArchiveSink
from qtools.to_file.sinks.upload import Uploader
from qtools.to_file.stores.object_store import ObjectStore

logger = logging.getLogger("qtools.to_file")


async def check(store: ObjectStore) -> None:
    """StartError if `store` can never work: wrong credentials, no bucket. If it is only unreachable now, log a
    warning."""
    try:
        await store.check()
    except StoreError as error:
        if error.permanent:
            raise StartError(str(error)) from error
        logger.warning("%s; trying again", error)


class Spool:
    """The files in `place`, and the task that uploads them to `store`. The thread of the archive calls `add`."""

    def __init__(self, store: ObjectStore, place: Path) -> None:
        self.store = store
        self.place = place
        self.uploader = Uploader(store, place)
        self._loop = asyncio.get_running_loop()
        self._run: asyncio.Task[None] | None = None

    def add(self, finished: FileRecord, again: bool) -> None:
        logger.info("finished %s: %s", finished.path, plural(finished.count, "message"))
        self._loop.call_soon_threadsafe(self.uploader.add, finished)

    def has(self, partition: str) -> bool:
        """Whether files of `partition` are waiting, in it or in a directory below it."""
        return any(path.is_file() for path in (self.place / partition).rglob("*"))

    async def start(self) -> None:
        """Start uploading; StartError if the store can never work."""
        await check(self.store)
        self._run = asyncio.create_task(self.uploader.run())

    async def wait_empty(self) -> None:
        """Wait until all files are uploaded. Raises the error of an uploader that failed, which is a defect."""
        if self._run is None:
            return
        empty = asyncio.create_task(self.uploader.wait_empty())
        try:
            await asyncio.wait((empty, self._run), return_when=asyncio.FIRST_COMPLETED)
        finally:
            empty.cancel()
        if self._run.done():
            self._run.result()

    async def close(self) -> None:
        """Stop the uploader; uploads in progress have RETIRE_TIMEOUT to end."""
        self.uploader.close()
        if self._run is not None:
            run, self._run = self._run, None
            await run


class SpoolSink(ArchiveSink):
    """Writes to `archive`, whose finished files `spool` uploads."""

    def __init__(self, archive: Archive, spool: Spool) -> None:
        super().__init__(archive)
        self.spool = spool

    @property
    def written(self) -> int:
        """Messages that are safe; of a log those that are in the store, as all others are read again."""
        return self.spool.uploader.stored if self.archive.is_of_log else super().written

    @property
    def written_bytes(self) -> int:
        """The bytes of their bodies."""
        return self.spool.uploader.stored_bytes if self.archive.is_of_log else super().written_bytes

    @property
    def failed(self) -> bool:
        return super().failed or bool(self.spool.uploader.stuck)

    async def start(self) -> None:
        await self.spool.start()
        await super().start()

    async def complete(self, partition: str) -> bool:
        await self._until_done(partial(self.archive.cycle, partition))
        if await asyncio.to_thread(self.spool.has, partition):
            return False
        try:
            await mark_complete(self.spool.store, partition)
        except StoreError as error:
            logger.info("%s", error)  # the uploader logs the same trouble as a warning
            return False
        return True

    async def wait_sent(self) -> None:
        await self.spool.wait_empty()

    async def release(self) -> None:
        await self.spool.close()
        await super().release()

    def notes(self) -> list[str]:
        uploader = self.spool.uploader
        notes = [*super().notes(), f"{uploader.uploaded:,} uploaded"]
        if uploader.existed:
            notes.append(f"{uploader.existed:,} there already")
        if uploader.waiting:
            notes.append(f"{uploader.waiting:,} waiting in the spool")
        if uploader.stuck:
            notes.append(f"{uploader.stuck:,} that cannot be uploaded")
        return notes

    def families(self) -> list[Family]:
        uploader = self.spool.uploader
        return [
            *super().families(),
            counter("qtools_to_file_uploaded_total", "Uploaded objects.", uploader.uploaded),
            counter("qtools_to_file_uploaded_bytes_total", "Bytes of uploaded objects.", uploader.uploaded_bytes),
            counter("qtools_to_file_existed_total", "Objects that the store had already.", uploader.existed),
            gauge("qtools_to_file_waiting_files", "Files waiting to be uploaded.", uploader.waiting),
            gauge("qtools_to_file_stuck_files", "Files that can never be uploaded as they are.", uploader.stuck),
            gauge("qtools_to_file_store_failing", "1 while uploads fail.", bool(uploader.last_error)),
        ]

    @property
    def unready(self) -> str:
        return super().unready or self.spool.uploader.last_error
