"""The durable state of a file that still grows. In: its State, at every sync. Out: the last State written completely.

A journal lies beside its work file and decides how much of it is valid: bytes beyond the recorded length were never
acknowledged. A journal is text: a head that never changes, and two slots that are written in turn. If a crash leaves
one slot incomplete, its checksum shows that, and the other slot is used.

    ├ head 4096: what the file is and shall be called ┼ slot 512 ┼ slot 512 ┤       each: CRC-32, JSON, spaces, newline
"""

from __future__ import annotations

import json
import os
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qtools.descriptors import write_all

HEAD_SIZE = 4096
SLOT_SIZE = 512  # a sector, which a disk nearly always writes as a whole
VERSION = 1


@dataclass(frozen=True, slots=True)
class JournalHead:
    """What does not change about a file. name: its path below the output, with <REV> not yet filled in. partition: of a
    log, whose messages it has, and follows: the offset that it continues after, as in FileRecord; else -1. topic_id: as
    in FileRecord."""

    topic: str
    name: str
    format: str
    compression: str
    version: int = VERSION
    partition: int = -1
    follows: int = -1
    topic_id: str = ""


@dataclass(slots=True)
class FileState:
    """How far a file is: `length` bytes of it are synced, with `count` messages whose bodies have `bytes` in all.

    plain, crc: bytes before compression, and their CRC-32 if the end of the file needs it. first, last: timestamps, ns.
    ids: the value of the ContentHash, hex. size, sha256: of the whole file, once it is complete. rev: the revision
    of the name that it is being given, or -1. first_offset, last_offset: of its messages, or -1.
    """

    length: int = 0
    count: int = 0
    bytes: int = 0
    plain: int = 0
    crc: int = 0
    first: int = 0
    last: int = 0
    ids: str = "1"
    size: int = 0
    sha256: str = ""
    rev: int = -1
    first_offset: int = -1
    last_offset: int = -1


class FileJournal:
    """The open journal at `path`. turn: the number of the next write."""

    def __init__(self, path: Path, fd: int, turn: int) -> None:
        self.path = path
        self._fd = fd
        self._turn = turn

    @classmethod
    def create(cls, path: Path, head: JournalHead) -> FileJournal:
        """A new journal, for a file of which nothing is synced. The journal is synced; the caller syncs the
        directory."""
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            write_all(fd, _packed(_known(head), HEAD_SIZE), 0)
            journal = cls(path, fd, 0)
            journal.write(FileState())
            journal.write(FileState())
        except BaseException:
            os.close(fd)
            os.unlink(path)
            raise
        return journal

    @classmethod
    def open(cls, path: Path) -> tuple[FileJournal, JournalHead, FileState] | None:
        """The journal of an earlier run; None if no slot of it is complete: then nothing was ever synced."""
        data = path.read_bytes()
        head = _unpacked(data[:HEAD_SIZE])
        slots = [_unpacked(data[at : at + SLOT_SIZE]) for at in (HEAD_SIZE, HEAD_SIZE + SLOT_SIZE)]
        whole = [slot for slot in slots if slot is not None]
        if head is None or not whole:
            return None
        newest = max(whole, key=lambda slot: int(slot["turn"]))
        turn = int(newest.pop("turn")) + 1
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        return cls(path, fd, turn), JournalHead(**head), FileState(**newest)

    def write(self, state: FileState) -> None:
        """Write `state` and sync it."""
        packed = _packed(_known(state) | {"turn": self._turn}, SLOT_SIZE)
        write_all(self._fd, packed, HEAD_SIZE + SLOT_SIZE * (self._turn % 2))
        os.fdatasync(self._fd)
        self._turn += 1

    @property
    def is_there(self) -> bool:
        """Whether the file at `path` is still this one."""
        return is_file_at(self._fd, self.path)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _known(values: JournalHead | FileState) -> dict[str, Any]:
    """The fields, without those about a log where there is none: other versions of this program read the journal."""
    known = asdict(values)
    for name in ("partition", "follows", "first_offset", "last_offset"):
        if known.get(name) == -1:
            del known[name]
    if not known.get("topic_id", True):
        del known["topic_id"]
    return known


def fits(head: JournalHead) -> bool:
    """Whether `head` fits into a journal."""
    return len(json.dumps(_known(head))) + 10 <= HEAD_SIZE


def is_file_at(fd: int, path: Path) -> bool:
    """Whether `path` is a name of the open file `fd`, which another process may have removed, renamed or replaced."""
    try:
        there = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return os.path.samestat(there, os.fstat(fd))


def _packed(values: dict[str, Any], size: int) -> bytes:
    text = json.dumps(values).encode()
    line = b"%08x %s" % (zlib.crc32(text), text)
    if len(line) >= size:
        raise ValueError(f"{len(line)} bytes do not fit into {size}")
    return line.ljust(size - 1) + b"\n"


def _unpacked(line: bytes) -> dict[str, Any] | None:
    """The packed values, or None if `line` is incomplete."""
    text = line[9:].rstrip()
    try:
        whole = int(line[:8], 16) == zlib.crc32(text)
        value = json.loads(text) if whole else None
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
