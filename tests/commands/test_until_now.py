"""--until-now takes what was there at the start, and ends though a producer never stops."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from conftest import MakeBroker
from harness.brokers import NSQD, Broker
from harness.shell import Shell
from harness.waiting import wait_until

# nsqd tells only how many there are, and hands out what it keeps in memory and on disk by turns: newer ones may come
# in the place of older ones.
OLD = [b"old %05d" % number for number in range(5000)]


@contextmanager
def producing(broker: Broker, topic: str) -> Iterator[None]:
    """A producer that does not stop: a thousand messages a request, one request after the other."""
    stop = threading.Event()
    new = b"\n".join(b"new %04d" % number for number in range(1000))

    def produce() -> None:
        while not stop.is_set():
            broker.tell(f"/mpub?topic={topic}", new)

    thread = threading.Thread(target=produce)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(20)


def test_it_ends_though_a_producer_never_stops(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    broker.fill(topic, OLD)
    with producing(broker, topic):
        wait_until(lambda: broker.depth(topic, "me").held > 6000)
        done = shell.run("q-tail", f"{topic}/me", "--until-now", *broker.flags)
    assert (done.status, done.err) == (0, "")
    # At least what was there: the producer had added to it before it was counted, and nothing after that was taken.
    assert len(done.lines) > 6000
    assert broker.kind == NSQD or set(OLD) <= set(done.lines)
    published = broker.published(topic)
    assert len(done.lines) < published
    assert broker.wait_held(topic, "me", published - len(done.lines))


def test_the_others_have_it_too(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "bridge")
    broker.create(topic, "archive")
    broker.create(f"{topic}.copy", "c")
    broker.fill(topic, OLD)
    with producing(broker, topic):
        bridged = shell.run("q-bridge", f"{topic}/bridge", "--to", f"{topic}.copy", "--until-now", "-q", *broker.flags)
        archived = shell.run(
            "q-to-file", f"{topic}/archive", "--output", "out", "--until-now", "--sync-interval", "100ms", "-q",
            *broker.flags,
        )  # fmt: skip
    assert (bridged.status, bridged.err, archived.status, archived.err) == (0, "", 0, "")
    copied = broker.depth(f"{topic}.copy", "c").held
    lines = [line for path in shell.home.glob("out/*.log") for line in path.read_bytes().splitlines()]
    assert broker.kind == NSQD or set(OLD) <= set(lines)
    assert len(lines) >= len(OLD)
    published = broker.published(topic)
    assert len(OLD) <= copied < published
    assert broker.wait_held(topic, "bridge", published - copied)
    assert broker.wait_held(topic, "archive", published - len(lines))


def test_nothing_there_is_the_end(shell: Shell, broker: Broker, topic: str) -> None:
    done = shell.run("q-tail", f"{topic}/me", f"{topic}.other/me", "--until-now", *broker.flags)
    assert (done.status, done.out) == (0, b"")
    assert done.err_lines == [
        f"q-tail: {name} is a new topic: nothing was ever published to it" for name in (topic, f"{topic}.other")
    ]


def test_what_others_hold_counts_as_there(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "me")
    broker.fill(topic, [b"held"])
    reader = broker.reader(topic, "me", ready=1)
    held = reader.take(1)
    reader.ready(0)
    tail = shell.start("q-tail", f"{topic}/me", "--until-now", *broker.flags)
    broker.wait_clients(topic, "me", 2)
    with pytest.raises(subprocess.TimeoutExpired):
        tail.process.wait(1.2)
    reader.requeue(held)
    assert tail.wait(10).lines == [b"held"]
    reader.close()


def test_each_broker_has_its_own_number(shell: Shell, make_broker: MakeBroker, topic: str) -> None:
    brokers = [make_broker(), make_broker()]
    for broker, count in zip(brokers, (10, 3000), strict=True):
        broker.create(topic, "me")
        broker.fill(topic, [b"%d" % count] * count)
    with producing(brokers[0], topic):
        done = shell.run("q-tail", f"{topic}/me", "--until-now", *brokers[0].flags, *brokers[1].flags)
    assert done.status == 0
    assert done.lines.count(b"3000") == 3000
    assert done.lines.count(b"10") == 10


def test_one_or_the_other(shell: Shell, broker: Broker, topic: str) -> None:
    done = shell.run("q-tail", f"{topic}/me", "--until-now", "--until-empty", *broker.flags)
    assert (done.status, done.err_lines) == (
        2,
        ["q-tail: give --until-empty or --until-now, not both (see q-tail --help)"],
    )
    done = shell.run("q-tail", f"{topic}/me", "--fail-if-paused", *broker.flags)
    assert done.status == 2
