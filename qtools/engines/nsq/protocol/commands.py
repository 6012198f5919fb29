"""Client → server: encodes the commands. In: plain values. Out: bytes.

    NAME[ SP parameter]*\\n            and for those with a body:  ├ length 4 ┼ body … ┤
    MPUB topic\\n                      ├ length 4 ┼ count 4 ┼ (length 4, body …) × count ┤

Nothing is checked here: names are checked where a user gives them (qtools.names), and sizes where messages are batched.
FIN or TOUCH for many messages is one join, which costs 20 ns for each message.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

MAGIC_V2 = b"  V2"

_SIZE = struct.Struct(">i")
_TWO_SIZES = struct.Struct(">ii")

# Most bodies are small, and a look-up in a tuple takes half the time of packing.
_SMALL_SIZES = tuple(_SIZE.pack(n) for n in range(4096))

NOP = b"NOP\n"
CLS = b"CLS\n"


def _with_body(line: bytes, body: bytes) -> bytes:
    return b"%b\n%b%b" % (line, _SIZE.pack(len(body)), body)


def identify(body: bytes) -> bytes:
    """IDENTIFY with its JSON."""
    return _with_body(b"IDENTIFY", body)


def auth(secret: bytes) -> bytes:
    """AUTH with its secret."""
    return _with_body(b"AUTH", secret)


def sub(topic: str, channel: str) -> bytes:
    """SUB: receive `channel` of `topic` on this connection."""
    return f"SUB {topic} {channel}\n".encode("ascii")


def rdy(count: int) -> bytes:
    """RDY: at most `count` messages may be in flight."""
    return b"RDY %d\n" % count


def fin(ids: Sequence[bytes]) -> bytes:
    """FIN for each of `ids`, at least one."""
    return b"FIN " + b"\nFIN ".join(ids) + b"\n"


def req(ids: Sequence[bytes], delay_ms: int) -> bytes:
    """REQ for each of `ids`, at least one: deliver again after `delay_ms`."""
    tail = b" %d\n" % delay_ms
    return b"REQ " + (tail + b"REQ ").join(ids) + tail


def touch(ids: Sequence[bytes]) -> bytes:
    """TOUCH for each of `ids`, at least one: reset the time left."""
    return b"TOUCH " + b"\nTOUCH ".join(ids) + b"\n"


def pub(topic: str, body: bytes) -> bytes:
    """PUB: one message."""
    return _with_body(b"PUB " + topic.encode("ascii"), body)


def dpub(topic: str, body: bytes, delay_ms: int) -> bytes:
    """DPUB: one message, not to be delivered before `delay_ms` have passed."""
    return _with_body(b"DPUB %b %d" % (topic.encode("ascii"), delay_ms), body)


def mpub(topic: str, bodies: Sequence[bytes]) -> bytes:
    """MPUB: all of `bodies` or none."""
    small = _SMALL_SIZES
    try:
        parts = [small[len(body)] + body for body in bodies]
    except IndexError:
        pack = _SIZE.pack
        parts = [pack(len(body)) + body for body in bodies]
    joined = b"".join(parts)
    return b"MPUB %b\n%b%b" % (topic.encode("ascii"), _TWO_SIZES.pack(4 + len(joined), len(bodies)), joined)
