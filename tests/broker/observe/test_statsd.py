"""Statistics pushed to a statsd: a real UDP socket listens."""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Callable, Iterator

import pytest
from harness.brokers import Broker
from harness.waiting import wait_until

from qtools.broker.daemon import Daemon
from qtools.broker.observe.statsd import expand_prefix, parse_statsd
from qtools.errors import AddressInvalid

from ..inside import come_true, serving, subscribed


class Statsd:
    """What was pushed."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self.address = f"127.0.0.1:{self.socket.getsockname()[1]}"
        self.packets: list[bytes] = []

    def read(self) -> list[str]:
        """Every line until now."""
        while True:
            try:
                self.packets.append(self.socket.recv(1 << 16))
            except BlockingIOError:
                return b"".join(self.packets).decode().splitlines()


@pytest.fixture
def statsd() -> Iterator[Statsd]:
    made = Statsd()
    yield made
    made.socket.close()


def pushed(daemon: Daemon) -> dict[str, str]:
    """What would be pushed now, by name."""
    assert daemon.statsd is not None
    lines = b"".join(daemon.statsd.packets()).decode().splitlines()
    assert len(lines) == len({line.partition(":")[0] for line in lines})
    return dict(line.split(":") for line in lines)


async def test_counters_are_what_came_since_and_gauges_what_is() -> None:
    async with serving(statsd_address="127.0.0.1:1", statsd_prefix="q", statsd_mem_stats=False) as daemon:
        daemon.broker.channel("t", "c")
        daemon.broker.publish("t", [b"xyz"] * 4)
        await come_true(lambda: daemon.broker.topics["t"].messages == 4)
        assert pushed(daemon) == {
            "q.topic.t.message_count": "4|c",
            "q.topic.t.message_bytes": "12|c",
            "q.topic.t.depth": "0|g",
            "q.topic.t.backend_depth": "0|g",
            "q.topic.t.channel.c.message_count": "4|c",
            "q.topic.t.channel.c.depth": "4|g",
            "q.topic.t.channel.c.backend_depth": "0|g",
            "q.topic.t.channel.c.in_flight_count": "0|g",
            "q.topic.t.channel.c.deferred_count": "0|g",
            "q.topic.t.channel.c.requeue_count": "0|c",
            "q.topic.t.channel.c.timeout_count": "0|c",
            "q.topic.t.channel.c.clients": "0|g",
        }
        daemon.broker.publish("t", [b"xyz"])
        await come_true(lambda: daemon.broker.topics["t"].messages == 5)
        again = pushed(daemon)
        assert again["q.topic.t.message_count"] == "1|c"
        assert again["q.topic.t.channel.c.depth"] == "5|g"
        daemon.broker.delete_topic("t")
        daemon.broker.publish("t", [b"xyz"] * 2)
        await come_true(lambda: daemon.broker.topics["t"].messages == 2)
        assert pushed(daemon)["q.topic.t.message_count"] == "2|c"


async def test_ephemeral_ones_can_be_left_out() -> None:
    async with serving(statsd_address="127.0.0.1:1", statsd_mem_stats=False) as daemon:
        consumer = await subscribed(daemon, "t", "c#ephemeral")
        daemon.broker.channel("u#ephemeral", "c")
        assert any("u#ephemeral" in name for name in pushed(daemon))
        assert any("c#ephemeral" in name for name in pushed(daemon))
        daemon.options.statsd_exclude_ephemeral = True
        assert {name.split(".topic.")[1].split(".")[0] for name in pushed(daemon)} == {"t"}
        assert not any("ephemeral" in name for name in pushed(daemon))
        await consumer.close()


async def test_latencies_are_pushed_in_nsqds_names() -> None:
    shares = {"e2e_processing_latency_percentiles": (0.99, 0.5)}
    async with serving(statsd_address="127.0.0.1:1", statsd_mem_stats=False, statsd_prefix="q", **shares) as daemon:
        consumer = await subscribed(daemon)
        daemon.broker.publish("t", [b"xyz"] * 4)
        for message in await consumer.messages(4):
            consumer.say(b"FIN %b\n" % message.id)
        await come_true(lambda: daemon.broker.held() == 0)
        lines = pushed(daemon)
        for where in ("q.topic.t", "q.topic.t.channel.c"):
            for share in (99, 50):
                assert re.fullmatch("[1-9][0-9]*\\|g", lines[f"{where}.e2e_processing_latency_{share}"])
        await consumer.close()


async def test_packets_are_no_larger_than_asked_for_and_whole_lines() -> None:
    async with serving(statsd_address="127.0.0.1:1", statsd_udp_packet_size=200) as daemon:
        for number in range(30):
            daemon.broker.channel(f"t{number}", "c" * 60)
        assert daemon.statsd is not None
        packets = list(daemon.statsd.packets())
        assert max(map(len, packets)) <= 200
        assert all(packet.endswith(b"\n") for packet in packets)
        daemon.options.statsd_udp_packet_size = 10  # less than a line: a line a packet
        packets = list(daemon.statsd.packets())
        assert {packet.count(b"\n") for packet in packets} == {1}


async def test_it_pushes_at_every_interval(statsd: Statsd) -> None:
    more = {"statsd_interval": 0.05, "broadcast_address": "my.host", "http_address": "127.0.0.1:0"}
    async with serving(statsd_address=statsd.address, **more) as daemon:
        daemon.broker.topic("t")
        port = daemon.http_address.rpartition(":")[2]
        name = f"nsq.my_host_{port}.topic.t.depth:0|g"
        await come_true(lambda: statsd.read().count(name) >= 3)
        assert f"nsq.my_host_{port}.mem.gc_runs:0|c" in statsd.read()


async def test_a_statsd_that_cannot_be_found_is_named_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("qtools"), "propagate", True)
    caplog.set_level(logging.INFO, "qtools.broker")
    tries: list[str] = []
    resolve = socket.getaddrinfo

    def fail(host: str, *args: object, **more: object) -> object:
        if host != "no.such.host.invalid":
            return resolve(host, *args, **more)  # type: ignore[arg-type]
        tries.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    async with serving(statsd_address="no.such.host.invalid:8125", statsd_interval=0.02):
        await come_true(lambda: len(tries) >= 5)
    assert "statsd no.such.host.invalid:8125: " in caplog.text
    assert caplog.text.count("retrying") == 1


@pytest.mark.parametrize("text", ["h", ":8125", "h:0", "h:x", "h:123456"])
def test_an_address_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(AddressInvalid, match="--statsd-address takes HOST:PORT"):
        parse_statsd(text)


def test_the_prefix_names_the_host() -> None:
    assert expand_prefix("nsq.%s", "my.host", 4151) == "nsq.my_host_4151."
    assert expand_prefix("nsq.", "my.host", 4151) == "nsq."
    assert expand_prefix("", "my.host", 4151) == ""


def test_the_same_names_as_nsqd(make_broker: Callable[..., Broker], statsd: Statsd) -> None:
    broker = make_broker(
        f"--statsd-address={statsd.address}", "--statsd-interval=1200ms", "--e2e-processing-latency-percentile=0.99"
    )
    broker.create("t", "c")
    ours = re.compile(rb"nsq\.127_0_0_1_%d\.(.*):-?\d+\|([cg])" % broker.http_port)
    wait_until(lambda: any("topic.t.channel.c" in line for line in statsd.read()))
    wait_until(lambda: any("mem.gc_runs" in line for line in statsd.read()))
    names = {found.groups() for packet in statsd.packets for found in ours.finditer(packet)}
    assert names == {
        *((f"topic.t.{name}".encode(), b"c") for name in ("message_count", "message_bytes")),
        *((f"topic.t.{name}".encode(), b"g") for name in ("depth", "backend_depth", "e2e_processing_latency_99")),
        *(
            (f"topic.t.channel.c.{name}".encode(), kind)
            for kind, some in {
                b"c": ("message_count", "requeue_count", "timeout_count"),
                b"g": ("depth", "backend_depth", "in_flight_count", "deferred_count", "clients",
                       "e2e_processing_latency_99"),
            }.items()
            for name in some
        ),
        *(
            (f"mem.{name}".encode(), b"g")
            for name in ("heap_objects", "heap_idle_bytes", "heap_in_use_bytes", "heap_released_bytes",
                         "gc_pause_usec_100", "gc_pause_usec_99", "gc_pause_usec_95", "next_gc_bytes")
        ),
        (b"mem.gc_runs", b"c"),
    }  # fmt: skip
    assert max(map(len, statsd.packets)) <= 508
