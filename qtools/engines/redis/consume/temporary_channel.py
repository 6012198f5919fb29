"""A subscription without a group: the entries from its start on, or from a time. In: entries. Out: XREAD, XRANGE.

Nothing of it is in the server. A requeued message is read again by its id.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qtools.engines.redis.connection import RedisConnection
from qtools.engines.redis.consume.channel import StreamChannel
from qtools.engines.redis.protocol import commands
from qtools.engines.redis.protocol.replies import Entry, ErrorReply, as_map
from qtools.engines.redis.server_errors import refusal_of
from qtools.names import Subscription


class TemporaryChannel(StreamChannel):
    """position: the id after which is read."""

    def __init__(self, subscription: Subscription, address: str, on_changed: Callable[[], None]) -> None:
        super().__init__(subscription, address, on_changed)

    async def begin_at_end(self, connection: RedisConnection) -> None:
        """Read what is added from now on. RedisRefused, NetworkError."""
        self.position = await last_id(connection, self.topic)

    def down(self) -> None:
        """The connection is lost."""
        self.commands = self.reader = None
        self.is_asking = False

    async def claim_waiting(self, ids: Sequence[bytes]) -> list[Entry]:
        """The entries of `ids`, without those that were deleted."""
        connection = self.commands
        if connection is None:
            return []
        data = b"".join(commands.read_range(self.topic, ident, ident) for ident in ids)
        replies = await connection.request(data, len(ids)).done
        entries = [entry for reply in replies if isinstance(reply, list) for entry in reply]
        self.note_again([entry[0] for entry in entries])
        return entries


async def last_id(connection: RedisConnection, topic: str) -> bytes:
    """The id of the newest entry that was ever in a stream; b"0-0" if there is no stream."""
    reply = await connection.ask("XINFO", "STREAM", topic)
    if isinstance(reply, ErrorReply):
        if "no such key" in reply.text:
            return b"0-0"
        raise refusal_of(reply, connection.address, topic)
    found: bytes = as_map(reply).get(b"last-generated-id", b"0-0")
    return found
