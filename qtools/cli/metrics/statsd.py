"""Metrics for statsd. In: families, at an interval. Out: UDP datagrams.

    qtools_tail_messages_total{outcome="finished"}   →   PREFIX qtools.tail.messages.finished:1204|c

A counter is sent as the difference since the last time, a gauge as its value, a histogram as the number of new values,
their mean and their 0.99 quantile. statsd has no labels: their values follow the name. UDP has no answers. A host name
that cannot be resolved is logged once and tried again at the next interval.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress

from qtools.cli import logs
from qtools.cli.metrics.histogram import HistogramValue
from qtools.cli.metrics.metrics_format import Family
from qtools.cli.worker import Worker

MAX_DATAGRAM = 1400  # bytes: together with its headers, it fits into an Ethernet frame
FINAL_SEND_SECONDS = 1.0  # how long the last datagrams may take at the end of a run

_UNFIT = re.compile(r"[^A-Za-z0-9_\-]+")


def expand_prefix(text: str, host: str) -> str:
    """Replace %s in `text` by the host, as nsqd does, and add a dot at the end."""
    text = text.replace("%s", _UNFIT.sub("_", host))
    return f"{text}." if text and not text.endswith(".") else text


def _plain(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.6f}".rstrip("0").rstrip(".")


class Deltas:
    """Families → lines for statsd. It keeps the values that were sent last, as counters are sent as differences."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._before: dict[str, float | HistogramValue] = {}
        self._now: dict[str, float | HistogramValue] = {}

    def mark_sent(self) -> None:
        """Record that the lines made last were sent."""
        self._before = self._now

    def lines(self, families: Iterable[Family]) -> list[str]:
        """The lines for `families` now, with the differences since the last call of `mark_sent`."""
        lines: list[str] = []
        self._now = {}
        for family in families:
            base = family.name.removesuffix("_total")
            if base.startswith("qtools_"):  # qtools_tail_in_flight → qtools.tail.in_flight
                base = base.replace("_", ".", 2)
            for labels, value in family.samples:
                name = self._prefix + ".".join([base, *(_UNFIT.sub("_", label) or "_" for label in labels.values())])
                if isinstance(value, HistogramValue):
                    before = self._before.get(name)
                    added = value.since(before if isinstance(before, HistogramValue) else None)
                    self._now[name] = value
                    if added.total:
                        mean, slow = added.sum / added.total, added.quantile(0.99)
                        lines += (f"{name}.count:{added.total}|c", f"{name}.mean:{_plain(mean)}|g")
                        lines.append(f"{name}.p99:{_plain(slow)}|g")
                elif family.kind == "counter":
                    before = self._before.get(name, 0)
                    assert not isinstance(before, HistogramValue)
                    self._now[name] = value
                    if value != before:
                        lines.append(f"{name}:{_plain(value - before)}|c")
                elif value == value and abs(value) != float("inf"):
                    if value < 0:  # in statsd a sign changes the gauge by the value, so it is set to 0 first
                        lines.append(f"{name}:0|g")
                    lines.append(f"{name}:{_plain(value)}|g")
        return lines


def datagrams(lines: Iterable[str]) -> list[bytes]:
    """Join lines into datagrams of at most MAX_DATAGRAM bytes. A longer line gets its own datagram."""
    made: list[bytes] = []
    current = b""
    for line in lines:
        encoded = line.encode()
        if current and len(current) + 1 + len(encoded) > MAX_DATAGRAM:
            made.append(current)
            current = b""
        current = current + b"\n" + encoded if current else encoded
    return [*made, current] if current else made


def _send(host: str, port: int, packets: list[bytes]) -> None:
    """Runs in a thread, as the resolver may block. The name is resolved each time, as its address may change."""
    family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as out:
        out.connect(place)
        for packet in packets:
            with suppress(ConnectionRefusedError):  # the response to the packet before: no process listens there now
                out.send(packet)


class StatsdExporter:
    """Sends the metrics that `collect` returns to `host`:`port`, every `interval` s and at the end."""

    def __init__(
        self, host: str, port: int, prefix: str, interval: float, collect: Callable[[], Iterable[Family]]
    ) -> None:
        self._host, self._port = host, port
        self._interval = interval
        self._collect = collect
        self._deltas = Deltas(expand_prefix(prefix, socket.gethostname()))
        self._worker = Worker("statsd")
        self._sending: asyncio.Task[None] | None = None
        self._logged_reason = ""

    def start(self) -> None:
        self._sending = asyncio.create_task(self._send_periodically())

    async def close(self) -> None:
        """Send the metrics a last time, for at most FINAL_SEND_SECONDS."""
        if self._sending is None:
            return
        self._sending.cancel()
        await asyncio.wait((self._sending,))
        with suppress(TimeoutError):
            async with asyncio.timeout(FINAL_SEND_SECONDS):
                await self._send_changes()

    async def _send_periodically(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            await self._send_changes()

    async def _send_changes(self) -> None:
        try:
            packets = datagrams(self._deltas.lines(self._collect()))
        except Exception as error:  # a defect of qtools, which must not end the task
            context = {"message": "counting for statsd failed", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)
            return
        try:
            if packets:
                await self._worker.call(_send, self._host, self._port, packets)
            self._deltas.mark_sent()
        except OSError as error:
            reason = error.strerror or str(error)
            if reason != self._logged_reason:
                logs.log(logging.WARNING, f"cannot send to statsd at {self._host}:{self._port}: {reason}; trying again")
            self._logged_reason = reason
        else:
            self._logged_reason = ""
