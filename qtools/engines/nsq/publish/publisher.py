"""Publishing over many connections. In: bodies for topics. Out: MPUBs; a publish returns when a broker has answered OK.

    (topic, bodies) … ─▶ MPUBs of at most `batch_count` messages and `batch_bytes` ─▶ publish queue ─▶ connection ─▶ OK
                                                 with `replicate`: one publish queue for each broker

All topics share the connections, and what is published together leaves in one write; no state is kept for a topic.
Several publishes may run at once; each waits for its own answers only. Sizes are checked against the limits before
anything is sent. The limits are nsqd's defaults until a message exceeds them or a broker refuses one. Then the brokers'
HTTP APIs are asked for their limits. If they cannot be asked, a refused MPUB is halved until the message that is too
large is alone in its command.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from qtools.engines.nsq.address import Address, Brokers
from qtools.engines.nsq.connection import Connection
from qtools.engines.nsq.connection_pool import ConnectionPool
from qtools.engines.nsq.discovery import Discovery
from qtools.engines.nsq.publish.batch_splitter import BatchSplitter, Group
from qtools.engines.nsq.publish.load_balancing import LeastBusy, LoadBalancer
from qtools.engines.nsq.publish.publish_queue import OnPublished, PublishCounters, PublishQueue, PublishRequest
from qtools.engines.nsq.settings import Settings
from qtools.errors import NetworkError
from qtools.flow.contract import GroupAttributes, Refused

ASK_AGAIN_AFTER = 30.0  # s between two attempts to ask brokers for their limits, as long as none has answered


class NsqPublisher:
    """Publishes to `brokers`: to any one of them, or, with `replicate`, to all.

    batch_count (messages), batch_bytes (bytes): the most that one MPUB holds.
    delay_ms: how long brokers defer each message, in a DPUB of its own; 0 for not at all.
    balance: picks the broker that the next publish goes to; default: the least busy one.
    retry_timeout: s that a publish may wait for a reachable broker; None for no limit.
    on_published: called for each write that a broker answered OK, with the s it took and the messages in it.
    """

    def __init__(
        self,
        brokers: Brokers,
        settings: Settings,
        *,
        batch_count: int = 5000,
        batch_bytes: int = 1024 * 1024,
        delay_ms: int = 0,
        replicate: bool = False,
        balance: LoadBalancer | None = None,
        retry_timeout: float | None = None,
        on_published: OnPublished | None = None,
    ) -> None:
        self._settings = settings
        discovery = Discovery(brokers, None, settings)
        self._pool = ConnectionPool(discovery, settings, self._on_up, self._on_down, self._on_forgotten)
        self._brokers = brokers
        self._splitter = BatchSplitter(batch_count, batch_bytes)
        self._delay_ms = delay_ms
        self._replicate = replicate
        self._balance = balance or LeastBusy()
        self._retry_timeout = retry_timeout
        self._on_published = on_published
        self._asking: asyncio.Task[bool] | None = None
        self._ask_again_at = 0.0  # loop time
        self._connections: list[Connection] = []
        self._connection_added = asyncio.Event()
        self._queues: dict[Address | None, PublishQueue] = {}
        self._submitting = asyncio.Lock()
        self._counters = PublishCounters()
        self._publishes = 0

    async def start(self) -> None:
        """Connect; StartError when no broker could be reached."""
        await self._pool.start()

    @property
    def resent(self) -> int:
        """Messages sent again because the answer was lost: they may be in the topic twice."""
        return self._counters.resent

    @property
    def published(self) -> int:
        """Messages answered OK; with `replicate` once for each broker."""
        return self._counters.published

    @property
    def published_bytes(self) -> int:
        """Bytes of the commands that were answered OK, before any compression."""
        return self._counters.published_bytes

    @property
    def unanswered(self) -> int:
        """Commands that wait for a broker's answer."""
        return sum(connection.unanswered for connection in self._connections)

    @property
    def reconnects(self) -> int:
        """How often a lost connection was opened again."""
        return self._pool.reconnects

    @property
    def connected(self) -> int:
        """How many brokers are connected now."""
        return len(self._connections)

    async def publish(
        self, groups: Sequence[Group], delay_ms: int | None = None, *, attributes: GroupAttributes | None = None
    ) -> Refused:
        """Publish all of `groups`, and return when a broker, or with `replicate` every broker, has answered.

        delay_ms: instead of the publisher's own, for these messages. attributes: not called, as NSQ's messages have no
        keys and no headers.

        The result holds the messages that were refused: MessageRefused for one that no broker takes, BrokerError for
        each message of a topic that the broker refused. All others were answered OK. Raises NetworkError when no broker
        was reachable for `retry_timeout`, and BrokerError when brokers refused everything for that long.
        """
        self._publishes += 1
        order = self._publishes
        delay = self._delay_ms if delay_ms is None else delay_ms
        if not self._replicate:
            request = self._queue(None).submit(order, groups, delay)
            await request.done
            return request.refused
        while True:
            requests = await self._submit_to_all(order, groups, delay)
            await _wait_all(requests)
            if any(request.confirmed for request in requests):
                return {place: error for request in requests for place, error in request.refused.items()}

    async def close(self) -> None:
        """Close the connections; publishes that still run are not completed."""
        for queue in self._queues.values():
            await queue.close()
        if self._asking is not None and not self._asking.done():
            self._asking.cancel()
            await asyncio.wait((self._asking,))
        await self._pool.close()

    # ── limits ──

    async def _learn_limits(self) -> None:
        """Ask the brokers for their limits, unless one has answered before or they were asked recently."""
        now = asyncio.get_running_loop().time()
        if self._asking is None or (self._asking.done() and not self._asking.result() and now >= self._ask_again_at):
            self._ask_again_at = now + ASK_AGAIN_AFTER
            self._asking = asyncio.create_task(self._ask_limits())
        await asyncio.shield(self._asking)

    async def _ask_limits(self) -> bool:
        """Use the lowest limits that any broker answers with; whether any broker has answered."""
        from qtools.engines.nsq.http_client import ask_limits  # few publishes need it

        bases = {address.http for address in self._pool.discovery.known if address.http}
        tls = self._settings.http_tls_context()
        answers = await asyncio.gather(*(ask_limits(base, tls) for base in bases))
        limits = [answer for answer in answers if answer is not None]
        if limits:
            self._splitter.learn(min(each[0] for each in limits), min(each[1] for each in limits))
        return bool(limits)

    # ── queues ──

    async def _submit_to_all(self, order: int, groups: Sequence[Group], delay_ms: int) -> list[PublishRequest]:
        """Submit a request to the queue of each broker; wait while no broker is known.

        NetworkError when none becomes known within `retry_timeout`.
        """
        clock = asyncio.get_running_loop().time
        deadline = None if self._retry_timeout is None else clock() + self._retry_timeout
        async with self._submitting:  # one at a time, so that a later publish cannot overtake one that waits here
            while not (addresses := self._replicas()):
                self._connection_added.clear()
                try:
                    async with asyncio.timeout_at(deadline):
                        await self._connection_added.wait()
                except TimeoutError:
                    raise NetworkError(
                        str(self._brokers), f"no broker could be reached for {self._retry_timeout:.4g} s"
                    ) from None
            return [self._queue(address).submit(order, groups, delay_ms) for address in addresses]

    def _replicas(self) -> set[Address]:
        """The brokers that get every message: those that discovery knows, and those that are connected but not known.
        An nsqlookupd that has just started does not list the brokers that are connected."""
        return self._pool.discovery.known | {connection.address_ for connection in self._connections}

    def _queue(self, address: Address | None) -> PublishQueue:
        """The queue for the broker at `address`, or, for None, the queue for any broker; made on first use."""
        queue = self._queues.get(address)
        if queue is None:
            name = str(self._brokers) if address is None else str(address)
            queue = self._queues[address] = PublishQueue(
                name, self._open_connections(address), self._balance, self._splitter, self._learn_limits,
                self._counters, self._on_published, self._retry_timeout,
            )  # fmt: skip
        return queue

    def _open_connections(self, address: Address | None) -> Callable[[], list[Connection]]:
        def open_connections() -> list[Connection]:
            return [
                connection
                for connection in self._connections
                if connection.is_open and (address is None or connection.address_ == address)
            ]

        return open_connections

    def _notify(self) -> None:
        for queue in self._queues.values():
            queue.notify()

    # ── what the connection pool calls ──

    async def _on_up(self, connection: Connection) -> None:
        connection.on_writable = self._notify
        self._connections.append(connection)
        self._connection_added.set()
        self._notify()

    def _on_down(self, connection: Connection) -> None:
        if connection in self._connections:
            self._connections.remove(connection)

    def _on_forgotten(self, address: Address) -> None:
        """Stop replicating to a broker that is neither connected nor known to discovery any more."""
        self._balance.forget(address)
        queue = self._queues.pop(address, None)
        if queue is not None:
            queue.abandon()

    def __repr__(self) -> str:
        return f"<NsqPublisher {self._brokers} connections={len(self._connections)}>"


async def _wait_all(requests: Sequence[PublishRequest]) -> None:
    """Wait until all of them are done, even if one fails, and then raise the first error."""
    try:
        await asyncio.wait([request.done for request in requests])
    except asyncio.CancelledError:
        for request in requests:
            request.done.cancel()
        raise
    errors = [error for request in requests if (error := request.done.exception()) is not None]
    if errors:
        raise errors[0]
