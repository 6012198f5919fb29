"""One file of a log, plain or compressed, read in chunks. In: a path. Out: bytes, and fingerprints of the file.

A plain file may be truncated and written again while it is open. So every read begins a few bytes early: if these bytes
differ from the last bytes of the read before, the file has new contents, and FileReplaced is raised.
The calls block, and are made in the thread of the reader.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import blake2b
from importlib import import_module
from typing import IO

from isal.isal_zlib import crc32

from qtools.errors import InputError
from qtools.formats.lines import Splitter
from qtools.pipe.logs.rotated_names import compression_of
from qtools.pipe.logs.rotation import Candidate, Entry, Fingerprint, has_own_contents

BLOCK = 256 * 1024
HEAD = 1024  # first bytes that distinguish files of the same log: several lines, usually with times
MARK = 256  # bytes before an offset that are compared too, for files with equal first bytes
WHOLE_CHECK = 16 * 1024 * 1024  # bytes: a file with the recorded inode is compared as a whole up to this size
OVERLAP = 64  # bytes that each read reads again


class FileReplaced(Exception):
    """The file has other contents than those that were read: it was truncated, and perhaps written again."""


def fingerprint(data: bytes, start: int) -> Fingerprint:
    """The fingerprint of `data`, which begins at byte `start` of a file."""
    return Fingerprint(start, len(data), blake2b(data, digest_size=16).hexdigest())


def look_at(path: str, *, is_current: bool = False) -> Candidate | None:
    """The file at `path`; None if there is none, or if it is not a regular file."""
    try:
        info = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISREG(info.st_mode):
        return None
    head = b""
    if is_current:
        with contextlib.suppress(OSError):  # opening the file to read it fails in the same way, and is reported
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            try:
                info = os.fstat(fd)
                head = os.pread(fd, HEAD, 0) if stat.S_ISREG(info.st_mode) else b""
            finally:
                os.close(fd)
    compression = compression_of(path)
    return Candidate(path, info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, compression, is_current, head)


def has_contents_of(candidate: Candidate, entry: Entry) -> bool:
    """Whether the candidate has the contents of the entry's file. False if they cannot be read. FileReplaced if the
    path is now that of another file, or of none: the files have to be listed again."""
    if entry.is_blank:
        return candidate.is_file_of(entry) and not candidate.compression
    if not candidate.compression and candidate.size < entry.offset:
        return False
    if not entry.prints:  # an earlier version stored only an offset: assume the current file
        return candidate.is_current
    try:
        with open_file(candidate.path, candidate.compression) as file:
            info = os.fstat(file.fileno())
            if (info.st_dev, info.st_ino) != (candidate.device, candidate.inode):
                raise FileReplaced
            for wanted in sorted(entry.prints, key=lambda each: each.start):
                _go_to(file, wanted.start)
                if fingerprint(_read(file, wanted.length), wanted.start) != wanted:
                    return False
            if entry.checksum is not None and not (candidate.is_file_of(entry) and entry.offset > WHOLE_CHECK):
                length, wanted_sum = entry.checksum
                _go_to(file, 0)
                if _checksum(file, length, 0) != wanted_sum:
                    return False
            _go_to(file, entry.offset)
    except FileNotFoundError:
        raise FileReplaced from None
    except (OSError, EOFError, InputError):
        return False
    except Exception as error:
        if isinstance(error, FileReplaced) or not candidate.compression or not _is_damage(error):
            raise
        return False
    return True


def is_own(candidate: Candidate) -> bool:
    """Whether the candidate is unique in its log, by its first bytes: see has_own_contents. False if they cannot be
    read."""
    try:
        with open_file(candidate.path, candidate.compression) as file:
            return has_own_contents(_read(file, HEAD))
    except Exception as error:
        if not _is_damage(error):
            raise
        return False


def is_same_file(candidate: Candidate, entry: Entry) -> bool:
    """Whether the candidate, which has the entry's inode or is compressed, is the entry's file, and nothing was written
    to it since but lines that came late. A removed file's inode is soon another's: a file that was written to later may
    be another one, if its lines are repeated."""
    is_later = candidate.modified > entry.modified and not entry.is_blank
    if is_later and candidate.compression:
        return False
    return has_contents_of(candidate, entry) and (not is_later or is_own(candidate))


def is_copy(candidate: Candidate, head: bytes) -> bool:
    """Whether the candidate is a copy of a file that begins with `head`, or the beginning of such a copy. False if its
    path is now that of another file: opening it later raises FileReplaced."""
    if candidate.compression or not head:
        return False
    try:
        with open_file(candidate.path, "") as file:
            info = os.fstat(file.fileno())
            if (info.st_dev, info.st_ino) != (candidate.device, candidate.inode):
                return False
            data = _read(file, len(head))
    except OSError:
        return False
    return head.startswith(data)


def is_compressed_of(candidate: Candidate, head: bytes) -> bool:
    """Whether the candidate is compressed, and begins with `head`."""
    entry = Entry(0, 0, len(head), head=fingerprint(head, 0))
    return bool(candidate.compression and head) and has_contents_of(candidate, entry)


class LogFile:
    """The file of the candidate, opened at the offset of `entry`. OSError if it cannot be opened, FileReplaced if the
    path is now that of another file.

    name: of the file, for messages. entry: how far it is confirmed, a copy of the given entry. position: how far it was
    read. splitter, base, taken, lines: the state of splitting it into messages.
    """

    def __init__(self, candidate: Candidate, entry: Entry | None, name: str) -> None:
        self.name = name
        self.compression = candidate.compression
        self._file = open_file(candidate.path, candidate.compression)
        try:
            info = os.fstat(self._file.fileno())
            if (info.st_dev, info.st_ino) != (candidate.device, candidate.inode):
                raise FileReplaced
            self.entry = replace(entry or Entry(0, 0), device=info.st_dev, inode=info.st_ino)
            self.entry.modified = max(self.entry.modified, candidate.modified)
            self.position = self.entry.offset
            self._sum: int | None = 0  # CRC-32 of all bytes before the position, or None
            self._head = b""
            self._recent = b""
            self._begin(candidate)
        except BaseException:
            self._file.close()
            raise
        self.splitter: Splitter | None = None
        self.base = self.position  # where the splitter began
        self.taken = self.position  # behind the last complete message
        self.lines = 0
        self.position_split = self.position  # the position up to which the splitter got data
        self.sum_split: int | None = self._sum  # CRC-32 of all bytes before that, or None
        self.tail = b""  # the last bytes before that
        self.quiet_since = 0.0  # s, monotonic: when its end was first seen

    def _begin(self, candidate: Candidate) -> None:
        """Go to the position, and read the first bytes of the file and those before the position."""
        if candidate.is_current and not candidate.head and not self.position:
            return  # empty when rotated files were listed; it may have been truncated since
        if self.compression:
            with damage_named(self.name):
                self._head = _read(self._file, HEAD)
                self._sum_position()
                _go_to(self._file, self.position)
            self.entry.size = max(self.entry.size, len(self._head))
        else:
            self.entry.size = max(self.entry.size, os.fstat(self._file.fileno()).st_size)
            self._head = os.pread(self._file.fileno(), HEAD, 0)
            early = min(OVERLAP, self.position)
            self._recent = os.pread(self._file.fileno(), early, self.position - early)
            if len(self._recent) != early or not self._head.startswith(candidate.head):
                raise FileReplaced
            known = self.entry.head
            if known is not None and fingerprint(self._head[: known.length], 0) != known:
                raise FileReplaced
            self._sum_position()
        self._set_head()

    def _sum_position(self) -> None:
        """Compute the checksum of the bytes before the position: from the entry's checksum, and the bytes after it."""
        length, value = self.entry.checksum or (0, 0)
        self._sum = None
        if self.position - length <= WHOLE_CHECK:
            _go_to(self._file, length)
            self._sum = _checksum(self._file, self.position - length, value)

    @property
    def is_blank(self) -> bool:
        """Whether the file was empty at every read."""
        return not self.position and self.entry.is_blank

    def peek(self) -> bytes:
        """The first bytes of a plain file. The next read raises FileReplaced if they have changed."""
        self._head = os.pread(self._file.fileno(), HEAD, 0)
        return self._head

    def read(self, is_replaced: Callable[[], bool] = lambda: False) -> bytes:
        """The next bytes, at most a block; b"" at the end. Raises FileReplaced, and InputError for damage.

        is_replaced: called after the bytes were read, and before they count as read. If they belong to new contents,
        the copy of the old contents exists by then, and the function returns True. Then FileReplaced is raised.
        """
        modified = self.modified  # taken before the read, as a later write may be to new contents
        if self.compression:
            with damage_named(self.name):
                chunk = _read(self._file, BLOCK)
        else:
            early = len(self._recent)
            data = os.pread(self._file.fileno(), BLOCK + early, self.position - early)
            if data[:early] != self._recent or (not self.position and not data.startswith(self._head)):
                raise FileReplaced
            chunk = data[early:]
            if is_replaced() or (not self.position and not data.startswith(self._head)):
                raise FileReplaced
        if not chunk:
            if not self.is_blank:
                self.entry.modified = max(self.entry.modified, modified)
            return chunk
        if len(self._head) < HEAD or self.entry.head is None:
            self._see_head(chunk)
        self.position += len(chunk)
        self._recent = (self._recent + chunk[-OVERLAP:])[-OVERLAP:]
        more = len(chunk) == BLOCK  # the size may be that of new contents, unless a read follows
        self.entry.size = max(self.entry.size, self.size if more else self.position)
        self.entry.modified = max(self.entry.modified, modified)
        if self._sum is not None:
            self._sum = crc32(chunk, self._sum)
        self.quiet_since = 0.0
        return chunk

    def _see_head(self, chunk: bytes) -> None:
        """Keep the first bytes as they were read. Reading them again could return new contents."""
        if not self.compression and self.position < HEAD:
            head = (self._head[: self.position] + chunk)[:HEAD]
            if not head.startswith(self._head[: len(head)]):
                raise FileReplaced
            self._head = max(head, self._head, key=len)
        self._set_head()

    def _set_head(self) -> None:
        known = self.entry.head.length if self.entry.head is not None else 0
        if len(self._head) > known:
            self.entry.head = fingerprint(self._head, 0)

    @property
    def size(self) -> int:
        """The size in bytes; of a compressed file, the bytes that were read."""
        return self.position if self.compression else os.fstat(self._file.fileno()).st_size

    @property
    def modified(self) -> int:
        return os.fstat(self._file.fileno()).st_mtime_ns

    @property
    def is_within_a_message(self) -> bool:
        """Whether the bytes that were read end with an incomplete message."""
        return self.taken < self.position

    def is_file(self, info: os.stat_result) -> bool:
        return (info.st_dev, info.st_ino) == (self.entry.device, self.entry.inode)

    def as_read(self) -> Entry:
        """An entry for all bytes that were read, as if they were confirmed."""
        mark = fingerprint(self._recent, self.position - len(self._recent)) if self._recent else None
        return Entry(
            self.entry.device,
            self.entry.inode,
            self.position,
            self.position,
            self.entry.modified,
            self.entry.head,
            mark,
            None if self._sum is None else (self.position, self._sum),
        )

    def take_over(self, other: LogFile) -> None:
        """Continue the reading of `other`, of which this file is a copy: with its splitter and its entry."""
        self.splitter, self.base, self.taken, self.lines = other.splitter, other.base, other.taken, other.lines
        self.tail, self.position_split, self.sum_split = other.tail, other.position_split, other.sum_split
        device, inode = self.entry.device, self.entry.inode
        self.entry = other.entry
        self.entry.device, self.entry.inode = device, inode

    def close(self) -> None:
        self._file.close()

    def __repr__(self) -> str:
        return f"<LogFile {self.name} inode={self.entry.inode} {self.entry.offset}/{self.position}>"


