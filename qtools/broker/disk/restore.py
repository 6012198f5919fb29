"""Builds topics and channels from the database when the broker starts. In: a database. Out: logs with their backlogs.

Blocks that a channel has begun, finished out of order or deferred are looked at one by one. All other blocks are only
counted, in the index.
"""

from __future__ import annotations

import sqlite3

from qtools.broker.core.block import Block
from qtools.broker.disk.channel.backlog import ChannelBacklog
from qtools.broker.disk.channel.progress import Progress
from qtools.broker.disk.channel.seq_set import SeqSet
from qtools.broker.disk.integrity.checksum import UNCHECKED
from qtools.broker.disk.topic_log import TopicLog, TopicStore

_PROGRESS = (
    "SELECT p.seq, p.done, p.attempts, p.due, b.base, b.count, b.timestamp, b.due, p.checksum"
    " IS row_checksum(p.channel, p.seq, p.done, p.attempts, p.due, p.next_due, p.unfinished)"
    " FROM progress p JOIN block b ON b.seq = p.seq WHERE p.channel = ? AND p.next_due = 0 ORDER BY p.seq"
)
# There may be millions of blocks, so they are read as bits: a row of the answer has _BITS blocks.
_BITS = 32
_DEFERRED = (
    f"SELECT seq / {_BITS}, sum(1 << (seq % {_BITS})), sum(unfinished), next_due > :wall"
    " FROM progress INDEXED BY progress_by_due WHERE channel = :channel AND next_due > 0 GROUP BY 1, 4"
)
_PUBLISHED_DEFERRED = (
    f"SELECT seq / {_BITS}, sum(1 << (seq % {_BITS})), sum(count), due > :wall FROM block INDEXED BY block_due"
    " WHERE topic = :topic AND due > 0 AND seq >= :low AND seq < :stop"
    " AND NOT EXISTS (SELECT 1 FROM progress p WHERE p.channel = :channel AND p.seq = block.seq)"
    " GROUP BY 1, 4"
)
_NOT_SIMPLY_WAITING = (
    "SELECT coalesce(sum(b.count), 0) FROM progress p CROSS JOIN block b INDEXED BY block_of_topic"
    " ON b.topic = :topic AND b.seq = p.seq WHERE p.channel = :channel AND p.seq >= :low AND p.seq < :stop"
    " AND b.due = 0"
)
_COUNT = (
    "SELECT coalesce(sum(count), 0) FROM block INDEXED BY block_of_topic"
    " WHERE topic = ? AND seq >= ? AND seq < ? AND due = 0"
)


def restore(store: TopicStore, connection: sqlite3.Connection, logs: dict[str, TopicLog]) -> tuple[int, int, int]:
    """Fill `logs`. Returns the highest message number, the next free ident, and the number of the next block.

    Raises ValueError, TypeError or OverflowError when a row is not what was written.
    """
    execute = connection.execute
    wall = store.clock.wall()
    _cap(connection, wall + store.longest_deferral)
    (next_seq,) = execute("SELECT coalesce(max(seq), 0) + 1 FROM block").fetchone()
    (next_ident,) = execute(
        "SELECT max(coalesce((SELECT max(id) FROM topic), 0), coalesce((SELECT max(id) FROM channel), 0)) + 1"
    ).fetchone()
    (low,) = execute("SELECT coalesce(max(low), 0) FROM channel").fetchone()
    (held,) = execute("SELECT coalesce(max(held_from), 0) FROM topic").fetchone()
    next_seq = max(next_seq, low, held)  # the numbers of deleted blocks are not used again
    (last_id,) = execute("SELECT coalesce(max(sent), 0) FROM channel").fetchone()
    for ident, name, paused, held_from in execute("SELECT id, name, paused, held_from FROM topic").fetchall():
        if name is None:
            store.sweeper.remove_topic(ident)
            continue
        log = logs[name] = TopicLog(store, ident, name, next_seq=next_seq, held_from=held_from)
        log.paused = bool(paused)
        newest = execute(
            "SELECT base + count FROM block WHERE topic = ? ORDER BY seq DESC LIMIT 1", (ident,)
        ).fetchone()
        last_id = max(last_id, newest[0] if newest else 0)
        _restore_held(connection, log)
        channels = execute(
            "SELECT id, name, paused, low, sent FROM channel WHERE topic = ? ORDER BY id", (ident,)
        ).fetchall()
        ahead = [_restore_channel(connection, log, wall, *channel) for channel in channels]
        for seqs in ahead:
            for seq in seqs:
                log.finished(seq)
        log.sweep()
    return last_id, next_ident, next_seq


def _restore_held(connection: sqlite3.Connection, log: TopicLog) -> None:
    """Restore the blocks that no channel has received yet."""
    if log.backlog.held_from is None:
        return
    blocks, count = SeqSet(), 0
    values = {"topic": log.ident, "channel": 0, "low": log.backlog.held_from, "stop": log.next, "wall": 0}
    for row, bits, messages, _ in connection.execute(_PUBLISHED_DEFERRED, values):
        blocks.add_bits(row * _BITS, bits)
        count += messages
    (others,) = connection.execute(_COUNT, (log.ident, log.backlog.held_from, log.next)).fetchone()
    log.backlog.restore(others + count, blocks, count)


def _cap(connection: sqlite3.Connection, latest: int) -> None:
    """Bring all due times down to `latest`: a later one was stored by a clock that was wrong."""
    for table, column, checksum in (
        ("block", "due", str(UNCHECKED)),
        ("progress", "next_due", "row_checksum(channel, seq, done, attempts, due, ?1, unfinished)"),
    ):
        # Without the SELECT, each start would write to the database.
        if connection.execute(f"SELECT 1 FROM {table} WHERE {column} > ? LIMIT 1", (latest,)).fetchone():
            connection.execute(
                f"UPDATE {table} SET {column} = ?1, checksum = {checksum} WHERE {column} > ?1", (latest,)
            )


def _restore_channel(
    connection: sqlite3.Connection, log: TopicLog, wall: int, ident: int, name: str, paused: int, low: int, sent: int
) -> list[int]:
    """Restore one channel. Returns the blocks that it has finished out of order."""
    backlog = ChannelBacklog(log, ident, name, first=0, sent=sent)
    backlog.is_paused = bool(paused)
    kept: dict[int, tuple[Block, Progress | None]] = {}
    for seq, done, attempts, due, base, count, timestamp, block_due, is_whole in connection.execute(
        _PROGRESS, (ident,)
    ):
        if not is_whole:
            raise ValueError("the checksum of a row of table progress is wrong")
        progress = None if done is None else Progress.load(done, attempts, due)
        kept[seq] = (Block.stored(seq, base, count, timestamp, block_due), progress)
    values = {"topic": log.ident, "channel": ident, "low": low, "stop": log.given, "wall": wall}
    deferred, late = SeqSet(), SeqSet()
    deferred_count = late_count = 0
    for query in (_DEFERRED, _PUBLISHED_DEFERRED):
        for row, bits, messages, is_deferred in connection.execute(query, values):
            (deferred if is_deferred else late).add_bits(row * _BITS, bits)
            if is_deferred:
                deferred_count += messages
            else:
                late_count += messages
    (waiting,) = connection.execute(_COUNT, (log.ident, low, log.given)).fetchone()
    (others,) = connection.execute(_NOT_SIMPLY_WAITING, values).fetchone()
    backlog.restore_deferred(deferred, deferred_count, late, late_count, wall)
    backlog.restore(low, waiting - others, kept, wall)
    log.add(backlog)
    return [seq for seq, (_, progress) in kept.items() if progress is None]
