"""Reads blocks from disk. In: which blocks. Out: blocks, passed to a callback in the event loop; small reads return at
once.

Large reads run in a thread, one after another, each bounded by messages and bytes. Every read is answered:

    the disk fails to read, memory is short    None: the caller reads again later (read_patience.py)
    a block is damaged                         an UnreadableBlock in its place, which was reported before the answer

A block is damaged when its checksum is wrong, or when SQLite cannot find it. In the second case the index, which is on
other pages, still says which blocks there must be. If the index is damaged too, every number is tried.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from qtools.broker.core.block import Block
from qtools.broker.core.store import CannotRead
from qtools.broker.disk.channel.progress import Row
from qtools.broker.disk.database import FILE, connect
from qtools.broker.disk.database_thread import DatabaseThread
from qtools.broker.disk.integrity.checksum import UNCHECKED, block_checksum
from qtools.broker.disk.integrity.damage import UnreadableBlock
from qtools.broker.disk.read_patience import Attempt, CountsAsDamage, ReadPatience, describe_failure

_COLUMNS = "seq, topic, base, count, timestamp, due, offsets, frames, checksum"
_IN_RANGE = f"SELECT {_COLUMNS} FROM block WHERE topic = ? AND seq >= ? AND seq < ?"
_RANGE = f"{_IN_RANGE} AND due = 0 ORDER BY seq"
_DEFERRED = f"{_IN_RANGE} AND due > 0 ORDER BY seq"
_NEXT_DUE = """
    SELECT d.due, d.seq, p.done, p.attempts, p.due, b.base, b.count, b.timestamp, b.due,
        p.done IS NULL OR p.checksum IS row_checksum(
            p.channel, p.seq, p.done, p.attempts, p.due, p.next_due, p.unfinished
        )
    FROM (
        SELECT due, seq FROM block INDEXED BY block_by_due
            WHERE topic = :topic AND due > 0 AND (due, seq) > (:due, :seq) AND due <= :upto
        UNION ALL
        SELECT next_due, seq FROM progress INDEXED BY progress_by_due
            WHERE channel = :channel AND next_due > 0 AND (next_due, seq) > (:due, :seq)
            AND next_due <= :upto
        ORDER BY 1, 2 LIMIT :limit
    ) d
    CROSS JOIN block b ON b.seq = d.seq
    LEFT JOIN progress p ON p.channel = :channel AND p.seq = d.seq
