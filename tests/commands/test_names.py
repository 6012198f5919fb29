"""Topics and channels that NSQ would not take are refused before anything is sent, or anybody is asked."""

from __future__ import annotations

import pytest
from harness.shell import Shell

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
