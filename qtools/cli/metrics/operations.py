"""Metrics and probes of a long-running command, in its event loop: the HTTP server and the statsd exporter.

    --metrics-address   /metrics (Prometheus)   /healthz (200 while the loop runs)
                        /readyz (200, or 503 and the reason)
    --statsd-address    counters as differences, and gauges, every --statsd-interval

In: a function that returns the metrics, called for each scrape and at each statsd interval, and a function that returns
why the command is not ready. Out: HTTP responses, datagrams. A module that the flags do not need is not imported.
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
    from qtools.cli.metrics.metrics_server import MetricsServer
    from qtools.cli.metrics.statsd import StatsdExporter


class OperationsOptions(NamedTuple):
    """The values of the flags; times in s. drain_timeout: how long an orderly stop waits for the writes in progress."""

    metrics_address: Endpoint | None = None
    statsd_address: Endpoint | None = None
    statsd_prefix: str = ""
    statsd_interval: float = 60.0
    drain_timeout: float = 10.0


class Operations:
    """Runs the server and the exporter that `options` request, from `start` to `close`.

    name: the command's, such as "q-tail".
    collect: returns the current metrics.
    ready: returns "" if the command is ready, or the reason why it is not.
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
        self.address = ""  # the address of the server, once it listens
        self._collect = collect
        self._ready = ready
        self._listening: socket.socket | None = None
        self._server: MetricsServer | None = None
        self._statsd: StatsdExporter | None = None

    async def start(self) -> None:
        """Start the server and the exporter. StartError if the address cannot be listened on."""
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
        from qtools.cli.metrics.metrics_server import MetricsServer
        from qtools.sockets import address_of, listen

        self._listening = listen(str(where), "--metrics-address")
        self._server = MetricsServer(self.name, self._collect, self._ready)
        await self._server.open(self._listening)
        self.address = address_of(self._listening)
        text = f"metrics at {self.address}" if where.path else f"metrics at http://{self.address}/metrics"
        # If the system has chosen the port, this line is the only place where the user can find it.
        chosen = not where.path and not where.port
        logs.log(logging.WARNING if chosen else logging.INFO, text)

    async def close(self) -> None:
        """Send the metrics to statsd a last time, and close the server."""
        if self._statsd is not None:
            await self._statsd.close()
        if self._server is not None:
            self._server.close()
        if self._listening is not None and self._listening.family == socket.AF_UNIX:
            _unlink(self.address.removeprefix("unix:"))
        self._listening = None

    def __repr__(self) -> str:
        return f"<Operations {self.name} {self.address or 'not listening'}>"


def _unlink(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)
