"""Names of headers, written in the case that a client's scripts look for. In: a name. Out: the same, for an ASGI send.

Names match in any case (RFC 9110, 5.1), yet scripts that look for `Content-Length:` in an answer are many. uvicorn
writes all names in lower case, by way of `lower()`, and compares some of them afterwards.
"""

from __future__ import annotations


class HeaderName(bytes):
    """A name that stays as it is written."""

    def lower(self) -> HeaderName:
        return self


class _ContentLength(HeaderName):
    """The one name that uvicorn has to find among those of an answer, or it sends the body in chunks."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, bytes) and bytes.lower(self) == bytes.lower(other)

    def __hash__(self) -> int:
        return hash(bytes.lower(self))


CONTENT_LENGTH: bytes = _ContentLength(b"Content-Length")
CONTENT_TYPE: bytes = HeaderName(b"Content-Type")
DATE: bytes = HeaderName(b"Date")
ALLOW: bytes = HeaderName(b"Allow")
