"""qtools soak on a real Kafka, and between NSQ and Kafka, while brokers and the bridge between them are killed."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.brokers import Q_BROKER, Broker
from harness.kafka import KafkaNode, make_cluster, start_cluster, why_not
from harness.shell import Running, Shell
from harness.waiting import wait_until

from qtools.engines.kafka.engine import KafkaEngine
from qtools.engines.kafka.settings import KafkaSettings
from tests.soak.runs import result_of, start_soak, url_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[KafkaNode]:
    if reason := why_not():
        pytest.skip(reason)
    (made,) = make_cluster(tmp_path / "kafka")
    start_cluster([made])
    yield made
    made.kill()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    # Messages in flight to a bridge that was killed come again after the timeout.
    made = Broker(Q_BROKER, tmp_path / "broker", ["--msg-timeout=2s"])
    made.start()
    yield made
    made.close()


async def messages_in(node: KafkaNode, prefix: str) -> int:
    """How many messages topics whose name begins so were given."""
    statistics = KafkaEngine(KafkaSettings((node.address,))).statistics()
    try:
        return sum(row["messages"] for row in await statistics.topics() if row["topic"].startswith(prefix))
    finally:
        await statistics.close()


async def wait_more(node: KafkaNode, prefix: str, soak: Running, more: int) -> None:
    enough = await messages_in(node, prefix) + more
    while await messages_in(node, prefix) < enough:
        assert soak.is_running, soak.err


async def test_a_node_that_is_killed(shell: Shell, node: KafkaNode) -> None:
    words = ["--duration", "10m", "--rate", "3000", "--ordered", "--create-topics", "partitions=4"]
    soak = start_soak(shell, node.url, *words)
    for _ in range(2):
        await wait_more(node, "soak-", soak, 5000)
        node.kill()
        node.start()
    await wait_more(node, "soak-", soak, 3000)
    soak.signal(signal.SIGTERM)
    done = soak.wait(120)
    result = result_of(done)
    assert (done.status, result["lost"], result["out_of_order"], result["unconfirmed"]) == (0, 0, 0, 0), done.err
    assert result["read"] > 13_000
    statistics = KafkaEngine(KafkaSettings((node.address,))).statistics()
    assert await statistics.topics() == []
    await statistics.close()


async def test_a_bridge_that_is_killed(shell: Shell, node: KafkaNode, broker: Broker, topic: str) -> None:
    broker.create(topic, "bridge")
    words = [url_of(broker, f"{topic}/bridge"), "--to", f"{node.url}/{topic}", "--create-topics", "default"]
    bridge = shell.start("q-bridge", *words)
    wait_until(lambda: broker.depth(topic, "bridge").clients, what="the bridge")
    place = [url_of(broker, topic), "--to", f"{node.url}/{topic}"]
    soak = start_soak(shell, *place, "--duration", "10m", "--rate", "3000", "--settle", "15s")
    for _ in range(3):
        await wait_more(node, topic, soak, 4000)
        bridge.signal(signal.SIGKILL)
        bridge.wait()
        bridge = shell.start("q-bridge", *words)
    await wait_more(node, topic, soak, 2000)
    soak.signal(signal.SIGTERM)
    done = soak.wait(120)
    result = result_of(done)
    assert (done.status, result["lost"], result["corrupted"], result["unconfirmed"]) == (0, 0, 0, 0), done.err
    assert result["read"] > 14_000


async def test_a_topic_of_the_users_with_messages_in_it(shell: Shell, node: KafkaNode, topic: str) -> None:
    lines = b"".join(b"%d\n" % number for number in range(20_000))
    words = ["--broker", node.url, "--create-topics", "partitions=3"]
    assert shell.run("q-pipe", topic, *words, input=lines).status == 0
    done = start_soak(shell, f"{node.url}/{topic}", "--count", "20000", "--ordered", "--no-duplicates").wait()
    result = result_of(done)
    assert (done.status, result["read"], result["lost"]) == (0, 20_000, 0)
    assert result["foreign"] in range(20_001)
    missing = shell.run("qtools", "soak", f"{node.url}/missing")
    assert missing.status == 3
    assert "create it, or use --create-topics default" in missing.err
