"""Shows the first messages that a channel has not finished, without taking them. In: a subscription. Out: batches.

A consumer without a name reads them, that acknowledges nothing and is deleted at the end.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from qtools.engines.connections.in_flight import InFlightLedger
from qtools.engines.jetstream.api import JetStreamApi, check_name
from qtools.engines.jetstream.client import NatsClient
from qtools.engines.jetstream.consume.delivery import JetStreamDelivery
from qtools.engines.jetstream.protocol import commands
from qtools.engines.jetstream.protocol.ack_subject import is_ack_subject
from qtools.engines.jetstream.protocol.attributes import with_tombstones
from qtools.engines.jetstream.protocol.headers import status_of
from qtools.engines.jetstream.protocol.server_reader import NatsMessages
from qtools.engines.jetstream.settings import JetStreamSettings
from qtools.errors import BrokerError, NetworkError, PeerError, UsageError
from qtools.message import Batch
from qtools.names import Subscription, is_ephemeral

TIME_LIMIT = 10.0  # s without a message after which the server counts as gone
PIECE = 1000  # messages that are asked for at once


class _Shown:
    """What the messages of a peek are acknowledged to: nothing."""

    def __init__(self, topic: str, address: str) -> None:
        self.topic = topic
        self.address = address

    def finish(self, ids: Any) -> None: ...
    def requeue(self, ids: Any, delay_ms: int) -> None: ...
    def touch(self, ids: Any) -> None: ...


async def peek(subscription: Subscription, settings: JetStreamSettings, count: int) -> list[Batch]:
    """The first `count` messages that the channel has not finished, or of the topic where there is no channel.

    UsageError when there is no such topic, or its stream cannot show its messages; StartError when no server answers;
    NetworkError, PeerError."""
    topic, channel = subscription
    check_name("topic", topic)
    client = NatsClient(settings)
    api = JetStreamApi(client)
    await client.start()
    try:
        stream = await api.stream_of(topic)
        if stream is None:
            raise UsageError(f"{topic}: no stream on {settings} stores this subject")
        state = None if is_ephemeral(channel) or "." in channel else await api.consumer(stream, channel)
        begin = state.ack_floor + 1 if state is not None else 1
        config = {
            "ack_policy": "none", "filter_subject": topic, "deliver_policy": "by_start_sequence",
            "opt_start_seq": begin, "inactive_threshold": 30_000_000_000, "mem_storage": True,
        }  # fmt: skip
        try:
            made = await api.create_consumer(stream, config)
        except BrokerError as error:
            raise UsageError(f"the stream {stream} does not show its messages without taking them: {error}") from error
        try:
            reader = _PeekReader(client, topic, min(count, made.pending))
            return await reader.read(api.next_subject(stream, made.name))
        finally:
            await api.delete_consumer(stream, made.name)
    finally:
        await client.close()


class _PeekReader:
    """Reads `count` messages; fewer, if there are no more."""

    def __init__(self, client: NatsClient, topic: str, count: int) -> None:
        self._client = client
        self._left = count
        self._batches: list[Batch] = []
        self._ledger = InFlightLedger(_Shown(topic, str(client.settings)), JetStreamDelivery)
        self._changed = asyncio.Event()
        self._is_over = False
        self._error: PeerError | None = None

    async def read(self, subject: bytes) -> list[Batch]:
        inbox = self._client.inbox + b"k."
        self._client.subscribe(inbox + b"*", self._arrived)
        while self._left > 0 and not self._is_over:
            asked = min(self._left, PIECE)
            left = self._left - asked
            wish = json.dumps({"batch": asked, "no_wait": True}).encode()
            self._client.send(commands.publish(subject, wish, inbox + b"1"))
            while self._left > left and not self._is_over:
                self._changed.clear()
                try:
                    async with asyncio.timeout(TIME_LIMIT):
                        await self._changed.wait()
                except TimeoutError:
                    raise NetworkError(str(self._client.settings), f"no message within {TIME_LIMIT:.4g} s") from None
        if self._error is not None:
            raise self._error
        return self._batches

    def _arrived(self, messages: NatsMessages) -> None:
        headers = messages.headers or [b""] * len(messages)
        rows = list(zip(messages.replies, headers, messages.bodies, strict=True))
        shown = [row for row in rows if is_ack_subject(row[0])]
        for reply, block, _ in rows:
            if not is_ack_subject(reply) and block and (status := status_of(block)).code != 100:
                self._is_over = True
                if status.code not in (404, 408):
                    self._error = BrokerError(str(status.code), status.text)
        if shown:
            replies, blocks = [row[0] for row in shown], [row[1] for row in shown]
            bodies = with_tombstones([row[2] for row in shown], blocks)
            delivery = self._ledger.add(replies, 0.0)
            records = list(zip(replies, blocks, strict=True))
            self._batches.append(Batch([(delivery, 0, len(shown))], None, bodies, replies, records))
            self._left -= len(shown)
        self._changed.set()
