"""Which schema a body has: Confluent's wire format. In: bodies and headers. Out: references to schemas.

    in the body      00 | id, 4 bytes, big-endian | [message indexes, Protobuf only] | the encoded value
    in a header      __value_schema_id, __key_schema_id:
                     01 | GUID, 16 bytes | [message indexes, Protobuf only]            the body is the encoded value
                     00 | id, 4 bytes    | [message indexes, Protobuf only]

message indexes: the path to a message type in its file: their number, then each, as zigzag varints; the one byte 00
stands for the first type of the file. A header counts before the body, as Confluent's clients have it.
"""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from qtools.attributes import Headers

VALUE_HEADER, KEY_HEADER = "__value_schema_id", "__key_schema_id"
PREFIX = 5  # bytes of magic byte and id
_GUID = 17  # bytes of magic byte and GUID
MOST_INDEXES = 100  # message types are not nested deeper


class SchemaReference(NamedTuple):
    """Names a schema in a registry: by its id, or by its GUID if that is not ""."""

    number: int
    guid: str = ""

    def __str__(self) -> str:
        return f"schema {self.guid or self.number}"


def reference_in_body(prefix: bytes) -> SchemaReference | None:
    """The reference in the first PREFIX bytes of a body; None if they are something else."""
    if len(prefix) != PREFIX or prefix[0]:
        return None
    return SchemaReference(int.from_bytes(prefix[1:], "big"))


def reference_in_header(value: bytes) -> tuple[SchemaReference, bytes] | None:
    """The reference in the value of a header, and the message indexes behind it; None if it is something else."""
    if len(value) >= _GUID and value[0] == 1:
        return SchemaReference(0, str(UUID(bytes=value[1:_GUID]))), value[_GUID:]
    reference = reference_in_body(value[:PREFIX])
    return None if reference is None else (reference, value[PREFIX:])


def header_value(headers: Headers, name: str) -> bytes | None:
    """The value of the last header `name`."""
    found = None
    for each, value in headers:
        if each == name:
            found = value
    return found


def not_framed(body: bytes) -> str:
    """Why `body` names no schema."""
    if not body:
        return "it is empty, and names no schema"
    if len(body) < PREFIX:
        return f"it has only {len(body)} byte{'' if len(body) == 1 else 's'}: no magic byte and id of a schema"
    return f"it begins with the byte {body[0]:#04x}, not with the magic byte 0x00 and the id of a schema"


def framed(number: int, head: bytes) -> bytes:
    """What stands before an encoded value."""
    return b"\0" + number.to_bytes(4, "big") + head


# ── message indexes ──


def read_indexes(data: bytes, start: int) -> tuple[tuple[int, ...], int]:
    """The message indexes at `start`, and where they end. ValueError if there are none."""
    count, at = _read_varint(data, start)
    if not 0 <= count <= MOST_INDEXES:
        raise ValueError(f"{count} message indexes")
    if not count:
        return (0,), at
    indexes = []
    for _ in range(count):
        index, at = _read_varint(data, at)
        indexes.append(index)
    return tuple(indexes), at


def write_indexes(indexes: tuple[int, ...]) -> bytes:
    """`indexes` as in the wire format."""
    if indexes == (0,):
        return b"\0"
    return b"".join(map(_varint, (len(indexes), *indexes)))


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while shift < 35:
        if at >= len(data):
            raise ValueError("it ends within the message indexes")
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number >> 1 ^ -(number & 1), at
        shift += 7
    raise ValueError("a message index is too large")


def _varint(number: int) -> bytes:
    number <<= 1  # indexes are not negative
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    made.append(number)
    return bytes(made)
