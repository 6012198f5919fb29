"""What a server says of itself: its limits, whether it keeps what it confirms, which data set it has. In: a connection.
Out: plain data.

Redis confirms a message when it is in memory. What of that outlives the server is its own setting, which no reply to
XADD tells: it is asked once.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

from qtools.engines.redis.connection import RedisConnection
from qtools.engines.redis.protocol import commands
from qtools.engines.redis.protocol.replies import ErrorReply, Reply, as_map

log = logging.getLogger("qtools.redis")

LARGEST_STRING = 512 * 1024 * 1024  # bytes, where a server does not tell (proto-max-bulk-len)


class ServerSettings(NamedTuple):
    """appendonly, appendfsync: as CONFIG GET has them; "" where the user may not ask. largest: bytes of a string."""

    appendonly: str = ""
    appendfsync: str = ""
    largest: int = LARGEST_STRING


async def read_settings(connection: RedisConnection) -> ServerSettings:
    """ConnectionLost."""
    words = [("CONFIG", "GET", name) for name in ("appendonly", "appendfsync", "proto-max-bulk-len")]
    replies = await connection.request(b"".join(commands.encode(*each) for each in words), len(words)).done
    found: dict[bytes, Reply] = {}
    for reply in replies:
        found |= as_map(reply)
    largest = found.get(b"proto-max-bulk-len", b"")
    return ServerSettings(
        found.get(b"appendonly", b"").decode(),
        found.get(b"appendfsync", b"").decode(),
        int(largest) if largest.isdigit() else LARGEST_STRING,
    )


def log_durability(settings: ServerSettings, address: str) -> None:
    """Log what a confirmation of the server at `address` means: a warning if the server's end may undo it."""
    if not settings.appendonly:
        log.warning(
            "it is not known whether %s keeps confirmed messages on disk: this user may not ask it (CONFIG GET)",
            address,
        )
    elif settings.appendonly != "yes":
        log.warning(
            "%s has its messages in memory (appendonly is no): those since its last snapshot are lost when it ends",
            address,
        )
    elif settings.appendfsync == "always":
        log.info("%s writes each message to disk before it confirms it (appendfsync is always)", address)
    elif settings.appendfsync == "everysec":
        log.info(
            "%s writes confirmed messages to disk each second (appendfsync is everysec): the last ones are lost if its"
            " machine fails", address,
        )  # fmt: skip
    else:
        log.warning(
            "%s leaves it to its system when confirmed messages are written to disk (appendfsync is %s): the last ones"
            " are lost if its machine fails", address, settings.appendfsync,
        )  # fmt: skip


async def read_identity(connection: RedisConnection, db: int) -> frozenset[tuple[str, ...]]:
    """Names of the data set: the run, and the history that a master shares with its replicas. ConnectionLost."""
    made = set()
    for section, field in (("server", "run_id"), ("replication", "master_replid")):
        info = await connection.ask("INFO", section)
        if isinstance(info, ErrorReply):
            continue
        for line in info.decode("utf-8", "replace").splitlines():
            name, _, value = line.partition(":")
            if name == field and value:
                made.add(("redis", field, value, str(db)))
    return frozenset(made) or frozenset({("redis", "address", connection.address, str(db))})
