"""How much of some channels is left. In: readers. Out: the ends of their partitions, and what is not finished below."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

from qtools.engines.kafka.client_errors import sentence_of
from qtools.engines.kafka.clients import CALL_TIMEOUT, ErrorLog, ask, library, make_consumer
from qtools.engines.kafka.group_reader import GroupReader
from qtools.engines.kafka.settings import KafkaSettings
from qtools.engines.kafka.waiting_partitions import Place
from qtools.errors import NetworkError, SourceDeleted
from qtools.names import Subscription, is_ephemeral

Result = TypeVar("Result")
Bounds = tuple[int, int]  # the offset of the oldest message, and the one behind the newest


class OffsetClients:
    """Clients that ask for offsets, one for each channel, over connections of their own: on a reader's connection the
    cluster answers a question only after the fetch that waits there, up to half a second later."""

    def __init__(self, settings: KafkaSettings, errors: ErrorLog) -> None:
        self.where = str(settings)  # for messages
        self._settings = settings
        self._errors = errors
        self._clients: dict[str, Any] = {}

    async def ask(self, channel: str, function: Callable[[Any], Result]) -> Result:
        """The result of `function(client)`, in a thread; NetworkError when the cluster does not answer."""
        if channel not in self._clients:
            group = "qtools-look" if is_ephemeral(channel) else channel
            self._clients[channel] = make_consumer(self._settings, self._errors, {"group.id": group})
        try:
            return await asyncio.to_thread(function, self._clients[channel])
        except library().KafkaException as error:
            raise NetworkError(self.where, self._errors.last or sentence_of(error.args[0])) from error

    async def has_committed(self, subscription: Subscription, partitions: Sequence[int]) -> bool:
        """Whether the group has committed an offset in any of the topic's `partitions`."""
        places = [(subscription.topic, number) for number in partitions]
        committed = await self.ask(subscription.channel, partial(_committed, places))
        return any(offset >= 0 for offset in committed.values())

    async def close(self) -> None:
        for client in self._clients.values():
            await asyncio.to_thread(client.close)
        self._clients.clear()


class EndOffsets(NamedTuple):
    """bounds: channel → partition → its offsets at one moment."""

    clients: OffsetClients
    bounds: dict[str, dict[Place, Bounds]]

    @classmethod
    async def of(cls, readers: Mapping[str, GroupReader], clients: OffsetClients) -> EndOffsets:
        """The offsets of now; NetworkError when the cluster does not answer."""
        return cls(
            clients,
            {
                channel: await clients.ask(channel, partial(_bounds, sorted(reader.topics), clients.where))
                for channel, reader in readers.items()
            },
        )

    async def unfinished(self, readers: Mapping[str, GroupReader]) -> int:
        """How many messages below these ends are not finished: by what is finished here, and for partitions that
        others read by what the group has committed. NetworkError when the cluster does not answer."""
        left = 0
        for channel, reader in readers.items():
            bounds = self.bounds[channel]
            others = _read_by_others(reader, bounds)
            committed = await self.clients.ask(channel, partial(_committed, others)) if others else {}
            left += _unfinished(reader, bounds, committed)
        return left


def _bounds(topics: list[str], where: str, consumer: Any) -> dict[Place, Bounds]:
    """The bounds of all partitions of `topics`; SourceDeleted for a topic that is gone."""
    from confluent_kafka import TopicPartition

    known = ask(partial(consumer.list_topics, timeout=CALL_TIMEOUT)).topics
    for topic in topics:
        if topic not in known or known[topic].error is not None:
            raise SourceDeleted("topic", topic, where)
    places = [(topic, number) for topic in topics for number in sorted(known[topic].partitions)]
    return {
        place: ask(partial(consumer.get_watermark_offsets, TopicPartition(*place), timeout=CALL_TIMEOUT))
        for place in places
    }


def _read_by_others(reader: GroupReader, bounds: dict[Place, Bounds]) -> list[Place]:
    """The partitions that have messages, of which the reader does not know how far they are finished."""
    return [
        place
        for place, (low, high) in bounds.items()
        if high > low and ((partition := reader.partitions.get(place)) is None or partition.confirmed < 0)
    ]


def _committed(places: list[Place], consumer: Any) -> dict[Place, int]:
    """What the group has committed; negative where it has not."""
    from confluent_kafka import TopicPartition

    asked = [TopicPartition(*place) for place in places]
    found = ask(partial(consumer.committed, asked, timeout=CALL_TIMEOUT))
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
