"""NATS JetStream as an engine (engines/contract.py). In: settings. Out: sources, publishers, statistics.

What an object needs is imported when it is made: a command that only publishes does not load the reader.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qtools.engines.capabilities import Capabilities
from qtools.engines.contract import NewTopics, PublisherOptions, SourceOptions
from qtools.engines.jetstream.settings import JetStreamSettings
from qtools.message import Batch
from qtools.names import LONGEST_NAME, Subscription

if TYPE_CHECKING:
    from qtools.engines.connections.tls import TlsSettings
    from qtools.engines.jetstream.consume.source import JetStreamSource
    from qtools.engines.jetstream.publish.publisher import JetStreamPublisher
    from qtools.engines.jetstream.topics import JetStreamTopics

CAPABILITIES = Capabilities(
    engine="NATS",
    broker="nats-server",
    temporary_channels=True,
    requeue_delay=True,
    touch=True,
    peek=True,
    since=True,
    depths=True,
    keys_and_headers=True,
    empty_messages=True,
    tombstones=True,
    replicas=True,
    deletion=True,
    creation=True,
    emptying=True,
    dedupe_ids=True,
    retention=True,
    longest_name=LONGEST_NAME,
    reserved_names=(".", ".."),
    default_max_in_flight=5000,  # messages are small, and an acknowledgement waits for no round trip
)


class JetStreamEngine:
    """One cluster of NATS, seen by one user."""

    capabilities = CAPABILITIES

    def __init__(self, settings: JetStreamSettings) -> None:
        self.settings = settings

    @property
    def tls(self) -> TlsSettings | None:
        given = self.settings
        if not (given.tls or any(given.tls_files)):
            return None
        from qtools.engines.connections.tls import TlsSettings

        return TlsSettings(given.tls, given.tls_files, "a natss:// URL")

    def source(self, subscriptions: Sequence[Subscription], options: SourceOptions | None = None) -> JetStreamSource:
        from qtools.engines.jetstream.consume.source import JetStreamSource

        return JetStreamSource(subscriptions, self.settings, options or SourceOptions())

    def publisher(self, options: PublisherOptions | None = None) -> JetStreamPublisher:
        from qtools.engines.jetstream.publish.publisher import JetStreamPublisher

        return JetStreamPublisher(self.settings, options or PublisherOptions())

    def topics(self) -> JetStreamTopics:
        from qtools.engines.jetstream.topics import JetStreamTopics

        return JetStreamTopics(self.settings)

    def statistics(self) -> JetStreamTopics:
        return self.topics()

    async def peek(self, subscription: Subscription, count: int) -> list[Batch]:
        from qtools.engines.jetstream.consume.peek import peek

        return await peek(subscription, self.settings, count)

    async def delete(self, topic: str, channel: str = "") -> None:
        """A topic that shares its stream with others loses its messages only."""
        from qtools.engines.jetstream.administration import delete

        await delete(topic, channel, self.settings)

    async def create(self, topic: str, channel: str = "", new: NewTopics | None = None) -> bool:
        from qtools.engines.jetstream.administration import create

        return await create(topic, channel, new, self.settings)

    async def empty(self, topic: str, channel: str = "") -> None:
        from qtools.engines.jetstream.administration import empty

        await empty(topic, channel, self.settings)

    async def identity(self) -> frozenset[tuple[str, ...]]:
        """The cluster, or the server without one, and the account: each account has streams of its own."""
        from qtools.engines.jetstream.topics import cluster_identity

        return await cluster_identity(self.settings)

    def __str__(self) -> str:
        return str(self.settings)
