"""Checksums of what is on disk. In: the columns of a row. Out: a CRC-32 that the row keeps, compared on reading.

SQLite notices damage to the structure of its pages, and none to what stands in them. Every row of every table therefore
has a column `checksum`: CRC-32 as in zlib (RFC 1952, section 8), over the row's other columns.

    block                      its numbers as six int64 (big-endian), then `offsets`, then `frames`
    topic, channel, progress   `row_checksum` of the other columns in their order
"""

from __future__ import annotations

import struct

from isal.isal_zlib import crc32

UNCHECKED = -1  # stands in blocks that were written before there were checksums; no CRC-32 is negative

_NUMBERS = struct.Struct(">6q")


def block_checksum(
    seq: int, topic: int, base: int, count: int, timestamp: int, due: int, offsets: bytes, frames: bytes
) -> int:
    """The checksum of a row of `block`. struct.error or TypeError when the columns have not the types of such a row."""
    return crc32(frames, crc32(offsets, crc32(_NUMBERS.pack(seq, topic, base, count, timestamp, due))))


def row_checksum(*columns: int | str | bytes | None) -> int:
    """The checksum of a row of one of the other tables; also a function of the database, by the same name."""
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
