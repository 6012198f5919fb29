"""Apache Kafka for the engine suite."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from harness.certificates import Certificates
from harness.kafka import KafkaNode, make_cluster
from harness.kafka_client import KafkaClient
from harness.kafka_security import PASSWORD, USER, make_secured_node

from qtools.engines.connection_options import ConnectionFlags
from tests.engines.clusters.cluster import Cluster


class KafkaCluster(Cluster):
    """One node. The other client is librdkafka's own consumer and producer, with their default settings."""

    freeze_time = 12.0  # s; a session times out after 10
    short_timeout = ConnectionFlags({}, {"session.timeout.ms": "6000", "max.poll.interval.ms": "6000"})
    short_time = 8.0  # s

    def __init__(self, room: Path, address: str = "") -> None:
        """address: of a server that runs already, and is not this object's to end."""
        self.room = room
        self.node: KafkaNode | None = None
        self._address = address
        self._is_secured = False

    @classmethod
    def secured(cls, room: Path, certificates: Certificates) -> KafkaCluster:
        made = cls(room)
        made.node = make_secured_node(room, certificates)
        made._is_secured = True
        made.fields = {"tls_ca": str(certificates.ca), "tls": True}
        made.environ = {"QTOOLS_KAFKA_USER": USER, "QTOOLS_KAFKA_PASSWORD": PASSWORD}
        made.wrong_environ = made.environ | {"QTOOLS_KAFKA_PASSWORD": "no-password-of-anybody"}
        return made

    @property
    def url(self) -> str:
        if self._is_secured:
            assert self.node is not None
            return f"kafkas://127.0.0.1:{self.node.sasl_port}"
        return f"kafka://{self._where}"

    @property
    def _where(self) -> str:
        """The address of the listener without TLS and without passwords."""
        if self._address:
            return self._address
        assert self.node is not None
        return self.node.address

    def start(self) -> None:
        if self._address:
            return
        if self.node is None:
            (self.node,) = make_cluster(self.room)
        self.node.start()

    def stop(self) -> None:
        assert self.node is not None
        self.node.stop()

    def kill(self) -> None:
        assert self.node is not None
        self.node.kill()

    def freeze(self) -> None:
        assert self.node is not None
        self.node.freeze()

    def thaw(self) -> None:
        assert self.node is not None
        self.node.thaw()

    def close(self) -> None:
        if self.node is not None:
            self.node.kill()

    # ── its queues, seen by another client ──

    @property
    def _client(self) -> KafkaClient:
        return KafkaClient(self._where)

    async def make_topic(self, topic: str, *channels: str, partitions: int = 1) -> None:
        await asyncio.to_thread(self._client.create, topic, partitions)

    async def fill(self, topic: str, bodies: Sequence[bytes]) -> None:
        await asyncio.to_thread(self._client.fill, topic, bodies)

    async def drain(self, topic: str, channel: str) -> list[bytes]:
        return await asyncio.to_thread(self._client.drain, topic, channel)

    async def left(self, topic: str, channel: str) -> int:
        return await asyncio.to_thread(self._client.left, topic, channel)
