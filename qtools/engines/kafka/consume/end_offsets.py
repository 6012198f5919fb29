"""How much of some channels is left. In: readers. Out: the ends of their partitions, and what is not finished below."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

from qtools.engines.kafka.client_errors import sentence_of
from qtools.engines.kafka.clients import CALL_TIMEOUT, ErrorLog, ask, library, list_offsets, make_admin, make_consumer
from qtools.engines.kafka.consume.group_reader import GroupReader
from qtools.engines.kafka.consume.waiting_partitions import Place
from qtools.engines.kafka.settings import KafkaSettings
from qtools.errors import NetworkError, SourceDeleted
from qtools.names import Subscription, is_ephemeral

Result = TypeVar("Result")
Bounds = tuple[int, int]  # the offset of the oldest message, and the one behind the newest


class OffsetClients:
    """Clients that ask for offsets, over connections of their own: on a reader's connection the cluster answers a
    question only after the fetch that waits there, up to half a second later. One asks for the ends of partitions, and
    one for each channel for what its group has committed."""

    def __init__(self, settings: KafkaSettings, errors: ErrorLog) -> None:
        self._where = str(settings)  # for messages
        self._settings = settings
        self._errors = errors
        self._admin: Any = None
        self._clients: dict[str, Any] = {}

    async def bounds(self, topics: Collection[str]) -> dict[Place, Bounds]:
        """The bounds of all partitions of `topics`; SourceDeleted for a topic that is gone, NetworkError when the
        cluster does not answer."""
        if self._admin is None:
            self._admin = make_admin(self._settings, self._errors)
        return await self._ask(partial(_bounds, sorted(topics), self._where, self._admin))

    async def committed(self, channel: str, places: Sequence[Place]) -> dict[Place, int]:
        """What the group of `channel` has committed; negative where it has not. NetworkError when the cluster does not
        answer."""
        if not places:
            return {}
        if channel not in self._clients:
            group = "qtools-look" if is_ephemeral(channel) else channel
            self._clients[channel] = make_consumer(self._settings, self._errors, {"group.id": group})
        return await self._ask(partial(_committed, places, self._clients[channel]))

    async def has_committed(self, subscription: Subscription, partitions: Sequence[int]) -> bool:
        """Whether the group has committed an offset in any of the topic's `partitions`."""
        places = [(subscription.topic, number) for number in partitions]
        committed = await self.committed(subscription.channel, places)
        return any(offset >= 0 for offset in committed.values())

    async def _ask(self, function: Callable[[], Result]) -> Result:
        """The result of `function`, in a thread."""
        try:
            return await asyncio.to_thread(ask, function)
        except library().KafkaException as error:
            raise NetworkError(self._where, self._errors.last or sentence_of(error.args[0])) from error

    async def close(self) -> None:
        self._admin = None
        for client in self._clients.values():
            await asyncio.to_thread(client.close)
        self._clients.clear()


class EndOffsets(NamedTuple):
    """bounds: of all partitions that are read, at one moment."""

    clients: OffsetClients
    bounds: dict[Place, Bounds]

    @classmethod
    async def of(cls, readers: Mapping[str, GroupReader], clients: OffsetClients) -> EndOffsets:
        """The offsets of now; NetworkError when the cluster does not answer."""
        topics = {topic for reader in readers.values() for topic in reader.topics}
        return cls(clients, await clients.bounds(topics))

    async def unfinished(self, readers: Mapping[str, GroupReader]) -> int:
        """How many messages below these ends are not finished: by what is finished here, and for partitions that
        others read by what the group has committed. NetworkError when the cluster does not answer."""
        left = 0
        for channel, reader in readers.items():
            read, has = reader.topics, reader.start.has
            bounds = {place: ends for place, ends in self.bounds.items() if place[0] in read and has(place[1])}
            committed = await self.clients.committed(channel, _read_by_others(reader, bounds))
            left += _unfinished(reader, bounds, committed)
        return left


def _bounds(topics: list[str], where: str, admin: Any) -> dict[Place, Bounds]:
    from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

    known = admin.list_topics(timeout=CALL_TIMEOUT).topics
    for topic in topics:
        if topic not in known or known[topic].error is not None:
            raise SourceDeleted("topic", topic, where)
    places = [(topic, number) for topic in topics for number in sorted(known[topic].partitions)]
    specs: Any = OffsetSpec
    lows, highs = (
        {place: offset() for place, offset in list_offsets(admin, places, spec, committed_only=True)}
        for spec in (specs.earliest(), specs.latest())
    )
    return {place: (lows[place], highs[place]) for place in places}


def _read_by_others(reader: GroupReader, bounds: dict[Place, Bounds]) -> list[Place]:
    """The partitions that have messages, of which the reader does not know how far they are finished."""
    return [
        place
        for place, (low, high) in bounds.items()
        if high > low and ((partition := reader.partitions.get(place)) is None or partition.confirmed < 0)
    ]


def _committed(places: Sequence[Place], consumer: Any) -> dict[Place, int]:
    from confluent_kafka import TopicPartition

    asked = [TopicPartition(*place) for place in places]
    found = consumer.committed(asked, timeout=CALL_TIMEOUT)
    return {(each.topic, each.partition): each.offset for each in found}


def _unfinished(reader: GroupReader, bounds: dict[Place, Bounds], committed: dict[Place, int]) -> int:
    """How many messages within `bounds` are not finished, here or as far as it is `committed`."""
    left = 0
    for place, (low, high) in bounds.items():
        partition = reader.partitions.get(place)
        if partition is not None and partition.confirmed >= 0:
            left += max(0, high - partition.confirmed)
            continue
        start = max(low, committed.get(place, low))
        if partition is not None:
            start = max(start, partition.read_to_end)
        left += max(0, high - start)
    return left
