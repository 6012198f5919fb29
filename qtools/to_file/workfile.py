"""A file that grows in the work directory, until it is whole. In: batches of one topic. Out: what is known of it.

    add ─▶ format ─▶ compress ─▶ in memory        sync ─▶ written, fsynced ─▶ its note, fsynced        end ─▶ whole

`add` touches no disk, so that whatever goes wrong with one does so in `sync` or `end`: both may be called again after
an OSError, as often as it takes, and lose nothing. What a crash leaves behind is ended in the same way as any other
file: cut at the length that its note tells, and closed from the numbers there. All of this runs in one thread.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

from qtools.flow.formats import Format
from qtools.message import Batch, timestamp_of
from qtools.to_file.compress import Stream, ending
from qtools.to_file.ids import IdsHash
from qtools.to_file.note import Head, Note, State, write_at

DATA, NOTE = ".part", ".note"


class WorkFile:
    """The file `stem`.part with the note `stem`.note; without a `stream` it takes nothing more."""

    def __init__(self, stem: Path, head: Head, form: Format | None = None, stream: Stream | None = None) -> None:
        self.data = stem.with_name(stem.name + DATA)
        self.note_path = stem.with_name(stem.name + NOTE)
        self.head = head
        self.state = State()  # what is synced
        self._grown = State()  # with what is in memory
        self._form = form
        self._stream = stream
        self._ids = IdsHash(head.topic)
        self._sha: hashlib._Hash | None = hashlib.sha256()  # of what is synced; None where a run before this wrote it
        self._pending: list[bytes] = []
        self._flushed = True
        self._fd = -1
        self._note: Note | None = None

    @classmethod
    def found(cls, note: Note, head: Head, state: State) -> WorkFile:
        """The file that a run before this left, as its note tells."""
        file = cls(note.path.with_name(note.path.name.removesuffix(NOTE)), head)
        file._note, file._sha = note, None
        file.state, file._grown = state, replace(state)
        file._ids = IdsHash(head.topic, int(state.ids, 16), state.count)
        return file

    @property
    def count(self) -> int:
        """Messages, with those not synced yet."""
        return self._grown.count

    @property
    def ids_hash(self) -> str:
        return self._ids.hexdigest()

    @property
    def is_sealed(self) -> bool:
        """Whether it takes no more messages."""
        return self._stream is None

    def add(self, batch: Batch) -> None:
        """Take messages in; nothing is written yet."""
        if self._stream is None or self._form is None:
            raise ValueError("a sealed file takes nothing more")
        block = self._form.join(batch)
        grown = self._grown
        messages = batch.messages
        for origin, start, stop in batch.parts:
            self._ids.add(origin.address, messages.ids[start:stop])
        # Timestamps stand in front, big-endian: their bytes are in the order of their values.
        first, last = timestamp_of(min(messages.stamps)), timestamp_of(max(messages.stamps))
        grown.first = min(grown.first, first) if grown.count else first
        grown.last = max(grown.last, last) if grown.count else last
        grown.count += len(batch)
        grown.bytes += sum(map(len, batch.bodies))
        grown.plain += len(block)
        self._pending.append(self._stream.add(block))
        self._flushed = False

    def sync(self) -> None:
        """Make all that was added durable; OSError where that cannot be now."""
        self._flush()
        if not self._pending:
            return
        if len(self._pending) > 1:
            self._pending = [b"".join(self._pending)]
        data = self._pending[0]
        note = self._open()
        write_at(self._fd, data, self.state.length)
        os.fdatasync(self._fd)
        synced = replace(self._grown, length=self.state.length + len(data), ids=f"{self._ids.value:x}")
        note.write(synced)
        self.state = synced
        if self._sha is not None:
            self._sha.update(data)
        self._pending.clear()
        if self.is_sealed:
            self._close_data()

    def seal(self) -> None:
        """Take no more messages. What they were compressed with is let go; what is not synced stays in memory."""
        self._flush()
        self._stream = None
        if not self._pending:
            self._close_data()

    def give_up(self) -> None:
        """Forget what is not synced: nobody acknowledges it."""
        self._pending.clear()
        self._flushed = True
        self._stream = None
        self._grown = replace(self.state)
        self._ids = IdsHash(self.head.topic, int(self.state.ids, 16), self.state.count)

    def end(self) -> State:
        """Sync, cut what is beyond, write what ends the file: it is whole then. OSError where that cannot be now."""
        self.sync()
        state = self.state
        if state.sha256:
            return state
        note = self._open()
        tail = ending(self.head.compression, state.crc, state.plain)
        os.ftruncate(self._fd, state.length)
        write_at(self._fd, tail, state.length)
        os.fsync(self._fd)
        ended = replace(state, size=state.length + len(tail), sha256=self._hash(tail))
        note.write(ended)
        self.state = ended
        self._close_data()
        return ended

    def name(self, rev: int) -> None:
        """Put down that it is being given its name of revision `rev`."""
        if self.state.rev != rev:
            named = replace(self.state, rev=rev)
            self._open_note().write(named)
            self.state = named

    def remove(self) -> None:
        """Take it out of the work directory, the note last: as long as that is there, the rest is known."""
        self.close()
        self.data.unlink(missing_ok=True)
        self.note_path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the descriptors."""
        self._close_data()
        if self._note is not None:
            self._note.close()

    def _flush(self) -> None:
        if not self._flushed and self._stream is not None:
            self._pending.append(self._stream.flush())
            self._grown.crc = self._stream.crc
            self._flushed = True

    def _open(self) -> Note:
        note = self._open_note()
        if self._fd < 0:
            flags = os.O_RDWR | os.O_CLOEXEC
            self._fd = os.open(self.data, flags if self.state.length else flags | os.O_CREAT, 0o666)
            if not self.state.length:
                sync_directory(self.data.parent)
        return note

    def _open_note(self) -> Note:
        if self._note is None:
            self._note = Note.create(self.note_path, self.head)
        return self._note

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
    """Make durable what was created, named and removed in `directory`."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
