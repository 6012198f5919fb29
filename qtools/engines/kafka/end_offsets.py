"""How much of some channels is left. In: readers. Out: the ends of their partitions, and what is not finished below."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

from qtools.engines.kafka.client_errors import sentence_of
from qtools.engines.kafka.clients import CALL_TIMEOUT, ErrorLog, ask, library
from qtools.engines.kafka.group_reader import GroupReader, Place
from qtools.engines.kafka.settings import KafkaSettings
from qtools.errors import NetworkError, SourceDeleted

Bounds = tuple[int, int]  # the offset of the oldest message, and the one behind the newest


class EndOffsets(NamedTuple):
    """bounds: channel → partition → its offsets at one moment."""

    settings: KafkaSettings
    errors: ErrorLog
    bounds: dict[str, dict[Place, Bounds]]

    @classmethod
    async def of(cls, readers: Mapping[str, GroupReader], settings: KafkaSettings, errors: ErrorLog) -> EndOffsets:
        """The offsets of now; NetworkError when the cluster does not answer."""
        made = cls(settings, errors, {})
        for channel, reader in readers.items():
            made.bounds[channel] = await made._call(reader, partial(_bounds, sorted(reader.topics), str(settings)))
        return made

    async def unfinished(self, readers: Mapping[str, GroupReader]) -> int:
        """How many messages below these ends are not finished: by what is finished here, and for partitions that
        others read by what the group has committed. NetworkError when the cluster does not answer."""
        return sum(
            [
                await self._call(reader, partial(_unfinished, reader, self.bounds[name]))
                for name, reader in readers.items()
            ]
        )

    async def _call(self, reader: GroupReader, function: Any) -> Any:
        try:
            return await reader.call(function)
        except library().KafkaException as error:
            raise NetworkError(str(self.settings), self.errors.last or sentence_of(error.args[0])) from error
        except ConnectionError as error:
            raise NetworkError(str(self.settings), str(error)) from error


def _bounds(topics: list[str], where: str, consumer: Any) -> dict[Place, Bounds]:
    """The bounds of all partitions of `topics`, in the reader's thread; SourceDeleted for a topic that is gone."""
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


def _unfinished(reader: GroupReader, bounds: dict[Place, Bounds], consumer: Any) -> int:
    """`unfinished` of one reader, in its thread."""
    from confluent_kafka import TopicPartition

    left = 0
    others: list[Any] = []
    for place, (low, high) in bounds.items():
        partition = reader.partitions.get(place)
        if partition is not None and partition.confirmed >= 0:
            left += max(0, high - partition.confirmed)
        elif high > low:
            others.append(TopicPartition(*place))
    if others:
        for each in ask(partial(consumer.committed, others, timeout=CALL_TIMEOUT)):
            low, high = bounds[each.topic, each.partition]
            start = each.offset if each.offset >= 0 else low
            partition = reader.partitions.get((each.topic, each.partition))
            if partition is not None:
                start = max(start, partition.read_to_end)
            left += max(0, high - start)
    return left
