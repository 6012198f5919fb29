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

from qtools.client.consumer import Consumer
from qtools.client.guard import refuse_to_take_backlog
from qtools.errors import UsageError
from qtools.names import EPHEMERAL, Subscription
from qtools.pubsub_http.options import GatewayOptions
from qtools.pubsub_http.parcel import Parcel
from qtools.web.bodies import Refusal

log = logging.getLogger("qtools.pubsub")

AHEAD = 8 * 1024 * 1024  # bytes that the fastest reader may be behind
MOST_BYTES = 64 * 1024 * 1024  # that any may be behind; all of them share what waits


def own_channel() -> str:
    """The name of a temporary channel that nobody else has."""
    return f"q-pubsub-{os.getpid()}-{os.urandom(4).hex()}{EPHEMERAL}"


async def open_consumer(
    source: Subscription, options: GatewayOptions, max_in_flight: int, limit: int | None
) -> Consumer:
    """A consumer that has started; StartError, or 409 where a temporary channel would take what nobody else has."""
    if source.channel.endswith(EPHEMERAL):
        try:
            await refuse_to_take_backlog([source], options.brokers, options.settings)
        except UsageError as error:
            raise Refusal(409, "TOPIC_HAS_NO_CHANNEL", str(error)) from error
    consumer = Consumer([source], options.brokers, options.settings, max_in_flight=max_in_flight, limit=limit)
    await consumer.start()
    return consumer


class Reader:
    """One listener's end of a hub, as a source of parcels."""

    def __init__(self, hub: Hub, most: int) -> None:
        self.dropped = 0  # messages
        self.waiting = 0  # bytes
        self._hub = hub
        self._most = most
        self._messages = 0
        self._parcels: deque[Parcel] = deque()
        self._something = asyncio.Event()
        self._ended = False

    def offer(self, parcel: Parcel, size: int) -> None:
        """Take a parcel of `size` bytes of bodies, or drop it."""
        if self._messages and (self._messages + len(parcel) > self._most or self.waiting > MOST_BYTES):
            if not self.dropped:
                log.warning("a reader of %s is too slow: it misses messages", self._hub.topic)
            self.dropped += len(parcel)
            self._hub.hubs.dropped += len(parcel)
            return
        self._parcels.append(parcel)
        self._messages += len(parcel)
        self.waiting += size
        self._something.set()

    async def read(self) -> Parcel | None:
        while not self._parcels:
            if self._ended:
                return None
            self._something.clear()
            await self._something.wait()
        parcel = self._parcels.popleft()
        self._messages -= len(parcel)
        self.waiting -= sum(map(len, parcel.batch.bodies))
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
        self._consumer = await open_consumer(source, options, options.max_in_flight, None)
        self._pump = asyncio.create_task(self._distribute(self._consumer))

    async def _distribute(self, consumer: Consumer) -> None:
        while (batch := await consumer.read()) is not None:
            batch.finish()  # from here on it is each reader's own
            parcel = Parcel(batch, shared=True)
            size = sum(map(len, batch.bodies))
            for reader in self.readers:
                reader.offer(parcel, size)
            while self.readers and min(reader.waiting for reader in self.readers) > AHEAD:
                self.room.clear()
                await self.room.wait()
        for reader in self.readers:
            reader.end()

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


class Hubs:
    """The hubs of a gateway, by topic."""

    def __init__(self, options: GatewayOptions) -> None:
        self.options = options
        self.dropped = 0
        self._hubs: dict[str, Hub] = {}

    async def join(self, topic: str) -> Reader:
        """A reader of `topic`, from now on. Raises what opening the channel raises."""
        hub = self._hubs.get(topic)
        if hub is None:
            hub = self._hubs[topic] = Hub(self, topic)
        reader = Reader(hub, self.options.backlog)
        hub.readers.append(reader)
        try:
            await asyncio.shield(hub.started)
        except BaseException:
            await reader.close()
            raise
        return reader

    def forget(self, hub: Hub) -> None:
        if self._hubs.get(hub.topic) is hub:
            del self._hubs[hub.topic]

    @property
    def upstream(self) -> int:
        return len(self._hubs)

    async def close(self) -> None:
        for hub in tuple(self._hubs.values()):
            await hub.close()
