"""What the tests of the consumer share: consumers of scripted brokers, and reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from qtools.engines.nsq.address import Brokers
from qtools.engines.nsq.consume.consumer import Consumer
from qtools.message import Batch
from qtools.names import Subscription
from tests.engines.nsq.scripted import Scripted, settings, until

EVENTS = Subscription("events", "archive")


def bodies(count: int) -> list[bytes]:
    return [b"body %d" % n for n in range(count)]


@asynccontextmanager
async def reading(
    *peers: Scripted, sources: Sequence[Subscription] = (EVENTS,), **some: Any
) -> AsyncIterator[Consumer]:
    """A consumer of all of `peers` that is subscribed at each."""
    consumer = Consumer(sources, Brokers(nsqd=tuple(peer.address for peer in peers)), settings(), **some)
    await consumer.start()
    await until(lambda: len(consumer.askable()) == len(peers) * len(sources))
    try:
        yield consumer
    finally:
        await consumer.close()


async def read(consumer: Consumer) -> Batch | None:
    async with asyncio.timeout(5):
        return await consumer.read()


async def read_all(consumer: Consumer, count: int) -> list[Batch]:
    """Batches of `count` messages in all."""
    batches: list[Batch] = []
    while sum(map(len, batches)) < count:
        batch = await read(consumer)
        assert batch is not None
        batches.append(batch)
    return batches
