"""What q-tail writes in a format, q-pipe reads in that format: byte for byte the same bodies."""

from __future__ import annotations

import json
import random
import struct

import msgpack
import pytest
from harness.brokers import Broker
from harness.shell import Shell

ANY = random.Random(7)
BODIES = [
    b"x",
    b"\0",
    b"\n",
    b"two\nlines\n",
    b"nul \0 within",
    b"\xff\xfe not UTF-8 \x80",
    "ünïcode ↯ \U0001f600".encode(),
    b'{"json": "body"}',
    b"\r\n",
    bytes(range(256)),
    ANY.randbytes(70_000),
    ANY.randbytes(1024 * 1024),  # exactly the limit
    b"the last",
]
BINARY = ["envelope", "msgpack", "length32"]


@pytest.mark.parametrize("form", BINARY)
def test_any_bodies_survive_out_and_in_again(shell: Shell, broker: Broker, topic: str, form: str) -> None:
    broker.fill(topic, BODIES)
    out = shell.run("q-tail", f"{topic}/me", "-n", len(BODIES), "-f", form, *broker.flags)
    assert (out.status, out.err) == (0, "")
    back = shell.run("q-pipe", f"{topic}.back", "-f", form, *broker.flags, input=out.out)
    assert back.status == 0, back.err
    assert back.err.startswith(f"q-pipe: {len(BODIES)} messages ")
    # Several connections' worth of order is not promised by nsqd; the bodies are.
    assert sorted(broker.bodies(f"{topic}.back")) == sorted(BODIES)


def test_raw_survives_with_a_delimiter_that_is_in_no_body(shell: Shell, broker: Broker, topic: str) -> None:
    delimiter = b"\xf5--8<--\xf5"
    broker.fill(topic, BODIES)
    words = ("-d", r"\xf5--8<--\xf5", *broker.flags)
    out = shell.run("q-tail", f"{topic}/me", "-n", len(BODIES), *words)
    assert sorted(out.out.split(delimiter)) == sorted([*BODIES, b""])
    back = shell.run("q-pipe", f"{topic}.back", *words, input=out.out)
    assert back.status == 0, back.err
    assert sorted(broker.bodies(f"{topic}.back")) == sorted(BODIES)


def test_an_envelope_says_all_that_is_known(shell: Shell, broker: Broker, topic: str) -> None:
    broker.fill(topic, [b"text", b"\xff"])
    out = shell.run("q-tail", f"{topic}/me", "-n", "2", "-f", "envelope", *broker.flags)
    first, second = (json.loads(line) for line in out.lines)
    assert first.keys() == {"topic", "id", "timestamp", "attempts", "source", "body"}
    assert (first["topic"], first["attempts"], first["source"]) == (topic, 1, broker.address)
    assert (len(first["id"]), first["body"]) == (16, "text")
    assert first["timestamp"] > 1_600_000_000 * 10**9
    assert "body" not in second
    assert second["body_base64"] == "/w=="


def test_msgpack_says_the_same_with_a_binary_body(shell: Shell, broker: Broker, topic: str) -> None:
    broker.fill(topic, [b"text", b"\xff"])
    out = shell.run("q-tail", f"{topic}/me", "-n", "2", "-f", "msgpack", *broker.flags)
    unpacker = msgpack.Unpacker(raw=False)
    unpacker.feed(out.out)
    told = list(unpacker)
    assert [each["body"] for each in told] == [b"text", b"\xff"]
    assert all(each.keys() == {"topic", "id", "timestamp", "attempts", "source", "body"} for each in told)


def test_length32_is_a_length_and_the_body(shell: Shell, broker: Broker, topic: str) -> None:
    broker.fill(topic, [b"text", b"\xff"])
    out = shell.run("q-tail", f"{topic}/me", "-n", "2", "-f", "length32", *broker.flags)
    assert out.out == struct.pack(">I", 4) + b"text" + struct.pack(">I", 1) + b"\xff"


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("envelope", b'{"body":"a"}\n{"body_base64":"Yg==","id":"x","more":[1]}\n{"body":"c"}'),
        ("msgpack", msgpack.packb({"body": b"a"}) + msgpack.packb({"id": 1, "body": b"b"}) + b"\x81\xa4body\xc4\x01c"),
        ("length32", b"\0\0\0\x01a\0\0\0\x01b\0\0\0\x01c"),
    ],
)
def test_formats_written_by_others_are_read(shell: Shell, broker: Broker, topic: str, form: str, text: bytes) -> None:
    done = shell.run("q-pipe", topic, "-f", form, *broker.flags, input=text)
    assert done.status == 0, done.err
    assert broker.bodies(topic) == [b"a", b"b", b"c"]
