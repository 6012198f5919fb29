"""JetStream's API: streams and consumers. In: a client. Out: plain data, or errors that name the thing.

https://docs.nats.io/reference/reference-protocols/nats_api_reference
A topic is a subject, and belongs to the stream whose subjects match it; a channel is a durable consumer of that stream,
with the topic as its filter.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from qtools.engines.jetstream.client import NatsClient, NoResponders
from qtools.errors import BrokerError, NetworkError, UsageError

# Error codes of JetStream's API (server/errors.json of nats-server).
CONSUMER_NOT_FOUND = 10014
NAME_IN_USE = 10058
STREAM_NOT_FOUND = 10059
NO_MESSAGE = 10037
NOT_READY = frozenset({10008, 10009, 10074, 10118})  # no leader, no quorum, being started: asked again
LONGEST_NAME_OF_STREAM = 255


class ApiRefused(BrokerError):
    """JetStream refused a request. err_code: its own code; 0 if it has none."""

    def __init__(self, err_code: int, text: str, command: str) -> None:
        self.err_code = err_code
        super().__init__(str(err_code), text, command)


class ConsumerState(NamedTuple):
    """What a consumer has left. pending: messages that it has not delivered; unfinished: that it has delivered, and
    that are not finished; ack_floor: all messages up to this sequence of the stream are finished. readers: requests of
    readers that wait for messages. config: as the server has it."""

    name: str
    pending: int
    unfinished: int
    ack_floor: int
    readers: int
    config: dict[str, Any]

    @property
    def left(self) -> int:
        return self.pending + self.unfinished

    @property
    def ack_wait(self) -> float:
        """s until an unfinished message is delivered again."""
        return int(self.config.get("ack_wait", 30_000_000_000)) / 1e9

    @classmethod
    def of(cls, found: dict[str, Any]) -> ConsumerState:
        return cls(
            found["name"], found.get("num_pending", 0), found.get("num_ack_pending", 0),
            found.get("ack_floor", {}).get("stream_seq", 0), found.get("num_waiting", 0), found.get("config", {}),
        )  # fmt: skip


class JetStreamApi:
    """Requests to JetStream over `client`. Errors of all methods: NetworkError, ApiRefused, BrokerError."""

    def __init__(self, client: NatsClient) -> None:
        self._client = client
        self._prefix = client.settings.api_prefix

    # ── streams ──

    async def stream_of(self, topic: str) -> str | None:
        """The name of the stream that stores `topic`, or None."""
        found = await self._ask("STREAM.NAMES", {"subject": topic})
        names = found.get("streams") or []
        return str(names[0]) if names else None

    async def stream_info(self, stream: str, subjects: str = "") -> dict[str, Any] | None:
        """Configuration and state, or None if it does not exist. subjects: also count the messages of the subjects that
        match this."""
        try:
            return await self._ask(f"STREAM.INFO.{stream}", {"subjects_filter": subjects} if subjects else None)
        except ApiRefused as error:
            if error.err_code == STREAM_NOT_FOUND:
                return None
            raise

    async def create_stream(self, topic: str, replicas: int = 0) -> str:
        """Create a stream for `topic`, as the engine's options say; returns its name. replicas: 0 for the default."""
        name = topic.replace(".", "_")[:LONGEST_NAME_OF_STREAM]
        settings = dict(self._client.settings.stream)
        for each in (name, f"{name[:240]}_{zlib.crc32(topic.encode()):08x}"):
            config = {"storage": "file", "num_replicas": replicas or 1} | settings | {"name": each, "subjects": [topic]}
            try:
                await self._ask(f"STREAM.CREATE.{each}", config)
            except ApiRefused as error:
                if error.err_code == NAME_IN_USE:
                    if (owner := await self.stream_of(topic)) is not None:  # created by another process just now
                        return owner
                    continue
                raise
            return each
        raise ApiRefused(
            NAME_IN_USE, f"the names of streams for {topic} are taken: create one by hand", "STREAM.CREATE"
        )

    async def streams(self) -> AsyncIterator[dict[str, Any]]:
        """Configuration and state of each stream."""
        async for found in self._pages("STREAM.LIST", "streams"):
            yield found

    async def delete_stream(self, stream: str) -> None:
        """Delete a stream, if it exists."""
        try:
            await self._ask(f"STREAM.DELETE.{stream}")
        except ApiRefused as error:
            if error.err_code != STREAM_NOT_FOUND:
                raise

    async def purge_topic(self, stream: str, topic: str) -> None:
        """Delete the messages of `topic` from a stream that has other topics too."""
        await self._ask(f"STREAM.PURGE.{stream}", {"filter": topic})

    async def last_sequence(self, stream: str, topic: str) -> int:
        """The sequence of the newest message of `topic`; 0 if there is none."""
        try:
            found = await self._ask(f"STREAM.MSG.GET.{stream}", {"last_by_subj": topic})
        except ApiRefused as error:
            if error.err_code == NO_MESSAGE:
                return 0
            raise
        return int(found["message"]["seq"])

    # ── consumers ──

    async def consumer(self, stream: str, name: str) -> ConsumerState | None:
        """The consumer, or None if it, or the stream, does not exist."""
        try:
            return ConsumerState.of(await self._ask(f"CONSUMER.INFO.{stream}.{name}"))
        except ApiRefused as error:
            if error.err_code in (CONSUMER_NOT_FOUND, STREAM_NOT_FOUND):
                return None
            raise

    async def create_consumer(self, stream: str, config: dict[str, Any]) -> ConsumerState:
        """Create a consumer; a durable one that exists with the same configuration is returned as it is."""
        value = {"stream_name": stream, "config": config}
        if durable := config.get("durable_name"):
            return ConsumerState.of(await self._ask(f"CONSUMER.DURABLE.CREATE.{stream}.{durable}", value))
        return ConsumerState.of(await self._ask(f"CONSUMER.CREATE.{stream}", value))

    async def delete_consumer(self, stream: str, name: str) -> None:
        """Delete a consumer, if it exists."""
        try:
            await self._ask(f"CONSUMER.DELETE.{stream}.{name}")
        except ApiRefused as error:
            if error.err_code not in (CONSUMER_NOT_FOUND, STREAM_NOT_FOUND):
                raise

    async def consumers(self, stream: str) -> AsyncIterator[ConsumerState]:
        async for found in self._pages(f"CONSUMER.LIST.{stream}", "consumers"):
            yield ConsumerState.of(found)

    def next_subject(self, stream: str, consumer: str) -> bytes:
        """Where requests for messages of a consumer go."""
        return f"{self._prefix}CONSUMER.MSG.NEXT.{stream}.{consumer}".encode()

    async def account(self) -> str:
        """The name of this user's account; "" where the server does not tell."""
        if self._client.info.account:
            return self._client.info.account
        try:
            found = await self._client.request_json("$SYS.REQ.USER.INFO")
        except (NoResponders, NetworkError, BrokerError):
            return ""
        data = found.get("data")
        return str(data.get("account", "")) if isinstance(data, dict) else ""

    # ── inside ──

    async def _pages(self, command: str, column: str) -> AsyncIterator[dict[str, Any]]:
        offset = 0
        while True:
            found = await self._ask(command, {"offset": offset})
            rows = found.get(column) or []
            for row in rows:
                yield row
            offset += len(rows)
            if not rows or offset >= found.get("total", 0):
                return

    async def _ask(self, command: str, value: Any = None) -> dict[str, Any]:
        try:
            found = await self._client.request_json(self._prefix + command, value)
        except NoResponders as error:
            raise BrokerError(
                "503", "JetStream is not enabled on the server, or not for this account", command
            ) from error
        error_ = found.get("error")
        if isinstance(error_, dict):
            raise ApiRefused(int(error_.get("err_code", 0)), str(error_.get("description", error_)), command)
        return found


def check_name(kind: str, name: str) -> None:
    """UsageError if NATS has no subject (`kind` "topic") or consumer (`kind` "channel") with this name."""
    if kind == "topic":
        if not all(name.split(".")):
            raise UsageError(f"topic {name!r}: a subject of NATS has no empty word between its dots")
    elif "." in name:
        raise UsageError(
            f"channel {name!r}: a consumer of JetStream has no dot in its name: write {name.replace('.', '_')}"
        )
