"""q-tail and a broker that goes away: it is back within a second of it, and nothing is lost."""

from __future__ import annotations

import signal
from collections.abc import Callable

from conftest import MakeBroker
from harness.brokers import Broker
from harness.proxy import Proxy
from harness.shell import Shell
from harness.waiting import wait_until


def test_connections_cut_again_and_again(
    shell: Shell, make_broker: MakeBroker, topic: str, make_proxy: Callable[[Broker], Proxy]
) -> None:
    broker = make_broker("--msg-timeout=1s")
    proxy = make_proxy(broker)
    broker.create(topic, "me")
    tail = shell.start("q-tail", f"{topic}/me", *proxy.flags)
    expected = []
    for cut in range(3):
        lines = [b"%d-%04d" % (cut, number) for number in range(3000)]
        expected += lines
        proxy.wait_connections(cut + 1, 1.5)  # a first try within a second, and some room for a busy machine
        broker.wait_clients(topic, "me")
        broker.fill(topic, lines)
        tail.wait_out(len(b"".join(lines)) * cut + 7)
        proxy.cut()
    wait_until(lambda: len(set(tail.out.split(b"\n"))) == len(expected) + 1)
    broker.wait_held(topic, "me", 0)
    tail.signal(signal.SIGTERM)
    done = tail.wait()
    assert done.status == 0, done.err
    assert sorted(set(done.lines)) == expected


def test_a_broker_that_restarts(shell: Shell, make_broker: MakeBroker, topic: str) -> None:
    broker = make_broker()
    tail = shell.start("q-tail", f"{topic}/me", "-n", "2", *broker.flags)
    broker.wait_clients(topic, "me")
    broker.fill(topic, [b"before"])
    tail.wait_out(7)
    broker.wait_held(topic, "me", 0)  # else it comes again, and is the second message
    broker.stop()
    tail.wait_err(f"q-tail: lost {broker.address}: the broker closed the connection; trying again\n")
    broker.start()
    broker.wait_clients(topic, "me")
    broker.fill(topic, [b"after"])
    done = tail.wait()
    assert (done.status, done.out) == (0, b"before\nafter\n")
    assert done.err_lines[-1] == f"q-tail: {broker.address} is back"


def test_one_of_two_is_away_and_the_other_is_read(shell: Shell, make_broker: MakeBroker, topic: str) -> None:
    brokers = [make_broker(), make_broker()]
    brokers[0].kill()
    tail = shell.start("q-tail", f"{topic}/me", "-n", "2", *brokers[0].flags, *brokers[1].flags)
    brokers[1].wait_clients(topic, "me")
    brokers[1].fill(topic, [b"there"])
    tail.wait_out(6)
    brokers[0].start()
    brokers[0].wait_clients(topic, "me")
    brokers[0].fill(topic, [b"back"])
    done = tail.wait()
    assert (done.status, done.out) == (0, b"there\nback\n")
    assert brokers[0].address in done.err
