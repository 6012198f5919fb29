r"""Client to server: each command encoded.

CONNECT {json}\r\n   PING\r\n   PONG\r\n
SUB <subject> <sid>\r\n   UNSUB <sid>\r\n
PUB <subject> [reply] <size>\r\n<body>\r\n
HPUB <subject> [reply] <size of headers> <size of both>\r\n<headers><body>\r\n
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

PING = b"PING\r\n"
PONG = b"PONG\r\n"
NAK = b"-NAK"
TOUCH = b"+WPI"
TERMINATE = b"+TERM"


def connect(options: dict[str, Any]) -> bytes:
    return b"CONNECT " + json.dumps(options, separators=(",", ":")).encode() + b"\r\n"


def subscribe(subject: bytes, sid: bytes) -> bytes:
    return b"SUB %b %b\r\n" % (subject, sid)


def unsubscribe(sid: bytes) -> bytes:
    return b"UNSUB %b\r\n" % sid


def publish(subject: bytes, body: bytes, reply: bytes = b"") -> bytes:
    return b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, len(body), body)


def publish_all(subject: bytes, bodies: Sequence[bytes], inbox: bytes, number: int) -> list[bytes]:
    """A publish of each of `bodies`. The server's answer to the first goes to the subject `inbox` + `number`, to the
    second to `inbox` + (`number` + 1), and so on."""
    head = b"PUB %b %b" % (subject, inbox)
    return [b"%b%d %d\r\n%b\r\n" % (head, place, len(body), body) for place, body in enumerate(bodies, number)]


def publish_with_headers(subject: bytes, headers: bytes, body: bytes, reply: bytes = b"") -> bytes:
    """headers: a header block."""
    size = len(headers)
    return b"HPUB %b %b %d %d\r\n%b%b\r\n" % (subject, reply, size, size + len(body), headers, body)


def finish_all(ack_subjects: Sequence[bytes]) -> bytes:
    """Acknowledge messages: an empty publish to the ack subject of each."""
    if not ack_subjects:
        return b""
    return b"PUB " + b" 0\r\n\r\nPUB ".join(ack_subjects) + b" 0\r\n\r\n"


def answer_all(ack_subjects: Sequence[bytes], answer: bytes) -> bytes:
    """Publish `answer` (NAK, TOUCH, TERMINATE, `nak_later`) to each of `ack_subjects`."""
    if not ack_subjects:
        return b""
    end = b" %d\r\n%b\r\n" % (len(answer), answer)
    return b"PUB " + (end + b"PUB ").join(ack_subjects) + end


def nak_later(delay_ms: int) -> bytes:
    """The answer that lets the server deliver a message again after `delay_ms`."""
    return b'%b {"delay":%d}' % (NAK, delay_ms * 1_000_000)
