"""Redis and Valkey for the engine suite."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from harness.certificates import Certificates
from harness.redis import DURABLE, REDIS, VALKEY, RedisClient, RedisServer, TlsFront

from qtools.engines.choice import ConnectionFlags
from tests.engines.clusters.cluster import Cluster

USER, PASSWORD = "archivist", "the-password-of-the-tests"


class RedisCluster(Cluster):
    """One server that writes each message to disk before it confirms it, and accepts bodies of at most 1 MiB."""

    kind = REDIS
    fields = {"msg_timeout": 2000}  # noqa: RUF012 - ms after which what a killed reader has left is taken by another
    noticing = ConnectionFlags({}, {"msg_timeout": "2s"})
    short_timeout = ConnectionFlags({"msg_timeout": 1000}, {})
    short_time = 2.2  # s

    def __init__(self, room: Path) -> None:
        self.server = RedisServer(self.kind, room)
        self._is_secured = False
        self._certificates: Certificates | None = None
        self._front: TlsFront | None = None

    @classmethod
    def secured(cls, room: Path, certificates: Certificates) -> RedisCluster:
        made = cls(room)
        acl = ["--requirepass", PASSWORD, "--user", USER, "on", f">{PASSWORD}", "~*", "&*", "+@all"]
        tls: list[str] = []
        if cls.kind == REDIS:
            files = ("--tls-cert-file", certificates.server_cert, "--tls-key-file", certificates.server_key)
            tls = [*map(str, files), "--tls-ca-cert-file", str(certificates.ca), "--tls-auth-clients", "no"]
        made.server = RedisServer(cls.kind, room, [*DURABLE, *acl], tls=tls)
        made._certificates = certificates
        made.server.password = PASSWORD
        made._is_secured = True
        made.fields = cls.fields | {"tls_ca": str(certificates.ca), "tls": True}
        made.environ = {"QTOOLS_REDIS_USER": USER, "QTOOLS_REDIS_PASSWORD": PASSWORD}
        made.wrong_environ = made.environ | {"QTOOLS_REDIS_PASSWORD": "no-password-of-anybody"}
        return made

    @property
    def url(self) -> str:
        if not self._is_secured:
            return f"redis://{self.server.address}"
        return f"rediss://127.0.0.1:{self._front.port if self._front is not None else self.server.http_port}"

    @property
    def plain_url(self) -> str:
        return self.url.replace("rediss://", "redis://")

    @property
    def tls_url(self) -> str:
        return self.plain_url.replace("redis://", "rediss://")

    def start(self) -> None:
        self.server.start()
        if self._certificates is not None and not self.server.tls and self._front is None:
            files = self._certificates.server_cert, self._certificates.server_key
            self._front = TlsFront(self.server.port, *files)

    def stop(self) -> None:
        self.server.stop()

    def kill(self) -> None:
        self.server.kill()

    def freeze(self) -> None:
        self.server.freeze()

    def thaw(self) -> None:
        self.server.thaw()

    def close(self) -> None:
        if self._front is not None:
            self._front.close()
        self.server.thaw()
        self.server.close()

    # ── its queues, seen by another client ──

    async def make_topic(self, topic: str, *channels: str, partitions: int = 1) -> None:
        def make(client: RedisClient) -> None:
            for channel in (*channels, "to-make-the-stream"):
                assert client.do("XGROUP", "CREATE", topic, channel, "$", "MKSTREAM") == "OK"
            client.do("XGROUP", "DESTROY", topic, "to-make-the-stream")

        await asyncio.to_thread(self._ask, make)

    async def fill(self, topic: str, bodies: Sequence[bytes]) -> None:
        def fill(client: RedisClient) -> None:
            answers = client.do_all([("XADD", topic, "*", "body", body) for body in bodies])
            assert all(isinstance(answer, bytes) for answer in answers), answers

        await asyncio.to_thread(self._ask, fill)

    async def drain(self, topic: str, channel: str) -> list[bytes]:
        def drain(client: RedisClient) -> list[bytes]:
            found: list[bytes] = []
            while answer := client.do(
                "XREADGROUP", "GROUP", channel, "other-client", "COUNT", 10_000, "STREAMS", topic, ">"
            ):
                found += [fields[1] for _, fields in answer[0][1]]
                client.do("XACK", topic, channel, *(ident for ident, _ in answer[0][1]))
            return found

        return await asyncio.to_thread(self._ask, drain)

    async def left(self, topic: str, channel: str) -> int:
        def left(client: RedisClient) -> int:
            for group in client.do("XINFO", "GROUPS", topic):
                about = dict(zip(group[::2], group[1::2], strict=True))
                if about[b"name"] == channel.encode():
                    after = client.do("XRANGE", topic, b"(" + about[b"last-delivered-id"], "+")
                    return len(after) + int(about[b"pending"])
            raise AssertionError(f"there is no group {channel} of {topic}")

        return await asyncio.to_thread(self._ask, left)

    def _ask(self, do: object) -> object:
        client = self.server.client()
        try:
            return do(client)  # type: ignore[operator]
        finally:
            client.close()


class ValkeyCluster(RedisCluster):
    kind = VALKEY
