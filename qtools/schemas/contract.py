"""What a schema is, and what a codec does. Plain data, without I/O.

A codec knows one schema. It decodes bodies to values of JSON and encodes values to bodies; it raises SchemaInvalid when
it is made from a schema that cannot be used, and never while it decodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from qtools.errors import QtoolsError, one_line

# The formats as flags name them → as a registry names them.
FORMATS = {"avro": "AVRO", "protobuf": "PROTOBUF", "json-schema": "JSON"}


class SchemaInvalid(QtoolsError):
    """A schema that cannot be used. The text says what is wrong with it, and does not name it. It may be made of the
    schema's own words, which reach a terminal as one printable line."""

    def __init__(self, reason: str) -> None:
        super().__init__(one_line(reason, 1000))


class ValueMisfit(QtoolsError):
    """A value that cannot be encoded with a schema. The text says why, and does not name the schema. It is kept as one
    printable line, as that of SchemaInvalid."""

    def __init__(self, reason: str) -> None:
        super().__init__(one_line(reason, 1000))


class SchemaText(NamedTuple):
    """A schema as it is written. kind: "AVRO", "PROTOBUF" or "JSON". name: what the user knows it by: "schema 7", or a
    file. references: the schemas that it refers to, by the name under which it does, each before those that refer to
    it."""

    kind: str
    text: str
    name: str
    references: tuple[tuple[str, str], ...] = ()


class SchemaCodec(Protocol):
    """One schema, compiled."""

    def decode_all(self, bodies: Sequence[bytes], start: int, indexes: bytes | None) -> list[bytes]:
        """Each of `bodies` as DecodedBody, or UndecodableBody with the reason. The value begins at byte `start`.

        indexes: which message type of a Protobuf schema the bodies have, as in Confluent's wire format; None if each
        body has them at `start`. Other formats have none.
        """

    def encode(self, value: Any) -> bytes:
        """The encoded value, with a Protobuf schema's message indexes before it only in `head`. Raises ValueMisfit."""

    @property
    def head(self) -> bytes:
        """What Confluent's wire format has between the id and an encoded value."""
