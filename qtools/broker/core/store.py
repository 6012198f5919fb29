"""Where messages are kept until every channel is done with them: the interface, and a store in memory.

In: blocks of messages as they are published, runs of them as they are given back, ids as they are
finished. Out: runs to deliver. What a store never does: decide who gets what, or when.

    Store ── Log, one for each topic ──┬── Backlog of the topic itself: what no channel has got yet
                                       └── Backlog, one for each channel

A store may be slower than a turn of the loop. Everything that is written together then shares one Commit,
and no publisher hears OK, and no channel sees the messages, before that commit is done. A store that
is done at once has no commit at all, and costs nothing. The durable one is in disk/.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from qtools.broker.core.block import Block, MessageRange
from qtools.broker.core.clock import Clock
from qtools.broker.core.deferral_queue import DeferralQueue

log = logging.getLogger("qtools.broker")


class Commit:
    """What is written together, on its way to safety. `error` says why it did not get there."""

    __slots__ = ("done", "error", "waiters")

    def __init__(self) -> None:
        self.done = False
        self.error: Exception | None = None
        self.waiters: list[Callable[[], None]] = []

    def settle(self, error: Exception | None = None) -> None:
        """Say how it ended, and call everybody who waits, in the order they came."""
        self.done, self.error = True, error
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            try:
                waiter()
            except Exception as failure:  # the others wait for their channels and their answers all the same
                log.error("internal error after a commit: %s: %s", type(failure).__name__, failure)
                log.debug("internal error", exc_info=True)


class Lost(NamedTuple):
    """Messages that were kept and cannot be read any more.

    first_block, last_block: `seq` of the blocks; messages: 0 when it is not known; ids: FIRST..LAST, or "";
    published: RFC 3339, or ""; reason: for people.
    """

    topic: str
    first_block: int
    last_block: int
    messages: int
    ids: str
    published: str
    reason: str


class Holding(Protocol):
    """What waits somewhere, first in first out."""

    @property
    def depth(self) -> int:
        """How many messages wait."""
        ...

    @property
    def cold(self) -> int:
        """How many of them are not in memory."""
        ...

    def put(self, run: MessageRange) -> None:
        """Behind all others."""
        ...

    def clear(self) -> None:
        """Forget everything: what waits, and what was taken and not finished."""
        ...


class Backlog(Holding, Protocol):
    """What waits for delivery in one channel."""

    @property
    def ready(self) -> int:
        """How many of those that wait can be taken now; the others have to be fetched."""
        ...

    @property
    def first(self) -> int:
        """The `seq` of the first block that is for this channel."""
        ...

    def take(self, count: int, size: int) -> MessageRange:
        """The first messages, at most `count` and at most `size` bytes of frames, yet at least one message.

        Only with `ready` above 0. They are the caller's from here on.
        """
        ...

    def fetch(self) -> None:
        """Make more of them ready, if some are not; who watches is called then."""
        ...

    def watch(self, on_ready: Callable[[], None]) -> None:
        """`on_ready` is to be called whenever something was fetched."""
        ...

    @property
    def deferred(self) -> int:
        """How many messages are deferred."""
        ...

    def defer(self, run: MessageRange, due: int, wall: int) -> None:
        """Messages that were taken, or never put, wait until `due`; the time is `wall`. Both are ns since 1970."""
        ...

    def next_due(self) -> int | None:
        """When `take_due` should be called next; None when nothing has to be."""
        ...

    def take_due(self, wall: int) -> bool:
        """Put what is due at `wall`; True when there was something."""
        ...

    def touched(self, run: MessageRange) -> None:
        """Messages that were taken stay with their client for longer."""
        ...

    def finish(self, block: Block, which: range | Sequence[bytes]) -> None:
        """Messages of `block` that were taken are done with, for good: places in it, or ids."""
        ...

    def peek(self, count: int, answer: Callable[[list[MessageRange] | None], None]) -> None:
        """`answer` is called with the first that wait, `count` at most, or with None when they cannot be read."""
        ...


class MessageHolder(Holding, Protocol):
    """What waits in a topic that has no channel yet, or is paused."""

    def peek(self, count: int, answer: Callable[[list[MessageRange] | None], None]) -> None:
        """As a channel's."""
        ...

    def pour(self, into: Sequence[Backlog], not_before: int) -> tuple[int, list[MessageRange]]:
        """Give everything to all of `into`. Answers how many messages went, and the runs that did not, and are for
        the caller to give to each. What is deferred waits until `not_before` (ns since 1970) at least."""
        ...


class MessageLog(Protocol):
    """One topic's part of a store."""

    @property
    def backlog(self) -> MessageHolder: ...
    def channel(self, name: str, *, takes_held: bool = False, since: int | None = None) -> Backlog:
        """The backlog of a channel, one that was kept or a new one.

        takes_held: it gets what the topic holds, which is poured next. since: ns since 1970; it begins with what
        was published then, as far as it is there. CannotReplay where nothing is kept.
        """
        ...

    def restored(self) -> list[str]:
        """The channels that were kept."""
        ...

    def is_paused(self, channel: str = "") -> bool:
        """Whether the topic, or a channel of it, was paused when the broker ended."""
        ...

    def pause(self, paused: bool, channel: str = "") -> None: ...
    def spread(self, block: Block) -> None:
        """`block` was put to every channel, or to the topic's backlog."""
        ...

    def hold(self) -> None:
        """The last channel is gone."""
        ...

    def drop_channel(self, name: str) -> None: ...
    def delete(self) -> None: ...


class CannotReplay(Exception):
    """There is no past here: messages are in memory only."""


