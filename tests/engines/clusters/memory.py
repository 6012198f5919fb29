"""The engine without a network for the engine suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from qtools.engines.connection_options import ConnectionFlags
from qtools.engines.contract import Engine
from qtools.names import Subscription
from tests.engines.clusters.cluster import DEFAULTS, Cluster
from tests.engines.memory import EVERYTHING, MemoryEngine


class MemoryCluster(Cluster):
    """Each message is acknowledged by itself."""

    has_server = False
    is_cumulative = False

    def __init__(self, room: Path) -> None:
        capabilities = EVERYTHING._replace(cumulative=self.is_cumulative, deferred_publishing=not self.is_cumulative)
        self.memory = MemoryEngine(capabilities, cumulative=self.is_cumulative)

    @property
    def url(self) -> str:
        return "memory"

    def engine(
        self, settings: ConnectionFlags = DEFAULTS, *, url: str = "", environ: Mapping[str, str] | None = None
    ) -> Engine:
        return self.memory

    def start(self) -> None: ...

    def close(self) -> None: ...

    async def make_topic(self, topic: str, *channels: str, partitions: int = 1) -> None:
        self.memory.topic(topic)
        for channel in channels:
            self.memory.channel(Subscription(topic, channel))

    async def fill(self, topic: str, bodies: Sequence[bytes]) -> None:
        self.memory.put(topic, bodies)

    async def drain(self, topic: str, channel: str) -> list[bytes]:
        found = self.memory.topic(topic)
        own = self.memory.channel(Subscription(topic, channel))
        if self.is_cumulative:
            places, own.committed = list(range(own.committed, len(found.messages))), len(found.messages)
        else:
            places = list(own.waiting)
        own.waiting.clear()
        return [found.messages[place].body for place in places]

    async def left(self, topic: str, channel: str) -> int:
        return self.memory.left(Subscription(topic, channel))

    async def pause(self, topic: str, channel: str) -> None:
        self.memory.channel(Subscription(topic, channel)).paused = True


class CumulativeMemoryCluster(MemoryCluster):
    """A channel is a position in the topic, as with Kafka."""

    is_cumulative = True