"""
_PROGRESS = (
    "SELECT done, attempts, due, checksum = row_checksum(channel, seq, done, attempts, due, next_due, unfinished)"
    " FROM progress WHERE channel = ? AND seq = ?"
)
_ONE = f"SELECT {_COLUMNS} FROM block WHERE seq = ?"
_INDEX = (
    "SELECT seq, count, timestamp, due FROM block INDEXED BY block_of_topic"
    " WHERE topic = ? AND seq >= ? AND seq < ? ORDER BY seq"
)

_MOST_UNREADABLE = 256  # damaged blocks in one answer

Blocks = Callable[[list[Block] | None], None]  # None: the read failed, and may be tried again
OnDamage = Callable[[int, UnreadableBlock], None]
BlockRow = tuple[Any, ...]

Read = TypeVar("Read")
Due = tuple[int, Block, Row | None]  # due time, block, the channel's progress if there is a row of it
WithProgress = tuple[Block, Row | None]


class BlockReader:
    """Two read-only connections, one of them in a thread.

    on_error: called with the reason when a read fails, and whether that is damage; and with "" when reads work again.
    on_damage: called with the number of a topic, and a damaged block of it.
    """

    def __init__(
        self,
        directory: Path,
        loop: asyncio.AbstractEventLoop,
        on_error: Callable[[str, bool], None],
        on_damage: OnDamage,
    ) -> None:
        self._quick = connect(directory / FILE, read_only=True)
        self._worker = DatabaseThread("q-broker reader", connect(directory / FILE, read_only=True), loop)
        self._on_error = on_error
        self._on_damage = on_damage
        self._patience = ReadPatience(directory, loop.time)
        self._has_failed = False  # since the last read in the thread that worked

    # ── in the thread ───────────────────────────────────────────────────────────────────────────

    def range(self, topic: int, start: int, stop: int, messages: int, size: int, answer: Blocks) -> None:
        """Read blocks of a topic from `start` to below `stop`, until they have `messages` messages or `size` bytes. No
        block means that there are none left. Blocks that were published deferred are left out.
        """
        attempt = self._patience.attempt(("range", topic, start))

        def read(connection: sqlite3.Connection) -> list[Block]:
            return read_range(connection, topic, start, stop, messages, size, attempt)

        self._worker.do(read, lambda blocks, error: self._answer(answer, attempt, topic, blocks, blocks or (), error))

    def these(self, topic: int, wanted: Sequence[int], size: int, answer: Blocks) -> None:
        """Read the first of the blocks `wanted`, numbers in order, until they have `size` bytes. Missing blocks are
        left out."""
        attempt = self._patience.attempt(("these", *wanted[:1]))

        def read(connection: sqlite3.Connection) -> list[Block]:
            return read_these(connection, topic, wanted, size, attempt)

        self._worker.do(read, lambda blocks, error: self._answer(answer, attempt, topic, blocks, blocks or (), error))

    def next_due(
        self,
        topic: int,
        channel: int,
        after: tuple[int, int],
        upto: int,
        limit: int,
        answer: Callable[[list[Due] | None], None],
    ) -> None:
        """The next `limit` blocks by due time, without their frames, and the channel's progress.

        They are due after the due time and block number `after`, and up to `upto`. They include blocks that were
        published deferred, and those that the channel has deferred. Blocks with a damaged row of progress are left out.
        """

        attempt = self._patience.attempt(("due", channel))
        due, seq = after
        values = {"topic": topic, "channel": channel, "due": due, "seq": seq, "upto": upto, "limit": limit}

        def read(connection: sqlite3.Connection) -> list[Due]:
            try:
                rows = connection.execute(_NEXT_DUE, values).fetchall()
            except Exception as error:
                attempt(error)  # notes whether it is damage
                raise
            return [
                (when, Block.stored(seq, base, count, timestamp, due), None if done is None else (done, attempts, dues))
                for when, seq, done, attempts, dues, base, count, timestamp, due, is_whole in rows
                if is_whole
            ]

        self._worker.do(read, lambda rows, error: self._answer(answer, attempt, topic, rows, [], error))

    def these_with_progress(
        self,
        topic: int,
        channel: int,
        wanted: Sequence[int],
        size: int,
        answer: Callable[[list[WithProgress] | None], None],
    ) -> None:
        """As `these`, each block with the progress of the channel."""
        attempt = self._patience.attempt(("progress", channel, *wanted[:1]))

        def read(connection: sqlite3.Connection) -> list[WithProgress]:
            blocks = read_these(connection, topic, wanted, size, attempt)
            return [(block, _read_progress(connection, channel, block.seq, attempt)) for block in blocks]

        self._worker.do(
            read, lambda rows, error: self._answer(answer, attempt, topic, rows, [one for one, _ in rows or ()], error)
        )

    def _answer(
        self,
        answer: Callable[[list[Read] | None], None],
        attempt: Attempt,
        topic: int,
        rows: list[Read] | None,
        blocks: Sequence[Block],
        error: Exception | None,
    ) -> None:
        if rows is None:
            self._patience.note_failure(attempt)
            self._note_failure(error, attempt.is_damaged)
        else:
            if self._patience.note_success(attempt) and self._has_failed:
                self._has_failed = False
                self._on_error("", False)
            self._report(topic, blocks)
        answer(rows)

    def _note_failure(self, error: Exception | None, is_damaged: bool) -> None:
        self._has_failed = True
        # Damage that does not belong to a single block is repaired at the next start.
        self._on_error(f"cannot read messages: {describe_failure(error, is_damaged)}", is_damaged)

    def _report(self, topic: int, blocks: Iterable[Block]) -> None:
        for block in blocks:
            if isinstance(block, UnreadableBlock):
                self._on_damage(topic, block)

    # ── at once ─────────────────────────────────────────────────────────────────────────────────

    def count(self, topic: int, start: int, stop: int) -> int:
        """How many messages the blocks from `start` to below `stop` have, without those that were published
        deferred. Raises CannotRead."""
        return self._number(
            "SELECT coalesce(sum(count), 0) FROM block WHERE topic = ? AND seq >= ? AND seq < ? AND due = 0",
            (topic, start, stop),
        )

    def first_since(self, topic: int, since: int) -> int:
        """The number of the first block published at `since` (ns since 1970) or later; higher than all when there is
        none. Raises CannotRead."""
        return self._number(
            "SELECT seq FROM block WHERE topic = ? AND timestamp >= ? ORDER BY seq LIMIT 1", (topic, since)
        )

    def _number(self, query: str, values: tuple[int, ...]) -> int:
        """The number in the first row of the answer; higher than all blocks when there is no row."""
        try:
            row = self._quick.execute(query, values).fetchone()
        except sqlite3.Error as error:
            self._note_failure(error, self._patience.attempt(())(error))
            raise CannotRead from error
        return int(row[0]) if row else 1 << 62

    def now(self, topic: int, start: int, stop: int, messages: int, *, deferred: bool = False) -> list[Block]:
        """As `range`, but waits for the blocks, and leaves damaged ones out: for small and rare reads.

        deferred: only blocks that were published deferred.
        """
        blocks = read_range(self._quick, topic, start, stop, messages, 1 << 62, lambda _: True, deferred=deferred)
        self._report(topic, blocks)
        return [block for block in blocks if not block.is_cold]

    def close(self) -> None:
        self._worker.close()
        self._quick.close()


def read_range(
    connection: sqlite3.Connection,
    topic: int,
    start: int,
    stop: int,
    messages: int,
    size: int,
    counts_as_damage: CountsAsDamage,
    *,
    deferred: bool = False,
) -> list[Block]:
    """Blocks in order, with an UnreadableBlock for each that is damaged.

    Raises errors that do not count as damage. deferred: only blocks that were published deferred, or only the others.
    """
    blocks: list[Block] = []
    try:
        rows = connection.execute(_DEFERRED if deferred else _RANGE, (topic, start, stop))
        for row in rows:
            block = checked(row, topic, row[0])
            if block.is_cold:
                block.count = _counted(connection, topic, block.seq, block.count)
            blocks.append(block)
            messages -= blocks[-1].count
            size -= len(blocks[-1].frames)
            if messages <= 0 or size <= 0:
                break
        rows.close()
        return blocks
    except Exception as error:
        if not counts_as_damage(error):
            raise
    # From here on the table is damaged: read block by block, as the index has them.
    start = blocks[-1].seq + 1 if blocks else start
    unreadable = 0
    for seq, count, timestamp in numbers(connection, topic, start, stop, counts_as_damage, deferred=deferred):
        found = read_one(connection, topic, seq, counts_as_damage, count, timestamp)
        # a damaged index may name wrong blocks
        if found is None or (not found.is_cold and bool(found.due) != deferred):
            continue
        blocks.append(found)
        messages -= found.count
        size -= len(found.frames)
        unreadable += found.is_cold
        if messages <= 0 or size <= 0 or unreadable >= _MOST_UNREADABLE:
            break
    return blocks


def read_these(
    connection: sqlite3.Connection, topic: int, wanted: Sequence[int], size: int, counts_as_damage: CountsAsDamage
) -> list[Block]:
    """The first of the blocks `wanted` that exist, until they have `size` bytes; as `read_range` otherwise."""
    blocks: list[Block] = []
    for seq in wanted:
        block = read_one(connection, topic, seq, counts_as_damage)
        if block is not None:
            blocks.append(block)
            size -= len(block.frames)
        if size <= 0:
            break
    return blocks


def numbers(
    connection: sqlite3.Connection,
    topic: int,
    start: int,
    stop: int,
    counts_as_damage: CountsAsDamage,
    *,
    deferred: bool | None,
) -> Iterable[tuple[int, int, int]]:
    """The blocks of a topic in the index: number, count, timestamp. After damage to the index: (number, -1, 0) for
    every number, whether a block of the topic has it or not.

    deferred: only blocks that were published deferred, or only the others; None: both.
    """
    last = start - 1
    try:
        for seq, count, timestamp, due in connection.execute(_INDEX, (topic, start, stop)):
            if not all(isinstance(one, int) for one in (seq, count, timestamp, due)) or seq <= last:
                raise sqlite3.DatabaseError("the index is out of order")
            last = seq
            if deferred is None or bool(due) == deferred:
                yield seq, count, timestamp
    except sqlite3.Error as error:
        if not counts_as_damage(error):
            raise
    else:
        return
    for seq in range(last + 1, stop):
        yield seq, -1, 0


def read_one(
    connection: sqlite3.Connection,
    topic: int,
    seq: int,
    counts_as_damage: CountsAsDamage,
    count: int = -1,
    timestamp: int = 0,
) -> Block | None:
    """A block of a topic, an UnreadableBlock where it is damaged, or None where there is none.

    count, timestamp: from the index; a count of -1: the index does not say whether there is such a block.
    """
    try:
        row = connection.execute(_ONE, (seq,)).fetchone()
    except Exception as error:
        if not counts_as_damage(error):
            raise
        if count < 0:
            count, timestamp = 0, 0
        return UnreadableBlock.made(
            seq, 0, count, timestamp, f"the database is damaged ({_why(error)})", structural=True
        )
    if row is None:
        if count < 0:
            return None
        reason = "the database is damaged (the block is in its index only)"
        return UnreadableBlock.made(seq, 0, count, timestamp, reason, structural=True)
    if count < 0 and row[1] != topic:
        return None
    return checked(row, topic, seq)


def _read_progress(
    connection: sqlite3.Connection, channel: int, seq: int, counts_as_damage: CountsAsDamage
) -> Row | None:
    """The progress of a channel; None without a row, or with a damaged one: its messages are then delivered again."""
    try:
        row = connection.execute(_PROGRESS, (channel, seq)).fetchone()
    except Exception as error:
        if not counts_as_damage(error):
            raise
        return None
    return row[:3] if row is not None and row[0] is not None and row[3] else None


def checked(row: BlockRow, topic: int, seq: int) -> Block:
    """The block of a row of _COLUMNS, or an UnreadableBlock when the row is not what was written."""
    _, its_topic, base, count, timestamp, due, offsets, frames, checksum = row
    reason = "its checksum is wrong"
    try:
        block = Block.stored(seq, base, count, timestamp, due, offsets, frames)
        right = block_checksum(seq, its_topic, base, count, timestamp, due, offsets, frames)
        if its_topic == topic and checksum in (right, UNCHECKED) and len(frames) == block.size(0, count) and frames:
            return block
    except Exception as error:  # columns of wrong types, wrong lengths
        reason = f"its checksum is wrong ({type(error).__name__})"
    base, count, timestamp = (one if isinstance(one, int) and one >= 0 else 0 for one in (base, count, timestamp))
    content = frames if isinstance(frames, bytes) else b""
    return UnreadableBlock.made(seq, base, count, timestamp, reason, content)


def _counted(connection: sqlite3.Connection, topic: int, seq: int, count: int) -> int:
    """How many messages a block has according to the index, because its own row is damaged."""
    row = connection.execute(_INDEX, (topic, seq, seq + 1)).fetchone()
    return int(row[1]) if row and isinstance(row[1], int) else count


def _why(error: Exception) -> str:
    return getattr(error, "sqlite_errorname", None) or type(error).__name__
