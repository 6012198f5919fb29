"""What becomes of messages that were read: finished in any order, delivered again, or left unfinished."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from qtools.engines.requirements import require
from qtools.errors import UsageError
from qtools.message import Batch
from tests.engines.clusters.cluster import Cluster
from tests.engines.reading import BODIES, bodies_of, drain, read, read_all, reading

SOME = BODIES[:100]


async def test_messages_are_finished_in_any_order(cluster: Cluster, topic: str) -> None:
    await cluster.make_topic(topic, "own", partitions=2)
    await cluster.fill(topic, BODIES)
    async with reading(cluster.engine(), topic) as source:
        batches = await read(source, len(BODIES))
        pieces: list[Batch] = []
        for batch in batches:
            odd = list(range(1, len(batch), 2))
            pieces += [batch.pick(odd), *(batch.without(odd).pick([place]) for place in range(len(batch) - len(odd)))]
        random.Random(1).shuffle(pieces)
        for piece in pieces:
            piece.finish()
        assert source.in_flight == 0
        assert not source.acknowledgements_failed  # None where the server does not answer acknowledgements
    await cluster.until_left(topic, "own", 0)
    assert await drain(cluster.engine(), topic) == []


async def test_unfinished_messages_come_again(cluster: Cluster, topic: str) -> None:
    """An engine that acknowledges by position delivers what was finished behind an unfinished message too."""
    await cluster.make_topic(topic, "own")
    await cluster.fill(topic, SOME)
    engine = cluster.engine()
    async with reading(engine, topic) as source:
        batch = await read_all(source, 100)
        finished = [place for place in range(100) if place % 3 == 0]
        unfinished = batch.without(finished).bodies
        batch.pick(finished).finish()
        assert source.in_flight == len(unfinished)
    found = bodies_of(await drain(engine, topic))
    if engine.capabilities.cumulative:
        assert found == batch.bodies[1:]  # the first one was committed
    else:
        assert sorted(found) == sorted(unfinished)


async def test_what_is_not_finished_at_the_end_comes_again_at_once(cluster: Cluster, topic: str) -> None:
    """A source that is closed releases what it has: nothing waits until a message timeout is over."""
    await cluster.make_topic(topic, "own")
    await cluster.fill(topic, SOME)
    async with reading(cluster.engine(), topic) as source:
        await read(source, 100)
    assert sorted(bodies_of(await drain(cluster.engine(), topic))) == sorted(SOME)


async def test_what_was_not_read_is_given_back(cluster: Cluster, topic: str) -> None:
    await cluster.make_topic(topic, "own")
    await cluster.fill(topic, SOME)
    async with reading(cluster.engine(), topic) as source:
        first = await read_all(source, 1)
        first.finish()
        source.discard()
    found = bodies_of(await drain(cluster.engine(), topic))
    assert sorted(found + first.bodies) == sorted(SOME)


async def test_a_requeued_message_comes_again_after_its_delay(cluster: Cluster, topic: str) -> None:
    engine = cluster.engine()
    delay_ms = 300 if engine.capabilities.requeue_delay else 0
    if not delay_ms:
        with pytest.raises(UsageError, match=f"{engine.capabilities.engine} delivers a requeued message at once"):
            require(engine, "requeue_delay", "--requeue-delay")
    await cluster.make_topic(topic, "own")
    await cluster.fill(topic, [b"a", b"b", b"c"])
    async with reading(engine, topic) as source:
        batch = await read_all(source, 3)
        place = batch.bodies.index(b"b")
        begun = time.monotonic()
        batch.pick([place]).requeue(delay_ms)
        batch.without([place]).finish()
        again = await read_all(source, 1)
        assert time.monotonic() - begun >= delay_ms / 1000
        assert [(message.body, message.attempts) for message in again.messages] == [(b"b", 2)]
        assert source.redelivered == 1
        again.finish()
        assert source.in_flight == 0
    await cluster.until_left(topic, "own", 0)


async def test_attempts_are_counted(cluster: Cluster, topic: str) -> None:
    await cluster.make_topic(topic, "own")
    await cluster.fill(topic, [b"%d" % number for number in range(10)])
    async with reading(cluster.engine(), topic) as source:
        batch = await read_all(source, 10)
        for attempts in range(2, 6):
            assert batch.delivered_more_than(attempts - 1) == {}
            batch.pick([place for place, body in enumerate(batch.bodies) if int(body) >= attempts]).requeue()
            batch.pick([place for place, body in enumerate(batch.bodies) if int(body) < attempts]).finish()
            batch = await read_all(source, 10 - attempts)
            assert {message.attempts for message in batch.messages} == {attempts}
            assert batch.delivered_more_than(attempts - 1) == dict.fromkeys(range(len(batch)), attempts)
        batch.finish()
    await cluster.until_left(topic, "own", 0)


async def test_a_requeued_message_waits_for_the_next_reader(cluster: Cluster, topic: str) -> None:
    """A source that is closed while a requeued message waits for its delay does not take it along."""
    await cluster.make_topic(topic, "own")
    await cluster.fill(topic, [b"a", b"b"])
    async with reading(cluster.engine(), topic) as source:
        batch = await read_all(source, 2)
        batch.pick([0]).requeue(500)
        batch.pick([1]).finish()
    found = await drain(cluster.engine(), topic)
    assert batch.bodies[0] in bodies_of(found)


async def test_what_is_in_flight_does_not_come_again(cluster: Cluster, topic: str) -> None:
    """However long it is in flight, touched by the user or not: the source shows the server that it is alive."""
    engine = cluster.engine(cluster.short_timeout)
    await cluster.make_topic(topic, "own")
    await cluster.fill(topic, [b"touched", b"not touched", b"a third one"])
    async with reading(engine, topic, max_in_flight=2) as source:
        batch = await read_all(source, 2)
        if engine.capabilities.touch:
            batch.pick([0]).touch()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(cluster.short_time):
                await source.read()
        assert source.in_flight == 2
        batch.finish()
        (await read_all(source, 1)).finish()
        assert (source.received, source.redelivered, source.acknowledgements_failed or 0) == (3, 0, 0)
    await cluster.until_left(topic, "own", 0)
