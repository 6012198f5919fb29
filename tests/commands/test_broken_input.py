"""Input that is not what it was said to be: named by its place; what stood before it is sent and confirmed."""

from __future__ import annotations

import msgpack
import pytest
from harness.brokers import Broker
from harness.shell import Shell

pytestmark = pytest.mark.forks

GOOD = 20_000  # more than one block holds, so that some of it is under way when the damage is seen


def envelope(count: int) -> bytes:
    return b"".join([b'{"body":"message %d"}\n' % number for number in range(count)])


def packed(count: int) -> bytes:
    return b"".join([msgpack.packb({"body": b"message %d" % number}) for number in range(count)])


def lengths(count: int) -> bytes:
    bodies = [b"message %d" % number for number in range(count)]
    return b"".join([len(body).to_bytes(4, "big") + body for body in bodies])


CASES = [
    ("envelope", envelope, b"not json\n", "line {line} (at byte {offset}) is not JSON"),
    ("envelope", envelope, b'["list"]\n', "line {line} (at byte {offset}) is not a JSON object"),
    ("envelope", envelope, b'{"id":"1"}\n', 'line {line} (at byte {offset}) has neither a "body" nor a "body_base64"'),
    ("envelope", envelope, b'{"body_base64":"?"}\n', "line {line} (at byte {offset}) has a body_base64 that is not"),
    ("envelope", envelope, b'{"body":"cut', "line {line} (at byte {offset}) is not JSON"),
    ("msgpack", packed, b"\xc1", "the msgpack value at byte {offset} is broken"),
    ("msgpack", packed, msgpack.packb({"body": "text"}), "the msgpack value at byte {offset} is broken"),
    ("msgpack", packed, msgpack.packb([1]), "the msgpack value at byte {offset} is broken"),
    (
        "msgpack",
        packed,
        msgpack.packb({"body": b"cut"})[:-1],
        "the input ends within the msgpack value at byte {offset}",
    ),
    ("length32", lengths, b"text", "the length at byte {offset} is 1952807028, more than any message has"),
    ("length32", lengths, b"\0\0\0\x05cut", "the input ends within a message: of the 9 bytes at byte {offset} only 7"),
    ("length32", lengths, b"\0\0", "the input ends within a message: of the 4 bytes at byte {offset} only 2"),
]


@pytest.mark.parametrize("good", [1, GOOD])
@pytest.mark.parametrize(
    ("form", "make", "bad", "told"), CASES, ids=lambda value: None if callable(value) else repr(value)[:20]
)
def test_damage_is_named_and_what_stood_before_is_sent(
    shell: Shell, broker: Broker, topic: str, form: str, make: object, bad: bytes, told: str, good: int
) -> None:
    if good == GOOD and broker.kind != "q-broker":
        pytest.skip("one length is enough to see that nsqd has no part in it")
    assert callable(make)
    text = make(good)
    path = shell.home / "input"
    path.write_bytes(text + bad)
    done = shell.run("q-pipe", topic, "-f", form, path, *broker.flags)
    assert done.status == 1
    assert len(done.err_lines) == 2, done.err
    assert done.err_lines[0].startswith(f"q-pipe: {path}: " + told.format(line=good + 1, offset=len(text)))
    confirmed = "1 message" if good == 1 else f"{good:,} messages"
    assert done.err_lines[1].startswith(f"q-pipe: confirmed: {confirmed}, {len(text)} bytes of input")
    assert done.err_lines[1].endswith(f"; --skip-bytes {len(text)} goes on there")
    assert sorted(broker.bodies(topic)) == sorted(b"message %d" % number for number in range(good))


@pytest.mark.parametrize("form", ["envelope", "msgpack", "length32"])
def test_nothing_but_damage(shell: Shell, broker: Broker, topic: str, form: str) -> None:
    done = shell.run("q-pipe", topic, "-f", form, *broker.flags, input=b"\xc1\xc1\xc1\xc1\n")
    assert done.status == 1
    assert done.err_lines[0].startswith("q-pipe: stdin: ")
    assert done.err_lines[1] == "q-pipe: confirmed: 0 messages, 0 bytes of input; --skip-bytes 0 goes on there"
    assert broker.published(topic) == 0


def test_the_place_counts_from_the_file_s_beginning_whatever_was_skipped(
    shell: Shell, broker: Broker, topic: str
) -> None:
    (shell.home / "first").write_bytes(lengths(2))
    (shell.home / "second").write_bytes(lengths(3) + b"text")
    skip = len(lengths(2)) + len(lengths(1))
    done = shell.run("q-pipe", topic, "-f", "length32", "--skip-bytes", str(skip), "first", "second", *broker.flags)
    assert done.status == 1
    assert f"second: the length at byte {len(lengths(3))} is " in done.err_lines[0]
    assert f"; --skip-bytes {len(lengths(2) + lengths(3))} goes on there" in done.err_lines[1]
    assert broker.bodies(topic) == [b"message 1", b"message 2"]


def test_a_message_without_end_is_given_up(shell: Shell, broker: Broker, topic: str) -> None:
    path = shell.home / "input"
    path.write_bytes(b"good\n" + b"x" * (66 << 20))
    done = shell.run("q-pipe", topic, path, *broker.flags)
    assert done.status == 1
    assert "a message of more than 67108864 bytes begins at byte 5: is the delimiter right?" in done.err_lines[0]
    assert "confirmed: 1 message, 5 bytes of input" in done.err_lines[1]
    assert broker.bodies(topic) == [b"good"]
