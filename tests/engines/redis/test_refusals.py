"""What a server refuses: for one topic, for now, or for good. Each is one line, and nothing is lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.redis import DURABLE, VALKEY, RedisFailed, RedisServer
from harness.waiting import wait_until

from qtools.engines.choice import ConnectionFlags
from qtools.errors import AuthError, BrokerError, MessageRefused, NetworkError, StartError, TopicMissing
from tests.engines.clusters.redis import RedisCluster
from tests.engines.reading import BODIES, drain, publish, publishing, read_all, reading, until
from tests.engines.redis.conftest import start
from tests.engines.redis.test_groups import ask

OPTIONS = ("appendonly", "appendfsync")


async def test_a_topic_that_is_no_stream_is_refused_and_all_else_is_safe(redis: RedisCluster, topic: str) -> None:
    await redis.make_topic(topic, "own")
    ask(redis, "SET", f"{topic}-text", "x")
    async with publishing(redis.engine()) as publisher:
        refused = await publisher.publish([(topic, [b"a"]), (f"{topic}-text", [b"b", b"c"]), (topic, [b"d"])])
    assert sorted(refused) == [(1, 0), (1, 1)]
    for error in refused.values():
        assert isinstance(error, BrokerError)
        assert str(error) == (
            f"{redis.server.address}: topic {topic}-text: the key exists and is no stream: use another topic, or delete"
            " the key"
        )
    assert await redis.drain(topic, "own") == [b"a", b"d"]


async def test_a_stream_that_does_not_exist_is_created_only_if_asked(redis: RedisCluster, topic: str) -> None:
    async with publishing(redis.engine(), new_topics=None, new_topics_flag="--create-topics") as publisher:
        (refused,) = (await publisher.publish([(topic, [b"a"])])).values()
        assert str(refused).endswith(
            f"topic {topic}: there is no such stream: create it, or use --create-topics default"
        )
    with pytest.raises(TopicMissing, match="there is no such stream"):
        async with publishing(redis.engine(), new_topics=None, topics=(topic,)):
            pass
    assert ask(redis, "EXISTS", topic) == 0
    async with publishing(redis.engine(), topics=(topic,)):
        assert (ask(redis, "XLEN", topic), ask(redis, "XINFO", "GROUPS", topic)) == (0, [])
    ask(redis, "DEL", topic)
    ask(redis, "SET", topic, "x")
    with pytest.raises(StartError, match="is no stream"):
        async with publishing(redis.engine(), topics=(topic,)):
            pass


@pytest.mark.parametrize(("setting", "on", "off"), [("maxmemory", "1", "0"), ("min-replicas-to-write", "1", "0")])
async def test_what_passes_by_itself_is_waited_for(
    redis: RedisCluster, topic: str, setting: str, on: str, off: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A full memory, and too few replicas. The order stays."""
    await redis.make_topic(topic, "own")
    async with publishing(redis.engine()) as publisher:
        assert await publisher.publish([(topic, BODIES[:10])]) == {}
        ask(redis, "CONFIG", "SET", setting, on)
        try:
            later = [asyncio.ensure_future(publisher.publish([(topic, [body])])) for body in BODIES[10:30]]
            await until(lambda: "trying again" in caplog.text)
            assert not any(each.done() for each in later)
        finally:
            ask(redis, "CONFIG", "SET", setting, off)
        assert await asyncio.gather(*later) == [{}] * 20
        assert publisher.resent == 0
    assert await redis.drain(topic, "own") == BODIES[:30]


async def test_what_does_not_pass_in_time_is_an_error(redis: RedisCluster, topic: str) -> None:
    await redis.make_topic(topic, "own")
    async with publishing(redis.engine(), retry_timeout=1.0) as publisher:
        ask(redis, "CONFIG", "SET", "maxmemory", "1")
        try:
            with pytest.raises(BrokerError, match=r"its memory is full \(maxmemory\)"):
                await publisher.publish([(topic, [b"lost"])])
        finally:
            ask(redis, "CONFIG", "SET", "maxmemory", "0")
        assert await publisher.publish([(topic, [b"a"])]) == {}
    assert await redis.drain(topic, "own") == [b"a"]


