"""Whether a read that failed means that messages are damaged. In: errors of reads. Out: damage, or try again.

    the file is damaged, or a sector cannot be read     damage, if the disk takes writes
    the disk reports another I/O error                  damage after PATIENCE seconds, if the disk takes writes
    memory is short, another program has a lock, …      never damage

A block that can never be read must not stop its channel for ever. But a disk that is away for some time fails every
read: if that were damage, the channels would leave out all messages that they have, and go on without them when the
disk is back. SQLite reports EIO of a read as SQLITE_CORRUPT, so its error alone does not tell the two apart.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from qtools.broker.disk.database import describe_error

PATIENCE = 3.0  # s
DISK_FAILS = "the disk reports errors"
_FORGET_AFTER = 10.0  # s without a try of the same read
_MOST_NOTED = 10_000  # reads

# Called in the reader's thread with the error of a read: whether what was to be read counts as damaged.
CountsAsDamage = Callable[[Exception], bool]
Place = tuple[object, ...]  # says which read it is: the same one when it is tried again


class ReadPatience:
    """Which reads fail, and since when. clock: of the event loop, s."""

    def __init__(self, directory: Path, clock: Callable[[], float]) -> None:
        self._directory = directory
        self._clock = clock
        self._failing: dict[Place, tuple[float, float]] = {}  # the time since when PATIENCE counts, and the last try

    def attempt(self, place: Place) -> Attempt:
        """A new try of a read."""
        self._forget()
        since, _ = self._failing.get(place, (self._clock(), 0.0))
        return Attempt(self._directory, place, is_last=self._clock() - since >= PATIENCE)

    def note_success(self, attempt: Attempt) -> bool:
        """Note that the read worked. Returns whether no other read fails."""
        self._failing.pop(attempt.place, None)
        self._forget()
        return not self._failing

    def note_failure(self, attempt: Attempt) -> None:
        """Note that the read failed and is tried again. Only the time in which the disk takes writes counts."""
        now = self._clock()
        since, _ = self._failing.get(attempt.place, (now, now))
        if len(self._failing) < _MOST_NOTED:
            self._failing[attempt.place] = since if attempt.is_unreadable else now, now

    def _forget(self) -> None:
        """Forget reads that are not tried any more, as those of a channel that was deleted."""
        if self._failing:
            then = self._clock() - _FORGET_AFTER
            self._failing = {place: times for place, times in self._failing.items() if times[1] >= then}


class Attempt:
    """One try of a read; a CountsAsDamage. is_damaged: what it answered last. is_unreadable: it met an I/O error, and
    the disk takes writes."""

    __slots__ = ("_directory", "_is_last", "is_damaged", "is_unreadable", "place")

    def __init__(self, directory: Path, place: Place, *, is_last: bool) -> None:
        self.place = place
        self.is_damaged = self.is_unreadable = False
        self._directory = directory
        self._is_last = is_last

    def __call__(self, error: Exception) -> bool:
        self.is_damaged = False
        if _is_damage(error):
            self.is_damaged = not is_of_disk(error, self._directory)
        elif _is_io_error(error) and takes_writes(self._directory):
            self.is_unreadable = True
            self.is_damaged = self._is_last
        return self.is_damaged


def is_of_disk(error: Exception, directory: Path) -> bool:
    """Whether SQLite takes the file in `directory` for damaged because its disk is away."""
    return _may_be_of_disk(error) and not takes_writes(directory)


def is_unreadable(error: Exception) -> bool:
    """A CountsAsDamage for a program that reads once: damage, and every I/O error."""
    return _is_damage(error) or _is_io_error(error)


def _is_damage(error: Exception) -> bool:
    """Whether the file is damaged, as far as the error says."""
    if isinstance(error, sqlite3.Error):
        name = _name(error)
        return name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")) or isinstance(error, sqlite3.DataError) or not name
    return not isinstance(error, (MemoryError, OSError))


def describe_failure(error: Exception | None, is_damaged: bool) -> str:
    """Why a read failed, for the log."""
    if not isinstance(error, sqlite3.Error):
        return f"{type(error).__name__}: {error}"
    return describe_error(error) if is_damaged or not _may_be_of_disk(error) else DISK_FAILS


def _may_be_of_disk(error: Exception) -> bool:
    return _name(error).startswith("SQLITE_CORRUPT")


def _is_io_error(error: Exception) -> bool:
    return _name(error).startswith("SQLITE_IOERR") and _name(error) != "SQLITE_IOERR_NOMEM"


def _name(error: Exception) -> str:
    return getattr(error, "sqlite_errorname", "") or ""


def takes_writes(directory: Path) -> bool:
    """Whether the disk of `directory` writes: then it is there, and an error of a read is not of the whole disk."""
    path = directory / "probe"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                path.unlink()
    except OSError as error:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)  # it is full, so it is there
    return True
