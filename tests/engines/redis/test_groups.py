"""What becomes of pending entries: of dead consumers, deleted entries, deleted groups and streams; other programs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from harness.redis import RedisClient

from qtools.engines.choice import ConnectionFlags
from qtools.engines.contract import EndConditions
from qtools.engines.redis.consume import group_channel as group_module
from qtools.engines.redis.consume import source as source_module
from qtools.engines.redis.consume.group_channel import RELEASED
from qtools.errors import SourceDeleted, StartError, TopicMissing
from tests.engines.clusters.redis import RedisCluster
from tests.engines.reading import BODIES, EMPTY, bodies_of, drain, finish_all, read_all, reading, until

SOME = BODIES[:100]


def ask(redis: RedisCluster, *words: str | bytes | int) -> Any:
    client = redis.server.client()
    try:
        return client.do(*words)
    finally:
        client.close()


def consumers(redis: RedisCluster, topic: str) -> dict[str, int]:
    """The consumers of the group `own`, with how many entries are pending for each."""
    found = [dict(zip(each[::2], each[1::2], strict=True)) for each in ask(redis, "XINFO", "CONSUMERS", topic, "own")]
    return {each[b"name"].decode(): each[b"pending"] for each in found}


async def test_what_another_program_has_left_is_taken_after_the_timeout(redis: RedisCluster, topic: str) -> None:
    await redis.make_topic(topic, "own")
    await redis.fill(topic, SOME)
    ask(redis, "XREADGROUP", "GROUP", "own", "dead", "COUNT", 30, "STREAMS", topic, ">")
    ask(redis, "XREADGROUP", "GROUP", "own", "dead", "COUNT", 10, "STREAMS", topic, "0")
    begun = asyncio.get_running_loop().time()
    found = await drain(redis.engine(), topic)
    assert 1.5 < asyncio.get_running_loop().time() - begun < 20
    assert sorted(bodies_of(found)) == sorted(SOME)
    attempts = {message.body: message.attempts for message in found}
    assert [attempts[body] for body in SOME] == [3] * 10 + [2] * 20 + [1] * 70


async def test_a_reader_leaves_no_consumer_and_what_it_gave_back_is_taken_at_once(
    redis: RedisCluster, topic: str
) -> None:
    await redis.make_topic(topic, "own")
    await redis.fill(topic, SOME)
    async with reading(redis.engine(), topic) as source:
        batch = await read_all(source, 100)
        assert list(consumers(redis, topic).values()) == [100]
        batch.pick(range(60)).finish()
    assert consumers(redis, topic) == {RELEASED: 40}
    async with reading(redis.engine(), topic) as source:
        async with asyncio.timeout(1.0):
            again = await read_all(source, 40)
        assert {message.attempts for message in again.messages} == {2}
        again.finish()
    assert consumers(redis, topic) == {RELEASED: 0}


async def test_a_consumer_that_is_left_behind_is_deleted_only_when_it_holds_nothing(
    redis: RedisCluster, topic: str
) -> None:
    from qtools.engines.redis.connect import connect
    from qtools.engines.redis.protocol import commands

    await redis.make_topic(topic, "own")
    await redis.fill(topic, SOME)
    for name in ("qtools-holds", "qtools-holds-nothing", "of-another-program"):
        ask(redis, "XREADGROUP", "GROUP", "own", name, "COUNT", 3, "STREAMS", topic, ">")
    for name in ("qtools-holds-nothing", "of-another-program"):
        pending = ask(redis, "XPENDING", topic, "own", "-", "+", 10, name)
        ask(redis, "XACK", topic, "own", *(ident for ident, *_ in pending))
    connection = await connect(redis.engine().settings)  # type: ignore[attr-defined]
    request = commands.delete_consumers(topic, "own", "qtools-holds", "qtools-", RELEASED, 0)
    assert await connection.request(request).done == [1]
    await connection.drop()
    assert consumers(redis, topic) == {"qtools-holds": 3, "of-another-program": 0}


async def test_pending_entries_that_were_deleted_hold_up_nothing(
    redis: RedisCluster, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    await redis.make_topic(topic, "own")
    await redis.fill(topic, SOME)
    ask(redis, "XREADGROUP", "GROUP", "own", "dead", "COUNT", 50, "STREAMS", topic, ">")
    ask(redis, "XTRIM", topic, "MAXLEN", 80)
    found = bodies_of(await drain(redis.engine(), topic))
    assert sorted(found) == sorted(SOME[20:])
    counts = [record.args[1] for record in caplog.records if "that were deleted" in record.getMessage()]  # type: ignore[index]
    assert sum(counts) == 20  # type: ignore[arg-type]


async def test_a_requeued_message_that_was_deleted_does_not_come_again(
    redis: RedisCluster, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    await redis.make_topic(topic, "own")
    await redis.fill(topic, SOME)
    async with reading(redis.engine(), topic, ends=EMPTY) as source:
        batch = await read_all(source, 100)
        ending = asyncio.ensure_future(source.wait_for_end())
        batch.pick(range(2)).requeue(200)
        batch.pick(range(2, 100)).finish()
        ask(redis, "XDEL", topic, ask(redis, "XRANGE", topic, "-", "+", "COUNT", 1)[0][0])
        assert bodies_of(await finish_all(source)) == SOME[1:2]
        assert await ending
    assert "before they were finished: 1" in caplog.text


async def test_a_limit_waits_for_a_requeued_message(redis: RedisCluster, topic: str) -> None:
    await redis.make_topic(topic, "own")
    await redis.fill(topic, SOME)
    async with reading(redis.engine(), topic, limit=10) as source:
        batch = await read_all(source, 10)
        batch.pick([0]).requeue(200)
        batch.pick(range(1, 10)).finish()
        assert bodies_of(await finish_all(source)) == SOME[:1]
    assert await redis.left(topic, "own") == 90


async def test_requeued_messages_that_wait_are_bounded(
    redis: RedisCluster, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that fails with a growing delay must not take in the whole topic."""
    monkeypatch.setattr(source_module, "MOST_UNFINISHED", 60)
    await redis.make_topic(topic, "own")
    await redis.fill(topic, SOME)
    async with reading(redis.engine(), topic, max_in_flight=20) as source:
        for _ in range(3):
            (await read_all(source, 20)).requeue(600)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(source.read(), 0.3)
        assert sum(consumers(redis, topic).values()) == 60
        found: list[bytes] = []
        while len(found) < 100:
            batch = await read_all(source, 1)
            found += batch.bodies
            batch.finish()
        assert sorted(found) == sorted(SOME)
    assert await redis.left(topic, "own") == 0


