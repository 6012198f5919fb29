"""Keys, headers and timestamps of messages as headers of NATS, and back. In: Attributes. Out: header blocks.

A header stands as it is. What NATS has no place for stands in headers of this project:

    Qtools-Key: the key            Qtools-Timestamp: ns since 1970, of a message that is published again
    Qtools-Tombstone: true         the message has no body, which is not an empty one

A value with bytes that cannot stand in a header (line ends, spaces round it), is written as `=?binary?B?<base64>?=`, a
header without a value as `=?null?B??=`, after the manner of RFC 2047. Headers that begin with Nats- are commands to the
server: they are read, and not published again.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Sequence

from qtools.attributes import TOMBSTONE, Headers
from qtools.engines.jetstream.protocol.headers import encode_headers, parse_headers
from qtools.errors import MessageRefused

KEY, TIMESTAMP, TOMBSTONE_MARK, MESSAGE_ID = b"Qtools-Key", b"Qtools-Timestamp", b"Qtools-Tombstone", b"Nats-Msg-Id"
OWN = frozenset({"Qtools-Key", "Qtools-Timestamp", "Qtools-Tombstone"})
LATEST = 2**63 - 1  # ns since 1970, in the year 2262
COMMANDS = "nats-"  # how names of headers begin that the server obeys, in lower case

_PLAIN = re.compile(rb"(?:[^\r\n\0\s](?:[^\r\n\0]*[^\r\n\0\s])?)?", re.DOTALL)
_NAME = re.compile(r"[!-9;-~]+")  # printable ASCII but the colon
_ENCODED = re.compile(rb"=\?(binary|null)\?B\?([A-Za-z0-9+/=]*)\?=")


def encode_value(value: bytes | None) -> bytes:
    """The value of a header as NATS can carry it."""
    if value is None:
        return b"=?null?B??="
    if _PLAIN.fullmatch(value) and not _ENCODED.fullmatch(value):
        return value
    return b"=?binary?B?%b?=" % binascii.b2a_base64(value, newline=False)


def decode_value(value: bytes) -> bytes | None:
    """What `encode_value` was given; a value of another program as it is."""
    if value[:2] != b"=?" or (found := _ENCODED.fullmatch(value)) is None:
        return value
    if found[1] == b"null":
        return value if found[2] else None
    try:
        return binascii.a2b_base64(found[2], strict_mode=True)
    except binascii.Error:
        return value


def header_block(
    key: bytes | None, headers: Headers, timestamp: int, *, is_tombstone: bool = False, message_id: bytes | None = None
) -> bytes:
    """The header block of a message; b"" if it needs none. timestamp: ns since 1970, 0 for none. message_id: for the
    server's own search for duplicates. MessageRefused if a header cannot be carried."""
    lines: list[tuple[bytes, bytes]] = []
    if message_id is not None:
        lines.append((MESSAGE_ID, encode_value(message_id)))
    if key is not None:
        lines.append((KEY, encode_value(key)))
    if timestamp > 0:
        lines.append((TIMESTAMP, b"%d" % timestamp))
    if is_tombstone:
        lines.append((TOMBSTONE_MARK, b"true"))
    for name, value in headers:
        if not _NAME.fullmatch(name):
            raise MessageRefused(f"NATS cannot carry a header with the name {name[:100]!r}", is_too_large=False)
        if name in OWN or name.lower().startswith(COMMANDS):
            continue
        lines.append((name.encode(), encode_value(value)))
    return encode_headers(lines) if lines else b""


class HeaderFields:
    """What the header block of one message says. timestamp: ns since 1970, 0 for none."""

    __slots__ = ("headers", "is_tombstone", "key", "timestamp")

    def __init__(self, block: bytes) -> None:
        self.key: bytes | None = None
        self.timestamp = 0
        self.is_tombstone = False
        self.headers: Sequence[tuple[str, bytes | None]] = ()
        if not block:
            return
        found: list[tuple[str, bytes | None]] = []
        for name, value in parse_headers(block):
            if name == "Qtools-Key":
                self.key = decode_value(value)
            elif name == "Qtools-Timestamp":
                self.timestamp = min(int(value), LATEST) if value.isdigit() and len(value) < 20 else 0
            elif name == "Qtools-Tombstone":
                self.is_tombstone = value == b"true"
            else:
                found.append((name, decode_value(value)))
        self.headers = found


def with_tombstones(bodies: list[bytes], blocks: Sequence[bytes]) -> list[bytes]:
    """`bodies`, with TOMBSTONE for each message whose header block says that it has no body."""
    if not any(b"Qtools-Tombstone" in block for block in blocks):
        return bodies
    return [
        TOMBSTONE if not body and HeaderFields(block).is_tombstone else body
        for body, block in zip(bodies, blocks, strict=True)
    ]
