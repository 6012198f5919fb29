"""How a file is compressed. In: blocks. Out: bytes that can be read up to the last flush, and the few that end a file.

    none     nothing
    gzip     one member, a sync flush at each sync: zcat shows all of it, and the ratio hardly suffers (RFC 1951, 1952)
    zstd     a frame a sync, with its checksum: zstdcat shows whole frames only (RFC 8878)

The end of a file is computed from numbers that the journal of a work file keeps. So a file that a crash left behind is
completed without reading it.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Protocol

COMPRESSIONS = ("none", "gzip", "zstd")
SUFFIXES = {"none": "", "gzip": ".gz", "zstd": ".zst"}
LEVELS = {"gzip": range(4), "zstd": range(1, 20)}  # isal has four levels for gzip
DEFAULT_LEVELS = {"gzip": 2, "zstd": 3}

# ID1 ID2, deflate, no flags, no time, no level, unknown system: so the same messages make the same bytes.
_GZIP_HEAD = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
_LAST_BLOCK = b"\x03\0"  # an empty block with fixed codes, marked as the last


class CompressionStream(Protocol):
    """Compresses the bytes of one file."""

    crc: int  # CRC-32 of everything added; only gzip needs it

    def add(self, block: bytes) -> bytes:
        """Add a block; returns the bytes that can be written now."""

    def flush(self) -> bytes:
        """Returns the bytes after which all that was added can be read."""


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
    """Python's zstd module (PEP 784), or its backport in older versions of Python."""
    return import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")


def open_stream(compression: str, level: int | None = None) -> CompressionStream:
    """The stream for a new file."""
    if compression == "none":
        return _Plain()
    if level is None:
        level = DEFAULT_LEVELS[compression]
    return _Gzip(level) if compression == "gzip" else _Zstd(level)


def ending(compression: str, crc: int, plain: int) -> bytes:
    """The last bytes of a file after a flush. plain: bytes before compression; crc: their CRC-32."""
    if compression != "gzip":
        return b""
    return _LAST_BLOCK + crc.to_bytes(4, "little") + (plain & 0xFFFFFFFF).to_bytes(4, "little")