def open_file(path: str, compression: str) -> IO[bytes]:
    """Open a file for reading; a compressed one is decompressed. compression: "gzip", …; "" for none. Raises
    OSError."""
    if not compression:
        return open(path, "rb", buffering=0)
    module = {
        "gzip": "isal.igzip",
        "zstd": "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd",
        "bzip2": "bz2",
        "xz": "lzma",
    }[compression]
    opened: IO[bytes] = import_module(module).open(path, "rb")
    return opened


def _read(file: IO[bytes], count: int) -> bytes:
    """`count` bytes, fewer only at the end."""
    parts = []
    while count and (part := file.read(count)):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _checksum(file: IO[bytes], length: int, value: int) -> int | None:
    """The CRC-32 of the next `length` bytes, continued from `value`; None if the file has fewer bytes."""
    while length and (data := file.read(min(BLOCK, length))):
        value = crc32(data, value)
        length -= len(data)
    return None if length else value


def _go_to(file: IO[bytes], place: int) -> None:
    """Seek to byte `place`; EOFError if a compressed file ends before it."""
    if file.seek(place) != place:
        raise EOFError(f"it ends before byte {place}")


@contextlib.contextmanager
def damage_named(name: str) -> Iterator[None]:
    """Raise InputError for the errors of a decompressor."""
    try:
        yield
    except Exception as error:
        if not _is_damage(error):
            raise
        raise InputError(f"{name} is damaged, or cut off: {error}") from error


def _is_damage(error: Exception) -> bool:
    """Whether `error` is one that a decompressor raises for damage; each has its own classes."""
    return isinstance(error, (EOFError, OSError, ValueError)) or type(error).__name__ in (
        "IsalError", "ZstdError", "LZMAError", "error", "BadGzipFile",
    )  # fmt: skip
