"""--format json: what becomes of bodies."""

from __future__ import annotations

import json

import pytest

from qtools.attributes import TOMBSTONE, DecodedBody
from qtools.tail.json_envelope import encode_json
from tests.tail.messages import batch_of

DEEP = 900  # lists in lists, which orjson reads and does not write


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b'{"id":1}', b'{"id":1}'),
        (b'{"n":123456789012345678901234567890,"x":0.12345678901234567890}',) * 2,
        (
            b'{\r\n  "n": 123456789012345678901234567890,\n\n\t"t": "a\\nb  c"\n}',
            b'{"n": 123456789012345678901234567890,"t": "a\\nb  c"}',
        ),
        (b"[\n" * DEEP + b"]" * DEEP, b"[" * DEEP + b"]" * DEEP),
        (DecodedBody.of(b"\0avro", {"n": 2**70}), b'{"n":%d}' % 2**70),
        (b"no JSON", b'"no JSON"'),
        (b"", b'""'),
    ],
)
def test_the_body(body: bytes, shown: bytes) -> None:
    [line] = encode_json(batch_of(body))
    assert line.count(b"\n") == 1
    assert line.endswith(b'"body":' + shown + b"}\n")


def test_bodies_without_text() -> None:
    binary, none = map(json.loads, encode_json(batch_of(b"\xff\0", TOMBSTONE)))
    assert binary["body_base64"] == "/wA="
    assert "body" not in binary
    assert none["body"] is None
