"""RabbitMQ for the engine suite."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pika
from harness.certificates import Certificates
from harness.rabbitmq import VHOST, RabbitNode
from harness.waiting import wait_until
from pika.adapters.blocking_connection import BlockingChannel

from qtools.engines.connection_options import ConnectionFlags
from qtools.engines.contract import Engine
from tests.engines.clusters.cluster import DEFAULTS, Cluster

SETTLED = 0.5  # s after which the management has counted again: its node counts every 200 ms
COUNTED = 20.0  # s that it may take on a machine that others use too
SAVED = 2.0  # s until a new quorum queue outlives a SIGKILL of its node


class RabbitCluster(Cluster):
    """One node, with quorum queues. The other client is pika; the management's HTTP API counts what is not finished."""

    noticing = ConnectionFlags({}, {"heartbeat_interval": "1s"})
    freeze_time = 4.0  # s; two heartbeats that are missed end a connection
    has_history = False
    keeps_without_channels = False

    def __init__(self, room: Path) -> None:
        self.node = RabbitNode(room)
        self._filled: Counter[str] = Counter()

    @classmethod
    def secured(cls, room: Path, certificates: Certificates) -> RabbitCluster:
        made = cls(room)
        made.node.secure(certificates)
        made.fields = {"tls_ca": str(certificates.ca), "tls": True}
        made.environ = {"QTOOLS_AMQP_USER": made.node.user, "QTOOLS_AMQP_PASSWORD": made.node.password}
        made.wrong_environ = made.environ | {"QTOOLS_AMQP_PASSWORD": "no-password-of-anybody"}
        return made

    @property
    def url(self) -> str:
        address = self.node.tls_address if self.fields else self.node.address
        return f"amqp{'s' if self.fields else ''}://{address}"

    def engine(
        self, settings: ConnectionFlags = DEFAULTS, *, url: str = "", environ: Mapping[str, str] | None = None
    ) -> Engine:
        options = {"management": self.node.management, **settings.options}
        return super().engine(settings._replace(options=options), url=url, environ=environ)

    def start(self) -> None:
        self.node.start()

    def stop(self) -> None:
        self.node.stop()

    def kill(self) -> None:
        """RabbitMQ 3.10 keeps the directory of its quorum queues in a file that it saves half a second after a change.
        A queue that is younger has no leader after a SIGKILL, and stays so; docs/engines/rabbitmq.md says it."""
        time.sleep(SAVED)
        self.node.kill()

    def freeze(self) -> None:
        self.node.freeze()

    def thaw(self) -> None:
        self.node.thaw()

    def close(self) -> None:
        self.node.close()

    # ── its queues, seen by another client ──

    @contextlib.contextmanager
    def channel(self) -> Iterator[BlockingChannel]:
        credentials = pika.PlainCredentials(self.node.user, self.node.password)
        connection = pika.BlockingConnection(
            pika.ConnectionParameters("127.0.0.1", self.node.port, credentials=credentials)
        )
        try:
            yield connection.channel()
        finally:
            connection.close()

    def _make(self, topic: str, channels: Sequence[str]) -> None:
        with self.channel() as channel:
            channel.exchange_declare(topic, "fanout", durable=True)
            for each in channels:
                queue = f"{topic}/{each}"
                channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
                channel.queue_bind(queue, topic)

    async def make_topic(self, topic: str, *channels: str, partitions: int = 1) -> None:
        await asyncio.to_thread(self._make, topic, channels)

    def _fill(self, topic: str, bodies: Sequence[bytes]) -> None:
        with self.channel() as channel:
            properties = pika.BasicProperties(delivery_mode=2)
            channel.confirm_delivery()
            for body in bodies:
                channel.basic_publish(topic, "", body, properties)
        self._filled[topic] += len(bodies)
        wait_until(lambda: self._counted(topic) >= self._filled[topic], 30, lambda: f"{topic} is not counted")

    def _counted(self, topic: str) -> int:
        """The messages that the management has counted for an exchange; it counts them a moment later."""
        found = self.node.api("GET", f"/exchanges/{VHOST}/{topic}")
        return int((found.get("message_stats") or {}).get("publish_in", 0))

    async def fill(self, topic: str, bodies: Sequence[bytes]) -> None:
        await asyncio.to_thread(self._fill, topic, bodies)

    def _drain(self, queue: str) -> list[bytes]:
        found = []
        with self.channel() as channel:
            channel.basic_qos(prefetch_count=1000)
            for method, _, body in channel.consume(queue, inactivity_timeout=1.0):
                if method is None or body is None:
                    break
                found.append(body)
                channel.basic_ack(method.delivery_tag)
            channel.cancel()
        return found

    async def drain(self, topic: str, channel: str) -> list[bytes]:
        return await asyncio.to_thread(self._drain, f"{topic}/{channel}")

    def _ready(self, queue: str) -> tuple[int, int]:
        """The messages of a queue that are not delivered, and its consumers; of AMQP, which does not lag behind."""
        with self.channel() as channel:
            found = channel.queue_declare(queue, passive=True).method
            return found.message_count, found.consumer_count

    def _left(self, queue: str) -> int:
        deadline = time.monotonic() + COUNTED
        while True:
            found: dict[str, Any] | None = self.node.api("GET", f"/queues/{VHOST}/{quote(queue, safe='')}")
            ready, consumers = self._ready(queue)
            counted = -1 if found is None else int(found.get("messages", -1))
            # Without a consumer nothing is in flight: the management has to come to the same number.
            if counted >= 0 and (consumers or counted == ready or time.monotonic() > deadline):
                return counted if consumers else ready
            time.sleep(0.1)

    async def left(self, topic: str, channel: str) -> int:
        await asyncio.sleep(SETTLED)
        return await asyncio.to_thread(self._left, f"{topic}/{channel}")
