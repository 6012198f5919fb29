"""The daemon: it starts the servers in order, and stops them in order. In: options, a call of `stop`. Out: a running
broker.

    sockets ─▶ broker ─▶ servers           stop: servers accept no clients ─▶ connections are ended in order ─▶ store

No server is started before all addresses are known to be free.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from qtools.broker.core.broker import Alarm, Broker
from qtools.broker.core.deadlines import Deadline
from qtools.broker.core.memory_store import MemoryStore
from qtools.broker.core.store import Store
from qtools.broker.lookup import Lookups
from qtools.broker.observe.statsd import StatsdPusher
from qtools.broker.options import Options
from qtools.broker.tcp.tcp_server import TcpServer
from qtools.broker.tcp.unfinished_commands import memory_limit
from qtools.sockets import address_of, is_local, listen, port_of, unix_path
from qtools.web.memory_budget import MemoryBudget

if TYPE_CHECKING:
    from qtools.web.http_server import HttpServer

log = logging.getLogger("qtools.broker")


class Daemon:
    """A broker with its servers, which are None before `start`, and where the options have none.

    idle_exit: seconds without a client after which it ends, unless messages would be lost. budget: the memory of all
    clients.
    """

    def __init__(
        self,
        options: Options,
        *,
        store: Store | None = None,
        idle_exit: float | None = None,
    ) -> None:
        self.options = options
        self.broker: Broker
        self._store = store
        self._idle_exit = idle_exit
        self._tcp: socket.socket | None = None
        self._http: socket.socket | None = None
        self._https: socket.socket | None = None
        self.tcp_server: TcpServer | None = None
        self.http_server: HttpServer | None = None
        self.budget: MemoryBudget | None = None
        self.lookups: Lookups | None = None
        self.statsd: StatsdPusher | None = None
        self._idle: Deadline[Alarm] | None = None
        self._stopped = asyncio.Event()

    async def start(self) -> None:
        """Start everything. Raises StartError or UsageError, and then nothing stays open."""
        options = self.options
        try:
            self._tcp = listen(options.tcp_address, "--tcp-address")
            if options.http_address:
                self._http = listen(options.http_address, "--http-address")
            if options.https_address and options.tls_cert:
                self._https = listen(options.https_address, "--https-address")
            self.broker = Broker(options, self._make_store() if self._store is None else self._store)
            if options.id is not None and self.broker.store.last_id >= options.first_id(time.time_ns()):
                log.warning("--node-id %d: stored messages have higher ids; new ids continue from there", options.id)
            budget = self.budget = MemoryBudget(memory_limit(options))
            self.tcp_server = TcpServer(self.broker, budget, self._start_idle_timer)
            http_port = options.broadcast_http_port or port_of(self._http)
            self.statsd = StatsdPusher(self.broker, http_port)
            self.lookups = Lookups(self.broker, options.broadcast_tcp_port or port_of(self._tcp), http_port)
            self.lookups.check(options.nsqlookupd_tcp_addresses)
            if self._http is not None or self._https is not None:
                from qtools.broker.http.api import HttpApi
                from qtools.broker.http.config import Config
                from qtools.web.http_server import HttpServer

                config = Config(options, self.lookups)
                api = HttpApi(self.broker, self.tcp_server, self._tcp, self._http, self._https, config)
                self.http_server = HttpServer(api, fast_path=api.fast_path, budget=budget)
                if self._http is not None:
                    await self.http_server.open(self._http)
                if self._https is not None:
                    await self.http_server.open(self._https, self.tcp_server.tls)
            await self.tcp_server.open(self._tcp)
            # last, because the clients that nsqlookupd sends must be accepted
            self.lookups.follow(options.nsqlookupd_tcp_addresses)
            self.statsd.start()
        except BaseException:
            self._remove_sockets()
            if hasattr(self, "broker"):
                self.broker.store.close()
            raise
        if options.nsqlookupd_tcp_addresses and is_local(self._tcp) and not is_local(options.broadcast_address):
            log.warning(
                "only this machine reaches %s, and nsqlookupd sends clients to %s:"
                " give --tcp-address :PORT, or --broadcast-address 127.0.0.1",
                self.tcp_address,
                options.broadcast_address,
            )
        self._start_idle_timer()

    def _make_store(self) -> Store:
        options = self.options
        if not options.data_path:
            return MemoryStore()
        from qtools.broker.disk.retention import Retain
        from qtools.broker.disk.store import DurableStore

        return DurableStore(
            Path(options.data_path),
            sync=options.sync,
            memory_messages=options.mem_queue_size,
            retain=Retain(options.retain_age, options.retain_size),
            longest_deferral=options.max_req_timeout,
        )

    @property
    def tcp_address(self) -> str:
        """The address for NSQ clients."""
        assert self._tcp is not None
        return address_of(self._tcp)

    @property
    def http_address(self) -> str:
        """The address of the HTTP server; "" without one."""
        return address_of(self._http) if self._http is not None else ""

    @property
    def https_address(self) -> str:
        """The address of the HTTPS server; "" without one."""
        return address_of(self._https) if self._https is not None else ""

    def stop(self) -> None:
        """Stop accepting clients and messages. All messages accepted so far are kept."""
        if hasattr(self, "broker"):
            self.broker.stopping = True
        if self.lookups is not None:
            self.lookups.stop()  # first, so that nsqlookupd sends no more clients
        if self.statsd is not None:
            self.statsd.close()
        for server in (self.tcp_server, self.http_server):
            if server is not None:
                server.close()
        self._stopped.set()

    async def serve(self) -> None:
        """Serve until `stop`, then end all connections in order."""
        await self._stopped.wait()
        log.info("stopping")
        if self.lookups is not None:
            await self.lookups.close()
        await asyncio.gather(*(server.drain() for server in (self.tcp_server, self.http_server) if server is not None))
        self.broker.close()
        if self.budget is not None:
            self.budget.close()
        self._remove_sockets()
        lost = 0 if self.broker.store.durable else self.broker.held()
        if lost:
            log.warning("stopped; %d unfinished messages were in memory only, and are lost", lost)
        else:
            log.info("stopped")

    def _start_idle_timer(self) -> None:
        """Start the time after which an idle broker ends: the last client has left, or none has connected yet."""
        give_back_memory()
        if self._idle_exit is None or self.broker.stopping:
            return
        if self._idle is not None:
            self.broker.cancel(self._idle)
        self._idle = self.broker.call_at(self.broker.now() + self._idle_exit, self.end_if_idle)

    def end_if_idle(self, now: float) -> None:
        """End the broker, if there is still no client. No other code runs until the servers are closed, so a client
        that connects now is either served or refused."""
        self._idle = None
        assert self.tcp_server is not None
        if self.tcp_server.connections:
            return  # called again when the last client leaves
        if not self.broker.store.durable and self.broker.held():
            self._start_idle_timer()
            return
        log.info("no client for %g s", self._idle_exit)
        self.stop()

    def _remove_sockets(self) -> None:
        options = self.options
        for address, made in (
            (options.tcp_address, self._tcp),
            (options.http_address, self._http),
            (options.https_address, self._https),
        ):
            if made is not None:
                path = unix_path(address or "")
                if path is not None:
                    with contextlib.suppress(OSError):
                        Path(path).unlink()
                made.close()


def give_back_memory() -> None:
    """Give freed memory back to the system. The C library would keep it: hundreds of MB after a large backlog."""
    import ctypes

    # only glibc has this function, and only glibc needs it
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
