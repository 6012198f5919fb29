"""One process that serves. In: options, a listening socket, signals. Out: HTTP served, and an orderly end.

the end: no new clients ─▶ streams end and requeue their messages ─▶ requests are answered ─▶ the publisher is closed
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from qtools.cli import logs
from qtools.cli.metrics.metrics_format import Family
from qtools.cli.metrics.operations import Operations
from qtools.cli.run import MESSAGES_COME_AGAIN, Signals
from qtools.engines.requirements import require
from qtools.errors import StartError
from qtools.pubsub_http.gateway import Gateway
from qtools.pubsub_http.metrics import count, families
from qtools.pubsub_http.options import GatewayOptions
from qtools.sockets import address_of, listen, load_certificate, unix_path
from qtools.web.http_server import AsgiApp, HttpServer
from qtools.web.limits import HttpLimits

if TYPE_CHECKING:
    from qtools.pubsub_http.worker_context import WorkerContext

log = logging.getLogger("qtools.pubsub")

NAME = "q-pubsub-http"

COUNTERS_SECONDS = 0.5  # s: how old a worker's counters may be when another worker reports them


async def serve(options: GatewayOptions, signals: Signals) -> int:
    """Serve until a signal; return the exit status. UsageError, StartError before anything is served."""
    check_capabilities(options)
    listening = listen(options.http_address, "--http-address")
    try:
        return await serve_on(listening, options, signals)
    finally:
        close(listening, options)


def check_capabilities(options: GatewayOptions) -> None:
    """UsageError if a flag was given that needs what the engine cannot do. What requests need, the API checks."""
    if options.backlog is not None:
        require(options.engine, "temporary_channels", "--backlog")
    if options.decoder is not None and options.decoder.decodes_keys:
        require(options.engine, "keys_and_headers", "--decode-key")


def close(listening: socket.socket, options: GatewayOptions) -> None:
    """Close the socket, and delete its file."""
    listening.close()
    path = unix_path(options.http_address)
    if path is not None:
        with contextlib.suppress(OSError):
            Path(path).unlink()


async def serve_on(
    listening: socket.socket, options: GatewayOptions, signals: Signals, worker: WorkerContext | None = None
) -> int:
    """Serve on `listening` until a signal; return the exit status. worker: this process among several workers."""
    stopped = asyncio.Event()
    signals.at_abrupt_end = MESSAGES_COME_AGAIN
    signals.on_stop(stopped.set)
    tls = tls_context(options)
    gateway = Gateway(options, "" if worker is None else f"{worker.number}-")
    limits = HttpLimits(options.max_head_size, options.request_timeout, options.idle_timeout, options.max_connections)
    async with contextlib.AsyncExitStack() as stack:
        app: AsgiApp = gateway.app
        if worker is not None:
            app = await _among_others(gateway, worker, options, stack)
        server = HttpServer(app, limits, fast_path=gateway.fast_path, websockets=True,
                        heartbeat=options.heartbeat, budget=gateway.budget)  # fmt: skip
        if worker is None or worker.number == 0:
            operations = Operations(
                options.operations, NAME, lambda: _families(gateway, server, worker), lambda: _unready(gateway, signals)
            )
            await operations.start()
            stack.push_async_callback(operations.close)
        await gateway.start()
        stack.push_async_callback(gateway.close)
        stack.push_async_callback(server.drain, options.operations.drain_timeout)
        stack.callback(gateway.stop)
        stack.callback(server.close)
        await server.open(listening, tls)
        if worker is not None:
            worker.counters.set_serving(worker.number, True)
            keeping = asyncio.create_task(_keep_counters(gateway, server, worker))
            stack.callback(keeping.cancel)
        if worker is None or worker.number == 0:
            logs.log(logging.WARNING, f"serving {base_url(listening, tls is not None)}")
        await stopped.wait()
        log.info("stopping")
    return 0


async def _among_others(
    gateway: Gateway, worker: WorkerContext, options: GatewayOptions, stack: contextlib.AsyncExitStack
) -> AsgiApp:
    """Serve the other workers on a Unix socket; return the application to serve to clients."""
    from qtools.pubsub_http.worker_proxy import Inner, WorkerProxy

    path = worker.socket_of(worker.number)
    inner = HttpServer(Inner(gateway.app, gateway.resumption), HttpLimits(head=2 * options.max_head_size))
    await inner.open(listen(f"unix:{path}", "--workers"))
    neighbours = WorkerProxy(gateway.app, worker, options.max_body_size, options.publish_timeout + 5.0)
    gateway.resumption.ask_owner = neighbours.ask_owner
    stack.push_async_callback(neighbours.close)
    stack.push_async_callback(inner.drain)
    stack.callback(inner.close)
    return neighbours


def _families(gateway: Gateway, server: HttpServer, worker: WorkerContext | None) -> list[Family]:
    own = count(gateway, len(server.state.connections))
    if worker is None:
        return families(own)
    worker.counters.write(worker.number, own)
    return families(worker.counters.sums())


def _unready(gateway: Gateway, signals: Signals) -> str:
    if signals.received is not None:
        return f"stopping after {signals.received.name}"
    return "" if gateway.batcher.connected else f"no {gateway.broker} is connected"


async def _keep_counters(gateway: Gateway, server: HttpServer, worker: WorkerContext) -> None:
    while True:
        worker.counters.write(worker.number, count(gateway, len(server.state.connections)))
        await asyncio.sleep(COUNTERS_SECONDS)


def base_url(listening: socket.socket, secure: bool) -> str:
    where = address_of(listening)
    return where if where.startswith("unix:") else f"{'https' if secure else 'http'}://{where}"


def tls_context(options: GatewayOptions) -> ssl.SSLContext | None:
    """The context for HTTPS, None without a certificate; StartError when the certificate cannot be used."""
    if not options.https_cert:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        load_certificate(context, options.https_cert, options.https_key or "")
    except OSError as error:
        raise StartError(f"cannot use the certificate {options.https_cert}: {error.strerror or error}") from error
    return context
