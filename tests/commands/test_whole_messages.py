"""Many topics on one stdout: never a message within another."""

from __future__ import annotations

import os
import re

import pytest
from conftest import MakeBroker
from harness.brokers import Broker
from harness.shell import Shell


@pytest.mark.parametrize("words", [[], ["--print-topic"]])
def test_topics_never_mix_within_a_line(shell: Shell, make_broker: MakeBroker, topic: str, words: list[str]) -> None:
    """Large bodies, more brokers and topics than one, and a reader that takes little at a time."""
    brokers = [make_broker(), make_broker()]
    topics = [f"{topic}.{nth}" for nth in range(4)]
    for broker in brokers:
        for nth, name in enumerate(topics):
            broker.fill(
                name,
                [b"<%d:%d:" % (nth, size) + b"abcd"[nth : nth + 1] * size + b">" for size in range(60_000, 100, -997)],
            )
    read, write = os.pipe()
    flags = [*brokers[0].flags, *brokers[1].flags]
    tail = shell.start("q-tail", *(f"{name}/me" for name in topics), "--until-empty", *words, *flags, stdout=write)
    os.close(write)
    got = bytearray()
    with open(read, "rb", buffering=0) as source:
        while chunk := source.read(5000):
            got += chunk
    assert tail.wait().status == 0
    lines = bytes(got).split(b"\n")
    assert lines.pop() == b""
    assert len(lines) == 2 * 4 * len(range(60_000, 100, -997))
    for line in lines:
        head = rb"%s\.(?P<topic>\d) \| " % topic.encode() if words else b""
        found = re.fullmatch(head + rb"<(\d):(\d+):(?:a+|b+|c+|d+)>", line)
        assert found, line[:80]
        nth, size = (int(found[len(found.groups()) - 1]), int(found[len(found.groups())]))
        assert line.count(b"abcd"[nth : nth + 1] * size) == 1
        if words:
            assert int(found["topic"]) == nth


def test_print_topic_begins_each_message_with_it(shell: Shell, broker: Broker, topic: str) -> None:
    broker.fill(topic, [b"a"])
    broker.fill(f"{topic}.b", [b"b"])
    words = [f"{topic}/me", f"{topic}.b/me", "-n", "2", "--print-topic", "-0"]
    done = shell.run("q-tail", *words, *broker.flags)
    assert sorted(done.out.split(b"\0")) == [b"", f"{topic} | a".encode(), f"{topic}.b | b".encode()]


def test_print_topic_goes_with_raw_only(shell: Shell) -> None:
    done = shell.run("q-tail", "topic/me", "--print-topic", "-f", "envelope")
    assert done.status == 2
    assert "go with --format raw only" in done.err


def test_a_source_named_twice_is_read_once(shell: Shell, broker: Broker, topic: str) -> None:
    tail = shell.start("q-tail", f"{topic}/me", f"{topic}/me", "-n", "2", *broker.flags)
    broker.wait_clients(topic, "me", 1)
    broker.fill(topic, [b"a", b"b"])
    assert sorted(tail.wait().lines) == [b"a", b"b"]


def test_two_channels_of_a_topic_are_two_copies(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "one", "two")
    broker.fill(topic, [b"a", b"b"])
    done = shell.run("q-tail", f"{topic}/one", f"{topic}/two", "-n", "4", *broker.flags)
    assert sorted(done.lines) == [b"a", b"a", b"b", b"b"]
