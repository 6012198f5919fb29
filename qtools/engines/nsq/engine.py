"""NSQ as an engine (engines/contract.py): nsqd, nsqlookupd, and q-broker, which speaks as nsqd does.

In: where the brokers are, and how to connect. Out: sources, publishers, statistics.

What an object needs is imported when it is made: a command that only publishes does not load the consumer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qtools.engines.capabilities import Capabilities
from qtools.engines.contract import NewTopics, PublisherOptions, SourceOptions
from qtools.engines.nsq.address import Brokers
from qtools.engines.nsq.settings import Settings
from qtools.message import Batch
from qtools.names import Subscription

if TYPE_CHECKING:
    from qtools.engines.connections.tls import TlsSettings
    from qtools.engines.nsq.consume.source import NsqSource
    from qtools.engines.nsq.publish.publisher import NsqPublisher
    from qtools.engines.nsq.statistics import TopicStatistics
    from qtools.engines.nsq.topics import TopicLister

CAPABILITIES = Capabilities(
    engine="NSQ",
    broker="nsqd",
    temporary_channels=True,
    deferred_publishing=True,
    requeue_delay=True,
    touch=True,
    peek=True,
    since=True,
    depths=True,
    pause=True,
    creation=True,
    emptying=True,
    deletion=True,
    replication=True,
)


class NsqEngine:
    """The brokers that `brokers` names, spoken to as `settings` say."""

    capabilities = CAPABILITIES

    def __init__(self, brokers: Brokers, settings: Settings) -> None:
        self.brokers = brokers
        self.settings = settings

    @property
    def tls(self) -> TlsSettings | None:
        if not self.settings.mentions_tls and not self.brokers.uses_https:
            return None
        tls = self.settings.tls_settings()
        tls.is_used = self.settings.tls or self.brokers.uses_https
        return tls

    def source(self, subscriptions: Sequence[Subscription], options: SourceOptions | None = None) -> NsqSource:
        from qtools.engines.nsq.consume.source import NsqSource

        return NsqSource(subscriptions, self.brokers, self.settings, options or SourceOptions())

    def publisher(self, options: PublisherOptions | None = None) -> NsqPublisher:
        from qtools.engines.nsq.publish.load_balancing import balance_of
        from qtools.engines.nsq.publish.publisher import NsqPublisher

        options = options or PublisherOptions()
        return NsqPublisher(
            self.brokers, self.settings,
            batch_count=options.batch_count, batch_bytes=options.batch_bytes, delay_ms=options.delay_ms,
            replicate=options.replicate, balance=balance_of(options.balance) if options.balance else None,
            retry_timeout=options.retry_timeout, on_published=options.on_published,
        )  # fmt: skip

    def topics(self) -> TopicLister:
        from qtools.engines.nsq.topics import TopicLister

        return TopicLister(self.brokers, self.settings)

    def statistics(self) -> TopicStatistics:
        from qtools.engines.nsq.statistics import TopicStatistics

        return TopicStatistics(self.brokers, self.settings)

    async def peek(self, subscription: Subscription, count: int) -> list[Batch]:
        from qtools.engines.nsq.consume.history import peek

        return await peek(subscription, self.brokers, self.settings, count)

    async def delete(self, topic: str, channel: str = "") -> None:
        from qtools.engines.nsq.administration import delete

        await delete(topic, channel, self.brokers, self.settings)

    async def create(self, topic: str, channel: str = "", new: NewTopics | None = None) -> bool:
        from qtools.engines.nsq.administration import create

        return await create(topic, channel, self.brokers, self.settings)

    async def empty(self, topic: str, channel: str = "") -> None:
        from qtools.engines.nsq.administration import empty

        await empty(topic, channel, self.brokers, self.settings)

    async def pause(self, topic: str, channel: str, paused: bool) -> None:
        from qtools.engines.nsq.administration import pause

        await pause(topic, channel, paused, self.brokers, self.settings)

    async def identity(self) -> frozenset[tuple[str, ...]]:
        from qtools.engines.nsq.identity import cluster_identity

        return await cluster_identity(self.brokers, self.settings)

    def __str__(self) -> str:
        return str(self.brokers)
