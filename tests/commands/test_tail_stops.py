"""Signals end q-tail in order: what it holds is back in its queue at once, not after the message timeout."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable

import pytest
from harness.brokers import Broker
from harness.proxy import Proxy
from harness.shell import Shell, stopped_by
from harness.waiting import wait_pipe_full, wait_until

NUMBERS = [signal.SIGINT, signal.SIGTERM]


@pytest.mark.parametrize("number", NUMBERS)
def test_while_nothing_comes(shell: Shell, broker: Broker, topic: str, number: signal.Signals) -> None:
    tail = shell.start("q-tail", f"{topic}/me", *broker.flags)
    broker.wait_clients(topic, "me")
    broker.fill(topic, [b"a"])
    tail.wait_out(2)
    begun = time.monotonic()
    tail.signal(number)
    done = tail.wait(5)
    assert (done.status, done.out, done.err) == (stopped_by(number), b"a\n", "")
    assert time.monotonic() - begun < 2
    broker.wait_clients(topic, "me", 0)
    assert broker.depth(topic, "me").held == 0


def test_while_much_comes(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    broker.fill(topic, [b"%06d" % number for number in range(200_000)])
    tail = shell.start("q-tail", f"{topic}/me", *broker.flags)
    tail.wait_out(7)
    tail.signal(signal.SIGINT)
    done = tail.wait(10)
    assert (done.status, done.err) == (-signal.SIGINT, "")
    found = broker.wait_held(topic, "me", 200_000 - len(done.lines), 5)
    assert found.timed_out == 0
    assert len(set(done.lines)) == len(done.lines) < 200_000


def test_with_a_write_that_is_stuck_a_second_one_is_not_needed(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    broker.fill(topic, [b"%05d " % number + b"x" * 994 for number in range(3000)])
    read, write = os.pipe()
    tail = shell.start("q-tail", f"{topic}/me", *broker.flags, stdout=write)
    os.close(write)
    wait_pipe_full(read)
    tail.signal(signal.SIGTERM)
    done = tail.wait(9)
    assert (done.status, done.err) == (0, "")
    with open(read, "rb", buffering=0) as source:
        printed = len(b"".join(iter(lambda: source.read(1 << 16), b"")).split(b"\n")) - 1
    # What of a write that never ended is in the pipe cannot be known: that much comes again, and nothing is missing.
    found = wait_until(lambda: (held := broker.depth(topic, "me")).in_flight == 0 and held)
    assert 3000 - printed <= found.held <= 3000
    assert found.timed_out == 0
    assert printed < 70


def test_a_second_signal_ends_it_at_once(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    broker.fill(topic, [b"%05d " % number + b"x" * 994 for number in range(3000)])
    read, write = os.pipe()
    tail = shell.start("q-tail", f"{topic}/me", "--drain-timeout", "30s", *broker.flags, stdout=write)
    os.close(write)
    wait_pipe_full(read)
    tail.signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        tail.process.wait(1.2)
    begun = time.monotonic()
    tail.signal(signal.SIGTERM)
    done = tail.wait(5)
    assert (done.status, done.err) == (
        128 + signal.SIGTERM,
        "q-tail: ended at once by a second SIGTERM; messages that were in flight will be delivered again\n",
    )
    assert time.monotonic() - begun < 1
    os.close(read)


@pytest.mark.parametrize("number", NUMBERS)
def test_two_signals_within_a_moment_are_one(shell: Shell, broker: Broker, topic: str, number: signal.Signals) -> None:
    broker.create(topic, "me")
    broker.fill(topic, [b"%05d " % number + b"x" * 994 for number in range(3000)])
    read, write = os.pipe()
    tail = shell.start("q-tail", f"{topic}/me", "--drain-timeout", "0.6s", *broker.flags, stdout=write)
    os.close(write)
    wait_pipe_full(read)
    tail.signal(number)
    time.sleep(0.05)
    tail.signal(number)
    done = tail.wait(9)
    assert (done.status, done.err) == (stopped_by(number), "")
    wait_until(lambda: broker.depth(topic, "me").in_flight == 0)
    assert broker.depth(topic, "me").timed_out == 0
    os.close(read)


def test_while_the_broker_is_away(
    shell: Shell, broker: Broker, topic: str, make_proxy: Callable[[Broker], Proxy]
) -> None:
    proxy = make_proxy(broker)
    tail = shell.start("q-tail", f"{topic}/me", *proxy.flags)
    broker.wait_clients(topic, "me")
    proxy.refuse()
    tail.wait_err("trying again")
    begun = time.monotonic()
    tail.signal(signal.SIGINT)
    assert tail.wait(5).status == -signal.SIGINT
    assert time.monotonic() - begun < 2
