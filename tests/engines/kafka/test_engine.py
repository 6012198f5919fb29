"""Kafka's engine by the contract, on a real Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]

from qtools.attributes import TOMBSTONE, Attributes
from qtools.engines.contract import EndConditions, NewTopics, PublisherOptions, SourceOptions
from qtools.engines.kafka.clients import make_admin
from qtools.engines.kafka.engine import KafkaEngine
from qtools.engines.kafka.publisher import KafkaPublisher
from qtools.engines.kafka.source import KafkaSource
from qtools.errors import BrokerError, MessageRefused, SourceDeleted, StartError
from qtools.message import Batch, Message
from qtools.names import Subscription

pytestmark = pytest.mark.slow  # a server of 300 MB, which takes ten seconds to start
TWO_PARTITIONS = NewTopics(partitions=2)
EMPTY = EndConditions(until_empty=True)


@asynccontextmanager
async def publishing(
    engine: KafkaEngine, new_topics: NewTopics | None = TWO_PARTITIONS
) -> AsyncIterator[KafkaPublisher]:
    publisher = engine.publisher(PublisherOptions(retry_timeout=30.0, new_topics=new_topics))
    await publisher.start()
    try:
        yield publisher
    finally:
        await publisher.close()


@asynccontextmanager
async def reading(
    engine: KafkaEngine, topic: str, channel: str = "own", **options: object
) -> AsyncIterator[KafkaSource]:
    source = engine.source([Subscription(topic, channel)], SourceOptions(**options))  # type: ignore[arg-type]
    await source.prepare()
    await source.start()
    try:
        yield source
    finally:
        await source.close()


async def publish(engine: KafkaEngine, topic: str, bodies: list[bytes], attributes: Attributes | None = None) -> None:
    async with publishing(engine) as publisher:
        given = None if attributes is None else lambda: [attributes]
        assert await publisher.publish([(topic, bodies)], attributes=given) == {}


async def read(source: KafkaSource, count: int) -> list[Batch]:
    """Batches until they have `count` messages."""
    found: list[Batch] = []
    async with asyncio.timeout(30):
        while sum(map(len, found)) < count:
            batch = await source.read()
            assert batch is not None
            found.append(batch)
    return found


async def drain(engine: KafkaEngine, topic: str, channel: str = "own", **options: object) -> list[Message]:
    """All messages that are left for `channel`; they are finished."""
    found: list[Message] = []
    async with reading(engine, topic, channel, ends=EMPTY, **options) as source, asyncio.timeout(60):
        ending = asyncio.ensure_future(source.wait_for_end())
        while (batch := await source.read()) is not None:
            found += batch.messages
            batch.finish()
        assert await ending
    return found


def rows_of(attributes: Attributes, bodies: list[bytes]) -> list[tuple[object, ...]]:
    """(timestamp, key, headers, body) of each message; the body of a tombstone is None."""
    keys, headers, timestamps = attributes.keys or (), attributes.headers or (), attributes.timestamps or ()
    shown = [None if body is TOMBSTONE else body for body in bodies]
    return list(zip(timestamps, keys, map(list, headers), shown, strict=True))


async def until_connected(source: KafkaSource) -> None:
    """Return when partitions were assigned to `source`."""
    async with asyncio.timeout(30):
        while not source.connected:  # noqa: ASYNC110 - librdkafka tells its own thread only
            await asyncio.sleep(0.01)


BODIES = [b"%d" % number for number in range(1000)]


async def test_what_is_published_is_read(engine: KafkaEngine, topic: str) -> None:
    await publish(engine, topic, BODIES)
    found = await drain(engine, topic)
    assert sorted(int(message.body) for message in found) == list(range(1000))
    assert all(message.attempts == 1 and message.timestamp > 1.7e18 for message in found)
    assert len({message.id for message in found}) == 1000
    assert await drain(engine, topic) == []  # the group has committed all of it
    assert len(await drain(engine, topic, "another")) == 1000  # and a new group begins with the oldest


async def test_key_headers_timestamp_and_body_survive(engine: KafkaEngine, topic: str) -> None:
    given = Attributes(
        keys=[b"k", None, b"\xff", b"k"],
        headers=[[("a", b"1"), ("b", None), ("a", b"\xfe")], (), [("n", b"")], ()],
        timestamps=[1_700_000_000_123_000_000 + number * 1_000_000 for number in range(4)],
    )
    bodies = [b"1", b"", TOMBSTONE, b"\x00\xff"]
    await publish(engine, topic, bodies, given)
    async with reading(engine, topic) as source:
        batch = Batch.joined(await read(source, 4))
    found = batch.attributes()
    assert found is not None
    assert sorted(rows_of(found, batch.bodies)) == rows_of(given, bodies)


async def test_one_key_stays_in_order(engine: KafkaEngine, topic: str) -> None:
    keys = [b"key %d" % (number % 7) for number in range(1000)]
    await publish(engine, topic, BODIES, Attributes(keys=keys))
    found = await drain(engine, topic)
    for key in range(7):
        numbers = [int(message.body) for message in found if int(message.body) % 7 == key]
        assert numbers == sorted(numbers)


async def test_unfinished_messages_come_again(engine: KafkaEngine, topic: str) -> None:
    await publish(engine, topic, BODIES)
    async with reading(engine, topic, max_in_flight=100) as source:
        first = Batch.joined(await read(source, 100))
        first.pick(range(50, 100)).finish()  # behind unfinished ones: nothing can be committed
    assert {message.body for message in await drain(engine, topic)} == set(BODIES)


async def test_only_what_is_finished_is_committed(engine: KafkaEngine, topic: str) -> None:
    await publish(engine, topic, BODIES)
    async with reading(engine, topic, limit=300) as source:
        for batch in await read(source, 300):
            batch.finish()
        assert await source.read() is None
        assert source.in_flight == 0
    assert len(await drain(engine, topic)) == 700


@pytest.mark.parametrize("limit", [1, 100, 137, 700])
async def test_a_limit_is_exact_over_two_channels(engine: KafkaEngine, topic: str, limit: int) -> None:
    await publish(engine, topic, BODIES, Attributes(keys=BODIES))
    options = SourceOptions(max_in_flight=100, limit=limit)
    source = engine.source([Subscription(topic, "one"), Subscription(topic, "two")], options)
    await source.prepare()
    await source.start()
    read = most = 0
    async with asyncio.timeout(60):
        while (batch := await source.read()) is not None:
            read += len(batch)
            most = max(most, source.in_flight)
            await asyncio.sleep(0)
            batch.finish()
    await source.close()
    assert (read, source.received) == (limit, limit)
    assert most <= 100


async def test_no_more_than_max_in_flight(engine: KafkaEngine, topic: str) -> None:
    await publish(engine, topic, BODIES)
    async with reading(engine, topic, max_in_flight=10) as source:
        batches = await read(source, 10)
        await asyncio.sleep(0.5)  # time in which more could come
        assert source.received == source.in_flight == 10
        batches[0].finish()
        await read(source, len(batches[0]))
        assert source.in_flight == 10


async def test_a_requeued_message_is_delivered_again_and_counted(engine: KafkaEngine, topic: str) -> None:
    await publish(engine, topic, [b"a", b"b", b"c"])
    async with reading(engine, topic) as source:
        batch = Batch.joined(await read(source, 3))
        place = batch.bodies.index(b"b")
        batch.pick([place]).requeue(50)
        batch.without([place]).finish()
        (again,) = await read(source, 1)
        assert [(message.body, message.attempts) for message in again.messages] == [(b"b", 2)]
        assert source.redelivered == 1
        again.finish()
        assert source.in_flight == 0
    assert await drain(engine, topic) == []


async def test_too_large_and_unknown_topics_are_refused_and_all_else_is_safe(engine: KafkaEngine, topic: str) -> None:
    async with publishing(engine) as publisher:
        refused = await publisher.publish([(topic, [b"a", b"x" * 2_000_000, b"b"])])
        assert list(refused) == [(0, 1)]
        assert isinstance(refused[0, 1], MessageRefused)
        assert "2,000,000 bytes" in str(refused[0, 1])
    assert {message.body for message in await drain(engine, topic)} == {b"a", b"b"}
    async with publishing(engine, new_topics=None) as publisher:
        refused = await publisher.publish([("missing", [b"a"]), (topic, [b"c"])])
        assert list(refused) == [(0, 0)]
        assert isinstance(refused[0, 0], BrokerError)
        assert "topic missing: there is no such topic" in str(refused[0, 0])
    assert {message.body for message in await drain(engine, topic)} == {b"c"}


async def test_an_unknown_topic_is_said_before_anything_is_read(engine: KafkaEngine) -> None:
    with pytest.raises(StartError, match="topic missing: there is no such topic"):
        async with reading(engine, "missing"):
            pass


async def test_a_temporary_channel_begins_at_the_end_and_commits_nothing(engine: KafkaEngine, topic: str) -> None:
    await publish(engine, topic, [b"old"])
    async with reading(engine, topic, "look#ephemeral") as source:
        await until_connected(source)
        await publish(engine, topic, [b"new"])
        (batch,) = await read(source, 1)
        assert batch.bodies == [b"new"]
        batch.finish()
    channels = {row["topic"]: row["channels"] for row in await engine.statistics().topics()}
    assert channels[topic] == []


async def test_since(engine: KafkaEngine, topic: str) -> None:
    stamps = [1_700_000_000_000_000_000 + number * 1_000_000_000 for number in range(100)]
    await publish(engine, topic, BODIES[:100], Attributes(timestamps=stamps))
    found = await drain(engine, topic, since=1_700_000_060.0)
    assert sorted(int(message.body) for message in found) == list(range(60, 100))


async def test_depths_and_lag(engine: KafkaEngine, topic: str) -> None:
    await publish(engine, topic, BODIES)
    async with reading(engine, topic, limit=400) as source:
        for batch in await read(source, 400):
            batch.finish()
    (row,) = [row for row in await engine.statistics().topics() if row["topic"] == topic]
    assert (row["depth"], row["messages"]) == (1000, 1000)
    assert [(each["channel"], each["depth"]) for each in row["channels"]] == [("own", 600)]
    assert topic in await engine.topics().look()


async def test_peek_takes_nothing(engine: KafkaEngine, topic: str) -> None:
    await publish(engine, topic, BODIES)
    batches = await engine.peek(Subscription(topic, "own"), 5)
    assert sum(map(len, batches)) == 5
    assert len(await drain(engine, topic)) == 1000
    assert await engine.peek(Subscription(topic, "own"), 5) == []


async def test_an_idle_run_waits_for_its_group(engine: KafkaEngine, topic: str) -> None:
    """Joining a group may take longer than the time without messages after which the run is to end."""
    await publish(engine, topic, BODIES)
    async with reading(engine, topic, ends=EndConditions(idle_timeout=0.3)) as source, asyncio.timeout(60):
        ending = asyncio.ensure_future(source.wait_for_end())
        count = 0
        while (batch := await source.read()) is not None:
            count += len(batch)
            batch.finish()
        assert await ending
    assert count == 1000


async def test_a_topic_that_is_deleted_ends_a_run_that_was_to_read_all_of_it(engine: KafkaEngine, topic: str) -> None:
    await publish(engine, topic, BODIES)
    admin = make_admin(engine.settings)
    async with reading(engine, topic, ends=EMPTY, max_in_flight=10) as source:
        batches = await read(source, 10)
        await asyncio.to_thread(admin.delete_topics([topic])[topic].result)
        for batch in batches:
            batch.finish()
        with pytest.raises(SourceDeleted, match=topic):
            async with asyncio.timeout(60):
                await source.wait_until_empty()


async def test_a_message_larger_than_the_queue_is_refused(engine: KafkaEngine, topic: str) -> None:
    admin = make_admin(engine.settings)
    new = NewTopic(topic, 1, 1, config={"max.message.bytes": "200000000"})
    await asyncio.to_thread(admin.create_topics([new])[topic].result)
    async with publishing(engine) as publisher:
        refused = await publisher.publish([(topic, [b"x" * 70_000_000, b"a"])])
        assert list(refused) == [(0, 0)]
        assert await publisher.publish([(topic, [b"b"])]) == {}


async def test_the_identity_is_the_clusters(engine: KafkaEngine) -> None:
    ((kind, name),) = await engine.identity()
    assert kind == "kafka"
    assert len(name) == 22


async def test_two_members_share_a_group_and_lose_nothing(engine: KafkaEngine, topic: str) -> None:
    """A second member takes a partition while the first has messages of it in flight: those come again, and the
    acknowledgements of the first are counted as too late."""
    await publish(engine, topic, BODIES, Attributes(keys=BODIES))  # in both partitions
    finished: set[bytes] = set()
    async with reading(engine, topic, max_in_flight=1000) as first:
        in_flight = await read(first, 1000)  # both partitions, whole
        async with reading(engine, topic, max_in_flight=2000) as second:
            await until_connected(second)
            again = await read(second, 1)  # one partition from its beginning, as nothing was committed
            for batch in in_flight:
                batch.finish()
            late = first.acknowledgements_failed
            assert 0 < late < 1000
            async with asyncio.timeout(30):
                while sum(map(len, again)) < late:
                    again += await read(second, 1)
            for batch in again:
                finished.update(batch.bodies)
                batch.finish()
    assert len(finished) == late
    assert await drain(engine, topic) == []
