"""What is published is in the topic, once and whole; what is refused is named, and all else is safe."""

from __future__ import annotations

import asyncio
import time

import pytest

from qtools.attributes import TOMBSTONE, Attributes
from qtools.engines.contract import NewTopics
from qtools.engines.requirements import require, require_for_publishing
from qtools.errors import MessageRefused, UsageError
from qtools.flow.keying import Keying
from qtools.message import Batch
from tests.engines.clusters.cluster import Cluster
from tests.engines.reading import BODIES, bodies_of, drain, publish, publishing, read_all, reading

BINARY = [bytes(range(256)), b"\n", b"\0", b" a ", "ä".encode(), b"x" * 900]
TOO_LARGE = b"x" * 2_000_000


async def test_another_client_reads_what_was_published(cluster: Cluster, topic: str) -> None:
    await cluster.make_topic(topic, "own")
    async with publishing(cluster.engine()) as publisher:
        assert publisher.connected == 1
        assert await publisher.publish([(topic, BODIES)]) == {}
        assert await publisher.publish([(topic, BINARY)]) == {}
        assert publisher.published == len(BODIES) + len(BINARY)
        assert (publisher.resent, publisher.unanswered) == (0, 0)
    assert sorted(await cluster.drain(topic, "own")) == sorted(BODIES + BINARY)


async def test_what_is_published_is_read(cluster: Cluster, topic: str) -> None:
    begun = time.time_ns() - 10**9
    await cluster.make_topic(topic, "own")
    await publish(cluster.engine(), topic, BODIES + BINARY)
    found = await drain(cluster.engine(), topic)
    assert sorted(bodies_of(found)) == sorted(BODIES + BINARY)
    assert {message.attempts for message in found} == {1}
    assert all(begun < message.timestamp < time.time_ns() + 10**9 for message in found)
    assert len({message.id for message in found}) == len(found)
    assert await drain(cluster.engine(), topic) == []  # all of it was finished


async def test_several_topics_in_one_publish(cluster: Cluster, topic: str) -> None:
    topics = [f"{topic}-{number}" for number in range(3)]
    for each in topics:
        await cluster.make_topic(each, "own")
    async with publishing(cluster.engine()) as publisher:
        groups = [(each, [each.encode() + b"-%d" % number for number in range(50)]) for each in topics]
        assert await publisher.publish(groups) == {}
    for each, bodies in groups:
        assert sorted(await cluster.drain(each, "own")) == sorted(bodies)


async def test_publishes_at_once(cluster: Cluster, topic: str) -> None:
    await cluster.make_topic(topic, "own")
    async with publishing(cluster.engine()) as publisher:
        some = [[(topic, BODIES[start : start + 50])] for start in range(0, 1000, 50)]
        assert await asyncio.gather(*map(publisher.publish, some)) == [{}] * 20
    assert sorted(await cluster.drain(topic, "own")) == sorted(BODIES)


async def test_what_is_too_large_is_refused_and_all_else_is_safe(cluster: Cluster, topic: str) -> None:
    await cluster.make_topic(topic, "own")
    async with publishing(cluster.engine()) as publisher:
        refused = await publisher.publish([(topic, [b"a"]), (topic, [b"b", TOO_LARGE, b"c"]), (topic, [TOO_LARGE])])
        assert sorted(refused) == [(1, 1), (2, 0)]
        for error in refused.values():
            assert isinstance(error, MessageRefused)
            assert error.is_too_large
            assert "\n" not in str(error)
        assert publisher.published == 3
        assert await publisher.publish([(topic, [b"d"])]) == {}
    assert sorted(await cluster.drain(topic, "own")) == [b"a", b"b", b"c", b"d"]


async def test_an_empty_body_arrives_or_is_refused(cluster: Cluster, topic: str) -> None:
    await cluster.make_topic(topic, "own")
    async with publishing(cluster.engine()) as publisher:
        refused = await publisher.publish([(topic, [b"a", b"", b"b"])])
    found = sorted(bodies_of(await drain(cluster.engine(), topic)))
    if refused:
        assert list(refused) == [(0, 1)]
        assert isinstance(refused[0, 1], MessageRefused)
        assert cluster.engine().capabilities.engine in str(refused[0, 1])
        assert found == [b"a", b"b"]
    else:
        assert found == [b"", b"a", b"b"]


