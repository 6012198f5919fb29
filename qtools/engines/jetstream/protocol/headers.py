r"""Headers of messages, and status lines. In: a header block. Out: (name, value) pairs, or a status; and back.

    NATS/1.0[ status[ description]]\r\n
    Name: value\r\n
    \r\n

A status is what the server says of a request in place of a message: 100 (heartbeat), 404 (no messages), 408 (the
request is over), 409 (the consumer cannot serve it), 503 (no server reads the subject).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from qtools.errors import ProtocolError

VERSION = b"NATS/1.0"


class Status(NamedTuple):
    """A status line and the headers below it. code: 0 for a message that is none."""

    code: int
    text: str = ""
    headers: tuple[tuple[str, bytes], ...] = ()

    @property
    def pending(self) -> int | None:
        """How many messages of a request will not be delivered any more; None if the server does not tell."""
        for name, value in self.headers:
            if name == "Nats-Pending-Messages" and value.isdigit() and len(value) < 19:
                return int(value)
        return None


def status_of(block: bytes) -> Status:
    """The status in a header block; one with code 0 if it has none. ProtocolError."""
    line, _, _ = block.partition(b"\r\n")
    if not line.startswith(VERSION):
        raise ProtocolError(f"headers do not begin with {VERSION.decode()}: {line[:40]!r}")
    words = line[len(VERSION) :].strip()
    if not words:
        return Status(0)
    code, _, text = words.partition(b" ")
    if len(code) != 3 or not code.isdigit():
        raise ProtocolError(f"headers have no status: {line[:40]!r}")
    return Status(int(code), text.decode("utf-8", "replace"), tuple(parse_headers(block)))


def parse_headers(block: bytes) -> list[tuple[str, bytes]]:
    """The headers in a block, in order; bytes that are not UTF-8 in a name become surrogates. A line without a colon is
    left out: the server stores what publishers send."""
    found = []
    for line in block.split(b"\r\n")[1:]:
        name, colon, value = line.partition(b":")
        if colon and name:
            found.append((name.decode("utf-8", "surrogateescape"), value.strip(b" \t")))
    return found


def encode_headers(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A header block. Names and values have no line ends, names no colon."""
    return b"".join([VERSION, b"\r\n", *(b"%b: %b\r\n" % pair for pair in headers), b"\r\n"])
