"""Reads one subscription from its queue. In: a connection, how much may be in flight. Out: deliveries.

    attach ─▶ channel, queue declared ─▶ consume(prefetch) ─▶ deliveries … ─▶ cancel ─▶ consume(another prefetch)

RabbitMQ does not change the prefetch of a consumer that runs, and a quorum queue has none for a whole channel: the
consumer is cancelled, and another one is started. What the first one has delivered stays in flight.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from bisect import bisect_left
from collections.abc import Sequence
from typing import Protocol

from qtools.engines.amqp.connection import AmqpChannel, AmqpConnection
from qtools.engines.amqp.consume.in_flight import ChannelDeliveries, DeliveryOwner
from qtools.engines.amqp.protocol.deliveries import Deliveries
from qtools.engines.amqp.protocol.methods import Method
from qtools.engines.amqp.settings import AmqpSettings
from qtools.engines.amqp.topology import QueueName, count_ready, declare_queue, queue_of
from qtools.errors import NetworkError, PeerError, QtoolsError
from qtools.names import Subscription

logger = logging.getLogger("qtools.client")

MOST_PREFETCH = 65_535  # a short integer of the protocol

_numbers = itertools.count(1)  # of channels


class QueueReaderOwner(DeliveryOwner, Protocol):
    """The source. No call waits."""

    def arrived(self, reader: QueueReader, some: Deliveries) -> None: ...

    def cancelled(self) -> None:
        """A consumer has ended, as it was asked to: it may be started again with another prefetch."""

    def lost(self, reader: QueueReader) -> None:
        """What the reader had in flight is lost: the broker delivers it again."""

    def deleted(self, reader: QueueReader) -> None:
        """The queue was deleted, or its node is gone."""

    def failed(self, reader: QueueReader, error: QtoolsError) -> None:
        """The broker has closed the channel."""


class QueueReader:
    """One subscription. prefetch: of the consumer that runs, 0 without one."""

    def __init__(self, subscription: Subscription, settings: AmqpSettings, owner: QueueReaderOwner) -> None:
        self.subscription = subscription
        self.queue: QueueName = queue_of(subscription, settings)
        self.origin: ChannelDeliveries | None = None  # None while it is not attached
        self.prefetch = 0
        self.connection: AmqpConnection | None = None
        self._settings = settings
        self._owner = owner
        self._channel: AmqpChannel | None = None
        self._finished_before = 0  # on channels that are closed
        self._consumer_tag = ""
        self._starting: asyncio.Future[Method] | None = None  # the answer to basic.consume
        self._is_cancelled_early = False  # before that answer has come
        self._cancelling: asyncio.Future[Method] | None = None  # the answer to basic.cancel
        self._of_consumer = 0  # unsettled messages of the consumer that runs
        self._first_tag = 1  # of the consumer that runs

    async def attach(self, connection: AmqpConnection) -> None:
        """Use `connection`; nothing is read before `consume`. TopicMissing, UsageError, BrokerError, ConnectionLost."""
        if self.queue.is_temporary:
            self.queue = queue_of(self.subscription, self._settings)  # the broker has deleted the one before
        await declare_queue(connection, self.queue, self.subscription, self._settings)
        channel = await connection.open_channel()
        channel.on_deliveries = self._on_deliveries
        channel.on_cancelled = self._on_cancelled
        channel.on_closed = self._on_closed
        self._channel, self.connection = channel, connection
        self.origin = ChannelDeliveries(self.subscription.topic, channel, self._owner, next(_numbers))
        self._forget_consumer()
        logger.info("reading %s from %s", self.queue.name, connection.address)

    def detach(self) -> None:
        """The connection or the channel is gone, or is to be given up."""
        origin, self.origin, channel, self._channel = self.origin, None, self._channel, None
        self._forget_consumer()
        if channel is not None:
            channel.on_closed = None
            channel.close()
        if origin is not None and not origin.is_lost:
            self._finished_before += origin.finished
            origin.lose()
            self._owner.lost(self)

    def _forget_consumer(self) -> None:
        self.prefetch = self._of_consumer = 0
        self._consumer_tag = ""
        self._cancelling = None

    @property
    def in_flight(self) -> int:
        return 0 if self.origin is None else self.origin.in_flight

    @property
    def finished(self) -> int:
        """Messages that were acknowledged."""
        return self._finished_before + (0 if self.origin is None else self.origin.finished)

    @property
    def may_come(self) -> int:
        """How many messages the broker may still send, if none is settled."""
        return max(0, self.prefetch - self._of_consumer)

    @property
    def is_idle(self) -> bool:
        """Whether its consumer runs, and has nothing in flight."""
        return bool(self._consumer_tag) and self._cancelling is None and not self._of_consumer

    @property
    def can_consume(self) -> bool:
        return self._channel is not None and not self._consumer_tag

    # ── the consumer ──

    def consume(self, prefetch: int) -> None:
        """Start a consumer that has at most `prefetch` messages in flight."""
        channel, origin = self._channel, self.origin
        assert channel is not None
        assert origin is not None
        self.prefetch = min(prefetch, MOST_PREFETCH)
        self._consumer_tag = f"qtools-{next(_numbers)}"
        self._of_consumer, self._first_tag = 0, origin.next_tag
        channel.ask("basic.qos", prefetch_count=self.prefetch)
        self._is_cancelled_early = False
        self._starting = channel.ask("basic.consume", queue=self.queue.name, consumer_tag=self._consumer_tag)
        self._starting.add_done_callback(self._on_consume_ok)

    def cancel(self) -> None:
        """End the consumer, once it has begun. What is sent from then on is sent behind this."""
        if self._channel is None or not self._consumer_tag or self._cancelling is not None:
            return
        if self._starting is not None and not self._starting.done():
            self._is_cancelled_early = True  # RabbitMQ 3.10 closes the connection (541) on a cancel before consume-ok
        else:
            self._cancelling = self._channel.ask("basic.cancel", consumer_tag=self._consumer_tag)
            self._cancelling.add_done_callback(self._on_cancel_ok)

    def _on_consume_ok(self, answer: asyncio.Future[Method]) -> None:
        if self._is_cancelled_early and answer is self._starting and not answer.cancelled() and not answer.exception():
            self.cancel()

    def _on_cancel_ok(self, answer: asyncio.Future[Method]) -> None:
        if answer.cancelled() or answer.exception() is not None or answer is not self._cancelling:
            return
        self._forget_consumer()
        self._owner.cancelled()

    def settling(self, tags: Sequence[int]) -> None:
        """Messages are about to be settled."""
        self._of_consumer = max(0, self._of_consumer - self.of_consumer(tags))

    def of_consumer(self, tags: Sequence[int]) -> int:
        """How many of `tags` the consumer that runs has delivered."""
        return len(tags) - bisect_left(tags, self._first_tag)

    # ── what the channel calls ──

    def _on_deliveries(self, some: Deliveries) -> None:
        if self.origin is None:
            return
        if some.consumer_tag == self._consumer_tag.encode():
            self._of_consumer += len(some)
        self._owner.arrived(self, some)

    def _on_cancelled(self, tag: str) -> None:
        if tag == self._consumer_tag:
            self.detach()
            self._owner.deleted(self)

    def _on_closed(self, error: QtoolsError) -> None:
        self._channel = None
        self.detach()
        if not isinstance(error, NetworkError):
            self._owner.failed(self, error)

    async def flush(self) -> None:
        """Return when the broker has handed all acknowledgements to the queue.

        A channel of RabbitMQ passes on few acknowledgements to a quorum queue at once, keeps the others until those are
        confirmed, and drops them when it is closed. The end of the consumer waits for the queue; the confirms have come
        to the channel then, and what it kept is on its way before it answers the next question.
        """
        channel = self._channel
        if channel is None or self.origin is None:
            return
        with contextlib.suppress(NetworkError, PeerError):
            if self._starting is not None:
                await asyncio.wait([self._starting])
            self.cancel()
            if self._cancelling is not None:
                await asyncio.wait([self._cancelling])
            await channel.ask("queue.declare", queue=self.queue.name, passive=True)
            await channel.ask("queue.declare", queue=self.queue.name, passive=True)

    async def count_ready(self) -> int | None:
        """How many messages of the queue are not delivered to any consumer; None if it is not known now."""
        if self.connection is None or self.origin is None:
            return None
        return await count_ready(self.connection, self.queue.name)

    def __repr__(self) -> str:
        return f"<QueueReader {self.queue.name} in_flight={self.in_flight}/{self.prefetch}>"
