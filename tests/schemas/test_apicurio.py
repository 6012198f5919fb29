"""A real registry, Apicurio: q-tail reads what q-pipe registers and writes, in each format; references; unknown ids."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.apicurio import Apicurio, why_not
from harness.brokers import Broker
from harness.shell import Shell

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

EVENT = {
    "type": "record",
    "name": "Event",
    "namespace": "x",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
    ],
}
PROTO = """syntax = "proto3"; package shop; import "google/protobuf/timestamp.proto";
message Other { int32 a = 1; message Inner { int32 b = 1; } }
message Event { int64 id = 1; google.protobuf.Timestamp at = 2; map<string, Kind> kinds = 3; }
enum Kind { NONE = 0; GIFT = 1; }"""
JSON = {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "required": ["id"]}


@pytest.fixture(scope="module")
def apicurio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apicurio]:
    if reason := why_not():
        pytest.skip(reason)
    made = Apicurio(tmp_path_factory.mktemp("apicurio"))
    yield made
    made.close()


def register(apicurio: Apicurio, subject: str, schema: Any, references: list[dict[str, Any]] | None = None) -> int:
    body = json.dumps({"schema": json.dumps(schema), "references": references or []}).encode()
    headers = {"Content-Type": "application/vnd.schemaregistry.v1+json"}
    request = urllib.request.Request(f"{apicurio.url}/subjects/{subject}/versions", body, headers)
    with urllib.request.urlopen(request) as answer:
        number: int = json.loads(answer.read())["id"]
    return number


@pytest.mark.parametrize(
    ("kind", "schema", "words", "line"),
    [
        ("avro", EVENT, [], b'{"id":1,"amount":"1.50"}'),
        ("protobuf", PROTO, ["--schema-type", "Event"], b'{"id":1,"kinds":{"a":"GIFT"},"at":"2026-11-29T13:00:00Z"}'),
        ("json-schema", JSON, [], b'{"id":1,"more":[1.5]}'),
    ],
)
def test_what_is_registered_and_written_is_read(
    kind: str, schema: Any, words: list[str], line: bytes,
    shell: Shell, broker: Broker, topic: str, apicurio: Apicurio, tmp_path: Path,
) -> None:  # fmt: skip
    file = tmp_path / "schema"
    file.write_text(schema if isinstance(schema, str) else json.dumps(schema))
    encode = ["--encode", kind, "--schema-registry", apicurio.url, *words, *broker.flags]
    for more in (["--schema", str(file), "--register-schema"], []):  # then with the latest
        done = shell.run("q-pipe", topic, *encode, *more, input=line + b"\n")
        assert done.status == 0, done.err
    decode = ["--decode", kind, "--schema-registry", apicurio.url, "--until-empty", *broker.flags]
    done = shell.run("q-tail", f"{topic}/me", *decode)
    assert (done.status, done.lines) == (0, [line, line]), done.err


def test_references_and_unknown_ids(shell: Shell, broker: Broker, topic: str, apicurio: Apicurio) -> None:
    register(apicurio, f"{topic}-event", EVENT)
    outer = {"type": "array", "items": ["null", "x.Event"]}
    reference = {"name": "x.Event", "subject": f"{topic}-event", "version": 1}
    number = register(apicurio, f"{topic}-value", outer, [reference])
    encode = ["--encode", "avro", "--schema-registry", apicurio.url, *broker.flags]
    done = shell.run("q-pipe", topic, *encode, input=b'[null,{"id":7,"amount":"0.07"}]\n')
    assert done.status == 0, done.err
    unknown = [number + 1000, 2**31 - 1, 2**32 - 1]
    broker.fill(topic, [b"\0" + each.to_bytes(4, "big") for each in unknown])
    decode = ["--decode", "avro", "--schema-registry", apicurio.url, "--until-empty", "-v", *broker.flags]
    done = shell.run("q-tail", f"{topic}/me", *decode)
    assert (done.status, done.lines) == (0, [b'[null,{"id":7,"amount":"0.07"}]']), done.err
    for each in unknown:
        assert f"the schema registry does not know schema {each}: left out" in done.err


def test_a_schema_that_it_refuses_and_a_wrong_path(
    shell: Shell, broker: Broker, topic: str, apicurio: Apicurio, tmp_path: Path
) -> None:
    file = tmp_path / "schema"
    file.write_text('{"type": "int"}')
    base = apicurio.url.partition("/apis")[0]
    for url, status, why in (
        (apicurio.url, 0, ""),
        (base, 3, "answers 404: that is no schema registry with Confluent's API (Apicurio's is at /apis/ccompat/v7)"),
    ):
        words = ["--encode", "avro", "--schema-registry", url, "--schema", str(file), "--register-schema"]
        done = shell.run("q-pipe", topic, *words, *broker.flags, input=b"5\n")
        assert done.status == status
        assert why in done.err
