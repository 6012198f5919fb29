"""q-tail -n: exactly so many messages, over all topics and brokers; exactly those are acknowledged."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from conftest import MakeBroker
from harness.brokers import Broker
from harness.proxy import Proxy
from harness.shell import Shell

pytestmark = pytest.mark.forks


@pytest.mark.parametrize("count", [1, 7, 2600])
def test_so_many_and_the_rest_stays_untouched(shell: Shell, broker: Broker, topic: str, count: int) -> None:
    lines = [b"%05d" % number for number in range(5000)]
    broker.create(topic, "me")
    broker.fill(topic, lines)
    done = shell.run("q-tail", f"{topic}/me", "-n", str(count), *broker.flags)
    assert (done.status, done.err) == (0, "")
    assert len(done.lines) == count
    assert broker.depth(topic, "me").held == 5000 - count
    rest = broker.drain(topic, "me")
    assert sorted(done.lines + [message.body for message in rest]) == lines
    # A message that was delivered and given back would say so.
    assert {message.attempts for message in rest} == {1}


def test_over_several_topics_and_brokers(shell: Shell, make_broker: MakeBroker, topic: str) -> None:
    brokers = [make_broker(), make_broker()]
    topics = [f"{topic}.{nth}" for nth in range(3)]
    for nth, broker in enumerate(brokers):
        for name in topics:
            broker.create(name, "me")
            broker.fill(name, [b"%s broker %d %03d" % (name.encode(), nth, number) for number in range(100)])
    words = [*(f"{name}/me" for name in topics), *brokers[0].flags, *brokers[1].flags]
    seen: list[bytes] = []
    for count in (1, 4, 95, 200):
        done = shell.run("q-tail", *words, "-n", str(count))
        assert (done.status, done.err) == (0, "")
        assert len(done.lines) == count
        seen += done.lines
        assert sum(broker.depth(name, "me").held for broker in brokers for name in topics) == 600 - len(seen)
    rest = [message for broker in brokers for name in topics for message in broker.drain(name, "me")]
    assert len(set(seen)) == 300
    assert len({*seen, *(message.body for message in rest)}) == 600
    # Ready counts wander between connections, and one may be overtaken by messages: then a run gives some back, once.
    assert max(message.attempts for message in rest) <= 1 + 4


def test_the_only_messages_are_at_the_last_of_many(shell: Shell, broker: Broker, topic: str) -> None:
    names = [f"{topic}.{nth}" for nth in range(6)]
    for name in names:
        broker.create(name, "me")
    broker.fill(names[-1], [b"x"] * 3)
    begun = time.monotonic()
    done = shell.run("q-tail", *(f"{name}/me" for name in names), "-n", "1", *broker.flags)
    assert done.out == b"x\n"
    assert time.monotonic() - begun < 4
    assert broker.wait_held(names[-1], "me", 2)


def test_fewer_than_that_are_waited_for(shell: Shell, broker: Broker, topic: str) -> None:
    tail = shell.start("q-tail", f"{topic}/me", "-n", "3", *broker.flags)
    broker.wait_clients(topic, "me")
    for number in range(3):
        assert tail.is_running
        broker.fill(topic, [b"%d" % number])
        tail.wait_out(2 * number + 2)
    assert tail.wait(10).out == b"0\n1\n2\n"


def test_with_little_in_flight(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    broker.fill(topic, [b"x"] * 100)
    done = shell.run("q-tail", f"{topic}/me", "-n", "50", "--max-in-flight", "3", *broker.flags)
    assert len(done.lines) == 50
    assert broker.depth(topic, "me").held == 50


def test_a_lost_connection_does_not_change_the_count(
    shell: Shell, make_broker: MakeBroker, topic: str, make_proxy: Callable[[Broker], Proxy]
) -> None:
    broker = make_broker("--msg-timeout=1s")
    proxy = make_proxy(broker)
    broker.create(topic, "me")
    tail = shell.start("q-tail", f"{topic}/me", "-n", "30", *proxy.flags)
    broker.fill(topic, [b"%d" % number for number in range(10)])
    tail.wait_out(20)
    broker.wait_held(topic, "me", 0)  # what was not acknowledged before the cut would come again
    proxy.cut()
    broker.fill(topic, [b"%d" % number for number in range(10, 40)])
    done = tail.wait()
    assert done.status == 0
    assert len(done.lines) == 30
    held = broker.wait_held(topic, "me", 40 - len(set(done.lines)), 5).held
    assert 10 <= held <= 20


@pytest.mark.parametrize("count", ["0", "-1", "x", "1.5"])
def test_a_count_that_cannot_be(shell: Shell, count: str) -> None:
    done = shell.run("q-tail", "topic/me", f"-n{count}")
    assert done.status == 2
    assert "'-n'" in done.err
