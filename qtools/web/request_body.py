"""Reads the bodies of HTTP requests within a limit, and splits them. In: ASGI messages. Out: bytes, or a Refusal.

Never here: more of a body in memory than the limit and one piece, whatever length the client has announced.
"""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = Sequence[tuple[bytes, bytes]]

_size_at = struct.Struct(">i").unpack_from


class Refusal(Exception):
    """A response other than 200. status: HTTP status; word: nsqd's error code; detail: a text for people; headers,
    fields: further headers, and further fields of the JSON body, for programs."""

    def __init__(
        self, status: int, word: str, detail: str = "", headers: Headers = (), fields: dict[str, Any] | None = None
    ) -> None:
        self.status, self.word, self.detail, self.headers, self.fields = status, word, detail, headers, fields or {}
        super().__init__(word)


# Makes the refusal of a body that is too long. It is not made earlier: an exception in a variable of a frame through
# which it is raised is a reference cycle, which would keep the body until the next garbage collection.
TooBig = Callable[[], Refusal]


def announced(scope: Scope) -> int | None:
    """The Content-Length of a request; None without a valid one."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else None
    return None


async def read_body(scope: Scope, receive: Receive, most: int, too_big: TooBig) -> bytes:
    """The whole body, of at most `most` bytes. Raises the refusal of `too_big` for a longer one, and Refusal 400 when
    the client disconnects."""
    if (announced(scope) or 0) > most:
        raise too_big()
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body"):
        if message["type"] == "http.disconnect":
            raise Refusal(400, "INVALID_REQUEST")
        if len(body) > most:
            raise too_big()
        return body
    parts, have = [body], len(body)
    while have <= most and message.get("more_body"):
        message = await receive()
        if message["type"] == "http.disconnect":  # a part of the body must not be taken for the whole
            raise Refusal(400, "INVALID_REQUEST")
        parts.append(message.get("body", b""))
        have += len(parts[-1])
    if have > most:
        raise too_big()
    return b"".join(parts)


def split_binary(body: bytes, max_msg_size: int, max_body_size: int) -> list[bytes]:
    """Split the body of an MPUB without its outer length: `count 4, (length 4, body) × count`. Raises Refusal 413."""
    if len(body) < 4:
        raise Refusal(413, "BAD_BODY")
    (count,) = _size_at(body, 0)
    if not 0 < count <= (max_body_size - 4) // 5:
        raise Refusal(413, "BAD_BODY")
    bodies: list[bytes] = []
    at = 4
    for _ in range(count):
        if len(body) < at + 4:
            raise Refusal(413, "BAD_MESSAGE")
        (size,) = _size_at(body, at)
        stop = at + 4 + size
        if not 0 < size <= max_msg_size or stop > len(body):
            raise Refusal(413, "BAD_MESSAGE")
        bodies.append(body[at + 4 : stop])
        at = stop
    return bodies
