"""Creates, empties and deletes topics and channels of JetStream. In: settings, names. Out: requests to the server.

Errors of all functions: StartError, NetworkError, PeerError.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from qtools.engines.contract import NewTopics, SourceOptions
from qtools.engines.jetstream.api import JetStreamApi, check_name
from qtools.engines.jetstream.client import NatsClient
from qtools.engines.jetstream.consume.subscriptions import Found, make
from qtools.engines.jetstream.settings import JetStreamSettings
from qtools.errors import PeerError, TopicMissing
from qtools.names import Subscription

# Fields of a consumer's configuration that say where it began.
_BEGINNINGS = ("deliver_policy", "opt_start_seq", "opt_start_time", "name", "metadata")


@asynccontextmanager
async def _connected(settings: JetStreamSettings) -> AsyncIterator[JetStreamApi]:
    client = NatsClient(settings)
    await client.start()
    try:
        yield JetStreamApi(client)
    finally:
        await client.close()


async def create(topic: str, channel: str, new: NewTopics | None, settings: JetStreamSettings) -> bool:
    """Create a stream for `topic`, and the consumer `channel`, which begins with the oldest message; return whether
    something was created."""
    check_name("topic", topic)
    async with _connected(settings) as api:
        stream = await api.stream_of(topic)
        is_new = stream is None
        if stream is None:
            stream = await api.create_stream(topic, (new or NewTopics()).replicas)
        if channel and await api.consumer(stream, channel) is None:
            check_name("channel", channel)
            is_new = True
            await make(api, Found(Subscription(topic, channel), stream, "", None), SourceOptions(), settings)
        return is_new


async def empty(topic: str, channel: str, settings: JetStreamSettings) -> None:
    """Delete all messages of `topic`, or let the consumer `channel` begin behind the last one; it must have no reader.
    TopicMissing if there is no such topic or channel."""
    async with _connected(settings) as api:
        stream = await api.stream_of(topic)
        if stream is None:
            raise TopicMissing(f"{topic}: no stream on {settings} stores this subject")
        if not channel:
            await api.purge_topic(stream, topic)
            return
        state = await api.consumer(stream, channel)
        if state is None:
            raise TopicMissing(f"{topic}/{channel}: the stream {stream} has no such consumer")
        if state.readers:
            raise PeerError(f"{topic}/{channel} is being read: end its readers first")
        info = await api.stream_info(stream)
        last = int(info["state"]["last_seq"]) if info is not None else 0
        config: dict[str, Any] = {name: value for name, value in state.config.items() if name not in _BEGINNINGS}
        config |= {"durable_name": channel, "deliver_policy": "by_start_sequence", "opt_start_seq": last + 1}
        await api.delete_consumer(stream, channel)
        await api.create_consumer(stream, config)


async def delete(topic: str, channel: str, settings: JetStreamSettings) -> None:
    """Delete the stream of `topic`, or, where others share it, the messages of `topic`; or only the consumer `channel`.
    What does not exist is deleted already."""
    async with _connected(settings) as api:
        stream = await api.stream_of(topic)
        info = None if stream is None else await api.stream_info(stream)
        if stream is None or info is None:
            return
        if channel:
            await api.delete_consumer(stream, channel)
        elif info["config"].get("subjects") == [topic]:
            await api.delete_stream(stream)
        else:
            await api.purge_topic(stream, topic)
