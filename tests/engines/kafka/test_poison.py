"""A message that cannot be handled, for an hour: the commit of its partition waits there, other partitions go on,
memory is bounded, metrics and the log say what is going on; when its dead letter can be written, the commit goes on.

q-bridge runs in this process, and meets a message that it cannot route, and whose dead letter is larger than the topic
for dead letters accepts: it tries again after 1 minute, 2 minutes, 3 minutes … until that limit is raised. The hour is
simulated at the event loop's clock, which measures the delays of messages: when nothing else is left to do, the clock
is put forward to the next attempt. Kafka, and librdkafka's threads, do not notice: sessions, commits and fetches take
the time that they take.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from harness.kafka import resident_memory
from harness.kafka_client import KafkaClient
from prometheus_client.parser import text_string_to_metric_families

from qtools.bridge.app import bridge
from qtools.bridge.options import BridgeOptions
from qtools.cli.metrics.operations import OperationsOptions
from qtools.cli.run import Signals
from qtools.cli.types import Endpoint
from qtools.engines.contract import EndConditions
from qtools.engines.kafka.engine import KafkaEngine
from qtools.names import Subscription

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
MESSAGES = 100_000  # at the start, in two partitions by turns
MORE = 10_000  # that come between two attempts
POISON = 50_000  # the place of the message, which is in partition 0
MAX_IN_FLIGHT = 2500
HOUR = 3600.0  # s
MOST_GROWTH = 30 * 2**20  # bytes of memory over the hour
DEADLINE = 90.0  # s


class SimulatedLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock can be put forward. ahead: s that it is ahead of the monotonic clock."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead = 0.0

    def time(self) -> float:
        return super().time() + getattr(self, "ahead", 0.0)


def test_a_poison_message_for_an_hour(
    kafka: str, engine: KafkaEngine, topic: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loop = SimulatedLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(hour_of_retries(KafkaClient(kafka), engine, topic, tmp_path / "metrics", loop, caplog))


async def hour_of_retries(
    client: KafkaClient, engine: KafkaEngine, topic: str, socket: Path, loop: SimulatedLoop,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    copy, dead = f"{topic}.copy", f"{topic}.dead"
    await asyncio.to_thread(client.create, topic, 2)
    await asyncio.to_thread(client.create, copy, 1)
    await asyncio.to_thread(client.create, dead, 1, max_message_bytes="1000")
    bodies = [b"%d" % number for number in range(MESSAGES)]
    bodies[POISON] = b"no number" + b"." * 2000
    await asyncio.to_thread(client.fill, topic, bodies)
    options = BridgeOptions(
        (Subscription(topic, "router"),), engine, None, to=(copy,), where=". >= 0", max_in_flight=MAX_IN_FLIGHT,
        ends=EndConditions(until_empty=True), show=False,
        operations=OperationsOptions(metrics_address=Endpoint(path=str(socket))),
    )  # fmt: skip
    running = asyncio.ensure_future(bridge(options, Signals()))

    async def committed(partition: int) -> int:
        return await asyncio.to_thread(client.committed_in, topic, "router", partition)

    # Partition 1 is copied, and partition 0 as far as messages may be in flight behind the unfinished one.
    expected = MESSAGES // 2 + POISON // 2 + MAX_IN_FLIGHT - 1
    await until(lambda: end_of(client, copy), lambda end: end >= expected - 1, running)
    await until(lambda: committed(1), lambda offset: offset == MESSAGES // 2, running)
    await until(lambda: requeued(socket), lambda count: count == 1, running)
    memory = [resident_memory(os.getpid())]
    sent, attempts = MESSAGES, 1
    while loop.ahead < HOUR:
        await asyncio.to_thread(client.fill, topic, [b"%d" % number for number in range(sent, sent + MORE)])
        sent += MORE
        loop.ahead += 60.0 * attempts + 1.0
        attempts += 1
        await until(lambda: requeued(socket), lambda count: count == attempts, running)  # noqa: B023 - called at once
        await until(lambda: committed(1), lambda offset: offset == sent // 2, running)  # noqa: B023 - called at once
        assert await committed(0) == POISON // 2
        memory.append(resident_memory(os.getpid()))
    metrics = await scrape(socket)
    print(
        f"\n{attempts} attempts in {loop.ahead:.0f} s of simulated time, {sent:,} messages; memory"
        f" {', '.join(f'{each / 2**20:.0f}' for each in memory)} MiB; in flight {in_flight(metrics):.0f};"
        f" partition 0 committed up to {await committed(0):,}, not finished {client.left(topic, 'router'):,}"
    )
    assert memory[-1] - memory[0] < MOST_GROWTH
    assert in_flight(metrics) == 1
    left = sent // 2 - POISON // 2
    assert await asyncio.to_thread(client.left, topic, "router") == left
    (row,) = [row for row in await engine.statistics().topics() if row["topic"] == topic]
    assert [each["depth"] for each in row["channels"]] == [left]
    assert f"{topic}, partition 0 waits for the message at offset {POISON // 2} to be finished" in caplog.text
    assert "given back for a while, as not even a dead letter can hold them" in caplog.text

    await asyncio.to_thread(client.set_limit, dead, 1_000_000)
    loop.ahead += 60.0 * attempts + 1.0
    async with asyncio.timeout_at(loop.time() + DEADLINE):
        assert await running == 0
    assert await committed(0) == await committed(1) == sent // 2
    copied = [int(body) for body in await asyncio.to_thread(client.drain, copy, "judge")]
    assert sorted(copied) == [number for number in range(sent) if number != POISON]
    (letter,) = await asyncio.to_thread(client.drain, dead, "judge")
    assert b"no number" in letter


async def end_of(client: KafkaClient, topic: str) -> int:
    return await asyncio.to_thread(client.end, topic)


async def scrape(socket: Path) -> dict[str, float]:
    """Name and label values → value, of q-bridge's metrics."""
    async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(socket))) as web:
        answer = await web.get("http://metrics/metrics")
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def requeued(socket: Path) -> float:
    metrics = await scrape(socket)
    return sum(value for name, value in metrics.items() if name.endswith(" requeued"))


def in_flight(metrics: dict[str, float]) -> float:
    return sum(value for name, value in metrics.items() if "in_flight" in name)


async def until(
    ask: Callable[[], Awaitable[float]], holds: Callable[[float], bool], running: asyncio.Task[int]
) -> None:
    """Return when the answer of `ask` is right; the bridge must not end before."""
    for _ in range(round(DEADLINE / 0.1)):
        answer = await ask()
        if holds(answer):
            return
        assert not running.done(), await running
        await asyncio.sleep(0.1)
    raise AssertionError(f"{ask} is {answer}")
