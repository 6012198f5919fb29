"""A file that grows in the work directory until it is complete. In: batches of one topic. Out: the file and its State.

    add ─▶ format ─▶ compress ─▶ in memory        sync ─▶ written, fsynced ─▶ its journal, fsynced        end ─▶ whole

`add` does not use the disk, so errors of the disk occur in `sync` and `end` only. Both may be called again after an
OSError, any number of times, and lose nothing. A file that a crash left is finished like any other: cut at the length
in its journal, and ended from the numbers there. All calls are made in one thread.

A file of a log's partition (`source`) is fsynced only when it ends: its messages are not committed before that, and
after a crash they are read again.

Another process may remove, rename, replace or cut a file while it grows (a cleaner of temporary files does that). The
file stays open until it has its name, so what is synced can still be read after its path is gone. `WorkFileGone` says
that the synced part has to be copied (`salvage`), and that the batches in `unsynced` have to go into a new file.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from dataclasses import replace
from pathlib import Path

from qtools.descriptors import write_all
from qtools.formats.encoders import Format
from qtools.message import Batch
from qtools.to_file.archive.archived_partitions import ArchivedPartition
from qtools.to_file.archive.compression import CompressionStream, ending
from qtools.to_file.archive.content_hash import ContentHash
from qtools.to_file.archive.journal import FileJournal, FileState, JournalHead, is_file_at

DATA, JOURNAL = ".part", ".note"
_BLOCK = 1024 * 1024  # bytes copied at once


class WorkFileGone(OSError):
    """Another process removed, renamed, replaced or cut a work file."""

    def __init__(self, path: Path) -> None:
        super().__init__(errno.ENOENT, "it was removed, replaced or cut by another process", str(path))


class WorkFile:
    """The file `stem`.part with the journal `stem`.note. Without a `stream` it is sealed and takes no messages.

    partition: of its messages. source: the partition of a log that they are read from, or None. unsynced: the batches
    that were added and are not durable yet. is_named: it has its name below the output, and only the work file remains
    to be removed. is_left_over: an earlier run wrote it.
    """

    def __init__(
        self,
        stem: Path,
        head: JournalHead,
        form: Format | None = None,
        stream: CompressionStream | None = None,
        *,
        partition: str = "",
        source: ArchivedPartition | None = None,
    ) -> None:
        self.partition = partition
        self.source = source
        self.unsynced: list[Batch] = []
        self.is_named = False
        self.is_left_over = False
        self.data = stem.with_name(stem.name + DATA)
        self.journal_path = stem.with_name(stem.name + JOURNAL)
        self.head = head
        self.state = FileState()  # what is synced
        self._grown = FileState()  # with what is in memory
        self._form = form
        self._stream = stream
        self._ids = ContentHash(head.topic)
        self._sha: hashlib._Hash | None = hashlib.sha256()  # of what is synced; None if an earlier run wrote it
        self._pending: list[bytes] = []
        self._flushed = True
        self._fd = -1
        self._was_gone = False
        self._journal: FileJournal | None = None

    @classmethod
    def found(cls, journal: FileJournal, head: JournalHead, state: FileState) -> WorkFile:
        """A file that an earlier run left, in the state of its journal."""
        file = cls(journal.path.with_name(journal.path.name.removesuffix(JOURNAL)), head)
        file._journal, file._sha, file.is_left_over = journal, None, True
        file.state, file._grown = state, replace(state)
        file._ids = ContentHash(head.topic, int(state.ids, 16), state.count)
        return file

    @property
    def count(self) -> int:
        """The number of messages, including those not synced yet."""
        return self._grown.count

    @property
    def size_of_bodies(self) -> int:
        """The bytes of the bodies of these messages."""
        return self._grown.bytes

    @property
    def ids_hash(self) -> str:
        return self._ids.hexdigest()

    @property
    def is_over(self) -> bool:
        """Whether another process may read the messages again: they must not get into the archive from here."""
        return self.source is not None and self.source.is_over

    @property
    def is_sealed(self) -> bool:
        """Whether it takes no more messages."""
        return self._stream is None

    def add(self, batch: Batch) -> None:
        """Add messages in memory; nothing is written to disk."""
        if self._stream is None or self._form is None:
            raise ValueError("a sealed file takes no messages")
        block = self._form.join(batch)
        grown = self._grown
        messages = batch.messages
        for origin, start, stop in batch.parts:
            self._ids.add(origin.address, messages.ids[start:stop])
        first, last = messages.first_and_last()
        grown.first = min(grown.first, first) if grown.count else first
        grown.last = max(grown.last, last) if grown.count else last
        if self.source is not None:
            if not grown.count:
                grown.first_offset = batch.ids[0]
                self.source.begin(self.partition, grown.first_offset)
            grown.last_offset = batch.ids[-1]
        grown.count += len(batch)
        grown.bytes += sum(map(len, batch.bodies))
        grown.plain += len(block)
        self._pending.append(self._stream.add(block))
        self._flushed = False
        self.unsynced.append(batch)

    def sync(self) -> None:
        """Make all added messages durable. OSError when that fails now and may succeed later; WorkFileGone, an OSError
        too, when it never can in this file."""
        self._flush()
        if self._was_gone:
            raise WorkFileGone(self.data)
        if not self._pending:
            return
        if len(self._pending) > 1:
            self._pending = [b"".join(self._pending)]
        data = self._pending[0]
        journal = self._open()
        if os.fstat(self._fd).st_size < self.state.length:
            raise WorkFileGone(self.data)  # a write there would leave a hole
        write_all(self._fd, data, self.state.length)
        synced = replace(self._grown, length=self.state.length + len(data), ids=f"{self._ids.value:x}")
        if self.source is None:  # of a log nothing is committed before the whole file is durable
            os.fdatasync(self._fd)
            journal.write(synced)
        self.state = synced
        if self._sha is not None:
            self._sha.update(data)
        self._pending.clear()
        self.unsynced.clear()
        self.check()

    def check(self) -> None:
        """WorkFileGone unless the file and its journal are still where they were made, with all that was synced."""
        if self.is_gone:
            self._was_gone = True  # remembered, so that the next sync fails as well if the recovery fails
            raise WorkFileGone(self.data)

    @property
    def is_gone(self) -> bool:
        """Whether another process removed, renamed, replaced or cut the file or its journal. While it is closed only a
        missing file is noticed."""
        if self._fd >= 0 and (not is_file_at(self._fd, self.data) or os.fstat(self._fd).st_size < self.state.length):
            return True
        if self._fd < 0 and self.state.length and not self.data.exists():
            return True
        return self._journal is not None and not self._journal.is_there

    def salvage(self, stem: Path) -> WorkFile | None:
        """A sealed, durable copy at `stem` of the synced part; None if that cannot be read any more. OSError when the
        copy fails, which may be tried again."""
        size = max(self.state.length, self.state.size)
        if self._fd < 0:
            with contextlib.suppress(FileNotFoundError):
                self._fd = os.open(self.data, os.O_RDWR | os.O_CLOEXEC)
        if self._fd < 0 or os.fstat(self._fd).st_size < size:
            return None
        data, journal_path = stem.with_name(stem.name + DATA), stem.with_name(stem.name + JOURNAL)
        fd = os.open(data, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            at = 0
            while at < size:
                block = os.pread(self._fd, min(_BLOCK, size - at), at)
                if not block:
                    raise OSError(errno.EIO, "it ends too early", str(self.data))
                write_all(fd, block, at)
                at += len(block)
            os.fsync(fd)
            journal = FileJournal.create(journal_path, self.head)
            try:
                journal.write(self.state)
                sync_directory(data.parent)
            except BaseException:
                journal.close()
                raise
        except BaseException:
            os.close(fd)
            data.unlink(missing_ok=True)
            journal_path.unlink(missing_ok=True)
            raise
        copy = WorkFile.found(journal, self.head, replace(self.state))
        copy.is_left_over = self.is_left_over
        copy._fd, copy._sha = fd, self._sha
        return copy

    def abandon(self) -> None:
        """Close the file, and remove it and its journal if their paths still lead to them."""
        with contextlib.suppress(OSError):
            if self._fd >= 0 and is_file_at(self._fd, self.data):
                self.data.unlink()
            if self._journal is not None and self._journal.is_there:
                self.journal_path.unlink()
        self.close()

    def seal(self) -> None:
        """Take no more messages. The compressor is freed; data that is not synced stays in memory."""
        self._flush()
        self._stream = None

    def give_up(self) -> None:
        """Drop what is not synced; its messages must not be acknowledged."""
        self._pending.clear()
        self.unsynced.clear()
        self._flushed = True
        self._stream = None
        self._grown = replace(self.state)
        self._ids = ContentHash(self.head.topic, int(self.state.ids, 16), self.state.count)

    def end(self) -> FileState:
        """Sync, cut bytes beyond the synced length, and write the end of the file, which is then complete. OSError when
        that fails now, as for `sync`."""
        self.sync()
        state = self.state
        if state.sha256:
            return state
        journal = self._open()
        self.check()
        tail = ending(self.head.compression, state.crc, state.plain)
        os.ftruncate(self._fd, state.length)
        write_all(self._fd, tail, state.length)
        os.fsync(self._fd)
        ended = replace(state, size=state.length + len(tail), sha256=self._hash(tail))
        journal.write(ended)
        self.state = ended
        return ended

    def name(self, rev: int) -> None:
        """Record in the journal that the file is being given its name with revision `rev`."""
        if self.state.rev != rev:
            named = replace(self.state, rev=rev)
            self._open_journal().write(named)
            self.state = named

    def remove(self) -> None:
        """Remove the file from the work directory, the journal last: while the journal exists, the next run can go
        on."""
        self.close()
        self.data.unlink(missing_ok=True)
        self.journal_path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the descriptors of the file and its journal."""
        self._close_data()
        if self._journal is not None:
            self._journal.close()

    def _flush(self) -> None:
        if not self._flushed and self._stream is not None:
            self._pending.append(self._stream.flush())
            self._grown.crc = self._stream.crc
            self._flushed = True

    def _open(self) -> FileJournal:
        journal = self._open_journal()
        if self._fd < 0:
            flags = os.O_RDWR | os.O_CLOEXEC
            self._fd = os.open(self.data, flags if self.state.length else flags | os.O_CREAT, 0o666)
            if not self.state.length:
                sync_directory(self.data.parent)
        return journal

    def _open_journal(self) -> FileJournal:
        if self._journal is None:
            self._journal = FileJournal.create(self.journal_path, self.head)
        return self._journal

    def _close_data(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _hash(self, tail: bytes) -> str:
        """SHA-256 of the file, whose last bytes are `tail`."""
        if self._sha is not None:
            sha = self._sha.copy()
            sha.update(tail)
        else:
            with open(self._fd, "rb", closefd=False, buffering=0) as file:
                file.seek(0)
                sha = hashlib.file_digest(file, "sha256")
        return sha.hexdigest()


def sync_directory(directory: Path) -> None:
    """Sync `directory`: the creation, renaming and removal of files in it become durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
