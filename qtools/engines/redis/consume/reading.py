"""The tasks that read one subscription while it is connected. In: a channel, its connections. Out: entries.

    read_group, read_stream   ask for new entries, as many as the source grants, and wait in the server for the first
    tend                      each second: take what other members have left, touch what is in flight, ask for the lag;
                              and fetch again what was requeued, once it is due

A task ends with its connection, or with an error that the source raises.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from qtools.engines.redis.connection import BLOCK_MS
from qtools.engines.redis.consume.channel import StreamChannel
from qtools.engines.redis.consume.group_channel import GroupChannel
from qtools.engines.redis.consume.temporary_channel import TemporaryChannel
from qtools.engines.redis.protocol import commands
from qtools.engines.redis.protocol.replies import Entry, ErrorReply, Reply, entries_of
from qtools.engines.redis.server_errors import ELSEWHERE, PASSING, refusal_of
from qtools.errors import NetworkError

log = logging.getLogger("qtools.redis")

TEND_INTERVAL = 1.0  # s
CROWDED_BLOCK_MS = 100  # while other subscriptions wait for room
MOST_COUNT = 2000  # entries of one read; the server does nothing else meanwhile
TRY_AGAIN = 0.5  # s after a refusal that passes by itself


class ReadingOwner(Protocol):
    """The source."""

    async def wait_for_room(self, most: int) -> tuple[int, bool]:
        """How many messages may be read now, and whether others wait for room; they count as granted. 0 at the end."""

    def grant(self, most: int) -> int:
        """The same without waiting: may be 0."""

    def grant_again(self, most: int) -> int:
        """The same for messages that have counted for the limit."""

    def take_back(self, granted: int) -> None:
        """What was granted was used, or is not needed."""

    def arrived(self, channel: StreamChannel, entries: list[Entry], *, again: bool, counts: bool) -> None:
        """`entries` were read. again: they were delivered before. counts: against the limit of the run."""

    async def stream_gone(self, channel: StreamChannel) -> None:
        """The stream or its group is not there any more; returns when it may be read again."""


async def read_group(channel: GroupChannel, owner: ReadingOwner) -> None:
    """Read new entries of the group."""
    while (reader := channel.reader) is not None:
        granted, is_crowded = await owner.wait_for_room(MOST_COUNT)
        if not granted:
            return
        try:
            block = CROWDED_BLOCK_MS if is_crowded else BLOCK_MS
            request = commands.read_group(channel.channel, channel.consumer, granted, channel.topic, block_ms=block)
            pending = reader.request(request)
            channel.is_asking = True
            (reply,) = await pending.done
            if (entries := await _entries(channel, owner, reply)) is not None:
                owner.arrived(channel, entries, again=False, counts=True)
        finally:
            owner.take_back(granted)


async def read_stream(channel: TemporaryChannel, owner: ReadingOwner) -> None:
    """Read entries without a group."""
    while (reader := channel.reader) is not None:
        granted, is_crowded = await owner.wait_for_room(MOST_COUNT)
        if not granted:
            return
        try:
            block = CROWDED_BLOCK_MS if is_crowded else BLOCK_MS
            pending = reader.request(commands.read_stream(granted, channel.topic, channel.position, block_ms=block))
            channel.is_asking = True
            (reply,) = await pending.done
            if (entries := await _entries(channel, owner, reply)) is not None:
                channel.position = entries[-1][0]
                owner.arrived(channel, entries, again=False, counts=True)
        finally:
            owner.take_back(granted)


async def _entries(channel: StreamChannel, owner: ReadingOwner, reply: Reply) -> list[Entry] | None:
    """The entries in `reply`; None if there are none. RedisRefused."""
    if isinstance(reply, ErrorReply):
        where = channel.reader.address if channel.reader is not None else channel.address
        if reply.code == "NOGROUP":
            await owner.stream_gone(channel)
        elif reply.code in ELSEWHERE and channel.reader is not None:
            channel.reader.abort(refusal_of(reply, where))  # the address may lead elsewhere
            await asyncio.sleep(TRY_AGAIN)
        elif reply.code in PASSING:
            log.info("%s: %s", channel.subscription, refusal_of(reply, where))
            await asyncio.sleep(TRY_AGAIN)
        elif reply.code != "UNBLOCKED":
            raise refusal_of(reply, where, channel.topic)
        return None
    for _, entries in entries_of(reply):
        found = [entry for entry in entries if entry[1] is not None]
        if found:
            return found
    return None


async def tend(channel: GroupChannel | TemporaryChannel, owner: ReadingOwner) -> None:
    """Look after what is not new. What the server refuses for now is asked again."""
    loop = asyncio.get_running_loop()
    next_look = 0.0
    while (connection := channel.commands) is not None:
        now = loop.time()
        try:
            if isinstance(channel, GroupChannel) and now >= next_look:
                next_look = now + TEND_INTERVAL
                channel.send_unsent()
                await take_left(channel, owner)
                channel.touch_old(now)
                await _ask_for_lag(channel)
            await _fetch_due(channel, owner)
        except NetworkError as error:
            if not connection.is_open:
                return
            log.info("%s: %s", channel.subscription, error)  # the server refuses it for now
            await asyncio.sleep(TRY_AGAIN)
            continue
        due = channel.next_due
        if due is not None and due <= loop.time():
            await asyncio.sleep(0.02)  # there is no room for it now
            continue
        ends = [end for end in (due, next_look or None) if end is not None]
        channel.has_waiting.clear()
        try:
            async with asyncio.timeout_at(min(ends) if ends else None):
                await channel.has_waiting.wait()
        except TimeoutError:
            continue


async def take_left(channel: GroupChannel, owner: ReadingOwner) -> None:
    """Take what other members have left, as far as there is room."""
    while granted := owner.grant(MOST_COUNT):
        try:
            entries = await channel.claim_idle(granted)
            if entries:
                owner.arrived(channel, entries, again=True, counts=True)
        finally:
            owner.take_back(granted)
        if not channel.has_more_idle:
            return


async def _fetch_due(channel: GroupChannel | TemporaryChannel, owner: ReadingOwner) -> None:
    """Fetch again what was requeued and is due. It has counted for the limit when it came first."""
    loop = asyncio.get_running_loop()
    while (due := channel.next_due) is not None and due <= loop.time():
        granted = owner.grant_again(MOST_COUNT)
        try:
            ids = channel.take_due(loop.time(), granted)
            if not ids:
                return
            try:
                entries = await channel.claim_waiting(ids)
            except BaseException:
                channel.wait(ids, due)  # the connection was lost
                raise
            if entries:
                owner.arrived(channel, entries, again=True, counts=False)
        finally:
            owner.take_back(granted)


async def _ask_for_lag(channel: GroupChannel) -> None:
    if channel.commands is None or not channel.is_created:
        return
    state = await channel.state(channel.commands)
    if state is None:
        return
    lag, pending = state.get(b"lag"), state.get(b"pending")
    channel.lag_messages = lag + pending if isinstance(lag, int) and isinstance(pending, int) else None
