"""Protobuf: golden bytes, the table of types both ways, message indexes, and bodies that are none."""

from __future__ import annotations

import math
import struct
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from hypothesis import given, settings
from hypothesis import strategies as st

from qtools.attributes import DecodedBody, UndecodableBody
from qtools.errors import StartError, UsageError
from qtools.schemas.codecs import read_codec
from qtools.schemas.contract import SchemaInvalid, SchemaText, ValueMisfit
from qtools.schemas.proto_file import parse_proto
from qtools.schemas.protobuf import ProtobufCodec

# The words that begin statements are names of fields, too.
ORDER = """
syntax = "proto3";  // a comment
package shop.v1;
import "google/protobuf/timestamp.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/wrappers.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/any.proto";
import "confluent/meta.proto";
option java_package = "a;b{";
option (confluent.file) = { doc: "}" };
message Order /* { */ {
  reserved 50, 60 to 69; reserved "old";
  option (confluent.message) = { doc: "an order" params: [ { key: "a" } ] };
  int64 id = 1 [(confluent.field).doc = "the id", deprecated = true];
  uint64 big = 2;
  sint32 small = 3;
  double price = 4;
  float weight = 5;
  bool paid = 6;
  string text = 7;
  bytes data = 8;
  Kind kind = 9;
  optional string note = 10;
  repeated int32 numbers = 11;
  repeated Line lines = 12;
  map<string, int32> counts = 13;
  map<bool, bytes> by_flag = 14;
  oneof choice { string a = 15; Line b = 16; }
  google.protobuf.Timestamp at = 17;
  google.protobuf.Duration took = 18;
  google.protobuf.Int64Value maybe = 19;
  google.protobuf.Struct more = 20;
  google.protobuf.Any any = 21;
  .shop.v1.Order.Line other_line = 22;
  string message = 23; string option = 0x18; string package = 25; string map = 26; string reserved = 27;
  message Line { bytes sku = 1; Order order = 2; }
  enum Kind { option allow_alias = true; NONE = 0; GIFT = 1; PRESENT = 1; LOST = -1; reserved 7 to max; }
}
message Second { message Inner { message Innermost { int32 n = 1; } } }
service Shop { rpc Get(Order) returns (Second) { option idempotency_level = NO_SIDE_EFFECTS; } }
"""
EMPTY = {
    "id": 0, "big": 0, "small": 0, "price": 0.0, "weight": 0.0, "paid": False, "text": "", "data": "", "kind": "NONE",
    "numbers": [], "lines": [], "counts": {}, "by_flag": {},
    "message": "", "option": "", "package": "", "map": "", "reserved": "",
}  # fmt: skip


def codec(text: str = ORDER, references: tuple[tuple[str, str], ...] = (), type_name: str = "") -> ProtobufCodec:
    return ProtobufCodec(SchemaText("PROTOBUF", text, "schema 7", references), type_name)


CODEC = codec()


def decoded(body: bytes, made: ProtobufCodec = CODEC) -> Any:
    (found,) = made.decode_all([body], 0, b"")
    assert found == body
    assert isinstance(found, DecodedBody), found.reason  # type: ignore[attr-defined]
    return found.value


def why_not(body: bytes, indexes: bytes | None = b"") -> str:
    (found,) = CODEC.decode_all([body], 0, indexes)
    assert found == body
    assert isinstance(found, UndecodableBody)
    return found.reason


# The bytes are written by hand, from Protobuf's specification of its encoding.
@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"", {}),
        (b"\x08\x96\x01", {"id": 150}),
        (b"\x08" + b"\xff" * 9 + b"\x01", {"id": -1}),
        (b"\x10" + b"\xff" * 9 + b"\x01", {"big": 2**64 - 1}),
        (b"\x18\x03", {"small": -2}),
        (b"\x21" + struct.pack("<d", 0.1), {"price": 0.1}),
        (b"\x2d" + struct.pack("<f", 1.5), {"weight": 1.5}),
        (b"\x30\x01", {"paid": True}),
        (b"\x3a\x03\xe2\x82\xac", {"text": "€"}),
        (b"\x42\x02\x00\xff", {"data": "AP8="}),
        (b"\x48\x01", {"kind": "GIFT"}),
        (b"\x48" + b"\xff" * 9 + b"\x01", {"kind": "LOST"}),
        (b"\x48\x05", {"kind": 5}),
        (b"\x52\x00", {"note": ""}),
        (b"\x5a\x02\x01\x02", {"numbers": [1, 2]}),
        (b"\x62\x03\x0a\x01a\x62\x00", {"lines": [{"sku": "YQ=="}, {"sku": ""}]}),
        (b"\x6a\x05\x0a\x01a\x10\x07", {"counts": {"a": 7}}),
        (b"\x72\x05\x08\x01\x12\x01a", {"by_flag": {"true": "YQ=="}}),
        (b"\x7a\x00", {"a": ""}),
        (b"\x82\x01\x00", {"b": {"sku": ""}}),
        (b"\x8a\x01\x00", {"at": "1970-01-01T00:00:00Z"}),
        (b"\x8a\x01\x08\x08\x01\x10\x80\xca\xb5\xee\x01", {"at": "1970-01-01T00:00:01.500Z"}),
        (b"\x92\x01\x02\x08\x03", {"took": "3s"}),
        (b"\x9a\x01\x02\x08\x07", {"maybe": 7}),
        (b"\xa2\x01\x0a\x0a\x08\x0a\x01n\x12\x03\x1a\x01x", {"more": {"n": "x"}}),
        (b"\xb2\x01\x00", {"other_line": {"sku": ""}}),
        (b"\xfa\x3f\x01x", {}),  # a field that the schema does not know
    ],
)
def test_a_type_is_plain_json_and_back(body: bytes, value: dict[str, Any]) -> None:
    found = decoded(body)
    assert found == {**EMPTY, **value}
    again = CODEC.encode(value)
    assert decoded(again) == found
    if body[:2] != b"\xfa\x3f":
        assert again == body


