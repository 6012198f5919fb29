"""Redis Streams as an engine (engines/contract.py). In: settings. Out: sources, publishers, statistics.

What an object needs is imported when it is made: a command that only publishes does not load the reader.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qtools.engines.capabilities import Capabilities
from qtools.engines.contract import NewTopics, PublisherOptions, SourceOptions
from qtools.engines.redis.settings import RedisSettings
from qtools.message import Batch
from qtools.names import LONGEST_NAME, Subscription

if TYPE_CHECKING:
    from qtools.engines.connections.tls import TlsSettings
    from qtools.engines.redis.consume.source import RedisSource
    from qtools.engines.redis.looks import RedisTopics
    from qtools.engines.redis.publish.publisher import RedisPublisher

CAPABILITIES = Capabilities(
    engine="Redis",
    broker="redis-server",
    temporary_channels=True,
    requeue_delay=True,
    touch=True,
    peek=True,
    since=True,
    depths=True,
    keys_and_headers=True,
    empty_messages=True,
    tombstones=True,
    creation=True,
    emptying=True,
    deletion=True,
    retention=True,
    longest_name=LONGEST_NAME,
    default_max_in_flight=10_000,  # it costs memory alone, and 2500 make fast readers wait
)


class RedisEngine:
    """One server, or what takes its place."""

    capabilities = CAPABILITIES

    def __init__(self, settings: RedisSettings) -> None:
        self.settings = settings

    @property
    def tls(self) -> TlsSettings | None:
        return self.settings.tls_settings()

    def source(self, subscriptions: Sequence[Subscription], options: SourceOptions | None = None) -> RedisSource:
        from qtools.engines.redis.consume.source import RedisSource

        return RedisSource(subscriptions, self.settings, options or SourceOptions())

    def publisher(self, options: PublisherOptions | None = None) -> RedisPublisher:
        from qtools.engines.redis.publish.publisher import RedisPublisher

        return RedisPublisher(self.settings, options or PublisherOptions())

    def topics(self) -> RedisTopics:
        from qtools.engines.redis.looks import RedisTopics

        return RedisTopics(self.settings)

    def statistics(self) -> RedisTopics:
        return self.topics()

    async def peek(self, subscription: Subscription, count: int) -> list[Batch]:
        from qtools.engines.redis.looks import peek

        return await peek(subscription, self.settings, count)

    async def create(self, topic: str, channel: str = "", new: NewTopics | None = None) -> bool:
        from qtools.engines.redis.topic_changes import change, create

        return await change(self.settings, lambda connection: create(connection, topic, channel))

    async def empty(self, topic: str, channel: str = "") -> None:
        from qtools.engines.redis.topic_changes import change, empty

        await change(self.settings, lambda connection: empty(connection, topic, channel))

    async def delete(self, topic: str, channel: str = "") -> None:
        """A topic is deleted only if it is a stream."""
        from qtools.engines.redis.topic_changes import change, delete

        await change(self.settings, lambda connection: delete(connection, topic, channel))

    async def identity(self) -> frozenset[tuple[str, ...]]:
        """The run of the server, and the history that it shares with its replicas."""
        from qtools.engines.redis.connect import connect_at_start
        from qtools.engines.redis.server_info import read_identity

        connection = await connect_at_start(self.settings)
        try:
            return await read_identity(connection, self.settings.db)
        finally:
            await connection.drop()

    def __str__(self) -> str:
        return str(self.settings)
