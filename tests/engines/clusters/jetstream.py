"""nats-server for the engine suite."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.certificates import Certificates
from harness.nats import NEW, OLD, NatsServer, nats_client

from qtools.engines.choice import ConnectionFlags
from tests.engines.clusters.cluster import Cluster

USER, PASSWORD = "archivist", "the-secret-of-the-tests"
ACK_WAIT = 3.0  # s, of the consumers that exist before a test reads


class NatsCluster(Cluster):
    """The newest nats-server. The other client is NATS's own, nats-py."""

    kind = NEW
    freeze_time = 3.0  # s
    noticing = ConnectionFlags({}, {"ping_interval": "1s", "ack_wait": "5s"})
    short_time = 2 * ACK_WAIT  # s

    def __init__(self, room: Path, config: Sequence[str] = ()) -> None:
        self.server = NatsServer(self.kind, room, config)
        self._options: dict[str, Any] = {}

    @classmethod
    def secured(cls, room: Path, certificates: Certificates) -> NatsCluster:
        made = cls(
            room,
            [
                f'tls {{ cert_file: "{certificates.server_cert}", key_file: "{certificates.server_key}" }}',
                f"authorization {{ user: {USER}, password: {PASSWORD} }}",
            ],
        )
        made.fields = {"tls_ca": str(certificates.ca), "tls": True}
        made.environ = {"QTOOLS_NATS_USER": USER, "QTOOLS_NATS_PASSWORD": PASSWORD}
        made.wrong_environ = made.environ | {"QTOOLS_NATS_PASSWORD": "no-password-of-anybody"}
        context = ssl.create_default_context(cafile=str(certificates.ca))
        made._options = {"context": context, "user": USER, "password": PASSWORD}
        return made

    @property
    def url(self) -> str:
        return f"nats{'s' if self.fields else ''}://{self.server.address}"

    @property
    def plain_url(self) -> str:
        return f"nats://{self.server.address}"

    @property
    def tls_url(self) -> str:
        return f"natss://{self.server.address}"

    def start(self) -> None:
        self.server.start()

    def stop(self) -> None:
        self.server.stop()

    def kill(self) -> None:
        self.server.kill()

    def freeze(self) -> None:
        self.server.freeze()

    def thaw(self) -> None:
        self.server.thaw()

    def close(self) -> None:
        if self.server.process is not None:
            self.server.thaw()
        self.server.close()

    # ── its queues, seen by another client ──

    def _client(self) -> Any:
        return nats_client(self.server.address, **self._options)

    @staticmethod
    def _stream(topic: str) -> str:
        return topic.replace(".", "_")

    async def make_topic(self, topic: str, *channels: str, partitions: int = 1) -> None:
        from nats.js.api import AckPolicy, ConsumerConfig

        async with self._client() as client:
            api = client.jetstream()
            await api.add_stream(name=self._stream(topic), subjects=[topic])
            for channel in channels:
                await api.add_consumer(
                    self._stream(topic),
                    ConsumerConfig(
                        durable_name=channel, ack_policy=AckPolicy.EXPLICIT, filter_subject=topic, ack_wait=ACK_WAIT,
                        max_ack_pending=-1,
                    ),
                )  # fmt: skip

    async def fill(self, topic: str, bodies: Sequence[bytes]) -> None:
        async with self._client() as client:
            api = client.jetstream()
            waiting = [await api.publish_async(topic, body) for body in bodies]
            for each in waiting:
                await each

    async def drain(self, topic: str, channel: str) -> list[bytes]:
        found: list[bytes] = []
        async with self._client() as client:
            api = client.jetstream()
            reader = await api.pull_subscribe_bind(channel, self._stream(topic))
            while (await api.consumer_info(self._stream(topic), channel)).num_pending:
                for message in await reader.fetch(1000, timeout=5):
                    found.append(message.data)
                    await message.ack()
            await client.flush()
        return found

    async def left(self, topic: str, channel: str) -> int:
        async with self._client() as client:
            info = await client.jetstream().consumer_info(self._stream(topic), channel)
            return int(info.num_pending + info.num_ack_pending)


class OldNatsCluster(NatsCluster):
    """The nats-server of the system, which may be years old."""

    kind = OLD
