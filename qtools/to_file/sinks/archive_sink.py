"""An archive in a local directory, as a Sink. In: batches. Out: `write` returns when they are durable.

All use of the disk is in one thread. If the disk is full or refuses to write, the sink tries again every second.
Meanwhile nothing is acknowledged, so the broker sends no more than max-in-flight messages; connections, heartbeats and
touches go on. The trouble is logged when it begins and when it ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from qtools.cli.metrics.metrics_format import Family, counter, gauge
from qtools.cli.types import plural
from qtools.cli.worker import Worker
from qtools.message import Batch
from qtools.to_file.archive.archive import Archive
from qtools.to_file.sinks.write_outage import WriteOutage

CANNOT_WRITE = "cannot write %s; nothing is acknowledged until that is over, trying every second"
logger = logging.getLogger("qtools.to_file")

RETRY_SECONDS = 1.0
TICK_SECONDS = 1.0  # how late a file that is due by the clock may be closed
T = TypeVar("T")


def skipped_families(skipped: int) -> list[Family]:
    """The metric of messages that were read again and left out."""
    return [counter("qtools_to_file_archived_before_total", "Messages that were in the archive already.", skipped)]


class ArchiveSink:
    """Writes to `archive`, in its own thread."""

    def __init__(self, archive: Archive) -> None:
        self._synced = self._synced_bytes = 0  # of messages that were written, and the bytes of their bodies
        self.left = 0  # files that could not be closed at the end
        self.archive = archive
        self._worker = Worker("archive")
        self._outage = WriteOutage(CANNOT_WRITE)
        self._tries = 0  # calls that are repeated until they succeed
        self._closed = False
        self._keeper: asyncio.Task[None] | None = None
        self._hanging_up: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Finish the files of earlier runs, and start the clock that closes files. If the disk fails, that is tried
        again."""
        found = await self._try_once(self.archive.adopt)
        if found:
            logger.warning("found %s that the last run left in the work directory", plural(found, "file"))
        await self._try_once(self.archive.settle)
        self._keeper = asyncio.create_task(self._keep_time(adopted=found is not None))

    async def write(self, batch: Batch) -> None:
        """Return when all of `batch` is durable, however long that takes."""
        await self._until_done(partial(self.archive.write, batch))
        self._synced += len(batch)
        self._synced_bytes += sum(map(len, batch.bodies))

    @property
    def written(self) -> int:
        """Messages that are safe; of a log those that are in the archive, or in a file that is not finished."""
        return max(0, self._synced - self.archive.not_added[0])

    @property
    def written_bytes(self) -> int:
        """The bytes of their bodies."""
        return max(0, self._synced_bytes - self.archive.not_added[1])

    async def complete(self, partition: str) -> bool:
        """Close the files of `partition`, and mark it as complete. Always True here."""
        await self._until_done(partial(self.archive.cycle, partition))
        await self._until_done(partial(self.archive.mark_complete, partition))
        return True

    def hang_up(self) -> None:
        """Close all files now; the next message goes into a new file."""
        if self._hanging_up is None or self._hanging_up.done():
            self._hanging_up = asyncio.create_task(self._until_done(self.archive.cycle))

    async def close(self) -> None:
        """Close all files. A file that cannot be closed now stays in the work directory for the next run to finish."""
        if self._closed:
            return
        self._closed = True
        for task in (self._keeper, self._hanging_up):
            if task is not None:
                task.cancel()
        try:
            await self._worker.call(self.archive.close)
        except OSError as error:
            self.left = self.archive.open
            logger.error(
                "%s: %s; %s left in the work directory, which the next run finishes",
                self.archive.at, error.strerror or error, plural(self.left, "file"),
            )  # fmt: skip

    async def wait_sent(self) -> None:
        """Finished files are in their place already."""

    async def release(self) -> None:
        """Release the lock of the work directory."""
        self.archive.release()

    @property
    def trouble(self) -> str:
        """Why nothing can be written now, or ""."""
        return self._outage.reason

    @property
    def unready(self) -> str:
        return self.trouble

    @property
    def failed(self) -> bool:
        return bool(self.left or self.archive.lost)

    def notes(self) -> list[str]:
        lost = [f"{plural(self.archive.lost, 'message')} LOST"] if self.archive.lost else []
        skipped = [f"{self.archive.skipped:,} archived before"] if self.archive.skipped else []
        return [f"{plural(self.archive.files, 'file')} in {plural(self.archive.syncs, 'sync')}", *skipped, *lost]

    def families(self) -> list[Family]:
        archive = self.archive
        return [
            counter("qtools_to_file_files_total", "Finished files.", archive.files),
            counter("qtools_to_file_recovered_total", "Files that an earlier run left unfinished.", archive.recovered),
            counter("qtools_to_file_syncs_total", "Number of fsyncs of received messages.", archive.syncs),
            gauge("qtools_to_file_open_files", "Files that are not finished.", archive.open),
            gauge("qtools_to_file_paused", "1 while nothing can be written.", bool(self.trouble)),
            *(skipped_families(archive.skipped) if archive.is_of_log else ()),
        ]

    async def _keep_time(self, adopted: bool) -> None:
        """Close files that are due by the clock, also if no message arrives."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            if self._tries:
                continue  # another call notices when the disk works again
            if not adopted:
                adopted = await self._try_once(self.archive.adopt) is not None
            await self._try_once(self.archive.settle)

    async def _until_done(self, call: Callable[[], None]) -> None:
        self._tries += 1
        try:
            while (error := await self._attempt(call)) is not None:
                self._failed(error)
                await asyncio.sleep(RETRY_SECONDS)
        finally:
            self._tries -= 1
        self._outage.end()

    async def _try_once(self, call: Callable[[], T]) -> T | None:
        """Return what `call` returns; log an OSError, and return None."""
        try:
            done = await self._worker.call(call)
        except OSError as error:
            self._failed(error)
            return None
        self._outage.end()
        return done

    async def _attempt(self, call: Callable[[], None]) -> OSError | None:
        try:
            await self._worker.call(call)
        except OSError as error:
            return error
        return None

    def _failed(self, error: OSError) -> None:
        self._outage.fail(f"{self.archive.at}: {error.strerror or error}", names_each=True)
