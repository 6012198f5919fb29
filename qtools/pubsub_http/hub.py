"""One upstream connection for all who only listen to a topic. In: topics. Out: a source for each listener.

Who names no channel gets a temporary one: a copy of what comes from now on, gone with its reader, and nothing kept for
anybody else. Many such readers of a topic are alike, so one channel does for them all: a batch is finished when it has
come, and handed to each. What a reader has not taken waits here for it, as it would in a channel of its own, where nsqd
too drops what is over --mem-queue-size. Who is slow misses messages alone; when all of them are, the reading waits.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Callable, Sequence

from qtools.client.consumer import Consumer
from qtools.client.guard import refuse_to_take_backlog
from qtools.errors import UsageError
from qtools.names import EPHEMERAL, Subscription
from qtools.pubsub_http.options import GatewayOptions
from qtools.pubsub_http.parcel import Parcel
from qtools.web.bodies import Refusal
from qtools.web.memory_budget import MemoryBudget

log = logging.getLogger("qtools.pubsub")

AHEAD = 8 * 1024 * 1024  # bytes that the fastest reader may be behind
MOST_BYTES = 64 * 1024 * 1024  # that any may be behind; all of them share what waits


def own_channel() -> str:
    """The name of a temporary channel that nobody else has."""
    return f"q-pubsub-{os.getpid()}-{os.urandom(4).hex()}{EPHEMERAL}"


async def open_consumer(
    source: Subscription, options: GatewayOptions, budget: MemoryBudget, max_in_flight: int, limit: int | None
) -> Consumer:
    """A consumer that has started; StartError, or 409 where a temporary channel would take what nobody else has."""
    if source.channel.endswith(EPHEMERAL):
        try:
            await refuse_to_take_backlog([source], options.brokers, options.settings)
        except UsageError as error:
            raise Refusal(409, "TOPIC_HAS_NO_CHANNEL", str(error)) from error
    consumer = Consumer([source], options.brokers, options.settings, max_in_flight=max_in_flight, limit=limit)
    consumer.on_received = budget.note
    await consumer.start()
    return consumer


class Reader:
    """One listener's end of a hub, as a source of parcels."""

    def __init__(self, hub: Hub, most: int) -> None:
        self.dropped = 0  # messages
        self.waiting = 0  # bytes
        self.current: Parcel | None = None  # the one that was read last, and is being sent
        self.cut: Callable[[], str | None] = lambda: None  # ends the client's connection; says which it was
        self._hub = hub
        self._most = most
        self._messages = 0
        self._parcels: deque[Parcel] = deque()
        self._something = asyncio.Event()
        self._ended = False

    def offer(self, parcel: Parcel) -> None:
        """Take a parcel, or drop it."""
        if self._messages and (self._messages + len(parcel) > self._most or self.waiting > MOST_BYTES):
            if not self.dropped:
                log.warning("a reader of %s is too slow: it misses messages", self._hub.topic)
            self.dropped += len(parcel)
            self._hub.hubs.dropped += len(parcel)
            return
        self._parcels.append(parcel)
        self._messages += len(parcel)
        self.waiting += parcel.size
        self._something.set()

    def held(self) -> Sequence[Parcel]:
        """What waits, and what is being sent."""
        return self._parcels if self.current is None else [self.current, *self._parcels]

    def memory(self) -> int:
        """0: what a reader holds it shares with others, so the hub counts it."""
        return 0

    def shed(self) -> str | None:
        """End the client, and let go of what it has not read; says which client it was, or None if it cannot be."""
        what = self.cut()
        if what is not None:
            self.discard()
        return what

    def discard(self) -> None:
        """End, and let go of what has not been read."""
        self._parcels.clear()
        self._messages = self.waiting = 0
        self.current = None
        self.end()
        self._hub.room.set()

    async def read(self) -> Parcel | None:
        self.current = None
        while not self._parcels:
            if self._ended:
                return None
            self._something.clear()
            await self._something.wait()
        parcel = self._parcels.popleft()
        self._messages -= len(parcel)
        self.waiting -= parcel.size
        self.current = parcel
        if self.waiting < AHEAD:
            self._hub.room.set()
        return parcel

    def end(self) -> None:
        self._ended = True
        self._something.set()

    async def close(self) -> None:
        self.end()
        await self._hub.leave(self)


