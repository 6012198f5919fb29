"""NSQ has no empty messages: they are left out and counted, or are the end."""

from __future__ import annotations

import msgpack
import pytest
from harness.brokers import Broker
from harness.shell import Shell


def test_empty_lines_are_left_out_and_counted(shell: Shell, broker: Broker, topic: str) -> None:
    done = shell.run("q-pipe", topic, *broker.flags, input=b"\na\n\n\nb\n\n")
    assert done.status == 0
    assert done.err.startswith("q-pipe: 2 messages (2 B) ")
    assert done.err.endswith(f" to {topic}; 4 empty messages skipped\n")
    assert broker.bodies(topic) == [b"a", b"b"]


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("envelope", b'{"body":""}\n{"body":"a"}\n\n{"body_base64":""}\n'),
        ("msgpack", msgpack.packb({"body": b""}) + msgpack.packb({"body": b"a"}) + 2 * msgpack.packb({"body": b""})),
        ("length32", b"\0\0\0\0\0\0\0\x01a\0\0\0\0\0\0\0\0"),
    ],
)
def test_so_they_are_in_every_format(shell: Shell, broker: Broker, topic: str, form: str, text: bytes) -> None:
    done = shell.run("q-pipe", topic, "-f", form, *broker.flags, input=text)
    assert done.status == 0, done.err
    assert done.err.endswith("; 3 empty messages skipped\n")
    assert broker.bodies(topic) == [b"a"]


@pytest.mark.parametrize("text", [b"", b"\n", b"\n\n\n"])
def test_nothing_but_emptiness_is_no_failure(shell: Shell, broker: Broker, topic: str, text: bytes) -> None:
    done = shell.run("q-pipe", topic, *broker.flags, input=text)
    assert done.status == 0
    assert done.err.startswith("q-pipe: 0 messages (0 B) ")
    assert broker.published(topic) == 0


def test_an_empty_line_is_the_end_if_so_asked(shell: Shell, broker: Broker, topic: str) -> None:
    done = shell.run("q-pipe", topic, "--empty", "fail", *broker.flags, input=b"a\nb\n\nc\n")
    assert done.status == 1
    assert "stdin: message 3 is empty" in done.err_lines[0]
    # What stood before it is sent, and said to be.
    assert "confirmed: 2 messages, 4 bytes of input" in done.err_lines[1]
    assert broker.bodies(topic) == [b"a", b"b"]
