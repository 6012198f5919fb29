"""Several readers: two channels each get all; two members of a channel share it, also when one of them joins or leaves
while messages are in flight."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from qtools.engines.contract import Source
from tests.engines.clusters.cluster import Cluster
from tests.engines.reading import BODIES, bodies_of, drain, read, read_all, reading, until


@asynccontextmanager
async def finishing(source: Source, finished: list[bytes]) -> AsyncIterator[None]:
    """Meanwhile, finish all that `source` reads; `finished` gets the bodies."""

    async def run() -> None:
        while (batch := await source.read()) is not None:
            batch.finish()
            finished.extend(batch.bodies)

    task = asyncio.ensure_future(run())
    try:
        yield
    finally:
        source.end()
        await task


async def test_each_channel_gets_all(cluster: Cluster, topic: str) -> None:
    await cluster.make_topic(topic, "own", "another", partitions=2)
    await cluster.fill(topic, BODIES)
    engine = cluster.engine()
    assert sorted(bodies_of(await drain(engine, topic))) == sorted(BODIES)
    assert sorted(bodies_of(await drain(engine, topic, "another"))) == sorted(BODIES)


async def test_a_member_joins_while_messages_are_in_flight(server: Cluster, topic: str) -> None:
    """What the first member loses to the second comes again there, and its own late acknowledgements are counted."""
    await server.make_topic(topic, "own", partitions=2)
    await server.fill(topic, BODIES)
    engine = server.engine()
    finished: list[bytes] = []
    async with reading(engine, topic, max_in_flight=600) as first:
        in_flight = await read(first, 600)
        async with reading(engine, topic, max_in_flight=1000) as second:
            some = await read(second, 1)  # it has its share from now on
            for batch in [*in_flight, *some]:
                batch.finish()
                finished += batch.bodies
            late = first.acknowledgements_failed or 0
            assert late < 600
            assert (
                bool(late) == engine.capabilities.exclusive_partitions
            )  # there it lost a partition that was in flight
            async with finishing(first, finished), finishing(second, finished):
                await until(lambda: len(set(finished)) == len(BODIES) and len(finished) >= len(BODIES) + late)
            assert (first.acknowledgements_failed or 0) == late
            assert not second.acknowledgements_failed
    assert len(finished) == len(BODIES) + late  # twice came only what the first had lost
    await server.until_left(topic, "own", 0)


async def test_a_member_leaves_while_messages_are_in_flight(server: Cluster, topic: str) -> None:
    """What it had not finished goes to the other member, and nothing else does."""
    await server.make_topic(topic, "own", partitions=2)
    engine = server.engine()
    finished: list[bytes] = []
    async with reading(engine, topic) as first:
        await until(lambda: first.connected)
        async with reading(engine, topic) as second:
            await until(lambda: second.connected)
            await server.fill(topic, BODIES)
            batch = await read_all(second, 1)
            half = batch.pick(range(len(batch) // 2))
            half.finish()
            finished += half.bodies
        async with finishing(first, finished):
            await until(lambda: len(set(finished)) == len(BODIES))
        assert len(finished) == len(BODIES) + (first.acknowledgements_failed or 0)
    await server.until_left(topic, "own", 0)