async def test_key_headers_timestamp_and_tombstone(cluster: Cluster, topic: str) -> None:
    given = Attributes(
        keys=[b"k", None, b"\xff", b"k"],
        headers=[[("a", b"1"), ("b", None), ("a", b"\xfe")], (), [("n", b"")], ()],
        timestamps=[1_700_000_000_123_000_000 + number * 1_000_000 for number in range(4)],
    )
    engine = cluster.engine()
    if not engine.capabilities.keys_and_headers:
        with pytest.raises(UsageError, match=f"--key: {engine.capabilities.engine} has no keys and no headers"):
            require_for_publishing(engine, Keying(key=lambda *_: None), None)  # type: ignore[arg-type]
        await cluster.make_topic(topic, "own")
        async with publishing(engine) as publisher:  # attributes of another engine's messages are not even made
            assert await publisher.publish([(topic, [b"a"])], attributes=_must_not_be_called) == {}
        assert await cluster.drain(topic, "own") == [b"a"]
        return
    bodies = [b"1", b"", TOMBSTONE, b"\x00\xff"]
    await cluster.make_topic(topic, "own", partitions=2)
    await publish(engine, topic, bodies, given)
    async with reading(engine, topic) as source:
        batch = await read_all(source, 4)
        assert _rows_of(batch) == _rows(given, bodies)
        batch.finish()


def _must_not_be_called() -> list[Attributes]:
    raise AssertionError("attributes were made for an engine without them")


def _rows_of(batch: Batch) -> list[tuple[object, ...]]:
    found = batch.attributes()
    assert found is not None
    return sorted(_rows(found, batch.bodies))


def _rows(attributes: Attributes, bodies: list[bytes]) -> list[tuple[object, ...]]:
    """(timestamp, key, headers, body) of each message; the body of a tombstone is None."""
    keys, headers, timestamps = attributes.keys or (), attributes.headers or (), attributes.timestamps or ()
    shown = [None if body is TOMBSTONE else body for body in bodies]
    return list(zip(timestamps, keys, map(list, headers), shown, strict=True))


async def test_messages_of_a_key_stay_in_order(cluster: Cluster, topic: str) -> None:
    engine = cluster.engine()
    if not engine.capabilities.keys_and_headers:
        return  # refused, as the test before this one shows
    await cluster.make_topic(topic, "own", partitions=3)
    keys = [b"key %d" % (number % 7) for number in range(1000)]
    async with publishing(engine) as publisher:
        some = [
            publisher.publish(
                [(topic, BODIES[start : start + 100])],
                attributes=lambda start=start: [Attributes(keys=keys[start : start + 100])],
            )
            for start in range(0, 1000, 100)
        ]
        assert await asyncio.gather(*some) == [{}] * 10
    numbers = list(map(int, bodies_of(await drain(engine, topic))))
    for key in range(7):
        own = [number for number in numbers if number % 7 == key]
        assert own == list(range(key, 1000, 7))


async def test_a_deferred_message_waits(cluster: Cluster, topic: str) -> None:
    engine = cluster.engine()
    if not engine.capabilities.deferred_publishing:
        with pytest.raises(UsageError, match=f"--defer: {engine.capabilities.engine} cannot hold messages back: "):
            require(engine, "deferred_publishing", "--defer")
        return
    await cluster.make_topic(topic, "own")
    async with publishing(engine, delay_ms=300) as publisher, reading(engine, topic) as source:
        begun = time.monotonic()
        assert await publisher.publish([(topic, [b"later", b"later too"])]) == {}
        assert await publisher.publish([(topic, [b"now"])], 0) == {}
        first = await read_all(source, 1)
        assert first.bodies == [b"now"]
        first.finish()
        rest = await read_all(source, 2)
        assert time.monotonic() - begun >= 0.3
        assert sorted(rest.bodies) == [b"later", b"later too"]
        rest.finish()
    await cluster.until_left(topic, "own", 0)


async def test_topics_are_created_as_asked(cluster: Cluster, topic: str) -> None:
    engine = cluster.engine()
    has = engine.capabilities
    for new, is_there in ((NewTopics(partitions=2), has.partitions), (NewTopics(replicas=2), has.replicas)):
        if not is_there:
            with pytest.raises(UsageError, match=f"^--create-topics: {has.engine} .*: use --create-topics default$"):
                require_for_publishing(engine, None, new)
        else:
            require_for_publishing(engine, None, new)
    new = NewTopics(partitions=2) if has.partitions else NewTopics()
    async with publishing(engine, new_topics=new, topics=(topic,)) as publisher:
        if not cluster.keeps_without_channels:
            (error,) = (await publisher.publish([(topic, [b"lost"])])).values()
            assert "no queue is bound" in str(error)
            assert await drain(engine, topic) == []  # it has a channel from now on
        assert await publisher.publish([(topic, [b"a"])]) == {}
    assert bodies_of(await drain(engine, topic)) == [b"a"]
