"""q-pipe --encode: lines of JSON become bodies with a schema; a line that does not fit is named by its number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from harness.brokers import Broker
from harness.registry import Answer, Registry
from harness.shell import Shell

pytestmark = pytest.mark.forks

EVENT = {
    "type": "record",
    "name": "x.Event",
    "fields": [{"name": "id", "type": "long"}, {"name": "type", "type": "string"}],
}
PROTO = 'syntax = "proto3"; message Other { } message Event { int64 id = 1; string type = 2; }'
JSON = {"type": "object", "required": ["id"], "properties": {"id": {"type": "integer"}}}
LINES = b'{"id": 1, "type": "buy"}\n{"id": 2, "type": "view"}\n'
AVRO_BODIES = [b"\x02\x06buy", b"\x04\x08view"]
PROTO_BODIES = [b"\x08\x01\x12\x03buy", b"\x08\x02\x12\x04view"]
BAD = b'{"id": 1, "type": "a"}\n{"id": "2", "type": "b"}\nno JSON\n{"id": 4, "type": "d"}\n'


def file_of(tmp_path: Path, schema: Any) -> str:
    path = tmp_path / "schema"
    path.write_text(schema if isinstance(schema, str) else json.dumps(schema))
    return str(path)


@pytest.mark.parametrize(
    ("kind", "schema", "words", "bodies"),
    [
        ("avro", EVENT, [], AVRO_BODIES),
        ("protobuf", PROTO, ["--schema-type", "Event"], PROTO_BODIES),
        ("json-schema", JSON, [], [b'{"id":1,"type":"buy"}', b'{"id":2,"type":"view"}']),
    ],
)
def test_lines_become_bodies_and_come_back(
    kind: str,
    schema: Any,
    words: list[str],
    bodies: list[bytes],
    shell: Shell,
    broker: Broker,
    topic: str,
    tmp_path: Path,
) -> None:
    words = ["--schema", file_of(tmp_path, schema), *words]
    broker.create(topic, "look", "me")
    done = shell.run("q-pipe", topic, "--encode", kind, *words, *broker.flags, input=LINES)
    assert done.status == 0, done.err
    assert broker.bodies(topic, "look") == bodies
    back = shell.run("q-tail", f"{topic}/me", "--decode", kind, *words, "--until-empty", *broker.flags)
    assert back.lines == [json.dumps(json.loads(line), separators=(",", ":")).encode() for line in LINES.splitlines()]


@pytest.mark.parametrize(
    ("kind", "schema", "head", "bodies"),
    [("AVRO", EVENT, b"", AVRO_BODIES), ("PROTOBUF", PROTO.replace("message Other { } ", ""), b"\0", PROTO_BODIES)],
)
def test_the_latest_schema_of_the_topic(
    kind: str, schema: Any, head: bytes, bodies: list[bytes],
    shell: Shell, broker: Broker, topic: str, registry: Registry,
) -> None:  # fmt: skip
    registry.add('"int"', subject=f"{topic}-value")
    number = registry.add(schema, kind=kind, subject=f"{topic}-value")
    words = ["--encode", kind.lower(), "--schema-registry", registry.url, *broker.flags]
    done = shell.run("q-pipe", topic, *words, input=LINES)
    assert done.status == 0, done.err
    framing = b"\0" + number.to_bytes(4, "big") + head
    assert broker.bodies(topic) == [framing + body for body in bodies]
    assert registry.asked == {"/schemas/types": 1, f"/subjects/{topic}-value/versions/latest": 1}


def test_select_comes_before_the_schema(shell: Shell, broker: Broker, topic: str, registry: Registry) -> None:
    number = registry.add(EVENT, subject="events")
    words = ["--encode", "avro", "--schema-registry", registry.url, "--schema-subject", "events", *broker.flags]
    lines = b'{"n": 1, "kind": "buy", "more": 5}\n{"n": 9, "kind": "view"}\n'
    done = shell.run("q-pipe", topic, *words, "--where", ".n < 5", "--select", "{id: .n, type: .kind}", input=lines)
    assert done.status == 0, done.err
    assert broker.bodies(topic) == [b"\0" + number.to_bytes(4, "big") + AVRO_BODIES[0]]
    assert "1 did not match" in done.err


def test_a_schema_is_registered_only_if_told_so(
    shell: Shell, broker: Broker, topic: str, registry: Registry, tmp_path: Path
) -> None:
    words = ["--encode", "avro", "--schema-registry", registry.url, *broker.flags]
    done = shell.run("q-pipe", topic, *words, input=LINES)
    assert done.status == 3
    assert f"the schema registry has no subject '{topic}-value'; --schema FILE with --register-schema" in done.err
    words += ["--schema", file_of(tmp_path, EVENT)]
    done = shell.run("q-pipe", topic, *words, input=LINES)
    assert done.status == 2
    assert "give --schema-registry or --schema, not both; or --register-schema" in done.err
    assert registry.versions(f"{topic}-value") == []
    for _ in range(2):
        done = shell.run("q-pipe", topic, *words, "--register-schema", input=LINES)
        assert done.status == 0, done.err
    assert registry.versions(f"{topic}-value") == [1]
    assert broker.bodies(topic) == [b"\0\0\0\0\1" + body for body in AVRO_BODIES] * 2


@pytest.mark.parametrize("on_error", ["fail", "skip", "pass"])
def test_a_line_that_does_not_fit_goes_by_on_error(
    on_error: str, shell: Shell, broker: Broker, topic: str, tmp_path: Path
) -> None:
    schema = file_of(tmp_path, EVENT)
    words = ["--encode", "avro", "--schema", schema, "--on-error", on_error, *broker.flags]
    done = shell.run("q-pipe", topic, *words, input=BAD)
    misfit = f"stdin: message 2: it does not fit {schema}: field x.Event.id: '2' is not long"
    first, last = b"\x02\x02a", b"\x08\x02d"
    if on_error == "fail":
        assert done.status == 1
        assert f"{misfit} (--on-error skip leaves such messages out" in done.err
        assert broker.bodies(topic) == [first]
        return
    assert done.status == 0, done.err
    if on_error == "skip":
        assert f"{misfit}: left out" in done.err
        assert "stdin: message 3: it is not JSON" in done.err
        assert broker.bodies(topic) == [first, last]
    else:
        assert broker.bodies(topic) == [first, *BAD.splitlines()[1:3], last]
        assert "2 failed and were sent unchanged" in done.err


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Answer(500), "versions/latest answers 500"),
        (Answer(200, b"{}"), "answers 200 and no id"),
        (Answer(200, b'{"id": 1}'), "answers 200 and no schema"),
        (
            Answer(200, b'{"id": 1, "schema": "x", "schemaType": "PROTOBUF"}'),
            "it is PROTOBUF, not AVRO: --encode protobuf",
        ),
        (Answer(200, b'{"id": 1, "schema": "{"}'), "cannot be used: it is not JSON"),
    ],
)
def test_a_schema_that_cannot_be_had_ends_the_run_before_it_sends(
    answer: Answer, why: str, shell: Shell, registry: Registry
) -> None:
    registry.behaviour = lambda path: answer if "latest" in path else None
    words = ["--encode", "avro", "--schema-registry", registry.url, "--nsqd", "127.0.0.1:1"]
    done = shell.run("q-pipe", "events", *words, input=LINES)
    assert done.status == 3
    assert why in done.err
    assert len(done.err_lines) == 1


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--encode", "avro", "--routes", "x", "--schema", "y"], "--encode goes with a TOPIC"),
        (["t", "--encode", "avro"], "--encode needs the schemas"),
        (["t", "--schema-subject", "x"], "--schema-subject goes with --encode only"),
        (["t", "--register-schema"], "--register-schema goes with --encode only"),
        (["t", "--encode", "avro", "--schema", "y", "--register-schema"], "--register-schema needs --schema-registry"),
        (["t", "--encode", "avro", "--schema", "y", "--schema-subject", "x"], "--schema-subject goes with --schema-r"),
        (["t", "--encode", "avro", "--schema", "y", "--schema-type", "x"], "--schema-type goes with protobuf only"),
        (["t", "--encode-key", "avro", "--key-schema", "k.avsc"], "--encode-key encodes the result of --key"),
        (["t", "--encode-key", "avro", "--key", ".a"], "give --schema-registry URL or --schema FILE"),
        (["t", "--encode-key", "avro", "--key", ".a", "--schema", "s.avsc"], "--encode-key needs the schemas"),
        (["t", "--key", ".a", "--key-schema", "k.avsc"], "--key-schema goes with --encode only"),
        (
            ["t", "--key", ".a", "--encode", "avro", "--schema", "s.avsc", "--key-schema", "k.avsc"],
            "--key-schema goes with --encode-key only",
        ),
        (
            ["t", "--key", ".a", "--encode-key", "avro", "--key-schema", "k", "--schema-subject", "s"],
            "--schema-subject and --register-schema go with --encode only",
        ),
        (["--routes", "r", "--encode-key", "avro", "--key", ".a"], "--encode-key goes with a TOPIC"),
    ],
)
def test_flags_that_do_not_go_together(words: list[str], why: str, shell: Shell) -> None:
    done = shell.run("q-pipe", *words, input=LINES)
    assert done.status == 2
    assert why in done.err
