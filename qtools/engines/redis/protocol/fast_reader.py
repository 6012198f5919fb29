"""Reads replies with the library hiredis. In: chunks of bytes. Out: the replies that are complete, as ReplyReader.

hiredis takes a list as large as a server announces it. The memory for that is reserved and not used before its items
arrive; where the system refuses to reserve it, the reply is an error of the protocol.
"""

from __future__ import annotations

from typing import Any, Protocol

from qtools.engines.redis.protocol.replies import ErrorReply, Push, Reply
from qtools.engines.redis.protocol.reply_reader import LARGEST_REPLY, ReplyReader
from qtools.errors import ProtocolError

_INCOMPLETE = object()


class Reader(Protocol):
    """Reads replies."""

    def read(self, chunk: bytes) -> list[Reply]:
        """The replies that `chunk` completes, in order; ProtocolError, after which nothing more can be read."""


class HiredisReader:
    """A reader on hiredis, for which ImportError is raised if it is not installed."""

    def __init__(self) -> None:
        import hiredis

        library: Any = hiredis
        self._push: Any = library.PushNotification
        self._errors = (library.HiredisError, MemoryError, TypeError)  # TypeError: the key of a map is a list
        self._reader = library.Reader(replyError=ErrorReply, notEnoughData=_INCOMPLETE)
        self._size = 0

    def read(self, chunk: bytes) -> list[Reply]:
        self._size += len(chunk)
        if self._size > LARGEST_REPLY:
            raise ProtocolError(f"a reply has more than {LARGEST_REPLY:,} bytes")
        replies: list[Reply] = []
        gets = self._reader.gets
        try:
            self._reader.feed(chunk)
            while (reply := gets()) is not _INCOMPLETE:
                replies.append(Push(reply) if type(reply) is self._push else reply)
        except self._errors as error:
            raise ProtocolError(str(error) or "a list is said to be larger than memory") from error
        if replies:
            self._size = self._reader.len()
        return replies


def make_reader() -> Reader:
    """The fastest reader that is installed."""
    try:
        return HiredisReader()
    except ImportError:
        return ReplyReader()