class Store(Protocol):
    """Keeps what is published. `durable` when nothing is lost as the process ends.

    on_failure is told why nothing can be kept, "" when it can again; on_work, that `end_turn` should be called.
    clock: of due times; None when nothing of it outlives the process.
    """

    on_failure: Callable[[str], None]
    on_work: Callable[[], None]

    @property
    def clock(self) -> Clock | None: ...

    @property
    def durable(self) -> bool: ...
    @property
    def lost(self) -> Sequence[Lost]:
        """What was kept and cannot be read any more."""
        ...

    @property
    def damage(self) -> str:
        """One sentence about `lost`; empty when there is nothing to be said."""
        ...

    @property
    def topics(self) -> list[str]:
        """Those that were kept."""
        ...

    @property
    def last_id(self) -> int:
        """No message that was kept has a number above this one."""
        ...

    @property
    def pending(self) -> Commit | None:
        """What everything that comes now waits for; None when there is nothing to wait for."""
        ...

    @property
    def is_crowded(self) -> bool:
        """Whether publishers should not be listened to, until what they wait for is done."""
        ...

    def log(self, name: str) -> MessageLog:
        """A topic's part, one that was kept or a new one."""
        ...

    def publishing(self, size: int) -> Commit | None:
        """Somebody publishes `size` bytes of frames, to be appended by the next `seal`: the commit to wait for."""
        ...

    def append(self, topic: str, block: Block) -> None:
        """Keep `block`; it is safe when the commit that `pending` names is done."""
        ...

    def end_turn(self, seal: Callable[[], None]) -> None:
        """What has come may be written together now, if it is time to; `seal` makes it be appended first."""
        ...

    def close(self) -> None:
        """Finish what is under way."""
        ...


class MemoryBacklog:
    """A deque of runs, and a queue of those that are deferred."""

    __slots__ = ("_deferred", "_runs", "deferred", "depth")

    first = 0
    cold = 0

    def __init__(self) -> None:
        self._runs: deque[MessageRange] = deque()
        self._deferred = DeferralQueue(shares=False)
        self.depth = self.deferred = 0

    @property
    def ready(self) -> int:
        return self.depth

    def put(self, run: MessageRange) -> None:
        self.depth += run.stop - run.start
        if self._runs:
            last = self._runs[-1]
            # Neighbours that come back one by one, in order, become one run again.
            if last.block is run.block and last.stop == run.start and last.attempts == run.attempts:
                last.stop = run.stop
                return
        self._runs.append(run)

    def take(self, count: int, size: int) -> MessageRange:
        run = self._runs[0]
        count = min(count, run.stop - run.start)
        while count > 1 and run.block.size(run.start, run.start + count) > size:
            count >>= 1
        self.depth -= count
        if count == run.stop - run.start:
            return self._runs.popleft()
        first = MessageRange(run.block, run.start, run.start + count, run.attempts)
        run.start += count
        return first

    def fetch(self) -> None:
        pass

    def touched(self, run: MessageRange) -> None:
        pass

    def watch(self, on_ready: Callable[[], None]) -> None:
        pass

    def defer(self, run: MessageRange, due: int, wall: int) -> None:
        self.deferred += run.stop - run.start
        self._deferred.add(run, due)

    def next_due(self) -> int | None:
        return self._deferred.next()

    def take_due(self, wall: int) -> bool:
        came = False
        for run in self._deferred.take_due(wall):
            self.deferred -= run.stop - run.start
            self.put(run)
            came = True
        return came

    def finish(self, block: Block, which: range | Sequence[bytes]) -> None:
        pass

    def clear(self) -> None:
        self._runs.clear()
        self._deferred.clear()
        self.depth = self.deferred = 0

    def pour(self, into: Sequence[Backlog], not_before: int) -> tuple[int, list[MessageRange]]:
        runs = list(self._runs)
        self.clear()
        return 0, runs

    def peek(self, count: int, answer: Callable[[list[MessageRange] | None], None]) -> None:
        answer(first_runs(self._runs, count))


def first_runs(runs: Iterable[MessageRange], count: int) -> list[MessageRange]:
    """Copies of the first runs, `count` messages at most."""
    found: list[MessageRange] = []
    for run in runs:
        if count <= 0:
            break
        some = min(count, run.stop - run.start)
        found.append(MessageRange(run.block, run.start, run.start + some, run.attempts))
        count -= some
    return found


class MemoryLog:
    """A topic in memory: of an ephemeral one there is nothing else."""

    def __init__(self) -> None:
        self.backlog = MemoryBacklog()

    def channel(self, name: str, *, takes_held: bool = False, since: int | None = None) -> Backlog:
        if since is not None:
            raise CannotReplay
        return MemoryBacklog()

    def restored(self) -> list[str]:
        return []

    def is_paused(self, channel: str = "") -> bool:
        return False

    def pause(self, paused: bool, channel: str = "") -> None:
        pass

    def spread(self, block: Block) -> None:
        pass

    def hold(self) -> None:
        pass

    def drop_channel(self, name: str) -> None:
        pass

    def delete(self) -> None:
        pass


def _nothing(*_: object) -> None:
    pass


class MemoryStore:
    """Everything in memory, safe at once, gone with the process."""

    durable = False
    lost: Sequence[Lost] = ()
    damage = ""
    clock: Clock | None = None
    is_crowded = False
    last_id = 0
    pending: Commit | None = None

    def __init__(self) -> None:
        self.topics: list[str] = []
        self.on_failure: Callable[[str], None] = _nothing
        self.on_work: Callable[[], None] = _nothing

    def log(self, name: str) -> MessageLog:
        return MemoryLog()

    def publishing(self, size: int) -> Commit | None:
        return self.pending

    def append(self, topic: str, block: Block) -> None:
        pass  # the backlogs hold it

    def end_turn(self, seal: Callable[[], None]) -> None:
        seal()

    def close(self) -> None:
        pass
