"""--defer lets the broker hold every message back."""

from __future__ import annotations

import time

import pytest
from conftest import MakeBroker
from harness.brokers import Broker
from harness.shell import Shell


def test_messages_come_after_so_long(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    begun = time.monotonic()
    done = shell.run("q-pipe", topic, "--defer", "1.5s", *broker.flags, input=b"a\nb\nc\n")
    assert done.status == 0
    reader = broker.reader(topic, "me")
    held = broker.depth(topic, "me")
    early = time.monotonic() - begun < 1.4
    messages = reader.take(3)
    reader.close()
    assert time.monotonic() - begun >= 1.5
    assert sorted(message.body for message in messages) == [b"a", b"b", b"c"]
    if early:
        assert (held.deferred, held.depth, held.in_flight) == (3, 0, 0)


def test_one_too_big_among_them_is_left_out_and_the_others_are_sent_once(
    shell: Shell, make_broker: MakeBroker, topic: str
) -> None:
    broker = make_broker("--max-msg-size=100")
    broker.create(topic, "me")
    text = b"\n".join([b"a", b"b", b"x" * 101, b"c", b"d"])
    done = shell.run("q-pipe", topic, "--defer", "1h", "--on-oversize", "skip", *broker.flags, input=text)
    assert done.status == 0, done.err
    assert [line for line in done.err_lines if "message 3 was not sent" in line]
    assert broker.depth(topic, "me").deferred == 4


@pytest.mark.parametrize("told", ["2h", "-1s", "soon"])
def test_longer_than_a_broker_takes(shell: Shell, told: str) -> None:
    done = shell.run("q-pipe", "topic", f"--defer={told}", input=b"a\n")
    assert done.status == 2
    assert "--defer" in done.err
