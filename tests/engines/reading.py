"""What the tests of the engine suite share: publish, read, drain, by the contract. In: an engine. Out: messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from qtools.attributes import Attributes
from qtools.engines.contract import (
    EndConditions,
    Engine,
    NewTopics,
    Publisher,
    PublisherOptions,
    Source,
    SourceOptions,
)  # fmt: skip
from qtools.flow.keying import FixedAttributes
from qtools.message import Batch, Message
from qtools.names import Subscription

DEADLINE = 60.0  # s; a real Kafka takes seconds for what takes others milliseconds
EMPTY = EndConditions(until_empty=True)
BODIES = [b"%d" % number for number in range(1000)]


@asynccontextmanager
async def publishing(engine: Engine, **options: Any) -> AsyncIterator[Publisher]:
    given = {"retry_timeout": 30.0, "new_topics": NewTopics()} | options
    publisher = engine.publisher(PublisherOptions(**given))
    try:
        await publisher.start()
        yield publisher
    finally:
        await publisher.close()


@asynccontextmanager
async def reading(engine: Engine, topic: str, channel: str = "own", **options: Any) -> AsyncIterator[Source]:
    source = engine.source([Subscription(topic, channel)], SourceOptions(**options))
    try:
        await source.prepare()
        await source.start()
        yield source
    finally:
        await source.close()


async def publish(engine: Engine, topic: str, bodies: Sequence[bytes], attributes: Attributes | None = None) -> None:
    async with publishing(engine) as publisher:
        given = None if attributes is None else FixedAttributes([attributes])
        assert await publisher.publish([(topic, bodies)], attributes=given) == {}


async def read(source: Source, count: int) -> list[Batch]:
    """Batches until they have `count` messages."""
    found: list[Batch] = []
    async with asyncio.timeout(DEADLINE):
        while sum(map(len, found)) < count:
            batch = await source.read()
            assert batch is not None
            found.append(batch)
    return found


async def read_all(source: Source, count: int) -> Batch:
    """`count` messages as one batch."""
    return Batch.joined(await read(source, count))


async def finish_all(source: Source) -> list[Message]:
    """All messages until the source ends; they are finished."""
    found: list[Message] = []
    async with asyncio.timeout(DEADLINE):
        while (batch := await source.read()) is not None:
            found += batch.messages
            batch.finish()
    return found


async def drain(engine: Engine, topic: str, channel: str = "own", **options: Any) -> list[Message]:
    """All messages that are left for `channel`; they are finished."""
    async with reading(engine, topic, channel, **({"ends": EMPTY} | options)) as source:
        ending = asyncio.ensure_future(source.wait_for_end())
        found = await finish_all(source)
        async with asyncio.timeout(DEADLINE):
            assert await ending
    return found


def bodies_of(messages: Sequence[Message]) -> list[bytes]:
    return [message.body for message in messages]


async def until(condition: Callable[[], object], what: str = "") -> None:
    """Return when `condition` holds. The contract has no event for what a test asks here."""
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
