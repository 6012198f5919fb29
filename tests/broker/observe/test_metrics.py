"""/metrics, read by Prometheus' own parser."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from qtools import __version__
from qtools.broker.core.slices import in_one
from qtools.broker.observe.metrics import as_prometheus
from qtools.cli.metrics.metrics_format import Sample, sample_lines
from qtools.web.memory_budget import MemoryBudget

from ..inside import Peer, come_true, mpub, serving, subscribed

Labels = tuple[tuple[str, str], ...]


async def scrape(url: str) -> dict[str, dict[Labels, float]]:
    """Samples by name and labels; every one of a family that says what it is."""
    async with httpx.AsyncClient() as client:
        reply = await client.get(f"http://{url}/metrics")
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(reply.text):
        assert family.documentation
        assert family.type in ("gauge", "counter")
        for sample in family.samples:
            assert (family.type == "counter") == sample.name.endswith("_total")
            labels = tuple(sorted(sample.labels.items()))
            assert labels not in found.setdefault(sample.name, {})
            found[sample.name][labels] = sample.value
    return found


async def test_every_count_of_a_topic_and_a_channel() -> None:
    async with serving(http_address="127.0.0.1:0", mem_queue_size=10, max_msg_timeout=900.0) as daemon:
        broker = daemon.broker
        broker.channel("t", "c")
        broker.channel("t", "e#ephemeral")
        consumer = await subscribed(daemon, "t", "c", ready=10, msg_timeout=1000)
        producer = await Peer.to(daemon, mpub("t", *[b"xyz"] * 20))
        got = await consumer.messages(10)
        consumer.say(b"FIN %b\nREQ %b 60000\n" % (got[0].id, got[1].id))
        await come_true(lambda: broker.topics["t"].channels["c"].deferred)
        producer.say(mpub("t", b"more"))  # for which the ephemeral channel has no room
        await come_true(lambda: broker.topics["t"].channels["e#ephemeral"].dropped)
        broker.topics["t"].channels["c"].pause()
        told = await scrape(daemon.http_address)
        topic = (("topic", "t"),)
        channel = (("channel", "c"), ("topic", "t"))
        assert told["nsq_topic_messages_total"] == {topic: 21}
        assert told["nsq_topic_message_bytes_total"] == {topic: 64}
        assert told["nsq_topic_depth"] == told["nsq_topic_backend_depth"] == {topic: 0}
        assert told["nsq_topic_channels"] == {topic: 2}
        assert told["nsq_topic_paused"] == {topic: 0}
        assert told["nsq_topic_dropped_total"] == {topic: 0}
        assert told["nsq_channel_messages_total"][channel] == 21
        assert told["nsq_channel_in_flight"][channel] + told["nsq_channel_depth"][channel] == 19
        assert told["nsq_channel_deferred"][channel] == 1
        assert told["nsq_channel_requeues_total"][channel] == 1
        assert told["nsq_channel_clients"][channel] == 1
        assert told["nsq_channel_paused"][channel] == 1
        assert told["nsq_channel_dropped_total"][("channel", "e#ephemeral"), ("topic", "t")] == 1
        assert told["q_broker_connections"] == {(): 2}
        assert told["q_broker_healthy"] == {(): 1}
        await come_true(lambda: broker.topics["t"].channels["c"].timed_out == 10)
        told = await scrape(daemon.http_address)
        assert told["nsq_channel_timeouts_total"][channel] == 10
        await consumer.close()
        await producer.close()


async def test_the_process_and_the_broker() -> None:
    async with serving(http_address="127.0.0.1:0") as daemon:
        told = await scrape(daemon.http_address)
        ((about, one),) = told["qtools_build_info"].items()
        assert (dict(about)["command"], dict(about)["version"], one) == ("q-broker", __version__, 1)
        assert told["process_resident_memory_bytes"][()] > 1_000_000
        assert told["process_cpu_seconds_total"][()] == pytest.approx(sum(os.times()[:2]), abs=1)
        assert told["process_start_time_seconds"][()] <= daemon.broker.started + 1
        if sys.platform == "linux":
            assert told["process_open_fds"][()] >= 5
        assert "nsq_topic_depth" not in told
        daemon.broker.failure = "no space left on device"
        assert (await scrape(daemon.http_address))["q_broker_healthy"] == {(): 0}


async def test_a_thousand_channels_are_told_in_one_piece() -> None:
    async with serving(http_address="127.0.0.1:0") as daemon:
        for number in range(1000):
            daemon.broker.channel(f"t-{number % 50}", f"c-{number}")
        told = await asyncio.wait_for(scrape(daemon.http_address), 10)
        assert len(told["nsq_channel_depth"]) == 1000
        assert sum(told["nsq_topic_channels"].values()) == 1000


async def test_a_page_of_many_channels_is_made_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(http_address="127.0.0.1:0") as daemon:
        for nth in range(50):
            daemon.broker.channel("t", f"c{nth}")
        sizes: list[int] = []

        def counted(name: str, samples: Sequence[Sample]) -> list[str]:
            sizes.append(len(samples))
            return sample_lines(name, samples)

        monkeypatch.setattr("qtools.broker.observe.metrics.sample_lines", counted)
        pages = []
        for at_once in (1000, 7):
            monkeypatch.setattr("qtools.broker.observe.metrics._AT_ONCE", at_once)
            sizes.clear()
            lines = in_one(as_prometheus(daemon.broker, 3, MemoryBudget(1))).decode().split("\n")
            assert max(sizes) == min(at_once, 50)
            pages.append([line for line in lines if "nsq_" in line or "q_broker" in line])
        assert pages[0] == pages[1]
        assert lines[-1] == ""
        assert "" not in lines[:-1]
