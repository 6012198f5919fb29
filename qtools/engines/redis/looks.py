"""What can be seen of a server without reading it: topics, depths, the first entries. In: settings. Out: plain
data."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from qtools.engines.contract import SourceOptions
from qtools.engines.redis.connect import connect, connect_at_start
from qtools.engines.redis.connection import RedisConnection
from qtools.engines.redis.consume.channel import StreamChannel
from qtools.engines.redis.protocol import commands
from qtools.engines.redis.protocol.replies import Entry, ErrorReply, Reply, as_map
from qtools.engines.redis.protocol.stream_ids import FIRST, StreamId
from qtools.engines.redis.server_errors import PASSING, error_of
from qtools.engines.redis.settings import RedisSettings
from qtools.engines.requirements import channel_exists, channel_goes_on
from qtools.errors import NetworkError, PeerError, StartError, TopicMissing, UsageError
from qtools.message import Batch
from qtools.names import Subscription, is_ephemeral

log = logging.getLogger("qtools.redis")

SCANNED = 1000  # keys of one SCAN, about
PAGE = 1000  # entries of one look
LOADING_TIMEOUT = 60.0  # s that a server may take to load its data
WRONG_TYPE = ErrorReply("WRONGTYPE the key is no stream")


async def ask_when_loaded(connection: RedisConnection, *words: commands.Word) -> Reply:
    """The reply to a command; a server that refuses it for now is asked again. ConnectionLost."""
    deadline = asyncio.get_running_loop().time() + LOADING_TIMEOUT
    has_logged = False
    while True:
        reply = await connection.ask(*words)
        late = asyncio.get_running_loop().time() > deadline
        if not (isinstance(reply, ErrorReply) and reply.code in PASSING) or late:
            return reply
        if not has_logged:
            log.warning("%s; waiting", error_of(reply, connection.address))
            has_logged = True
        await asyncio.sleep(0.2)


async def look_at_start(subscriptions: Sequence[Subscription], settings: RedisSettings, options: SourceOptions) -> None:
    """Find out whether `subscriptions` can be read. StartError, TopicMissing, UsageError."""
    connection = await connect_at_start(settings)
    try:
        for subscription in subscriptions:
            await _look_at(connection, subscription, options)
    except (NetworkError, PeerError) as error:
        raise StartError(str(error)) from error
    finally:
        await connection.drop()


async def _look_at(connection: RedisConnection, subscription: Subscription, options: SourceOptions) -> None:
    topic, channel = subscription
    kind = await ask_when_loaded(connection, "TYPE", topic)
    if isinstance(kind, ErrorReply):
        raise error_of(kind, connection.address, topic)
    if kind == b"none":
        raise TopicMissing(f"{connection.address}: topic {topic}: there is no such stream")
    if kind != b"stream":
        raise error_of(WRONG_TYPE, connection.address, topic)
    if options.since is None or is_ephemeral(channel):
        return
    groups = await connection.ask("XINFO", "GROUPS", topic)
    if isinstance(groups, list) and any(as_map(group).get(b"name") == channel.encode() for group in groups):
        if not options.goes_on:
            raise channel_exists(subscription)
        log.warning("%s", channel_goes_on(subscription))


# ── the first entries ──


async def peek(subscription: Subscription, settings: RedisSettings, count: int) -> list[Batch]:
    """The first `count` entries that the group has not finished, or of the stream where there is no such group.

    UsageError when there is no such stream, StartError when no server answers, NetworkError, RedisRefused."""
    connection = await connect_at_start(settings)
    try:
        topic, channel = subscription
        groups = await connection.ask("XINFO", "GROUPS", topic)
        if isinstance(groups, ErrorReply):
            if "no such key" in groups.text:
                raise UsageError(f"{connection.address}: topic {topic}: there is no such stream")
            raise error_of(groups, connection.address, topic)
        group = next((found for found in map(as_map, groups) if found.get(b"name") == channel.encode()), None)
        entries: list[Entry] = []
        after = FIRST
        if group is not None:
            entries = await _pending_entries(connection, subscription, count)
            after = group[b"last-delivered-id"]
        if len(entries) < count:
            request = commands.read_range(topic, b"(" + after, "+", count - len(entries))
            (reply,) = await connection.request(request).done
            if isinstance(reply, ErrorReply):
                raise error_of(reply, connection.address, topic)
            entries += reply
        if not entries:
            return []
        shown = StreamChannel(subscription, connection.address, lambda: None)
        return [shown.arrive(entries, 0.0)]
    finally:
        await connection.drop()


async def _pending_entries(connection: RedisConnection, subscription: Subscription, count: int) -> list[Entry]:
    topic, channel = subscription
    (reply,) = await connection.request(commands.pending_of(topic, channel, "-", "+", count)).done
    if not isinstance(reply, list) or not reply:
        return []
    asked = b"".join(commands.read_range(topic, found[0], found[0]) for found in reply)
    replies = await connection.request(asked, len(reply)).done
    return [entry for found in replies if isinstance(found, list) for entry in found]


# ── topics and depths ──


class RedisTopics:
    """Topics and Statistics of the contract."""

    def __init__(self, settings: RedisSettings) -> None:
        self._settings = settings
        self._connection: RedisConnection | None = None
        self._is_away = False

    async def look(self) -> set[str]:
        try:
            return await self._names(await self._connected())
        except (NetworkError, PeerError) as error:
            raise StartError(str(error)) from error

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
        """As the contract says: `depth` of a topic is what its stream holds, of a channel what its group was not given;
        what is pending is in flight. Streams that this user may not read are left out."""
        connection = await self._connected()
        found = []
        for name in sorted(await self._names(connection)):
            row = await self._row(connection, name)
            if row is not None:
                found.append(row)
        return found

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.drop()
            self._connection = None

    async def _connected(self) -> RedisConnection:
        if self._connection is None or not self._connection.is_open:
            self._connection = await connect(self._settings)
        return self._connection

    async def _names(self, connection: RedisConnection) -> set[str]:
        """The names of all keys that are streams."""
        names: set[str] = set()
        cursor: commands.Word = 0
        while True:
            reply = await connection.ask("SCAN", cursor, "COUNT", SCANNED, "TYPE", "stream")
            if isinstance(reply, ErrorReply):
                raise error_of(reply, connection.address)
            names.update(name.decode("utf-8", "surrogateescape") for name in reply[1])
            cursor = reply[0]
            if cursor == b"0":
                return names

    async def _row(self, connection: RedisConnection, name: str) -> dict[str, Any] | None:
        words = (("XINFO", "STREAM", name), ("XINFO", "GROUPS", name))
        stream, groups = await connection.request(b"".join(commands.encode(*each) for each in words), 2).done
        if isinstance(stream, ErrorReply) or isinstance(groups, ErrorReply):
            return None
        about = as_map(stream)
        channels = []
        for group in map(as_map, groups):
            lag = group.get(b"lag")
            if lag is None:
                lag = await count_after(connection, name, group[b"last-delivered-id"], about)
            channels.append(
                {
                    "channel": group[b"name"].decode("utf-8", "replace"), "depth": lag, "in_flight": group[b"pending"],
                    "deferred": None, "messages": group.get(b"entries-read"), "requeued": None, "timed_out": None,
                    "clients": group[b"consumers"], "paused": False,
                }
            )  # fmt: skip
        length = about[b"length"]
        return {
            "topic": name, "depth": length, "messages": about.get(b"entries-added", length), "bytes": None,
            "paused": False, "channels": channels,
        }  # fmt: skip


async def count_after(connection: RedisConnection, topic: str, after: bytes, about: dict[bytes, Reply]) -> int:
    """How many entries come after the id `after`, where the server does not tell (entries were deleted, or before Redis
    7): all, none, or counted by reading them."""
    first = about.get(b"first-entry")
    if not first:
        return 0
    if StreamId.of(after) < StreamId.of(first[0]):
        return int(about[b"length"])
    count = 0
    while True:
        (reply,) = await connection.request(commands.read_range(topic, b"(" + after, "+", PAGE)).done
        if isinstance(reply, ErrorReply) or not reply:
            return count
        count += len(reply)
        after = reply[-1][0]