async def test_what_waits_is_touched_in_commands_of_a_bounded_size(
    redis: RedisCluster, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_module, "PAGE", 30)
    touched: list[int] = []
    touch = group_module.GroupChannel.touch

    def noted(channel: group_module.GroupChannel, ids: Sequence[bytes]) -> None:
        touched.append(len(ids))
        touch(channel, ids)

    monkeypatch.setattr(group_module.GroupChannel, "touch", noted)
    await redis.make_topic(topic, "own")
    await redis.fill(topic, SOME)
    async with reading(redis.engine(), topic) as source:
        (await read_all(source, 100)).requeue(60_000)
        await until(lambda: sum(touched) >= 100)
    assert max(touched) <= 30


async def test_a_reply_that_was_lost_is_read_again(redis: RedisCluster, topic: str) -> None:
    """The server has given entries to our consumer, and the connection ended before they were here."""
    await redis.make_topic(topic, "own")
    await redis.fill(topic, SOME)
    slow = ConnectionFlags({"msg_timeout": 60_000}, {})  # nothing is taken by its age
    async with reading(redis.engine(slow), topic, limit=10) as source:
        batch = await read_all(source, 10)
        (name,) = consumers(redis, topic)
        ask(redis, "XREADGROUP", "GROUP", "own", name, "COUNT", 20, "STREAMS", topic, ">")
        source.resume(None)
        ask(redis, "CLIENT", "KILL", "TYPE", "normal")
        rest = await read_all(source, 90)
        assert source.reconnects == 1
        assert sorted(batch.bodies + rest.bodies) == sorted(SOME)
        batch.finish()
        rest.finish()
        assert source.acknowledgements_failed == 0
    assert await redis.left(topic, "own") == 0


