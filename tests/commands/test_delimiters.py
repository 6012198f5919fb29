"""What ends a message: any bytes, however long, wherever a read happens to cut them."""

from __future__ import annotations

import pytest
from harness.brokers import Broker
from harness.shell import Shell

pytestmark = pytest.mark.forks

BLOCK = 256 * 1024  # what q-pipe reads at once


@pytest.mark.parametrize(
    ("told", "delimiter"),
    [
        (r"\t", b"\t"),
        (r"\0", b"\0"),
        (r"\r\n", b"\r\n"),
        ("<=", b"<="),
        ("↯", "↯".encode()),
        (r"\x1e\x00end\\", b"\x1e\x00end\\"),
        ("x" * 70, b"x" * 70),
    ],
)
def test_a_delimiter_of_any_length(shell: Shell, broker: Broker, topic: str, told: str, delimiter: bytes) -> None:
    bodies = [b"first", b"with\nnewline", b"<", b"last"]
    done = shell.run("q-pipe", topic, "-d", told, *broker.flags, input=delimiter.join(bodies) + delimiter)
    assert done.status == 0, done.err
    assert broker.bodies(topic) == bodies


def test_nul_is_the_delimiter_with_0(shell: Shell, broker: Broker, topic: str) -> None:
    done = shell.run("q-pipe", "-0", topic, *broker.flags, input=b"a\nb\0c\0")
    assert done.status == 0
    read = shell.run("q-tail", f"{topic}/me", "-n", "2", "-0", *broker.flags)
    assert read.out == b"a\nb\0c\0"


def test_the_last_line_needs_no_delimiter(shell: Shell, broker: Broker, topic: str) -> None:
    done = shell.run("q-pipe", topic, *broker.flags, input=b"a\nlast")
    assert done.status == 0
    assert broker.bodies(topic) == [b"a", b"last"]


def test_half_a_delimiter_at_the_end_belongs_to_the_last_message(shell: Shell, broker: Broker, topic: str) -> None:
    done = shell.run("q-pipe", topic, "-d", "<=>", *broker.flags, input=b"a<=>b<=")
    assert done.status == 0
    assert broker.bodies(topic) == [b"a", b"b<="]


@pytest.mark.parametrize("before", [0, 1, 3, 6])
def test_a_delimiter_across_the_end_of_a_block(shell: Shell, broker: Broker, topic: str, before: int) -> None:
    if broker.kind != "q-broker":
        pytest.skip("no broker has a part in where reads are cut")
    delimiter = b"<=cut=>"
    long = b"y" * (BLOCK - before)
    path = shell.home / "input"
    path.write_bytes(long + delimiter + b"next" + delimiter + b"<=cut=" + delimiter)
    done = shell.run("q-pipe", topic, "-d", delimiter.decode(), path, *broker.flags)
    assert done.status == 0, done.err
    assert broker.bodies(topic) == [long, b"next", b"<=cut="]


def test_a_delimiter_that_comes_byte_by_byte(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    reader = broker.reader(topic, "me")
    pipe = shell.start("q-pipe", topic, "-d", "<=>", *broker.flags, stdin=-1)
    for byte in b"a<<=>b<=<=>c":
        pipe.feed(bytes([byte]))
    assert [message.body for message in reader.take(2)] == [b"a<", b"b<="]
    pipe.end_input()
    assert [message.body for message in reader.take(1)] == [b"c"]
    reader.close()
    assert pipe.wait().status == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-d", r"\q"], "unknown escape"),
        (["-d", r"\x1"], "without two hex digits"),
        (["-d", "x", "-0"], "give --delimiter or -0, not both"),
        (["-d", "x", "-f", "length32"], "go with --format raw only"),
        (["-0", "-f", "envelope"], "go with --format raw only"),
    ],
)
@pytest.mark.parametrize("program", ["q-pipe", "q-tail"])
def test_delimiters_that_cannot_be(shell: Shell, program: str, words: list[str], told: str) -> None:
    done = shell.run(program, "topic", *words, input=b"a\n")
    assert done.status == 2
    assert told in done.err
    assert len(done.err_lines) == 1
