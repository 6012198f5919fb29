"""One process serving. In: options, a listening socket, signals. Out: HTTP served until a signal, and an orderly end.

door closes to newcomers ─▶ streams end, what they hold goes back ─▶ what is being answered is answered ─▶ brokers
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from pathlib import Path

from qtools.cli import logs
from qtools.cli.run import Signals
from qtools.errors import StartError
from qtools.listen import listen, shown, unix_path
from qtools.pubsub_http.gateway import Gateway
from qtools.pubsub_http.options import GatewayOptions
from qtools.web.door import HttpDoor, Limits

log = logging.getLogger("qtools.pubsub")


async def serve(options: GatewayOptions, signals: Signals) -> int:
    """Serve until a signal; the exit status."""
    listening = listen(options.http_address, "--http-address")
    try:
        return await serve_on(listening, options, signals)
    finally:
        close(listening, options)


def close(listening: socket.socket, options: GatewayOptions) -> None:
    """Let go of the address."""
    listening.close()
    path = unix_path(options.http_address)
    if path is not None:
        with contextlib.suppress(OSError):
            Path(path).unlink()


async def serve_on(listening: socket.socket, options: GatewayOptions, signals: Signals) -> int:
    """Serve on `listening`."""
    stopped = asyncio.Event()
    signals.on_stop(stopped.set)
    tls = tls_context(options)
    gateway = Gateway(options)
    await gateway.start()
    limits = Limits(options.max_head_size, options.request_timeout, options.idle_timeout, options.max_connections)
    door = HttpDoor(gateway.app, limits, websockets=True, heartbeat=options.heartbeat)
    try:
        await door.open(listening, tls)
        logs.say(logging.WARNING, f"serving {address_of(listening, tls is not None)}")
        await stopped.wait()
        log.info("stopping")
    finally:
        door.close()
        gateway.stop()
        await door.see_out(options.drain_timeout)
        await gateway.close()
    return 0


def address_of(listening: socket.socket, secure: bool) -> str:
    where = shown(listening)
    return where if where.startswith("unix:") else f"{'https' if secure else 'http'}://{where}"


def tls_context(options: GatewayOptions) -> ssl.SSLContext | None:
    """What HTTPS is served with; StartError when the certificate cannot be used."""
    if not options.https_cert:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(options.https_cert, options.https_key or None)
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise StartError(f"cannot use the certificate {options.https_cert}: {reason}") from error
    return context
