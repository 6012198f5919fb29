"""The interface of a message store: it keeps messages until every channel has finished them.

In: blocks of messages as they are published, ranges of them that are requeued, ids that are finished.
Out: ranges to deliver. Never here: which consumer gets a message, and when.

    Store ── MessageLog, one for each topic ──┬── MessageHolder: the topic's messages that no channel has received yet
                                              └── Backlog, one for each channel

A store may take longer than one turn of the event loop to write. Everything that it writes together shares one Commit.
Until that commit is done, no publisher gets OK and no channel sees the messages. A store that is safe at once has no
commit. Stores: memory_store.py, and the durable one in disk/.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from qtools.broker.core.block import Block, MessageRange
from qtools.broker.core.clock import Clock

log = logging.getLogger("qtools.broker")


class Commit:
    """One write of the store, shared by everything in it. error: why the write failed; None when it succeeded."""

    __slots__ = ("done", "error", "waiters")

    def __init__(self) -> None:
        self.done = False
        self.error: Exception | None = None
        self.waiters: list[Callable[[], None]] = []

    def settle(self, error: Exception | None = None) -> None:
        """Record the result, and call all waiters in the order in which they were added."""
        self.done, self.error = True, error
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            try:
                waiter()
            except Exception as failure:  # the other waiters must still be called
                log.error("internal error after a commit: %s: %s", type(failure).__name__, failure)
                log.debug("internal error", exc_info=True)


class Lost(NamedTuple):
    """Messages that were stored and can no longer be read.

    first_block, last_block: `seq` of the blocks; messages: 0 when the number is unknown; ids: FIRST..LAST, or "";
    published: RFC 3339, or ""; reason: a text for people.
    """

    topic: str
    first_block: int
    last_block: int
    messages: int
    ids: str
    published: str
    reason: str


class Holding(Protocol):
    """Messages that wait, first in first out."""

    @property
    def depth(self) -> int:
        """How many messages wait."""
        ...

    @property
    def cold(self) -> int:
        """How many of the waiting messages are not in memory."""
        ...

    def put(self, run: MessageRange) -> None:
        """Append `run`."""
        ...

    def clear(self) -> None:
        """Forget all messages: those that wait, and those that were taken and not finished."""
        ...


class Backlog(Holding, Protocol):
    """The messages of one channel that wait for delivery."""

    @property
    def ready(self) -> int:
        """How many of the waiting messages can be taken now. The others have to be fetched first."""
        ...

    @property
    def first(self) -> int:
        """The `seq` of the first block that is for this channel."""
        ...

    def take(self, count: int, size: int) -> MessageRange:
        """Remove and return the first messages: at most `count`, at most `size` bytes of frames, and at least one.

        Call it only while `ready` is above 0. The caller is then responsible for the messages.
        """
        ...

    def fetch(self) -> None:
        """Start to read messages that are not ready. The callback of `watch` is called once they are."""
        ...

    def watch(self, on_ready: Callable[[], None]) -> None:
        """Call `on_ready` whenever messages were fetched."""
        ...

    @property
    def deferred(self) -> int:
        """How many messages are deferred."""
        ...

    def defer(self, run: MessageRange, due: int, wall: int) -> None:
        """Hold back messages that were taken, or were never put, until `due`. `wall` is the time now. Both are ns
        since 1970."""
        ...

    def next_due(self) -> int | None:
        """When `take_due` should be called next, ns since 1970; None when nothing is deferred."""
        ...

    def take_due(self, wall: int) -> bool:
        """Append the messages that are due at `wall`. Returns True when there were any."""
        ...

    def touched(self, run: MessageRange) -> None:
        """Note that the client has extended the timeout of messages that were taken."""
        ...

    def finish(self, block: Block, which: range | Sequence[bytes]) -> None:
        """Finish messages of `block` that were taken: `which` are places in the block, or ids."""
        ...

    def peek(self, count: int, answer: Callable[[list[MessageRange] | None], None]) -> None:
        """Call `answer` with the first `count` waiting messages, or with None when they cannot be read."""
        ...


class MessageHolder(Holding, Protocol):
    """The messages of a topic that has no channel yet, or is paused."""

    def peek(self, count: int, answer: Callable[[list[MessageRange] | None], None]) -> None:
        """As Backlog.peek."""
        ...

    def move_all(self, into: Sequence[Backlog], not_before: int) -> tuple[int, list[MessageRange]]:
        """Move all messages to each backlog of `into`. Returns how many messages were moved, and the ranges that were
        not: the caller puts those into each backlog. Deferred messages wait at least until `not_before`, ns since
        1970."""
        ...


class MessageLog(Protocol):
    """One topic in a store."""

    @property
    def backlog(self) -> MessageHolder: ...
    def channel(self, name: str, *, takes_held: bool = False, since: int | None = None) -> Backlog:
        """The backlog of a channel: the stored one, or a new one.

        takes_held: the channel receives the messages that the topic holds; the caller moves them next. since: ns since
        1970; the channel begins with the messages published then, as far as they are still stored. Raises CannotReplay
        where finished messages are not kept, and CannotRead.
        """
        ...

    def restored(self) -> list[str]:
        """The names of the channels that were stored before the broker started."""
        ...

    def is_paused(self, channel: str = "") -> bool:
        """Whether the topic, or one of its channels, was paused when the broker ended."""
        ...

    def pause(self, paused: bool, channel: str = "") -> None: ...
    def spread(self, block: Block) -> None:
        """Note that `block` was put into the backlog of every channel, or into the topic's own."""
        ...

    def hold(self) -> None:
        """Keep new messages in the topic's own backlog, as its last channel is gone."""
        ...

    def drop_channel(self, name: str) -> None: ...
    def delete(self) -> None: ...


