"""The pieces of one answer, each handed to the client's transport or refused with an error.

uvicorn's `send` returns silently when the client has disconnected, and raises in some states of a WebSocket only. An
application that acknowledges messages must know which of its bytes were written, so it sends them through a Sender.

In: ASGI messages. Out: bytes in the client's TrackedTransport, or ClientGone. Never here: the last piece of an HTTP
answer, after which the connection may close in order.
"""

from __future__ import annotations

from typing import Any

from qtools.web.request_body import Send
from qtools.web.tracked_transport import TrackedTransport


class ClientGone(OSError):
    """The connection is over. Nothing of the ASGI message was handed to its transport."""


class Sender:
    """Sends to one client. `wire` is None where an application runs without a server, as tests do: then every message
    counts as written."""

    def __init__(self, send: Send, tracked: TrackedTransport | None) -> None:
        self._send = send
        self._tracked = tracked

    async def send(self, message: dict[str, Any]) -> None:
        """Send `message` when the transport takes more. Raises ClientGone unless all of it was handed over.

        The transport writes synchronously before `send` returns. A transport that is still open then, and through which
        at least the message's own bytes went, has them; one that is closing may have dropped them.
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
        except RuntimeError as error:  # uvicorn has sent a close frame by itself meanwhile
            if tracked.is_closing():
                raise ClientGone from error
            raise
        if tracked.is_closing() or tracked.written - before < _size(message):
            raise ClientGone


def _size(message: dict[str, Any]) -> int:
    """The bytes of payload in `message`, at least."""
    return len(message.get("body") or message.get("bytes") or message.get("text") or b"")
