"""Whether anything is left of channels. In: channels, a connection. Out: yes or no.

What is left of a group: entries that are pending for any of its members, and entries after the last one that was
delivered. `lag` of XINFO GROUPS is not used for that: it is missing, or wrong, after entries were deleted; what is
asked is whether there is an entry after the last one that was delivered.
"""

from __future__ import annotations

from collections.abc import Mapping

from qtools.engines.redis.connection import RedisConnection
from qtools.engines.redis.consume.group_channel import GroupChannel
from qtools.engines.redis.consume.temporary_channel import TemporaryChannel, last_id
from qtools.engines.redis.protocol import commands
from qtools.engines.redis.protocol.replies import ErrorReply
from qtools.engines.redis.server_errors import refusal_of
from qtools.errors import SourceDeleted
from qtools.names import Subscription

Channels = Mapping[Subscription, GroupChannel | TemporaryChannel]


class Drained:
    """channels: of the source, which may add some."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._ends: dict[Subscription, bytes] = {}  # the newest entries at the start

    async def note_ends(self, connection: RedisConnection) -> None:
        """The streams end here now. RedisRefused, NetworkError."""
        for subscription, channel in self._channels.items():
            self._ends[subscription] = await last_id(connection, channel.topic)

    async def look(self, connection: RedisConnection, *, at_start: bool = False) -> bool:
        """Whether nothing is left. at_start: of what there was at the start. SourceDeleted, RedisRefused,
        NetworkError."""
        for subscription, channel in self._channels.items():
            end = self._ends.get(subscription, b"0-0") if at_start else b"+"
            if isinstance(channel, GroupChannel):
                if not await _is_group_drained(connection, channel, end):
                    return False
            elif channel.ledger.count or not await _is_empty(connection, channel.topic, channel.position, end):
                return False
        return True


async def _is_group_drained(connection: RedisConnection, channel: GroupChannel, end: bytes) -> bool:
    state = await channel.state(connection)
    if state is None:
        raise SourceDeleted("channel", str(channel.subscription), connection.address)
    if state[b"pending"]:
        if end == b"+":
            return False
        reply = await connection.ask("XPENDING", channel.topic, channel.channel, "-", end, 1)
        if isinstance(reply, ErrorReply) or reply:
            return False
    is_empty = await _is_empty(connection, channel.topic, state[b"last-delivered-id"], end)
    if is_empty and end == b"+":
        channel.lag_messages = 0  # what was asked before is older
    return is_empty


async def _is_empty(connection: RedisConnection, topic: str, after: bytes, end: bytes) -> bool:
    """Whether no entry comes after the id `after`, up to `end`."""
    (reply,) = await connection.request(commands.read_range(topic, b"(" + after, end, 1)).done
    if isinstance(reply, ErrorReply):
        raise refusal_of(reply, connection.address, topic)
    return not reply
