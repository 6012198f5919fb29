"""RabbitMQ as an engine (engines/contract.py). In: settings. Out: sources, publishers, statistics.

What an object needs is imported when it is made: a command that only publishes does not load the reader.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qtools.engines.amqp.settings import AmqpSettings
from qtools.engines.capabilities import Capabilities
from qtools.engines.contract import PublisherOptions, SourceOptions
from qtools.errors import StartError, UsageError
from qtools.message import Batch
from qtools.names import Subscription

if TYPE_CHECKING:
    from qtools.engines.amqp.connection import AmqpConnection
    from qtools.engines.amqp.consume.source import AmqpSource
    from qtools.engines.amqp.publish.publisher import AmqpPublisher
    from qtools.engines.amqp.statistics import AmqpTopics
    from qtools.engines.connections.tls import TlsSettings

CAPABILITIES = Capabilities(
    engine="RabbitMQ",
    broker="RabbitMQ",
    temporary_channels=True,
    requeue_delay=True,
    depths=True,
    keys_and_headers=True,
    empty_messages=True,
    tombstones=True,
    longest_name=110,  # a queue's name has both names and, for a delay, some more; AMQP allows it 255 bytes
)


class AmqpEngine:
    """One vhost of one cluster."""

    def __init__(self, settings: AmqpSettings) -> None:
        self.settings = settings
        # Only the management knows the queues of a topic.
        self.capabilities = CAPABILITIES._replace(deletion=bool(settings.management))

    @property
    def tls(self) -> TlsSettings | None:
        return self.settings.tls_settings() if self.settings.mentions_tls else None

    def source(self, subscriptions: Sequence[Subscription], options: SourceOptions | None = None) -> AmqpSource:
        from qtools.engines.amqp.consume.source import AmqpSource

        return AmqpSource(subscriptions, self.settings, options or SourceOptions())

    def publisher(self, options: PublisherOptions | None = None) -> AmqpPublisher:
        from qtools.engines.amqp.publish.publisher import AmqpPublisher

        return AmqpPublisher(self.settings, options or PublisherOptions())

    def topics(self) -> AmqpTopics:
        if not self.settings.management:
            raise StartError(
                f"{self.settings}: AMQP does not tell which exchanges there are: give the URL of the management's HTTP"
                " API, as in --engine-option management=http://HOST:15672"
            )
        from qtools.engines.amqp.statistics import AmqpTopics

        return AmqpTopics(self.settings)

    def statistics(self) -> AmqpTopics:
        return self.topics()

    async def peek(self, subscription: Subscription, count: int) -> list[Batch]:
        raise UsageError(
            f"--peek: RabbitMQ does not show the messages of {subscription} without taking them: read them through a"
            " channel of their own"
        )

    async def delete(self, topic: str, channel: str = "") -> None:
        """Delete the exchange and the queues of its channels, or one queue."""
        from qtools.engines.amqp.topology import delete_exchange, delete_queue

        topics = self.topics()
        connection = await self._connect()
        try:
            names = [f"{topic}/{channel}"] if channel else await topics.queues_of(topic)
            for name in names:
                await delete_queue(connection, name)
            if not channel:
                await delete_exchange(connection, topic)
        finally:
            await topics.close()
            await connection.close()

    async def identity(self) -> frozenset[tuple[str, ...]]:
        """The name of the cluster, and the vhost."""
        connection = await self._connect()
        name = connection.cluster or str(self.settings)
        await connection.close()
        return frozenset({("amqp", name, self.settings.vhost)})

    async def _connect(self) -> AmqpConnection:
        from qtools.engines.amqp.connection import connect
        from qtools.errors import NetworkError, PeerError

        try:
            return await connect(self.settings)
        except (NetworkError, PeerError) as error:
            raise StartError(str(error)) from error

    def __str__(self) -> str:
        return str(self.settings)
