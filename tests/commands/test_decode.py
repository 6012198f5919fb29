"""--decode of q-bridge and q-to-file: expressions see JSON, and what is sent and stored is the body as it was."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from harness.archives import finished
from harness.brokers import Broker
from harness.registry import Answer, Registry
from harness.shell import Shell

pytestmark = pytest.mark.forks

EVENT = {
    "type": "record",
    "name": "x.Event",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "type", "type": "string"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    ],
}
PROTO = 'syntax = "proto3"; message Event { int64 id = 1; string type = 2; }'


def event(schema: int, number: int, kind: bytes) -> bytes:
    """An event at one millisecond after 1970 began."""
    assert number < 64
    return b"\0" + struct.pack(">I", schema) + bytes([number * 2, len(kind) * 2]) + kind + b"\x02"


@pytest.fixture
def flags(registry: Registry, broker: Broker) -> list[str]:
    registry.add(EVENT)
    return ["--decode", "avro", "--schema-registry", registry.url, "--until-empty", *broker.flags]


EVENTS = [event(1, n, b"buy" if n % 3 else b"view") for n in range(60)]
BUYS = [each for each in EVENTS if b"buy" in each]
BROKEN = [b"no magic byte", EVENTS[0][:-1]]


def test_a_bridge_sends_the_bodies_as_they_were(shell: Shell, broker: Broker, topic: str, flags: list[str]) -> None:
    broker.fill(topic, EVENTS)
    done = shell.run("q-bridge", topic, "--to", f"{topic}.out", "--where", '.type == "buy" and .id < 64', *flags)
    assert done.status == 0, done.err
    assert broker.bodies(f"{topic}.out") == BUYS
    assert "40 routed, 20 filtered" in done.err


def test_a_template_and_select_read_what_is_decoded(shell: Shell, broker: Broker, topic: str, flags: list[str]) -> None:
    broker.fill(topic, EVENTS[:4])
    done = shell.run("q-bridge", topic, "--to", f"{topic}.\\(.type)", "--select", "{id, at}", *flags)
    assert done.status == 0, done.err
    at = b'"1970-01-01T00:00:00.001Z"'
    assert broker.bodies(f"{topic}.buy") == [b'{"id":%d,"at":%s}' % (n, at) for n in (1, 2)]


def test_routes_and_dedupe_read_what_is_decoded(
    shell: Shell, broker: Broker, topic: str, flags: list[str], tmp_path: Path
) -> None:
    routes = tmp_path / "routes.toml"
    routes.write_text(
        f"[[route]]\nwhen = '.type == \"view\"'\nto = '{topic}.views'\nlast = true\n[default]\nto = '{topic}.rest'\n"
    )
    broker.fill(topic, [EVENTS[0], EVENTS[1], EVENTS[0], EVENTS[2]])
    words = ["--routes", str(routes), "--dedupe", ".id", "--dedupe-file", str(tmp_path / "keys"), *flags]
    done = shell.run("q-bridge", topic, *words)
    assert done.status == 0, done.err
    assert broker.bodies(f"{topic}.views") == [EVENTS[0]]
    assert broker.bodies(f"{topic}.rest") == EVENTS[1:3]
    assert "1 duplicate" in done.err


@pytest.mark.parametrize("on_error", ["dead-letter", "drop", "pass", "fail"])
def test_what_a_bridge_cannot_decode_goes_by_on_error(
    on_error: str, shell: Shell, broker: Broker, topic: str, flags: list[str]
) -> None:
    broker.fill(topic, [*EVENTS[:2], *BROKEN])
    words = ["--to", f"{topic}.out", "--where", ".id >= 0", "--on-error", on_error, *flags]
    done = shell.run("q-bridge", topic, *words)
    assert done.status == (1 if on_error == "fail" else 0), done.err
    if on_error == "fail":
        assert "it begins with the byte 0x6e" in done.err or "it ends too early" in done.err
        assert broker.depth(topic, "q-bridge").held >= 2
        return
    assert broker.bodies(f"{topic}.out") == [*EVENTS[:2], *(BROKEN if on_error == "pass" else [])]
    if on_error == "dead-letter":
        letters = [json.loads(each) for each in broker.bodies(f"{topic}.dead")]
        assert [each.get("body") for each in letters] == ["no magic byte", EVENTS[0][:-1].decode()]
        assert "it is not Avro of schema 1 (x.Event): it ends too early" in letters[1]["reason"]


def test_a_dead_letter_goes_back_as_it_was(shell: Shell, broker: Broker, topic: str, flags: list[str]) -> None:
    broker.fill(topic, [b"\0\0\0\0\x63\xff\xfe"])
    assert shell.run("q-bridge", topic, "--to", f"{topic}.out", "--where", ".id", *flags).status == 0
    done = shell.run("q-bridge", "--redrive", f"{topic}.dead", *broker.flags)
    assert done.status == 0, done.err
    assert broker.bodies(topic, "q-bridge")[-1] == b"\0\0\0\0\x63\xff\xfe"


def test_an_archive_has_the_bodies_as_they_were(
    shell: Shell, broker: Broker, topic: str, flags: list[str], tmp_path: Path
) -> None:
    broker.fill(topic, [*EVENTS, *EVENTS[:5], *BROKEN])
    words = [
        "-o",
        tmp_path / "a",
        "-f",
        "length32",
        "--partition-by",
        ".at",
        "--dedupe",
        ".id",
        "--sync-interval",
        "50ms",
    ]
    done = shell.run("q-to-file", f"{topic}/me", *words, *flags)
    assert done.status == 0, done.err
    assert "5 duplicates; 2 messages without a key; 2 messages without a time of its own" in done.err
    (first,) = [path for path in finished(tmp_path / "a") if "dt=1970-01-01" in str(path)]
    assert first.read_bytes() == b"".join(struct.pack(">I", len(each)) + each for each in EVENTS)


def test_an_archive_waits_for_a_registry_that_is_away(
    shell: Shell, broker: Broker, topic: str, registry: Registry, flags: list[str], tmp_path: Path
) -> None:
    away = True
    registry.behaviour = lambda path: Answer(503) if away and "ids" in path else None
    broker.fill(topic, EVENTS)
    # Batches are gathered up to an age, so reads end before the registry answers: none of them may lose its batch.
    words = ["-o", tmp_path / "a", "-f", "length32", "--where", ".id >= 0", "--sync-interval", "20ms"]
    running = shell.start("q-to-file", f"{topic}/me", *words, *flags)
    running.wait_err("answers 503; nothing is read until the schema registry answers")
    away = False
    done = running.wait()
    assert done.status == 0, done.err
    (file,) = finished(tmp_path / "a")
    assert file.read_bytes() == b"".join(struct.pack(">I", len(each)) + each for each in EVENTS)


def test_an_archive_of_json(shell: Shell, broker: Broker, topic: str, tmp_path: Path) -> None:
    proto = tmp_path / "event.proto"
    proto.write_text(PROTO)
    broker.fill(topic, [b"\x08\x07\x12\x03buy", b"\x08\x08"])
    words = ["-o", tmp_path / "a", "--decode", "protobuf", "--schema", proto, "--select", ".", "--until-empty"]
    done = shell.run("q-to-file", f"{topic}/me", *words, *broker.flags)
    assert done.status == 0, done.err
    (file,) = finished(tmp_path / "a")
    assert file.read_bytes() == b'{"id":7,"type":"buy"}\n{"id":8,"type":""}\n'


def test_a_replay_filters_what_is_decoded_and_sends_the_bodies_as_they_were(
    shell: Shell, broker: Broker, topic: str, flags: list[str], tmp_path: Path
) -> None:
    broker.fill(topic, [*EVENTS, *BROKEN])
    done = shell.run("q-to-file", f"{topic}/me", "-o", tmp_path / "a", "-f", "length32", "--until-empty", *broker.flags)
    assert done.status == 0, done.err
    flags.remove("--until-empty")
    replay = ["q-to-file", "replay", tmp_path / "a"]
    words = ["--where", '.type == "buy"', "--on-error", "skip", "--checkpoint", tmp_path / "pos"]
    done = shell.run(*replay, f"{topic}.buys", *words, *flags)
    assert done.status == 0, done.err
    assert sorted(broker.bodies(f"{topic}.buys")) == sorted(BUYS)
    assert "20 did not match; 2 failed and were left out" in done.err
    assert "it is not Avro of schema 1 (x.Event): it ends too early" in done.err
    done = shell.run(*replay, f"{topic}.json", "--select", "{id, at}", "--on-error", "pass", *flags)
    assert done.status == 0, done.err
    json_of = [b'{"id":%d,"at":"1970-01-01T00:00:00.001Z"}' % n for n in range(60)]
    assert sorted(broker.bodies(f"{topic}.json")) == sorted([*json_of, *BROKEN])
    done = shell.run(*replay, f"{topic}.all", "--where", ".id >= 0", *flags)
    assert done.status == 1
    assert "message 61: " in done.err
    assert "ends too early" in done.err or "begins with the byte 0x6e" in done.err
    done = shell.run(*replay, f"{topic}.buys", *words, *broker.flags)
    assert done.status == 2
    assert "is of another run (decode was 'avro')" in done.err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["q-to-file", "replay", "a", "t"], "without a flag that reads what is decoded: --where, or --select"),
        (["q-bridge", "t", "--to", "u"], "without a flag that reads what is decoded: --where, --routes"),
        (["q-bridge", "t", "--redrive"], "--redrive puts messages back as they were: --decode does not go with it"),
        (["q-bridge", "--explain", "--to", "u", "--where", ".a"], "--explain without a topic reads JSON"),
        (["q-to-file", "t", "-o", "a"], "without a flag that reads what is decoded: --where, --partition-by"),
    ],
)
def test_flags_that_do_not_go_together(words: list[str], why: str, shell: Shell) -> None:
    done = shell.run(words[0], *words[1:], "--decode", "avro", "--schema", "/dev/null")
    assert done.status == 2
    assert why in done.err


def test_a_dry_run_shows_what_is_decoded(shell: Shell, broker: Broker, topic: str, registry: Registry) -> None:
    registry.add(EVENT)
    broker.create(topic, "q-bridge")
    flags = ["--decode", "avro", "--schema-registry", registry.url, *broker.flags]
    running = shell.start(
        "q-bridge", topic, "--to", f"{topic}.out", "--where", ".id > 0", "--dry-run", "-n", "2", *flags
    )
    broker.wait_clients(topic, topic_channel(broker, topic))
    broker.fill(topic, EVENTS[:2])
    done = running.wait()
    assert done.status == 0, done.err
    assert [line.split(b"\t")[1] for line in done.lines] == [
        b'{"id":0,"type":"view","at":"1970-01-01T00:00:00.001Z"}',
        b'{"id":1,"type":"buy","at":"1970-01-01T00:00:00.001Z"}',
    ]


def topic_channel(broker: Broker, topic: str) -> str:
    """The temporary channel of a dry run, once it is there."""
    from harness.waiting import wait_until

    def found() -> str | None:
        return next((name for name in broker.channels(topic) if name.endswith("#ephemeral")), None)

    return wait_until(found) or ""
