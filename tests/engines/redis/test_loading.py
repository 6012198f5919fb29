"""A server that loads its data after a start answers every command with LOADING; it is waited for."""

from __future__ import annotations

import asyncio

from tests.engines.clusters.redis import RedisCluster
from tests.engines.reading import BODIES, drain, publishing, read_all, reading, until
from tests.engines.redis.refusing import refusing

ANSWERS = frozenset({b"HELLO", b"SELECT", b"CONFIG", b"CLIENT"})  # that a server answers while it loads
LOADING = b"LOADING the dataset is in memory soon"


async def test_at_the_start_and_in_the_middle(redis: RedisCluster, topic: str) -> None:
    await redis.make_topic(topic, "own")
    await redis.fill(topic, BODIES[:100])
    is_loading = True
    refused: list[bytes] = []

    def refuse(name: bytes) -> bytes:
        if not is_loading or name in ANSWERS:
            return b""
        refused.append(name)
        return LOADING

    async with refusing(redis.server.port, refuse) as port:
        engine = redis.engine(url=f"redis://127.0.0.1:{port}")

        async def load() -> None:
            nonlocal is_loading
            await until(lambda: refused)
            is_loading = False

        loading = asyncio.ensure_future(load())
        async with reading(engine, topic) as source, publishing(engine) as publisher:
            await loading
            batch = await read_all(source, 100)
            batch.pick([0]).requeue(0)
            refused.clear()
            is_loading = True
            batch.pick(range(1, 100)).finish()
            sent = asyncio.ensure_future(publisher.publish([(topic, BODIES[100:110])]))
            await until(lambda: {b"XACK", b"XADD", b"XCLAIM", b"XREADGROUP"} <= set(refused))
            is_loading = False
            assert await sent == {}
            rest = await read_all(source, 11)
            assert sorted(rest.bodies) == sorted([BODIES[0], *BODIES[100:110]])
            rest.finish()
            await redis.until_left(topic, "own", 0)
            assert (source.acknowledgements_failed, publisher.resent) == (0, 0)
        assert await drain(engine, topic) == []
