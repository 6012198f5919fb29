"""Why an HTTP request failed. In: an error of httpx. Out: a text for users, if the network or TLS is the reason."""

from __future__ import annotations

import socket
import ssl


def network_reason(error: BaseException) -> str | None:
    """Why no answer came, by the operating system's error or TLS's, which is two levels below httpx's; None if there is
    none."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            return "the host name is not known"
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed: {getattr(cause, 'verify_message', None) or getattr(cause, 'reason', None) or cause}"
        if isinstance(cause, FileNotFoundError):
            return "there is no such socket"
        if isinstance(cause, ConnectionRefusedError) or str(cause) == "All connection attempts failed":
            return "nothing listens there"
        cause = cause.__cause__ or cause.__context__
    return None