class Hub:
    """One topic's temporary channel."""

    def __init__(self, hubs: Hubs, topic: str) -> None:
        self.hubs = hubs
        self.topic = topic
        self.room = asyncio.Event()  # somebody has caught up
        self.readers: list[Reader] = []
        self.started = asyncio.create_task(self._start(hubs.options))
        self._consumer: Consumer | None = None
        self._pump: asyncio.Task[None] | None = None

    async def _start(self, options: GatewayOptions) -> None:
        source = Subscription(self.topic, own_channel())
        self._consumer = await open_consumer(source, options, self.hubs.budget, options.max_in_flight, None)
        self._pump = asyncio.create_task(self._distribute(self._consumer))

    async def _distribute(self, consumer: Consumer) -> None:
        while (batch := await consumer.read()) is not None:
            batch.finish()  # from here on it is each reader's own
            parcel = Parcel(batch, shared=True)
            for reader in self.readers:
                reader.offer(parcel)
            while self.readers and min(reader.waiting for reader in self.readers) > AHEAD:
                self.room.clear()
                await self.room.wait()
        for reader in self.readers:
            reader.end()

    def memory(self) -> int:
        """Bytes of what the readers have not read. What waits for one is the end of what waits for the slowest."""
        if not self.readers:
            return 0
        slowest = max(self.readers, key=_backlog)
        parcels = {id(parcel): parcel for parcel in slowest.held()}
        parcels.update((id(reader.current), reader.current) for reader in self.readers if reader.current is not None)
        return sum(parcel.memory() for parcel in parcels.values())

    def shed(self) -> str | None:
        """End the slowest reader."""
        for reader in sorted(self.readers, key=_backlog, reverse=True):
            if _backlog(reader) and (what := reader.shed()) is not None:
                return what
        return None

    async def leave(self, reader: Reader) -> None:
        if reader in self.readers:
            self.readers.remove(reader)
        self.room.set()
        if not self.readers:
            self.hubs.forget(self)
            await self.close()

    async def close(self) -> None:
        self.started.cancel()
        if self._pump is not None:
            self._pump.cancel()
        if self._consumer is not None:
            consumer, self._consumer = self._consumer, None
            await consumer.close()


def _backlog(reader: Reader) -> int:
    """Bytes that a reader has not sent."""
    return reader.waiting + (0 if reader.current is None else reader.current.size)


class Hubs:
    """The hubs of a gateway, by topic."""

    def __init__(self, options: GatewayOptions, budget: MemoryBudget) -> None:
        self.options = options
        self.budget = budget
        self.dropped = 0
        self._hubs: dict[str, Hub] = {}

    async def join(self, topic: str) -> Reader:
        """A reader of `topic`, from now on. Raises what opening the channel raises."""
        hub = self._hubs.get(topic)
        if hub is None:
            hub = self._hubs[topic] = Hub(self, topic)
            self.budget.add(hub)
        reader = Reader(hub, self.options.backlog)
        hub.readers.append(reader)
        try:
            await asyncio.shield(hub.started)
        except BaseException:
            await reader.close()
            raise
        return reader

    def forget(self, hub: Hub) -> None:
        self.budget.remove(hub)
        if self._hubs.get(hub.topic) is hub:
            del self._hubs[hub.topic]

    @property
    def upstream(self) -> int:
        return len(self._hubs)

    async def close(self) -> None:
        for hub in tuple(self._hubs.values()):
            await hub.close()
