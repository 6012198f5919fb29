"""The streams of the topics that messages are published to. In: topics. Out: the errors of their messages."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from qtools.engines.contract import PublisherOptions
from qtools.engines.jetstream.api import JetStreamApi, check_name
from qtools.engines.jetstream.publish.refusals import StreamMissing
from qtools.engines.jetstream.settings import JetStreamSettings
from qtools.errors import BrokerError, NetworkError, QtoolsError, UsageError

log = logging.getLogger("qtools.nats")


class TopicStreams:
    """found: topics that have a stream."""

    def __init__(self, api: JetStreamApi, settings: JetStreamSettings, options: PublisherOptions) -> None:
        self.found: set[str] = set()
        self._api = api
        self._settings = settings
        self._options = options

    async def find(self, topic: str) -> QtoolsError | None:
        """Make sure that a stream stores `topic`, or create it, if that was asked for. Returns the error of its
        messages if none does. NetworkError, BrokerError."""
        try:
            check_name("topic", topic)
        except UsageError as error:
            return error
        if await self._api.stream_of(topic) is None:
            if self._options.new_topics is None:
                return StreamMissing(topic, str(self._settings), self._options.new_topics_flag)
            try:
                await self._api.create_stream(topic, self._options.new_topics.replicas)
            except BrokerError as error:
                return error
        self.found.add(topic)
        return None

    async def warn_of_missing(self, topics: Sequence[str]) -> None:
        """Log each of `topics` that has no stream: messages may go to it if they cannot be delivered."""
        for topic in topics:
            try:
                error = await self.find(topic)
            except (NetworkError, BrokerError) as failed:
                log.info("%s", failed)
                continue
            if error is not None:
                log.warning(
                    "a message that cannot be delivered would go to the topic %s, and the run would end: %s",
                    topic,
                    error,
                )
