"""JSON Schema: bodies are checked and parsed, with all digits of their numbers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from qtools.attributes import DecodedBody, UndecodableBody
from qtools.schemas.contract import SchemaInvalid, SchemaText, ValueMisfit
from qtools.schemas.json_schema import JsonSchemaCodec

EVENT = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "properties": {"id": {"type": "integer"}, "tags": {"type": "array", "items": {"type": "string"}}},
    "required": ["id"],
}


def codec(schema: Any, *references: tuple[str, str]) -> JsonSchemaCodec:
    text = schema if isinstance(schema, str) else json.dumps(schema)
    return JsonSchemaCodec(SchemaText("JSON", text, "schema 7", references))


def outcome(schema: Any, body: bytes, start: int = 0) -> Any:
    (made,) = codec(schema).decode_all([body], start, None)
    assert made == body
    assert isinstance(made, (DecodedBody, UndecodableBody))
    return made.value if isinstance(made, DecodedBody) else made.reason


def test_a_body_that_matches_is_its_json() -> None:
    assert outcome(EVENT, b'\0\0\0\0\7{"id": 123456789012345678901234567890}', 5) == {
        "id": 123456789012345678901234567890
    }
    assert outcome(True, b" [1.5] ") == [1.5]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"{", "it is not JSON"),
        (b"\xff", "it is not JSON"),
        (b"", "it is not JSON"),
        (b"{}", 'it does not match schema 7: "id" is a required property'),
        (b'{"id": 1, "tags": ["a", 5]}', 'it does not match schema 7: .tags[1]: 5 is not of type "string"'),
        (b'{"id": "' + b"x" * 5000 + b'"}', 'xxx" is not of type "integer"'),
        (b"[" * 900 + b"]" * 900, "it cannot be checked with schema 7: Recursion limit"),
        (b"[" * 5000 + b"]" * 5000, "it is not JSON"),
    ],
)
def test_a_body_that_does_not_match_is_named_as_that(body: bytes, why: str) -> None:
    reason = outcome(EVENT, body)
    assert why in reason
    assert len(reason) < 400
    assert "\n" not in reason


def test_a_schema_refers_to_others_by_their_names() -> None:
    tag = ("tag.json", json.dumps({"definitions": {"short": {"type": "string", "maxLength": 3}}}))
    made = codec({"type": "array", "items": {"$ref": "tag.json#/definitions/short"}}, tag)
    good, bad = made.decode_all([b'["abc"]', b'["abcd"]'], 0, None)
    assert isinstance(good, DecodedBody)
    assert isinstance(bad, UndecodableBody)


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ("{", "it is not JSON"),
        ({"type": "nix"}, "is not valid"),
        ({"$ref": "http://127.0.0.1:1/other.json"}, "other.json"),
        ({"$ref": "#/definitions/none"}, "does not exist"),
        ({"pattern": "("}, "is not a"),
        (5, "is not of types"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused(schema: Any, why: str) -> None:
    with pytest.raises(SchemaInvalid, match=why) as caught:
        codec(schema)
    assert "\n" not in str(caught.value)


def test_a_value_is_checked_before_it_is_written() -> None:
    made = codec(EVENT)
    assert made.encode({"id": 2**70, "x": "€"}) == b'{"id":1180591620717411303424,"x":"\xe2\x82\xac"}'
    with pytest.raises(ValueMisfit, match=r'^\.id: "1" is not of type "integer"$'):
        made.encode({"id": "1"})
