"""q-tail --decode: bodies are printed as JSON, and filtered by it; what cannot be decoded goes by --on-error."""

from __future__ import annotations

import json
import signal
import struct
from pathlib import Path

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


def body(number: int, kind: bytes) -> bytes:
    assert number < 64
    assert len(kind) < 64
    return bytes([number * 2, len(kind) * 2]) + kind


def framed(schema: int, body: bytes) -> bytes:
    return b"\0" + struct.pack(">I", schema) + body


@pytest.fixture
def flags(registry: Registry, broker: Broker) -> list[str]:
    return ["--decode", "avro", "--schema-registry", registry.url, "--until-empty", *broker.flags]


def test_tail_prints_decoded_bodies(
    shell: Shell, broker: Broker, topic: str, registry: Registry, flags: list[str]
) -> None:
    schema = registry.add(EVENT)
    broker.fill(topic, [framed(schema, body(n, b"view")) for n in range(50)])
    done = shell.run("q-tail", f"{topic}/me", *flags)
    assert done.status == 0
    assert sorted(done.lines, key=len) == sorted((b'{"id":%d,"type":"view"}' % n for n in range(50)), key=len)
    assert registry.asked == {"/schemas/types": 1, f"/schemas/ids/{schema}": 1}


def test_tail_selects_from_decoded_bodies_without_magic_bytes(
    shell: Shell, broker: Broker, topic: str, tmp_path: Path
) -> None:
    file = tmp_path / "event.avsc"
    file.write_text(json.dumps(EVENT))
    broker.fill(topic, [body(n, b"view" if n % 2 else b"buy") for n in range(10)])
    words = ["--decode", "avro", "--schema", str(file), "--where", '.type == "buy" and .id > 3', "--select", ".id"]
    done = shell.run("q-tail", f"{topic}/me", "--until-empty", *words, *broker.flags)
    assert (done.status, sorted(done.lines)) == (0, [b"4", b"6", b"8"])


@pytest.mark.parametrize("on_error", ["skip", "pass", "fail"])
def test_what_cannot_be_decoded_goes_by_on_error(
    on_error: str, shell: Shell, broker: Broker, topic: str, registry: Registry, flags: list[str]
) -> None:
    schema = registry.add(EVENT)
    bad = [b"no magic byte", framed(99, b"x"), framed(schema, b"\x02\x7f")]
    broker.fill(topic, [framed(schema, body(1, b"a"))])
    broker.fill(topic, bad)
    done = shell.run("q-tail", f"{topic}/me", *flags, "--on-error", on_error, "-f", "length32", "-v")
    good = b'{"id":1,"type":"a"}'
    if on_error == "pass":
        assert done.status == 0
        assert len(done.out) == sum(len(each) + 4 for each in [good, *bad])
        assert all(each in done.out for each in bad)
        return
    why = [
        "begins with the byte 0x6e",
        "does not know schema 99",
        "it is not Avro of schema 1 (x.Event): it ends too early",
    ]
    if on_error == "skip":
        assert (done.status, done.out[4:]) == (0, good)
        assert all(any(reason in line and "left out" in line for line in done.err_lines) for reason in why)
        assert broker.depth(topic, "me").held == 0
    else:
        assert done.status == 1
        assert any(reason in done.err for reason in why)
        assert broker.depth(topic, "me").held >= 3


def test_a_registry_that_goes_away_stops_the_reading_and_loses_nothing(
    shell: Shell, broker: Broker, topic: str, registry: Registry, flags: list[str]
) -> None:
    schema = registry.add(EVENT)
    away = True
    registry.behaviour = lambda path: Answer(503) if away and "ids" in path else None
    broker.fill(topic, [framed(schema, body(n, b"a")) for n in range(40)])
    running = shell.start("q-tail", f"{topic}/me", *flags)
    running.wait_err("answers 503; nothing is read until the schema registry answers, trying again")
    away = False
    done = running.wait()
    assert (done.status, len(done.lines)) == (0, 40)
    assert done.err.count("nothing is read until") == 1


def test_a_stop_while_the_registry_is_away_gives_everything_back(
    shell: Shell, broker: Broker, topic: str, registry: Registry, flags: list[str]
) -> None:
    schema = registry.add(EVENT)
    registry.behaviour = lambda path: Answer(503) if "ids" in path else None
    broker.fill(topic, [framed(schema, body(n, b"a")) for n in range(40)])
    running = shell.start("q-tail", f"{topic}/me", *flags)
    running.wait_err("nothing is read until")
    running.signal(signal.SIGTERM)
    done = running.wait()
    assert (done.status, done.out) == (0, b"")
    assert broker.wait_held(topic, "me", 40).depth == 40


def test_a_registry_that_cannot_be_reached_is_found_at_the_start(shell: Shell, broker: Broker, topic: str) -> None:
    broker.fill(topic, [b"x"])
    words = ["--decode", "avro", "--schema-registry", "http://127.0.0.1:1"]
    done = shell.run("q-tail", f"{topic}/me", *words, *broker.flags)
    assert (done.status, done.err_lines) == (3, ["q-tail: http://127.0.0.1:1: nothing listens there"])
    assert broker.depth(topic, "me").held in (0, 1)  # the channel may be there, and its message is


@pytest.mark.parametrize(
    ("words", "status", "why"),
    [
        (["--decode", "avro"], 2, "--decode needs the schemas: give --schema-registry URL or --schema FILE"),
        (["--decode", "avro", "--schema-registry", "http://127.0.0.1:1", "--schema", "x"], 2, "not both"),
        (["--schema-registry", "http://127.0.0.1:1"], 2, "--schema-registry goes with --decode only"),
        (["--decode", "avro", "--schema-registry", "http://u:secret@127.0.0.1:1"], 2, "has a user name or a password"),
        (["--key-schema", "x"], 2, "--key-schema goes with --decode only"),
        (["--decode", "avro", "--schema", "x", "--key-schema", "x"], 2, "--key-schema goes with --decode-key only"),
        (["--decode-key", "avro", "-f", "envelope"], 2, "--decode-key needs the schemas: give --schema-registry"),
        (["--decode-key", "avro", "--schema", "x"], 2, "--decode has no effect without a flag that reads"),
        (
            ["--decode-key", "avro", "-f", "envelope", "--schema", "x"],
            2,
            "--decode-key needs the schemas: give --schema-r",
        ),
        (
            ["--decode-key", "avro", "-f", "envelope", "--key-schema", "/nowhere"],
            3,
            "cannot read --key-schema /nowhere",
        ),
        (["--decode-key", "json-schema", "-f", "envelope", "--key-schema", "true.json"], 2, "NSQ has no keys"),
        (["--decode", "avro", "--schema", "/nowhere.avsc"], 3, "cannot read --schema /nowhere.avsc"),
        (["--decode", "avro", "--schema", "/dev/null"], 3, "--schema /dev/null cannot be used: it is not JSON"),
        (["--decode", "avro", "--schema", "x", "--registry-ca", "y"], 2, "go with --schema-registry only"),
    ],
)
def test_flags_that_cannot_be(words: list[str], status: int, why: str, shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "true.json").write_text("true")
    words = [str(tmp_path / word) if word == "true.json" else word for word in words]
    done = shell.run("q-tail", "events/me", *words, "--nsqd", "127.0.0.1:1")
    assert done.status == status
    assert why in done.err
    assert "secret" not in done.err
    assert len(done.err_lines) == 1
