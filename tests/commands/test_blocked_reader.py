"""A reader that stalls costs neither the connection nor an attempt: what is held is touched."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

from conftest import MakeBroker
from harness.brokers import Broker
from harness.proxy import Proxy
from harness.shell import Shell
from harness.waiting import pass_time, wait_pipe_full, wait_until


def test_a_stall_longer_than_the_message_timeout(
    shell: Shell, make_broker: MakeBroker, topic: str, make_proxy: Callable[[Broker], Proxy]
) -> None:
    broker = make_broker("--msg-timeout=1s")
    proxy = make_proxy(broker)
    broker.create(topic, "me")
    broker.fill(topic, [b"%04d " % number + b"x" * 995 for number in range(3000)])
    read, write = os.pipe()
    words = ["-n", "3000", "-f", "envelope", *proxy.flags]
    tail = shell.start("q-tail", f"{topic}/me", *words, stdout=write)
    os.close(write)
    wait_pipe_full(read)
    pass_time(3.2)
    assert tail.is_running
    assert proxy.connections == 1
    got = bytearray()
    with open(read, "rb", buffering=0) as source:
        while chunk := source.read(1 << 20):
            got += chunk
    done = tail.wait()
    assert (done.status, done.err) == (0, "")
    told = [json.loads(line) for line in bytes(got).splitlines()]
    assert len({each["id"] for each in told}) == len(told) == 3000
    assert {each["attempts"] for each in told} == {1}
    assert proxy.connections == 1
    found = broker.depth(topic, "me")
    assert (found.held, found.timed_out, found.requeued) == (0, 0, 0)


def test_memory_stays_small_however_much_waits(shell: Shell, make_broker: MakeBroker, topic: str) -> None:
    """A hundred large messages would be a hundred megabytes: no more are fetched than a few."""
    broker = make_broker()
    broker.create(topic, "me")
    for _ in range(25):
        broker.fill(topic, [b"x" * 1_000_000] * 4)
    read, write = os.pipe()
    tail = shell.start("q-tail", f"{topic}/me", *broker.flags, stdout=write)
    os.close(write)
    wait_until(lambda: broker.depth(topic, "me").in_flight > 1)

    def is_quiet() -> bool:
        before = broker.depth(topic, "me").in_flight
        pass_time(0.5)
        return broker.depth(topic, "me").in_flight == before

    wait_until(is_quiet)
    with open(f"/proc/{tail.pid}/status") as status:
        peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    os.close(read)
    assert tail.wait(10).status == 0
    assert peak < 120_000  # kB
    assert broker.wait_held(topic, "me", 100)
