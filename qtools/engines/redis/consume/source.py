"""Reads channels of Redis Streams, which are consumer groups. In: subscriptions. Out: batches; see engines/contract.py.

    SourceConnections ─▶ XREADGROUP, for as many as are granted ─▶ read(): one batch ─▶ finish() ─▶ XACK

A new group begins with the oldest entry, so that none is missed. A temporary channel reads without a group from the end
on, or from a time.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from typing import Any

from qtools.engines.contract import SourceOptions
from qtools.engines.redis.consume.channel import EntryDelivery, StreamChannel
from qtools.engines.redis.consume.drained import Drained
from qtools.engines.redis.consume.group_channel import PREFIX, GroupChannel
from qtools.engines.redis.consume.source_connections import Channel, SourceConnections
from qtools.engines.redis.consume.temporary_channel import TemporaryChannel, last_id
from qtools.engines.redis.looks import look_at_start
from qtools.engines.redis.protocol.replies import Entry
from qtools.engines.redis.protocol.stream_ids import FIRST, StreamId, time_of
from qtools.engines.redis.settings import RedisSettings
from qtools.engines.run_end import PolledRunEnd
from qtools.errors import NetworkError, SourceDeleted
from qtools.message import Batch
from qtools.names import Subscription, is_ephemeral

log = logging.getLogger("qtools.redis")

UNREAD_BYTES = 8 * 1024 * 1024  # of bodies that were not read; nothing more is asked for beyond that
# Messages in flight, and those that wait to be fetched again, unless max_in_flight is more: the ids of both are kept.
# A small max_in_flight alone would let a few messages that fail, with long delays, keep all others waiting.
MOST_UNFINISHED = 10_000
FIRST_COUNT = 16  # messages of the first read, while it is not known how large they are
LOOK_AGAIN = 1.0  # s between two looks for a stream that was deleted


class RedisSource(PolledRunEnd):
    """Reads `subscriptions`. All of it runs in the event loop's thread."""

    def __init__(self, subscriptions: Sequence[Subscription], settings: RedisSettings, options: SourceOptions) -> None:
        super().__init__(options.ends, str(settings))
        self.subscriptions = list(subscriptions)
        self.on_received: Callable[[int], None] | None = None
        self.received = self.redelivered = self.unread_bytes = 0
        self.lag = 0.0
        self._settings = settings
        self._options = options
        self._limit = options.limit
        self._consumer = f"{PREFIX}{socket.gethostname()}-{os.getpid()}-{os.urandom(4).hex()}"
        self._unread: deque[Batch] = deque()
        self._changed = asyncio.Event()  # `read` has to look again
        self._has_room = asyncio.Event()  # a reader that waits for room has to look again
        self._waiting_readers = 0
        self._error: BaseException | None = None
        self._is_ended = self._is_resting = False
        self._granted = 0  # messages that readers may read now
        self._counted = 0  # messages that count for the limit
        self._average = 0.0  # bytes of a message, of late
        self._connections = SourceConnections(settings, self, options.since)
        self._channels = self._connections.channels
        self._drained = Drained(self._channels)

    # ── what the contract asks ──

    async def prepare(self) -> None:
        await look_at_start(self.subscriptions, self._settings, self._options)

    async def start(self) -> None:
        for subscription in self.subscriptions:
            self._channels[subscription] = self._make_channel(subscription)
        await self._connections.start()
        if self._options.ends.until_now and self._connections.connection is not None:
            await self._drained.note_ends(self._connections.connection)

    def _make_channel(self, subscription: Subscription) -> Channel:
        if is_ephemeral(subscription.channel):
            return TemporaryChannel(subscription, str(self._settings), self._left_flight)
        timeout = self._settings.msg_timeout
        return GroupChannel(subscription, str(self._settings), self._left_flight, self._consumer, timeout)

    async def add(self, subscription: Subscription) -> None:
        await self._connections.add(self._make_channel(subscription))
        self.subscriptions.append(subscription)

    async def read(self) -> Batch | None:
        while True:
            if self._error is not None:
                raise self._error
            if self._unread:
                batches = list(self._unread)
                self._unread.clear()
                self.unread_bytes = 0
                self._has_room.set()
                return Batch.joined(batches)
            if self._is_ended:
                return None
            if self._limit is not None and self._counted >= self._limit and not self._waits:
                return None
            self._changed.clear()
            await self._changed.wait()

    def end(self) -> None:
        self._is_ended = self._is_resting = True
        self._connections.unblock()
        self._changed.set()

    def discard(self) -> None:
        self._unread.clear()
        self.unread_bytes = 0
        self.end()

    def rest(self) -> None:
        self._is_resting = True
        self._connections.unblock()
        for batch in self._unread:
            for origin, _, _ in batch.parts:
                self._counted -= self._release(origin)
        self._unread.clear()
        self.unread_bytes = 0

    def resume(self, limit: int | None) -> None:
        self._limit = None if limit is None else self._counted + limit
        self._is_ended = self._is_resting = False
        self._has_room.set()

    @property
    def may_resume(self) -> bool:
        return self._connections.connection is not None and not self._is_ended

    async def close(self) -> None:
        self._is_ended = self._is_resting = True
        self._has_room.set()
        await self._connections.close()

    # ── how a run ends (PolledRunEnd) ──

    def has_begun(self) -> bool:
        return self.connected > 0

    async def is_finished(self, *, at_start: bool) -> bool:
        connection = self._connections.connection
        if connection is None:
            raise NetworkError(str(self._settings), "the connection is lost")
        return not self._waits and await self._drained.look(connection, at_start=at_start)

    # ── what is counted ──

    @property
    def in_flight(self) -> int:
        return sum(channel.ledger.count for channel in self._channels.values())

    @property
    def connected(self) -> int:
        """Subscriptions that are read."""
        return self._connections.connected

    @property
    def reconnects(self) -> int:
        return self._connections.reconnects

    @property
    def acknowledgements_failed(self) -> int:
        return sum(channel.acknowledgements_failed for channel in self._channels.values())

    @property
    def lag_messages(self) -> int | None:
        found = [channel.lag_messages for channel in self._channels.values()]
        return None if not found or None in found else sum(each or 0 for each in found)

    @property
    def acknowledgement_timeout(self) -> float | None:
        return inf  # what is in flight is touched

    @property
    def _waits(self) -> bool:
        return any(channel.waits for channel in self._channels.values())

    # ── how much may be read (reading.ReadingOwner) ──

    async def wait_for_room(self, most: int) -> tuple[int, bool]:
        self._waiting_readers += 1
        try:
            while not (granted := self.grant(most)) and not self._connections.is_closing:
                self._has_room.clear()
                await self._has_room.wait()
        finally:
            self._waiting_readers -= 1
        return granted, self._waiting_readers > 0

    def grant(self, most: int) -> int:
        waiting = sum(channel.waiting_count for channel in self._channels.values())
        unfinished = self.in_flight + waiting + self._granted
        room = min(self._room(most), max(self._options.max_in_flight, MOST_UNFINISHED) - unfinished)
        if self._limit is not None:
            room = min(room, self._limit - self._counted - self._granted)
        return self._take(room)

    def grant_again(self, most: int) -> int:
        return self._take(self._room(most))

    def _room(self, most: int) -> int:
        if self._is_resting:
            return 0
        free = UNREAD_BYTES - self.unread_bytes
        room = min(most, self._options.max_in_flight - self.in_flight - self._granted)
        share = max(1, room // max(1, len(self._channels)))
        fits = max(1, int(free / self._average)) if self._average else FIRST_COUNT
        return min(room, share, fits) if free > 0 else 0

    def _take(self, room: int) -> int:
        granted = max(0, room)
        self._granted += granted
        return granted

    def take_back(self, granted: int) -> None:
        self._granted -= granted
        self._has_room.set()

    # ── what was read (reading.ReadingOwner) ──

    def arrived(self, channel: StreamChannel, entries: list[Entry], *, again: bool, counts: bool) -> None:
        batch = channel.arrive(entries, asyncio.get_running_loop().time())
        count, size = len(entries), sum(map(len, batch.bodies))
        self._average = max(1.0, size / count)
        if not again:
            channel.position = entries[-1][0]
        if self.on_received is not None:
            self.on_received(size)
        if self._is_resting:  # it comes too late
            self._release(batch.parts[0][0])
            return
        if counts:
            self._counted += count
        self.received += count
        self.redelivered += count if again else 0
        self.lag = max(0.0, time.time() - time_of(entries[-1][0]) / 1e9)
        self._unread.append(batch)
        self.unread_bytes += size
        self._changed.set()

    def _release(self, origin: Any) -> int:
        """Give back what is in flight of one read; returns how many messages that were."""
        assert isinstance(origin, EntryDelivery)
        ids = origin.take_back()
        if isinstance(origin.connection, GroupChannel):
            origin.connection.release(ids)
        return len(ids)

    def _left_flight(self) -> None:
        """Messages were finished or requeued."""
        self._has_room.set()
        if self._limit is not None:
            self._changed.set()

    async def stream_gone(self, channel: StreamChannel) -> None:
        """The stream was deleted, or the group of it. What was in flight cannot be acknowledged any more. The group is
        made again where this source stands, once there is a stream."""
        assert isinstance(channel, GroupChannel)
        where = str(self._settings)
        if channel.is_created:
            channel.is_created = False
            log.warning(
                "the stream %s, or its group %s, was deleted on %s; it is read again when there is a stream",
                channel.topic, channel.channel, where,
            )  # fmt: skip
            if self._options.ends.flag:
                raise SourceDeleted("channel", str(channel.subscription), where)
        connection = channel.commands
        if connection is None or await connection.ask("TYPE", channel.topic) == b"none":
            await asyncio.sleep(LOOK_AGAIN)
            return
        last = await last_id(connection, channel.topic)
        is_another = StreamId.of(last) < StreamId.of(channel.position or FIRST)
        await channel.create(connection, FIRST if is_another or not channel.position else channel.position)
        log.warning("the group %s of %s on %s was made again", channel.channel, channel.topic, where)

    def failed(self, error: BaseException) -> None:
        self._error = self._error or error
        self._changed.set()
