"""Sends the parts of one response, and raises an error for a part that cannot be handed to the client's transport.

uvicorn's `send` returns silently when the client has disconnected, and raises only in some states of a WebSocket. An
application that acknowledges messages has to know which of its bytes were written, so it sends through a Sender.

In: ASGI messages. Out: bytes in the client's TrackedTransport, or ClientGone. Never here: the last part of an HTTP
response, after which the connection may be closed in order.
"""

from __future__ import annotations

from typing import Any

from qtools.web.request_body import Send
from qtools.web.tracked_transport import TrackedTransport


class ClientGone(OSError):
    """The connection has ended. Not all of the ASGI message was handed to its transport."""


class Sender:
    """Sends to one client. tracked: None where an application runs without a server, as in tests; every message then
    counts as written."""

    def __init__(self, send: Send, tracked: TrackedTransport | None) -> None:
        self._send = send
        self._tracked = tracked

    async def send(self, message: dict[str, Any]) -> None:
        """Send `message` when the transport can take more. Raises ClientGone unless all of it was handed over.

        uvicorn writes to the transport before its `send` returns. If the transport is still open then, and at least the
        bytes of the message were written to it, it has them. If it is closing, it may have dropped them.
        """
        tracked = self._tracked
        if tracked is None:
            await self._send(message)
            return
        if tracked.is_closing():
            raise ClientGone
        before = tracked.written
        try:
            await self._send(message)
        except OSError as error:  # uvicorn's ClientDisconnected
            raise ClientGone from error
        except RuntimeError as error:  # uvicorn has sent a close frame meanwhile
            if tracked.is_closing():
                raise ClientGone from error
            raise
        if tracked.is_closing() or tracked.written - before < _size(message):
            raise ClientGone


def _size(message: dict[str, Any]) -> int:
    """How many bytes of payload `message` has, at least."""
    return len(message.get("body") or message.get("bytes") or message.get("text") or b"")
