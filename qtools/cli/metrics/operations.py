"""Operations of a long-running command: metrics, health, statsd, beside its work in the same event loop.

    --metrics-address   /metrics (Prometheus)   /healthz (200 while the loop runs)   /readyz (200, or 503 and why not)
    --statsd-address    counters as deltas, gauges, every --statsd-interval

In: a function that says what is counted, asked at a scrape and at a statsd interval only, and one that says why the
program is not ready. Out: answers. What nobody asked for is not imported.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from qtools.cli import logs
from qtools.cli.types import Endpoint

if TYPE_CHECKING:
    from qtools.cli.metrics.metrics_format import Family
    from qtools.cli.metrics.scrape import Scrape
    from qtools.cli.metrics.statsd import StatsdExporter


class OperationsOptions(NamedTuple):
    """What the flags said; times in s. `drain_timeout` is how long a stop may let the writes under way go on."""

    metrics_address: Endpoint | None = None
    statsd_address: Endpoint | None = None
    statsd_prefix: str = ""
    statsd_interval: float = 60.0
    drain_timeout: float = 10.0


class Operations:
    """Serves what `options` ask for, from `start` to `close`; nothing where they ask for nothing.

    name: the command's, "q-tail".
    collect: what is counted, now.
    ready: "" when the command does its work, or why it does not, in words.
    """

    def __init__(
        self,
        options: OperationsOptions,
        name: str,
        collect: Callable[[], Iterable[Family]],
        ready: Callable[[], str],
    ) -> None:
        self.options = options
        self.name = name
        self.address = ""  # where metrics are served, once they are
        self._collect = collect
        self._ready = ready
        self._listening: socket.socket | None = None
        self._scrape: Scrape | None = None
        self._statsd: StatsdExporter | None = None

    async def start(self) -> None:
        """Begin; StartError when the address cannot be had."""
        if self.options.metrics_address is not None:
            await self._serve(self.options.metrics_address)
        if self.options.statsd_address is not None:
            from qtools.cli.metrics.statsd import StatsdExporter

            where, options = self.options.statsd_address, self.options
            self._statsd = StatsdExporter(
                where.host, where.port, options.statsd_prefix, options.statsd_interval, self._collect
            )
            self._statsd.start()

    async def _serve(self, where: Endpoint) -> None:
        from qtools.cli.metrics.scrape import Scrape
        from qtools.sockets import address_of, listen

        self._listening = listen(str(where), "--metrics-address")
        self._scrape = Scrape(self.name, self._collect, self._ready)
        await self._scrape.open(self._listening)
        self.address = address_of(self._listening)
        told = f"metrics at {self.address}" if where.path else f"metrics at http://{self.address}/metrics"
        # A port that the system chose is known from nowhere else.
        chosen = not where.path and not where.port
        logs.say(logging.WARNING if chosen else logging.INFO, told)

    async def close(self) -> None:
        """Tell statsd a last time, and let go of the address."""
        if self._statsd is not None:
            await self._statsd.close()
        if self._scrape is not None:
            self._scrape.close()
        if self._listening is not None and self._listening.family == socket.AF_UNIX:
            _unlink(self.address.removeprefix("unix:"))
        self._listening = None

    def __repr__(self) -> str:
        return f"<Operations {self.name} {self.address or 'unheard'}>"


def _unlink(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)
