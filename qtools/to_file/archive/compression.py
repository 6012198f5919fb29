"""How a file is compressed. In: blocks. Out: bytes that can be read up to the last flush, and the few that end a file.

    none     nothing
    gzip     one member, a sync flush at each sync: zcat shows all of it, and the ratio hardly suffers (RFC 1951, 1952)
    zstd     a frame a sync, with its checksum: zstdcat shows whole frames only (RFC 8878)

What ends a file follows from numbers alone, those that a work file's note holds: a file that a crash left behind is
ended without having been read.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Protocol

COMPRESSIONS = ("none", "gzip", "zstd")
SUFFIXES = {"none": "", "gzip": ".gz", "zstd": ".zst"}
LEVELS = {"gzip": range(4), "zstd": range(1, 20)}  # isal has four
DEFAULT_LEVELS = {"gzip": 2, "zstd": 3}

# ID1 ID2, deflate, no flags, no time, nothing said of effort, system unknown: the same bytes from the same messages.
_GZIP_HEAD = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
_LAST_BLOCK = b"\x03\0"  # an empty one, with fixed codes


class CompressionStream(Protocol):
    """One file's bytes on their way."""

    crc: int  # of everything added, where the format wants it

    def add(self, block: bytes) -> bytes:
        """Take a block in; what can be written of it now."""

    def flush(self) -> bytes:
        """What makes all that was added readable."""


class _Plain:
    crc = 0

    def add(self, block: bytes) -> bytes:
        return block

    def flush(self) -> bytes:
        return b""


class _Gzip:
    def __init__(self, level: int) -> None:
        from isal import isal_zlib

        self.crc = 0
        self._head = _GZIP_HEAD
        self._deflate = isal_zlib.compressobj(level, isal_zlib.DEFLATED, -15)
        self._crc32 = isal_zlib.crc32
        self._sync = isal_zlib.Z_SYNC_FLUSH

    def add(self, block: bytes) -> bytes:
        head, self._head = self._head, b""
        self.crc = self._crc32(block, self.crc)
        return head + self._deflate.compress(block)

    def flush(self) -> bytes:
        return self._deflate.flush(self._sync)


class _Zstd:
    crc = 0

    def __init__(self, level: int) -> None:
        zstd = zstandard()
        parameter = zstd.CompressionParameter
        self._frames = zstd.ZstdCompressor(options={parameter.compression_level: level, parameter.checksum_flag: 1})

    def add(self, block: bytes) -> bytes:
        compressed: bytes = self._frames.compress(block)
        return compressed

    def flush(self) -> bytes:
        compressed: bytes = self._frames.flush(self._frames.FLUSH_FRAME)
        return compressed


def zstandard() -> ModuleType:
    """Python's own module, from wherever this Python has it (PEP 784)."""
    return import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")


def open_stream(compression: str, level: int | None = None) -> CompressionStream:
    """A new file's."""
    if compression == "none":
        return _Plain()
    if level is None:
        level = DEFAULT_LEVELS[compression]
    return _Gzip(level) if compression == "gzip" else _Zstd(level)


def ending(compression: str, crc: int, plain: int) -> bytes:
    """What ends a file that stands at a flush: `plain` bytes went in, with the CRC-32 `crc`."""
    if compression != "gzip":
        return b""
    return _LAST_BLOCK + crc.to_bytes(4, "little") + (plain & 0xFFFFFFFF).to_bytes(4, "little")
