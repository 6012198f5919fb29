"""One topic on disk. In: blocks that are safe; channels that are made, deleted, or finish blocks. Out: blocks to
remove.

block ──┬─▶ the backlog of each channel     once the last channel has finished the block, it is removed
        └─▶ the topic's own backlog, while it has no channel or is paused: all blocks from `held_from` on, which the
            channels receive together later
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from typing import Protocol

from qtools.broker.core.block import Block, MessageRange, first_ranges
from qtools.broker.core.memory_store import MemoryBacklog
from qtools.broker.core.store import Backlog
from qtools.broker.disk.channel.backlog import ChannelBacklog
from qtools.broker.disk.channel.contract import ChannelStore
from qtools.broker.disk.channel.memory_queue import BYTES
from qtools.broker.disk.channel.seq_set import SeqSet
from qtools.broker.disk.retention import Sweeper
from qtools.names import is_ephemeral

_MOST_NOTED = 10_000  # blocks of a topic for which the first channel that needs them is remembered


class TopicStore(ChannelStore, Protocol):
    """The store of the topic. next_seq: the number of the next block."""

    @property
    def next_seq(self) -> int: ...
    @property
    def sweeper(self) -> Sweeper: ...
    def take_ident(self) -> int:
        """A number for a new topic or channel that was never used before."""
        ...

    def change(self, statement: str, values: tuple[object, ...]) -> None:
        """Write a change of a topic or a channel soon."""
        ...

    def remove_finished_soon(self, topic: TopicLog) -> None:
        """Call `topic.remove_finished` with the next commit."""
        ...

    def forget_topic(self, topic: TopicLog) -> None: ...
    def forget_channel(self, channel: ChannelBacklog) -> None: ...
    def read_now(self, topic: int, start: int, stop: int, *, deferred: bool = False) -> list[Block]:
        """Read blocks of a topic, and wait for them."""
        ...


class TopicLog:
    """One topic.

    next: the next block of the topic has this number, or a higher one.
    """

    def __init__(self, store: TopicStore, ident: int, name: str, *, next_seq: int, held_from: int | None) -> None:
        self.store = store
        self.ident = ident
        self.name = name
        self.next = next_seq
        self.paused = False
        self.backlog = TopicBacklog(self, held_from)
        self.channels: dict[str, ChannelBacklog] = {}
        self._finished_below = 0  # below may be finished blocks, as a channel was deleted or emptied; 0: there are none
        self._swept_below = 0  # the sweeper has been given all blocks below
        self._is_deleted = False
        # So that not all channels have to be asked each time that one has finished a block: the channel that had not
        # finished a block at the last search; and, by the number of a block, the ident of the first channel that had
        # not finished it at the last search.
        self._slowest_channel: ChannelBacklog | None = None
        self._needed_by: dict[int, int] = {}
        self._by_ident: dict[int, ChannelBacklog] = {}
        self._idents: list[int] = []  # in order

    @property
    def given(self) -> int:
        """The channels have received all blocks with a lower number."""
        held_from = self.backlog.held_from
        return self.next if held_from is None else min(held_from, self.next)

    # ── blocks ──────────────────────────────────────────────────────────────────────────────────

    def has(self, seq: int) -> bool:
        """Whether the block is still on disk."""
        return not self.store.sweeper.is_removed(seq)

    def spread(self, block: Block) -> None:
        """Note that `block` was put into the backlogs of the channels, or into the topic's own."""
        self.next = block.seq + 1
        if self.backlog.held_from is None:
            self.finished(block.seq)

    def finished(self, seq: int) -> None:
        """Note that a channel has finished the block. Remove it if all channels have."""
        if self.store.sweeper.retain or self._is_needed(seq) or not self.store.sweeper.remove(seq):
            return
        for channel in self.channels.values():
            channel.removed(seq)

    def _is_needed(self, seq: int) -> bool:
        """Whether a channel has not finished the block.

        A channel that has finished a block never needs it again, and new channels are added at the end. So the search
        for a block continues at the channel where it ended last, and asks each channel once.
        """
        slowest = self._slowest_channel
        if slowest is not None and not slowest.is_done(seq):
            return True
        found = self._needed_by.get(seq, -1)
        channel = self._by_ident.get(found)
        if channel is not None and not channel.is_done(seq):
            return True
        idents = self._idents
        for place in range(bisect_right(idents, found), len(idents)):
            channel = self._by_ident[idents[place]]
            if not channel.is_done(seq):
                if len(self._needed_by) >= _MOST_NOTED:
                    self._needed_by.clear()
                self._needed_by[seq] = idents[place]
                self._slowest_channel = channel
                return True
        self._needed_by.pop(seq, None)
        return False

    def sweep(self) -> None:
        """Note that a channel has finished, or no longer needs, many blocks at once."""
        self._finished_below = self.next
        self.advanced()

    def advanced(self) -> None:
        """Note that a channel has finished all blocks below a higher number than before."""
        if self._finished_below and not self._is_deleted:
            self.store.remove_finished_soon(self)

    def remove_finished(self) -> None:
        """Remove the blocks that all channels have finished, if there are more than before."""
        # If a channel has not finished a block up to this number, there is nothing to remove.
        enough = min(self._swept_below, self._finished_below - 1)
        slowest = self._slowest_channel
        if slowest is not None and slowest.low <= enough:
            return
        lowest = self.given
        for channel in self.channels.values():
            low = channel.low
            if low <= enough:
                self._slowest_channel = channel
                return
            lowest = min(lowest, low)
        self._swept_below = lowest
        self.store.sweeper.remove_below(self.ident, lowest)
        if lowest >= self._finished_below:
            self._finished_below = 0

    # ── channels ────────────────────────────────────────────────────────────────────────────────

    def restored(self) -> list[str]:
        """The names of the channels that were stored."""
        return list(self.channels)

    def is_paused(self, channel: str = "") -> bool:
        """Whether the topic, or one of its channels, was paused when the broker ended."""
        return self.channels[channel].is_paused if channel else self.paused

    def channel(self, name: str, *, takes_held: bool = False, since: int | None = None) -> Backlog:
        """The backlog of a channel: the stored one, or a new one.

        takes_held: the channel receives the messages that the topic holds; the caller moves them next. since: ns since
        1970; the channel begins with the messages published then, as far as they are still stored.
        """
        known = self.channels.get(name)
        if known is not None:
            return known
        ephemeral = is_ephemeral(name)
        start = None if since is None else self.store.reader.first_since(self.ident, since)
        if ephemeral and start is None and not (takes_held and self.backlog.depth):
            return MemoryBacklog()
        held_from = self.backlog.held_from
        low = held_from if takes_held and held_from is not None else self.store.next_seq
        first = 0 if takes_held or start is not None else low
        made = ChannelBacklog(self, self.store.take_ident(), name, first=first, keeps=not ephemeral)
        if start is not None and start < self.given:
            low = start
            made.extend(start, self.store.reader.count(self.ident, start, self.given))
        if not ephemeral:
            self.store.change(
                "INSERT INTO channel (id, topic, name, paused, low, sent, checksum)"
                " VALUES (?1, ?2, ?3, 0, ?4, 0, row_checksum(?1, ?2, ?3, 0, ?4, 0))",
                (made.ident, self.ident, name, low),
            )
        self.add(made)
        return made

    def add(self, channel: ChannelBacklog) -> None:
        """Add a channel, whose ident is higher than those of all others."""
        self.channels[channel.name] = channel
        self._by_ident[channel.ident] = channel
        self._idents.append(channel.ident)
        if channel.low <= self._swept_below:
            self._swept_below = 0  # it begins in the past

    def drop_channel(self, name: str) -> None:
        """Delete a channel. The caller calls `hold` after the last one."""
        made = self.channels.pop(name, None)
        if made is not None:
            del self._by_ident[made.ident]
            del self._idents[bisect_left(self._idents, made.ident)]
            if self._slowest_channel is made:
                self._slowest_channel = None
            made.clear()
            if made.keeps:
                self.store.forget_channel(made)

    def hold(self) -> None:
        """Keep new messages in the topic's own backlog, as there is no channel."""
        self.backlog.hold()

    def pause(self, paused: bool, channel: str = "") -> None:
        """Pause or unpause the topic, or one of its channels."""
        if channel:
            made = self.channels.get(channel)
            if made is None or not made.keeps:
                return
            made.is_paused = paused
            self.store.change(
                "UPDATE channel SET paused = ?1, checksum = row_checksum(id, topic, name, ?1, low, sent) WHERE id = ?2",
                (int(paused), made.ident),
            )
        else:
            self.paused = paused
            if paused:
                self.backlog.hold()
            self.store.change(
                "UPDATE topic SET paused = ?1, checksum = row_checksum(id, name, ?1, held_from) WHERE id = ?2",
                (int(paused), self.ident),
            )

    def delete(self) -> None:
        """Delete the topic with all its channels and messages."""
        self._is_deleted = True
        self.store.forget_topic(self)
        for channel in self.channels.values():
            channel.keeps = False

    def __repr__(self) -> str:
        return f"<TopicLog {self.name} next={self.next} held_from={self.backlog.held_from}>"


