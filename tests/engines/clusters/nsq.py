"""q-broker and nsqd for the engine suite."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from harness.authority import EVERYTHING, Authority
from harness.brokers import NSQD, Q_BROKER, Broker
from harness.certificates import Certificates

from qtools.engines.connection_options import ConnectionFlags
from tests.engines.clusters.cluster import Cluster

SECRET, WRONG_SECRET = "the-secret-of-the-tests", "no-secret-of-anybody"


class QBrokerCluster(Cluster):
    """q-broker, which keeps messages on disk, and for an hour after they are finished."""

    kind = Q_BROKER
    flags: Sequence[str] = ("--retain=1h",)
    # ms. Two heartbeats that are missed end a connection; what it had in flight comes again after the message timeout.
    noticing = ConnectionFlags({"heartbeat_interval": 1000, "msg_timeout": 1500}, {})
    short_timeout = ConnectionFlags({"msg_timeout": 1000}, {})
    short_time = 2.2  # s

    def __init__(self, room: Path, flags: Sequence[str] = ()) -> None:
        self.broker = Broker(self.kind, room, [*self.flags, *flags])
        self.authority: Authority | None = None

    @classmethod
    def secured(cls, room: Path, certificates: Certificates) -> QBrokerCluster:
        authority = Authority({SECRET: EVERYTHING})
        flags = [*certificates.server_flags, "--tls-required=tcp-https", f"--auth-http-address={authority.address}"]
        made = cls(room, flags)
        made.authority = authority
        made.fields = {"tls_ca": str(certificates.ca), "tls": True}
        made.environ = {"QTOOLS_AUTH_SECRET": SECRET}
        made.wrong_environ = {"QTOOLS_AUTH_SECRET": WRONG_SECRET}
        return made

    @property
    def url(self) -> str:
        return f"nsq{'s' if self.fields else ''}://{self.broker.address}"

    def start(self) -> None:
        self.broker.start()

    def stop(self) -> None:
        self.broker.stop()

    def kill(self) -> None:
        self.broker.kill()

    def freeze(self) -> None:
        self.broker.freeze()

    def thaw(self) -> None:
        self.broker.thaw()

    def close(self) -> None:
        self.broker.thaw()
        self.broker.close()
        if self.authority is not None:
            self.authority.close()

    async def make_topic(self, topic: str, *channels: str, partitions: int = 1) -> None:
        await asyncio.to_thread(self.broker.create, topic, *channels)

    async def fill(self, topic: str, bodies: Sequence[bytes]) -> None:
        await asyncio.to_thread(self.broker.fill, topic, bodies)

    async def drain(self, topic: str, channel: str) -> list[bytes]:
        return await asyncio.to_thread(self.broker.bodies, topic, channel)

    async def left(self, topic: str, channel: str) -> int:
        found = await asyncio.to_thread(self.broker.depth, topic, channel)
        return found.held

    async def pause(self, topic: str, channel: str) -> None:
        await asyncio.to_thread(self.broker.tell, f"/channel/pause?topic={topic}&channel={channel}")


class NsqdCluster(QBrokerCluster):
    """nsqd, which has its newest messages in memory only, and none that are finished."""

    kind = NSQD
    flags = ()
    keeps_after_kill = False
    has_history = False
