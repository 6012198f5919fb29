"""Checksums of rows. In: the columns of a row. Out: a CRC-32, which the row stores and which is compared on reading.

SQLite notices damage to the structure of its pages, but not to their contents. So every row of every table has a column
`checksum`: CRC-32 as in zlib (RFC 1952, section 8), over the other columns of the row.

    block                      its numbers as six int64 (big-endian), then `offsets`, then `frames`
    topic, channel, progress   `row_checksum` of the other columns in their order
"""

from __future__ import annotations

import struct

from isal.isal_zlib import crc32

UNCHECKED = -1  # of blocks that were written before there were checksums; no CRC-32 is negative

_NUMBERS = struct.Struct(">6q")


def block_checksum(
    seq: int, topic: int, base: int, count: int, timestamp: int, due: int, offsets: bytes, frames: bytes
) -> int:
    """The checksum of a row of `block`. Raises struct.error or TypeError when columns have wrong types."""
    return crc32(frames, crc32(offsets, crc32(_NUMBERS.pack(seq, topic, base, count, timestamp, due))))


def row_checksum(*columns: int | str | bytes | None) -> int:
    """The checksum of a row of another table; also an SQL function of the same name."""
    value = 0
    for column in columns:
        if isinstance(column, bytes):
            kind, data = b"b", column
        elif column is None:
            kind, data = b"n", b""
        else:
            kind, data = b"t", str(column).encode("utf-8", "surrogateescape")
        value = crc32(data, crc32(b"%b%d:" % (kind, len(data)), value))
    return value
