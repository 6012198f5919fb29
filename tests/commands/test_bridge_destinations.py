"""q-bridge and several brokers: finished only when every destination answered OK; one that is slow, down or gone."""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import MakeBroker
from harness.brokers import Broker
from harness.proxy import Proxy
from harness.shell import Shell
from harness.waiting import pass_time, wait_until

MakeProxy = Callable[[Broker], Proxy]
LINES = [b"%05d" % number for number in range(20_000)]


@pytest.mark.parametrize("balance", ["fastest", "round-robin"])
def test_several_share_the_work(shell: Shell, make_broker: MakeBroker, topic: str, balance: str) -> None:
    here, one, two = make_broker(), make_broker(), make_broker()
    here.fill(topic, LINES)
    words = ["--to", topic, "--to-nsqd", one.address, "--to-nsqd", two.address, "--balance", balance]
    done = shell.run("q-bridge", topic, *words, "--max-in-flight", "100", "--until-empty", *here.flags)
    assert done.status == 0, done.err
    shares = [broker.bodies(topic) for broker in (one, two)]
    assert sorted(shares[0] + shares[1]) == LINES
    if balance == "round-robin":
        assert min(map(len, shares)) > 5000


def test_one_that_is_lost_is_done_without_and_tried_again(
    shell: Shell, make_broker: MakeBroker, make_proxy: MakeProxy, topic: str
) -> None:
    here, one, two = make_broker(), make_broker(), make_broker()
    proxy = make_proxy(one)
    words = ["--to", topic, "--to-nsqd", proxy.address, "--to-nsqd", two.address, "--balance", "round-robin"]
    bridge = shell.start("q-bridge", topic, *words, "--max-in-flight", "100", *here.flags)
    here.wait_clients(topic, "q-bridge")
    here.fill(topic, LINES[:5000])
    wait_until(lambda: one.published(topic) and two.published(topic))
    proxy.refuse()
    here.fill(topic, LINES[5000:10_000])
    wait_until(lambda: not here.depth(topic, "q-bridge").held)
    before = one.published(topic)
    connections = proxy.connections
    proxy.accept()
    proxy.wait_connections(connections + 1)
    here.fill(topic, LINES[10_000:])
    wait_until(lambda: one.published(topic) > before)
    wait_until(lambda: not here.depth(topic, "q-bridge").held)
    bridge.signal(signal.SIGTERM)
    assert bridge.wait().status == 0
    assert set(one.bodies(topic) + two.bodies(topic)) == set(LINES)


def test_a_destination_that_is_down_loses_nothing(
    shell: Shell, make_broker: MakeBroker, make_proxy: MakeProxy, topic: str
) -> None:
    here, there = make_broker(), make_broker()
    proxy = make_proxy(there)
    words = ["--to", topic, "--to-nsqd", proxy.address, "--max-in-flight", "500"]
    bridge = shell.start("q-bridge", topic, *words, *here.flags)
    here.wait_clients(topic, "q-bridge")
    proxy.refuse()
    here.fill(topic, LINES)
    wait_until(lambda: here.depth(topic, "q-bridge").in_flight == 500)
    pass_time(1.0)
    depth = here.depth(topic, "q-bridge")
    assert (depth.held, depth.in_flight, depth.timed_out) == (len(LINES), 500, 0)  # stopped reading, finished nothing
    proxy.accept()
    wait_until(lambda: not here.depth(topic, "q-bridge").held)
    bridge.signal(signal.SIGTERM)
    assert bridge.wait().status == 0
    assert sorted(there.bodies(topic)) == LINES


def test_one_that_is_slow_stops_the_reading_and_nothing_times_out(
    shell: Shell, make_broker: MakeBroker, make_proxy: MakeProxy, topic: str
) -> None:
    here, there = make_broker("--msg-timeout=4s"), make_broker()
    proxy = make_proxy(there)
    body = b"x" * 50_000
    words = ["--to", topic, "--to-nsqd", proxy.address, "--max-in-flight", "2500"]
    bridge = shell.start("q-bridge", topic, *words, *here.flags)
    here.wait_clients(topic, "q-bridge")
    proxy.stall()
    here.fill(topic, [body + b"%05d" % nth for nth in range(3000)])  # 150 MB
    wait_until(lambda: here.depth(topic, "q-bridge").in_flight > 100)
    peak = 0
    for _ in range(40):
        pass_time(0.2)  # twice the message timeout
        peak = max(peak, _resident(bridge.pid))
    depth = here.depth(topic, "q-bridge")
    assert depth.timed_out == 0
    assert depth.clients == 1
    assert depth.held == 3000
    assert peak < 120 * 1024 * 1024
    proxy.resume()
    wait_until(lambda: not here.depth(topic, "q-bridge").held)
    bridge.signal(signal.SIGTERM)
    assert bridge.wait().status == 0
    assert len(set(there.bodies(topic))) == 3000


def _resident(pid: int) -> int:
    """Bytes in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def test_a_topic_that_is_answered_does_not_finish_what_another_has_not(
    shell: Shell, make_broker: MakeBroker, make_proxy: MakeProxy, topic: str
) -> None:
    """Two topics, and the connection lost between their answers: what one of them has not is still there."""
    here, there = make_broker(), make_broker()
    proxy = make_proxy(there)
    bridge = shell.start("q-bridge", topic, "--to", "a", "--to", "b", "--to-nsqd", proxy.address, *here.flags)
    here.wait_clients(topic, "q-bridge")
    # A PUB of one byte to "a" is 11 bytes: that one arrives whole, and its answer never.
    proxy.cut_after(11)
    here.fill(topic, [b"x"])
    wait_until(lambda: there.published("a") and there.published("b"))
    wait_until(lambda: not here.depth(topic, "q-bridge").held)
    bridge.signal(signal.SIGTERM)
    done = bridge.wait()
    assert "1 routed" in done.err
    assert "sent again after a lost connection" in done.err
    assert set(there.bodies("a")) == set(there.bodies("b")) == {b"x"}
