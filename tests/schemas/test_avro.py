"""Avro: golden bytes, the table of types both ways, and bodies that are none."""

from __future__ import annotations

import contextlib
import json
import math
import struct
import sys
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qtools.attributes import DecodedBody, UndecodableBody
from qtools.schemas.avro import AvroCodec
from qtools.schemas.avro_reader import AvroReader
from qtools.schemas.avro_schema import is_hazardous, parse_avro
from qtools.schemas.contract import SchemaInvalid, SchemaText, ValueMisfit


def codec(schema: Any, references: Iterable[tuple[str, str]] = ()) -> AvroCodec:
    text = schema if isinstance(schema, str) else json.dumps(schema)
    return AvroCodec(SchemaText("AVRO", text, "schema 7", tuple(references)))


def record(*fields: tuple[str, Any], name: str = "x.Event") -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [{"name": name, "type": kind} for name, kind in fields]}


def decoded(schema: Any, body: bytes, start: int = 0) -> Any:
    (made,) = codec(schema).decode_all([body], start, None)
    assert made == body
    assert isinstance(made, DecodedBody), made.reason  # type: ignore[attr-defined]
    return made.value


def why_not(schema: Any, body: bytes) -> str:
    (made,) = codec(schema).decode_all([body], 0, None)
    assert made == body
    assert isinstance(made, UndecodableBody)
    return made.reason


FIXED = {"type": "fixed", "name": "F", "size": 2}
DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}
DURATION = {"type": "fixed", "name": "D", "size": 12, "logicalType": "duration"}
ENUM = {"type": "enum", "name": "E", "symbols": ["A", "B"]}


def logical(kind: str, name: str) -> dict[str, str]:
    return {"type": kind, "logicalType": name}


