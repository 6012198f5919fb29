"""Avro's own JSON encoding of decoded bodies, beside that of fastavro."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from io import BytesIO, StringIO
from typing import Any

import pytest
from fastavro import json_writer, parse_schema, schemaless_writer
from harness.shell import Shell

from qtools.attributes import DecodedBody, UndecodableBody
from qtools.schemas.codecs import make_codec
from qtools.schemas.contract import SchemaText

INNER = {"type": "record", "name": "Point", "namespace": "geo", "fields": [{"name": "x", "type": "int"}]}
SCHEMA = {
    "type": "record", "name": "Order", "namespace": "shop",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "note", "type": ["null", "string"]},
        {"name": "raw", "type": "bytes"},
        {"name": "sum", "type": {"type": "fixed", "name": "Sum", "size": 4}},
        {"name": "total", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "at", "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}]},
        {"name": "kind", "type": ["string", {"type": "enum", "name": "Kind", "symbols": ["A", "B"]}, "int"]},
        {"name": "place", "type": ["null", INNER]},
        {"name": "more", "type": {"type": "array", "items": ["null", "geo.Point", "bytes"]}},
        {"name": "tags", "type": {"type": "map", "values": ["null", "long", {"type": "array", "items": "string"}]}},
    ],
}  # fmt: skip
ROWS: list[dict[str, Any]] = [
    {
        "id": 2**60 + 1, "note": None, "raw": b"\0\xff'", "sum": b"\x80abc", "total": Decimal("-12.50"),
        "day": date(2026, 11, 29), "at": None, "kind": 7, "place": {"x": -1},
        "more": [None, ("geo.Point", {"x": 2}), b"\xe4"], "tags": {"a": None, "b": 5, "c": ["x"]},
    },
    {
        "id": 0, "note": "ä", "raw": b"", "sum": b"\0\0\0\0", "total": Decimal(0), "day": date(1969, 1, 1),
        "at": datetime(2026, 11, 29, tzinfo=UTC), "kind": ("shop.Kind", "B"), "place": None, "more": [],
        "tags": {},
    },
]  # fmt: skip


def written(row: dict[str, Any]) -> bytes:
    stream = BytesIO()
    schemaless_writer(stream, parse_schema(SCHEMA), row)
    return stream.getvalue()


def test_it_is_what_fastavro_writes() -> None:
    codec = make_codec(SchemaText("AVRO", json.dumps(SCHEMA), "schema 1"), style="avro-json")
    found = codec.decode_all([written(row) for row in ROWS], 0, None)
    text = StringIO()
    json_writer(text, parse_schema(SCHEMA), ROWS)
    values = [each.value for each in found if isinstance(each, DecodedBody)]
    assert values == [json.loads(line) for line in text.getvalue().splitlines()]
    assert values[0]["place"] == {"geo.Point": {"x": -1}}
    assert values[0]["total"] == "\xfb\x1e"
    (bad,) = codec.decode_all([written(ROWS[0])[:-1]], 0, None)
    assert isinstance(bad, UndecodableBody)


@pytest.mark.parametrize(("style", "text"), [([], b'{"n":"eA==","u":5}'), (["avro-json"], b'{"n":"x","u":{"int":5}}')])
def test_q_tail_prints_it(shell: Shell, style: list[str], text: bytes) -> None:
    fields = [{"name": "n", "type": "bytes"}, {"name": "u", "type": ["null", "int"]}]
    (shell.home / "s.avsc").write_text(json.dumps({"type": "record", "name": "R", "fields": fields}))
    flags = ["--schema", str(shell.home / "s.avsc")]
    done = shell.run("q-pipe", "readings", "--encode", "avro", *flags, input=b'{"n":"eA==","u":5}\n')
    assert done.status == 0, done.err
    given = ["--decode-style", *style] if style else []
    done = shell.run("q-tail", "readings/me", "-n", "1", "-q", "--decode", "avro", *flags, *given)
    assert (done.status, done.lines) == (0, [text]), done.err


def test_it_is_for_avro_only(shell: Shell) -> None:
    for words in (["--decode", "protobuf", "--schema", "x"], []):
        done = shell.run("q-tail", "readings", *words, "--decode-style", "avro-json")
        assert done.status == 2
        assert "--decode-style" in done.err
