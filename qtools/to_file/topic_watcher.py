"""The topics that match a pattern, now and later. In: a consumer, and a lister of topics. Out: more sources for the
consumer.

A topic is added at the first refresh that lists it. If it cannot be read then, the next refresh tries again. A topic
that has been deleted stays a source, as it may be created again.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re

from qtools.engines.nsq.consume.consumer import Consumer
from qtools.engines.nsq.topics import TopicLister
from qtools.errors import StartError
from qtools.names import Subscription

logger = logging.getLogger("qtools.to_file")

# s between two refreshes while there is no source: the user may be waiting for the first topic.
REFRESH_SECONDS_EMPTY = 1.0


class TopicWatcher:
    """Topics whose name contains a match of `pattern`, read through `channel`. refresh: s between two refreshes."""

    def __init__(self, topics: TopicLister, pattern: re.Pattern[str], channel: str, refresh: float) -> None:
        self._topics = topics
        self._pattern = pattern
        self._channel = channel
        self._refresh = refresh
        self._failed: set[str] = set()

    async def begin(self, consumer: Consumer, *, waits: bool) -> None:
        """Add the topics that exist to the sources of `consumer`, which has not started yet.

        waits: whether the run goes on without any topic. StartError when no broker or nsqlookupd answers.
        """
        found = self._fresh(consumer, await self._topics.look())
        consumer.sources.extend(found)
        if not consumer.sources:
            logger.warning(
                "no topic matches yet; looking again every second" if waits else "no topic matches: nothing to read"
            )

    def _fresh(self, consumer: Consumer, topics: set[str]) -> list[Subscription]:
        """Those of `topics` that match and are not read yet."""
        known = {source.topic for source in consumer.sources}
        return [
            Subscription(topic, self._channel)
            for topic in sorted(topics)
            if topic not in known and self._pattern.search(topic)
        ]

    async def follow(self, consumer: Consumer) -> None:
        """Add new topics to `consumer`, until cancelled."""
        while True:
            pause = self._refresh if consumer.sources else min(self._refresh, REFRESH_SECONDS_EMPTY)
            await asyncio.sleep(pause * random.uniform(0.9, 1.1))
            for source in self._fresh(consumer, await self._topics.look_again()):
                await self._add(consumer, source)

    async def _add(self, consumer: Consumer, source: Subscription) -> None:
        try:
            await consumer.add(source)
        except StartError as error:
            if source.topic not in self._failed:
                self._failed.add(source.topic)
                logger.warning("cannot read %s yet: %s", source, error)
        else:
            self._failed.discard(source.topic)
            logger.warning("found topic %s", source.topic)

    async def close(self) -> None:
        await self._topics.close()
