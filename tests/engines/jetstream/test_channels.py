"""Consumers that exist already, and consumers that go away while they are read."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from harness.nats import NatsServer

from qtools.admin.rows import left_in
from qtools.engines.administration import administered, delete
from qtools.engines.contract import SourceOptions
from qtools.engines.jetstream.consume.source import JetStreamSource
from qtools.errors import PeerError, SourceDeleted, TopicMissing, UsageError
from qtools.names import Subscription
from tests.engines.jetstream.conftest import MakeNats
from tests.engines.jetstream.using import engine, streams
from tests.engines.reading import BODIES, bodies_of, drain, publish, read, read_all, reading, until


async def start_fails(server: NatsServer, topic: str, channel: str, text: str) -> None:
    with pytest.raises((UsageError, TopicMissing), match=text) as caught:
        async with reading(engine(server.address), topic, channel):
            pass
    assert "\n" not in str(caught.value)


async def test_consumers_that_cannot_be_read(nats_server: NatsServer, topic: str) -> None:
    from nats.js.api import AckPolicy, ConsumerConfig

    async with streams(nats_server) as api:
        await api.add_stream(name=topic, subjects=[f"{topic}.*"])
        for name, config in {
            "push": ConsumerConfig(deliver_subject=f"{topic}-push", ack_policy=AckPolicy.EXPLICIT),
            "none": ConsumerConfig(ack_policy=AckPolicy.NONE, filter_subject=f"{topic}.a"),
            "other": ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, filter_subject=f"{topic}.b"),
            "whole": ConsumerConfig(ack_policy=AckPolicy.EXPLICIT),
        }.items():
            config.durable_name = name
            await api.add_consumer(topic, config)
    own = f"{topic}.a"
    await start_fails(nats_server, own, "push", "is a push consumer")
    await start_fails(nats_server, own, "none", "does not acknowledge each message")
    await start_fails(nats_server, own, "other", rf"reads {topic}\.b: choose another channel for {topic}\.a")
    await start_fails(nats_server, own, "whole", rf"reads {topic}\.\*: choose another channel")
    await start_fails(nats_server, own, "a.b", "no dot in its name: write a_b")
    await start_fails(nats_server, "nothing", "own", "no stream on .* stores this subject")


async def rows_of(server: NatsServer) -> dict[str, dict[str, Any]]:
    statistics = engine(server.address).statistics()
    try:
        return {row["topic"]: row for row in await statistics.topics()}
    finally:
        await statistics.close()


@pytest.mark.parametrize("prefix", ["a-", "z-"])  # the server lists streams by name
async def test_a_mirror_does_not_hide_the_channels_of_its_topic(
    nats_server: NatsServer, topic: str, prefix: str
) -> None:
    from nats.js.api import StreamSource

    async with streams(nats_server) as api:
        await api.add_stream(name=topic, subjects=[f"{topic}.*"])
        mirror = await api.add_stream(name=f"{prefix}{topic}", mirror=StreamSource(name=topic))
        made, name = engine(nats_server.address), f"{topic}.x"
        await publish(made, name, BODIES[:10])
        async with reading(made, name, limit=4) as source:
            (await read_all(source, 4)).finish()
        async with asyncio.timeout(20):
            while (await api.stream_info(mirror.config.name)).state.messages < 10:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    row = (await rows_of(nats_server))[name]
    assert row["depth"] == 10
    assert [each["channel"] for each in row["channels"]] == ["own"]


async def test_a_topic_that_only_a_mirror_holds_is_listed(nats_server: NatsServer, topic: str) -> None:
    from nats.js.api import StreamSource

    made = engine(nats_server.address)
    await publish(made, topic, BODIES[:10])
    async with streams(nats_server) as api:
        await api.add_stream(name=f"{topic}-copy", mirror=StreamSource(name=topic))
        async with asyncio.timeout(20):
            while (await api.stream_info(f"{topic}-copy")).state.messages < 10:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await api.delete_stream(topic)
    assert (await rows_of(nats_server))[topic]["depth"] == 10


async def test_counts_of_a_channel(nats_server: NatsServer, topic: str) -> None:
    """What is in flight is left once, and how many messages have come is not known."""
    made = engine(nats_server.address)
    await publish(made, topic, BODIES[:10])
    async with reading(made, topic, limit=4) as source:
        batch = await read_all(source, 4)
        (channel,) = (await rows_of(nats_server))[topic]["channels"]
        assert (channel["depth"], channel["in_flight"], left_in(channel)) == (6, 4, 10)
        assert channel["messages"] is None
        batch.finish()


async def test_a_pause_leaves_no_subscriber_behind(nats_server: NatsServer, topic: str) -> None:
    made = engine(nats_server.address)
    await publish(made, topic, BODIES[:10])
    async with reading(made, topic) as source:
        assert isinstance(source, JetStreamSource)
        await read_all(source, 10)
        connection = source._client._connection
        assert connection is not None
        subscribers = connection._subscribers
        before = len(subscribers)
        for _ in range(5):
            source.rest()
            source.resume(None)
        await publish(made, topic, [b"more"])
        assert (await read_all(source, 1)).bodies == [b"more"]
        await until(lambda: len(subscribers) == before)


async def test_a_channel_that_is_deleted_while_it_is_read(nats_server: NatsServer, topic: str) -> None:
    made = engine(nats_server.address)
    await publish(made, topic, [b"a"])
    async with reading(made, topic) as source:
        (await read_all(source, 1)).finish()
        async with streams(nats_server) as api:
            await api.delete_consumer(topic, "own")
        with pytest.raises(SourceDeleted, match=f"the channel {topic}/own was deleted"):
            await asyncio.wait_for(source.read(), 20)


async def test_a_stream_that_is_deleted_while_it_is_read(nats_server: NatsServer, topic: str) -> None:
    made = engine(nats_server.address)
    await publish(made, topic, [b"a"])
    async with reading(made, topic) as source:
        (await read_all(source, 1)).finish()
        async with streams(nats_server) as api:
            await api.delete_stream(topic)
        with pytest.raises(SourceDeleted, match=f"the topic {topic} was deleted"):
            await asyncio.wait_for(source.read(), 20)


async def test_a_temporary_channel_goes_on_after_a_restart(make_nats: MakeNats) -> None:
    """The server has forgotten it; what was published meanwhile comes all the same."""
    server = make_nats()
    made = engine(server.address)
    await publish(made, "t", [b"before"])
    async with reading(made, "t", "look#ephemeral") as source:
        await publish(made, "t", [b"1"])
        (await read_all(source, 1)).finish()
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(server.start)
        await publish(made, "t", [b"2", b"3"])
        found = await read(source, 2)
        assert [body for batch in found for body in batch.bodies] == [b"2", b"3"]


async def test_what_is_in_flight_is_acknowledged_after_a_reconnect(make_nats: MakeNats) -> None:
    """Over another connection than the one that brought it: nothing comes twice."""
    server = make_nats()
    made = engine(server.address)
    await publish(made, "t", BODIES[:200])
    async with reading(made, "t") as source:
        batch = await read_all(source, 200)
        await asyncio.to_thread(server.stop)
        batch.pick(range(100)).finish()  # while no server is there
        await asyncio.to_thread(server.start)
        batch.pick(range(100, 200)).finish()
        assert source.in_flight == 0
        async with asyncio.timeout(30):
            await source.wait_until_empty()
        assert (source.received, source.redelivered, source.reconnects) == (200, 0, 1)


async def test_a_limit_with_one_busy_and_one_idle_topic(nats_server: NatsServer, topic: str) -> None:
    """An idle topic does not keep the last messages of a limit from a busy one."""
    made = engine(nats_server.address)
    idle = f"{topic}-idle"
    await publish(made, topic, BODIES[:100])
    await publish(made, idle, [b"x"])
    await drain(made, idle)
    source = made.source([Subscription(idle, "own"), Subscription(topic, "own")], SourceOptions(limit=60))
    await source.prepare()
    await source.start()
    try:
        found = 0
        async with asyncio.timeout(20):
            while (batch := await source.read()) is not None:
                found += len(batch)
                batch.finish()
        assert found == 60
    finally:
        await source.close()


async def test_a_work_queue_keeps_its_messages_from_a_look(nats_server: NatsServer, topic: str) -> None:
    """Its stream deletes what is finished: a channel that the user did not choose must not take it."""
    async with streams(nats_server) as api:
        await api.add_stream(name=topic, subjects=[topic], retention="workqueue")
    made = engine(nats_server.address)
    await publish(made, topic, [b"a", b"b"])
    look = Subscription(topic, "tail#ephemeral")
    options = SourceOptions(guarded=(look,), advice=lambda topic, count: f"{count} of {topic} would be lost")
    source = made.source([look], options)
    with pytest.raises(UsageError, match=f"2 of {topic} would be lost"):
        await source.prepare()
    await source.close()
    assert bodies_of(await drain(made, topic)) == [b"a", b"b"]


async def test_a_message_of_another_program(nats_server: NatsServer, topic: str) -> None:
    """Its headers are kept, and its sequence is its id."""
    made = engine(nats_server.address)
    async with streams(nats_server) as api:
        await api.add_stream(name=topic, subjects=[topic])
        await api.publish(topic, b"1", headers={"A": "x y", "Nats-Msg-Id": "m1"})
        again = await api.publish(topic, b"1", headers={"Nats-Msg-Id": "m1"})
        assert again.duplicate
        await api.publish(topic, b"2")
    async with reading(made, topic) as source:
        batch = await read_all(source, 2)
        found = batch.attributes()
        assert found is not None
        assert [dict(headers) for headers in found.headers or ()] == [{"A": b"x y", "Nats-Msg-Id": b"m1"}, {}]
        assert [int(message.id, 16) for message in batch.messages] == [1, 2]
        batch.finish()


async def test_topics_and_channels_are_deleted(nats_server: NatsServer, topic: str) -> None:
    """Of a stream with other subjects, only the messages of the topic."""
    made = engine(nats_server.address)
    async with streams(nats_server) as api:
        await api.add_stream(name=topic, subjects=[f"{topic}.*"])
        await publish(made, f"{topic}.a", [b"1"])
        await publish(made, f"{topic}.b", [b"2"])
        assert bodies_of(await drain(made, f"{topic}.a", "one")) == [b"1"]
        await delete(made, f"{topic}.a", "one")
        assert (await api.stream_info(topic)).state.consumer_count == 0
        await delete(made, f"{topic}.a")
        assert (await api.stream_info(topic)).state.messages == 1
        await api.update_stream(name=topic, subjects=[f"{topic}.b"])
        await delete(made, f"{topic}.b")
        assert topic not in {info.config.name for info in await api.streams_info()}
        await delete(made, f"{topic}.b")


async def test_what_is_not_read_is_bounded_in_bytes(nats_server: NatsServer, topic: str) -> None:
    """However many messages may be in flight."""
    made = engine(nats_server.address)
    bodies = [b"x" * 500_000] * 200
    await publish(made, topic, bodies)
    async with reading(made, topic, max_in_flight=100_000) as source:
        most = 0
        for _ in range(50):
            await asyncio.sleep(0.02)  # nothing reads, and time itself is what this is about
            most = max(most, source.unread_bytes)
        assert 10_000_000 < most < 60_000_000
        found = 0
        async with asyncio.timeout(30):
            while found < len(bodies):
                batch = await source.read()
                assert batch is not None
                found += len(batch)
                batch.finish()


async def test_a_channel_that_is_read_is_not_emptied(nats_server: NatsServer, topic: str) -> None:
    """Its reader would lose its consumer. A topic is emptied all the same; one that does not exist is named."""
    made = administered(engine(nats_server.address))
    assert await made.create(topic, "own")
    assert not await made.create(topic, "own")
    await publish(made, topic, [b"a", b"b"])
    async with reading(made, topic) as source:
        (await read_all(source, 2)).finish()
        with pytest.raises(PeerError, match=f"^{topic}/own is being read: end its readers first"):
            await made.empty(topic, "own")
        await publish(made, topic, [b"c"])
        (await read_all(source, 1)).finish()
    await made.empty(topic)
    assert await drain(made, topic, "new") == []
    for missing in ((f"{topic}-no", ""), (topic, "no")):
        with pytest.raises(TopicMissing):
            await made.empty(*missing)
