"""Administration over HTTP. In: the query of a request. Out: its answer, or a Refusal.

POST /topic/{create,delete,empty,pause,unpause}   /channel/{…the same…}   as nsqd 1.3.0 (nsqd/http.go)
POST /channel/create …&from=TIME   GET /channel/peek                       not in nsqd, see history.py
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from typing import Any

from qtools.broker.core.block import MessageRange
from qtools.broker.core.broker import Broker
from qtools.broker.core.channel import Channel
from qtools.broker.core.store import CannotRead, CannotReplay
from qtools.broker.core.topic import Topic
from qtools.broker.http.history import MOST, describe, parse_time
from qtools.names import is_valid_name
from qtools.web.request_body import Refusal

QueryFields = dict[str, list[str]]
AdminRoutes = dict[str, tuple[str, Callable[[QueryFields], Any]]]

COME_WITHIN = 60.0  # s after which an ephemeral channel that begins in the past is deleted without a client


class Admin:
    """routes: for each path, the method and the function that answers."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.routes: AdminRoutes = {
            "/topic/create": ("POST", self._topic_create),
            "/topic/delete": ("POST", self._topic_delete),
            "/topic/empty": ("POST", self._topic_empty),
            "/topic/pause": ("POST", self._topic_pause),
            "/topic/unpause": ("POST", self._topic_unpause),
            "/channel/create": ("POST", self._channel_create),
            "/channel/delete": ("POST", self._channel_delete),
            "/channel/empty": ("POST", self._channel_empty),
            "/channel/pause": ("POST", self._channel_pause),
            "/channel/unpause": ("POST", self._channel_unpause),
            "/channel/peek": ("GET", self._channel_peek),
        }

    def _moment(self) -> tuple[float, int]:
        return self._broker.now(), time.time_ns()

    def _existing(self, query: QueryFields) -> Topic:
        topic = self._broker.topics.get(topic_name(query))
        if topic is None:
            raise Refusal(404, "TOPIC_NOT_FOUND")
        return topic

    def _topic_create(self, query: QueryFields) -> bytes:
        self._broker.topic(topic_name(query))
        return b""

    def _topic_delete(self, query: QueryFields) -> bytes:
        self._broker.delete_topic(_deletable(query, self._broker))
        return b""

    def _topic_empty(self, query: QueryFields) -> bytes:
        self._existing(query).empty(*self._moment())
        return b""

    def _topic_pause(self, query: QueryFields) -> bytes:
        self._existing(query).pause(*self._moment())
        return b""

    def _topic_unpause(self, query: QueryFields) -> bytes:
        self._existing(query).unpause(*self._moment())
        return b""

    def _topic_and_channel(self, query: QueryFields) -> tuple[Topic, str]:
        for kind in ("topic", "channel"):
            if kind not in query:
                raise Refusal(400, f"MISSING_ARG_{kind.upper()}")
            if not is_valid_name(query[kind][0]):
                raise Refusal(400, f"INVALID_ARG_{kind.upper()}")
        topic = self._broker.topics.get(query["topic"][0])
        if topic is None:
            raise Refusal(404, "TOPIC_NOT_FOUND")
        return topic, query["channel"][0]

    def _existing_channel(self, query: QueryFields) -> tuple[Topic, str]:
        topic, name = self._topic_and_channel(query)
        if name not in topic.channels:
            raise Refusal(404, "CHANNEL_NOT_FOUND")
        topic.seal(*self._moment())  # messages published before this request are in the channel
        return topic, name

    def _channel_create(self, query: QueryFields) -> bytes:
        topic, name = self._topic_and_channel(query)
        if "from" not in query:
            self._broker.channel(topic.name, name)
            return b""
        try:
            since = parse_time(query["from"][0])
        except (ValueError, OverflowError):
            raise Refusal(400, "INVALID_ARG_FROM") from None
        if name in topic.channels:
            raise Refusal(409, "CHANNEL_EXISTS")
        try:
            channel = self._broker.channel(topic.name, name, since)
        except CannotReplay:
            raise Refusal(400, "NOT_DURABLE") from None
        except CannotRead:
            raise Refusal(503, "CANNOT_READ") from None
        if channel.ephemeral:  # its messages stay on disk, so it must not stay without a client
            self._broker.call_at(self._broker.now() + COME_WITHIN, lambda now: self._forget(topic, channel))
        return b""

    def _forget(self, topic: Topic, channel: Channel) -> None:
        if not channel.consumers and topic.channels.get(channel.name) is channel:
            self._broker.delete_channel(topic, channel.name)

    async def _channel_peek(self, query: QueryFields) -> dict[str, Any]:
        topic, name = self._topic_and_channel(query)
        if name not in topic.channels and topic.channels:
            raise Refusal(404, "CHANNEL_NOT_FOUND")
        topic.seal(*self._moment())
        count = query["count"][0] if "count" in query else "10"
        if not re.fullmatch(r"[0-9]{1,6}", count) or not 0 < int(count) <= MOST:
            raise Refusal(400, "INVALID_ARG_COUNT")
        found: asyncio.Future[list[MessageRange] | None] = asyncio.get_running_loop().create_future()
        # Without channels, the first one will get all messages of the topic, whatever its name.
        peek = topic.channels[name].backlog.peek if name in topic.channels else topic.peek
        peek(int(count), lambda runs: None if found.done() else found.set_result(runs))
        runs = await found
        if runs is None:
            raise Refusal(503, "CANNOT_READ")
        return {"messages": describe(runs)}

    def _channel_delete(self, query: QueryFields) -> bytes:
        self._broker.delete_channel(*self._existing_channel(query))
        return b""

    def _channel_empty(self, query: QueryFields) -> bytes:
        topic, name = self._existing_channel(query)
        topic.channels[name].empty()
        return b""

    def _channel_pause(self, query: QueryFields) -> bytes:
        topic, name = self._existing_channel(query)
        topic.pause_channel(name, True)
        return b""

    def _channel_unpause(self, query: QueryFields) -> bytes:
        topic, name = self._existing_channel(query)
        topic.pause_channel(name, False)
        return b""


def topic_name(query: QueryFields) -> str:
    if "topic" not in query:
        raise Refusal(400, "MISSING_ARG_TOPIC")
    name = query["topic"][0]
    if not is_valid_name(name):
        raise Refusal(400, "INVALID_TOPIC")
    return name


def _deletable(query: QueryFields, broker: Broker) -> str:
    """The topic to delete. Unlike elsewhere, only its existence is checked and not its name."""
    if "topic" not in query:
        raise Refusal(400, "MISSING_ARG_TOPIC")
    if query["topic"][0] not in broker.topics:
        raise Refusal(404, "TOPIC_NOT_FOUND")
    return query["topic"][0]
