"""Which topics JetStream has, what waits in them, and which cluster it is. In: settings. Out: plain data.

A topic is a subject. Of a stream whose subjects have wildcards, the topics are the subjects with messages.
"""

from __future__ import annotations

import logging
from typing import Any

from qtools.engines.jetstream.api import ConsumerState, JetStreamApi
from qtools.engines.jetstream.client import NatsClient
from qtools.engines.jetstream.settings import JetStreamSettings
from qtools.errors import BrokerError, NetworkError, StartError

log = logging.getLogger("qtools.nats")


class JetStreamTopics:
    """Topics and Statistics of the contract, over one connection that is opened for the first question."""

    def __init__(self, settings: JetStreamSettings) -> None:
        self._settings = settings
        self._client = NatsClient(settings)
        self._api = JetStreamApi(self._client)
        self._is_away = False

    async def look(self) -> set[str]:
        await self._client.start()
        try:
            return {topic async for stream in self._api.streams() for topic in await self._topics_of(stream)}
        except (NetworkError, BrokerError) as error:
            raise StartError(f"{self._settings}: {error}") from error

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
        """As the contract says: `depth` of a topic is what its stream holds, of a channel what was not delivered. Of
        topics that share a stream, only the subjects with messages are counted."""
        await self._client.start()
        rows: dict[str, dict[str, Any]] = {}
        async for stream in self._api.streams():
            topics = await self._topics_of(stream)
            # A mirror holds the topics of another stream; the row is that of the stream which stores what is published.
            topics = {
                topic: count for topic, count in topics.items() if topic not in rows or _is_stored_by(stream, topic)
            }
            size = stream["state"]["bytes"] if len(topics) == 1 else None
            for topic, count in topics.items():
                rows[topic] = {
                    "topic": topic, "depth": count, "messages": count, "bytes": size, "paused": False, "channels": [],
                }  # fmt: skip
            async for consumer in self._api.consumers(stream["config"]["name"]):
                filters = consumer.config.get("filter_subjects") or [consumer.config.get("filter_subject", "")]
                for topic in topics:
                    if topic in filters or filters == [""]:
                        rows[topic]["channels"].append(_channel(consumer))
        return [rows[topic] for topic in sorted(rows)]

    async def _topics_of(self, stream: dict[str, Any]) -> dict[str, int]:
        """The topics of a stream, and how many messages each has."""
        subjects = stream["config"].get("subjects") or []
        if len(subjects) == 1 and not _has_wildcard(subjects[0]):
            return {subjects[0]: stream["state"]["messages"]}
        topics = {subject: 0 for subject in subjects if not _has_wildcard(subject)}
        info = await self._api.stream_info(stream["config"]["name"], ">")
        counts = (info or {}).get("state", {}).get("subjects") or {}
        return topics | {str(subject): int(count) for subject, count in counts.items()}

    async def close(self) -> None:
        await self._client.close()


def _is_stored_by(stream: dict[str, Any], topic: str) -> bool:
    """Whether `stream` stores what is published to `topic`."""
    words = topic.split(".")
    return any(_matches(subject.split("."), words) for subject in stream["config"].get("subjects") or [])


def _matches(pattern: list[str], words: list[str]) -> bool:
    """Whether a subject of `words` matches `pattern`, where `*` is one word, and `>` at the end one or more."""
    if pattern[-1] == ">" and len(words) >= len(pattern):
        pattern, words = pattern[:-1], words[: len(pattern) - 1]
    return len(pattern) == len(words) and all(p in ("*", word) for p, word in zip(pattern, words, strict=True))


def _has_wildcard(subject: str) -> bool:
    return any(word in ("*", ">") for word in subject.split("."))


def _channel(consumer: ConsumerState) -> dict[str, Any]:
    return {
        "channel": consumer.name, "depth": consumer.pending, "in_flight": consumer.unfinished,
        "deferred": None, "messages": None, "requeued": None, "timed_out": None, "clients": None,
        "paused": bool(consumer.config.get("pause_until")),
    }  # fmt: skip


async def cluster_identity(settings: JetStreamSettings) -> frozenset[tuple[str, ...]]:
    """The name of the cluster, or the id of a server without one, each with the account. StartError."""
    client = NatsClient(settings)
    await client.start()
    try:
        info = client.info
        account = await JetStreamApi(client).account()
        return frozenset({("nats", info.cluster or info.server_id, info.domain, account)})
    finally:
        await client.close()
