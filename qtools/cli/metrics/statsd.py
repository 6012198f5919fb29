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

MAX_DATAGRAM = 1400  # bytes: what passes an Ethernet in one piece, behind its headers
LAST_WORD = 1.0  # s that the last datagrams may take at the end

_UNFIT = re.compile(r"[^A-Za-z0-9_\-]+")


def expand_prefix(text: str, host: str) -> str:
    """`text` with nsqd's %s in it replaced by the host, and a dot at the end."""
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

    def told(self) -> None:
        """Record that the lines made last were sent."""
        self._before = self._now

    def lines(self, families: Iterable[Family]) -> list[str]:
        """The lines for `families` now, with the differences since the last call of `told`."""
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
                    if value < 0:  # a sign would make it a change of what the gauge has
                        lines.append(f"{name}:0|g")
                    lines.append(f"{name}:{_plain(value)}|g")
        return lines


def datagrams(lines: Iterable[str]) -> list[bytes]:
    """`lines`, as few datagrams as hold them, none longer than MAX_DATAGRAM unless a single line is."""
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
    """In a thread: a resolver may take its time. Resolved anew each time, as names move."""
    family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as out:
        out.connect(place)
        for packet in packets:
            with suppress(ConnectionRefusedError):  # that of the packet before: nobody listens there right now
                out.send(packet)


class StatsdExporter:
    """Tells `host`:`port` what `collect` gives, every `interval` s and at the end."""

    def __init__(
        self, host: str, port: int, prefix: str, interval: float, collect: Callable[[], Iterable[Family]]
    ) -> None:
        self._host, self._port = host, port
        self._interval = interval
        self._collect = collect
        self._deltas = Deltas(expand_prefix(prefix, socket.gethostname()))
        self._worker = Worker("statsd")
        self._telling: asyncio.Task[None] | None = None
        self._complained = ""

    def start(self) -> None:
        self._telling = asyncio.create_task(self._tell_on())

    async def close(self) -> None:
        """Tell what was added since the last time, if it takes no longer than LAST_WORD."""
        if self._telling is None:
            return
        self._telling.cancel()
        await asyncio.wait((self._telling,))
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORD):
                await self._tell()

    async def _tell_on(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            await self._tell()

    async def _tell(self) -> None:
        try:
            packets = datagrams(self._deltas.lines(self._collect()))
        except Exception as error:  # a defect of ours, which must not end the telling
            context = {"message": "counting for statsd failed", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)
            return
        try:
            if packets:
                await self._worker.call(_send, self._host, self._port, packets)
            self._deltas.told()
        except OSError as error:
            reason = error.strerror or str(error)
            if reason != self._complained:
                logs.say(logging.WARNING, f"cannot tell statsd at {self._host}:{self._port}: {reason}; trying again")
            self._complained = reason
        else:
            self._complained = ""
