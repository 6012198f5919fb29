"""Names of response headers with the usual capitals. In: a name. Out: the same name, for an ASGI `send`.

Names match in any case (RFC 9110, 5.1), but many scripts look for `Content-Length:` in a response. uvicorn writes all
names in lower case, by calling `lower()`, and then compares some of them.
"""

from __future__ import annotations


class HeaderName(bytes):
    """A name that `lower` does not change."""

    def lower(self) -> HeaderName:
        return self


class _ContentLength(HeaderName):
    """The name that uvicorn has to recognize in a response; otherwise it sends the body in chunks."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, bytes) and bytes.lower(self) == bytes.lower(other)

    def __hash__(self) -> int:
        return hash(bytes.lower(self))


CONTENT_LENGTH: bytes = _ContentLength(b"Content-Length")
CONTENT_TYPE: bytes = HeaderName(b"Content-Type")
DATE: bytes = HeaderName(b"Date")
ALLOW: bytes = HeaderName(b"Allow")
