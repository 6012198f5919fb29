"""Whether SQLite's write-ahead log is whole. In: its path, before SQLite opens it. Out: what is wrong with it, or "".

SQLite uses the log up to the last commit before the first damaged frame, and discards the rest silently, because the
end of the log is expected to be torn after a power failure. If the damage has another cause, confirmed messages are
lost. The difference: after such damage there are more frames of this log (with its salts), and the commit of a
transaction among them.

Format (https://sqlite.org/fileformat2.html#the_write_ahead_log), numbers big-endian:

    head    magic 4 ┼ version 4 ┼ page size 4 ┼ sequence 4 ┼ salt 8 ┼ checksum 8
    frame   page 4 ┼ pages in the file after a commit, or 0: 4 ┼ salt 8 ┼ checksum 8 ┼ page        checksums are chained
"""

from __future__ import annotations

import struct
import sys
from array import array
from pathlib import Path

_HEAD = 32
_FRAME = 24
_MAGIC = 0x377F0682  # with the lowest bit: checksums are over big-endian numbers
_MASK = 0xFFFFFFFF


def damage_of_log(path: Path, valid: int | None = None) -> str:
    """A clause that says what is wrong, or "". Raises OSError when the file cannot be read.

    valid: how many frames SQLite uses. Without it they are counted by their checksums, which takes some 100 ms for each
    MB.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return ""
    if len(data) < _HEAD + _FRAME:
        return ""
    magic, _, page_size = struct.unpack_from(">III", data)
    salt = data[16:24]
    big = bool(magic & 1)
    if magic & ~1 != _MAGIC or _sum(data[:24], big, (0, 0)) != struct.unpack_from(">II", data, 24) or page_size < 512:
        return "its head is damaged" if any(data[:_HEAD]) else ""
    step = _FRAME + page_size
    state = struct.unpack_from(">II", data, 24)
    broken = -1
    frames = (len(data) - _HEAD) // step
    for nth in range(frames):
        at = _HEAD + nth * step
        if valid is not None and broken < 0:
            if nth < valid:
                continue
            broken = nth
        if broken < 0:
            state = _sum(data[at : at + 8], big, state)
            state = _sum(data[at + _FRAME : at + step], big, state)
            if data[at + 8 : at + 16] == salt and state == struct.unpack_from(">II", data, at + 16):
                continue
            broken = nth
            if data[at + 8 : at + 16] != salt and not _is_one_damaged(data, at, step, salt):
                return ""  # left over from before the log was restarted, or never written
        if data[at + 8 : at + 16] == salt and data[at + 4 : at + 8] != bytes(4):
            return f"its frame {broken + 1} of {frames} is damaged, and transactions are behind it"
    return ""


def _is_one_damaged(data: bytes, at: int, step: int, salt: bytes) -> bool:
    """Whether the frame after the one at `at` belongs to this log."""
    return data[at + step + 8 : at + step + 16] == salt


def _sum(data: bytes, big: bool, state: tuple[int, int]) -> tuple[int, int]:
    """SQLite's checksum, continued: s0 += x[i] + s1; s1 += x[i+1] + s0."""
    words = array("I")
    words.frombytes(data)
    if big != (sys.byteorder == "big"):
        words.byteswap()
    first, second = state
    for nth in range(0, len(words), 2):
        first = first + words[nth] + second & _MASK
        second = second + words[nth + 1] + first & _MASK
    return first, second
