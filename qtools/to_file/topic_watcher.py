"""The topics that match a pattern, now and later. In: a source, and a lister of topics. Out: more subscriptions.

A topic is added at the first refresh that lists it. If it cannot be read then, the next refresh tries again. A topic
that has been deleted stays a source, as it may be created again. A topic whose name is too long for the name of a file
is left out, with one warning.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re

from qtools.engines.contract import Source, Topics
from qtools.errors import StartError
from qtools.names import Subscription
from qtools.to_file.archive.layout import LONGEST_TOPIC

logger = logging.getLogger("qtools.to_file")

# s between two refreshes while there is no source: the user may be waiting for the first topic.
REFRESH_SECONDS_EMPTY = 1.0


class TopicWatcher:
    """Topics whose name contains a match of `pattern`, read through `channel`. refresh: s between two refreshes."""

    def __init__(self, topics: Topics, pattern: re.Pattern[str], channel: str, refresh: float) -> None:
        self._topics = topics
        self._pattern = pattern
        self._channel = channel
        self._refresh = refresh
        self._failed: set[str] = set()
        self._too_long: set[str] = set()

    async def begin(self, source: Source, *, waits: bool) -> None:
        """Add the topics that exist to the sources of `source`, which has not started yet.

        waits: whether the run goes on without any topic. StartError when no broker or nsqlookupd answers.
        """
        found = self._fresh(source, await self._topics.look())
        source.subscriptions.extend(found)
        if not source.subscriptions:
            logger.warning(
                "no topic matches yet; looking again every second" if waits else "no topic matches: nothing to read"
            )

    def _fresh(self, source: Source, topics: set[str]) -> list[Subscription]:
        """Those of `topics` that match and are not read yet."""
        known = {subscription.topic for subscription in source.subscriptions} | self._too_long
        found = [topic for topic in sorted(topics - known) if self._pattern.search(topic)]
        for topic in found:
            if len(topic) > LONGEST_TOPIC:
                self._too_long.add(topic)
                logger.warning("topic %s is not archived: it is too long for the name of a file", topic)
        return [Subscription(topic, self._channel) for topic in found if topic not in self._too_long]

    async def follow(self, source: Source) -> None:
        """Add new topics to `source`, until cancelled."""
        while True:
            pause = self._refresh if source.subscriptions else min(self._refresh, REFRESH_SECONDS_EMPTY)
            await asyncio.sleep(pause * random.uniform(0.9, 1.1))
            for subscription in self._fresh(source, await self._topics.look_again()):
                await self._add(source, subscription)

    async def _add(self, source: Source, subscription: Subscription) -> None:
        try:
            await source.add(subscription)
        except StartError as error:
            if subscription.topic not in self._failed:
                self._failed.add(subscription.topic)
                logger.warning("cannot read %s yet: %s", subscription, error)
        else:
            self._failed.discard(subscription.topic)
            logger.warning("found topic %s", subscription.topic)

    async def close(self) -> None:
        await self._topics.close()