async def test_a_group_that_was_deleted_is_made_again(
    redis: RedisCluster, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    await redis.make_topic(topic, "own")
    await redis.fill(topic, SOME)
    async with reading(redis.engine(), topic) as source:
        batch = await read_all(source, 100)
        ask(redis, "XGROUP", "DESTROY", topic, "own")
        batch.finish()
        await until(lambda: "was made again" in caplog.text)
        await redis.fill(topic, BODIES[100:110])
        assert (await read_all(source, 10)).bodies == BODIES[100:110]
        assert source.acknowledgements_failed == 100
        ask(redis, "DEL", topic)
        await redis.fill(topic, BODIES[:5])
        assert (await read_all(source, 5)).bodies == BODIES[:5]


async def test_a_run_to_the_end_fails_when_its_group_was_deleted(redis: RedisCluster, topic: str) -> None:
    await redis.make_topic(topic, "own")
    await redis.fill(topic, SOME)
    async with reading(redis.engine(), topic, ends=EndConditions(until_empty=True)) as source:
        await read_all(source, 100)
        ending = asyncio.ensure_future(source.wait_for_end())
        ask(redis, "XGROUP", "DESTROY", topic, "own")
        with pytest.raises(SourceDeleted, match=f"the channel {topic}/own was deleted"):
            await asyncio.gather(ending, finish_all(source))


async def test_entries_of_other_programs(redis: RedisCluster, topic: str) -> None:
    ask(redis, "XADD", topic, "*", "temperature", 20, "place", "north", "raw", b"\xff")
    ask(redis, "XADD", topic, "*", "trace", "7", "body", "x")
    async with reading(redis.engine(), topic) as source:
        batch = await read_all(source, 2)
        assert orjson.loads(batch.bodies[0]) == {"temperature": "20", "place": "north", "raw": {"base64": "/w=="}}
        assert batch.bodies[1] == b"x"
        attributes = batch.attributes()
        assert attributes is not None
        assert attributes.headers == [(), [("trace", b"7")]]
        batch.finish()


async def test_the_lag_is_known_without_asking(redis: RedisCluster, topic: str) -> None:
    await redis.make_topic(topic, "own")
    await redis.fill(topic, SOME)
    async with reading(redis.engine(), topic, max_in_flight=30) as source:
        (await read_all(source, 30)).pick(range(10)).finish()
        await until(lambda: source.lag_messages == 90)


async def test_what_cannot_be_read(redis: RedisCluster, topic: str) -> None:
    with pytest.raises(TopicMissing, match=f"topic {topic}: there is no such stream"):
        await drain(redis.engine(), topic)
    assert ask(redis, "EXISTS", topic) == 0
    ask(redis, "SET", topic, "text")
    with pytest.raises(StartError, match=f"topic {topic}: the key exists and is no stream"):
        await drain(redis.engine(), topic)


async def test_depths_without_a_lag(redis: RedisCluster, topic: str) -> None:
    """A server does not tell the lag once entries in the middle were deleted."""
    await redis.make_topic(topic, "own", "new")
    await redis.fill(topic, SOME)
    idents = [ident for ident, _ in ask(redis, "XRANGE", topic, "-", "+")]
    ask(redis, "XREADGROUP", "GROUP", "own", "other", "COUNT", 10, "STREAMS", topic, ">")
    ask(redis, "XACK", topic, "own", *idents[:7])
    ask(redis, "XDEL", topic, *idents[20:30])
    statistics = redis.engine().statistics()
    (row,) = [row for row in await statistics.topics() if row["topic"] == topic]
    await statistics.close()
    found = {each["channel"]: (each["depth"], each["in_flight"]) for each in row["channels"]}
    assert found == {"own": (80, 3), "new": (90, 0)}
    assert len(await drain(redis.engine(), topic)) == 83
    assert len(await drain(redis.engine(), topic, "new")) == 90


def test_the_other_client_sees_errors(redis: RedisCluster) -> None:
    with RedisClient(redis.server.port) as client:
        assert "unknown command" in str(client.do("NOSUCH"))
