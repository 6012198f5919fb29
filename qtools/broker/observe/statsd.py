"""Statistics sent to a statsd. In: the broker's counts, at each interval. Out: UDP packets.

    nsq.HOST_PORT.topic.events.channel.archive.depth:12|g
    nsq.HOST_PORT.topic.events.channel.archive.message_count:5|c       since the last interval

Names, order and packing are nsqd 1.3.0's (nsqd/statsd.go). The packets are spread over the interval except for its last
second, because a statsd drops packets that arrive faster than it reads.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Iterator

from qtools.broker.core.broker import Broker
from qtools.broker.observe.stats import Plain, collect
from qtools.errors import AddressInvalid
from qtools.host_port import split_host_port
from qtools.names import is_ephemeral

log = logging.getLogger("qtools.broker")

_TOPIC = (("message_count", "c"), ("message_bytes", "c"), ("depth", "g"), ("backend_depth", "g"))
_CHANNEL = (
    ("message_count", "c"),
    ("depth", "g"),
    ("backend_depth", "g"),
    ("in_flight_count", "g"),
    ("deferred_count", "g"),
    ("requeue_count", "c"),
    ("timeout_count", "c"),
    ("client_count", "g"),
)
_NAMED = {"client_count": "clients", "gc_total_runs": "gc_runs"}  # names that differ from those of /stats
_COUNTED = frozenset({"gc_total_runs"})


def parse_statsd(text: str) -> tuple[str, int]:
    """Split `HOST:PORT` into host and port. Raises AddressInvalid."""
    try:
        host, port = split_host_port(text.strip())
    except ValueError:
        host, port = "", None
    if not host or not port:
        raise AddressInvalid(text, "is none of a statsd: --statsd-address takes HOST:PORT, usually port 8125")
    return host, port


def expand_prefix(prefix: str, host: str, http_port: int) -> str:
    """Fill in the prefix: `nsq.%s` → `nsq.my_host_4151.`"""
    if not prefix:
        return ""
    key = f"[{host}]:{http_port}" if ":" in host else f"{host}:{http_port}"
    prefix = prefix.replace("%s", key.replace(".", "_").replace(":", "_"))
    return prefix if prefix.endswith(".") else prefix + "."


class StatsdPusher:
    """Sends from `start` until `close`, if there is an address. http_port: part of the names."""

    def __init__(self, broker: Broker, http_port: int) -> None:
        options = broker.options
        self._broker = broker
        self._place = parse_statsd(options.statsd_address) if options.statsd_address else None
        self._prefix = expand_prefix(options.statsd_prefix, options.broadcast_address, http_port)
        self._last: dict[str, int] = {}
        self._complained = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._place is not None:
            self._task = asyncio.get_running_loop().create_task(self._run(self._place))

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self, place: tuple[str, int]) -> None:
        loop = asyncio.get_running_loop()
        interval = self._broker.options.statsd_interval
        due = loop.time()
        while True:
            due = max(due + interval, loop.time())
            await asyncio.sleep(due - loop.time())
            try:
                await self._push(place, max(0.0, interval - 1.0))
                self._complained = False
            except OSError as error:
                if not self._complained:
                    self._complained = True
                    log.warning("statsd %s: %s; retrying", self._broker.options.statsd_address, _told(error))
            except Exception as error:
                log.error("internal error in statsd: %s: %s", type(error).__name__, error)

    async def _push(self, place: tuple[str, int], over: float) -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, remote_addr=place)
        try:
            packets = list(self.packets())
            for packet in packets:
                transport.sendto(packet)
                if packet is not packets[-1]:
                    await asyncio.sleep(over / len(packets))
        finally:
            transport.close()

    def packets(self) -> Iterator[bytes]:
        """The lines to send now. The next call counts from here."""
        most = self._broker.options.statsd_udp_packet_size
        packet = bytearray()
        for line in self._lines():
            if packet and len(packet) + len(line) > most:
                yield bytes(packet)
                packet.clear()
            packet += line
        if packet:
            yield bytes(packet)

    def _lines(self) -> Iterator[bytes]:
        options = self._broker.options
        told = collect(self._broker, (), include_clients=False, include_mem=options.statsd_mem_stats)
        last, self._last = self._last, {}

        def line(name: str, value: int, kind: str) -> bytes:
            if kind == "c":
                self._last[name] = value
                before = last.get(name, 0)
                value -= before if before <= value else 0  # a topic that was deleted and made again counts from 0
            return f"{self._prefix}{name}:{value}|{kind}\n".encode()

        def lines(where: str, row: Plain, fields: tuple[tuple[str, str], ...]) -> Iterator[bytes]:
            for field, kind in fields:
                yield line(f"{where}.{_NAMED.get(field, field)}", row[field], kind)
            for one in row["e2e_processing_latency"]["percentiles"] or ():
                yield line(f"{where}.e2e_processing_latency_{one['quantile'] * 100:.0f}", one["value"], "g")

        for topic in told["topics"]:
            if options.statsd_exclude_ephemeral and is_ephemeral(topic["topic_name"]):
                continue
            where = f"topic.{topic['topic_name']}"
            yield from lines(where, topic, _TOPIC)
            for channel in topic["channels"]:
                if not (options.statsd_exclude_ephemeral and is_ephemeral(channel["channel_name"])):
                    yield from lines(f"{where}.channel.{channel['channel_name']}", channel, _CHANNEL)
        for field, value in told.get("memory", {}).items():
            yield line(f"mem.{_NAMED.get(field, field)}", value, "c" if field in _COUNTED else "g")


def _told(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return f"its host is not known ({error.strerror})"
    return os.strerror(error.errno).lower() if error.errno else str(error)
