"""What decoding costs, beside fastavro's own rate: batches of messages of 200 bytes, in turn, several rounds.

Run: pytest bench/test_schemas.py; it says the messages a second of each, and the ratio. fastavro decodes to Python's
objects; ours to plain JSON, with the magic byte and the id, and then through the filter that q-tail prints with.
"""

from __future__ import annotations

import json
import statistics
import struct
import time
from collections.abc import Callable
from io import BytesIO
from typing import Any

import fastavro
import pytest

from qtools.expressions.expression import compile_expression
from qtools.flow.filter import Filter
from qtools.message import Batch, Messages
from qtools.schemas.avro import AvroCodec
from qtools.schemas.contract import SchemaText
from qtools.schemas.protobuf import ProtobufCodec

COUNT, ROUNDS = 1000, 41
LEAST = 0.6  # of fastavro's own rate
SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "Event",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "type", "type": "string"},
        {"name": "userId", "type": ["null", "string"], "default": None},
        {"name": "amount", "type": "double"},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "text", "type": "string"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    ],
}
PROTO = """syntax = "proto3"; message Event { int64 id = 1; string type = 2; optional string userId = 3;
double amount = 4; repeated string tags = 5; string text = 6; int64 at = 7; }"""
EVENT = {"id": 12345, "type": "purchase", "userId": "u-12345", "amount": 12.5, "tags": ["a", "bb"], "text": "x" * 154}


def rates(*runs: Callable[[], object]) -> tuple[list[float], list[float]]:
    """Messages a second of each of `runs`, and each one's ratio to the first: medians of rounds in which all run."""
    took: list[list[float]] = [[] for _ in runs]
    for _ in range(ROUNDS):
        for nth, run in enumerate(runs):
            begin = time.perf_counter()
            run()
            took[nth].append(time.perf_counter() - begin)
    ratios = [statistics.median(first / own for first, own in zip(took[0], each, strict=True)) for each in took]
    return [COUNT / statistics.median(each) for each in took], ratios


def framed(body: bytes, head: bytes = b"") -> list[bytes]:
    return [b"\0" + struct.pack(">I", 7) + head + body] * COUNT


def test_decoding_beside_fastavro(capsys: pytest.CaptureFixture[str]) -> None:
    parsed = fastavro.parse_schema(SCHEMA)
    stream = BytesIO()
    fastavro.schemaless_writer(stream, parsed, {**EVENT, "at": 1_795_957_620_123})
    raw = [stream.getvalue()] * COUNT
    assert 195 <= len(raw[0]) <= 205
    bodies = framed(raw[0])
    avro = AvroCodec(SchemaText("AVRO", json.dumps(SCHEMA), "schema 7"))
    protobuf = ProtobufCodec(SchemaText("PROTOBUF", PROTO, "schema 7"))
    others = framed(protobuf.encode({**EVENT, "at": 1_795_957_620_123}), b"\0")
    rules = Filter(compile_expression(".amount > 1"), compile_expression("."))

    def printed() -> None:
        decoded = avro.decode_all(bodies, 5, None)
        rules.run(Batch([], Messages([], decoded, [], []), decoded))

    (own, ours, whole, proto), (_, of_ours, of_whole, of_proto) = rates(
        lambda: [fastavro.schemaless_reader(BytesIO(body), parsed) for body in raw],
        lambda: avro.decode_all(bodies, 5, None),
        printed,
        lambda: protobuf.decode_all(others, 5, None),
    )
    with capsys.disabled():
        print(
            f"\nfastavro {own:,.0f}/s; decoded {ours:,.0f}/s ({of_ours:.2f}); with --where, as JSON {whole:,.0f}/s",
            end="",
        )
        print(f" ({of_whole:.2f}); Protobuf {proto:,.0f}/s ({of_proto:.2f})", end="")
    assert of_ours >= LEAST