def test_an_any_is_not_looked_into() -> None:
    assert decoded(b"\xaa\x01\x07\x0a\x02t/\x12\x01x")["any"] == {"@type": "t/", "value": "eA=="}


def test_numbers_that_json_does_not_have() -> None:
    assert math.isnan(decoded(b"\x21" + struct.pack("<d", math.nan))["price"])
    assert decoded(b"\x21" + struct.pack("<d", math.inf))["price"] == math.inf


@pytest.mark.parametrize(
    ("indexes", "name"),
    [
        (b"\x00", "shop.v1.Order"),
        (b"\x02\x00", "shop.v1.Order"),
        (b"\x02\x02", "shop.v1.Second"),
        (b"\x04\x02\x00", "shop.v1.Second.Inner"),
        (b"\x06\x02\x00\x00", "shop.v1.Second.Inner.Innermost"),
    ],
)
def test_message_indexes_name_the_type(indexes: bytes, name: str) -> None:
    made = codec(type_name=name)
    assert made.head == (b"\x00" if indexes == b"\x02\x00" else indexes)
    for bodies in (CODEC.decode_all([b"....." + indexes], 5, None), CODEC.decode_all([b""], 0, indexes)):
        (found,) = bodies
        assert isinstance(found, DecodedBody)
        assert found.value == decoded(b"", made)


@pytest.mark.parametrize(
    ("body", "indexes", "why"),
    [
        (b"\x08", b"", "schema 7 (shop.v1.Order): it ends too early, is nested too deeply, or is something else"),
        (b"\x3a\x02\xff\xfe", b"", "it ends too early, is nested too deeply, or is something else"),
        (b"\x62\xff\xff\xff\xff\x07", b"", "it ends too early"),
        (b"", None, "schema 7: it ends within the message indexes"),
        (b"\x02\x09", None, "the message indexes [-5] name no type of it"),
        (b"\x02\x0a", None, "the message indexes [5] name no type of it"),
        (b"\xfe\xff\xff\xff\x0f", None, "2147483647 message indexes"),
        (b"\xff" * 20, None, "a message index is too large"),
        (b"", b"\x00x", "it has more than message indexes before its value"),
        (b"\x8a\x01\x0a\x08" + b"\xff" * 8 + b"\x7f", b"", "a time outside the years 1 to 9999"),
    ],
)
def test_a_body_that_is_no_value_is_named_as_that(body: bytes, indexes: bytes | None, why: str) -> None:
    assert why in why_not(body, indexes)


def test_deep_nesting_does_not_end_the_process() -> None:
    body = b""
    for _ in range(60_000 // 8):  # Order → Line → Order …
        line = b"\x12" + _varint(len(body)) + body
        body = b"\x62" + _varint(len(line)) + line
    assert "nested too deeply" in why_not(body)


def test_many_empty_messages_do_not_fill_the_memory() -> None:
    wide = "".join(f"int32 f{nth} = {nth + 2};" for nth in range(1000))
    made = codec(f'syntax = "proto3"; message M {{ repeated M more = 1; {wide} }}')
    (few, many) = made.decode_all([b"\x0a\x00" * 9, b"\x0a\x00" * 500_000], 0, b"")
    assert isinstance(few, DecodedBody)
    assert isinstance(many, UndecodableBody)
    assert "more than 10,000 values, and 10 for each of its bytes" in many.reason


def _varint(number: int) -> bytes:
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*made, number])


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_garbage_is_a_value_or_a_reason(body: bytes) -> None:
    for indexes in (b"", None):
        (made,) = CODEC.decode_all([body], 0, indexes)
        assert isinstance(made, (DecodedBody, UndecodableBody))


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"nix": 1}, 'no field named "nix"'),
        ({"id": "x"}, "Failed to parse id field"),
        ({"id": 2**63}, "Value out of range"),
        ({"kind": "NO"}, "Invalid enum value NO"),
        ({"at": "yesterday"}, "Failed to parse at field"),
        ({"data": "?"}, r"field shop.v1.Order.data: '\?' is not bytes in base64"),
        ({"lines": [{"sku": "YQ"}, {"sku": "a b?"}]}, "field shop.v1.Order.Line.sku: 'a b\\?' is not bytes in base64"),
        ({"byFlag": {"true": "Y?AA"}}, "is not bytes in base64"),
        ([1], "Failed to parse"),
        (None, "."),
    ],
)
def test_a_value_that_does_not_fit_is_named(value: Any, why: str) -> None:
    with pytest.raises(ValueMisfit, match=why):
        CODEC.encode(value)


