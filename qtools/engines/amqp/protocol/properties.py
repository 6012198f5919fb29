"""The properties of a message, in its content header (AMQP 0-9-1, 4.2.6.1). In: bytes. Out: Properties, and back.

    ├ flags 2 ┼ those properties whose flags are set, in the order of the fields below ┤

A reader keeps the bytes of each message, and parses them when a property is asked for.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from qtools.engines.amqp.protocol.values import Table, read_short, read_table, short, table
from qtools.errors import ProtocolError

PERSISTENT = 2  # a delivery mode: queues that are durable keep the message on disk

_FLAGS = struct.Struct(">H")
_LONG = struct.Struct(">Q")
_KINDS = "SSTOOSSSSLSSSS"  # of the fields: Short string, Table, Octet, Long


class Properties(NamedTuple):
    """What a message has besides its body. None: it is not there. timestamp: s since 1970."""

    content_type: bytes | None = None
    content_encoding: bytes | None = None
    headers: Table | None = None
    delivery_mode: int | None = None
    priority: int | None = None
    correlation_id: bytes | None = None
    reply_to: bytes | None = None
    expiration: bytes | None = None  # ms, in digits
    message_id: bytes | None = None
    timestamp: int | None = None
    type: bytes | None = None
    user_id: bytes | None = None
    app_id: bytes | None = None
    cluster_id: bytes | None = None

    def encode(self) -> bytes:
        """The flags and the values. ValueError if one of them is too long."""
        flags = 0
        values = []
        for place, (kind, value) in enumerate(zip(_KINDS, self, strict=True)):
            if value is None:
                continue
            flags |= 0x8000 >> place
            if kind == "S":
                values.append(short(value))  # type: ignore[arg-type]
            elif kind == "T":
                values.append(table(value))  # type: ignore[arg-type]
            elif kind == "O":
                values.append(bytes((value,)))  # type: ignore[arg-type]
            else:
                values.append(_LONG.pack(value))
        return _FLAGS.pack(flags) + b"".join(values)


def decode_properties(data: bytes) -> Properties:
    """What `encode` made. ProtocolError if it is malformed."""
    found: dict[str, object] = {}
    try:
        flags, at = int(_FLAGS.unpack_from(data, 0)[0]), 2
        if flags & 3:
            raise ProtocolError("a content header has flags of properties that AMQP 0-9-1 does not have")
        for place, (name, kind) in enumerate(zip(Properties._fields, _KINDS, strict=True)):
            if not flags & 0x8000 >> place:
                continue
            if kind == "S":
                found[name], at = read_short(data, at)
            elif kind == "T":
                found[name], at = read_table(data, at)
            elif kind == "O":
                found[name], at = data[at], at + 1
            else:
                found[name], at = _LONG.unpack_from(data, at)[0], at + 8
    except (struct.error, IndexError) as error:
        raise ProtocolError("a content header ends before its last property") from error
    if at != len(data):
        raise ProtocolError("a content header goes on behind its last property")
    return Properties(**found)  # type: ignore[arg-type]