class TopicBacklog:
    """The messages that no channel has received yet: all from the block `held_from` on."""

    def __init__(self, log: TopicLog, held_from: int | None) -> None:
        self.held_from = held_from
        self.depth = 0
        self._log = log
        self._deferred = SeqSet()  # blocks that were published deferred
        self._deferred_count = 0

    @property
    def cold(self) -> int:
        """All of them are on disk only."""
        return self.depth

    def restore(self, depth: int, deferred: SeqSet, count: int) -> None:
        """Set the number of messages; `count` of them, in the blocks `deferred`, were published deferred."""
        self.depth, self._deferred, self._deferred_count = depth, deferred, count

    def hold(self) -> None:
        """Keep new messages here from now on."""
        if self.held_from is None:
            self._set(self._log.next)

    def _set(self, held_from: int | None) -> None:
        self.held_from = held_from
        self._log.store.change(
            "UPDATE topic SET held_from = ?1, checksum = row_checksum(id, name, paused, ?1) WHERE id = ?2",
            (held_from, self._log.ident),
        )

    def put(self, run: MessageRange) -> None:
        if self.held_from is None:
            self._set(run.block.seq)
        self.depth += run.stop - run.start
        if run.block.due:
            self._deferred.add(run.block.seq)
            self._deferred_count += run.stop - run.start

    def move_all(self, into: Sequence[Backlog], not_before: int) -> tuple[int, list[MessageRange]]:
        """Move all messages to each backlog of `into`. Returns how many messages were moved, and none that are left."""
        deferred, self._deferred = self._deferred, SeqSet()
        deferred_count, self._deferred_count = self._deferred_count, 0
        depth, self.depth = self.depth, 0
        count = depth - deferred_count
        start, stop = self.held_from, self._log.next
        if start is None:
            return depth, []
        for backlog in into if depth else ():
            if isinstance(backlog, ChannelBacklog):
                if count:
                    backlog.extend(start, count)
                backlog.extend_deferred(deferred, deferred_count, not_before)
                continue
            for block in self._log.store.read_now(self._log.ident, start, stop):
                backlog.put(MessageRange(block, 0, block.count))
            if deferred_count:
                for block in self._log.store.read_now(self._log.ident, start, stop, deferred=True):
                    backlog.defer(MessageRange(block, 0, block.count), max(block.due, not_before), 0)
        self._set(None)
        self._log.sweep()  # an ephemeral channel has the messages in memory only
        return depth, []

    def peek(self, count: int, answer: Callable[[list[MessageRange] | None], None]) -> None:
        """Call `answer` with the first `count` waiting messages, or with None when they cannot be read. Messages that
        were published deferred are left out."""
        if self.held_from is None:
            answer([])
            return

        def found(blocks: list[Block] | None) -> None:
            if blocks is None:
                answer(None)
            else:
                answer(
                    first_ranges((MessageRange(block, 0, block.count) for block in blocks if not block.is_cold), count)
                )

        log = self._log
        log.store.reader.range(log.ident, self.held_from, log.next, count, BYTES, found)

    def clear(self) -> None:
        """Forget all messages."""
        self.depth = 0
        self._deferred.clear()
        self._deferred_count = 0
        if self.held_from is not None:
            self._set(self._log.next)
            self._log.sweep()