# ── schemas ──


def test_schemas_that_refer_to_others() -> None:
    kinds = ("kinds.proto", 'syntax = "proto3"; package k; enum Kind { A = 0; B = 1; }')
    line = ("line.proto", 'syntax = "proto3"; import "kinds.proto"; message Line { k.Kind kind = 1; }')
    made = codec('syntax = "proto3"; import public "line.proto"; message M { Line line = 1; }', (kinds, line))
    assert decoded(b"\x0a\x02\x08\x01", made) == {"line": {"kind": "B"}}


def test_proto2_has_defaults_and_presence() -> None:
    made = codec("message P { required int32 a = 1; optional int32 b = 2 [default = -5]; extensions 100 to max; }")
    assert decoded(b"\x08\x01", made) == {"a": 1}
    with pytest.raises(ValueMisfit, match="missing required fields"):
        made.encode({"b": 1})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("message A { int32 a = 1; } }", r"line 1: '}' stands where a name is expected"),
        ("\n\nmessage A { int32 a 1; }", "line 3: '1' stands where '=' is expected"),
        ("message A {", "line 1: the end stands where a name is expected"),
        ("message A { int32 a = 1", "the end stands where ';' is expected"),
        ("message A { int32 a = 0; }", "the field 'a' has the number 0"),
        ("message A { int32 a = 1; int32 b = 1; }", "protobuf refuses it: .*duplicate field number"),
        ("message A { B b = 1; }", "protobuf refuses it: .*couldn't resolve name 'B'"),
        ("message A { optional group G = 1 { } }", "it has a group, which is not supported"),
        ("enum E { A = 99999999999; }", "too large for an enum"),
        ('syntax = "proto4";', "its syntax is 'proto4', neither proto2 nor proto3"),
        ('edition = "2023";', "line 1: 'edition' stands where syntax, package"),
        ('import "other.proto"; message A { }', "it imports 'other.proto', which is no reference of it"),
        ('syntax = "proto3;', "is not expected in a .proto file"),
        ("option a = {", "the end stands where ';' is expected"),
        ('syntax = "proto3"; ', "it has no message type"),
        ("message M {" * 40, "nested more than 30 levels deep"),
        ("nothing", "neither a .proto file nor a descriptor in base64"),
        ("", "neither a .proto file nor a descriptor in base64|no message type"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused(text: str, why: str) -> None:
    with pytest.raises(SchemaInvalid, match=why):
        codec(text)


WORDS = [
    "message", "M", "{", "}", ";", "=", "1", "int32", "map", "<", ",", ">", "[", "]", '"s"', "option", "oneof", "enum",
    "(", ")", "-", "optional", "reserved",
]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=25))
def test_any_words_are_a_schema_or_invalid(words: list[str]) -> None:
    try:
        codec(" ".join(words) + ";")
    except SchemaInvalid:
        return


def test_a_descriptor_in_base64_is_taken_as_registries_hand_it_out() -> None:
    file = parse_proto('syntax = "proto3"; message M { string s = 1; }', "m.proto")
    assert decoded(b"\x0a\x01x", codec(b64encode(file.SerializeToString()).decode())) == {"s": "x"}


def test_files(tmp_path: Path) -> None:
    text = 'syntax = "proto3"; import "k.proto"; message A { k.K k = 1; } message B { string s = 1; }'
    whole = tmp_path / "set.pb"
    files = [parse_proto('syntax = "proto3"; package k; enum K { X = 0; }', "k.proto"), parse_proto(text, "ab.proto")]
    whole.write_bytes(FileDescriptorSet(file=files).SerializeToString())
    made = read_codec(str(whole), "PROTOBUF", "B")
    assert [body.value for body in made.decode_all([b"\x0a\x01x"], 0, b"")] == [{"s": "x"}]  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="has several types: name one with --schema-type: A, B"):
        read_codec(str(whole), "PROTOBUF")
    with pytest.raises(StartError, match="it has no message type 'C'; it has A, B"):
        read_codec(str(whole), "PROTOBUF", "C")
    proto = tmp_path / "order.proto"
    proto.write_text(ORDER)
    assert read_codec(str(proto), "PROTOBUF", "Order").decode_all([b""], 0, b"")
    bad = tmp_path / "bad.pb"
    bad.write_bytes(b"\n\xff\0\0")
    with pytest.raises(StartError, match=r"neither a \.proto file nor a descriptor set"):
        read_codec(str(bad), "PROTOBUF")
