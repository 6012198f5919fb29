"""Reading what is on disk. In: which blocks. Out: blocks, in the loop; what is small is answered at once.

Large reads go through a thread of their own; one after another, each bounded by messages and bytes.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

from qtools.broker.block import Block
from qtools.broker.disk.database import FILE, connect, told
from qtools.broker.disk.worker import Worker

_COLUMNS = "seq, base, count, timestamp, due, offsets, frames"
_RANGE = f"SELECT {_COLUMNS} FROM block WHERE topic = ? AND seq >= ? AND seq < ? AND due = 0 ORDER BY seq"
_ONE = f"SELECT {_COLUMNS} FROM block WHERE seq = ?"

Blocks = Callable[[list[Block] | None], None]  # None: it could not be read


class Reader:
    """`on_error` is told when something cannot be read."""

    def __init__(self, directory: Path, loop: asyncio.AbstractEventLoop, on_error: Callable[[str], None]) -> None:
        self._quick = connect(directory / FILE, read_only=True)
        self._worker = Worker("q-broker reader", connect(directory / FILE, read_only=True), loop)
        self._on_error = on_error

    # ── in the thread ───────────────────────────────────────────────────────────────────────────

    def range(self, topic: int, start: int, stop: int, messages: int, size: int, answer: Blocks) -> None:
        """Blocks of a topic from `start` to below `stop`, until there are so many messages or bytes; none is no more.

        What was published deferred is not among them.
        """

        def read(connection: sqlite3.Connection) -> list[Block]:
            return _take(connection.execute(_RANGE, (topic, start, stop)), messages, size)

        self._worker.do(read, lambda blocks, error: self._answer(answer, blocks, error))

    def these(self, wanted: Sequence[int], size: int, answer: Blocks) -> None:
        """The first of the blocks `wanted`, which are in order, until there are so many bytes; without those that
        are not there."""

        def read(connection: sqlite3.Connection) -> list[Block]:
            blocks: list[Block] = []
            left = size
            for seq in wanted:
                blocks += _take(connection.execute(_ONE, (seq,)), 1, 1)
                left -= len(blocks[-1].frames) if blocks else 0
                if left <= 0:
                    break
            return blocks

        self._worker.do(read, lambda blocks, error: self._answer(answer, blocks, error))

    def _answer(self, answer: Blocks, blocks: list[Block] | None, error: Exception | None) -> None:
        if isinstance(error, sqlite3.Error):
            self._on_error(f"cannot read messages: {told(error)}")
        elif error is not None:
            raise error
        answer(blocks)

    # ── at once ─────────────────────────────────────────────────────────────────────────────────

    def count(self, topic: int, start: int, stop: int) -> int:
        """How many messages wait in blocks from `start` to below `stop`, without what was published deferred."""
        (count,) = self._quick.execute(
            "SELECT coalesce(sum(count), 0) FROM block WHERE topic = ? AND seq >= ? AND seq < ? AND due = 0",
            (topic, start, stop),
        ).fetchone()
        return int(count)

    def first_since(self, topic: int, since: int) -> int:
        """The first block published at `since` (ns since 1970) or later; beyond all of them when there is none."""
        row = self._quick.execute(
            "SELECT seq FROM block WHERE topic = ? AND timestamp >= ? ORDER BY seq LIMIT 1", (topic, since)
        ).fetchone()
        return int(row[0]) if row else 1 << 62

    def now(self, topic: int, start: int, stop: int, messages: int) -> list[Block]:
        """Blocks as `range` finds them, waited for: for what is small, and rare."""
        return _take(self._quick.execute(_RANGE, (topic, start, stop)), messages, 1 << 62)

    def close(self) -> None:
        self._worker.close()
        self._quick.close()


def _take(rows: sqlite3.Cursor, messages: int, size: int) -> list[Block]:
    blocks: list[Block] = []
    for seq, base, count, timestamp, due, offsets, frames in rows:
        blocks.append(Block.stored(seq, base, count, timestamp, due, offsets, frames))
        messages -= count
        size -= len(frames)
        if messages <= 0 or size <= 0:
            break
    rows.close()
    return blocks
