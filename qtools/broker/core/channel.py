"""A channel: it delivers messages to consumers that are ready, takes messages back, and counts.

In: ranges of messages from the topic; consumers, and their commands; the time. Out: ranges to consumers; requests to
the host to be called (`schedule`, `alarm`). No socket, no clock, no event loop.

    put ─▶ backlog ─▶ in flight (at a consumer) ─▶ finished
              ▲            │ requeued, timed out
              └─ deferred ◀┘

Times are seconds on one monotonic clock, passed with every call that needs them. Due times are ns since 1970, by the
host's `clock`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from qtools.broker.core.block import MessageRange
from qtools.broker.core.clock import Clock
from qtools.broker.core.consumer import ChannelConsumer, Done
from qtools.broker.core.deferral_queue import GRAIN
from qtools.broker.core.latency import Latency
from qtools.broker.core.store import Backlog
from qtools.engines.nsq.protocol.client_commands import Finish
from qtools.names import is_ephemeral

NOT_IN_FLIGHT = "ID not in flight"
NOT_THE_OWNER = "client does not own message"


class Host(Protocol):
    """What a channel needs from the broker."""

    @property
    def clock(self) -> Clock: ...

    def schedule(self, channel: Channel) -> None:
        """Call `channel.deliver` at the end of this turn."""
        ...

    def alarm(self, channel: Channel, when: float) -> None:
        """Call `channel.wake` at `when` or soon after, instead of at any time requested before."""
        ...


class TooMany(Exception):
    """The channel has as many consumers as it may have."""


class Channel:
    """A stream of a topic's messages, distributed among its consumers."""

    def __init__(self, topic: str, name: str, backlog: Backlog, host: Host, *, limit: int, max_consumers: int) -> None:
        self.topic = topic
        self.name = name
        self.ephemeral = is_ephemeral(name)
        self.paused = False
        self.consumers: list[ChannelConsumer] = []
        self.messages = self.requeued = self.timed_out = self.dropped = 0
        self.latency: Latency | None = None  # None where it is not measured
        self.backlog = backlog
        self._host = host
        self._limit = limit
        self._max_consumers = max_consumers
        self._left: list[ChannelConsumer] = []  # have left, but their messages in flight have not timed out
        self._waiting: deque[ChannelConsumer] = deque()  # consumers that may take more, in the order of their turns
        self._alarm: float | None = None
        backlog.watch(self._more_is_ready)

    def restore(self, paused: bool, now: float) -> None:
        """Continue as the broker ended."""
        self.paused = paused
        self.backlog.take_due(self._host.clock.due(now))
        self._more_is_ready()

    def _more_is_ready(self) -> None:
        """Note that there may be messages to deliver, or messages that are due earlier than before."""
        self._host.schedule(self)
        self._need_deferral_alarm()

    # ── counts ──────────────────────────────────────────────────────────────────────────────────

    @property
    def first(self) -> int:
        """The `seq` of the first block that is for this channel."""
        return self.backlog.first

    @property
    def cold(self) -> int:
        """How many of the waiting messages are not in memory."""
        return self.backlog.cold

    @property
    def depth(self) -> int:
        """Messages that wait to be delivered, without those in flight or deferred."""
        return self.backlog.depth

    @property
    def deferred(self) -> int:
        """Messages that are deferred."""
        return self.backlog.deferred

    @property
    def in_flight(self) -> int:
        return sum(consumer.in_flight for consumer in (*self.consumers, *self._left))

    @property
    def held(self) -> int:
        """All messages that are not finished."""
        return self.depth + self.in_flight + self.deferred

    @property
    def _window(self) -> int:
        """How many messages the consumers can take now."""
        return sum(max(consumer.window, 0) for consumer in self.consumers)

    # ── messages come ───────────────────────────────────────────────────────────────────────────

    def put(self, run: MessageRange, now: float) -> None:
        """Add newly published messages."""
        if self.ephemeral and self.backlog.depth >= self._limit and self.backlog.depth >= self._limit + self._window:
            # As nsqd: messages that no consumer reads in time must not fill the memory. Consumers that are ready get
            # messages with a limit of 0 too. Whole batches are kept or dropped, so there may be one batch too many.
            self.dropped += run.stop - run.start
            return
        self.adopt(run, now)

    def adopt(self, run: MessageRange, now: float, not_before: float = 0.0) -> None:
        """Add messages that waited in the topic; none is dropped. Deferred ones wait until due, and until
        `not_before`."""
        self.messages += run.stop - run.start
        clock = self._host.clock
        wall = clock.due(now)
        if run.block.due > wall:
            self.backlog.defer(run, max(run.block.due, clock.due(not_before)), wall)
            self._need_deferral_alarm()
            return
        self.backlog.put(run)
        self._host.schedule(self)

    def came(self, count: int, taken: int | None = None) -> None:
        """Note that `count` messages were added to the backlog directly. taken: how many of them it had room for; an
        ephemeral channel drops the others."""
        self.messages += count if taken is None else taken
        self.dropped += 0 if taken is None else count - taken
        if count:
            self._more_is_ready()

    def _need_deferral_alarm(self) -> None:
        due = self.backlog.next_due()
        if due is not None:
            self._need_alarm(self._host.clock.when(due))

    def _need_alarm(self, when: float) -> None:
        if self._alarm is None or when < self._alarm:
            self._alarm = when
            self._host.alarm(self, when)

    # ── messages go ─────────────────────────────────────────────────────────────────────────────

    def deliver(self, now: float) -> None:
        """Deliver as many messages as the consumers can take, to each in turn."""
        backlog, waiting = self.backlog, self._waiting
        if self.paused:
            return
        if waiting and backlog.depth and not backlog.ready:
            backlog.fetch()  # it calls `schedule` when messages were read
        share = rest_of_round = 0
        while waiting and backlog.ready:
            consumer = waiting[0]
            window = consumer.window
            if rest_of_round <= 0:
                # An even share of the waiting messages, so that one consumer with a large window does not take all of
                # them.
                rest_of_round = len(waiting)
                share = -(-backlog.ready // rest_of_round)
            rest_of_round -= 1
            if window <= 0:
                waiting.popleft()
                consumer.queued = False
                continue
            run = backlog.take(min(window, share), consumer.room)
            block = run.block
            dropped = consumer.deliver(run, now)
            if dropped:
                backlog.finish(block, dropped)
            waiting.rotate(-1)
            self._need_alarm(now + consumer.msg_timeout)

    def schedule(self, consumer: ChannelConsumer) -> None:
        """Note that `consumer` may take more messages than before."""
        if not consumer.queued and consumer.window > 0:
            consumer.queued = True
            self._waiting.append(consumer)
        if consumer.queued and self.backlog.depth:
            self._host.schedule(self)

    # ── clients come and go ─────────────────────────────────────────────────────────────────────

    def add(self, consumer: ChannelConsumer) -> None:
        """Add a consumer. Raises TooMany when the channel has as many as it may have."""
        if self._max_consumers and len(self.consumers) >= self._max_consumers:
            raise TooMany(f"consumers for {self.topic}:{self.name} exceeds limit of {self._max_consumers}")
        self.consumers.append(consumer)

    def remove(self, consumer: ChannelConsumer) -> bool:
        """Remove a consumer. Returns True when it was the last. Its messages in flight wait for their timeout, as in
        nsqd."""
        if consumer not in self.consumers:
            return False
        self.consumers.remove(consumer)
        if consumer.queued:
            self._waiting.remove(consumer)
            consumer.queued = False
        if consumer.in_flight:
            self._left.append(consumer)
        return not self.consumers

    # ── what clients do with messages ───────────────────────────────────────────────────────────

    def finish(self, consumer: ChannelConsumer, ids: Sequence[bytes]) -> list[tuple[bytes, str]]:
        """Finish the messages `ids`. Returns those that cannot be finished, each with the reason."""
        done, missing = consumer.finish(ids)
        self._finished(consumer, done)
        return [(ident, self._why_not(ident)) for ident in missing]

    def finish_lines(self, consumer: ChannelConsumer, command: Finish) -> list[tuple[bytes, str]]:
        """As `finish`, but much faster for a client that finishes messages in the order of delivery."""
        done = consumer.finish_in_order(command.lines)
        if done is None:
            return self.finish(consumer, command.ids)
        self._finished(consumer, done)
        return []

    def _finished(self, consumer: ChannelConsumer, done: list[Done]) -> None:
        for block, finished in done:
            self.backlog.finish(block, finished)
        if done:
            if self.latency is not None:
                self.latency.add(done)
            self.schedule(consumer)

    def requeue(self, consumer: ChannelConsumer, ident: bytes, delay: float, now: float) -> str:
        """Deliver `ident` again after `delay` seconds. Returns the reason why that is not possible, or ""."""
        run = consumer.take_back(ident)
        if run is None:
            return self._why_not(ident)
        consumer.requeued += 1
        self.requeued += 1
        if delay > 0:
            due = self._host.clock.due(now + delay)
            self.backlog.defer(run, due + -due % GRAIN, self._host.clock.due(now))
            self._need_deferral_alarm()
        else:
            self.backlog.put(run)
        self.schedule(consumer)
        self._host.schedule(self)
        return ""

    def touch(self, consumer: ChannelConsumer, ident: bytes, now: float) -> str:
        """Restart the timeout of `ident`. Returns the reason why that is not possible, or ""."""
        run = consumer.touch(ident, now)
        if run is None:
            return self._why_not(ident)
        self.backlog.touched(run)
        return ""

    def _why_not(self, ident: bytes) -> str:
        others = any(consumer.has(ident) for consumer in (*self.consumers, *self._left))
        return NOT_THE_OWNER if others else NOT_IN_FLIGHT

    # ── time passes ─────────────────────────────────────────────────────────────────────────────

    def wake(self, now: float) -> None:
        """Requeue messages that have timed out, and queue messages that are due; request the next alarm."""
        self._alarm = None
        came = self.backlog.take_due(self._host.clock.due(now))
        for consumer in (*self.consumers, *self._left):
            for run in consumer.expire(now):
                self.timed_out += run.stop - run.start
                self.backlog.put(run)
                came = True
        if came:
            for consumer in self.consumers:
                self.schedule(consumer)
            self._host.schedule(self)
        self._left = [consumer for consumer in self._left if consumer.in_flight]
        times = [consumer.next_deadline() for consumer in (*self.consumers, *self._left)]
        earliest = min((when for when in times if when is not None), default=None)
        if earliest is not None:
            self._need_alarm(earliest)
        self._need_deferral_alarm()

    # ── what an administrator does ──────────────────────────────────────────────────────────────

    def pause(self) -> None:
        self.paused = True

    def unpause(self) -> None:
        self.paused = False
        self._host.schedule(self)

    def empty(self) -> None:
        """Drop all messages: waiting, deferred, and in flight."""
        self.backlog.clear()
        self._left.clear()
        for consumer in self.consumers:
            consumer.clear()
            self.schedule(consumer)

    def delete(self) -> None:
        """Drop all messages, and end the connection of every client."""
        consumers, self.consumers = self.consumers, []
        self._waiting.clear()
        self.empty()
        for consumer in consumers:
            consumer.clear()
            consumer.receiver.close_after_responses()

    def close(self) -> None:
        """Requeue all messages in flight, because the broker ends. They count as delivered once more."""
        for consumer in (*self.consumers, *self._left):
            for run in consumer.expire(math.inf):
                self.backlog.put(run)

    def __repr__(self) -> str:
        return (
            f"<Channel {self.topic}/{self.name} depth={self.depth} in_flight={self.in_flight}"
            f" deferred={self.deferred} clients={len(self.consumers)}{' paused' if self.paused else ''}>"
        )