# The bytes are written by hand, from Avro's specification.
TYPES: list[tuple[Any, bytes, Any]] = [
    ("null", b"", None),
    ("boolean", b"\1", True),
    ("int", b"\x03", -2),
    ("long", b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01", 2**63 - 1),
    ("long", b"\x82\x80\x80\x80\x80\x80\x80\x20", 2**53 + 1),
    ("float", struct.pack("<f", 1.5), 1.5),
    ("double", struct.pack("<d", -0.1), -0.1),
    ("string", b"\x06\xe2\x82\xac", "€"),
    ("bytes", b"\x04\x00\xff", "AP8="),
    (FIXED, b"\x00\xff", "AP8="),
    (ENUM, b"\x02", "B"),
    ({"type": "array", "items": "int"}, b"\x04\x02\x04\x00", [1, 2]),
    ({"type": "map", "values": "bytes"}, b"\x02\x02a\x02b\x00", {"a": "Yg=="}),
    (["null", "string"], b"\x00", None),
    (["null", "string"], b"\x02\x02a", "a"),
    (DECIMAL, b"\x04\xfb\x1e", "-12.50"),
    (DECIMAL, b"\x02\x05", "0.05"),
    ({**DECIMAL, "scale": 0}, b"\x02\x05", "5"),
    ({**FIXED, "logicalType": "decimal", "precision": 4, "scale": 1}, b"\x00\x7b", "12.3"),
    (logical("int", "date"), b"\x02", "1970-01-02"),
    (logical("int", "time-millis"), struct.pack("B", 2), "00:00:00.001"),
    (logical("long", "time-micros"), b"\x02", "00:00:00.000001"),
    (logical("long", "timestamp-millis"), b"\x02", "1970-01-01T00:00:00.001Z"),
    (logical("long", "timestamp-millis"), b"\x01", "1969-12-31T23:59:59.999Z"),
    (logical("long", "timestamp-micros"), b"\x02", "1970-01-01T00:00:00.000001Z"),
    (logical("long", "timestamp-nanos"), b"\x02", "1970-01-01T00:00:00.000000001Z"),
    (logical("long", "local-timestamp-millis"), b"\x02", "1970-01-01T00:00:00.001"),
    (logical("string", "uuid"), b"\x02a", "a"),
    (
        {"type": "fixed", "name": "U", "size": 16, "logicalType": "uuid"},
        bytes(range(16)),
        "00010203-0405-0607-0809-0a0b0c0d0e0f",
    ),
    (
        DURATION,
        b"\1\0\0\0\2\0\0\0\3\0\0\0",
        {"months": 1, "days": 2, "milliseconds": 3},
    ),
    (record(("a", "int"), ("b", {"type": "string"}), name="x.In"), b"\x02\x02z", {"a": 1, "b": "z"}),
]


@pytest.mark.parametrize(("schema", "body", "value"), TYPES)
def test_a_type_is_plain_json_and_back(schema: Any, body: bytes, value: Any) -> None:
    assert decoded(schema, body) == value
    assert codec(schema).encode(value) == body
    # The same from the reader that takes the schemas that could harm fastavro, and within a record.
    assert AvroReader(parse_avro(json.dumps(schema))).read(body, 0) == (value, len(body))
    assert decoded(record(("f", schema), ("end", "int")), b"magic" + body + b"\x02", 5) == {"f": value, "end": 1}


def test_a_type_that_is_used_again_by_its_name() -> None:
    schema = record(("a", {**FIXED, "logicalType": "decimal", "precision": 4, "scale": 1}), ("b", ["null", "F"]))
    assert decoded(schema | {"name": "E"}, b"\x00\x7b\x02\x00\x01") == {"a": "12.3", "b": "0.1"}


@pytest.mark.parametrize(
    ("schema", "body", "value"),
    [
        (logical("long", "timestamp-millis"), b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01", 2**63 - 1),
        (logical("int", "date"), b"\xfe\xff\xff\xff\x0f", 2**31 - 1),
        (logical("int", "time-millis"), b"\x01", -1),
        (logical("long", "decimal"), b"\x02", 1),  # not for this type: no logical type
        ({**DECIMAL, "scale": 10}, b"\x02\x05", "BQ=="),  # above the precision
        ({**DECIMAL, "precision": 10**9}, b"\x02\x05", "BQ=="),
        (logical("string", "something new"), b"\x02a", "a"),
        ({"type": {"type": "string", "avro.java.string": "String"}}, b"\x02a", "a"),
    ],
)
def test_what_has_no_other_form_stays_as_it_is_stored(schema: Any, body: bytes, value: Any) -> None:
    assert decoded(schema, body) == value


def test_numbers_that_json_does_not_have() -> None:
    assert math.isnan(decoded("double", struct.pack("<d", math.nan)))
    assert decoded("float", struct.pack("<f", math.inf)) == math.inf


# ── bodies that are none ──


@pytest.mark.parametrize(
    ("schema", "body", "why"),
    [
        ("string", b"", "it ends too early"),
        ("string", b"\x04a", "it ends too early"),
        ("string", b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01", "Expected 9223372036854775807 bytes"),
        ("bytes", b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01a", "Expected 9223372036854775807 bytes"),
        ({"type": "array", "items": "long"}, b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01\2", "it ends too early"),
        ({"type": "map", "values": "long"}, b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01\2", "it ends too early"),
        ("string", b"\x04\xff\xfe", "a string in it is not UTF-8"),
        (["null", "int"], b"\x08", "no branch of a union"),
        (ENUM, b"\x08", "no symbol of an enum"),
        ("int", b"\x02\x02", "1 byte is left over behind the value"),
        (DECIMAL, b"\xd0\x0f" + b"\1" * 1000, "a decimal of 1001 bytes"),
    ],
)
def test_a_body_that_is_no_value_is_named_as_that(schema: Any, body: bytes, why: str) -> None:
    if why == "a decimal of 1001 bytes":
        body = b"\xd2\x0f" + b"\1" * 1001
    reason = why_not(schema, body)
    assert reason.startswith("it is not Avro of schema 7")
    assert why in reason or (why.startswith("Expected") and "it ends too early" in reason)


def varint(number: int) -> bytes:
    """`number`, not negative, as it stands in a body before zigzag: 1 is -1."""
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*made, number])


def zigzag(number: int) -> bytes:
    return varint(2 * number if number >= 0 else -2 * number - 1)


UNION = ["null", "string", "int"]
WIDE_UNION = [{"type": "fixed", "name": f"F{nth}", "size": 1} for nth in range(56)]
INTS = record(("a", "int"), ("b", {"type": "array", "items": "int"}), ("c", {"type": "map", "values": ["null", "int"]}))


@pytest.mark.parametrize("is_alone", [True, False])
@pytest.mark.parametrize(
    ("schema", "body", "value"),
    [
        *((UNION, zigzag(-index) + b"\x0e", None) for index in (*range(1, 5), 64, 65, *range(199, 208), 255, 256, 257)),
        *((UNION, bytes([byte]) + b"\x83\x80\0\x0e", None) for byte in (0x91, 0x93, 0x95)),
        (UNION, zigzag(3), None),
        (UNION, zigzag(-(2**62)), None),
        (UNION, b"\x02\x04\x91\x03", None),
        (UNION, b"\x02\x06\xe2\x91\x83", "\u2443"),  # a text may have such bytes
        *((WIDE_UNION, zigzag(-index) + b"a", None) for index in range(195, 270)),
        (WIDE_UNION, zigzag(55) + b"a", "YQ=="),
        ([*WIDE_UNION, "int"], zigzag(-1) + b"\2", None),
        ([*WIDE_UNION, "int"], zigzag(56) + b"\2", 1),
        *((ENUM, zigzag(index), None) for index in (-1, -2, -3, 2, 2**40)),
        ("int", zigzag(2**31 - 1), 2**31 - 1),
        ("int", zigzag(-(2**31)), -(2**31)),
        *((schema, zigzag(number), None) for number in (2**31, 2**40, -(2**31) - 1) for schema in (
            "int", logical("int", "date"), logical("int", "time-millis"))),
        *((INTS, body, None) for body in (
            zigzag(2**31) + b"\0\0", b"\0\2" + zigzag(2**31) + b"\0\0", b"\0\0\2\2a\2" + zigzag(-2**40) + b"\0")),
        (INTS, b"\2\4\2\4\0\2\2a\2\6\0", {"a": 1, "b": [1, 2], "c": {"a": 3}}),
        (["int", "long"], b"\0" + zigzag(2**31), None),
        (["int", "long"], b"\2" + zigzag(2**31), 2**31),
        (["long", INTS], b"\2" + zigzag(2**31) + b"\0\0", None),
        (["long", INTS], b"\2\0\0\0", {"a": 0, "b": [], "c": {}}),
        ("long", zigzag(-(2**63)), -(2**63)),
        ("long", varint(2**64), None),
        ("long", varint(2**69), None),
        ("long", b"\x80" * 10 + b"\0", None),
        ("long", b"\x80" * 19 + b"\1", None),
        ("string", b"\x84" + b"\x80" * 11 + b"\0ab", None),
        ("string", b"\x18" + "\u0434".encode() * 6, "\u0434" * 6),
    ],
)  # fmt: skip
def test_a_number_that_is_none_is_never_taken_for_another(schema: Any, body: bytes, value: Any, is_alone: bool) -> None:
    if not is_alone:
        schema, body, value = record(("f", schema), name="x.Holder"), body, None if value is None else {"f": value}
    if value is None:
        assert why_not(schema, body)
        with contextlib.suppress(ValueError, EOFError):
            _, end = AvroReader(parse_avro(json.dumps(schema))).read(body, 0)
            assert end < len(body)
    else:
        assert decoded(schema, body) == value


LINKED = record(("next", ["null", "x.Event"]))
EMPTY_ITEMS = {"type": "array", "items": "null"}


def test_what_would_end_the_process_or_fill_the_memory_is_refused() -> None:
    assert decoded(LINKED, b"\x02\x02\x00") == {"next": {"next": {"next": None}}}
    assert why_not(LINKED, b"\x02" * 1_000_000).endswith("it has more than 200 records within each other")
    assert why_not(LINKED, b"\x02" * 200 + b"\0").endswith("it has more than 200 records within each other")
    assert json.dumps(decoded(LINKED, b"\x02" * 199 + b"\0")).count("next") == 200
    tree = record(("of", {"type": "map", "values": {"type": "array", "items": ["null", "x.Event"]}}))
    assert json.dumps(decoded(tree, b"\2\2a\2\2" * 100 + b"\0" + b"\0\0" * 100)).count("of") == 101
    assert why_not(tree, b"\2\2a\2\2" * 190 + b"\0" + b"\0\0" * 190).endswith("it is nested too deeply")
    assert decoded(EMPTY_ITEMS, b"\x04\x00") == [None, None]
    endless = b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"
    too_many = "it has more than 1,000 values, and 10 for each of its bytes"
    assert too_many in why_not(EMPTY_ITEMS, endless)
    holder = record(("a", {"type": "array", "items": record(("n", "null"), name="x.Empty")}))
    assert too_many in why_not(holder, endless)
    wide = record(("n", "int"), *((f"f{nth}", "null") for nth in range(5000)), name="x.Wide")
    assert is_hazardous(parse_avro(json.dumps(wide)))  # by itself, too: a batch has thousands of messages
    assert too_many in why_not({"type": "array", "items": wide}, b"\x14" + b"\x02" * 10 + b"\0")
    assert (
        len(decoded({"type": "map", "values": {**wide, "fields": wide["fields"][:900]}}, b"\x02\x02a\x02\0")["a"])
        == 900
    )


def doubling(levels: int) -> Any:
    inner: Any = "null"
    for level in range(levels):
        name = f"R{level}"
        inner = record(("a", inner), ("b", "null" if level == 0 else f"R{level - 1}"), name=name)
    return inner


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ("{", "it is not JSON"),
        ("nix", "it is not JSON"),
        ('"nix"', "the type 'nix' is not defined"),
        ("5", "'5' stands where a type is expected"),
        (record(("a", "x.Event")), "contains itself, in every value"),
        (record(("a", record(("b", "x.Event"), name="x.In"))), "contains itself, in every value"),
        (doubling(30), "has more than 100,000 values"),
        (record(("a", FIXED), ("b", FIXED)), "is defined twice"),
        ({"type": "record", "name": "A"}, "has no list of fields"),
        ({"type": "record", "fields": []}, "has no name"),
        ({"type": "fixed", "name": "F", "size": -1}, "has no size"),
        ({"type": "enum", "name": "F"}, "has no list of symbols"),
        ({"type": "enum", "name": "F", "symbols": ["A", "A"]}, "fastavro refuses it"),
        ('{"type":"array","items":' * 1000 + '"int"' + "}" * 1000, "nested too deeply"),
        ('{"type":"array","items":' * 5000 + '"int"' + "}" * 5000, "it is not JSON"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused(schema: Any, why: str) -> None:
    with pytest.raises(SchemaInvalid, match=why):
        codec(schema)


@pytest.mark.parametrize("levels", [*range(50, 1000, 50)])
def test_a_deep_schema_is_used_or_refused(levels: int) -> None:
    try:
        made = codec('{"type":"array","items":' * levels + '"bytes"' + "}" * levels)
    except SchemaInvalid as error:
        assert str(error) == "its types are nested too deeply"  # noqa: PT017 - either is right
        return
    (body,) = made.decode_all([b"\x02" * levels + b"\x02a" + b"\0" * levels], 0, None)
    assert isinstance(body, (DecodedBody, UndecodableBody))
    with contextlib.suppress(ValueMisfit):
        made.encode([])


def test_schemas_that_refer_to_others() -> None:
    order = ("orders", json.dumps(record(("id", "int"), name="x.Order")))
    pair = ("pairs", json.dumps(record(("a", "Order"), ("b", "x.Order"), name="x.Pair")))
    made = codec(["x.Order", "x.Pair"], [order, pair])
    values = [body.value for body in made.decode_all([b"\x00\x02", b"\x02\x02\x04"], 0, None)]  # type: ignore[attr-defined]
    assert values == [{"id": 1}, {"a": {"id": 1}, "b": {"id": 2}}]


def test_bad_bodies_do_not_change_the_others_of_a_batch() -> None:
    good, bad = b"\x02a", b"\x7fa"
    made = codec("string").decode_all([good, bad, good], 0, None)
    assert [type(body) for body in made] == [DecodedBody, UndecodableBody, DecodedBody]
    assert made == [good, bad, good]


# ── the reader for hazardous schemas, compared with fastavro ──

SCHEMAS = st.recursive(
    st.sampled_from(["null", "boolean", "int", "long", "float", "double", "bytes", "string"]),
    lambda inner: st.one_of(
        st.builds(lambda items: {"type": "array", "items": items}, inner),
        st.builds(lambda values: {"type": "map", "values": values}, inner),
        st.builds(lambda fields: ("record", fields), st.lists(inner, max_size=3)),
        st.sampled_from(
            [["null", "int", "string"], ["int", "long"], ["long", {"type": "array", "items": "int"}], "enum"]
        ),
        st.builds(
            lambda branch: ["null", branch] if branch != "null" and not isinstance(branch, list) else branch, inner
        ),
    ),
    max_leaves=6,
)


def named(schema: Any, count: list[int]) -> Any:
    if isinstance(schema, tuple):
        count[0] += 1
        name = f"R{count[0]}"
        return record(*((f"f{nth}", named(each, count)) for nth, each in enumerate(schema[1])), name=name)
    if schema == "enum":
        count[0] += 1
        return {**ENUM, "name": f"E{count[0]}"}
    if isinstance(schema, list):
        return [named(each, count) for each in schema]
    if isinstance(schema, dict):
        return {key: named(value, count) if key in ("items", "values") else value for key, value in schema.items()}
    return schema


# Bodies with more of the bytes that numbers at a border have.
BODIES = st.lists(
    st.one_of(
        st.binary(max_size=12),
        st.sampled_from(
            [b"\1", b"\3", b"\x91\3", b"\x93\x83\0", b"\xff\3", b"\x80\x80\x80\x80\x10", b"\xff\xff\xff\xff\x0f"]
        ),
        st.sampled_from([b"\x80" * 9 + b"\1", b"\x80" * 9 + b"\2", b"\x80" * 12 + b"\1", b"\0", b"\2", b"\4"]),
    ),
    max_size=8,
).map(b"".join)


@settings(max_examples=400, deadline=None)
@given(SCHEMAS, BODIES)
def test_both_readers_read_the_same(drawn: Any, body: bytes) -> None:
    text = json.dumps(named(drawn, [0]))
    schema = parse_avro(text)
    (made,) = codec(text).decode_all([body], 0, None)
    try:
        value, end = AvroReader(schema).read(body, 0)
    except (ValueError, EOFError):
        assert isinstance(made, UndecodableBody)
        return
    if isinstance(made, DecodedBody):
        assert end == len(body)
        assert repr(made.value) == repr(value)
    else:
        assert end < len(body)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_garbage_is_a_value_or_a_reason(body: bytes) -> None:
    schema = record(*((f"f{nth}", kind) for nth, (kind, _, _) in enumerate(TYPES[:3])), ("r", ["null", "x.Event"]))
    for each in (schema, record(("a", ["null", DECIMAL]), ("b", {"type": "map", "values": logical("int", "date")}))):
        (made,) = codec(each).decode_all([body], 0, None)
        assert isinstance(made, (DecodedBody, UndecodableBody))


# ── encoding ──

EVENT = record(("id", "long"), ("amount", DECIMAL), ("at", logical("long", "timestamp-millis")), ("kind", ENUM))
GOOD = {"id": 1, "amount": "1.50", "at": "2026-11-29T13:07:00.123Z", "kind": "A"}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"id": "1"}, "field x.Event.id: '1' is not long"),
        ({"id": 2**63}, "is not long"),
        ({"id": 1.5}, "is not long"),
        ({"id": True}, "is not long"),
        ({"amount": "1.505"}, "'1.505' is not a decimal of scale 2"),
        ({"amount": "a lot"}, "is not a decimal of scale 2"),
        ({"at": "yesterday"}, "'yesterday' is not timestamp-millis"),
        ({"kind": "C"}, "'C' is not one of A, B"),
        ({"more": 1}, "more"),
        ({"id": None}, "None is not long"),
    ],
)
def test_a_value_that_does_not_fit_is_named(change: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueMisfit, match=why):
        codec(EVENT).encode({**GOOD, **change})


@pytest.mark.parametrize(
    ("schema", "value", "body"),
    [
        (["double", "long"], 2**53 + 1, b"\2" + zigzag(2**53 + 1)),
        (["float", "long", "int"], 2**31 - 1, b"\2" + zigzag(2**31 - 1)),
        (["null", "float", "int", "double"], 5, b"\4\x0a"),
        (["null", "float", "int", "double"], 5.0, b"\6" + struct.pack("<d", 5)),
        (["null", "float", "int", "double"], 0.1, b"\6" + struct.pack("<d", 0.1)),
        (["float", "double"], 2**24 + 1, b"\2" + struct.pack("<d", 2**24 + 1)),
        (["double", "int"], 2**31, b"\0" + struct.pack("<d", 2**31)),
        (["double", "long"], 1.5, b"\0" + struct.pack("<d", 1.5)),
        (["double", "long"], 2**70, b"\0" + struct.pack("<d", 2**70)),
        (["double", "long"], 2**70 + 1, None),
        (["double", "int"], 2**53 + 1, None),
        ("double", 5, struct.pack("<d", 5)),
        ("double", 2**53 + 1, None),
        ("double", 10**400, None),
        ("float", 2**24 + 1, None),
        ("float", 0.1, struct.pack("<f", 0.1)),
        ({"type": "array", "items": ["double", "long"]}, [1], b"\2\2\2\0"),
    ],
)
def test_a_number_loses_no_digits_on_its_way_into_a_union(schema: Any, value: Any, body: bytes | None) -> None:
    for each in (schema, record(("f", schema))):
        given = value if each is schema else {"f": value}
        if body is not None:
            assert codec(each).encode(given) == body
        else:
            with pytest.raises(ValueMisfit, match=f"{str(value)[:50]}.* is not "):
                codec(each).encode(given)


def test_a_missing_field_is_named_as_missing() -> None:
    lacking = {name: value for name, value in GOOD.items() if name != "at"}
    outer = record(("a", {"type": "array", "items": ["null", EVENT]}), name="x.Outer")
    for schema, value in ((EVENT, lacking), (outer, {"a": [None, GOOD, lacking]})):
        with pytest.raises(ValueMisfit, match=r"field x.Event.at is missing, and has no default$|x.Outer"):
            codec(schema).encode(value)
    with pytest.raises(ValueMisfit, match=r"^field x.Event.at: None is not timestamp-millis"):
        codec(EVENT).encode({**GOOD, "at": None})
    with pytest.raises(ValueMisfit, match=r"^field x.Event.at is missing, and has no default$"):
        codec(EVENT).encode(lacking)


def test_a_value_may_have_numbers_as_they_are_stored_and_lack_what_has_a_default() -> None:
    made = codec(EVENT)
    assert made.encode({**GOOD, "amount": 1.5, "at": 1795957620123}) == made.encode(GOOD)
    schema = {
        "type": "record",
        "name": "E",
        "fields": [
            {"name": "a", "type": ["null", "int"], "default": None},
            {"name": "b", "type": "bytes", "default": "\u00ff"},
            {"name": "d", "type": DECIMAL, "default": "\u0005"},
        ],
    }
    assert codec(schema).encode({}) == b"\x00\x02\xff\x02\x05"


def test_a_value_nested_deeply_does_not_end_the_process() -> None:
    value: Any = None
    for _ in range(sys.getrecursionlimit() + 500):
        value = {"next": value}
    with pytest.raises(ValueMisfit, match="nested too deeply"):
        codec(LINKED).encode(value)
