"""Two brokers: every message to one of them, or with --replicate to both."""

from __future__ import annotations

import signal
import subprocess
from collections import Counter
from collections.abc import Callable

import pytest
from conftest import MakeBroker
from harness.brokers import Broker
from harness.metrics import WITH_METRICS, wait_confirmed
from harness.proxy import Proxy
from harness.shell import Shell
from harness.waiting import wait_until

pytestmark = pytest.mark.forks

MakeProxy = Callable[[Broker], Proxy]
LINES = [b"%05d" % number for number in range(20_000)]
TEXT = b"\n".join(LINES) + b"\n"


@pytest.fixture
def both(make_broker: MakeBroker) -> tuple[Broker, Broker]:
    return make_broker(), make_broker()


def test_both_get_their_share(shell: Shell, both: tuple[Broker, Broker], topic: str) -> None:
    done = shell.run("q-pipe", topic, "--batch-count", "100", *both[0].flags, *both[1].flags, input=TEXT)
    assert done.status == 0, done.err
    shares = [broker.bodies(topic) for broker in both]
    assert sorted(shares[0] + shares[1]) == LINES
    assert min(map(len, shares)) > 2000


def test_one_that_is_lost_is_done_without(
    shell: Shell, both: tuple[Broker, Broker], topic: str, make_proxy: MakeProxy
) -> None:
    proxy = make_proxy(both[0])
    flags = ["--nsqd", proxy.address, "--nsqd", both[1].address]
    pipe = shell.start("q-pipe", topic, "--batch-count", "100", *flags, stdin=subprocess.PIPE)
    proxy.wait_connections(1)
    pipe.feed(TEXT[: len(TEXT) // 2])
    wait_until(lambda: both[0].published(topic) > 0 or both[1].published(topic) > 0)
    proxy.refuse()
    pipe.feed(TEXT[len(TEXT) // 2 :])
    pipe.end_input()
    done = pipe.wait()
    assert done.status == 0, done.err
    seen = Counter(both[0].bodies(topic) + both[1].bodies(topic))
    assert sorted(seen) == LINES


def test_one_that_is_down_from_the_start_is_said_and_done_without(
    shell: Shell, both: tuple[Broker, Broker], topic: str
) -> None:
    both[0].kill()
    done = shell.run("q-pipe", topic, *both[0].flags, *both[1].flags, input=b"a\nb\n")
    assert done.status == 0
    assert both[1].bodies(topic) == [b"a", b"b"]


def test_two_that_are_down_are_two_reasons(shell: Shell, both: tuple[Broker, Broker], topic: str) -> None:
    for broker in both:
        broker.kill()
    done = shell.run("q-pipe", topic, *both[0].flags, *both[1].flags, input=b"a\nb\n")
    assert done.status == 3
    assert len(done.err_lines) == 1
    assert both[0].address in done.err
    assert both[1].address in done.err


# ── --replicate ──


def test_everything_to_both(shell: Shell, both: tuple[Broker, Broker], topic: str) -> None:
    done = shell.run("q-pipe", topic, "--replicate", *both[0].flags, *both[1].flags, input=TEXT)
    assert done.status == 0
    assert done.err.startswith(f"q-pipe: {len(LINES):,} messages ")
    for broker in both:
        assert sorted(broker.bodies(topic)) == LINES


def test_one_that_is_away_is_waited_for(
    shell: Shell, both: tuple[Broker, Broker], topic: str, make_proxy: MakeProxy
) -> None:
    proxy = make_proxy(both[0])
    flags = ["--nsqd", proxy.address, "--nsqd", both[1].address]
    pipe = shell.start("q-pipe", topic, *WITH_METRICS, "--replicate", *flags, stdin=subprocess.PIPE)
    pipe.feed(b"before\n")
    wait_confirmed(pipe, 2)  # one message at each of the two
    proxy.refuse()
    pipe.feed(b"meanwhile\n")
    wait_until(lambda: both[1].published(topic) == 2)
    pipe.end_input()
    with pytest.raises(subprocess.TimeoutExpired):
        pipe.process.wait(0.3)
    proxy.accept()
    done = pipe.wait()
    assert done.status == 0, done.err
    for broker in both:
        assert broker.bodies(topic) == [b"before", b"meanwhile"]


def test_one_that_is_away_for_too_long_is_the_end_and_nothing_is_called_confirmed(
    shell: Shell, both: tuple[Broker, Broker], topic: str
) -> None:
    both[0].kill()
    words = ["--replicate", "--retry-timeout", "500ms", *both[0].flags, *both[1].flags]
    done = shell.run("q-pipe", topic, *words, input=b"a\nb\n")
    assert done.status == 1
    assert f"{both[0].address}: no broker could be reached for 0.5 s" in done.err
    assert "confirmed: 0 messages, 0 bytes" in done.err_lines[-1]


def test_one_too_big_for_one_of_them_is_named_once(shell: Shell, make_broker: MakeBroker, topic: str) -> None:
    small, large = make_broker("--max-msg-size=100"), make_broker()
    words = ["--replicate", "--on-oversize", "skip", *small.flags, *large.flags]
    done = shell.run("q-pipe", topic, *words, input=b"a\n" + b"x" * 101 + b"\nb\n")
    assert done.status == 0, done.err
    assert len([line for line in done.err_lines if "message 2 was not sent" in line]) == 1
    assert small.bodies(topic) == [b"a", b"b"]
    assert [body for body in large.bodies(topic) if len(body) == 1] == [b"a", b"b"]


@pytest.mark.slow
def test_a_signal_while_one_is_away(shell: Shell, both: tuple[Broker, Broker], topic: str) -> None:
    pipe = shell.start(
        "q-pipe", topic, *WITH_METRICS, "--replicate", *both[0].flags, *both[1].flags, stdin=subprocess.PIPE
    )
    pipe.feed(b"before\n")
    wait_confirmed(pipe, 2)  # one message at each of the two
    both[0].kill()
    pipe.feed(b"meanwhile\n")
    wait_until(lambda: both[1].published(topic) == 2)
    pipe.signal(signal.SIGINT)
    done = pipe.wait(15)
    assert done.status == -signal.SIGINT
    assert "confirmed: 1 message, 7 bytes of input" in done.err_lines[-1]
