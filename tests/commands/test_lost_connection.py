"""q-pipe and a broker that goes away and comes back: nothing is left out, what may be there twice is said."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable

import pytest
from conftest import MakeBroker
from harness.brokers import Broker
from harness.metrics import WITH_METRICS, wait_confirmed
from harness.proxy import Proxy
from harness.shell import Shell
from harness.waiting import wait_until

MakeProxy = Callable[[Broker], Proxy]


def numbered(start: int, stop: int) -> bytes:
    return b"".join([b"line %06d\n" % number for number in range(start, stop)])


def first_seen(bodies: list[bytes]) -> list[bytes]:
    return list(dict.fromkeys(bodies))


def test_connections_cut_again_and_again(shell: Shell, broker: Broker, topic: str, make_proxy: MakeProxy) -> None:
    proxy = make_proxy(broker)
    pipe = shell.start("q-pipe", topic, *proxy.flags, stdin=subprocess.PIPE)
    for cut in range(4):
        pipe.feed(numbered(cut * 5000, (cut + 1) * 5000))
        wait_until(lambda before=cut * 5000: broker.published(topic) > before)
        proxy.cut()
        proxy.wait_connections(cut + 2, 1.5)  # a first try within a second, and some room for a busy machine
    pipe.end_input()
    done = pipe.wait()
    assert done.status == 0, done.err
    bodies = broker.bodies(topic)
    assert sorted(set(bodies)) == numbered(0, 20_000).splitlines()
    if broker.kind == "q-broker":  # nsqd promises no order
        assert first_seen(bodies) == numbered(0, 20_000).splitlines()
    told = [line for line in done.err_lines if "trying again" in line]
    assert len(told) == 4, done.err
    assert all(f"lost {proxy.address}" in line for line in told)


def test_what_was_published_but_not_answered_is_sent_again_and_said(
    shell: Shell, broker: Broker, topic: str, make_proxy: MakeProxy
) -> None:
    proxy = make_proxy(broker)
    pipe = shell.start("q-pipe", topic, *WITH_METRICS, *proxy.flags, stdin=subprocess.PIPE)
    proxy.wait_connections(1)
    pipe.feed(b"confirmed\n")
    wait_confirmed(pipe, 1)
    proxy.stall(answers_only=True)
    pipe.feed(b"maybe\n")
    wait_until(lambda: broker.published(topic) == 2)
    proxy.cut()
    proxy.resume()
    wait_until(lambda: broker.published(topic) == 3)
    pipe.end_input()
    done = pipe.wait()
    assert done.status == 0
    assert done.err_lines[-1].startswith("q-pipe: 2 messages (14 B) in ")
    assert done.err_lines[-1].endswith("; 1 message sent again after a lost connection")
    assert broker.bodies(topic) == [b"confirmed", b"maybe", b"maybe"]


def test_half_a_command_that_arrived_is_no_message(
    shell: Shell, broker: Broker, topic: str, make_proxy: MakeProxy
) -> None:
    proxy = make_proxy(broker)
    pipe = shell.start("q-pipe", topic, *WITH_METRICS, *proxy.flags, stdin=subprocess.PIPE)
    proxy.wait_connections(1)
    pipe.feed(b"first\n")
    wait_confirmed(pipe, 1)
    proxy.cut_after(200)
    pipe.feed(numbered(0, 100))
    pipe.end_input()
    done = pipe.wait()
    assert done.status == 0, done.err
    assert broker.bodies(topic) == [b"first", *numbered(0, 100).splitlines()]


def test_nobody_there_for_a_while(shell: Shell, broker: Broker, topic: str, make_proxy: MakeProxy) -> None:
    proxy = make_proxy(broker)
    pipe = shell.start("q-pipe", topic, *WITH_METRICS, *proxy.flags, stdin=subprocess.PIPE)
    pipe.feed(b"before\n")
    wait_confirmed(pipe, 1)
    proxy.refuse()
    pipe.feed(b"meanwhile\n")
    pipe.wait_err("trying again")
    proxy.accept()
    pipe.wait_err("is back")
    pipe.end_input()
    assert pipe.wait().status == 0
    assert broker.bodies(topic) == [b"before", b"meanwhile"]


def test_a_broker_that_stands_still_for_a_while(shell: Shell, make_broker: MakeBroker, topic: str) -> None:
    broker = make_broker()
    pipe = shell.start("q-pipe", topic, *WITH_METRICS, *broker.flags, stdin=subprocess.PIPE)
    pipe.feed(b"before\n")
    wait_confirmed(pipe, 1)
    broker.freeze()
    pipe.feed(b"meanwhile\n")
    pipe.end_input()
    with pytest.raises(subprocess.TimeoutExpired):
        pipe.process.wait(0.5)  # it may not end before that is confirmed
    broker.thaw()
    assert pipe.wait().status == 0
    assert broker.bodies(topic) == [b"before", b"meanwhile"]


def test_a_broker_that_restarts_and_keeps_its_data(shell: Shell, make_broker: MakeBroker, topic: str) -> None:
    broker = make_broker()
    pipe = shell.start("q-pipe", topic, *broker.flags, stdin=subprocess.PIPE)
    for round_ in range(3):
        pipe.feed(numbered(round_ * 1000, (round_ + 1) * 1000))
        wait_until(lambda: broker.published(topic) > 0)  # it counts from its start
        broker.stop()
        broker.start()
        wait_until(lambda rounds=round_ + 1: pipe.err.count("is back") == rounds)
    pipe.end_input()
    done = pipe.wait()
    assert done.status == 0, done.err
    assert sorted(set(broker.bodies(topic))) == numbered(0, 3000).splitlines()


def test_a_broker_that_was_killed(shell: Shell, make_broker: MakeBroker, topic: str) -> None:
    broker = make_broker()
    pipe = shell.start("q-pipe", topic, *WITH_METRICS, *broker.flags, stdin=subprocess.PIPE)
    pipe.feed(b"before\n")
    wait_confirmed(pipe, 1)
    broker.kill()
    pipe.feed(b"meanwhile\n")
    broker.start()
    pipe.feed(b"after\n")
    pipe.end_input()
    done = pipe.wait()
    assert done.status == 0, done.err
    assert broker.bodies(topic)[-2:] == [b"meanwhile", b"after"]


# ── for good ──


def test_it_gives_up_after_retry_timeout_and_says_how_far_it_came(
    shell: Shell, make_broker: MakeBroker, topic: str
) -> None:
    broker = make_broker()
    pipe = shell.start("q-pipe", topic, *WITH_METRICS, "--retry-timeout", "700ms", *broker.flags, stdin=subprocess.PIPE)
    pipe.feed(b"before\n")
    wait_confirmed(pipe, 1)
    broker.kill()
    begun = time.monotonic()
    pipe.feed(b"too late\n")
    done = pipe.wait()
    assert 0.6 < time.monotonic() - begun < 6
    assert done.status == 1
    assert done.err_lines[-2] == f"q-pipe: {broker.address}: no broker could be reached for 0.7 s"
    assert done.err_lines[-1] == ("q-pipe: confirmed: 1 message, 7 bytes of input; --skip-bytes 7 goes on there")


@pytest.mark.slow
def test_a_signal_ends_the_waiting(shell: Shell, make_broker: MakeBroker, topic: str) -> None:
    broker = make_broker()
    pipe = shell.start("q-pipe", topic, *WITH_METRICS, *broker.flags, stdin=subprocess.PIPE)
    pipe.feed(b"before\n")
    wait_confirmed(pipe, 1)
    broker.kill()
    pipe.feed(b"too late\n")
    pipe.wait_err("trying again")
    pipe.signal(signal.SIGTERM)
    done = pipe.wait(15)
    assert done.status == 1
    assert "confirmed: 1 message, 7 bytes of input" in done.err_lines[-1]
