"""q-bridge and signals: what is safe is finished, the rest goes back at once, and the counts add up."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable

import pytest
from conftest import MakeBroker
from harness.brokers import Broker
from harness.proxy import Proxy
from harness.shell import Shell, stopped_by
from harness.waiting import wait_until


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_in_the_middle_of_the_work(shell: Shell, broker: Broker, topic: str, number: signal.Signals) -> None:
    lines = [b"%06d" % nth for nth in range(50_000)]
    broker.create(topic, "q-bridge")
    broker.fill(topic, lines)
    bridge = shell.start("q-bridge", topic, "--to", f"{topic}.out", "--rate", "20000", *broker.flags)
    wait_until(lambda: broker.published(f"{topic}.out") > 1000)
    bridge.signal(number)
    done = bridge.wait()
    assert done.status == stopped_by(number), done.err
    moved = broker.published(f"{topic}.out")
    assert 1000 < moved < len(lines)
    # nsqd may have put one more in flight than it could send.
    wait_until(lambda: broker.depth(topic, "q-bridge").held == len(lines) - moved)
    read = re.search(r"q-bridge: ([\d,]+) messages", done.err)
    assert read is not None
    told = [int(count.replace(",", "")) for count in re.findall(r"([\d,]+) (?:routed|requeued)", done.err)]
    assert sum(told) == int(read[1].replace(",", ""))
    assert told[0] == moved


def test_while_the_destination_is_away(
    shell: Shell, make_broker: MakeBroker, make_proxy: Callable[[Broker], Proxy], topic: str
) -> None:
    here, there = make_broker(), make_broker()
    proxy = make_proxy(there)
    bridge = shell.start("q-bridge", topic, "--to", topic, "--to-nsqd", proxy.address, *here.flags)
    here.wait_clients(topic, "q-bridge")
    proxy.refuse()
    here.fill(topic, [b"%d" % nth for nth in range(100)])
    wait_until(lambda: here.depth(topic, "q-bridge").in_flight == 100)
    bridge.signal(signal.SIGTERM)
    done = bridge.wait(30)
    assert done.status == 0
    read, requeued = re.search(r"q-bridge: (\d+) messages? ", done.err), re.search(r"(\d+) requeued", done.err)
    assert read is not None
    assert (requeued[1] if requeued else "0") == read[1]
    assert " 0 routed" in done.err
    wait_until(lambda: here.depth(topic, "q-bridge").held == 100)


def test_nobody_to_read_from_or_to_send_to(shell: Shell, broker: Broker, topic: str) -> None:
    done = shell.run("q-bridge", topic, "--to", "out", "--nsqd", "127.0.0.1:1")
    assert (done.status, "127.0.0.1:1: nothing listens there" in done.err) == (3, True)
    done = shell.run("q-bridge", topic, "--to", "out", "--to-nsqd", "127.0.0.1:1", *broker.flags)
    assert (done.status, "127.0.0.1:1: nothing listens there" in done.err) == (3, True)
    assert len(done.err_lines) == 1
    assert broker.channels(topic) == []
