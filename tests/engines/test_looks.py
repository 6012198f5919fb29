"""What can be seen of a cluster without reading it: topics, depths, the first messages, its identity."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from qtools.engines.contract import Engine
from qtools.errors import UsageError
from qtools.names import Subscription
from tests.engines.clusters.cluster import Cluster
from tests.engines.reading import BODIES, bodies_of, drain, publish, read_all, reading


async def row_of(engine: Engine, topic: str) -> dict[str, Any]:
    statistics = engine.statistics()
    try:
        (row,) = [row for row in await statistics.topics() if row["topic"] == topic]
    finally:
        await statistics.close()
    return row


async def test_topics(cluster: Cluster, topic: str) -> None:
    await cluster.make_topic(topic)
    topics = cluster.engine().topics()
    try:
        assert topic in await topics.look()
        assert f"{topic}-missing" not in await topics.look_again()
    finally:
        await topics.close()


async def test_depths(cluster: Cluster, topic: str) -> None:
    await cluster.make_topic(topic, "own")
    await cluster.fill(topic, BODIES)
    engine = cluster.engine()
    async with reading(engine, topic, limit=400) as source:
        (await read_all(source, 400)).finish()
    await cluster.until_left(topic, "own", 600)
    row = await row_of(engine, topic)
    assert row["messages"] == 1000
    assert [(each["channel"], each["depth"]) for each in row["channels"]] == [("own", 600)]
    assert not row["paused"]


async def test_a_temporary_channel_begins_at_the_end_and_leaves_nothing(cluster: Cluster, topic: str) -> None:
    await cluster.make_topic(topic, "own")
    engine = cluster.engine()
    assert engine.capabilities.temporary_channels
    await publish(engine, topic, [b"old"])
    async with reading(engine, topic, "look#ephemeral") as source:
        assert source.connected == 1
        await publish(engine, topic, [b"new"])
        batch = await read_all(source, 1)
        assert batch.bodies == [b"new"]
        batch.finish()
    deadline = time.monotonic() + 10
    while "look#ephemeral" in (names := [each["channel"] for each in (await row_of(engine, topic))["channels"]]):
        assert time.monotonic() < deadline, names
        await asyncio.sleep(0.02)
    assert sorted(await cluster.drain(topic, "own")) == [b"new", b"old"]


async def test_peek_takes_nothing(cluster: Cluster, topic: str) -> None:
    engine = cluster.engine()
    await cluster.make_topic(topic, "own")
    await cluster.fill(topic, BODIES[:100])
    if not cluster.has_history:
        with pytest.raises(UsageError, match="--peek"):
            await engine.peek(Subscription(topic, "own"), 5)
        return
    batches = await engine.peek(Subscription(topic, "own"), 5)
    assert [body for batch in batches for body in batch.bodies] == BODIES[:5]
    for batch in batches:
        batch.finish()
    assert await cluster.left(topic, "own") == 100
    assert len(await drain(engine, topic)) == 100
    assert await engine.peek(Subscription(topic, "own"), 5) == []


async def test_since(cluster: Cluster, topic: str) -> None:
    engine = cluster.engine()
    await cluster.make_topic(topic, "own")
    await cluster.fill(topic, BODIES[:50])
    await asyncio.sleep(0.01)  # time itself is what this is about
    since = time.time()
    await asyncio.sleep(0.01)
    await cluster.fill(topic, BODIES[50:100])
    if not cluster.has_history:
        with pytest.raises(UsageError, match="--since"):
            await drain(engine, topic, "new", since=since)
        return
    assert sorted(bodies_of(await drain(engine, topic, "new", since=since))) == sorted(BODIES[50:100])
    with pytest.raises(UsageError, match=f"{topic}/new exists already"):
        await drain(engine, topic, "new", since=since)
    await cluster.fill(topic, BODIES[100:110])
    assert sorted(bodies_of(await drain(engine, topic, "new", since=since, goes_on=True))) == sorted(BODIES[100:110])
    assert len(await drain(engine, topic)) == 110


async def test_identity(cluster: Cluster) -> None:
    """Two engines for one cluster have a name in common."""
    names = await cluster.engine().identity()
    assert names
    assert names & await cluster.engine().identity()
