"""What a database holds, as topics and channels again. In: a database. Out: logs with their backlogs.

Only what is not simply waiting is looked at one by one; the rest is counted, in the index.
"""

from __future__ import annotations

import sqlite3
import time
from typing import TYPE_CHECKING

from qtools.broker.block import Block
from qtools.broker.disk.backlog import ChannelBacklog
from qtools.broker.disk.log import TopicLog
from qtools.broker.disk.progress import Progress

if TYPE_CHECKING:
    from qtools.broker.disk.store import DurableStore

_PROGRESS = (
    "SELECT p.seq, p.done, p.attempts, p.due, b.base, b.count, b.timestamp, b.due"
    " FROM progress p JOIN block b ON b.seq = p.seq WHERE p.channel = ? ORDER BY p.seq"
)
_DUE = "SELECT seq, base, count, timestamp, due FROM block WHERE topic = ? AND seq >= ? AND due > 0 ORDER BY seq"
_COUNT = (
    "SELECT coalesce(sum(count), 0) FROM block INDEXED BY block_of_topic"
    " WHERE topic = ? AND seq >= ? AND seq < ? AND due = 0"
)


def restore(store: DurableStore, connection: sqlite3.Connection, logs: dict[str, TopicLog]) -> tuple[int, int, int]:
    """Fill `logs`. Answers the highest message number there is, the next free ident, and the next block's number."""
    execute = connection.execute
    wall = time.time_ns()
    (next_seq,) = execute("SELECT coalesce(max(seq), 0) + 1 FROM block").fetchone()
    (next_ident,) = execute(
        "SELECT max(coalesce((SELECT max(id) FROM topic), 0), coalesce((SELECT max(id) FROM channel), 0)) + 1"
    ).fetchone()
    (low,) = execute("SELECT coalesce(max(low), 0) FROM channel").fetchone()
    (held,) = execute("SELECT coalesce(max(held_from), 0) FROM topic").fetchone()
    next_seq = max(next_seq, low, held)  # numbers of blocks that are gone do not come again
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
    """What the topic has given to no channel yet."""
    if log.backlog.held_from is None:
        return
    due = [Block.stored(*row) for row in connection.execute(_DUE, (log.ident, log.backlog.held_from))]
    (count,) = connection.execute(_COUNT, (log.ident, log.backlog.held_from, log.next)).fetchone()
    log.backlog.restore(count + sum(block.count for block in due), due)


def _restore_channel(
    connection: sqlite3.Connection, log: TopicLog, wall: int, ident: int, name: str, paused: int, low: int, sent: int
) -> list[int]:
    """One channel; answers which blocks it has finished out of their order."""
    backlog = ChannelBacklog(log, ident, name, first=0, sent=sent)
    backlog.is_paused = bool(paused)
    kept: dict[int, tuple[Block, Progress | None]] = {}
    for seq, done, attempts, due, base, count, timestamp, block_due in connection.execute(_PROGRESS, (ident,)):
        progress = None if done is None else Progress.load(done, attempts, due)
        kept[seq] = (Block.stored(seq, base, count, timestamp, block_due), progress)
    for seq, base, count, timestamp, due in connection.execute(_DUE, (log.ident, low)):
        if seq not in kept and seq < log.given:
            kept[seq] = (Block.stored(seq, base, count, timestamp, due), Progress(count))
    kept = dict(sorted(kept.items()))
    (waiting,) = connection.execute(_COUNT, (log.ident, low, log.given)).fetchone()
    waiting -= sum(block.count for seq, (block, _) in kept.items() if not block.due and low <= seq < log.given)
    backlog.restore(low, waiting, kept, wall)
    log.channels[name] = backlog
    return [seq for seq, (_, progress) in kept.items() if progress is None]
