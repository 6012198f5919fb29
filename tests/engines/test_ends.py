"""When a run ends: exact limits, what may be in flight, until empty, until now, idle, paused."""

from __future__ import annotations

import asyncio

import pytest

from qtools.engines.contract import EndConditions, SourceOptions
from qtools.engines.requirements import require_for_end
from qtools.errors import SourcePaused, UsageError
from qtools.names import Subscription
from tests.engines.clusters.cluster import Cluster
from tests.engines.reading import BODIES, DEADLINE, EMPTY, bodies_of, drain, finish_all, read, read_all, reading


@pytest.mark.parametrize("limit", [1, 137])
async def test_a_limit_is_exact(cluster: Cluster, topic: str, limit: int) -> None:
    await cluster.make_topic(topic, "own", partitions=2)
    await cluster.fill(topic, BODIES)
    async with reading(cluster.engine(), topic, limit=limit, max_in_flight=50) as source:
        found = bodies_of(await finish_all(source))
        assert (source.received, source.in_flight) == (limit, 0)
    assert len(found) == limit
    assert sorted(found + bodies_of(await drain(cluster.engine(), topic))) == sorted(BODIES)


async def test_a_limit_is_exact_over_two_topics(cluster: Cluster, topic: str) -> None:
    topics = [topic, f"{topic}-more"]
    for each in topics:
        await cluster.make_topic(each, "own")
        await cluster.fill(each, BODIES[:300])
    engine = cluster.engine()
    subscriptions = [Subscription(each, "own") for each in topics]
    source = engine.source(subscriptions, SourceOptions(limit=250, max_in_flight=100))
    await source.prepare()
    await source.start()
    try:
        assert len(await finish_all(source)) == 250
    finally:
        await source.close()
    assert len(await drain(engine, topics[0])) + len(await drain(engine, topics[1])) == 350


@pytest.mark.parametrize("limit", [137, 700])
async def test_a_limit_is_exact_over_two_channels(cluster: Cluster, topic: str, limit: int) -> None:
    await cluster.make_topic(topic, "one", "two", partitions=2)
    await cluster.fill(topic, BODIES)
    subscriptions = [Subscription(topic, channel) for channel in ("one", "two")]
    source = cluster.engine().source(subscriptions, SourceOptions(limit=limit, max_in_flight=100))
    await source.prepare()
    await source.start()
    read = most = 0
    try:
        async with asyncio.timeout(DEADLINE):
            while (batch := await source.read()) is not None:
                read += len(batch)
                most = max(most, source.in_flight)
                await asyncio.sleep(0)
                batch.finish()
    finally:
        await source.close()
    assert (read, source.received) == (limit, limit)
    assert most <= 100


async def test_no_more_than_max_in_flight(cluster: Cluster, topic: str) -> None:
    await cluster.make_topic(topic, "own", partitions=2)
    await cluster.fill(topic, BODIES)
    async with reading(cluster.engine(), topic, max_in_flight=50) as source:
        batches = await read(source, 50)
        assert source.in_flight == sum(map(len, batches)) == 50
        more = asyncio.ensure_future(source.read())
        done, _ = await asyncio.wait([more], timeout=0.3)
        assert not done
        for batch in batches:
            batch.finish()
        batch = await asyncio.wait_for(more, DEADLINE)
        assert batch is not None
        batch.finish()
    assert len(await drain(cluster.engine(), topic)) == len(BODIES) - 50 - len(batch)


async def test_a_source_rests_and_goes_on(cluster: Cluster, topic: str) -> None:
    await cluster.make_topic(topic, "own")
    await cluster.fill(topic, BODIES[:100])
    async with reading(cluster.engine(), topic, limit=10) as source:
        first = await read_all(source, 10)
        first.finish()
        source.rest()
        assert source.may_resume
        source.resume(15)
        second = await read_all(source, 15)
        assert len(second) == 15
        second.finish()
        source.end()
        assert await source.read() is None
    rest = bodies_of(await drain(cluster.engine(), topic))
    assert sorted(first.bodies + second.bodies + rest) == sorted(BODIES[:100])


