"""How the bodies of requests and responses are delimited. In: heads. Out: refusals; heads without the request for an
upgrade; responses without chunks.

Never here: bytes of a request's body. httptools parses those.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtools.web.fast_path import INVALID_REQUEST, closing_answer
from qtools.web.request_body import Headers

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

UNSUPPORTED_CODING = closing_answer(501, "UNSUPPORTED_TRANSFER_ENCODING")


def framing_refusal(headers: Headers, version: str, *, is_handshake: bool) -> bytes | None:
    """The response to a head whose body cannot be read, or could be read in two ways (RFC 9112, 6.1 and 6.3); None for
    a good one. version: "1.1" or "1.0"."""
    names = [name for name, _ in headers]
    if b"transfer-encoding" in names:
        if has_other_coding(headers):
            return UNSUPPORTED_CODING
        if b"content-length" in names or version == "1.0":
            return INVALID_REQUEST
    elif b"content-length" not in names:
        return None
    if is_handshake:  # the handshake of a WebSocket has no body
        lengths = {value for name, value in headers if name == b"content-length"}
        return None if lengths == {b"0"} else INVALID_REQUEST
    return None


def has_other_coding(headers: Headers | None) -> bool:
    """Whether the head names a transfer coding other than chunked, the only one that is supported (RFC 9112, 6.1)."""
    codings = [value.strip().lower() for name, value in headers or () if name == b"transfer-encoding"]
    return codings not in ([], [b"chunked"])


def head_without_upgrade(method: bytes, url: bytes, version: str, headers: Headers) -> bytes:
    """The same head, without its request for another protocol."""
    kept = [(name, value) for name, value in headers if name not in (b"upgrade", b"connection")]
    if any(name == b"connection" and b"close" in value.lower() for name, value in headers):
        kept.append((b"connection", b"close"))
    lines = b"".join(b"%b: %b\r\n" % header for header in kept)
    return b"%b %b HTTP/%b\r\n%b\r\n" % (method, url, version.encode(), lines)


async def answer_without_chunks(cycle: RequestResponseCycle, app: Any, scope: Any, receive: Any, send: Any) -> None:
    """Run `app` for a client of HTTP/1.0, which does not know chunks (RFC 9112, 6.1): a response of unknown length ends
    with its connection."""
    is_endless = False

    async def send_plain(message: Any) -> None:
        nonlocal is_endless
        if message["type"] == "http.response.start":
            is_endless = all(name.lower() != b"content-length" for name, _ in message["headers"])
            if is_endless:
                cycle.chunked_encoding = False
        elif is_endless:
            cycle.expected_content_length = len(message.get("body", b""))  # uvicorn compares it with what is written
        await send(message)

    await app(scope, receive, send_plain)
