"""The broker: it owns the topics and the clock, and does the work of one turn of the event loop together.

In: options; calls of the servers (broker/tcp/, broker/http/). Out: messages and responses, through the servers. Nothing
here reads or writes a socket.

A turn is everything that the event loop found ready at once. During a turn, connections only record what was received.
At its end, published messages are sealed into blocks if the store can take them, channels deliver, and every connection
writes once:

    read, read, read ─▶ seal ─▶ (commit) ─▶ deliver ─▶ one write for each connection

One timer serves all deadlines: of messages, of heartbeats, and of an idle broker. There is none when nothing is
pending.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from qtools.broker.core.channel import Channel
from qtools.broker.core.clock import Clock
from qtools.broker.core.consumer import ChannelConsumer
from qtools.broker.core.deadlines import Deadline, Deadlines
from qtools.broker.core.latency import Latency
from qtools.broker.core.memory_store import MemoryStore
from qtools.broker.core.slices import SLICE
from qtools.broker.core.store import Commit, Store
from qtools.broker.core.topic import Topic
from qtools.broker.options import Options

log = logging.getLogger("qtools.broker")

Alarm = Callable[[float], None]
Item = TypeVar("Item")


SET_ASIDE = 1000  # after this many new topics and channels, all objects are frozen for the garbage collector

# The collector takes about 1 µs for each object that it examines, without a pause: 5,000 new ones, or 15,000 of the
# second generation. Full collections are as rare as with the settings of the programs (cli/run.py).
COLLECT_AT = 5_000, 1, 10_000


class BrokerClient(Protocol):
    """A connection, as the broker sees it."""

    def flush(self) -> None:
        """Write what was collected in this turn."""
        ...


class Broker:
    """All topics, and the turns of the event loop. Everything runs in one event loop."""

    def __init__(self, options: Options, store: Store | None = None) -> None:
        self.options = options
        self.store: Store = MemoryStore() if store is None else store
        self.loop = asyncio.get_running_loop()
        self.clock = self.store.clock or Clock(self.loop.time)
        self.topics: dict[str, Topic] = {}
        self.started = time.time()
        self.stopping = False
        self.failure: str = ""  # why the store cannot write now; "" when it can
        # Called with a topic, and a channel or "", when it was made or deleted.
        self.on_change: list[Callable[[str, str], None]] = []
        self._alive = self._set_aside = 0  # topics and channels
        self._turn_is_due = False
        self._gathered: list[Topic] = []
        self._passing: list[Topic] = []  # the same for ephemeral topics, which do not wait for the store
        self._scheduled: dict[Channel, None] = {}
        self._to_flush: list[BrokerClient] = []
        self._alarms: Deadlines[Alarm] = Deadlines()
        self._channel_alarms: dict[Channel, Deadline[Alarm]] = {}
        self._timer: asyncio.Handle | None = None
        self._rings_at = 0.0  # when the timer fires; uvloop's timers do not always provide it
        self.store.on_failure = self._store_says
        self.store.on_work = self._turn_soon
        for name in self.store.topics:
            topic = self.topic(name)
            topic.restore(self.loop.time(), time.time_ns())
            self._count(len(topic.channels))
        self._turn_soon()  # the store may have work already

    @property
    def health(self) -> str:
        """The health, as nsqd's /ping words it."""
        wrong = self.failure or self.store.damage
        return f"NOK - {wrong}" if wrong else "OK"

    def now(self) -> float:
        """The time on the clock of deadlines, seconds."""
        return self.loop.time()

    # ── topics ──────────────────────────────────────────────────────────────────────────────────

    def topic(self, name: str) -> Topic:
        """The topic `name`, made if necessary."""
        topic = self.topics.get(name)
        if topic is None:
            options = self.options
            topic = self.topics[name] = Topic(
                name,
                self,
                # Never lower than before: the clock may have been set back, and the store compares ids with those
                # delivered.
                first_id=max(options.first_id(time.time_ns()), self.store.last_id + 1),
                limit=options.mem_queue_size,
                max_consumers=options.max_channel_consumers,
            )
            log.debug("new topic %s", name)
            self._count(1)
            self._changed(name)
        return topic

    def publish(self, topic: str, bodies: Sequence[bytes], delay_ms: int = 0) -> Commit | None:
        """Accept messages. They are safe when the returned commit is done, or at once when it is None."""
        now = self.loop.time()
        due = self.clock.due(now) + delay_ms * 1_000_000 if delay_ms else 0
        return self.topic(topic).publish(bodies, now, time.time_ns(), due)

    def channel(self, topic: str, name: str, since: int | None = None) -> Channel:
        """The channel `name`, made with its topic if necessary.

        since: ns since 1970; a new channel begins with the messages published then. Raises CannotReplay where finished
        messages are not kept, and CannotRead.
        """
        owner = self.topic(topic)
        new = name not in owner.channels
        channel = owner.channel(name, self.loop.time(), time.time_ns(), since)
        if channel.latency is None and self.options.e2e_processing_latency_percentiles:
            channel.latency = Latency(self.options.e2e_processing_latency_window_time)
        if new:
            self._count(1)
            self._changed(topic, name)
        return channel

    def delete_topic(self, name: str) -> None:
        """Delete a topic. Raises KeyError when there is none."""
        topic = self.topics.pop(name)
        self._count(-1 - len(topic.channels))
        topic.delete()
        self._changed(name)

    def delete_channel(self, topic: Topic, name: str) -> None:
        """Delete a channel, and an ephemeral topic with its last one. Raises KeyError when there is none."""
        last = topic.delete_channel(name)
        self._count(-1)
        if last and self.topics.get(topic.name) is topic:
            self.delete_topic(topic.name)
        else:
            self._changed(topic.name, name)

    def _count(self, more: int) -> None:
        """Count topics and channels that were made or deleted, and adapt the garbage collector.

        A full run of Python's garbage collector examines all objects: with 10,000 topics it stops the event loop for
        some tenths of a second. Long-lived objects are therefore frozen, and examined again when many were deleted.
        Clients of that many channels are thousands of objects too, so new objects are examined in smaller numbers.
        """
        self._alive += more
        if self._alive >= self._set_aside + SET_ASIDE:
            self._set_aside = self._alive
            gc.freeze()
            if gc.get_threshold()[0]:
                gc.set_threshold(*COLLECT_AT)
        elif self._alive < self._set_aside // 2:
            self._set_aside = 0
            gc.unfreeze()

    def _changed(self, topic: str, channel: str = "") -> None:
        for call in self.on_change:
            call(topic, channel)

    def unsubscribe(self, channel: Channel, consumer: ChannelConsumer) -> None:
        """Remove a client from its channel, and delete an ephemeral channel with its last client."""
        if channel.remove(consumer) and channel.ephemeral:
            topic = self.topics.get(channel.topic)
            if topic is not None and topic.channels.get(channel.name) is channel:
                self.delete_channel(topic, channel.name)

    def _store_says(self, why: str) -> None:
        self.failure = why

    def held(self) -> int:
        """How many messages are not finished, counting the copy of each channel."""
        return sum(topic.held for topic in self.topics.values())

    # ── turns ───────────────────────────────────────────────────────────────────────────────────

    def gathered(self, topic: Topic) -> None:
        (self._passing if topic.ephemeral else self._gathered).append(topic)
        self._turn_soon()

    def schedule(self, channel: Channel) -> None:
        self._scheduled[channel] = None
        self._turn_soon()

    def flush_soon(self, client: BrokerClient) -> None:
        """Call `client.flush` at the end of this turn. To be called at most once a turn."""
        self._to_flush.append(client)
        self._turn_soon()

    def _turn_soon(self) -> None:
        if not self._turn_is_due:
            self._turn_is_due = True
            self.loop.call_soon(self._end_turn)

    def _end_turn(self) -> None:
        self._turn_is_due = False
        now, wall = self.loop.time(), time.time_ns()
        passing, self._passing = self._passing, []
        for topic in passing:
            self._guard(topic.seal, now, wall)
        self._guard(self.store.end_turn, lambda: self._seal(now, wall))
        channels, self._scheduled = self._scheduled, {}
        left = self._for_a_slice(list(channels), lambda channel: channel.deliver(now))
        if left:
            self._scheduled = dict.fromkeys(left) | self._scheduled
        clients, self._to_flush = self._to_flush, []
        late = self._for_a_slice(clients, lambda client: client.flush())
        if late:
            self._to_flush = late + self._to_flush
        if left or late:
            self._turn_soon()

    def _for_a_slice(self, items: list[Item], call: Callable[[Item], None]) -> list[Item]:
        """`call` each of `items`, as long as a turn may take. Returns those that are left for the next turn."""
        until = self.loop.time() + SLICE
        for nth, item in enumerate(items, 1):
            self._guard(call, item)
            if not nth & 31 and self.loop.time() >= until:
                return items[nth:]
        return []

    def _seal(self, now: float, wall: int) -> None:
        """Pass all published messages to the store. If that fails, none of them may be confirmed, and it is tried
        again."""
        for topic in self._gathered:
            topic.seal(now, wall)
        self._gathered.clear()

    def _guard(self, what: Callable[..., None], *args: Any) -> None:
        """Call `what`. An internal error in it must not end the rest of the turn."""
        try:
            what(*args)
        except Exception as error:
            log.error("internal error in %s: %s: %s", what.__qualname__, type(error).__name__, error)
            log.debug("internal error", exc_info=True)

    # ── time ────────────────────────────────────────────────────────────────────────────────────

    def alarm(self, channel: Channel, when: float) -> None:
        old = self._channel_alarms.get(channel)
        if old is not None:
            self._alarms.cancel(old)
        self._channel_alarms[channel] = self.call_at(when, lambda now: self._wake(channel, now))

    def _wake(self, channel: Channel, now: float) -> None:
        del self._channel_alarms[channel]
        channel.wake(now)

    def call_at(self, when: float, what: Alarm) -> Deadline[Alarm]:
        """Call `what(now)` at `when`. `cancel` takes the returned value."""
        entry = self._alarms.add(when, what)
        if self._timer is None or when < self._rings_at:
            self._arm(when)
        return entry

    def cancel(self, entry: Deadline[Alarm]) -> None:
        self._alarms.cancel(entry)

    def _arm(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = when
        self._timer = self.loop.call_at(when, self._ring)

    def _ring(self) -> None:
        now = max(self.loop.time(), self._rings_at)  # an event loop may call a little early
        self._timer = None
        for what in self._alarms.take_due(now):
            self._guard(what, now)
        earliest = self._alarms.next()
        if earliest is not None and (self._timer is None or earliest < self._rings_at):
            self._arm(earliest)

    # ── the end ─────────────────────────────────────────────────────────────────────────────────

    def close(self) -> None:
        """End what is under way, after the servers are closed."""
        for topic in self.topics.values():
            topic.close(self.loop.time(), time.time_ns())
        self._end_turn()
        if self._timer is not None:
            self._timer.cancel()
        self.store.close()
