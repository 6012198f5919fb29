"""Topics of a cluster and what waits in them. In: the cluster. Out: topics and groups, counted."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any

from qtools.engines.kafka.client_errors import sentence_of
from qtools.engines.kafka.clients import ErrorLog, ask, library, list_offsets, look_at_cluster, make_admin
from qtools.engines.kafka.consume.waiting_partitions import Place
from qtools.engines.kafka.settings import KafkaSettings
from qtools.errors import NetworkError, StartError

log = logging.getLogger("qtools.kafka")

INTERNAL = "__"  # how the names of Kafka's own topics begin
TIMEOUT = 10.0  # s


class KafkaTopics:
    """Topics and Statistics of the contract."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._errors = ErrorLog(settings)
        self._admin: Any = None
        self._is_away = False

    async def look(self) -> set[str]:
        return set(await self._partitions())

    async def look_again(self) -> set[str]:
        try:
            found = await self.look()
        except StartError as error:
            if not self._is_away:
                log.warning("%s; topics are looked for again", error)
            self._is_away = True
            return set()
        self._is_away = False
        return found

    async def topics(self) -> list[dict[str, Any]]:
        """As the contract says: `depth` of a topic is what its partitions hold, of a channel what its group has not
        committed; the members of a group know the rest. Groups that this user may not describe are left out."""
        partitions = await self._partitions()
        try:
            return await asyncio.to_thread(ask, partial(self._count, partitions))
        except library().KafkaException as error:
            raise NetworkError(str(self._settings), self._errors.last or str(error.args[0].str())) from error

    async def close(self) -> None:
        self._admin = None

    async def _partitions(self) -> dict[str, list[int]]:
        if self._admin is None:
            self._admin = make_admin(self._settings, self._errors)
        admin = self._admin
        view = await look_at_cluster(admin, self._errors, str(self._settings), lambda: admin.poll(0))
        return {name: numbers for name, numbers in view.partitions.items() if not name.startswith(INTERNAL)}

    def _count(self, partitions: dict[str, list[int]]) -> list[dict[str, Any]]:
        """Everything about `partitions`, in a thread."""
        from confluent_kafka import ConsumerGroupTopicPartitions
        from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

        places = [(name, number) for name, numbers in partitions.items() for number in numbers]
        specs: Any = OffsetSpec
        lows, highs = self._offsets(places, specs.earliest()), self._offsets(places, specs.latest())
        topics: dict[str, dict[str, Any]] = {}
        for name, numbers in partitions.items():
            depth = sum(highs[name, number] - lows[name, number] for number in numbers)
            messages = sum(highs[name, number] for number in numbers)
            topics[name] = {
                "topic": name, "depth": depth, "messages": messages, "bytes": None, "paused": False, "channels": [],
            }  # fmt: skip
        listed = self._admin.list_consumer_groups(request_timeout=TIMEOUT).result()
        asked = {
            group: self._admin.list_consumer_group_offsets(
                [ConsumerGroupTopicPartitions(group)], request_timeout=TIMEOUT
            )[group]
            for group in sorted(group.group_id for group in listed.valid)
        }  # all at once: one request can ask for one group only
        for group, waiting in asked.items():
            try:
                answer = waiting.result()
            except library().KafkaException as error:
                log.debug("group %s: %s", group, error)
                continue
            self._add_group(topics, group, answer.topic_partitions, lows, highs)
        return [topics[name] for name in sorted(topics)]

    @staticmethod
    def _add_group(
        topics: dict[str, dict[str, Any]],
        group: str,
        offsets: list[Any],
        lows: dict[tuple[str, int], int],
        highs: dict[tuple[str, int], int],
    ) -> None:
        """Add the lag of a group to each topic of which it has committed something. Of a partition of which it has
        committed nothing, all messages are left."""
        committed = {(each.topic, each.partition): each.offset for each in offsets if each.offset >= 0}
        read = {topic for topic, _ in committed}
        lag: dict[str, int] = {}
        for place, high in highs.items():
            if place[0] in read:
                lag[place[0]] = lag.get(place[0], 0) + max(0, high - committed.get(place, lows[place]))
        for name, left in lag.items():
            topics[name]["channels"].append(
                {
                    "channel": group, "depth": left, "in_flight": None, "deferred": None, "messages": None,
                    "requeued": None, "timed_out": None, "clients": None, "paused": False,
                }
            )  # fmt: skip

    def _offsets(self, places: list[Place], spec: Any) -> dict[Place, int]:
        found = dict.fromkeys(places, 0)
        for place, offset in list_offsets(self._admin, places, spec, committed_only=False):
            try:
                found[place] = offset()
            except library().KafkaException as error:  # as of a partition without a leader
                log.info("%s, partition %d: %s", *place, sentence_of(error.args[0]))
        return found