async def test_a_user_that_may_not_do_everything(
    redis: RedisCluster, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It may not ask for settings, run scripts, or use other topics."""
    await redis.make_topic(topic, "own")
    rules = f"on >secret ~{topic} +@read +@write +@stream +@connection -@scripting -client|unblock"
    ask(redis, "ACL", "SETUSER", "narrow", *rules.split())
    environ = {"QTOOLS_REDIS_USER": "narrow", "QTOOLS_REDIS_PASSWORD": "secret"}
    engine = redis.engine(environ=environ)
    async with publishing(engine) as publisher:
        refused = await publisher.publish([(topic, [b"a"]), (f"{topic}-other", [b"b"])])
        assert list(refused) == [(1, 0)]
        assert isinstance(refused[1, 0], AuthError)
        assert "this user may not do that: NOPERM" in str(refused[1, 0])
    assert "it is not known whether" in caplog.text
    async with reading(engine, topic) as source:
        batch = await source.read()
        assert batch is not None
    assert len(await drain(engine, topic)) == 1
    assert await engine.identity() == frozenset({("redis", "address", redis.server.address, "0")})
    with pytest.raises(StartError, match="NOPERM"):
        await drain(engine, f"{topic}-other")
    names = [each[1] for each in ask(redis, "XINFO", "CONSUMERS", topic, "own")]
    assert names in ([], [b"qtools-released"])


async def test_a_server_that_closes_at_a_message_that_is_too_large(redis: RedisCluster, topic: str) -> None:
    """Its limit is not known: this user may not ask it."""
    await redis.make_topic(topic, "own")
    ask(redis, "ACL", "SETUSER", "asks-nothing", "on", ">secret", "~*", "+@all", "-config")
    engine = redis.engine(environ={"QTOOLS_REDIS_USER": "asks-nothing", "QTOOLS_REDIS_PASSWORD": "secret"})
    async with publishing(engine) as publisher:
        refused = await publisher.publish([(topic, [b"a", b"b", b"x" * 2_000_000, b"c"])])
        assert list(refused) == [(0, 2)]
        assert isinstance(refused[0, 2], MessageRefused)
        assert await publisher.publish([(topic, [b"d"])]) == {}
    assert await redis.drain(topic, "own") == [b"a", b"b", b"c", b"d"]


async def test_streams_are_trimmed_if_asked(redis: RedisCluster, topic: str) -> None:
    await publish(redis.engine(ConnectionFlags({}, {"max_length": "100"})), topic, BODIES)
    assert 100 <= ask(redis, "XLEN", topic) < 300


@pytest.mark.parametrize(
    ("flags", "level", "text"),
    [
        (["--appendonly", "no"], logging.WARNING, "has its messages in memory (appendonly is no)"),
        (list(DURABLE), logging.INFO, "writes each message to disk before it confirms it"),
        (["--appendonly", "yes"], logging.INFO, "to disk each second (appendfsync is everysec)"),
        (["--appendonly", "yes", "--appendfsync", "no"], logging.WARNING, "(appendfsync is no)"),
    ],
)
async def test_what_a_confirmation_means_is_said_once(
    valkey: RedisCluster, topic: str, flags: list[str], level: int, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in zip(flags[::2], flags[1::2], strict=True):
        if name.removeprefix("--") in OPTIONS:
            ask(valkey, "CONFIG", "SET", name.removeprefix("--"), value)
    if "--appendfsync" not in flags:
        ask(valkey, "CONFIG", "SET", "appendfsync", "everysec")
    caplog.set_level(logging.INFO)
    async with publishing(valkey.engine()) as publisher:
        ask(valkey, "CLIENT", "KILL", "TYPE", "normal")
        assert await publisher.publish([(topic, [b"a"])]) == {}
        assert publisher.reconnects == 1
    found = [record for record in caplog.records if text in record.getMessage()]
    assert [record.levelno for record in found] == [level]


# ── servers of another kind ──


@pytest.fixture
def replica(valkey: RedisCluster, tmp_path: Path) -> Iterator[RedisServer]:
    made = RedisServer(VALKEY, tmp_path / "replica", ["--replicaof", f"127.0.0.1 {valkey.server.port}"])
    made.flags = ["--replicaof", "127.0.0.1", str(valkey.server.port)]
    made.start()
    yield made
    made.close()


async def test_a_replica_is_refused_and_its_master_found(
    valkey: RedisCluster, topic: str, replica: RedisServer
) -> None:
    await valkey.make_topic(topic, "own")
    url = f"redis://{replica.address}"
    with pytest.raises(StartError, match="it is a replica, which accepts no writes: give the address of the master"):
        await publish(valkey.engine(url=url), topic, [b"a"])
    both = valkey.engine(url=f"{url},{valkey.server.address}")
    await publish(both, topic, [b"a"])
    assert len(await drain(both, topic)) == 1


async def test_a_master_that_becomes_a_replica_is_left(
    valkey: RedisCluster, topic: str, replica: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A failover: what is refused meanwhile goes to the new master."""
    await valkey.make_topic(topic, "own")
    with replica.client() as client:
        wait_until(lambda: b"master_link_status:up" in client.do("INFO", "replication"))
        both = valkey.engine(url=f"redis://{valkey.server.address},{replica.address}")
        async with publishing(both) as publisher, reading(both, topic) as source:
            assert await publisher.publish([(topic, [b"a"])]) == {}
            (await read_all(source, 1)).finish()
            wait_until(lambda: client.do("XLEN", topic) == 1)
            ask(valkey, "REPLICAOF", "127.0.0.1", replica.port)
            client.do("REPLICAOF", "NO", "ONE")
            assert await publisher.publish([(topic, [b"b"])]) == {}
            assert (await read_all(source, 1)).bodies == [b"b"]
        assert [fields[1] for _, fields in client.do("XRANGE", topic, "-", "+")] == [b"a", b"b"]


async def test_a_node_of_a_cluster(tmp_path: Path, topic: str) -> None:
    """It serves the streams that it has, and names the node that has another one."""
    made = start(VALKEY, tmp_path / "node", ["--cluster-enabled", "yes"])
    try:
        ask(made, "CLUSTER", "ADDSLOTSRANGE", 0, 8000)
        ask(made, "CLUSTER", "ADDSLOTSRANGE", 8001, 16383)
        wait_until(lambda: b"cluster_state:ok" in ask(made, "CLUSTER", "INFO"))
        await publish(made.engine(), topic, [b"a"])
        assert len(await drain(made.engine(), topic)) == 1
        slot = ask(made, "CLUSTER", "KEYSLOT", f"{topic}-moved")
        ask(made, "CLUSTER", "DELSLOTS", slot)
        made.server.client().close()
        with pytest.raises((BrokerError, NetworkError, StartError)) as caught:
            async with publishing(made.engine(), retry_timeout=1.0) as publisher:
                await publisher.publish([(f"{topic}-moved", [b"a"])])
        assert "cluster is down" in str(caught.value)
    finally:
        made.close()


async def test_a_sentinel_is_refused(tmp_path: Path, topic: str) -> None:
    config = tmp_path / "sentinel.conf"
    config.write_text("")
    made = start(VALKEY, tmp_path / "sentinel")
    made.close()
    made.server.flags = ["--sentinel"]
    server = made.server
    words = server.command()
    server.command = lambda: [words[0], str(config), "--sentinel", "--port", str(server.port)]  # type: ignore[method-assign]
    made.start()
    try:
        with pytest.raises(StartError, match="it is a Sentinel, and no server"):
            await publish(made.engine(), topic, [b"a"])
    finally:
        made.close()


def test_moved_names_the_node() -> None:
    from qtools.engines.redis.protocol.replies import ErrorReply
    from qtools.engines.redis.server_errors import error_of

    error = error_of(ErrorReply("MOVED 3999 127.0.0.1:6381"), "h:6379", "events")
    assert str(error) == "h:6379: topic events: it is on another node of the cluster: use redis://127.0.0.1:6381"


def test_the_other_client_returns_errors(redis: RedisCluster) -> None:
    found: Any = ask(redis, "XADD")
    assert isinstance(found, RedisFailed)
