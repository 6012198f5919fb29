"""The client against real brokers: what is published comes, once, over cuts and stops, and limits are kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from harness.brokers import Broker
from harness.proxy import Proxy

from qtools.engines.nsq.address import Address, Brokers, choose_brokers
from qtools.engines.nsq.consume.consumer import Consumer
from qtools.engines.nsq.http_client import HttpClient, ask_depth, ask_limits
from qtools.engines.nsq.publish.publisher import NsqPublisher
from qtools.errors import PartialFailure
from qtools.flow.topic_sink import TopicSink
from qtools.message import Batch
from qtools.names import Subscription
from tests.engines.nsq.scripted import settings
from tests.flow.memory import Ledger

pytestmark = pytest.mark.usefixtures("tidy")


def at(*brokers: Broker | Proxy) -> Brokers:
    return choose_brokers([broker.address for broker in brokers], environ={})


async def published(topic: str, brokers: Brokers, bodies: Sequence[bytes], **some: Any) -> int:
    """How many had to be sent again."""
    publisher = NsqPublisher(brokers, settings(), **some)
    await publisher.start()
    try:
        async with asyncio.timeout(20):
            half = len(bodies) // 2
            sink = TopicSink(publisher, topic)
            writes = [sink.write(Batch.of_bodies(Ledger(), list(some))) for some in (bodies[:half], bodies[half:])]
            for outcome in await asyncio.gather(*writes, return_exceptions=True):  # one that fails cuts none short
                if isinstance(outcome, BaseException):
                    raise outcome
    finally:
        await publisher.close()
    return publisher.resent


async def consumed(consumer: Consumer, count: int) -> list[bytes]:
    """Bodies until there are `count` different ones, all finished."""
    await consumer.start()
    got: list[bytes] = []
    try:
        async with asyncio.timeout(20):
            while len(set(got)) < count and (batch := await consumer.read()) is not None:
                got += batch.bodies
                batch.finish()
    finally:
        await consumer.close()
    return got


def numbered(count: int) -> list[bytes]:
    return [b"body %d" % n for n in range(count)]


@pytest.mark.parametrize(
    "some",
    [{}, {"snappy": True}, {"deflate": True}, {"heartbeat_interval": 1000, "msg_timeout": 1000}],
    ids=["plain", "snappy", "deflate", "short"],
)
async def test_what_is_published_is_consumed_once_and_nothing_is_left(
    broker: Broker, topic: str, some: dict[str, Any]
) -> None:
    bodies = numbered(3000)
    broker.create(topic, "archive")
    assert await published(topic, at(broker), bodies, batch_count=700) == 0
    consumer = Consumer([Subscription(topic, "archive")], at(broker), settings(**some), max_in_flight=500)
    assert sorted(await consumed(consumer, len(bodies))) == sorted(bodies)
    assert consumer.acknowledgements_failed == 0
    await asyncio.to_thread(broker.wait_held, topic, "archive", 0)


async def test_a_limit_over_two_brokers_takes_so_many_and_gives_nothing_else_a_second_attempt(
    make_broker: Callable[..., Broker], topic: str
) -> None:
    one, two = make_broker(), make_broker()
    for broker in (one, two):
        broker.create(topic, "archive")
        broker.fill(topic, numbered(300))
    consumer = Consumer([Subscription(topic, "archive")], at(one, two), settings(), max_in_flight=100, limit=250)
    await consumer.start()
    got = 0
    async with asyncio.timeout(20):
        while (batch := await consumer.read()) is not None:
            got += len(batch)
            batch.finish()
    await consumer.close()
    assert got == 250
    left = sum(broker.wait_held(topic, "archive", broker.depth(topic, "archive").held).depth for broker in (one, two))
    assert left == 350
    assert [broker.depth(topic, "archive").requeued for broker in (one, two)] == [0, 0]


async def test_what_is_held_is_not_delivered_again_while_it_is_held(broker: Broker, topic: str) -> None:
    broker.create(topic, "archive")
    broker.fill(topic, [b"slow"])
    consumer = Consumer([Subscription(topic, "archive")], at(broker), settings(msg_timeout=1000))
    await consumer.start()
    async with asyncio.timeout(10):
        batch = await consumer.read()
    assert batch is not None
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2.2):  # twice the message's time
            await consumer.read()
    batch.finish()
    await consumer.close()
    assert broker.wait_held(topic, "archive", 0).timed_out == 0


async def test_a_cut_in_the_middle_loses_nothing(
    make_broker: Callable[..., Broker], make_proxy: Callable[[Broker], Proxy], topic: str
) -> None:
    broker = make_broker()
    broker.create(topic, "archive")
    proxy = make_proxy(broker)
    bodies = [b"%05d" % n + b"x" * 500 for n in range(4000)]
    proxy.cut_after(600_000)
    resent = await published(topic, at(proxy), bodies, batch_count=200)
    assert resent > 0
    consumer = Consumer([Subscription(topic, "archive")], at(broker), settings())
    got = await consumed(consumer, len(bodies))
    assert set(got) == set(bodies)
    assert len(got) - len(bodies) <= resent


async def test_limits_are_learned_from_the_broker(make_broker: Callable[..., Broker], topic: str) -> None:
    broker = make_broker("--max-msg-size", "1000", "--max-body-size", "3000")
    broker.create(topic, "archive")
    base = at(broker).nsqd[0].http
    assert await ask_limits(base) == (1000, 3000)
    bodies = [b"x" * (n * 13 % 990 + 1) for n in range(50)]
    bodies[20] = b"y" * 1001
    for brokers in (at(broker), Brokers(nsqd=(Address("127.0.0.1", broker.port),))):
        with pytest.raises(PartialFailure) as caught:
            await published(topic, brokers, bodies)
        assert list(caught.value.failed) == [20]
    http = HttpClient(base)
    depth = await ask_depth(http, Subscription(topic, "archive"))
    await http.close()
    assert depth.depth == 98
