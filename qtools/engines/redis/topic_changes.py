"""Creates, empties and deletes streams and their groups. In: settings, names. Out: what was done, or why not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from qtools.engines.redis.connect import connect_at_start
from qtools.engines.redis.connection import RedisConnection
from qtools.engines.redis.looks import PAGE, WRONG_TYPE
from qtools.engines.redis.protocol import commands
from qtools.engines.redis.protocol.replies import ErrorReply, Reply, as_map
from qtools.engines.redis.protocol.stream_ids import FIRST
from qtools.engines.redis.server_errors import error_of
from qtools.engines.redis.settings import RedisSettings
from qtools.errors import TopicMissing

Done = TypeVar("Done")


async def change(settings: RedisSettings, work: Callable[[RedisConnection], Awaitable[Done]]) -> Done:
    """What `work` returns, over a connection of its own. StartError, and what `work` raises."""
    connection = await connect_at_start(settings)
    try:
        return await work(connection)
    finally:
        await connection.drop()


async def create(connection: RedisConnection, topic: str, channel: str) -> bool:
    """Create a stream, and a group that begins with its oldest entry; return whether something was created.
    RedisRefused, NetworkError."""
    created = False
    if not await _is_there(connection, topic):
        made, _ = await connection.request(commands.create_stream(topic), 2).done
        created = _checked(made, connection, topic, "BUSYGROUP")
    if channel:
        (made,) = await connection.request(commands.create_group(topic, channel, FIRST)).done
        created = _checked(made, connection, topic, "BUSYGROUP") or created
    return created


async def empty(connection: RedisConnection, topic: str, channel: str) -> None:
    """Delete all entries of a stream; or let a group go on behind the newest one, with nothing pending. TopicMissing,
    RedisRefused, NetworkError."""
    if not await _is_there(connection, topic):
        raise TopicMissing(f"{connection.address}: topic {topic}: there is no such stream")
    if not channel:
        _checked(await connection.ask("XTRIM", topic, "MAXLEN", 0), connection, topic)
        return
    groups = await connection.ask("XINFO", "GROUPS", topic)
    _checked(groups, connection, topic)
    if not any(as_map(group).get(b"name") == channel.encode() for group in groups):
        raise TopicMissing(f"{connection.address}: topic {topic}: there is no group {channel}")
    _checked(await connection.ask("XGROUP", "SETID", topic, channel, "$"), connection, topic)
    while True:
        (pending,) = await connection.request(commands.pending_of(topic, channel, "-", "+", PAGE)).done
        _checked(pending, connection, topic)
        if not pending:
            return
        request = commands.acknowledge(topic, channel, [found[0] for found in pending])
        (acknowledged,) = await connection.request(request).done
        _checked(acknowledged, connection, topic)


async def delete(connection: RedisConnection, topic: str, channel: str) -> None:
    """Delete a stream, or a group of it; nothing else that a key may be. RedisRefused, NetworkError."""
    if await _is_there(connection, topic):
        words = ("XGROUP", "DESTROY", topic, channel) if channel else ("UNLINK", topic)
        _checked(await connection.ask(*words), connection, topic)


async def _is_there(connection: RedisConnection, topic: str) -> bool:
    """Whether there is such a stream; RedisRefused if the key is something else."""
    kind = await connection.ask("TYPE", topic)
    if kind not in (b"none", b"stream"):
        raise error_of(kind if isinstance(kind, ErrorReply) else WRONG_TYPE, connection.address, topic)
    return bool(kind == b"stream")


def _checked(reply: Reply, connection: RedisConnection, topic: str, known: str = "") -> bool:
    """Whether `reply` is no error; False for an error of the code `known`, RedisRefused for any other."""
    if not isinstance(reply, ErrorReply):
        return True
    if reply.code == known:
        return False
    raise error_of(reply, connection.address, topic)
