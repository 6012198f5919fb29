"""Schemas on a real Kafka: keys and values with ids before them, and with GUIDs in headers; a bridge keeps them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from harness.registry import Registry
from harness.shell import Shell

from tests.engines.kafka.test_envelopes import Kept, consume, produce

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

KEY = {"type": "record", "name": "x.Key", "fields": [{"name": "user", "type": "string"}]}
EVENT = {
    "type": "record",
    "name": "x.Event",
    "fields": [{"name": "id", "type": "long"}, {"name": "user", "type": "string"}],
}


@pytest.fixture
def url(kafka: str) -> str:
    return f"kafka://{kafka}"


def test_encode_with_a_key_and_decode(
    shell: Shell, url: str, kafka: str, topic: str, registry: Registry, tmp_path: Path
) -> None:
    schema = tmp_path / "event.avsc"
    schema.write_text(json.dumps(EVENT))
    produce(kafka, topic, [])
    words = ["--encode", "avro", "--schema-registry", registry.url, "--schema", schema, "--register-schema"]
    lines = b"".join(b'{"id": %d, "user": "u%d"}\n' % (n, n % 3) for n in range(300))
    done = shell.run("q-pipe", f"{url}/{topic}", *words, "--key", ".user", input=lines)
    assert done.status == 0, done.err
    key, body, _ = consume(kafka, topic, 1)[0]
    assert (key, body) == (b"u0", b"\0\0\0\0\1\x00\x04u0")
    words = ["--decode", "avro", "--schema-registry", registry.url, "--where", '$key == "u1" and .id > 10']
    done = shell.run("q-tail", f"{url}/{topic}/g", *words, "--until-empty")
    assert done.status == 0, done.err
    assert done.lines == [b'{"id":%d,"user":"u1"}' % n for n in range(300) if n % 3 == 1 and n > 10]


def test_encoded_keys(shell: Shell, url: str, kafka: str, topic: str, registry: Registry, tmp_path: Path) -> None:
    produce(kafka, topic, [])
    key = registry.add(KEY, subject=f"{topic}-key")
    encode = ["--encode-key", "avro", "--schema-registry", registry.url, "--key", "if .user then {user} else null end"]
    lines = b'{"id": 1, "user": "a"}\n{"id": 2, "user": 3}\n{"id": 4}\n'
    done = shell.run("q-pipe", f"{url}/{topic}", *encode, input=lines)
    assert done.status == 1
    assert (
        f"message 2: --key: it does not fit the schema of '{topic}-key': field x.Key.user: 3 is not string" in done.err
    )
    done = shell.run("q-pipe", f"{url}/{topic}", *encode, "--on-error", "skip", input=lines)
    assert done.status == 0, done.err
    assert "1 message without a key or header left out" in done.err
    framing = b"\0" + key.to_bytes(4, "big")
    kept = [line for line in lines.splitlines() if b"3" not in line]
    assert [(key, body) for key, body, _ in consume(kafka, topic, 4)][-2:] == list(
        zip([framing + b"\x02a", None], kept, strict=True)
    )

    # Bodies with the schema of a file, keys with that of another; and back.
    event, keys = tmp_path / "event.avsc", tmp_path / "key.avsc"
    event.write_text(json.dumps(EVENT))
    keys.write_text(json.dumps(KEY))
    files = ["avro", "--schema", event, "--key-schema", keys]
    words = ["--encode", *files, "--encode-key", "avro", "--key", "{user}"]
    done = shell.run(
        "q-pipe", f"{url}/{topic}.files", "--create-topics", "default", *words, input=lines.splitlines()[0]
    )
    assert done.status == 0, done.err
    assert [(key, body) for key, body, _ in consume(kafka, f"{topic}.files", 1)] == [(b"\x02a", b"\x02\x02a")]
    done = shell.run(
        "q-tail",
        f"{url}/{topic}.files/g",
        "--decode",
        *files,
        "--decode-key",
        "avro",
        "--select",
        "[$key, .]",
        "--until-empty",
    )
    assert done.lines == [b'[{"user":"a"},{"id":1,"user":"a"}]']


def test_decoded_keys_and_values_and_a_bridge_that_changes_neither(
    shell: Shell, url: str, kafka: str, topic: str, registry: Registry, tmp_path: Path
) -> None:
    key, event = registry.add(KEY), registry.add(EVENT)
    by_header: list[tuple[str, bytes | None]] = [
        ("__key_schema_id", b"\1" + registry.guid_of(key).bytes),
        ("__value_schema_id", b"\1" + registry.guid_of(event).bytes),
        ("other", b"\xff"),
    ]
    messages: list[Kept] = [
        (b"\0\0\0\0\1\x02a", b"\0\0\0\0\2\x02\x02a", []),
        (b"\x02b", b"\x04\x02b", by_header),
        (None, b"\0\0\0\0\2\x06\x02c", []),
        (b"no key of Avro", b"\0\0\0\0\2\x08\x02d", []),
        (b"\0\0\0\0\1\x02e", b"\0\0\0\0\2\x0a", []),
        (b"\0\0\0\0\1\x02f", None, []),
    ]
    produce(kafka, topic, messages)
    decode = ["--decode", "avro", "--decode-key", "avro", "--schema-registry", registry.url]
    done = shell.run("q-tail", f"{url}/{topic}/g", *decode, "-f", "envelope", "--until-empty", "-v")
    assert done.status == 0, done.err
    assert [(each["key"], each["body"]) for each in map(json.loads, done.lines)] == [
        ('{"user":"a"}', '{"id":1,"user":"a"}'),
        ('{"user":"b"}', '{"id":2,"user":"b"}'),
        (None, '{"id":3,"user":"c"}'),
        ('{"user":"f"}', None),
    ]
    for reason in ("its key cannot be decoded: it begins with", "it ends too early"):
        assert reason in done.err
    done = shell.run("q-tail", f"{url}/{topic}/h", *decode, "--select", "[$key.user, .id]", "--until-empty")
    assert done.lines == [b'["a",1]', b'["b",2]', b"[null,3]", b'["f",null]']

    # The schema of the keys from a file: then they have no id before them.
    schema = tmp_path / "key.avsc"
    schema.write_text(json.dumps(KEY))
    words = ["--decode-key", "avro", "--key-schema", schema, "--where", '$key.user == "b"']
    done = shell.run("q-tail", f"{url}/{topic}/i", *words, "-f", "length32", "--until-empty")
    assert (done.status, done.out) == (0, b"\0\0\0\3\x04\x02b"), done.err

    # An archive keeps the bytes, and chooses by the decoded key.
    words = ["--output-dir", "archive", "-f", "msgpack", "--where", '$key.user == "b"', "--on-error", "skip"]
    done = shell.run("q-to-file", f"{url}/{topic}/j", *words, *decode, "--until-empty")
    assert done.status == 0, done.err
    done = shell.run("q-to-file", "verify", "--deep", "archive")
    assert (done.status, "1 message" in done.out.decode()) == (0, True), done.out + done.err.encode()

    produce(kafka, f"{topic}.out", [])
    words = [
        "--to",
        f"{topic}.out",
        "--where",
        '$tombstone or $key == null or ($key.user != "x" and .id > 0)',
        "--on-error",
        "pass",
    ]
    done = shell.run("q-bridge", f"{url}/{topic}/b", *words, *decode, "--until-empty")
    assert done.status == 0, done.err
    assert sorted(consume(kafka, f"{topic}.out", 6), key=str) == sorted(messages, key=str)

    # A body that was replaced has no schema: its header does not name one.
    produce(kafka, f"{topic}.json", [])
    words = ["--to", f"{topic}.json", "--where", ".id == 2", "--select", ".", *decode, "--until-empty"]
    done = shell.run("q-bridge", f"{url}/{topic}/c", *words, "--on-error", "drop", "--header", "id=.id")
    assert done.status == 0, done.err
    left = [by_header[0], by_header[2], ("id", b"2")]
    assert consume(kafka, f"{topic}.json", 1) == [(b"\x02b", b'{"id":2,"user":"b"}', left)]
