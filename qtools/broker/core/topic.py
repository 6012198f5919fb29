"""A topic: it accepts messages, and passes them to its channels.

In: bodies; channels to be made, paused, deleted; the time. Out: blocks to the store, ranges of them to the channels. No
socket, no clock, no event loop.

All messages that are published between two commits become one block, from however many connections they came. Without
commits, those of one turn of the event loop do. Many small publishes then cost as much as a large one. `publish`
collects messages, and `seal` makes the block.

While it has no channel or is paused, the topic keeps its messages. The first channel gets all of them; a later one gets
only those published after it was made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from qtools.broker.core.block import HEAD, Block, MessageRange
from qtools.broker.core.channel import Channel, Host
from qtools.broker.core.memory_store import MemoryLog
from qtools.broker.core.store import Backlog, Commit, MessageLog, Store
from qtools.names import is_ephemeral

# A block stays in memory until its last message is finished, so it should not be larger than necessary.
_SEAL_AT = 512  # messages
_SEAL_AT_BYTES = 256 * 1024

# nsqd adds new channels to its search for due messages every 5 s (nsqd.go, QueueScanRefreshInterval). A message that
# was deferred before there was a channel can be that late; a recorded conversation with nsqd shows it.
FIRST_LOOK = 5.0


class TopicHost(Host, Protocol):
    """What a topic needs from the broker."""

    @property
    def store(self) -> Store: ...

    def gathered(self, topic: Topic) -> None:
        """Call `topic.seal` when the store can take the collected messages."""
        ...


class Topic:
    """A stream of messages, copied to each of its channels."""

    def __init__(self, name: str, host: TopicHost, *, first_id: int, limit: int, max_consumers: int = 0) -> None:
        self.name = name
        self.ephemeral = is_ephemeral(name)
        self.paused = False
        self.channels: dict[str, Channel] = {}
        self.messages = self.bytes = self.dropped = 0
        self._host = host
        self._limit = limit
        self._max_consumers = max_consumers
        self._next_id = first_id
        self._gathered: list[bytes] = []
        self._gathered_bytes = 0
        # An ephemeral topic is never written to disk.
        self._log: MessageLog = MemoryLog() if self.ephemeral else host.store.log(name)
        self._backlog = self._log.backlog
        self.paused = self._log.is_paused()
        self.waiting = False  # as if paused, until nsqlookupd has answered which channels it has elsewhere

    def restore(self, now: float, wall: int) -> None:
        """Make the stored channels."""
        for name in self._log.restored():
            channel = self.channels[name] = self._make_channel(name, self._log.channel(name))
            channel.restore(self._log.is_paused(name), now)
        if self.channels and not self.paused and self._backlog.depth:
            self._hand_over(now, wall)  # the broker was killed while the topic was waiting

    def _make_channel(self, name: str, backlog: Backlog) -> Channel:
        return Channel(self.name, name, backlog, self._host, limit=self._limit, max_consumers=self._max_consumers)

    @property
    def depth(self) -> int:
        """Messages that no channel has received yet."""
        return self._backlog.depth + len(self._gathered)

    @property
    def cold(self) -> int:
        """How many of those messages are not in memory."""
        return self._backlog.cold

    def peek(self, count: int, answer: Callable[[list[MessageRange] | None], None]) -> None:
        """Call `answer` with the first `count` messages that wait for a channel, or with None when they cannot be
        read."""
        self._backlog.peek(count, answer)

    @property
    def held(self) -> int:
        """All messages that are not finished, counting the copy of each channel."""
        return self.depth + sum(channel.held for channel in self.channels.values())

    # ── messages come ───────────────────────────────────────────────────────────────────────────

    def publish(self, bodies: Sequence[bytes], now: float, wall: int, due: int = 0) -> Commit | None:
        """Accept messages. They are safe when the returned commit is done, or at once when it is None.

        wall: the time by the system's clock; due: the due time by the host's clock, 0 for messages that are not
        deferred. Both are ns since 1970.
        """
        size = sum(map(len, bodies))
        commit = None if self.ephemeral else self._host.store.publishing(size + HEAD * len(bodies))
        if due:
            self.seal(now, wall)
            self._keep(Block(self._take_ids(len(bodies)), bodies, wall, due), now, wall)
        else:
            if not self._gathered:
                self._host.gathered(self)
            self._gathered += bodies
            self._gathered_bytes += size
            if len(self._gathered) >= _SEAL_AT or self._gathered_bytes >= _SEAL_AT_BYTES:
                self.seal(now, wall)
        return commit

    def seal(self, now: float, wall: int) -> None:
        """Make a block of the collected messages. The channels receive it once it is safe."""
        if self._gathered:
            block = Block(self._take_ids(len(self._gathered)), self._gathered, wall)
            self._gathered = []
            self._gathered_bytes = 0
            self._keep(block, now, wall)

    def _take_ids(self, count: int) -> int:
        first = self._next_id
        self._next_id += count
        return first

    def _keep(self, block: Block, now: float, wall: int) -> None:
        if not self.ephemeral:
            self._host.store.append(self.name, block)
            commit = self._host.store.pending
            if commit is not None:
                commit.waiters.append(lambda: None if commit.error else self._spread(block, now, wall))
                return
        self._spread(block, now, wall)

    def _spread(self, block: Block, now: float, wall: int) -> None:
        """Pass a safe block to every channel, or keep it here."""
        self.messages += block.count
        self.bytes += block.body_size(0, block.count)
        if self.channels and not self.paused and not self.waiting:
            for channel in self.channels.values():
                if block.seq >= channel.first:
                    channel.put(MessageRange(block, 0, block.count), now)
        elif self.ephemeral and self._backlog.depth >= self._limit:
            self.dropped += block.count
        else:
            self._backlog.put(MessageRange(block, 0, block.count))
        self._log.spread(block)

    def _hand_over(self, now: float, wall: int, not_before: float = 0.0) -> None:
        """Pass the messages that waited here to the channels."""
        channels = list(self.channels.values())
        due = self._host.clock.due(not_before)
        before = [channel.backlog.depth + channel.backlog.deferred for channel in channels]
        moved, runs = self._backlog.move_all([channel.backlog for channel in channels], due)
        for channel, had in zip(channels, before, strict=True):
            channel.came(moved, channel.backlog.depth + channel.backlog.deferred - had)
            for run in runs:
                channel.adopt(MessageRange(run.block, run.start, run.stop, run.attempts), now, not_before)

    # ── channels come and go ────────────────────────────────────────────────────────────────────

    def channel(self, name: str, now: float, wall: int, since: int | None = None) -> Channel:
        """The channel `name`, made if necessary.

        since: ns since 1970; a new channel begins with the messages published then. Raises CannotReplay where finished
        messages are not kept, and CannotRead.
        """
        channel = self.channels.get(name)
        if channel is None:
            self.seal(now, wall)  # earlier messages are not for the channel, unless it is the first
            first = not self.channels and not self.paused and not self.waiting
            backlog = self._log.channel(name, takes_held=first or self.waiting, since=since)
            channel = self.channels[name] = self._make_channel(name, backlog)
            channel.came(backlog.depth)
            if first:
                self._hand_over(now, wall, now + FIRST_LOOK)
        return channel

    def delete_channel(self, name: str) -> bool:
        """Delete a channel with its messages. Returns True when it was the last one of an ephemeral topic."""
        channel = self.channels.pop(name)
        channel.delete()
        self._log.drop_channel(name)
        if not self.channels:
            self._log.hold()
        return self.ephemeral and not self.channels

    # ── what an administrator does ──────────────────────────────────────────────────────────────

    def pause(self, now: float, wall: int) -> None:
        self.seal(now, wall)
        self.paused = True
        self._log.pause(True)

    def unpause(self, now: float, wall: int) -> None:
        self.seal(now, wall)
        self.paused = False
        self._log.pause(False)
        if self.channels and not self.waiting:
            self._hand_over(now, wall)

    def wait(self) -> None:
        """Keep new messages here until `go`, so that channels made meanwhile get all of them."""
        self.waiting = True

    def go(self, now: float, wall: int) -> None:
        self.seal(now, wall)
        self.waiting = False
        if self.channels and not self.paused:
            self._hand_over(now, wall)

    def pause_channel(self, name: str, paused: bool) -> None:
        """Pause or unpause a channel. Raises KeyError when there is none of that name."""
        channel = self.channels[name]
        (channel.pause if paused else channel.unpause)()
        self._log.pause(paused, name)

    def empty(self, now: float, wall: int) -> None:
        """Drop the messages that wait here. The channels keep theirs."""
        if self.channels and not self.paused and not self.waiting:
            self.seal(now, wall)  # collected messages are for the channels
        self._forget()

    def _forget(self) -> None:
        self._gathered.clear()
        self._gathered_bytes = 0
        self._backlog.clear()

    def delete(self) -> None:
        """Drop everything, and end the connection of every client."""
        self._log.delete()  # first, so that the channels write nothing for what they drop
        self._forget()
        channels, self.channels = self.channels, {}
        for channel in channels.values():
            channel.delete()

    def close(self, now: float, wall: int) -> None:
        """Requeue all messages in flight, because the broker ends."""
        self.seal(now, wall)
        for channel in self.channels.values():
            channel.close()

    def __repr__(self) -> str:
        return f"<Topic {self.name} depth={self.depth} channels={len(self.channels)}{' paused' if self.paused else ''}>"
