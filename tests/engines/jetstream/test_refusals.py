"""Publishes that a stream, or the server, does not take: each is named, and all others are safe."""

from __future__ import annotations

import asyncio

import pytest
from harness.nats import NatsServer

from qtools.attributes import Attributes
from qtools.errors import AuthError, BrokerError, MessageRefused, StartError, TopicMissing
from tests.engines.jetstream.conftest import MakeNats
from tests.engines.jetstream.using import engine, streams
from tests.engines.reading import bodies_of, drain, publishing


async def test_a_subject_that_no_stream_stores(nats_server: NatsServer, topic: str) -> None:
    made = engine(nats_server.address)
    text = f"{topic}: no stream on {nats_server.address} stores this subject: use --create-topics default to create one"
    async with publishing(made, new_topics=None, new_topics_flag="--create-topics") as publisher:
        refused = await publisher.publish([(topic, [b"a", b"b"])])
        assert sorted(refused) == [(0, 0), (0, 1)]
        assert all(text in str(error) for error in refused.values())
    with pytest.raises(TopicMissing, match="no stream"):
        async with publishing(made, new_topics=None, topics=(topic,)):
            pass


async def test_a_subject_of_a_stream_with_wildcards(nats_server: NatsServer, topic: str) -> None:
    async with streams(nats_server) as api:
        await api.add_stream(name=topic, subjects=[f"{topic}.>"])
    made = engine(nats_server.address)
    async with publishing(made, new_topics=None) as publisher:
        assert await publisher.publish([(f"{topic}.a.b", [b"1"]), (f"{topic}.c", [b"2"])]) == {}
    assert bodies_of(await drain(made, f"{topic}.a.b", "one")) == [b"1"]
    assert bodies_of(await drain(made, f"{topic}.c", "two")) == [b"2"]
    listed = made.topics()
    assert {f"{topic}.a.b", f"{topic}.c"} <= await listed.look()
    await listed.close()


async def test_a_stream_that_is_full(nats_server: NatsServer, topic: str) -> None:
    async with streams(nats_server) as api:
        await api.add_stream(name=topic, subjects=[topic], max_msgs=5, discard="new")
    async with publishing(engine(nats_server.address)) as publisher:
        refused = await publisher.publish([(topic, [b"%d" % number for number in range(8)])])
        assert sorted(refused) == [(0, 5), (0, 6), (0, 7)]
        for error in refused.values():
            assert isinstance(error, BrokerError)
            assert "its stream is full (maximum messages exceeded): raise its limits" in str(error)
        assert publisher.published == 5


async def test_a_message_that_a_stream_does_not_take(nats_server: NatsServer, topic: str) -> None:
    async with streams(nats_server) as api:
        await api.add_stream(name=topic, subjects=[topic], max_msg_size=100)
    async with publishing(engine(nats_server.address)) as publisher:
        refused = await publisher.publish([(topic, [b"a", b"x" * 200, b"b"])])
        (error,) = refused.values()
        assert list(refused) == [(0, 1)]
        assert isinstance(error, MessageRefused)
        assert "it has 200 bytes" in str(error)


async def test_a_user_who_may_not_publish(make_nats: MakeNats) -> None:
    allowed = '"$JS.>", "_INBOX.>", "yes"'
    server = make_nats(
        [f"authorization {{ users = [ {{ user: u, password: p, permissions: {{ publish: [{allowed}] }} }} ] }}"]
    )
    environ = {"QTOOLS_NATS_USER": "u", "QTOOLS_NATS_PASSWORD": "p"}
    async with publishing(engine(server.address, environ)) as publisher:
        refused = await publisher.publish([("no", [b"a", b"b"]), ("yes", [b"c"])])
        assert sorted(refused) == [(0, 0), (0, 1)]
        assert all(isinstance(error, AuthError) and "Publish" in str(error) for error in refused.values())
        assert publisher.published == 1


async def test_a_stream_that_is_deleted_meanwhile(nats_server: NatsServer, topic: str) -> None:
    """It is created again, where that was asked for; else its messages are refused."""
    made = engine(nats_server.address)
    async with publishing(made) as creates, publishing(made, new_topics=None) as refuses:
        assert await creates.publish([(topic, [b"1"])]) == {}
        assert await refuses.publish([(topic, [b"2"])]) == {}
        async with streams(nats_server) as api:
            await api.delete_stream(topic)
        refused = await refuses.publish([(topic, [b"3", b"4"])])
        assert sorted(refused) == [(0, 0), (0, 1)]
        assert "no stream" in str(refused[0, 0])
        assert await creates.publish([(topic, [b"5", b"6"])]) == {}
    assert bodies_of(await drain(made, topic)) == [b"5", b"6"]


async def test_more_than_a_window_in_one_publish(nats_server: NatsServer, topic: str) -> None:
    bodies = [b"%d" % number for number in range(20_000)]
    made = engine(nats_server.address)
    async with publishing(made) as publisher:
        assert await publisher.publish([(topic, bodies)]) == {}
        assert publisher.published == 20_000
    assert bodies_of(await drain(made, topic)) == bodies


async def test_large_messages(nats_server: NatsServer, topic: str) -> None:
    """Many of them are more than a window, and more than one request for messages may bring."""
    made = engine(nats_server.address)
    bodies = [b"%d" % number * 400_000 for number in range(10, 60)]
    async with publishing(made) as publisher:
        assert await publisher.publish([(topic, bodies)]) == {}
    assert bodies_of(await drain(made, topic)) == bodies


async def test_a_message_larger_than_one_request_may_bring(make_nats: MakeNats) -> None:
    server = make_nats(["max_payload: 32MB", "max_pending: 128MB"])
    made = engine(server.address)
    bodies = [b"small", b"x" * 20_000_000, b"small too", b"y" * 17_000_000]
    async with publishing(made) as publisher:
        assert await publisher.publish([("t", bodies)]) == {}
    assert [len(body) for body in bodies_of(await drain(made, "t"))] == [len(body) for body in bodies]


async def test_headers_that_make_a_message_too_large(nats_server: NatsServer, topic: str) -> None:
    async with publishing(engine(nats_server.address)) as publisher:
        columns = [Attributes(headers=[[("a", b"1" * 100)], ()])]
        bodies = [b"x" * (1024 * 1024 - 50), b"x" * (1024 * 1024)]
        refused = await publisher.publish([(topic, bodies)], attributes=lambda: columns)  # type: ignore[arg-type]
        assert list(refused) == [(0, 0)]
        assert "with its headers" in str(refused[0, 0])


async def test_a_publish_waits_for_the_server_and_no_longer_than_it_may(make_nats: MakeNats) -> None:
    server = make_nats()
    made = engine(server.address)
    async with publishing(made, retry_timeout=20.0) as publisher:
        assert await publisher.publish([("a", [b"1"])]) == {}
        await asyncio.to_thread(server.stop)
        waiting = asyncio.ensure_future(publisher.publish([("a", [b"2"]), ("b", [b"3"])]))
        await asyncio.sleep(0)
        await asyncio.to_thread(server.start)
        assert await waiting == {}
        assert publisher.reconnects == 1
    assert bodies_of(await drain(made, "a")) == [b"1", b"2"]


@pytest.mark.parametrize("topic_", ["a..b", ".a", "a."])
async def test_a_topic_that_is_no_subject(nats_server: NatsServer, topic_: str) -> None:
    with pytest.raises(StartError, match="no empty word between its dots"):
        async with publishing(engine(nats_server.address), topics=(topic_,)):
            pass
