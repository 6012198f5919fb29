"""One transaction. In: what is to be written. Out, in the writer's thread: a database that has all of it, or nothing.

before   changes of topics and channels
blocks   published messages
after    what channels have finished, and the removal of blocks that no channel needs
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3

from qtools.broker.core.block import Block
from qtools.broker.disk.database import VERSION, Statement, describe_error
from qtools.broker.disk.integrity.checksum import block_checksum
from qtools.broker.disk.retention import Removals

log = logging.getLogger("qtools.broker")

_STEP = 32  # pages given back at once on a full disk
_STEPS = 16

INSERT = (
    "INSERT INTO block (seq, topic, base, count, timestamp, due, size, checksum, offsets, frames)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


class Transaction:
    """One transaction."""

    __slots__ = ("after", "before", "blocks", "failed", "removal")

    def __init__(
        self, before: list[Statement], blocks: list[tuple[int, Block]], after: list[Statement], removal: Removals | None
    ) -> None:
        self.before, self.blocks, self.after, self.removal = before, blocks, after, removal
        self.failed = False

    def run(self, connection: sqlite3.Connection, *, must_write: bool = False) -> bool:
        """Write everything, in the writer's thread. Returns whether there are more blocks to remove.

        must_write: write to the file even if the transaction is empty, so that success proves that the disk takes data.
        That is part of the same transaction: if one part were committed and the other failed, all would be tried again,
        and the INSERTs would violate the tables' keys for ever.
        """
        connection.execute("BEGIN IMMEDIATE")
        try:
            if must_write:
                connection.execute(f"PRAGMA user_version = {VERSION}")
            for statement, rows in self.before:
                connection.executemany(statement, rows)
            connection.executemany(
                INSERT,
                (block_row(topic, block) for topic, block in self.blocks),
            )
            for statement, rows in self.after:
                connection.executemany(statement, rows)
            more = self.removal is not None and self.removal.run(connection)
            connection.execute("COMMIT")
        except BaseException:
            self.failed = True
            with contextlib.suppress(sqlite3.Error):  # some errors have rolled it back already
                connection.execute("ROLLBACK")
            raise
        return more


def block_row(topic: int, block: Block) -> tuple[object, ...]:
    """The parameters of INSERT."""
    columns = (block.seq, topic, block.base, block.count, block.timestamp, block.due)
    offsets, frames = block.offsets, block.frames
    return (*columns, len(frames), block_checksum(*columns, offsets, frames), offsets, frames)


def make_room(connection: sqlite3.Connection) -> None:
    """Give unused pages of the file back to a full disk, in steps that are small enough to succeed there."""
    try:
        for _ in range(_STEPS):
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            connection.executescript(f"PRAGMA incremental_vacuum({_STEP})")  # `execute` takes one step of it
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    except sqlite3.Error as error:
        log.debug("cannot give unused pages back to the disk: %s", describe_error(error))
