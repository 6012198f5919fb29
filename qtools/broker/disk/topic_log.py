"""What is on disk of one topic. In: blocks that are safe; channels that come, go and finish. Out: blocks to remove.

block ──┬─▶ each channel's backlog      `spread`; when the last is done with it the block goes
        └─▶ the topic's own, while it has no channel or is paused: from `held_from` on, to be poured out as one
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from qtools.broker.core.block import Block, MessageRange
from qtools.broker.core.store import Backlog, MemoryBacklog, first_runs
from qtools.broker.disk.channel.backlog import ChannelBacklog
from qtools.broker.disk.channel.memory_queue import BYTES
from qtools.broker.disk.channel.seq_set import SeqSet
from qtools.names import is_ephemeral

if TYPE_CHECKING:
    from qtools.broker.disk.store import DurableStore


_MOST_NOTED = 10_000  # blocks of a topic whose slow channel is remembered: the others are looked through again


class TopicLog:
    """One topic.

    next: blocks of it that come have this number, or a higher one.
    """

    def __init__(self, store: DurableStore, ident: int, name: str, *, next_seq: int, held_from: int | None) -> None:
        self.store = store
        self.ident = ident
        self.name = name
        self.next = next_seq
        self.paused = False
        self.backlog = TopicBacklog(self, held_from)
        self.channels: dict[str, ChannelBacklog] = {}
        self._strays_below = 0  # below may be blocks that the others had finished when a channel was dropped or emptied
        self._swept_below = 0  # blocks below were given to the sweeper
        self._is_deleted = False
        # Channels that were found not to be done, so that not all of them are asked again for each that is: of the
        # topic, and of single blocks (by their number, the ident of the first channel that is not done with it).
        self._slowest: ChannelBacklog | None = None
        self._first_not_done: dict[int, int] = {}
        self._by_ident: dict[int, ChannelBacklog] = {}
        self._idents: list[int] = []  # in order

    @property
    def given(self) -> int:
        """Blocks below were given to the channels."""
        held_from = self.backlog.held_from
        return self.next if held_from is None else min(held_from, self.next)

    # ── blocks ──────────────────────────────────────────────────────────────────────────────────

    def has(self, seq: int) -> bool:
        """Whether the block is still on disk."""
        return not self.store.sweeper.is_removed(seq)

    def spread(self, block: Block) -> None:
        """`block` was put to the channels, or to the topic's own backlog."""
        self.next = block.seq + 1
        if self.backlog.held_from is None:
            self.finished(block.seq)

    def finished(self, seq: int) -> None:
        """A channel is done with the block: if all are, it goes."""
        if self.store.sweeper.retain or self._someone_needs(seq) or not self.store.sweeper.remove(seq):
            return
        for channel in self.channels.values():
            channel.removed(seq)

    def _someone_needs(self, seq: int) -> bool:
        """Whether a channel is not done with the block.

        A channel that is done with a block stays so, and a new one comes behind all others. So each channel is passed
        over once for each block, however many there are, and in whatever order they finish.
        """
        slowest = self._slowest
        if slowest is not None and not slowest.is_done(seq):
            return True
        found = self._first_not_done.get(seq, -1)
        channel = self._by_ident.get(found)
        if channel is not None and not channel.is_done(seq):
            return True
        idents = self._idents
        for place in range(bisect_right(idents, found), len(idents)):
            channel = self._by_ident[idents[place]]
            if not channel.is_done(seq):
                if len(self._first_not_done) >= _MOST_NOTED:
                    self._first_not_done.clear()
                self._first_not_done[seq] = idents[place]
                self._slowest = channel
                return True
        self._first_not_done.pop(seq, None)
        return False

    def sweep(self) -> None:
        """A channel needs nothing of what is there any more: many blocks may be finished at once."""
        self._strays_below = self.next
        self.advanced()

    def advanced(self) -> None:
        """A channel has finished everything below some block: `remove_strays` is to be called with the next commit."""
        if self._strays_below and not self._is_deleted:
            self.store.look_for_strays(self)

    def remove_strays(self) -> None:
        """Remove what all channels are done with, if it is more than before."""
        enough = min(self._swept_below, self._strays_below - 1)  # a channel that is no further leaves nothing to remove
        slowest = self._slowest
        if slowest is not None and slowest.low <= enough:
            return
        lowest = self.given
        for channel in self.channels.values():
            low = channel.low
            if low <= enough:
                self._slowest = channel
                return
            lowest = min(lowest, low)
        self._swept_below = lowest
        self.store.sweeper.remove_below(self.ident, lowest)
        if lowest >= self._strays_below:
            self._strays_below = 0

    # ── channels ────────────────────────────────────────────────────────────────────────────────

    def restored(self) -> list[str]:
        """The channels that were kept."""
        return list(self.channels)

    def is_paused(self, channel: str = "") -> bool:
        """Whether the topic, or a channel of it, was paused when the broker ended."""
        return self.channels[channel].is_paused if channel else self.paused

    def channel(self, name: str, *, takes_held: bool = False, since: int | None = None) -> Backlog:
        """The backlog of a channel, one that was kept or a new one.

        takes_held: it gets what the topic holds (which is poured next). since: ns since 1970; it begins with what
        was published then, as far as it is there.
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
        """A channel that is new, or was kept; its ident is higher than those of all others."""
        self.channels[channel.name] = channel
        self._by_ident[channel.ident] = channel
        self._idents.append(channel.ident)
        if channel.low <= self._swept_below:
            self._swept_below = 0  # it begins in the past

    def drop_channel(self, name: str) -> None:
        """The channel is gone, with what was only its own. After the last one, what comes waits here again."""
        made = self.channels.pop(name, None)
        if made is not None:
            del self._by_ident[made.ident]
            del self._idents[bisect_left(self._idents, made.ident)]
            if self._slowest is made:
                self._slowest = None
            made.clear()
            if made.keeps:
                self.store.forget_channel(made)

    def hold(self) -> None:
        """Nobody is there to give anything to: what comes waits here."""
        self.backlog.hold()

    def pause(self, paused: bool, channel: str = "") -> None:
        """The topic, or a channel of it, is paused or not."""
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
        """The topic is gone, with everything in it. Its channels write nothing any more."""
        self._is_deleted = True
        self.store.forget_topic(self)
        for channel in self.channels.values():
            channel.keeps = False

    def __repr__(self) -> str:
        return f"<TopicLog {self.name} next={self.next} held_from={self.backlog.held_from}>"


class TopicBacklog:
    """What was given to no channel yet: everything from the block `held_from` on."""

    def __init__(self, log: TopicLog, held_from: int | None) -> None:
        self.held_from = held_from
        self.depth = 0
        self._log = log
        self._deferred = SeqSet()  # what was published deferred
        self._deferred_count = 0

    @property
    def cold(self) -> int:
        """All of it."""
        return self.depth

    def restore(self, depth: int, deferred: SeqSet, count: int) -> None:
        """As it was when the broker ended; `count` of the messages were published deferred."""
        self.depth, self._deferred, self._deferred_count = depth, deferred, count

    def hold(self) -> None:
        """From now on."""
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

    def pour(self, into: Sequence[Backlog], not_before: int) -> tuple[int, list[MessageRange]]:
        """Everything goes to all of `into`. Answers how many messages went, and what is left to be given one by one."""
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
        return depth, []

    def peek(self, count: int, answer: Callable[[list[MessageRange] | None], None]) -> None:
        """`answer` is called with the first that wait, `count` at most, or with None when they cannot be read. What was
        published deferred is not among them."""
        if self.held_from is None:
            answer([])
            return

        def found(blocks: list[Block] | None) -> None:
            if blocks is None:
                answer(None)
            else:
                answer(
                    first_runs((MessageRange(block, 0, block.count) for block in blocks if not block.is_cold), count)
                )

        log = self._log
        log.store.reader.range(log.ident, self.held_from, log.next, count, BYTES, found)

    def clear(self) -> None:
        """What waits here is gone."""
        self.depth = 0
        self._deferred.clear()
        self._deferred_count = 0
        if self.held_from is not None:
            self._set(self._log.next)
            self._log.sweep()
