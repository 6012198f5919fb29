"""Which schema a body has: the bytes that Confluent's clients write, and what is none."""

from __future__ import annotations

from uuid import UUID

import pytest

from qtools.schemas.wire_format import (
    SchemaReference,
    framed,
    header_value,
    read_indexes,
    reference_in_body,
    reference_in_header,
    write_indexes,
)

# Written by confluent-kafka 2.16's serializers.
GUID = b"\x01\x11\x11ns\x1c\x03]\xe6\x910_\x99%\xae\x8a\xb4"


def test_references() -> None:
    assert reference_in_body(b"\x00\x00\x00\x00\x01") == SchemaReference(1)
    assert reference_in_body(b"\x00\xff\xff\xff\xff") == SchemaReference(2**32 - 1)
    guid = str(UUID(bytes=GUID[1:]))
    assert reference_in_header(GUID) == (SchemaReference(0, guid), b"")
    assert reference_in_header(GUID + b"\x06\x02") == (SchemaReference(0, guid), b"\x06\x02")
    assert reference_in_header(b"\x00\x00\x00\x00\x07\x00") == (SchemaReference(7), b"\x00")
    assert str(SchemaReference(7)) == "schema 7"
    assert str(SchemaReference(0, guid)) == f"schema {guid}"
    assert framed(7, b"\x00") == b"\x00\x00\x00\x00\x07\x00"


@pytest.mark.parametrize("prefix", [b"", b"\x00", b"\x00\x00\x00\x01", b"\x01\x00\x00\x00\x01", b'{"a":'])
def test_what_is_no_reference(prefix: bytes) -> None:
    assert reference_in_body(prefix) is None
    assert reference_in_header(prefix) is None


def test_the_last_header_of_a_name_counts() -> None:
    assert header_value([("a", b"1"), ("b", b"2"), ("a", b"3")], "a") == b"3"
    assert header_value([("a", None)], "a") is None
    assert header_value((), "a") is None


@pytest.mark.parametrize(
    ("data", "indexes"),
    [(b"\x00", (0,)), (b"\x02\x02", (1,)), (b"\x06\x02\x00\x00", (1, 0, 0)), (b"\x02\x80\x01", (64,))],
)
def test_message_indexes(data: bytes, indexes: tuple[int, ...]) -> None:
    assert read_indexes(b".." + data + b"x", 2) == (indexes, 2 + len(data))
    assert write_indexes(indexes) == data
    for end in range(len(data)):
        with pytest.raises(ValueError, match="it ends within the message indexes"):
            read_indexes(data[:end], 0)
