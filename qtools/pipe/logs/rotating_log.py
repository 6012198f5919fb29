"""Reads one log across its rotations. In: its open files. Out: chunks, in the order in which they were written.

A step returns a chunk, the end of a file, or that there is nothing to do. The calls block, and are made in the thread
of the reader.

A renamed file is read until its successor has data, as its writer may still write to it. If its last line is incomplete
then, the reader waits until nothing was written for QUIET. Lines that are written to it even later are read for some
more time (open_files.LATE), or by the next run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from qtools.errors import InputError
from qtools.pipe.logs.log_file import FileReplaced, LogFile
from qtools.pipe.logs.open_files import RESCAN, LogOptions, Logs, OpenFiles
from qtools.pipe.logs.rotated_files import RotatedFiles
from qtools.pipe.logs.rotation import Candidate, Entry

POLL = 0.1  # s between two checks of a file that may still grow
QUIET = 1.0  # s without a write after which the last line of a rotated file is taken as it is


@dataclass(slots=True)
class Chunk:
    """Data that was read from `file`."""

    log: RotatingLog
    file: LogFile
    data: bytes


@dataclass(slots=True)
class End:
    """The end of `file`: an incomplete last message is complete now."""

    log: RotatingLog
    file: LogFile


@dataclass(slots=True)
class Idle:
    """There is nothing to read now; try again after `seconds`."""

    seconds: float


Step = Chunk | End | Idle


class RotatingLog:
    """The log at `path`. entries: the entries of its files in the checkpoint. named: paths of rotated files that the
    user gave."""

    def __init__(
        self,
        path: str,
        entries: list[Entry],
        named: Sequence[str],
        options: LogOptions,
        rotated_files: RotatedFiles,
        logs: Logs,
    ) -> None:
        self.path = path
        self.name = rotated_files.name_of(path)
        self._options = options
        self._open = OpenFiles(path, self.name, entries, named, options, rotated_files, logs)

    @property
    def entries(self) -> list[Entry]:
        """The entries of its files for the checkpoint, oldest first."""
        return self._open.entries

    def step(self) -> Step | None:
        """The next step; Idle if there may be more soon, None if there is nothing more now."""
        late = self._step_late()
        if late is not None:
            return late
        while True:
            if not self._open.files and not self._open.open():
                return None
            file = self._open.files[0]
            if file.is_blank and not file.compression:
                file.peek()
            try:
                chunk = file.read(partial(self._open.is_other, file))
            except FileReplaced:
                if file.is_blank:
                    if self._open.copies_fail:
                        return None
                    continue
                if not self._open.replace_cut(file):
                    return End(self, file)
                continue
            except OSError as error:
                raise InputError(f"{file.name}: cannot read on: {error.strerror or error}") from error
            if chunk:
                return Chunk(self, file, chunk)
            if len(self._open.files) == 1:
                if self._open.open_successors(file):
                    continue  # read what was written before the successor appeared
                return None
            if file.is_within_a_message and not self._is_quiet(file):
                return Idle(POLL)
            self._open.end()
            return End(self, file)

    def begin(self) -> None:
        """Open a log without entries, so that the checkpoint has its file before it is read. Without `follow` the file
        is closed again until it is read: there may be more logs than files that a process can have open."""
        if not self.entries and not self._open.files and self._open.open() and not self._options.follow:
            self._open.close()
            self._open.files.clear()

    def rest(self) -> None:
        """Close the files of a log that was read to its end."""
        self._open.close()

    def has_news(self, now: float) -> bool:
        """Whether a step may find data. Makes one or two system calls."""
        if len(self._open.files) > 1 or any(
            until <= now or file.size > file.position for file, until in self._open.late
        ):
            return True
        try:
            info = os.stat(self.path)
        except OSError:
            info = None
        if not self._open.files:
            return info is not None
        file = self._open.files[0]
        if info is not None and file.is_file(info):
            if file.compression:
                return False  # a compressed file does not grow
            return info.st_size != file.position or info.st_mtime_ns != file.entry.modified
        return (
            file.size != file.position or (info is not None and info.st_size > 0) or now - self._open.searched > RESCAN
        )

    @property
    def held_back(self) -> int:
        """Bytes of an incomplete last message."""
        return self._open.files[0].position - self._open.files[0].taken if self._open.files else 0

    @property
    def lag(self) -> int:
        """Bytes in its files that are not confirmed: in the current file all, in others those that were seen."""
        entries = self.entries
        behind = sum(max(0, each.size - each.offset) for each in entries)
        try:
            info = os.stat(self.path)
        except OSError:
            return behind
        seen = next((each for each in entries if (each.device, each.inode) == (info.st_dev, info.st_ino)), None)
        return behind + max(0, info.st_size - (max(seen.size, seen.offset) if seen is not None else 0))

    def close(self) -> None:
        self._open.close()

    def has_open(self, candidate: Candidate) -> bool:
        """Whether the log reads this file now."""
        return self._open.has_open(candidate)

    def __repr__(self) -> str:
        return f"<RotatingLog {self.path} {list(self._open.files)!r}>"

    def _step_late(self) -> Step | None:
        now = time.monotonic()
        for place, (file, until) in enumerate(self._open.late):
            try:
                chunk = file.read() if file.size > file.position else b""
            except (FileReplaced, OSError):
                until = now
                chunk = b""
            if chunk:
                return Chunk(self, file, chunk)
            if until <= now:
                del self._open.late[place]
                file.close()
                return End(self, file)
        return None

    def _is_quiet(self, file: LogFile) -> bool:
        """Whether nothing was written to the file for QUIET."""
        if file.compression or abs(time.time() - file.modified / 1e9) > QUIET:
            return True
        now = time.monotonic()
        file.quiet_since = file.quiet_since or now
        return now - file.quiet_since > QUIET  # also if the file system has another clock
