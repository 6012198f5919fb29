"""A topic or a channel that is deleted is gone, with what it had; and deleting what is not there does nothing."""

from __future__ import annotations

import pytest

from qtools.engines.administration import delete
from tests.engines.clusters.cluster import Cluster
from tests.engines.reading import BODIES


async def names(cluster: Cluster) -> dict[str, set[str]]:
    """The topics of `cluster`, and the channels of each."""
    statistics = cluster.engine().statistics()
    try:
        return {row["topic"]: {each["channel"] for each in row["channels"]} for row in await statistics.topics()}
    finally:
        await statistics.close()


async def test_a_channel_and_then_its_topic(cluster: Cluster, topic: str) -> None:
    engine = cluster.engine()
    if not engine.capabilities.deletion:
        pytest.skip(f"{engine.capabilities.engine} does not delete topics")
    channel = f"{topic}-own"
    await cluster.make_topic(topic, channel, f"{topic}-other")
    await cluster.fill(topic, BODIES)
    await cluster.drain(topic, channel)
    await delete(engine, topic, channel)
    found = await names(cluster)
    assert channel not in found[topic]
    await delete(engine, topic)
    assert topic not in await names(cluster)
    await delete(engine, topic, channel)
    await delete(engine, topic)