class CannotReplay(Exception):
    """Earlier messages cannot be replayed, because this store keeps messages in memory only."""


class CannotRead(Exception):
    """Stored messages cannot be read now. The store has logged the reason."""


class Store(Protocol):
    """Keeps published messages. durable: messages survive the end of the process.

    on_failure: called with the reason when the store can no longer write, and with "" when it can again.
    on_work: called when `end_turn` should be called. clock: the clock of due times; None when they do not outlive the
    process.
    """

    on_failure: Callable[[str], None]
    on_work: Callable[[], None]

    @property
    def clock(self) -> Clock | None: ...

    @property
    def durable(self) -> bool: ...
    @property
    def lost(self) -> Sequence[Lost]:
        """Messages that were stored and can no longer be read."""
        ...

    @property
    def damage(self) -> str:
        """One sentence about `lost`; empty when nothing was lost."""
        ...

    @property
    def topics(self) -> list[str]:
        """The names of the stored topics."""
        ...

    @property
    def last_id(self) -> int:
        """The highest number of a stored message."""
        ...

    @property
    def pending(self) -> Commit | None:
        """The commit that will contain whatever is stored now; None when the store is safe at once."""
        ...

    @property
    def is_crowded(self) -> bool:
        """Whether so much waits to be written that the broker should stop reading from publishers until it is."""
        ...

    def log(self, name: str) -> MessageLog:
        """One topic: the stored one, or a new one."""
        ...

    def publishing(self, size: int) -> Commit | None:
        """Announce `size` bytes of frames that the next `seal` appends. Returns the commit for the publisher to wait
        for."""
        ...

    def append(self, topic: str, block: Block) -> None:
        """Store `block`. It is safe once the commit in `pending` is done."""
        ...

    def end_turn(self, seal: Callable[[], None]) -> None:
        """End a turn of the event loop: write what has been collected, if it is time to. `seal` is called first, and
        appends what was published."""
        ...

    def close(self) -> None:
        """Write what is left, and close."""
        ...
