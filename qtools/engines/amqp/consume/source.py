"""Reads queues of RabbitMQ. In: subscriptions. Out: batches; see engines/contract.py.

    QueueReader ─deliveries─▶ arrived: a batch ─▶ read(): all that has arrived ─▶ finish() ─▶ acks, joined

One connection for all subscriptions, and a channel for each. What may be in flight is divided equally among them as the
prefetch of their consumers. A limit is kept exactly: while it is near, consumers are started again with a lower
prefetch. Beyond UNREAD_BYTES that were not read, the socket is not read either.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence

from qtools.engines.amqp.connection import AmqpConnection, connect
from qtools.engines.amqp.consume.delayed import DelayedMessages
from qtools.engines.amqp.consume.in_flight import ChannelDeliveries
from qtools.engines.amqp.consume.prefetch import PrefetchShares
from qtools.engines.amqp.consume.queue_counts import SETTLING, QueueCounts
from qtools.engines.amqp.consume.queue_reader import QueueReader
from qtools.engines.amqp.kept_connection import KeptConnection
from qtools.engines.amqp.protocol.deliveries import Deliveries, Record
from qtools.engines.amqp.records import decode_record, timestamp_of
from qtools.engines.amqp.settings import AmqpSettings
from qtools.engines.amqp.topology import NOT_FOUND, RESOURCE_LOCKED, count_ready, exchange_exists, no_exchange, queue_of
from qtools.engines.connections.stream_connection import LINGER
from qtools.engines.contract import SourceOptions
from qtools.engines.run_end import PolledRunEnd
from qtools.errors import (
    AuthError,
    BrokerError,
    NetworkError,
    PeerError,
    QtoolsError,
    SourceDeleted,
    StartError,
    TopicMissing,
    UsageError,
)  # fmt: skip
from qtools.message import Batch
from qtools.names import Subscription

logger = logging.getLogger("qtools.client")

UNREAD_BYTES = 8 * 1024 * 1024  # of bodies that were not read; the socket waits beyond that
# s; RabbitMQ's default of consumer_timeout, after which it takes back what is not acknowledged. AMQP does not tell it.
CONSUMER_TIMEOUT = 1800.0


class AmqpSource(PolledRunEnd):
    """Reads `subscriptions`."""

    def __init__(self, subscriptions: Sequence[Subscription], settings: AmqpSettings, options: SourceOptions) -> None:
        super().__init__(options.ends, str(settings))
        self.subscriptions = list(subscriptions)
        self.readers = [QueueReader(each, settings, self) for each in subscriptions]
        self.on_received: Callable[[int], None] | None = None
        self.received = self.redelivered = self.unread_bytes = 0
        self.acknowledgements_failed = 0
        self._settings = settings
        self._options = options
        self._limit = options.limit
        self._arrived = 0  # of the limit
        self._unread: deque[Batch] = deque()
        self._newest: tuple[Record, float] | None = None  # and when it came, s since 1970
        self._changed = asyncio.Event()
        self._error: QtoolsError | None = None
        self._is_ended = self._is_resting = False
        self._is_full = False  # the socket waits
        self._has_started = False
        self._shares = PrefetchShares(self.readers, options.max_in_flight)
        self._delayed = DelayedMessages()
        self._counts = QueueCounts(str(settings))
        self._attaching: set[asyncio.Task[None]] = set()
        self._kept = KeptConnection(settings, self._on_up, self._on_down, self._stop_with)

    # ── what the contract asks ──

    async def prepare(self) -> None:
        if self._options.since is not None:
            raise UsageError(
                "--since: RabbitMQ keeps no messages that a queue was not bound for: read from where the channel stands"
            )
        if self._settings.queue and len(self.subscriptions) > 1:
            raise UsageError(f"queue={self._settings.queue} is one queue: read one topic with it")
        connection = await self._connect_first()
        try:
            for subscription in self.subscriptions:
                await self._check(connection, subscription)
        except PeerError as error:
            raise StartError(str(error)) from error
        finally:
            await connection.close()

    async def _check(self, connection: AmqpConnection, subscription: Subscription) -> None:
        """TopicMissing if a subscription has neither a queue nor an exchange that one can be bound to."""
        queue = queue_of(subscription, self._settings)
        if not queue.is_temporary and await count_ready(connection, queue.name) is not None:
            return
        if not queue.is_ours:
            raise TopicMissing(
                f"{self._settings}: there is no queue {queue.name} in the vhost {self._settings.vhost} (NOT_FOUND)"
            )
        if not await exchange_exists(connection, subscription.topic):
            advice = "create it, or publish to it with --create-topics default"
            raise no_exchange(subscription.topic, self._settings, advice)

    async def start(self) -> None:
        await self._kept.start()
        if self._options.ends.until_now:
            try:
                await self._counts.begin(self.readers)
            except NetworkError as error:
                raise StartError(str(error)) from error
        self._has_started = True
        self._share()

    async def add(self, subscription: Subscription) -> None:
        reader = QueueReader(subscription, self._settings, self)
        connection = self._kept.connection
        if connection is not None:
            try:
                await reader.attach(connection)
            except (PeerError, NetworkError) as error:
                raise StartError(str(error)) from error
        self.readers.append(reader)
        self.subscriptions.append(subscription)
        self._shares.divide_anew()

    async def read(self) -> Batch | None:
        while not self._unread:
            if self._error is not None:
                raise self._error
            if self._is_ended or (self._limit is not None and self._arrived >= self._limit):
                return None
            self._changed.clear()
            await self._changed.wait()
        batch = Batch.joined(self._unread)
        self._unread.clear()
        self.unread_bytes = 0
        if self._is_full:
            self._is_full = False
            if self._kept.connection is not None:
                self._kept.connection.resume_reading()
        return batch

    def end(self) -> None:
        self._is_ended = True
        self._changed.set()
        self._share()

    def discard(self) -> None:
        """As the contract says; what was not read goes back when the connection is closed."""
        self._unread.clear()
        self.unread_bytes = 0
        self.end()

    def rest(self) -> None:
        self._is_resting = True
        for batch in self._unread:
            self._arrived -= len(batch)
            batch.requeue()
        self._unread.clear()
        self.unread_bytes = 0
        self._share()

    def resume(self, limit: int | None) -> None:
        self._is_resting = False
        self._limit = None if limit is None else self._arrived + limit
        self._share()

    @property
    def may_resume(self) -> bool:
        return bool(self.connected) and not self._is_ended

    async def close(self) -> None:
        self._is_ended = True
        self._kept.begin_close()
        self._shares.close()
        for task in self._attaching:
            task.cancel()
        await self._delayed.close()
        connection = self._kept.connection
        if connection is not None:
            connection.resume_reading()
            await asyncio.wait([asyncio.ensure_future(self._flush())], timeout=LINGER)
        await self._kept.close()

    async def _flush(self) -> None:
        await asyncio.gather(*(reader.flush() for reader in self.readers))

    # ── when the run ends by itself ──

    async def is_finished(self, *, at_start: bool) -> bool:
        readers = self._counts.short_of_quota(self.readers) if at_start else self.readers
        if not readers:
            return True
        received = self.received
        if self.in_flight or not self._delayed.are_back(SETTLING) or not await self._counts.is_empty(readers):
            return False
        return self.received == received and not self.in_flight

    # ── what is counted ──

    @property
    def in_flight(self) -> int:
        return sum(reader.in_flight for reader in self.readers)

    @property
    def connected(self) -> int:
        return sum(reader.origin is not None for reader in self.readers)

    @property
    def reconnects(self) -> int:
        return self._kept.reconnects

    @property
    def lag(self) -> float:
        if self._newest is None:
            return 0.0
        stamp = timestamp_of(decode_record(self._newest[0]))
        return max(0.0, self._newest[1] - stamp / 1e9) if stamp else 0.0

    @property
    def lag_messages(self) -> int | None:
        return None

    @property
    def acknowledgement_timeout(self) -> float | None:
        return CONSUMER_TIMEOUT

    # ── the connection ──

    async def _connect_first(self) -> AmqpConnection:
        try:
            return await connect(self._settings)
        except (NetworkError, PeerError) as error:
            raise StartError(str(error)) from error

    async def _on_up(self, connection: AmqpConnection) -> None:
        for reader in self.readers:
            await reader.attach(connection)
        if self._is_full:
            connection.pause_reading()
        if self._has_started:  # at first, `start` counts the queues before anything is read
            self._share()

    def _on_down(self, _connection: AmqpConnection) -> None:
        for reader in self.readers:
            reader.detach()

    def _attach_again(self, reader: QueueReader) -> None:
        connection = self._kept.connection
        if connection is None or self._kept.is_closing:
            return

        async def attach() -> None:
            try:
                await reader.attach(connection)
            except (NetworkError, PeerError, StartError) as error:
                connection.abort(error)  # it is opened again after growing pauses
            else:
                self._share()

        task = asyncio.create_task(attach())
        self._attaching.add(task)
        task.add_done_callback(self._attaching.discard)

    def _stop_with(self, error: QtoolsError) -> None:
        self._error = self._error or error
        self._changed.set()

    # ── what readers call (queue_reader.QueueReaderOwner) ──

    def arrived(self, reader: QueueReader, some: Deliveries) -> None:
        assert reader.origin is not None
        again = some.redelivered
        if some.has_dead_letters:
            again += sum(1 for record in some.records if not record[0].exchange and b"qtools-attempts" in record[1])
        batch = reader.origin.add(some, bool(again))
        if self._is_resting:
            batch.requeue()
            return
        if self._is_ended:
            return  # it goes back when the connection is closed
        if self._limit is not None and self._arrived + len(batch) > self._limit:
            batch, surplus = batch.split(self._limit - self._arrived)
            surplus.requeue()
            if not len(batch):
                return
        count, size = len(batch), sum(map(len, batch.bodies))
        self._arrived += count
        self._count_left()
        self.received += count
        self.redelivered += again
        self._newest = some.records[-1], time.time()
        self._unread.append(batch)
        self.unread_bytes += size
        if self.unread_bytes > UNREAD_BYTES and not self._is_full and reader.connection is not None:
            self._is_full = True
            reader.connection.pause_reading()
        self._changed.set()
        if self.on_received is not None:
            self.on_received(size)

    def settling(self, origin: ChannelDeliveries, tags: Sequence[int]) -> None:
        reader = next(each for each in self.readers if each.origin is origin)
        self._shares.settling(reader, tags)
        reader.settling(tags)

    def settled(self) -> None:
        self._shares.settled()

    def cancelled(self) -> None:
        self._share()

    def lost(self, reader: QueueReader) -> None:
        gone = reader.subscription
        kept: deque[Batch] = deque()
        for batch in self._unread:
            if any(origin.is_lost for origin, _, _ in batch.parts):
                self._arrived -= len(batch)
                logger.debug("%s: %d messages that were not read come again", gone, len(batch))
            else:
                kept.append(batch)
        self._unread = kept
        self._count_left()
        self.unread_bytes = sum(sum(map(len, batch.bodies)) for batch in kept)
        self._changed.set()

    def deleted(self, reader: QueueReader) -> None:
        subscription = str(reader.subscription)
        if self._options.ends.flag:
            self._stop_with(SourceDeleted("channel", subscription, str(self._settings)))
            self.end()
            return
        logger.warning("the queue %s was deleted, or its node is gone; subscribing again", reader.queue.name)
        self._attach_again(reader)

    def failed(self, reader: QueueReader, error: QtoolsError) -> None:
        code = error.code if isinstance(error, BrokerError) else ""
        if code == NOT_FOUND:
            self.deleted(reader)
            return
        if isinstance(error, AuthError) or code == RESOURCE_LOCKED:
            self._stop_with(error)
            return
        logger.warning("%s; what is in flight of %s comes again", error, reader.queue.name)
        self._attach_again(reader)

    def count_late(self, count: int) -> None:
        self.acknowledgements_failed += count

    def deliver_later(self, origin: ChannelDeliveries, tags: Sequence[int], delay_ms: int) -> None:
        reader = next(each for each in self.readers if each.origin is origin)
        assert reader.connection is not None
        self._delayed.add(reader.connection, reader.queue.name, origin, tags, delay_ms)

    def _share(self) -> None:
        self._shares.runs = not self._is_ended and not self._is_resting
        self._count_left()
        self._shares.divide()

    def _count_left(self) -> None:
        self._shares.left = None if self._limit is None else self._limit - self._arrived

    def __repr__(self) -> str:
        return f"<AmqpSource {', '.join(map(str, self.subscriptions))} connected={self.connected}>"
