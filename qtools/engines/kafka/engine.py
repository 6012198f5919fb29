"""Kafka as an engine (engines/contract.py). In: settings. Out: sources, publishers, statistics.

What an object needs is imported when it is made: a command that only publishes does not load the reader.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qtools.engines.capabilities import Capabilities
from qtools.engines.contract import NewTopics, PublisherOptions, SourceOptions
from qtools.engines.kafka.settings import KafkaSettings
from qtools.message import Batch
from qtools.names import LONGEST_NAME, Subscription

if TYPE_CHECKING:
    from qtools.engines.connections.tls import TlsSettings
    from qtools.engines.kafka.consume.source import KafkaSource
    from qtools.engines.kafka.publish.publisher import KafkaPublisher
    from qtools.engines.kafka.statistics import KafkaTopics

CAPABILITIES = Capabilities(
    engine="Kafka",
    broker="Kafka",
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
    partitions=True,
    replicas=True,
    exclusive_partitions=True,
    cumulative=True,
    longest_name=LONGEST_NAME,
    reserved_names=(".", ".."),
    default_max_in_flight=10_000,  # it costs memory alone, and 2500 make fast readers wait
)


class KafkaEngine:
    """One Kafka cluster."""

    capabilities = CAPABILITIES

    def __init__(self, settings: KafkaSettings) -> None:
        self.settings = settings

    @property
    def tls(self) -> TlsSettings | None:
        given = self.settings
        if not (given.tls or given.tls_ca or given.tls_cert or given.tls_key or given.tls_insecure):
            return None
        from qtools.engines.connections.tls import TlsFiles, TlsSettings

        files = TlsFiles(given.tls_ca, given.tls_cert, given.tls_key, given.tls_insecure, given.tls_key_password)
        return TlsSettings(given.tls, files, "a kafkas:// URL", is_loaded_elsewhere=True)

    def source(self, subscriptions: Sequence[Subscription], options: SourceOptions | None = None) -> KafkaSource:
        from qtools.engines.kafka.consume.source import KafkaSource

        return KafkaSource(subscriptions, self.settings, options or SourceOptions())

    def publisher(self, options: PublisherOptions | None = None) -> KafkaPublisher:
        from qtools.engines.kafka.publish.publisher import KafkaPublisher

        return KafkaPublisher(self.settings, options or PublisherOptions())

    def topics(self) -> KafkaTopics:
        from qtools.engines.kafka.statistics import KafkaTopics

        return KafkaTopics(self.settings)

    def statistics(self) -> KafkaTopics:
        return self.topics()

    async def peek(self, subscription: Subscription, count: int) -> list[Batch]:
        from qtools.engines.kafka.consume.peek import peek

        return await peek(subscription, self.settings, count)

    async def delete(self, topic: str, channel: str = "") -> None:
        """A channel is a group: it is deleted with what it has committed of all topics."""
        from qtools.engines.kafka.administration import delete

        await delete(topic, channel, self.settings)

    async def create(self, topic: str, channel: str = "", new: NewTopics | None = None) -> bool:
        from qtools.engines.kafka.administration import create

        return await create(topic, channel, new, self.settings)

    async def empty(self, topic: str, channel: str = "") -> None:
        from qtools.engines.kafka.administration import empty

        await empty(topic, channel, self.settings)

    async def identity(self) -> frozenset[tuple[str, ...]]:
        """The cluster's own id."""
        from qtools.engines.kafka.clients import ErrorLog, look_at_cluster, make_admin

        errors = ErrorLog(self.settings)
        admin = make_admin(self.settings, errors)
        view = await look_at_cluster(admin, errors, str(self.settings), lambda: admin.poll(0))
        return frozenset({("kafka", view.cluster or str(self.settings))})

    def __str__(self) -> str:
        return str(self.settings)
