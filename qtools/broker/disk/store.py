"""The durable store. In: blocks, and what changes about topics and channels. Out: commits, once they are on disk.

    publishing, publishing, …  ─▶ end_turn ─▶ one transaction in the writer's thread ─▶ the commit is settled
                                              (while one is being written, what comes gathers for the next)

In a transaction: first what changed about topics and channels, then blocks, then what was finished, then what nobody
needs any more. A publisher waits for it; what was finished does not hurry, and goes with the next one or after LAZY.
What gathers is sealed into blocks when its transaction begins, so that many publishers share one block as well.

When the disk refuses, publishers are told so, and nothing of theirs is kept; what concerns consumers stays in memory
and is tried again every second, until it works. Room is kept in reserve for that (reserve.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from qtools.broker.core.block import Block
from qtools.broker.core.clock import Clock
from qtools.broker.core.store import Commit, Lost
from qtools.broker.disk.channel.backlog import ChannelBacklog, Statement
from qtools.broker.disk.channel.in_flight import InFlight
from qtools.broker.disk.channel.memory_queue import Budget
from qtools.broker.disk.database import told
from qtools.broker.disk.database_thread import DatabaseThread
from qtools.broker.disk.group_commit import GroupCommit
from qtools.broker.disk.integrity.damage import Damage, UnreadableBlock
from qtools.broker.disk.integrity.opening import check_later, open_sound
from qtools.broker.disk.reader import BlockReader
from qtools.broker.disk.reserve import Journal, Sizes, allocate, free_bytes, told_size
from qtools.broker.disk.restore import restore
from qtools.broker.disk.retention import Age, Key, Removal, Retain, Sweeper
from qtools.broker.disk.topic_log import TopicLog
from qtools.broker.disk.transaction import Transaction, make_room

log = logging.getLogger("qtools.broker")

LAZY = 0.05  # s that what was finished may wait for a commit; after a crash it comes again
IDLE = 1.0  # s without anything to write, before space is given back to the system
AGAIN = 1.0  # s between two tries when the disk refuses
CROWD = 32 * 1024 * 1024  # bytes that may wait to be written, before publishers are not listened to
SLACK = 64 * 1024 * 1024  # bytes of the file that may lie idle before they go back to the system
VACUUM = 512  # pages given back at once
MOST_TOUCHED = 2000  # channels of which one commit writes what was finished: gathering it takes the loop's time
SWEEP_AT_ONCE = 200  # topics in one look
SWEEP_EVERY = 30.0  # s between two looks for what has been retained for long enough


class StoreFailed(Exception):
    """Why something could not be kept."""


class DurableStore:
    """Keeps messages in `directory`, which nobody else may use. StartError when what is there cannot be used.

    sync: full survives a power failure, normal the end of the process, off that as well, but no damage to the
    system. hot_messages: how many a channel has in memory. longest_deferral: seconds; a stored due time that lies
    further in the future was written by a clock that was wrong, and is not believed.
    on_failure is told why nothing can be kept, "" when it can again; on_work, that `end_turn` should be called.
    """

    durable = True

    def __init__(
        self,
        directory: Path,
        *,
        sync: str = "full",
        hot_messages: int = 10_000,
        retain: Retain | None = None,
        longest_deferral: float = 3600.0,
    ) -> None:
        self.clock = Clock(asyncio.get_running_loop().time)
        self.longest_deferral = round(longest_deferral * 1e9)  # ns
        self.budget = Budget(hot_messages)
        self.in_flight = InFlight()
        self.sweeper = Sweeper(retain or Retain())
        self.on_failure: Callable[[str], None] = lambda why: None
        self.on_work: Callable[[], None] = lambda: None
        self.next_seq = 1
        self._loop = asyncio.get_running_loop()
        self._reserve = directory / "reserve"
        self._directory = directory
        self._logs: dict[str, TopicLog] = {}
        self._next_ident = 1
        self._pending: Commit | None = None
        self._before: list[Statement] = []
        self._blocks: list[tuple[int, Block]] = []
        self._gathering = GroupCommit(self._loop, lambda: self.on_work())
        self._writing_bytes = 0
        self._touched: dict[ChannelBacklog, None] = {}
        self._strays: dict[TopicLog, None] = {}
        self._after: list[Statement] = []
        self._being_written: dict[ChannelBacklog, None] = {}  # whose statements are in a transaction that is not done
        self._writing: Transaction | None = None
        self._failure = ""
        self._read_failure = ""
        self._timer: asyncio.TimerHandle | None = None
        self._is_due = False  # what does not hurry has waited for long enough
        self._giving_back = False
        self._closed = False
        self._damage = Damage(directory)
        self._sizes = Sizes.of(directory)
        self._journal = Journal(directory, self._sizes.journal)
        self._is_noted = True  # what could not be written to the database last is in the journal
        connection = open_sound(directory, sync, self._sizes.log, self._damage)
        try:
            try:
                self._restore(connection)
            except (ValueError, TypeError, OverflowError) as error:
                # A row of a table that is too large to be compared with its checksums at each start.
                connection.close()
                self.reader.close()
                self._damage.report_structure(str(error))
                self._forget(Sweeper(retain or Retain()))
                connection = open_sound(directory, sync, self._sizes.log, self._damage)  # it repairs what is reported
                self._restore(connection)
        except (sqlite3.Error, ValueError, TypeError, OverflowError) as error:
            connection.close()
            from qtools.errors import StartError

            why = told(error) if isinstance(error, sqlite3.Error) else f"it is damaged ({error})"
            raise StartError(f"cannot use {directory}: {why}; it was left as it is") from error
        self._connection = connection
        self._checker = check_later(directory, self._loop, self._damage)
        self._writer = DatabaseThread("q-broker writer", connection, self._loop)
        self._journal.allocate()
        self._keep_reserve()
        if retain:
            self._sweep_old()

    def _restore(self, connection: sqlite3.Connection) -> None:
        """What the database holds, as topics and channels. Errors as those of `restore`, and sqlite3.Error."""
        self._replay(connection)
        self.reader = BlockReader(self._directory, self._loop, self._cannot_read, self._is_damaged)
        self.last_id, self._next_ident, self.next_seq = restore(self, connection, self._logs)

    def _forget(self, sweeper: Sweeper) -> None:
        """Nothing was restored so far."""
        self.sweeper = sweeper
        for kept in (self._logs, self._touched, self._strays, self._before, self._after):
            kept.clear()

    # ── topics ──────────────────────────────────────────────────────────────────────────────────

    @property
    def topics(self) -> list[str]:
        """The topics that were kept, or made since."""
        return list(self._logs)

    def log(self, name: str) -> TopicLog:
        """What is kept of a topic, one that was kept or a new one."""
        made = self._logs.get(name)
        if made is None:
            made = self._logs[name] = TopicLog(
                self, self.take_ident(), name, next_seq=self.next_seq, held_from=self.next_seq
            )
            self.change(
                "INSERT INTO topic (id, name, paused, held_from, checksum)"
                " VALUES (?1, ?2, 0, ?3, row_checksum(?1, ?2, 0, ?3))",
                (made.ident, name, self.next_seq),
            )
        return made

    def take_ident(self) -> int:
        """A number for a topic or a channel that no other ever had."""
        ident = self._next_ident
        self._next_ident += 1
        return ident

    def forget_topic(self, topic: TopicLog) -> None:
        del self._logs[topic.name]
        self._strays.pop(topic, None)
        for channel in topic.channels.values():
            self._touched.pop(channel, None)
        self.change(
            "UPDATE topic SET name = NULL, checksum = row_checksum(id, NULL, paused, held_from) WHERE id = ?",
            (topic.ident,),
        )
        self.change("DELETE FROM progress WHERE channel IN (SELECT id FROM channel WHERE topic = ?)", (topic.ident,))
        self.change("DELETE FROM channel WHERE topic = ?", (topic.ident,))
        self.sweeper.remove_topic(topic.ident)

    def forget_channel(self, channel: ChannelBacklog) -> None:
        self._touched.pop(channel, None)
        self.change("DELETE FROM progress WHERE channel = ?", (channel.ident,))
        self.change("DELETE FROM channel WHERE id = ?", (channel.ident,))

    def read_now(self, topic: int, start: int, stop: int, *, deferred: bool = False) -> list[Block]:
        """Some of a topic's blocks, at most as many as fit into a channel's memory; or of those published deferred."""
        return self.reader.now(topic, start, stop, self.budget.messages, deferred=deferred)

    # ── what is to be written ───────────────────────────────────────────────────────────────────

    @property
    def pending(self) -> Commit | None:
        """What everything that comes now waits for."""
        if self._pending is None:
            self._pending = Commit()
            self.on_work()
        return self._pending

    @property
    def is_crowded(self) -> bool:
        """Whether so much waits to be written that publishers should not be listened to for a while."""
        return self._gathering.bytes + self._writing_bytes > CROWD

    def publishing(self, size: int) -> Commit | None:
        """Somebody publishes `size` bytes of frames, and waits for the commit."""
        self._gathering.come(size)
        return self.pending

    def append(self, topic: str, block: Block) -> None:
        """Keep `block`; it is safe when the commit that `pending` names is done."""
        block.seq = self.next_seq
        self.next_seq += 1
        self._blocks.append((self._logs[topic].ident, block))

    def change(self, statement: str, values: tuple[object, ...]) -> None:
        """Something about topics and channels: written soon, before all blocks that come after it."""
        self._before.append((statement, [values]))
        self._is_due = True
        self.on_work()

    def look_for_strays(self, topic: TopicLog) -> None:
        """`topic.remove_strays` is to be called when what is finished is written next."""
        self._strays[topic] = None
        self.on_work()

    def touched(self, channel: ChannelBacklog) -> None:
        """Something was finished, delivered or given back: written when there is time."""
        if channel not in self._touched:
            self._touched[channel] = None
            self.on_work()

    def end_turn(self, seal: Callable[[], None]) -> None:
        """What has come may be written together now; `seal` makes it be appended first, all of it."""
        if self._writing or self._closed:
            return
        if self._failure:
            seal()
            self._refuse(self._failure)
        elif self._is_due or (self._pending is not None and self._gathering.is_complete):
            seal()
            self._write()
        elif self._pending is not None:
            self._gathering.wait()
        elif self._timer is None and (self._touched or self._strays or not self.sweeper.is_idle):
            self._timer = self._loop.call_later(LAZY, self._lazy_is_due)
        elif not self._giving_back:
            self._giving_back = True
            self._loop.call_later(IDLE, self._give_back_space)

    def _lazy_is_due(self) -> None:
        # Not written from here: what was published has not been sealed into blocks yet.
        self._timer = None
        self._is_due = True
        self.on_work()

    def _write(self) -> None:
        """Hand everything over to the writer."""
        commit, self._pending = self._pending, None
        self._is_due = False
        self._writing_bytes = self._gathering.take()
        job = self._take_job(self._take_blocks())
        self._writing = job
        self._writer.do(partial(self._run, job), lambda more, error: self._written(job, commit, more, error))

    def _run(self, job: Transaction, connection: sqlite3.Connection, *, must_write: bool = False) -> bool:
        """In the writer's thread. What the database does not take of what was finished goes to the journal."""
        try:
            more = job.run(connection, must_write=must_write)
        except sqlite3.Error:
            self._keep_in_journal(job)
            raise
        self._journal.clear()
        self._is_noted = True
        return more

    def _keep_in_journal(self, job: Transaction) -> None:
        statements = job.before + job.after
        if not statements:
            return
        is_noted = self._journal.write(statements)
        if self._is_noted and not is_noted:
            log.warning(
                "%s: what consumers finish cannot be noted: it comes again if q-broker is restarted before the"
                " directory can be written to",
                self._directory,
            )
        self._is_noted = is_noted

    def _take_blocks(self) -> list[tuple[int, Block]]:
        blocks, self._blocks = self._blocks, []
        return blocks

    def _take_touched(self) -> list[ChannelBacklog]:
        """Channels of which something is written with this commit; the others come with the next one, at once."""
        if len(self._touched) <= MOST_TOUCHED or self._closed:
            taken, self._touched = list(self._touched), {}
            return taken
        taken = list(islice(self._touched, MOST_TOUCHED))
        for channel in taken:
            del self._touched[channel]
        self._is_due = True
        return taken

    def _take_job(self, blocks: list[tuple[int, Block]]) -> Transaction:
        before, self._before = self._before, []
        after, self._after = self._after, []
        touched = self._take_touched()
        for channel in touched:
            after += channel.statements()
        self._being_written.update(dict.fromkeys(touched))
        strays, self._strays = self._strays, {}
        for topic in strays:
            topic.remove_strays()
        gone, removal = self.sweeper.take()
        if gone:
            after.append(("DELETE FROM block WHERE seq = ?", list(gone)))
        return Transaction(before, blocks, after, removal)

    def _written(self, job: Transaction, commit: Commit | None, more: bool | None, error: Exception | None) -> None:
        self._writing = None
        self._writing_bytes = 0
        self._gathering.answered()
        if error is None:
            if more and job.removal is not None:
                self.sweeper.give_back(job.removal, failed=False)
            written, self._being_written = self._being_written, {}
            for channel in written:
                channel.written()
            if self._failure:
                self._try_to_recover()
            if commit is not None:
                commit.settle()
        else:
            if not isinstance(error, sqlite3.Error):
                log.error("internal error while writing: %s: %s", type(error).__name__, error)
            self._before[:0] = job.before + job.after
            if job.removal is not None:
                self.sweeper.give_back(job.removal, failed=True)
            why = self._why(error)
            self._failed(why, is_full=getattr(error, "sqlite_errorname", "") == "SQLITE_FULL")
            if commit is not None:
                commit.settle(StoreFailed(why))
        self.on_work()

    # ── when the disk refuses ───────────────────────────────────────────────────────────────────

    def _refuse(self, why: str) -> None:
        """Tell publishers that nothing of theirs is kept."""
        self._gathering.take()
        self._blocks.clear()
        commit, self._pending = self._pending, None
        if commit is not None:
            commit.settle(StoreFailed(why))

    def _why(self, error: Exception) -> str:
        if not isinstance(error, sqlite3.Error):
            return str(error)
        if (getattr(error, "sqlite_errorname", "") or "").startswith("SQLITE_CORRUPT"):
            self._damage.report_structure(str(error))
        if getattr(error, "sqlite_errorname", "") == "SQLITE_FULL":
            return f"{told(error)}: {told_size(self._sizes.enough)} have to be free in {self._directory}"
        return told(error)

    def _replay(self, connection: sqlite3.Connection) -> None:
        """What was finished while the disk was full, before the last restart, is written now."""
        try:
            self._journal.replay(connection)
        except sqlite3.Error as error:
            log.debug("%s: %s", self._directory, told(error))
            self._reserve.unlink(missing_ok=True)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self._journal.replay(connection)

    def _failed(self, why: str, *, is_full: bool) -> None:
        if self._failure != why:
            self._failure = why
            log.error(
                "cannot write to %s: %s; what is published is refused until it can be written to, consumers are served",
                self._directory,
                f"{why} ({told_size(free_bytes(self._directory))} are)" if is_full else why,
            )
            self.on_failure(why)
        with contextlib.suppress(OSError):
            self._reserve.unlink()
        self._loop.call_later(AGAIN, self._probe)

    def _probe(self) -> None:
        """Try to write what consumers have done meanwhile; `_try_to_recover` comes next if that works."""
        if self._closed or self._writing or not self._failure:
            return
        job = self._take_job([])  # what publishers wait with is told of once this has been tried
        self._writing = job

        def work(connection: sqlite3.Connection) -> bool:
            try:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            except sqlite3.Error:
                self._keep_in_journal(job)
                raise
            more = self._run(job, connection, must_write=True)
            make_room(connection)
            return more

        self._writer.do(work, lambda more, error: self._written(job, None, more, error))

    def _try_to_recover(self) -> None:
        """It works for what is small; is there room again for what is large?"""
        if free_bytes(self._directory) >= self._sizes.enough and self._keep_reserve():
            self._failure = ""
            log.warning("%s can be written to again", self._directory)
            self.on_failure("")
        else:
            self._loop.call_later(AGAIN, self._probe)

    def _keep_reserve(self) -> bool:
        return allocate(self._reserve, self._sizes.reserve)

    # ── what cannot be read ─────────────────────────────────────────────────────────────────────

    @property
    def lost(self) -> Sequence[Lost]:
        """What was kept and cannot be read any more."""
        return self._damage.lost

    @property
    def damage(self) -> str:
        """One sentence about `lost`; empty when there is nothing to be said."""
        return self._damage.summary

    def missing(self, topic: TopicLog, first: int, last: int, messages: int) -> None:
        """So many messages of the blocks `first` to `last` should be in the database, and are not."""
        self._damage.report(Lost(topic.name, first, last, messages, "", "", "they are not in the database any more"))

    def _is_damaged(self, topic: int, block: UnreadableBlock) -> None:
        name = next((one.name for one in self._logs.values() if one.ident == topic), f"number {topic}")
        self._damage.add(name, block)
        if block.is_structural:
            self.sweeper.undeletable.add(block.seq)

    def _cannot_read(self, why: str, is_damaged: bool = False) -> None:
        if why == self._read_failure:
            return
        self._read_failure = why
        if is_damaged:
            self._damage.report_structure(why)
        if not why:
            log.warning("%s: messages can be read again", self._directory)
        else:
            log.error("%s: %s; trying again every %g s", self._directory, why, AGAIN)

    # ── time passes ─────────────────────────────────────────────────────────────────────────────

    def later(self, what: Callable[[], None]) -> None:
        """Try `what` again, after something went wrong."""
        if not self._closed:
            self._loop.call_later(AGAIN, what)

    def _give_back_space(self) -> None:
        """Pages that nothing is on go back to the system, some at a time, as long as nothing else is to be done."""
        if self._closed or self._writing or self._failure or self._pending is not None or self._touched:
            self._giving_back = False  # when there is time again
            return

        def work(connection: sqlite3.Connection) -> bool:
            (idle,) = connection.execute("PRAGMA freelist_count").fetchone()
            (size,) = connection.execute("PRAGMA page_size").fetchone()
            if idle * size <= SLACK:
                return False
            connection.executescript(f"PRAGMA incremental_vacuum({VACUUM})")  # `execute` takes one step of it
            return True

        def answer(more: bool | None, error: Exception | None) -> None:
            if more and error is None:
                self._loop.call_later(LAZY, self._give_back_space)
            else:
                self._giving_back = False

        self._writer.do(work, answer)

    def _sweep_old(self) -> None:
        if self._closed:
            return
        below = [
            (topic.ident, min([channel.low for channel in topic.channels.values()], default=topic.given))
            for topic in self._logs.values()
        ]
        # The earlier of both clocks: one that is ahead must not make anything old.
        wall = min(time.time_ns(), self.clock.wall())
        self._look_for_old(below, self.sweeper.find_age(wall, self._loop.time(), self.next_seq))

    def _look_for_old(self, below: list[tuple[int, int]], age: Age) -> None:
        """Some topics at a time, so that no publisher waits for long."""
        some, rest = below[:SWEEP_AT_ONCE], below[SWEEP_AT_ONCE:]

        def swept(found: dict[Key, Removal] | None, error: Exception | None) -> None:
            if error is not None or found is None:
                log.error("cannot look for what was retained for long enough: %s", error)
            else:
                self.sweeper.remove_old(found)
            if self._closed:
                return
            if rest:
                self._look_for_old(rest, age)
            else:
                self._loop.call_later(SWEEP_EVERY, self._sweep_old)
            self.on_work()

        self._writer.do(lambda connection: self.sweeper.look_for_old(some, age, connection), swept)

    def close(self) -> None:
        """Write what is left, and let go. What is not on disk then was not confirmed to anybody."""
        if self._closed:
            return
        commit, self._pending = self._pending, None
        job, under_way = self._take_job(self._take_blocks()), self._writing
        self._gathering.take()
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        failures: list[sqlite3.Error] = []

        def work(connection: sqlite3.Connection) -> None:
            if under_way is not None and under_way.failed:  # nobody will try it again after us
                job.before[:0] = under_way.before + under_way.after
            try:
                self._run(job, connection)
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            except sqlite3.Error as error:
                failures.append(error)

        self._writer.do(work, lambda _, error: None)
        self._writer.close()
        self.reader.close()
        if self._checker is not None:
            self._checker.close()
        for error in failures:
            log.error("cannot write to %s: %s", self._directory, told(error))
        if commit is not None:
            commit.settle(StoreFailed(str(failures[0])) if failures else None)
