"""Signals end q-pipe in order: what is under way is confirmed, and how to go on is said."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Callable

import pytest
from harness.brokers import Broker
from harness.proxy import Proxy
from harness.shell import Shell, stopped_by
from harness.waiting import wait_until


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_ends_it_in_order(shell: Shell, broker: Broker, topic: str, number: signal.Signals) -> None:
    lines = [b"%04d" % number for number in range(500)]
    (shell.home / "input").write_bytes(b"\n".join(lines) + b"\n")
    pipe = shell.start("q-pipe", topic, "input", "--rate", "200", *broker.flags)
    wait_until(lambda: broker.published(topic) >= 30)
    pipe.signal(number)
    done = pipe.wait(5)
    assert done.status == stopped_by(number, 1)
    assert done.err_lines[0] == f"q-pipe: stopped by {number.name} before the end of the input"
    found = re.fullmatch(
        r"q-pipe: confirmed: (\d+) messages, (\d+) bytes of input(?: \(\S+ .?B\))?; --skip-bytes (\d+) goes on there",
        done.err_lines[1].replace(".0 kB", " kB"),
    )
    assert found, done.err
    confirmed = broker.published(topic)
    assert (int(found[1]), int(found[2]), int(found[3])) == (confirmed, confirmed * 5, confirmed * 5)
    assert confirmed < 500
    assert shell.run("q-pipe", topic, "input", "--skip-bytes", found[3], *broker.flags).status == 0
    assert broker.bodies(topic) == lines


def test_it_does_not_wait_for_input(shell: Shell, broker: Broker, topic: str) -> None:
    pipe = shell.start("q-pipe", topic, *broker.flags, stdin=subprocess.PIPE)
    pipe.feed(b"one\nhalf a li")
    wait_until(lambda: broker.published(topic) == 1)
    pipe.signal(signal.SIGINT)
    done = pipe.wait(5)
    assert done.status == -signal.SIGINT
    assert done.err_lines[1].startswith("q-pipe: confirmed: 1 message, 4 bytes of input")
    assert broker.bodies(topic) == [b"one"]


def test_lines_that_linger_are_not_said_to_be_confirmed(shell: Shell, broker: Broker, topic: str) -> None:
    words = ("--linger", "1h", "--batch-count", "2", *broker.flags)
    pipe = shell.start("q-pipe", topic, *words, stdin=subprocess.PIPE)
    pipe.feed(b"one\ntwo\n")
    wait_until(lambda: broker.published(topic) == 2)
    pipe.feed(b"lingers\n")
    with pytest.raises(subprocess.TimeoutExpired):
        pipe.process.wait(0.3)
    pipe.signal(signal.SIGTERM)
    done = pipe.wait(5)
    assert done.status == 1
    assert "confirmed: 2 messages, 8 bytes of input" in done.err_lines[-1]
    assert broker.bodies(topic) == [b"one", b"two"]


def test_a_second_signal_ends_it_at_once(
    shell: Shell, broker: Broker, topic: str, make_proxy: Callable[[Broker], Proxy]
) -> None:
    proxy = make_proxy(broker)
    pipe = shell.start("q-pipe", topic, *proxy.flags, stdin=subprocess.PIPE)
    pipe.feed(b"one\n")
    wait_until(lambda: broker.published(topic) == 1)
    proxy.stall()
    pipe.feed(b"never confirmed\n")
    pipe.end_input()
    pipe.signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        pipe.process.wait(1.2)  # it waits for the confirmation
    begun = time.monotonic()
    pipe.signal(signal.SIGINT)
    done = pipe.wait()
    assert done.status == -signal.SIGINT
    assert time.monotonic() - begun < 1
    assert done.err_lines[-1] == "q-pipe: ended at once by a second SIGINT"


@pytest.mark.slow
def test_a_broker_that_never_answers_is_not_waited_for_without_end(
    shell: Shell, broker: Broker, topic: str, make_proxy: Callable[[Broker], Proxy]
) -> None:
    proxy = make_proxy(broker)
    pipe = shell.start("q-pipe", topic, *proxy.flags, stdin=subprocess.PIPE)
    pipe.feed(b"one\n")
    wait_until(lambda: broker.published(topic) == 1)
    proxy.stall()
    pipe.feed(b"never confirmed\n")
    pipe.end_input()
    pipe.signal(signal.SIGTERM)
    done = pipe.wait(30)
    assert done.status == 1
    assert "confirmed: 1 message, 4 bytes of input" in done.err_lines[-1]
