"""The durable store: it writes published messages, and what consumers have finished, to a database.
In: blocks, changes of topics and channels. Out: commits, once they are on disk.

    publishing, publishing, …  ─▶ end_turn ─▶ one transaction in the writer's thread ─▶ the commit is settled
                                              (meanwhile the next transaction is collected)

A publisher waits for its transaction. What consumers have finished is written with the next transaction, or after LAZY
seconds. Messages are sealed into blocks when their transaction begins, so that many publishers share one block.

While the disk refuses writes, publishers get an error and nothing of theirs is kept. What consumers have finished stays
in memory, and is tried again every second until it can be written. Space is kept in reserve for that (reserve.py).
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from qtools.broker.core.block import Block
from qtools.broker.core.clock import Clock
from qtools.broker.core.store import Commit, Lost
from qtools.broker.disk.channel.backlog import ChannelBacklog
from qtools.broker.disk.channel.contract import ChannelWriter
from qtools.broker.disk.channel.in_flight import InFlight
from qtools.broker.disk.channel.memory_queue import Budget
from qtools.broker.disk.database import describe_error
from qtools.broker.disk.database_thread import DatabaseThread
from qtools.broker.disk.group_commit import GroupCommit
from qtools.broker.disk.integrity.damage import Damage
from qtools.broker.disk.integrity.opening import check_later, open_sound
from qtools.broker.disk.maintenance import Maintenance
from qtools.broker.disk.pending_writes import PendingWrites
from qtools.broker.disk.read_failures import ReadFailures
from qtools.broker.disk.reader import BlockReader
from qtools.broker.disk.restore import restore
from qtools.broker.disk.retention import Age, Retain, Sweeper
from qtools.broker.disk.topic_log import TopicLog
from qtools.broker.disk.transaction import Transaction, make_room
from qtools.broker.disk.write_failures import AGAIN, WriteFailures
from qtools.errors import StartError

log = logging.getLogger("qtools.broker")

LAZY = 0.05  # s that finished messages may wait for a commit; after a crash they are delivered again
CROWD = 32 * 1024 * 1024  # bytes that may wait to be written before the broker stops reading from publishers


class StoreFailed(Exception):
    """The reason why messages could not be stored."""


class DurableStore:
    """Keeps messages in `directory`, which no other process may use. Raises StartError when its files cannot be used.

    sync: "full" survives a power failure; "normal" a crash of the process, and an orderly end of the system; "off" a
    crash of the process only. memory_messages: how many messages a channel has in memory. longest_deferral: seconds; a
    stored due time that lies further in the future was written by a wrong clock, and is brought down to it.
    on_failure: called with the reason when nothing can be stored, and with "" when that works again. on_work: called
    when `end_turn` should be called. writer: the thread of the connection that writes.
    """

    durable = True

    def __init__(
        self,
        directory: Path,
        *,
        sync: str = "full",
        memory_messages: int = 10_000,
        retain: Retain | None = None,
        longest_deferral: float = 3600.0,
    ) -> None:
        self.clock = Clock(asyncio.get_running_loop().time)
        self.longest_deferral = round(longest_deferral * 1e9)  # ns
        self.budget = Budget(memory_messages)
        self.in_flight = InFlight()
        self.on_work: Callable[[], None] = lambda: None
        self.next_seq = 1
        self._loop = asyncio.get_running_loop()
        self._directory = directory
        self._next_ident = 1
        self._pending: Commit | None = None
        self._group_commit = GroupCommit(self._loop, lambda: self.on_work())
        self._writing_bytes = 0
        self._writing: Transaction | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_due = False  # changes that may wait have waited for long enough
        self._closed = False
        self._damage = Damage(directory)
        self._write_failures = WriteFailures(directory, self._damage)
        connection = open_sound(directory, sync, self._write_failures.sizes.log, self._damage)
        try:
            try:
                self._restore(connection, Sweeper(retain or Retain()))
            except (ValueError, TypeError, OverflowError) as error:
                # A damaged row of a table that is too large for its checksums to be compared at each start.
                connection.close()
                self.reader.close()
                self._damage.report_structure(str(error))
                connection = open_sound(directory, sync, self._write_failures.sizes.log, self._damage)  # repairs it
                self._restore(connection, Sweeper(retain or Retain()))
        except (sqlite3.Error, ValueError, TypeError, OverflowError) as error:
            connection.close()
            why = describe_error(error) if isinstance(error, sqlite3.Error) else f"it is damaged ({error})"
            raise StartError(f"cannot use {directory}: {why}; it was left as it is") from error
        self._connection = connection
        self._checker = check_later(directory, self._loop, self._damage)
        self.writer = DatabaseThread("q-broker writer", connection, self._loop)
        self._maintenance = Maintenance(self, self.writer, self._loop)
        if self._write_failures.failure:
            self.later(self._probe)
        elif not self._write_failures.allocate():
            self._maintenance.allocate_later(self._write_failures.allocate_again)
        if retain:
            self._maintenance.sweep()

    def _restore(self, connection: sqlite3.Connection, sweeper: Sweeper) -> None:
        """Build topics and channels from the database. Raises the errors of `restore`, and sqlite3.Error."""
        self.sweeper = sweeper
        self._writes = PendingWrites(sweeper)
        self._logs: dict[str, TopicLog] = {}
        self._write_failures.replay(connection)
        failures = ReadFailures(self._directory, self._damage, self.sweeper, self._topic_name)
        self.reader = BlockReader(self._directory, self._loop, failures.note_failure, failures.note_damage)
        self.last_id, self._next_ident, self.next_seq = restore(self, connection, self._logs)

    @property
    def on_failure(self) -> Callable[[str], None]:
        return self._write_failures.on_failure

    @on_failure.setter
    def on_failure(self, on_failure: Callable[[str], None]) -> None:
        self._write_failures.watch(on_failure)

    # ── topics ──────────────────────────────────────────────────────────────────────────────────

    @property
    def topics(self) -> list[str]:
        """The names of all topics."""
        return list(self._logs)

    def log(self, name: str) -> TopicLog:
        """One topic: the stored one, or a new one."""
        log = self._logs.get(name)
        if log is None:
            log = self._logs[name] = TopicLog(
                self, self.take_ident(), name, next_seq=self.next_seq, held_from=self.next_seq
            )
            self.change(
                "INSERT INTO topic (id, name, paused, held_from, checksum)"
                " VALUES (?1, ?2, 0, ?3, row_checksum(?1, ?2, 0, ?3))",
                (log.ident, name, self.next_seq),
            )
        return log

    def take_ident(self) -> int:
        """A number for a new topic or channel that was never used before."""
        ident = self._next_ident
        self._next_ident += 1
        return ident

    def forget_topic(self, topic: TopicLog) -> None:
        del self._logs[topic.name]
        self._writes.topics.pop(topic, None)
        for channel in topic.channels.values():
            self._writes.channels.pop(channel, None)
        self.change(
            "UPDATE topic SET name = NULL, checksum = row_checksum(id, NULL, paused, held_from) WHERE id = ?",
            (topic.ident,),
        )
        self.change("DELETE FROM progress WHERE channel IN (SELECT id FROM channel WHERE topic = ?)", (topic.ident,))
        self.change("DELETE FROM channel WHERE topic = ?", (topic.ident,))
        self.sweeper.remove_topic(topic.ident)

    def forget_channel(self, channel: ChannelBacklog) -> None:
        self._writes.channels.pop(channel, None)
        self.change("DELETE FROM progress WHERE channel = ?", (channel.ident,))
        self.change("DELETE FROM channel WHERE id = ?", (channel.ident,))

    def read_now(self, topic: int, start: int, stop: int, *, deferred: bool = False) -> list[Block]:
        """Read blocks of a topic and wait for them: at most as many messages as a channel has in memory. deferred: only
        blocks that were published deferred."""
        return self.reader.now(topic, start, stop, self.budget.messages, deferred=deferred)

    # ── writing ───────────────────────────────────────────────────────────────────

    @property
    def pending(self) -> Commit | None:
        """The commit that will contain whatever is stored now."""
        if self._pending is None:
            self._pending = Commit()
            self.on_work()
        return self._pending

    @property
    def is_crowded(self) -> bool:
        """Whether so much waits to be written that the broker should stop reading from publishers for a while."""
        return self._group_commit.bytes + self._writing_bytes > CROWD

    def publishing(self, size: int) -> Commit | None:
        """Announce `size` bytes of frames. Returns the commit for the publisher to wait for."""
        self._group_commit.add(size)
        return self.pending

    def append(self, topic: str, block: Block) -> None:
        """Store `block`. It is safe once the commit in `pending` is done."""
        block.seq = self.next_seq
        self.next_seq += 1
        self._writes.append(self._logs[topic].ident, block)

    def change(self, statement: str, values: tuple[object, ...]) -> None:
        """Write a change of a topic or a channel soon, and before all blocks that are appended after it."""
        self._writes.change(statement, values)
        self._is_due = True
        self.on_work()

    def remove_finished_soon(self, topic: TopicLog) -> None:
        """Call `topic.remove_finished` with the next commit."""
        self._writes.topics[topic] = None
        self.on_work()

    def touched(self, channel: ChannelWriter) -> None:
        """Write what a channel has delivered, finished or requeued with the next commit."""
        channels = self._writes.channels
        if channel not in channels:
            channels[channel] = None
            self.on_work()

    def wake(self) -> None:
        """Note that there is something to write."""
        self.on_work()

    def end_turn(self, seal: Callable[[], None]) -> None:
        """Write what has been collected, if it is time to. `seal` is called first, and appends what was published."""
        if self._writing or self._closed:
            return
        if self._write_failures.failure:
            seal()
            self._refuse(self._write_failures.failure)
        elif self._is_due or (self._pending is not None and self._group_commit.is_complete):
            seal()
            self._write()
        elif self._pending is not None:
            self._group_commit.wait()
        elif self._timer is None and self._writes.has_changes:
            self._timer = self._loop.call_later(LAZY, self._lazy_is_due)
        else:
            self._maintenance.give_back_space_soon()

    def _lazy_is_due(self) -> None:
        # Not written from here: published messages have not been sealed into blocks yet.
        self._timer = None
        self._is_due = True
        self.on_work()

    def _write(self) -> None:
        """Hand everything over to the writer's thread."""
        commit, self._pending = self._pending, None
        self._is_due = False
        self._writing_bytes = self._group_commit.take()
        job = self._writes.take()
        if self._writes.channels:  # more than one commit takes
            self._is_due = True
        self._writing = job
        self.writer.do(
            partial(self._write_failures.run, job), lambda more, error: self._written(job, commit, more, error)
        )

    def _written(self, job: Transaction, commit: Commit | None, more: bool | None, error: Exception | None) -> None:
        self._writing = None
        self._writing_bytes = 0
        self._group_commit.answered()
        if error is None:
            self._writes.committed(job, has_more=bool(more))
            if self._write_failures.failure and not self._write_failures.try_to_end():
                self._loop.call_later(AGAIN, self._probe)
            if commit is not None:
                commit.settle()
        else:
            self._writes.put_back(job)
            why = self._write_failures.reason(error)
            self._write_failures.begin(why, is_full=getattr(error, "sqlite_errorname", "") == "SQLITE_FULL")
            self._loop.call_later(AGAIN, self._probe)
            if commit is not None:
                commit.settle(StoreFailed(why))
        self.on_work()

    # ── when the disk refuses ───────────────────────────────────────────────────────────────────

    def _refuse(self, why: str) -> None:
        """Answer publishers that nothing of theirs is stored."""
        self._group_commit.take()
        self._writes.drop_blocks()
        commit, self._pending = self._pending, None
        if commit is not None:
            commit.settle(StoreFailed(why))

    def _probe(self) -> None:
        """Try to write what consumers have finished meanwhile. If that works, messages may be accepted again."""
        if self._closed or self._writing or not self._write_failures.failure:
            return
        job = self._writes.take(with_blocks=False)  # publishers get their answer after this try
        self._writing = job

        def work(connection: sqlite3.Connection) -> bool:
            more = self._write_failures.probe(job, connection)
            make_room(connection)
            return more

        self.writer.do(work, lambda more, error: self._written(job, None, more, error))

    # ── damage ─────────────────────────────────────────────────────────────────────

    @property
    def lost(self) -> Sequence[Lost]:
        """Messages that were stored and can no longer be read."""
        return self._damage.lost

    @property
    def damage(self) -> str:
        """One sentence about `lost`; empty when nothing was lost."""
        return self._damage.summary

    def _topic_name(self, ident: int) -> str:
        return next((log.name for log in self._logs.values() if log.ident == ident), f"number {ident}")

    def missing(self, topic: str, first: int, last: int, messages: int) -> None:
        """Report that `messages` messages of the blocks `first` to `last` are not in the database."""
        self._damage.report(Lost(topic, first, last, messages, "", "", "they are not in the database any more"))

    # ── time passes ─────────────────────────────────────────────────────────────────────────────

    def later(self, what: Callable[[], None]) -> None:
        """Call `what` after AGAIN seconds, because something could not be read."""
        if not self._closed:
            self._loop.call_later(AGAIN, what)

    @property
    def is_closed(self) -> bool:
        return self._closed

    @property
    def has_work(self) -> bool:
        """Whether a write is under way or waits, or the disk refuses."""
        return bool(self._writing or self._write_failures.failure or self._pending is not None or self._writes.channels)

    @property
    def is_idle(self) -> bool:
        """Whether everything, blocks aside, is on disk."""
        return not self._writing and self._writes.is_empty

    def finished_below(self) -> list[tuple[int, int]]:
        """For each topic: its number, and the number below which all channels have finished all blocks."""
        return [
            (topic.ident, min([channel.low for channel in topic.channels.values()], default=topic.given))
            for topic in self._logs.values()
        ]

    def find_age(self) -> Age:
        """Which blocks are old enough now, by the earlier of both clocks: one that is ahead must not make them old."""
        wall = min(time.time_ns(), self.clock.wall())
        return self.sweeper.find_age(wall, self._loop.time(), self.next_seq)

    def close(self) -> None:
        """Write what is left, and close. A message that cannot be written was not confirmed to its publisher."""
        if self._closed:
            return
        commit, self._pending = self._pending, None
        job, under_way = self._writes.take(all_channels=True), self._writing
        self._group_commit.take()
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        failures: list[Exception] = []

        def work(connection: sqlite3.Connection) -> None:
            if under_way is not None and under_way.failed:  # it will not be tried again otherwise
                job.before[:0] = under_way.before + under_way.after
            try:
                self._write_failures.run(job, connection)
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            except Exception as error:
                failures.append(error)

        self.writer.do(work, lambda _, error: None)
        self.writer.close()
        self.reader.close()
        if self._checker is not None:
            self._checker.close()
        reasons = [self._write_failures.reason(error) for error in failures]
        for why in reasons:
            log.error("cannot write to %s: %s", self._directory, why)
        if commit is not None:
            commit.settle(StoreFailed(reasons[0]) if reasons else None)
