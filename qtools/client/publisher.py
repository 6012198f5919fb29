"""Many connections that publish. In: bodies for topics. Out: MPUBs, answered OK by a broker before a publish returns.

    (topic, bodies) … ─▶ MPUBs of at most `batch_count` messages and `batch_bytes` ─▶ a lane ─▶ a connection ─▶ OK
                                                   with `replicate`: a lane for each broker

However many topics there are, they share the connections, and what is published together leaves in one write: no
state is kept for a topic. Several publishes may be under way at once; each waits for its own answers only. Sizes are
held against the limits before anything is sent. The limits are nsqd's defaults until a message or a broker says
otherwise: then its HTTP API is asked for the real ones, and where that cannot be, a refused MPUB is halved until the
message that does not fit stands alone. Nothing of a refused MPUB was queued, nor of what followed it on its connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from qtools.client.address import Address, Brokers
from qtools.client.balance import Balance, LeastBusy
from qtools.client.batch_splitter import BatchSplitter, Group, Refused
from qtools.client.connection import Connection
from qtools.client.discovery import Discovery
from qtools.client.http import ask_limits
from qtools.client.links import Links
from qtools.client.publish_queue import OnPublished, PublishCounters, PublishQueue, PublishRequest
from qtools.client.settings import Settings
from qtools.errors import MessageRefused, NetworkError, PartialFailure
from qtools.message import Batch

ASK_AGAIN_AFTER = 30.0  # s after which brokers that did not say what their limits are may be asked again


class Publisher:
    """Publishes to `brokers`: to any one of them, or, with `replicate`, to all.

    batch_count, batch_bytes: the most that one MPUB holds.
    delay_ms: with it every message is a DPUB, deferred by so much.
    balance: which broker the next publish goes to; default: the least busy one.
    retry_timeout: s that a write may wait for any broker to be reachable; None for ever.
    on_published: told of each write that a broker answered OK: how long that took, s, and how many messages it had.
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
        balance: Balance | None = None,
        retry_timeout: float | None = None,
        on_published: OnPublished | None = None,
    ) -> None:
        self._settings = settings
        discovery = Discovery(brokers, None, settings)
        self._links = Links(discovery, settings, self._on_up, self._on_down, self._on_forgotten)
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
        self._came = asyncio.Event()  # a connection
        self._queues: dict[Address | None, PublishQueue] = {}
        self._retired: list[PublishQueue] = []  # abandoned, to be closed
        self._submitting = asyncio.Lock()
        self._counters = PublishCounters()
        self._publishes = 0

    async def start(self) -> None:
        """Connect; StartError when nobody could be reached."""
        await self._links.start()

    @property
    def resent(self) -> int:
        """Messages sent again since their answer was lost: they may be there twice."""
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
        return self._links.reconnects

    @property
    def connected(self) -> int:
        """How many brokers are connected now."""
        return len(self._connections)

    async def publish(self, groups: Sequence[Group], delay_ms: int | None = None) -> Refused:
        """Publish all of `groups`; returns when every broker that has to has answered OK, what was refused apart.

        delay_ms: for these, instead of the publisher's own.

        Of that it returns each message: with MessageRefused, one that no broker takes, or with the BrokerError that
        its topic was refused with. Raises NetworkError when no broker was reachable in time.
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
        for queue in [*self._queues.values(), *self._retired]:
            await queue.close()
        if self._asking is not None and not self._asking.done():
            self._asking.cancel()
            await asyncio.wait((self._asking,))
        await self._links.close()

    # ── limits ──

    async def _learn_limits(self) -> None:
        """Ask the brokers for their limits, unless they have said or were asked lately."""
        now = asyncio.get_running_loop().time()
        if self._asking is None or (self._asking.done() and not self._asking.result() and now >= self._ask_again_at):
            self._ask_again_at = now + ASK_AGAIN_AFTER
            self._asking = asyncio.create_task(self._ask_limits())
        await asyncio.shield(self._asking)

    async def _ask_limits(self) -> bool:
        """Whether a broker has said what its limits are."""
        bases = {address.http for address in self._links.discovery.known if address.http}
        tls = self._settings.http_tls_context()
        answers = await asyncio.gather(*(ask_limits(base, tls) for base in bases))
        limits = [answer for answer in answers if answer is not None]
        if limits:
            self._splitter.learn(min(each[0] for each in limits), min(each[1] for each in limits))
        return bool(limits)

    # ── queues ──

    async def _submit_to_all(self, order: int, groups: Sequence[Group], delay_ms: int) -> list[PublishRequest]:
        """A request in the queue of each broker; waits while no broker is known."""
        clock = asyncio.get_running_loop().time
        deadline = None if self._retry_timeout is None else clock() + self._retry_timeout
        async with self._submitting:  # one after the other, so that a later publish cannot overtake one that waits here
            while not (addresses := self._replicas()):
                self._came.clear()
                try:
                    async with asyncio.timeout_at(deadline):
                        await self._came.wait()
                except TimeoutError:
                    raise NetworkError(
                        str(self._brokers), f"no broker could be reached for {self._retry_timeout:.4g} s"
                    ) from None
            return [self._queue(address).submit(order, groups, delay_ms) for address in addresses]

    def _replicas(self) -> set[Address]:
        """The brokers that get every message: those that are named, and those connected but not named (any more), as
        nsqlookupd may have started a moment ago."""
        return self._links.discovery.known | {connection.address_ for connection in self._connections}

    def _queue(self, address: Address | None) -> PublishQueue:
        """The queue to the broker at `address`, or the one to any broker."""
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

    # ── Links ──

    async def _on_up(self, connection: Connection) -> None:
        connection.on_writable = self._notify
        self._connections.append(connection)
        self._came.set()
        self._notify()

    def _on_down(self, connection: Connection) -> None:
        if connection in self._connections:
            self._connections.remove(connection)

    def _on_forgotten(self, address: Address) -> None:
        """A broker that is neither connected nor named any more gets no messages, and holds up none."""
        self._balance.forget(address)
        queue = self._queues.pop(address, None)
        if queue is not None:
            queue.abandon()
            self._retired.append(queue)

    def __repr__(self) -> str:
        return f"<Publisher {self._brokers} connections={len(self._connections)}>"


class TopicSink:
    """One topic of a publisher, as a Sink."""

    def __init__(self, publisher: Publisher, topic: str) -> None:
        self._publisher = publisher
        self._topic = topic

    async def write(self, batch: Batch) -> None:
        """Publish all of `batch`; returns when every broker that has to has answered OK.

        PartialFailure names the messages that are over the limit, with MessageRefused for each.
        BrokerError when a broker refuses for good, NetworkError when none was reachable in time.
        """
        refused = await self._publisher.publish([(self._topic, batch.bodies)])
        if refused:
            for error in refused.values():
                if not isinstance(error, MessageRefused):
                    raise error
            raise PartialFailure({place: refused[group, place] for group, place in sorted(refused)})

    async def close(self) -> None:
        await self._publisher.close()


async def _wait_all(requests: Sequence[PublishRequest]) -> None:
    """Wait until all of them are done, beyond a first error too, and then raise it."""
    try:
        await asyncio.wait([request.done for request in requests])
    except asyncio.CancelledError:
        for request in requests:
            request.done.cancel()
        raise
    errors = [error for request in requests if (error := request.done.exception()) is not None]
    if errors:
        raise errors[0]
