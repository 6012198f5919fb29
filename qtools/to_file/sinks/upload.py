"""Uploads finished files. In: files in a spool, each with a record beside it. Out: objects; the files are deleted.

    spool/NAME + spool/.NAME.finished  ─▶  DIRECTORY/TOPIC.TIME.HASH.EXT  ─▶  ….EXT.manifest.json  ─▶  both unlinked

The name of an object depends only on its messages: on the partition, the topic, the earliest timestamp and the hash
over nsqd, topic and message ids, all of which are fixed when the file is closed. No object is overwritten. So an upload
that is repeated after a crash makes no second object. Neither does a file of the same messages that were delivered
again, though its bytes may differ (in the number of attempts, or in the order). A file is deleted only after the store
has confirmed the whole object.

A failed upload is repeated for ever, with growing pauses. The first failure is logged, and the first success after it.
A file that can never be uploaded (another object has its name, or the file was changed) stays in the spool.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from time import gmtime, strftime
from typing import Any

from qtools.backoff import next_delay
from qtools.cli import logs
from qtools.cli.types import plural
from qtools.errors import InputError, ObjectDiffers, QtoolsError, StoreError
from qtools.to_file.archive.archived_partitions import ArchivedPartition
from qtools.to_file.archive.compression import SUFFIXES
from qtools.to_file.archive.file_record import BESIDE, FileRecord, beside, read_beside
from qtools.to_file.archive.layout import EXTENSIONS
from qtools.to_file.archive.manifest import manifest_line, put_manifest
from qtools.to_file.read.record_reader import RecordReader, Sum, read_records
from qtools.to_file.sinks.object_names import log_pattern, log_prefix
from qtools.to_file.stores.digests import SINGLE_PUT
from qtools.to_file.stores.object_store import BLOCK, ObjectStore, Outcome

AT_ONCE = 2  # uploads; at most one is of a large file, and another has up to 16 MiB in memory
RETIRE_TIMEOUT = 10.0  # s that `run` waits after `close` for uploads in progress


def object_name(finished: FileRecord) -> str:
    """`dt=2026-11-23/hour=08/events.20261123T080001Z.0123456789abcdef0123456789abcdef.jsonl.gz`; for one partition of a
    log `dt=2026-11-23/hour=08/events.3.00000000000000012345.jsonl.gz`.

    An object that is put in one request has the first offset only: of two processes that continue a partition one is
    refused. The request that completes an upload in parts cannot be refused, so such an object has both offsets: it
    never takes the place of another one.
    """
    directory = finished.relative.rpartition("/")[0]
    stamp = strftime("%Y%m%dT%H%M%SZ", gmtime(finished.first_timestamp // 1_000_000_000))
    extension = EXTENSIONS[finished.format] + SUFFIXES[finished.compression]
    topic = f"_{finished.topic}" if finished.topic.startswith(".") else finished.topic  # not hidden
    name = f"{topic}.{stamp}.{finished.ids_hash}{extension}"
    if finished.partition >= 0:
        last = f"-{finished.last_offset:020d}" if finished.size > SINGLE_PUT else ""
        name = f"{log_prefix(finished.topic, finished.partition)}{finished.first_offset:020d}{last}{extension}"
    return f"{directory}/{name}" if directory else name


async def upload(store: ObjectStore, finished: FileRecord, content: bytes | None = None) -> Outcome:
    """Upload a finished file, or `content` in its place, and its manifest; return when the store has confirmed both.

    Returns "existed" if the store had an object with the same messages. Raises StoreError, ObjectDiffers or InputError;
    what was uploaded until then stays, and another attempt goes on from there.
    """
    name = object_name(finished)
    if finished.partition >= 0:
        await _refuse_rival(store, finished, name)
    try:
        source = finished.path if content is None else content
        # The manifest is also stored as metadata of the object: after a crash it may be all there is of it.
        about = manifest_line(finished, name).decode().rstrip()
        outcome = await store.put_new(name, source, sha256=finished.sha256, about=about if about.isascii() else "")
    except ObjectDiffers:
        if finished.partition >= 0:  # another process has continued the chain with other messages
            raise
        there = await _same_messages(store, finished, name, content)
        if there is None:
            raise
        finished, outcome = there, "existed"
    try:
        await put_manifest(store, finished, name)
    except ObjectDiffers as error:
        raise ObjectDiffers(error.url, error.there, f"it does not describe {store.url_of(name)}") from error
    return outcome


async def _refuse_rival(store: ObjectStore, finished: FileRecord, name: str) -> None:
    """ObjectDiffers if an object with another name begins with the same offset of the partition."""
    directory = name.rpartition("/")[0]
    begin = f"{directory}/{log_prefix(finished.topic, finished.partition)}{finished.first_offset:020d}".lstrip("/")
    pattern = log_pattern(finished.topic, finished.partition)
    async for entries in store.list(directory, begin=begin):
        for entry in entries:
            is_one = entry.name.startswith(begin) and pattern.match(entry.name.rpartition("/")[2])
            if is_one and entry.name != name:
                raise ObjectDiffers(
                    store.url_of(entry.name), f"{entry.size} bytes", f"{name} begins with the same offset"
                )
        return


async def _same_messages(
    store: ObjectStore, finished: FileRecord, name: str, content: bytes | None
) -> FileRecord | None:
    """The record of the object in the store, if it has the messages of `finished`; None if it has others."""
    entry = await store.head(name)
    if entry is None:
        return None
    sha256 = hashlib.sha256()
    try:
        here = await _sum(_blocks(finished.path, content), finished)
        there = await _sum(_hashed(store.stream(entry), sha256), finished)
    except (InputError, OSError):
        return None
    return replace(finished, size=entry.size, sha256=sha256.hexdigest()) if here == there else None


async def _sum(chunks: AsyncIterator[bytes], finished: FileRecord) -> Sum:
    total = Sum()
    async for records in read_records(chunks, RecordReader(finished.format, finished.compression)):
        await asyncio.to_thread(total.add, records.bodies)
    return total


async def _hashed(chunks: AsyncIterator[bytes], sha256: Any) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        sha256.update(chunk)
        yield chunk


async def _blocks(path: Path, content: bytes | None) -> AsyncIterator[bytes]:
    if content is not None:
        yield content
        return
    with path.open("rb") as file:
        while block := await asyncio.to_thread(file.read, BLOCK):
            yield block


class Uploader:
    """Uploads the files in `spool`, and those that are added. Its counts may be read at any time.

    A file is anywhere below `spool`, with its record beside it; the record is written before the file appears.
    waiting: files that are not in the store yet. uploaded, uploaded_bytes: objects that this uploader wrote. existed:
    objects that were in the store already. stored, stored_bytes: the messages of both, and the bytes of their bodies.
    stuck: files that can never be uploaded as they are. last_error: why uploads fail now, or "".
    """

    def __init__(self, store: ObjectStore, spool: Path, *, on_change: Callable[[], None] = lambda: None) -> None:
        self.uploaded = self.uploaded_bytes = self.existed = self.stuck = 0
        self.stored = self.stored_bytes = 0
        self.last_error = ""
        self._store = store
        self._spool = spool
        self._on_change = on_change
        self._queue: deque[FileRecord] = deque()
        self._known: set[Path] = set()  # queued, being uploaded, or stuck
        self._bare: list[FileRecord] = []  # records without a file
        self._under_way = 0
        self._busy: set[ArchivedPartition] = set()  # partitions of a log of which a file is being uploaded
        self._more = asyncio.Event()
        self._idle = asyncio.Event()
        self._closing = asyncio.Event()
        self._failures = 0
        self._logged_reasons: set[str] = set()  # the reasons that were logged since the last success

    @property
    def waiting(self) -> int:
        return len(self._queue) + self._under_way

    def __repr__(self) -> str:
        state = f"last_error={self.last_error!r}" if self.last_error else "well"
        return f"<Uploader {self._store.url} waiting={self.waiting} uploaded={self.uploaded} {state}>"

    def add(self, finished: FileRecord) -> None:
        """Queue a file of the spool that was just closed, and whose record is beside it."""
        if finished.path not in self._known:
            self._known.add(finished.path)
            self._queue.append(finished)
            self._idle.clear()
            self._more.set()

    def resume(self) -> int:
        """Queue the files that earlier runs left in the spool; returns their number. Damaged ones are logged, and
        stay. Those of a log are removed: their messages are not committed, and read again."""
        before = len(self._known)
        for place in sorted(self._spool.rglob(f".*{BESIDE}")):
            path = place.with_name(place.name[1 : -len(BESIDE)])
            if path in self._known:
                continue
            try:
                finished = read_beside(path)
                if finished.partition >= 0:
                    _forget(path)
                elif path.exists():
                    self.add(finished)
                else:
                    self._bare.append(finished)
            except (InputError, OSError) as error:
                self._set_aside(path, error)
        for path in sorted(self._spool.rglob("*")):
            hidden = any(part.startswith(".") for part in path.relative_to(self._spool).parts)
            if not hidden and path not in self._known and path.is_file() and not beside(path).exists():
                self._set_aside(path, InputError(f"{beside(path).name}, the record of the file, was removed"))
        return len(self._known) - before

    async def run(self) -> None:
        """Upload files until `close` is called."""
        self.resume()
        workers = [asyncio.create_task(self._work(), name=f"upload {number}") for number in range(AT_ONCE)]
        workers.append(asyncio.create_task(self._sweep()))
        closing = asyncio.create_task(self._closing.wait())
        try:
            await asyncio.wait((closing, *workers[:-1]), return_when=asyncio.FIRST_COMPLETED)
            if self._closing.is_set():
                await asyncio.wait(workers, timeout=RETIRE_TIMEOUT)
        finally:
            for task in (closing, *workers):
                task.cancel()
            ended = await asyncio.gather(closing, *workers, return_exceptions=True)
        for error in ended:
            if isinstance(error, BaseException) and not isinstance(error, asyncio.CancelledError):
                raise error  # a defect

    async def wait_empty(self) -> None:
        """Wait until no file is waiting; files that are stuck do not count."""
        while self.waiting:
            self._idle.clear()
            await self._idle.wait()

    def close(self) -> None:
        """Start no more uploads. `run` returns when those in progress have ended, or after RETIRE_TIMEOUT."""
        self._closing.set()
        self._more.set()

    # ── one after the other ──

    async def _work(self) -> None:
        while not self._closing.is_set():
            finished = self._next()
            if finished is None:
                self._more.clear()
                await self._more.wait()
                continue
            self._under_way += 1
            try:
                put = await self._upload(finished)
            finally:
                self._under_way -= 1
                if finished.source is not None:
                    self._busy.discard(finished.source)
                    self._more.set()
            if not put:
                self._queue.appendleft(finished)
            elif not self.waiting:
                self._idle.set()
            self._on_change()
            if not put:
                await self._pause()

    def _next(self) -> FileRecord | None:
        """The next file that may be uploaded: those of one partition of a log one after the other, in their order."""
        for place, finished in enumerate(self._queue):
            if finished.source is None or finished.source not in self._busy:
                del self._queue[place]
                if finished.source is not None:
                    self._busy.add(finished.source)
                return finished
        return None

    async def _upload(self, finished: FileRecord) -> bool:
        """Upload one file. Returns whether it is settled: uploaded, or stuck."""
        source: ArchivedPartition | None = finished.source
        if source is None:
            return await self._upload_now(finished)
        ownership_lock = source.origin.ownership_lock
        ownership_lock.acquire()  # only for a moment has another thread locked it
        try:
            if source.is_over:  # its messages are read again, here or by another process
                await self._drop(finished.path)
                return True
            return await self._upload_now(finished)
        finally:
            ownership_lock.release()

    async def _upload_now(self, finished: FileRecord) -> bool:
        source: ArchivedPartition | None = finished.source
        try:
            if not finished.path.exists():
                return await self._gone(finished)
            outcome = await upload(self._store, finished)
            await self._forget(finished.path)
        except (ObjectDiffers, InputError) as error:
            if source is not None:
                source.fail(str(error))
                await self._drop(finished.path)
            else:
                self._set_aside(finished.path, error)
            return True
        except StoreError as error:
            self._failed(error)
            return False
        except OSError as error:  # the object is in the store, but the file cannot be deleted
            self._failed(StoreError(str(finished.path), f"cannot be deleted: {error.strerror or error}"))
            return False
        if source is not None:
            source.settle(finished.directory, finished.first_offset, finished.last_offset)
        self.stored += finished.count
        self.stored_bytes += finished.bytes
        if outcome == "created":
            self.uploaded += 1
            self.uploaded_bytes += finished.size
        else:
            self.existed += 1
        self._succeeded()
        return True

    async def _forget(self, path: Path) -> None:
        """Delete a file and its record. Its name is free from then on, and another file may be added under it before
        this returns."""
        self._known.discard(path)
        try:
            await asyncio.to_thread(_forget, path)
        except OSError:
            self._known.add(path)
            raise

    async def _drop(self, path: Path) -> None:
        """Delete a file that is not to be uploaded; what cannot be deleted now is deleted at the next start."""
        with contextlib.suppress(OSError):
            await self._forget(path)

    async def _gone(self, finished: FileRecord) -> bool:
        """The file is gone. Another uploader deletes it after uploading it; any other process must not."""
        if finished.source is not None:
            finished.source.fail(f"another process removed {finished.path}")
            self._known.discard(finished.path)
        elif await self._store.head(object_name(finished)) is None:
            self._set_aside(finished.path, InputError("it is gone, and not in the store"))
        else:
            self._known.discard(finished.path)
            self.existed += 1
        return True

    async def _sweep(self) -> None:
        """Delete the records of files that are in the store and not in the spool: a crash came between the deletion of
        the file and that of its record. A record whose file is in neither stays: the file may be about to appear."""
        for finished in self._bare:
            try:
                if await self._store.head(object_name(finished)) and not finished.path.exists():
                    await asyncio.to_thread(_forget, finished.path)
            except (StoreError, OSError):
                return  # the next start tries again

    def _set_aside(self, path: Path, error: QtoolsError | OSError) -> None:
        self.stuck += 1
        self._known.add(path)
        logs.log(logging.ERROR, f"{path} is not uploaded: {error}")

    def _failed(self, error: StoreError) -> None:
        self._failures += 1
        self.last_error = str(error)
        if error.reason not in self._logged_reasons:
            self._logged_reasons.add(error.reason)
            logs.log(logging.WARNING, f"{error}; {plural(self.waiting, 'file')} waiting in {self._spool}, trying again")

    def _succeeded(self) -> None:
        if self.last_error:
            logs.log(
                logging.WARNING, f"{self._store.url}: uploads work again, {plural(self.waiting, 'file')} still waiting"
            )
        self.last_error = ""
        self._failures = 0
        self._logged_reasons.clear()

    async def _pause(self) -> None:
        closing = asyncio.ensure_future(self._closing.wait())
        await asyncio.wait((closing,), timeout=next_delay(max(1, self._failures)))
        closing.cancel()


def _forget(path: Path) -> None:
    """Delete a file that is safe in the store, and after it its record."""
    path.unlink(missing_ok=True)
    beside(path).unlink(missing_ok=True)
