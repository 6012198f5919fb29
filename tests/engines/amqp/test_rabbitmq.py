"""What only RabbitMQ has, on a real server: mandatory messages, queues of others, delays, refusals, deleted queues."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from harness.rabbitmq import VHOST

from qtools.attributes import Attributes
from qtools.engines.connection_options import ConnectionFlags
from qtools.engines.contract import EndConditions, SourceOptions
from qtools.errors import BrokerError, MessageRefused, SourceDeleted, StartError, TopicMissing, UsageError
from qtools.flow.keying import FixedAttributes
from qtools.names import Subscription
from tests.engines.reading import BODIES, DEADLINE, bodies_of, drain, publish, publishing, read_all, reading, until

if TYPE_CHECKING:  # it imports pika, which only these tests need
    from tests.engines.clusters.rabbitmq import RabbitCluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def options(**pairs: str) -> ConnectionFlags:
    return ConnectionFlags({}, pairs)


def declare(rabbitmq: RabbitCluster, queue: str, exchange: str = "", **arguments: Any) -> None:
    with rabbitmq.channel() as channel:
        channel.queue_declare(queue, durable=True, arguments=arguments)
        if exchange:
            channel.queue_bind(queue, exchange)


def queues(rabbitmq: RabbitCluster) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in rabbitmq.node.api("GET", f"/queues/{VHOST}")}


# ── publishing ──


async def test_what_no_queue_gets_is_refused_and_all_else_is_safe(rabbitmq: RabbitCluster, topic: str) -> None:
    await rabbitmq.make_topic(topic, "own")
    await rabbitmq.make_topic(f"{topic}-empty")
    async with publishing(rabbitmq.engine()) as publisher:
        groups = [(topic, BODIES[:10]), (f"{topic}-empty", [b"x", b"y"]), (topic, BODIES[10:20])]
        refused = await publisher.publish(groups)
        assert sorted(refused) == [(1, 0), (1, 1)]
        for error in refused.values():
            assert isinstance(error, BrokerError)
            assert error.code == "NO_ROUTE"
            assert f"no queue is bound to the exchange {topic}-empty" in str(error)
        assert publisher.published == 20
    assert await rabbitmq.drain(topic, "own") == BODIES[:20]


async def test_an_exchange_that_does_not_exist_names_the_flag(rabbitmq: RabbitCluster, topic: str) -> None:
    async with publishing(rabbitmq.engine(), new_topics=None, new_topics_flag="--create-topics") as publisher:
        (error,) = (await publisher.publish([(topic, [b"x"])])).values()
        assert isinstance(error, TopicMissing)
        assert f"there is no exchange {topic}" in str(error)
        assert "or use --create-topics default" in str(error)
    with pytest.raises(TopicMissing, match=f"there is no exchange {topic}"):
        async with publishing(rabbitmq.engine(), new_topics=None, topics=(topic,)):
            pass


async def test_an_exchange_that_is_deleted_meanwhile(rabbitmq: RabbitCluster, topic: str) -> None:
    await rabbitmq.make_topic(topic, "own")
    await rabbitmq.make_topic(f"{topic}-other", "own")
    async with publishing(rabbitmq.engine(), new_topics=None) as publisher:
        assert await publisher.publish([(topic, [b"a"]), (f"{topic}-other", [b"a"])]) == {}
        rabbitmq.node.api("DELETE", f"/exchanges/{VHOST}/{topic}-other")
        refused = await publisher.publish([(topic, [b"b"]), (f"{topic}-other", [b"b", b"c"]), (topic, [b"d"])])
        assert sorted(refused) == [(1, 0), (1, 1)]
    found = await rabbitmq.drain(topic, "own")
    assert sorted(set(found)) == [b"a", b"b", b"d"]


async def test_a_full_queue_refuses(rabbitmq: RabbitCluster, topic: str) -> None:
    await rabbitmq.make_topic(topic)
    limits = {"x-max-length": 5, "x-overflow": "reject-publish", "x-queue-type": "classic"}
    await asyncio.to_thread(declare, rabbitmq, f"{topic}/own", topic, **limits)
    async with publishing(rabbitmq.engine()) as publisher:
        refused: dict[Any, Any] = {}
        for number in range(20):
            for error in (await publisher.publish([(topic, [b"%d" % number])])).values():
                refused[number] = error
        assert refused
        for error in refused.values():
            assert isinstance(error, BrokerError)
            assert "reject-publish" in str(error)
        assert publisher.published == 20 - len(refused)
    kept = await rabbitmq.drain(topic, "own")
    assert kept == [b"%d" % number for number in range(20) if number not in refused]


async def test_sizes_are_learned_once(rabbitmq: RabbitCluster, topic: str) -> None:
    """A message that is too large closes the channel: it was sent alone, so that nothing is sent twice."""
    await rabbitmq.make_topic(topic, "own")
    large = b"x" * 600_000
    async with publishing(rabbitmq.engine()) as publisher:
        some = [[(topic, [b"%d" % number, large, b"y" * 1_500_000, b"z"])] for number in range(5)]
        for refused in await asyncio.gather(*map(publisher.publish, some)):
            assert list(refused) == [(0, 2)]
            assert isinstance(refused[0, 2], MessageRefused)
        assert publisher.published == 15
    found = await rabbitmq.drain(topic, "own")
    assert sorted(found) == sorted([b"%d" % number for number in range(5)] + [large, b"z"] * 5)


async def test_a_routing_key_routes(rabbitmq: RabbitCluster, topic: str) -> None:
    engine = rabbitmq.engine(options(exchange_type="topic"))
    async with publishing(engine, topics=(topic,)) as publisher, reading(engine, topic) as source:
        keys = FixedAttributes([Attributes(keys=[b"a.b", b"c", None])])
        assert await publisher.publish([(topic, [b"1", b"2", b"3"])], attributes=keys) == {}
        batch = await read_all(source, 3)
        found = batch.attributes()
        assert found is not None
        assert list(zip(batch.bodies, found.keys or (), strict=True)) == [(b"1", b"a.b"), (b"2", b"c"), (b"3", None)]
        batch.finish()


# ── queues ──


async def test_a_queue_without_an_exchange(rabbitmq: RabbitCluster, topic: str) -> None:
    await asyncio.to_thread(declare, rabbitmq, f"{topic}-old")
    engine = rabbitmq.engine(options(queue=f"{topic}-old"))
    keys = FixedAttributes([Attributes(keys=[b"k", None])])
    async with publishing(engine) as publisher:
        assert await publisher.publish([("any", [b"1", b"2"])], attributes=keys) == {}
    async with reading(engine, "any", "name") as source:
        batch = await read_all(source, 2)
        found = batch.attributes()
        assert found is not None
        assert (batch.bodies, found.keys) == ([b"1", b"2"], [b"k", None])
        batch.finish()
    with pytest.raises(TopicMissing, match=f"there is no queue {topic}-none"):
        await drain(rabbitmq.engine(options(queue=f"{topic}-none")), "any")
    source = engine.source([Subscription("a", "x"), Subscription("b", "x")], SourceOptions())
    with pytest.raises(UsageError, match="is one queue: read one topic with it"):
        await source.prepare()


async def test_a_classic_queue_of_another_client_is_taken_as_it_is(rabbitmq: RabbitCluster, topic: str) -> None:
    await rabbitmq.make_topic(topic)
    await asyncio.to_thread(declare, rabbitmq, f"{topic}/own", topic, **{"x-queue-type": "classic"})
    await publish(rabbitmq.engine(), topic, BODIES[:50])
    async with reading(rabbitmq.engine(), topic) as source:
        (await read_all(source, 50)).requeue()
        again = await read_all(source, 50)
        assert {message.attempts for message in again.messages} == {2}
        again.finish()
    assert await drain(rabbitmq.engine(), topic) == []


async def test_a_reader_that_is_closed_at_once(
    rabbitmq: RabbitCluster, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    """RabbitMQ 3.10 closes the connection with 541 if a consumer is cancelled before it has begun."""
    await rabbitmq.make_topic(topic)
    with caplog.at_level(logging.WARNING):
        for number in range(10):
            async with reading(rabbitmq.engine(), topic, f"own-{number}"):
                pass
    assert caplog.messages == []


async def test_the_bindings_of_an_existing_queue_stay(rabbitmq: RabbitCluster, topic: str) -> None:
    rabbitmq.node.api("PUT", f"/exchanges/{VHOST}/{topic}", {"type": "topic", "durable": True})
    await asyncio.to_thread(declare, rabbitmq, f"{topic}/own")
    binding = {"routing_key": "eu.*"}
    rabbitmq.node.api("POST", f"/bindings/{VHOST}/e/{topic}/q/{quote(f'{topic}/own', safe='')}", binding)
    async with reading(rabbitmq.engine(), topic) as source, publishing(rabbitmq.engine()) as publisher:
        keys = FixedAttributes([Attributes(keys=[b"us.1", b"eu.1"])])
        refused = await publisher.publish([(topic, [b"us", b"eu"])], attributes=keys)
        assert list(refused) == [(0, 0)]
        assert "for the key 'us.1'" in str(refused[0, 0])
        batch = await read_all(source, 1)
        assert batch.bodies == [b"eu"]
        batch.finish()


async def test_a_direct_exchange_is_refused(rabbitmq: RabbitCluster, topic: str) -> None:
    rabbitmq.node.api("PUT", f"/exchanges/{VHOST}/{topic}", {"type": "direct", "durable": True})
    with pytest.raises(UsageError, match=f"{topic} is a direct exchange"):
        await drain(rabbitmq.engine(), topic)
    assert f"{topic}/own" not in queues(rabbitmq)


async def test_a_missing_exchange_is_named(rabbitmq: RabbitCluster, topic: str) -> None:
    with pytest.raises(TopicMissing, match=f"there is no exchange {topic} in the vhost / "):
        await drain(rabbitmq.engine(), topic)


async def test_a_queue_that_is_deleted_ends_a_run_until_empty(rabbitmq: RabbitCluster, topic: str) -> None:
    await rabbitmq.make_topic(topic, "own")
    await rabbitmq.fill(topic, BODIES[:10])
    async with reading(rabbitmq.engine(), topic, ends=EndConditions(until_empty=True)) as source:
        await read_all(source, 10)
        rabbitmq.node.api("DELETE", f"/queues/{VHOST}/{quote(f'{topic}/own', safe='')}")
        with pytest.raises(SourceDeleted, match=f"the channel {topic}/own was deleted"):
            async with asyncio.timeout(DEADLINE):
                await source.read()


async def test_a_queue_that_is_deleted_is_created_again(
    rabbitmq: RabbitCluster, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    await rabbitmq.make_topic(topic, "own")
    async with reading(rabbitmq.engine(), topic) as source:
        with caplog.at_level(logging.WARNING):
            rabbitmq.node.api("DELETE", f"/queues/{VHOST}/{quote(f'{topic}/own', safe='')}")
            await until(lambda: "was deleted" in caplog.text and source.connected)
        await publish(rabbitmq.engine(), topic, [b"a"])
        batch = await read_all(source, 1)
        assert batch.bodies == [b"a"]
        batch.finish()


# ── acknowledging ──


async def test_many_single_acknowledgements_reach_the_queue(rabbitmq: RabbitCluster, topic: str) -> None:
    """A channel passes on few at once, and drops the others when it is closed too early."""
    await rabbitmq.make_topic(topic, "own")
    await rabbitmq.fill(topic, BODIES)
    async with reading(rabbitmq.engine(), topic) as source:
        batch = await read_all(source, len(BODIES))
        for place in range(len(BODIES) - 1, 0, -1):
            batch.pick([place]).finish()
    assert bodies_of(await drain(rabbitmq.engine(), topic)) == BODIES[:1]


async def test_a_long_delay_waits_in_a_queue(rabbitmq: RabbitCluster, topic: str) -> None:
    """It takes no room among what may be in flight, and keeps key, headers, id and attempts."""
    await rabbitmq.make_topic(topic, "own")
    engine = rabbitmq.engine()
    given = Attributes(keys=[b"k", None], headers=[[("h", b"1"), ("h", b"2")], ()])
    await publish(engine, topic, [b"a", b"b"], given)
    async with reading(engine, topic, max_in_flight=2) as source:
        batch = await read_all(source, 2)
        ids = [message.id for message in batch.messages]
        begun = time.monotonic()
        batch.requeue(1500)
        await until(lambda: source.in_flight == 0)
        assert time.monotonic() - begun < 1.5
        assert not await source.is_drained_on(lambda *_: True, "--until-empty")
        again = await read_all(source, 2)
        assert time.monotonic() - begun >= 1.5
        assert [(message.body, message.id, message.attempts) for message in again.messages] == [
            (b"a", ids[0], 2), (b"b", ids[1], 2),
        ]  # fmt: skip
        assert again.delivered_more_than(1) == {0: 2, 1: 2}
        assert source.redelivered == 2
        found = again.attributes()
        assert found is not None
        assert (found.keys, [list(each) for each in found.headers or ()]) == (
            [b"k", None],
            [[("h", b"1"), ("h", b"2")], []],
        )
        again.requeue(1200)
        third = await read_all(source, 2)
        assert {message.attempts for message in third.messages} == {3}
        third.finish()
    names = {name: each for name, each in queues(rabbitmq).items() if name.startswith(f"{topic}/own.delay.")}
    assert sorted(names) == [f"{topic}/own.delay.1200", f"{topic}/own.delay.1500"]
    assert {each["arguments"]["x-expires"] - each["arguments"]["x-message-ttl"] for each in names.values()} == {600_000}
    await rabbitmq.until_left(topic, "own", 0)


async def test_a_delayed_message_outlives_its_reader(rabbitmq: RabbitCluster, topic: str) -> None:
    await rabbitmq.make_topic(topic, "own")
    await rabbitmq.fill(topic, [b"a"])
    async with reading(rabbitmq.engine(), topic) as source:
        (await read_all(source, 1)).requeue(2000)
        await until(lambda: source.in_flight == 0)
    async with reading(rabbitmq.engine(), topic) as source:
        batch = await read_all(source, 1)
        assert [message.attempts for message in batch.messages] == [2]
        batch.finish()


# ── connecting ──


async def test_a_vhost_that_does_not_exist(rabbitmq: RabbitCluster, topic: str) -> None:
    with pytest.raises(StartError, match=r"127\.0\.0\.1:\d+: .*vhost /nowhere not found"):
        await drain(rabbitmq.engine(options(vhost="/nowhere")), topic)


async def test_a_vhost_of_its_own(rabbitmq: RabbitCluster, topic: str) -> None:
    rabbitmq.node.api("PUT", f"/vhosts/{topic}")
    rights = {"configure": ".*", "write": ".*", "read": ".*"}
    rabbitmq.node.api("PUT", f"/permissions/{topic}/{rabbitmq.node.user}", rights)
    engine = rabbitmq.engine(options(vhost=topic))
    async with publishing(engine, topics=(topic,)) as publisher, reading(engine, topic) as source:
        assert await publisher.publish([(topic, [b"a"])]) == {}
        (await read_all(source, 1)).finish()
    assert await engine.identity() != await rabbitmq.engine().identity()
    for each, is_there in ((engine, True), (rabbitmq.engine(), False)):
        topics = each.topics()
        assert (topic in await topics.look()) is is_there
        await topics.close()


async def test_the_next_node_is_tried(rabbitmq: RabbitCluster, topic: str) -> None:
    await rabbitmq.make_topic(topic, "own")
    engine = rabbitmq.engine(url=f"amqp://127.0.0.1:1,{rabbitmq.node.address}")
    await publish(engine, topic, [b"a"])
    assert bodies_of(await drain(engine, topic)) == [b"a"]


async def test_a_reader_that_does_not_read_stays_connected(rabbitmq: RabbitCluster, topic: str) -> None:
    """Its memory is bounded, as the socket waits; heartbeats are sent meanwhile."""
    await rabbitmq.make_topic(topic, "own")
    await publish(rabbitmq.engine(), topic, [b"x" * 20_000] * 2000)
    async with reading(rabbitmq.engine(rabbitmq.noticing), topic) as source:
        await until(lambda: source.unread_bytes > 8_000_000)
        await asyncio.sleep(4)  # time itself is what this is about: four heartbeats
        assert source.unread_bytes < 12_000_000
        batch = await read_all(source, 2000)
        batch.finish()
        assert (source.received, source.redelivered, source.reconnects) == (2000, 0, 0)
    assert await drain(rabbitmq.engine(), topic) == []


async def test_a_user_who_may_not_publish(rabbitmq: RabbitCluster, topic: str) -> None:
    await rabbitmq.make_topic(topic, "own")
    rabbitmq.node.api("PUT", f"/users/{topic}", {"password": "p", "tags": ""})
    rabbitmq.node.api("PUT", f"/permissions/{VHOST}/{topic}", {"configure": "", "write": "", "read": ".*"})
    engine = rabbitmq.engine(environ={"QTOOLS_AMQP_USER": topic, "QTOOLS_AMQP_PASSWORD": "p"})
    async with publishing(engine, new_topics=None) as publisher:
        (error,) = (await publisher.publish([(topic, [b"a"])])).values()
        assert "ACCESS_REFUSED" in str(error)
        assert "\n" not in str(error)
    assert await drain(engine, topic) == []


@pytest.mark.parametrize("port", ["http", "epmd"])
async def test_a_port_of_something_else(rabbitmq: RabbitCluster, topic: str, port: str) -> None:
    number = rabbitmq.node.http_port if port == "http" else rabbitmq.node.epmd_port
    engine = rabbitmq.engine(url=f"amqp://127.0.0.1:{number}")
    with pytest.raises(StartError, match=f"127.0.0.1:{number}: the broker closed the connection"):
        async with publishing(engine):
            pass


async def test_a_broker_without_memory_blocks_publishers(rabbitmq: RabbitCluster, topic: str) -> None:
    """Publishes wait, also beyond the time of a heartbeat, and go on; a reader is not held up."""
    await rabbitmq.make_topic(topic, "own")
    await rabbitmq.fill(topic, [b"waits"])
    engine = rabbitmq.engine(rabbitmq.noticing)
    async with publishing(engine, retry_timeout=None) as publisher, publishing(engine, retry_timeout=1.0) as hasty:
        try:
            rabbitmq.node.evaluate("rabbit_alarm:set_alarm({{resource_limit, disk, node()}, []}).")
            first = asyncio.ensure_future(publisher.publish([(topic, [b"a"])]))
            with pytest.raises(BrokerError, match=r"BLOCKED .*it takes no messages for 1 s: low on disk"):
                await hasty.publish([(topic, [b"b"])])
            assert bodies_of(await drain(engine, topic)) == [b"waits"]
            await asyncio.sleep(3)  # three heartbeats
            assert not first.done()
        finally:
            rabbitmq.node.evaluate("rabbit_alarm:clear_alarm({resource_limit, disk, node()}).")
        async with asyncio.timeout(DEADLINE):
            assert await first == {}
    assert b"a" in bodies_of(await drain(engine, topic))
