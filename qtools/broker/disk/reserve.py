"""Space that is kept free for a full disk, scaled to the volume. In: a directory. Out: sizes, files.

    DIR/reserve             deleted when the disk is full: the write-ahead log can then be written back to the database
    DIR/acknowledgements    overwritten when that does not help, because another program has taken the space at once

The second file is a journal of what consumers have finished and the database could not take: SQL statements with their
rows, which may be executed more than once. It has two slots that are written in turn, so that one is whole whenever the
process ends:

    ├ magic 8 ┼ number 8 ┼ length 4 ┼ crc32 4 ┼ zlib(JSON) … ┤ × 2        the higher number counts; length 0: nothing
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import sqlite3
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qtools.broker.disk.database import Statement

log = logging.getLogger("qtools.broker")

_MIB = 1024 * 1024
_MOST = 24 * _MIB  # bytes of the reserve, on volumes of 192 MiB and more
_LEAST = 3 * _MIB // 2
_HEAD = struct.Struct(">8sQII")
_MAGIC = b"qBrfACK1"


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes in bytes. reserve: kept free for a full disk; log: of the write-ahead log, after which it is written back,
    a third of the reserve; enough: must be free before messages are accepted again; journal: of one slot."""

    reserve: int
    log: int
    enough: int
    journal: int

    @classmethod
    def of(cls, directory: Path) -> Sizes:
        """The sizes for the volume that `directory` is on."""
        volume = os.statvfs(directory)
        reserve = min(max(volume.f_blocks * volume.f_frsize // 8, _LEAST), _MOST)
        return cls(reserve, reserve // 3, reserve * 7 // 3, reserve // 24)


def free_bytes(directory: Path) -> int:
    """How many bytes an ordinary user may still write to the volume; 0 when that is not known."""
    try:
        volume = os.statvfs(directory)
    except OSError:  # the directory is gone, or the disk does not answer
        return 0
    return volume.f_bavail * volume.f_frsize


def in_megabytes(size: int) -> str:
    """A number of bytes, for people."""
    return f"{size / 1e6:.1f} MB" if size < 10_000_000 else f"{size / 1e6:.0f} MB"


def allocate(path: Path, size: int) -> bool:
    """Make a file that takes `size` bytes on the disk. Returns False when that is not possible."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return False
    try:
        os.posix_fallocate(descriptor, 0, size)
        os.ftruncate(descriptor, size)  # it may have been larger
    except OSError:
        with contextlib.suppress(OSError):
            path.unlink()
        return False
    finally:
        os.close(descriptor)
    return True


class Journal:
    """Statements that the database could not take, in a file whose space is allocated already."""

    def __init__(self, directory: Path, slot: int) -> None:
        """slot: bytes of one slot of a new file. An existing file keeps the size of its slots, even if the size of the
        volume has changed."""
        self._path = directory / "acknowledgements"
        self._wanted = slot
        self._slot = 0
        self._number = 0
        self._is_used = False
        self._is_noted = True  # whether the last statements that the database could not take are in the journal
        with contextlib.suppress(OSError):
            self._slot = self._path.stat().st_size // 2

    def allocate(self) -> bool:
        """Allocate the space while there is some: if there is no file, or a smaller one that is empty, as on a volume
        that was enlarged. Returns whether there is a file."""
        if self._slot >= self._wanted or self._is_used:
            return True
        new = self._path.with_name(self._path.name + ".new")
        if allocate(new, 2 * self._wanted):
            try:
                new.replace(self._path)
                self._slot = self._wanted
            except OSError as error:
                log.debug("cannot make %s: %s", self._path, error)
        return self._slot > 0

    def write(self, statements: Sequence[Statement]) -> bool:
        """Keep `statements`, instead of those before. Returns False when they do not fit, or the file cannot be
        written."""
        data = zlib.compress(json.dumps(statements, default=_encode, separators=(",", ":")).encode(), 1)
        if len(data) > self._slot - _HEAD.size:
            return False
        return self._put(data)

    def note(self, statements: Sequence[Statement]) -> None:
        """Keep `statements`, which the database could not take. Log a warning if that fails, unless the last one
        did."""
        if not statements:
            return
        is_kept = self.write(statements)
        if self._is_noted and not is_kept:
            log.warning(
                "%s: cannot note which messages consumers finish: they are delivered again if q-broker is restarted"
                " before the directory can be written to",
                self._path.parent,
            )
        self._is_noted = is_kept

    def clear(self) -> None:
        """Forget the statements, because the database has taken them."""
        self._is_noted = True
        if self._is_used and self._put(b""):
            self._is_used = False

    def _put(self, data: bytes) -> bool:
        self._number += 1
        head = _HEAD.pack(_MAGIC, self._number, len(data), zlib.crc32(data))
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.pwrite(descriptor, head + data, self._number % 2 * self._slot)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            log.debug("cannot write %s: %s", self._path, error)
            return False
        self._is_used = True
        return True

    def replay(self, connection: sqlite3.Connection) -> None:
        """Execute the statements, after a restart. Raises sqlite3.Error when the database still cannot take them."""
        statements = self._read()
        if not statements:
            return
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement, rows in statements:
                again = statement.replace("INSERT INTO", "INSERT OR IGNORE INTO", 1)
                connection.executemany(again, [tuple(map(_decode, row)) for row in rows])
            connection.execute("DELETE FROM progress WHERE channel NOT IN (SELECT id FROM channel)")
            connection.execute("COMMIT")
        except BaseException as error:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            if getattr(error, "sqlite_errorname", "") not in ("SQLITE_ERROR", "SQLITE_CONSTRAINT"):
                raise
            # Statements of another version of q-broker: those messages are delivered again.
            log.error(
                "%s: messages finished while the disk was full are delivered again: %s",
                self._path.parent,
                error,
            )
            self.clear()
            return
        self.clear()
        log.info("%s: what was finished while the disk was full has been written to the database", self._path.parent)

    def _read(self) -> list[Any]:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            log.error(
                "cannot read %s: %s; if the disk was full when q-broker ended, messages that were finished since then"
                " are delivered again",
                self._path,
                (error.strerror or str(error)).lower(),
            )
            self._slot = 0  # `allocate` makes a new file: an old record must not be taken for a newer one
            return []
        newest = b""
        for at in (0, self._slot):
            if len(data) < at + _HEAD.size:
                continue
            magic, number, length, checksum = _HEAD.unpack_from(data, at)
            body = data[at + _HEAD.size : at + _HEAD.size + length]
            if magic == _MAGIC and number > self._number and len(body) == length and zlib.crc32(body) == checksum:
                self._number, newest = number, body
        self._is_used = bool(newest)
        return list(json.loads(zlib.decompress(newest))) if newest else []


def _encode(value: object) -> object:
    if isinstance(value, bytes):
        return {"b": base64.b64encode(value).decode()}
    raise TypeError(f"{type(value).__name__} is not kept in the database")


def _decode(value: Any) -> Any:
    return base64.b64decode(value["b"]) if isinstance(value, dict) else value
