"""q-tail TOPIC: a channel of its own, which takes nothing from others and is gone afterwards."""

from __future__ import annotations

import re
import signal

from harness.brokers import Broker
from harness.shell import Shell
from harness.waiting import wait_until


def test_it_is_ephemeral_and_unique_and_gone_afterwards(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "archive")
    tails = [shell.start("q-tail", topic, *broker.flags) for _ in range(2)]
    wait_until(lambda: len(broker.channels(topic)) == 3)
    own = sorted(set(broker.channels(topic)) - {"archive"})
    assert all(re.fullmatch(r"q-tail-\d+-[0-9a-f]{6}#ephemeral", name) for name in own), own
    for name in own:
        broker.wait_clients(topic, name)
    broker.fill(topic, [b"for all"])
    for tail in tails:
        assert tail.wait_out(8) == b"for all\n"
        tail.signal(signal.SIGINT)
        assert tail.wait(5).status == -signal.SIGINT
    wait_until(lambda: broker.channels(topic) == ["archive"])
    assert broker.depth(topic, "archive").depth == 1


def test_it_gets_what_comes_from_now_on(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "archive")
    broker.fill(topic, [b"before"])
    wait_until(lambda: broker.depth(topic).depth == 0)  # it is in the channel
    tail = shell.start("q-tail", topic, "-n", "1", *broker.flags)
    wait_until(lambda: len(broker.channels(topic)) == 2)
    broker.fill(topic, [b"after"])
    assert tail.wait().out == b"after\n"


def test_it_does_not_take_what_no_channel_keeps(shell: Shell, broker: Broker, topic: str) -> None:
    broker.fill(topic, [b"a", b"b"])
    done = shell.run("q-tail", topic, "-n", "1", *broker.flags)
    assert (done.status, done.out) == (2, b"")
    assert len(done.err_lines) == 1
    assert f"{topic} has no channel yet and 2 messages" in done.err
    assert f"{topic}/NAME" in done.err
    assert broker.channels(topic) == []
    assert broker.bodies(topic) == [b"a", b"b"]


def test_a_channel_that_was_named_takes_them(shell: Shell, broker: Broker, topic: str) -> None:
    broker.fill(topic, [b"a"])
    done = shell.run("q-tail", f"{topic}/named#ephemeral", "-n", "1", *broker.flags)
    assert (done.status, done.out) == (0, b"a\n")


def test_a_topic_that_is_not_there_yet_is_no_reason_to_refuse(shell: Shell, broker: Broker, topic: str) -> None:
    tail = shell.start("q-tail", topic, "-n", "1", *broker.flags)
    wait_until(lambda: broker.channels(topic))
    broker.fill(topic, [b"first"])
    assert tail.wait().out == b"first\n"
