"""Topics and channels that the engine does not take are refused before anything is sent, or any broker is asked."""

from __future__ import annotations

import pytest
from harness.shell import Shell

pytestmark = pytest.mark.forks

NOWHERE = ("--nsqd", "127.0.0.1:1")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("bad topic", "topic name 'bad topic' has ' '; allowed are letters, digits and . _ -"),
        ("", "topic name '' is empty"),
        ("x" * 65, "has 65 characters, at most 64 are allowed"),
        ("tö", "has 'ö'"),
        ("a#b", "has a '#', which may only begin the suffix #ephemeral"),
        ("#ephemeral", "has nothing before #ephemeral"),
        ("new\nline", "has '\\n'"),
    ],
)
@pytest.mark.parametrize("program", ["q-pipe", "q-tail"])
def test_a_bad_topic(shell: Shell, program: str, name: str, told: str) -> None:
    done = shell.run(program, name, *NOWHERE, input=b"a\n")
    assert (done.status, done.out) == (2, b"")
    assert len(done.err_lines) == 1
    assert told in done.err


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("topic/", "channel name '' is empty"),
        ("topic/a b", "channel name 'a b' has ' '"),
        ("topic/a/b", "channel name 'a/b' has '/'"),
        ("/channel", "topic name '' is empty"),
    ],
)
def test_a_bad_channel(shell: Shell, source: str, told: str) -> None:
    done = shell.run("q-tail", "good/me", source, *NOWHERE)
    assert (done.status, done.out) == (2, b"")
    assert len(done.err_lines) == 1
    assert told in done.err


def test_the_longest_name_there_is(shell: Shell, broker: object, topic: str) -> None:
    from harness.brokers import Broker

    assert isinstance(broker, Broker)
    longest = (topic + "x" * 64)[:64]
    assert shell.run("q-pipe", longest, *broker.flags, input=b"a\n").status == 0
    done = shell.run("q-tail", f"{longest}/{'c' * 54}#ephemeral", "-n", "1", *broker.flags)
    assert done.out == b"a\n"


KAFKA = ("-b", "kafka://127.0.0.1:1")


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["q-pipe", "x" * 249], 3, "connection refused"),
        (["q-pipe", "x" * 250], 2, "has 250 characters, at most 249 are allowed"),
        (["q-pipe", "."], 2, "topic name '.' is reserved by Kafka"),
        (["q-tail", "x" * 249 + "/" + "c" * 249], 3, "connection refused"),
        (["q-tail", "a/.."], 2, "channel name '..' is reserved by Kafka"),
        (["q-tail", "a/" + "c" * 250], 2, "has 250 characters, at most 249 are allowed"),
        (["q-bridge", "x" * 240, "--to", "y" * 249], 3, "connection refused"),
        (["q-bridge", "a", "--to", "y" * 250], 2, "has 250 characters, at most 249 are allowed"),
        (["q-bridge", "x" * 245, "--to", "y"], 2, "has 250 characters, at most 249 are allowed (--dead-letter-topic"),
        (["q-to-file", "x" * 180, "--output", "out", "-f", "msgpack"], 3, "connection refused"),
        (["q-to-file", "x" * 181, "--output", "out"], 2, "is too long for the name of a file: give --filename-format"),
        (["q-to-file", "..", "--output", "out"], 2, "topic name '..' is reserved by Kafka"),
    ],
    ids=lambda each: "-".join(word[:12] for word in each) if isinstance(each, list) else None,
)
def test_names_of_kafka(shell: Shell, words: list[str], status: int, told: str) -> None:
    done = shell.run(*words, *KAFKA, input=b"a\n", timeout=60)
    assert (done.status, done.out) == (status, b""), done.err
    assert told in done.err_lines[0]


@pytest.mark.parametrize(
    "words",
    [
        ["q-bridge", "a", "--to", "y" * 65, *NOWHERE],
        ["q-bridge", "kafka://127.0.0.1:1/" + "x" * 100, "--to", "nsq://127.0.0.1:1/" + "y" * 65],
        ["q-bridge", "nsq://127.0.0.1:1/" + "x" * 65, "--to", "kafka://127.0.0.1:1/" + "y" * 100],
        ["q-tail", "nsq://127.0.0.1:1/" + "x" * 65],
        ["q-to-file", "a/" + "c" * 65, "--output", "out", *NOWHERE],
    ],
    ids=lambda words: words[0],
)
def test_the_limit_is_that_of_the_engine(shell: Shell, words: list[str]) -> None:
    done = shell.run(*words, input=b"a\n", timeout=60)
    assert (done.status, done.out) == (2, b""), done.err
    assert "has 65 characters, at most 64 are allowed" in done.err_lines[0]
