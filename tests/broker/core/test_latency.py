"""Latency quantiles: right within what is promised, over the window, and one count a block."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import httpx
import pytest
from harness.brokers import Broker

from qtools.broker.core.block import Block
from qtools.broker.core.latency import Latency, shown, summary

from ..house import House, consume, ids
from ..inside import Peer, come_true, mpub, serving, subscribed


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000 * 10**9

    def __call__(self) -> int:
        return self.now


def block(age: int, count: int, clock: Clock) -> tuple[Block, list[bytes]]:
    made = Block(1, [b"x"] * count, clock.now - age)
    return made, made.ids(0, count)


def values(latencies: list[Latency], *quantiles: float) -> list[int]:
    return [one["value"] for one in summary(latencies, quantiles)["percentiles"]]


def test_a_quantile_is_at_most_one_percent_off() -> None:
    clock, draw = Clock(), random.Random(7)
    latency = Latency(600, clock)
    ages = sorted(round(10 ** draw.uniform(2, 13)) for _ in range(5000))  # 100 ns to 3 hours
    latency.add([block(age, 1, clock) for age in ages])
    quantiles = [1.0, 0.999, 0.99, 0.95, 0.5, 0.01]
    for quantile, value in zip(quantiles, values([latency], *quantiles), strict=True):
        exact = ages[max(0, -int(-quantile * len(ages) // 1) - 1)]
        assert value == pytest.approx(exact, rel=0.0101, abs=1), quantile


def test_every_message_of_a_block_counts() -> None:
    clock = Clock()
    latency = Latency(600, clock)
    latency.add([block(1000, 90, clock), block(1_000_000, 10, clock)])
    assert summary([latency], [0.5])["count"] == 100
    assert values([latency], 0.9, 0.91) == pytest.approx([1000, 1_000_000], rel=0.01)


def test_the_window_forgets() -> None:
    clock = Clock()
    latency = Latency(10, clock)
    latency.add([block(10**9, 5, clock)])
    clock.now += 6 * 10**9
    latency.add([block(10**6, 5, clock)])
    assert summary([latency], [1.0])["count"] == 10
    clock.now += 5 * 10**9
    assert summary([latency], [1.0])["count"] == 5
    assert values([latency], 1.0) == pytest.approx([10**6], rel=0.01)
    clock.now += 60 * 10**9
    assert summary([latency], [1.0]) == {"count": 0, "percentiles": [{"quantile": 1.0, "value": 0}]}


def test_memory_is_bounded_and_odd_clocks_are_survived() -> None:
    clock = Clock()
    latency = Latency(600, clock)
    for age in (round(1.01**step) for step in range(4360)):  # to 2**62 ns
        latency.add([block(age, 1, clock)])
    assert 2000 < len(latency._counts) <= 2206
    latency.add([block(-(10**9), 1, clock), block(0, 1, clock)])  # from the future
    assert values([latency], 0.001) == [1]


def test_a_topic_is_its_channels_together() -> None:
    clock = Clock()
    one, other = Latency(600, clock), Latency(600, clock)
    one.add([block(1000, 1, clock)])
    other.add([block(1_000_000, 3, clock)])
    assert summary([one, other], [0.25])["count"] == 4
    assert values([one, other], 0.25, 0.26) == pytest.approx([1000, 1_000_000], rel=0.01)


def test_nothing_is_measured_where_nobody_asked() -> None:
    assert summary([], []) == {"count": 0, "percentiles": None}
    house = House()
    channel = house.channel(house.topic())
    assert channel.latency is None


def test_a_batch_is_one_call() -> None:
    calls = []

    class Counting(Latency):
        def add(self, done: Any) -> None:
            calls.append([len(some) for _, some in done])

    house = House()
    topic = house.topic()
    channel = house.channel(topic)
    channel.latency = Counting(600)
    consumer, reader = consume(channel, 1000)
    for _ in range(2):
        house.publish(topic, *[b"x"] * 100)
        house.turn()
    channel.finish(consumer, ids(reader.take()))
    assert calls == [[100, 100]]


@pytest.mark.parametrize(
    ("ns", "text"), [(0, "0.0ns"), (999, "999.0ns"), (744_758_690, "744.8ms"), (1.5e9, "1.5s"), (2500, "2.5us")]
)
def test_it_is_shown_as_nsqd_does(ns: float, text: str) -> None:
    assert shown(ns) == text


async def test_stats_tell_it() -> None:
    asked = (1.0, 0.5)
    async with (
        serving(http_address="127.0.0.1:0", e2e_processing_latency_percentiles=asked) as daemon,
        httpx.AsyncClient(base_url=f"http://{daemon.http_address}") as client,
    ):
        consumer = await subscribed(daemon)
        producer = await Peer.to(daemon, mpub("t", b"a", b"b"))
        got = await consumer.messages(2)
        await asyncio.sleep(0.1)
        consumer.say(b"FIN %b\nFIN %b\n" % (got[0].id, got[1].id))
        await come_true(lambda: not daemon.broker.held())
        (topic,) = (await client.get("/stats?format=json")).json()["topics"]
        for row in (topic, topic["channels"][0]):
            latency = row["e2e_processing_latency"]
            assert latency["count"] == 2
            assert [one["quantile"] for one in latency["percentiles"]] == [1.0, 0.5]
            assert all(0.1e9 <= one["value"] < 10e9 for one in latency["percentiles"])
        assert (await client.get("/stats")).text.count("ms, ") + (await client.get("/stats")).text.count("s, ") >= 2
        metrics = (await client.get("/metrics")).text
        assert 'nsq_channel_e2e_processing_latency_seconds{topic="t",channel="c",quantile="0.5"} 0.' in metrics
        await consumer.close()
        await producer.close()


def test_the_same_shape_as_nsqd(make_broker: Any) -> None:
    broker: Broker = make_broker(
        "--e2e-processing-latency-percentile=1.0,0.99", "--e2e-processing-latency-percentile=0.5"
    )
    broker.create("t", "c")
    broker.fill("t", [b"x"] * 10)
    told = broker.topic("t")
    assert told is not None
    zero = [{"quantile": quantile, "value": 0} for quantile in (1, 0.99, 0.5)]
    assert told["e2e_processing_latency"] == {"count": 0, "percentiles": zero}
    assert len(broker.drain("t", "c")) == 10
    told = broker.topic("t")
    assert told is not None
    for row in (told, told["channels"][0]):
        assert row["e2e_processing_latency"]["count"] == 10
        assert all(0 < one["value"] < 60e9 for one in row["e2e_processing_latency"]["percentiles"])
