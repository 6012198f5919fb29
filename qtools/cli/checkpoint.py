"""A checkpoint: one line of JSON in a file. In: the state of a run, as it progresses. Out: the last saved state.

The file is replaced as a whole: a new file is renamed over the old one. If a run is killed, the next one therefore
finds the state that was saved last, never a part of a state. A large state of which little changes need not be written
each time: records of the changes may be appended, one a line. An incomplete last line is ignored: the run ended while
it was being written.

One process at a time uses the file. The lock is a flock on the file itself, which the system releases when the process
ends. Each new file is locked before it is renamed into place, so the path always leads to a locked file. A process that
has locked a file has to check that the path still leads to it, since the file may have been replaced in between.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
from typing import Any

from qtools.descriptors import write_all
from qtools.errors import StartError, UsageError

MAX_SIZE = 64 * 1024 * 1024  # bytes of a checkpoint: an entry takes some 300, a log five entries


class CheckpointInUse(StartError):
    """Another process uses the file."""


class CheckpointFile:
    """The checkpoint at `path` of `program`, which errors name."""

    def __init__(self, path: str, program: str) -> None:
        self.path = path
        self._program = program
        self.records: list[Any] = []  # the records that were appended to the loaded state, oldest first
        self._locked = -1  # descriptor of the file that was loaded or saved last
        self._fresh = f"{path}.{os.getpid()}.tmp"

    def check(self) -> None:
        """Raise StartError if a later `save` would fail: the directory is missing or not writable, or the path leads to
        something other than a regular file, such as a FIFO, which could be read forever."""
        directory = os.path.dirname(self.path) or "."
        if not os.path.exists(directory):
            raise StartError(f"cannot write the checkpoint {self.path}: the directory {directory} does not exist")
        if not os.path.isdir(directory):
            raise StartError(f"cannot write the checkpoint {self.path}: {directory} is not a directory")
        if os.path.isdir(self.path):
            raise StartError(f"cannot write the checkpoint {self.path}: it is a directory")
        if os.path.exists(self.path) and not os.path.isfile(self.path):
            raise self._irregular()
        if not os.access(directory, os.W_OK | os.X_OK):
            raise StartError(f"cannot write the checkpoint {self.path}: {directory} is not writable")

    def load(self) -> Any:
        """Lock the file and return the saved state. If there is no file, return None and lock nothing.

        CheckpointInUse if another process uses the file, StartError if it cannot be read or is not a regular file,
        UsageError if it is not JSON.
        """
        try:
            while (opened := self._open()) is not None:
                if self._lock(opened) and self._is_named(opened):
                    break
                os.close(opened)  # it was replaced before it was locked
            if opened is None:
                return None
            self._locked = opened
            if os.fstat(opened).st_size > MAX_SIZE:
                raise self.not_a_checkpoint()
            with open(opened, "rb", closefd=False) as file:
                return self._parse(file.read(MAX_SIZE))
        except OSError as error:
            raise StartError(f"cannot read the checkpoint {self.path}: {error.strerror or error}") from error
        except (ValueError, RecursionError) as error:
            raise self.not_a_checkpoint() from error

    def _parse(self, data: bytes) -> Any:
        state, *records = data.split(b"\n")
        self.records = [json.loads(each) for each in records[:-1]]
        return json.loads(state)

    def _irregular(self) -> StartError:
        return StartError(f"cannot write the checkpoint {self.path}: it is not a regular file")

    def not_a_checkpoint(self) -> UsageError:
        """The error for a file whose contents are not a checkpoint of this program."""
        return UsageError(f"{self.path} is not a checkpoint of {self._program}: remove it to begin anew")

    def save(self, state: dict[str, Any], *, sync: bool = False) -> None:
        """Save `state`. With `sync` it survives a power failure too; without, only the end of the process.

        If there was no file, the first save creates and locks it. CheckpointInUse if another process has created it in
        the meantime, StartError if it cannot be written.
        """
        self.save_text(json.dumps(state), sync=sync)

    def save_text(self, text: str, *, sync: bool = False) -> None:
        """Save a state that is JSON already; otherwise as `save`."""
        fresh = -1
        try:
            fresh = os.open(self._fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
            fcntl.flock(fresh, fcntl.LOCK_EX | fcntl.LOCK_NB)
            write_all(fresh, text.encode() + b"\n")
            if sync:
                os.fsync(fresh)
            if self._locked >= 0 and self._is_named(self._locked):
                os.replace(self._fresh, self.path)
            else:
                self._create()
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(self._fresh)
            if fresh >= 0:
                os.close(fresh)
            raise StartError(f"cannot write the checkpoint {self.path}: {error.strerror or error}") from error
        if self._locked >= 0:
            os.close(self._locked)
        self._locked = fresh

    def append(self, text: str) -> bool:
        """Append a record, JSON of what has changed, to the state that was saved last. Returns False if the path does
        not lead to that file any more: then the whole state has to be saved. StartError if the write fails."""
        try:
            if self._locked < 0 or not self._is_named(self._locked):
                return False
            os.lseek(self._locked, 0, os.SEEK_END)
            write_all(self._locked, text.encode() + b"\n")
        except OSError as error:
            raise StartError(f"cannot write the checkpoint {self.path}: {error.strerror or error}") from error
        return True

    def close(self) -> None:
        """Release the lock, so that another process can use the file."""
        if self._locked >= 0:
            os.close(self._locked)
            self._locked = -1

    def _create(self) -> None:
        """Move the new file to its path, at which there was no file. CheckpointInUse if there is one by now."""
        from qtools.hard_links import move_to_new_name  # most runs make no new file

        try:
            # Without hard links, a process that reads the path at this moment may find an empty file: a UsageError.
            move_to_new_name(self._fresh, self.path)
        except FileExistsError:
            os.unlink(self._fresh)
            raise self._in_use() from None

    def _open(self) -> int | None:
        for flags in (os.O_RDWR, os.O_RDONLY):  # some file systems lock only what is open for writing
            try:
                opened = os.open(self.path, flags | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not block the open
                if stat.S_ISREG(os.fstat(opened).st_mode):
                    return opened
                os.close(opened)
                raise self._irregular()
            except FileNotFoundError:
                return None
            except PermissionError:
                if flags == os.O_RDONLY:
                    raise
        raise AssertionError

    def _lock(self, opened: int) -> bool:
        """Lock `opened`. If another process has the lock: return False if the path leads to another file by now, and
        raise CheckpointInUse otherwise."""
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not self._is_named(opened):
                return False
            os.close(opened)
            raise self._in_use() from None
        return True

    def _is_named(self, opened: int) -> bool:
        """Whether the path still leads to the file `opened`."""
        try:
            return os.path.samestat(os.fstat(opened), os.stat(self.path))
        except FileNotFoundError:
            return False

    def _in_use(self) -> CheckpointInUse:
        holder = _lock_holder(self.path)
        process = f"process {holder}" if holder else "another process"
        return CheckpointInUse(
            f"the checkpoint {self.path} is in use by {process}: two runs with one checkpoint would send twice;"
            " wait for its end, or give this run a checkpoint of its own"
        )


def _lock_holder(path: str) -> int | None:
    """The id of the process that has a flock on the file, from /proc/locks (proc(5)); None if it is not known."""
    for _ in range(10):  # the file may be replaced between the two reads
        with contextlib.suppress(OSError, ValueError):
            info = os.stat(path)
            device = f"{os.major(info.st_dev):02x}:{os.minor(info.st_dev):02x}:{info.st_ino}"
            with open("/proc/locks", encoding="ascii") as table:
                for line in table:
                    words = line.split()  # 1: FLOCK  ADVISORY  WRITE 1234 08:02:5678 0 EOF
                    if len(words) > 5 and words[1] == "FLOCK" and words[5] == device and words[4].isdigit():
                        return int(words[4]) or None
    return None
