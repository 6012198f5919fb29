"""Topics and channels are created, emptied, paused and deleted, on every engine that can; others refuse it."""

from __future__ import annotations

import pytest

from qtools.admin.listing import statistics_of
from qtools.admin.rows import left_in
from qtools.engines.administration import administered
from qtools.engines.contract import Engine
from qtools.engines.requirements import require
from qtools.errors import TopicMissing, UsageError
from tests.engines.clusters.cluster import Cluster


def can(engine: Engine, capability: str) -> bool:
    """Whether `engine` has the capability; if not, a command refuses what needs it."""
    if getattr(engine.capabilities, capability):
        return True
    with pytest.raises(UsageError, match=engine.capabilities.engine):
        require(engine, capability, "q-admin")
    return False


async def test_a_topic_is_created_once(server: Cluster, topic: str) -> None:
    engine = server.engine()
    if not can(engine, "creation"):
        return
    assert await administered(engine).create(topic) is True
    assert await administered(engine).create(topic) is False
    assert topic in {row["topic"] for row in (await statistics_of(engine))[0]}


async def test_what_waits_is_dropped(server: Cluster, topic: str) -> None:
    engine = server.engine()
    if not can(engine, "emptying"):
        return
    await server.make_topic(topic, "mail", "bill")
    await server.fill(topic, [b"%d" % number for number in range(20)])
    await server.until_left(topic, "mail", 20)
    await administered(engine).empty(topic, "mail")
    await server.until_left(topic, "mail", 0)
    assert await server.left(topic, "bill") == 20
    await server.fill(topic, [b"later"])
    assert await server.drain(topic, "mail") == [b"later"]
    assert len(await server.drain(topic, "bill")) == 21


async def test_a_paused_channel_delivers_nothing(server: Cluster, topic: str) -> None:
    engine = server.engine()
    if not can(engine, "pause"):
        return
    await server.make_topic(topic, "mail")
    await administered(engine).pause(topic, "mail", True)
    [row] = [row for row in (await statistics_of(engine))[0] if row["topic"] == topic]
    assert [channel["paused"] for channel in row["channels"]] == [True]
    await administered(engine).pause(topic, "mail", False)
    await server.fill(topic, [b"x"])
    assert await server.drain(topic, "mail") == [b"x"]
    with pytest.raises(TopicMissing):
        await administered(engine).pause(topic, "nosuch", True)


async def test_what_is_left_is_known(server: Cluster, topic: str) -> None:
    """By statistics, which q-admin and the gateway show."""
    engine = server.engine()
    if not can(engine, "depths"):
        return
    await server.make_topic(topic, "mail")
    await server.fill(topic, [b"x"] * 5)
    await server.until_left(topic, "mail", 5)
    [row] = [row for row in (await statistics_of(engine))[0] if row["topic"] == topic]
    found = [left_in(channel) for channel in row["channels"] if channel["channel"] == "mail"]
    assert found in ([5], [])  # Kafka does not know a group before it has committed something
