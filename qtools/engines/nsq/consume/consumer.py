"""Many connections as one Source. In: sources to read, brokers. Out: batches, each with its origins.

A read returns everything that has arrived since the last one, as one batch. max-in-flight is shared among the
connections (flow_control.py). The messages that wait to be read are bounded by bytes too: beyond MAX_UNREAD no broker
may send more until the reader has caught up. Heartbeats are answered in the meantime.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from qtools.engines.connections.flow_control import share
from qtools.engines.connections.in_flight import Delivery, merge_deliveries
from qtools.engines.nsq.address import Brokers
from qtools.engines.nsq.connection import Connection
from qtools.engines.nsq.connection_pool import ConnectionPool
from qtools.engines.nsq.discovery import Discovery
from qtools.engines.nsq.settings import Settings
from qtools.message import Batch, Messages
from qtools.names import Subscription

logger = logging.getLogger("qtools.client")

MAX_UNREAD = 8 * 1024 * 1024  # bytes
REBALANCE_SECONDS = 3.0
# The broker does not confirm a lower ready count. After this time it has read it, and what it sent before has arrived.
SETTLE_SECONDS = 0.1
# If max-in-flight is less than the number of connections, they take turns that short, as the connection whose broker
# has messages may be the last one.
TURN_SECONDS = 0.2


class Consumer:
    """Reads `subscriptions` from `brokers`.

    limit: how many messages to read in all; never are more in flight than may still be finished.
    by_quota: read from each connection only as much as `set_quota` says, and nothing before it does.
    ends_when_empty: the run ends when there is nothing to read, so that it does not wait for a topic that no nsqd has.
    """

    def __init__(
        self,
        subscriptions: Sequence[Subscription],
        brokers: Brokers,
        settings: Settings,
        *,
        max_in_flight: int = 2500,
        limit: int | None = None,
        by_quota: bool = False,
        ends_when_empty: bool = False,
    ) -> None:
        self.subscriptions = list(subscriptions)
        self.received = 0
        self.redelivered = 0  # of those received: that had been delivered before
        self._newest = (0, 0.0)  # the timestamp that arrived last (ns), and when it arrived (s), both since 1970
        self._max_in_flight = max_in_flight
        self._unfinished = limit  # of the limit: how many may still be finished
        self._unread_limit = limit  # of the limit: how many `read` may still return
        # (topic, channel, nsqd) → how many may still be finished; None: any number
        self._quotas: dict[tuple[str, str, str], int] | None = {} if by_quota else None
        self._ends_when_empty = ends_when_empty
        self._brokers = brokers
        self.settings = settings
        self.lag_messages: int | None = None  # nsqd does not tell it to consumers
        self.on_received: Callable[[int], None] | None = None  # called with the bytes of each read of a socket
        self._pools: list[ConnectionPool] = []
        self._connections: list[Connection] = []
        self._active: set[Connection] = set()  # those with messages since the last rebalancing
        self._turn = 0
        # Connections whose ready count was lowered within SETTLE_SECONDS: the count before, and when (loop time).
        self._lowered: dict[Connection, tuple[int, float]] = {}
        self._settling: asyncio.TimerHandle | None = None
        self._must_wait = False  # a connection gets its share once others have fewer messages in flight
        self._failed_before = 0  # acknowledgements that failed on connections that are lost
        self._unread: deque[tuple[Batch, int]] = deque()  # each with the bytes that it arrived in
        self._unread_bytes = 0
        self._unread_is_full = False
        self._arrived = asyncio.Event()
        self._ended = False
        self._rests = False
        self._rebalancer: asyncio.Task[None] | None = None

    def _make_pool(self, source: Subscription) -> ConnectionPool:
        async def subscribe(connection: Connection) -> None:
            connection.owner = self
            await connection.subscribe(source.topic, source.channel)
            logger.info("reading %s from %s", source, connection.address)
            self._connections.append(connection)
            self._share()

        discovery = Discovery(self._brokers, source.topic, self.settings)
        return ConnectionPool(discovery, self.settings, subscribe, self._on_down, waits=not self._ends_when_empty)

    async def start(self) -> None:
        """Connect and subscribe; StartError when no broker could be reached."""
        self._pools += [self._make_pool(source) for source in self.subscriptions]
        starting = [asyncio.create_task(pool.start()) for pool in self._pools]
        try:
            await asyncio.gather(*starting)
        except BaseException:
            for task in starting:
                task.cancel()
            await asyncio.gather(*starting, return_exceptions=True)
            await self.close()
            raise
        self._rebalancer = asyncio.create_task(self._rebalance())

    async def add(self, source: Subscription) -> None:
        """Read `source` too, from now on; StartError when no broker could be reached; then it is not read."""
        pool = self._make_pool(source)
        self.subscriptions.append(source)
        self._pools.append(pool)
        try:
            await pool.start()
        except BaseException:
            self.subscriptions.remove(source)
            self._pools.remove(pool)
            raise

    # ── Source ──

    async def read(self) -> Batch | None:
        """All that has arrived since the last read, as one batch; None after `end`, or when the limit is reached."""
        while not self._unread:
            if self._ended or self._unread_limit == 0:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        batch = Batch.joined([batch for batch, _ in self._unread])
        if len(self._unread) > 1:
            merge_deliveries(batch)
        self._unread.clear()
        self._unread_bytes = 0
        if self._unread_limit is not None:
            if len(batch) > self._unread_limit:
                batch, surplus = batch.split(self._unread_limit)
                surplus.requeue()
            self._unread_limit -= len(batch)
        if self._unread_is_full:
            self._unread_is_full = False
            self._share()
        return batch

    async def close(self) -> None:
        """Stop receiving, requeue what was not finished, close."""
        self.end()
        if self._rebalancer is not None:
            self._rebalancer.cancel()
        if self._settling is not None:
            self._settling.cancel()
        self._unread.clear()  # the connections requeue what is in flight
        await asyncio.gather(*(pool.close() for pool in self._pools))

    # ── beside Source ──

    def end(self) -> None:
        """Receive nothing more; `read` returns None once everything that has arrived was read."""
        self._ended = True
        self._arrived.set()
        self._share()

    def discard(self) -> None:
        """As `end`, and drop what has not been read: `close` requeues it."""
        self.end()
        self._unread.clear()
        self._unread_bytes = 0

    def rest(self) -> None:
        """Receive nothing more for now, and requeue what was not read; what was read may still be acknowledged."""
        self._rests = True
        for batch, _ in self._unread:
            batch.requeue()
        self._unread.clear()
        self._unread_bytes = 0
        self._unread_is_full = False
        self._share()

    def resume(self, limit: int | None) -> None:
        """Receive messages again after `rest`, `limit` more of them, or any number for None."""
        self._rests = False
        self._unread_limit = limit
        self._unfinished = None if limit is None else self.in_flight + limit
        self._share()

    @property
    def may_resume(self) -> bool:
        """Whether there is a connection to resume, and `end` was not called."""
        return bool(self._connections) and not self._ended

    @property
    def in_flight(self) -> int:
        """Messages received and neither finished nor requeued."""
        return sum(connection.in_flight for connection in self._connections)

    @property
    def is_complete(self) -> bool:
        """Whether every nsqd that is known is connected; True if none is known."""
        return all(len(pool.up) >= len(pool.discovery.known) for pool in self._pools)

    @property
    def connected(self) -> int:
        """How many connections are subscribed."""
        return len(self._connections)

    @property
    def lag(self) -> float:
        """The age at its arrival of the message that arrived last, s, by the clocks of both machines; 0.0 before the
        first message."""
        timestamp, arrived_at = self._newest
        return max(0.0, arrived_at - timestamp / 1e9) if arrived_at else 0.0

    @property
    def msg_timeout(self) -> float | None:
        """s after which a broker delivers a message again that was neither finished nor touched: the least of all
        brokers; None while none is connected."""
        return min((connection.agreed.msg_timeout / 1000 for connection in self._connections), default=None)

    @property
    def reconnects(self) -> int:
        return sum(pool.reconnects for pool in self._pools)

    @property
    def acknowledgements_failed(self) -> int:
        """FINs that reached a broker too late: it delivers those messages again."""
        return self._failed_before + sum(connection.acknowledgements_failed for connection in self._connections)

    def askable(self) -> list[tuple[Subscription, str, str]]:
        """(source, nsqd, its HTTP address or "") of every connection."""
        return [
            (Subscription(connection.topic, connection.channel), connection.address, connection.address_.http)
            for connection in self._connections
        ]

    def quota_of(self, source: Subscription, nsqd: str) -> int | None:
        """How many messages of `source` on `nsqd` may still be finished; None before `set_quota` was called for it."""
        return None if self._quotas is None else self._quotas.get((source.topic, source.channel, nsqd))

    def set_quota(self, source: Subscription, nsqd: str, count: int) -> None:
        """Read `source` on `nsqd` until `count` messages of it are finished; only with `by_quota`."""
        assert self._quotas is not None
        self._quotas[source.topic, source.channel, nsqd] = count
        self._share()

    # ── what connections call ──

    def on_messages(self, connection: Connection, delivery: Delivery, messages: Messages, size: int) -> None:
        if self._rests:
            Batch.of(delivery, messages).requeue()
            return
        if self._ended:
            return  # the connection requeues them when it is closed
        self.received += len(messages)
        self.redelivered += messages.redelivered()
        self._newest = (messages.last_timestamp(), time.time())
        self._unread.append((Batch.of(delivery, messages), size))
        self._unread_bytes += size
        self._arrived.set()
        if connection not in self._active:
            self._active.add(connection)
            self._share()
        if self._unread_bytes > MAX_UNREAD and not self._unread_is_full:
            self._unread_is_full = True
            self._share()
        if self.on_received is not None:
            self.on_received(size)

    def _on_finish(self, connection: Connection, count: int) -> None:
        """Count `count` messages of `connection` whose FINs are sent next.

        Ready counts are lowered before that: a ready count is a window, and each FIN lets one more message in. They
        depend on a limit or a quota only once it is less than what a connection may have in flight anyway.
        """
        changes = self._must_wait
        if self._unfinished is not None:
            self._unfinished = max(0, self._unfinished - count)
            changes |= self._unfinished < self._max_in_flight
        if self._quotas is not None:
            key = (connection.topic, connection.channel, connection.address)
            self._quotas[key] = max(0, self._quotas.get(key, 0) - count)
            changes |= self._quotas[key] < connection.agreed.max_rdy_count
        if changes:
            self._share()

    def _on_down(self, connection: Connection) -> None:
        self._active.discard(connection)
        self._lowered.pop(connection, None)
        if connection in self._connections:
            self._connections.remove(connection)
            self._failed_before += connection.acknowledgements_failed
        if self._unread:  # the broker delivers those messages again: if they were read too, they would be duplicates
            self._unread = deque(each for each in self._unread if not _came_from(each[0], connection))
            self._unread_bytes = sum(size for _, size in self._unread)
            self._unread_is_full = self._unread_bytes > MAX_UNREAD
        self._share()

    # ── ready counts ──

    def _share(self) -> None:
        connections = self._connections
        total = 0 if self._unread_is_full or self._ended or self._rests else self._max_in_flight
        if self._unfinished is not None:
            total = min(total, self._unfinished)
        shares = share(
            total,
            [connection in self._active for connection in connections],
            [self._cap(connection) for connection in connections],
            self._turn,
        )
        # A connection may get messages up to its ready count, and for SETTLE_SECONDS up to a higher one before. Those
        # are taken from the total; a connection whose share exceeds what it has waits until there is room.
        asked = [max(each.ready_count, self._lowered.get(each, (0, 0.0))[0]) for each in connections]
        taken = [max(each.in_flight, count) for each, count in zip(connections, asked, strict=True)]
        room = max(0, total - sum(taken))
        self._must_wait = False
        for connection, count, before, has in zip(connections, shares, asked, taken, strict=True):
            if count > has:
                grown = min(count - has, room)
                room -= grown
                self._must_wait |= grown < count - has
                count = has + grown
            if count < connection.ready_count:
                loop = asyncio.get_running_loop()
                self._lowered[connection] = (before, loop.time())
                self._settling = self._settling or loop.call_later(SETTLE_SECONDS, self._settle)
            connection.ready(count)
        counts = self._must_wait or self._unfinished is not None or self._quotas is not None
        for connection in connections:
            connection.ledger.on_finish = partial(self._on_finish, connection) if counts else None

    def _cap(self, connection: Connection) -> int:
        """The highest ready count that `connection` may have."""
        most = connection.agreed.max_rdy_count
        if self._quotas is None:
            return most
        return min(most, self._quotas.get((connection.topic, connection.channel, connection.address), 0))

    def _settle(self) -> None:
        """Forget the ready counts that were lowered SETTLE_SECONDS ago, and share the room that this leaves."""
        loop = asyncio.get_running_loop()
        since = loop.time() - SETTLE_SECONDS * 0.9  # timers may be early
        self._lowered = {each: (count, when) for each, (count, when) in self._lowered.items() if when > since}
        self._settling = loop.call_later(SETTLE_SECONDS, self._settle) if self._lowered else None
        self._share()

    async def _rebalance(self) -> None:
        """Move ready counts from idle connections to active ones, in intervals."""
        before: dict[Connection, int] = {}
        while True:
            scarce = self._unfinished is not None or self._max_in_flight < len(self._connections)
            await asyncio.sleep(TURN_SECONDS if scarce else REBALANCE_SECONDS)
            self._turn += 1
            busy = {connection for connection in self._connections if connection.in_flight}
            self._active = {c for c in self._connections if c in busy or before.get(c) != c.received}
            before = {connection: connection.received for connection in self._connections}
            self._share()

    @property
    def unread_bytes(self) -> int:
        """Bytes that were received and not read."""
        return self._unread_bytes

    def __repr__(self) -> str:
        sources = ", ".join(map(str, self.subscriptions))
        return f"<Consumer {sources} connections={len(self._connections)} unread={self._unread_bytes} B>"


def _came_from(batch: Batch, connection: Connection) -> bool:
    origin = batch.parts[0][0]  # a batch that was not read yet has one part
    return isinstance(origin, Delivery) and origin.connection is connection