async def test_until_empty_waits_for_what_is_in_flight(cluster: Cluster, topic: str) -> None:
    """And for a message that was requeued, until it has come again and is finished."""
    await cluster.make_topic(topic, "own", partitions=2)
    await cluster.fill(topic, [b"a", b"b", b"c"])
    async with reading(cluster.engine(), topic, ends=EMPTY) as source:
        batch = await read_all(source, 3)
        ending = asyncio.ensure_future(source.wait_for_end())
        batch.pick([0, 1]).finish()
        done, _ = await asyncio.wait([ending], timeout=0.5)
        assert not done
        batch.pick([2]).requeue(300)
        again = await read_all(source, 1)
        assert not ending.done()
        again.finish()
        async with asyncio.timeout(DEADLINE):
            assert await ending
        assert await source.read() is None
    await cluster.until_left(topic, "own", 0)


async def test_until_empty_of_an_empty_topic(cluster: Cluster, topic: str) -> None:
    await cluster.make_topic(topic, "own", partitions=2)
    assert await drain(cluster.engine(), topic) == []


async def test_until_now_leaves_what_came_later(cluster: Cluster, topic: str) -> None:
    await cluster.make_topic(topic, "own")
    await cluster.fill(topic, BODIES[:50])
    async with reading(cluster.engine(), topic, ends=EndConditions(until_now=True), max_in_flight=10) as source:
        await cluster.fill(topic, BODIES[50:100])
        ending = asyncio.ensure_future(source.wait_for_end())
        found = bodies_of(await finish_all(source))
        assert await ending
    assert set(BODIES[:50]) <= set(found)
    assert len(await drain(cluster.engine(), topic)) == 100 - len(found)


async def test_an_idle_run_ends(cluster: Cluster, topic: str) -> None:
    await cluster.make_topic(topic, "own")
    await cluster.fill(topic, BODIES[:10])
    async with reading(cluster.engine(), topic, ends=EndConditions(idle_timeout=0.3)) as source:
        ending = asyncio.ensure_future(source.wait_for_end())
        batch = await read_all(source, 10)
        done, _ = await asyncio.wait([ending], timeout=0.5)
        assert not done  # messages are in flight
        batch.finish()
        async with asyncio.timeout(DEADLINE):
            assert await ending
        assert await source.read() is None


async def test_without_an_end_condition_there_is_nothing_to_wait_for(cluster: Cluster, topic: str) -> None:
    await cluster.make_topic(topic, "own")
    async with reading(cluster.engine(), topic) as source:
        assert not await source.wait_for_end()


async def test_whether_subscriptions_are_drained(cluster: Cluster, topic: str) -> None:
    await cluster.make_topic(topic, "own")
    await cluster.fill(topic, [b"a"])
    async with reading(cluster.engine(), topic) as source:
        batch = await read_all(source, 1)
        assert not await source.is_drained_on(lambda *_: True, "--until-empty")
        assert await source.is_drained_on(lambda *_: False, "--until-empty")
        batch.finish()
        async with asyncio.timeout(DEADLINE):
            await source.wait_until_empty()
        assert await source.is_drained_on(lambda *_: True, "--until-empty")


async def test_a_pause_is_an_error_or_is_refused(cluster: Cluster, topic: str) -> None:
    ends = EndConditions(until_empty=True, fail_if_paused=True)
    engine = cluster.engine()
    if not engine.capabilities.pause:
        with pytest.raises(UsageError, match=f"--fail-if-paused: {engine.capabilities.engine} has no pause: "):
            require_for_end(engine, ends)
        return
    await cluster.make_topic(topic, "own")
    await cluster.fill(topic, [b"a"])
    await cluster.pause(topic, "own")
    with pytest.raises(SourcePaused, match=topic):
        await drain(engine, topic, ends=ends)
    assert await cluster.left(topic, "own") == 1
