"""q-bridge TOPIC --to TOPIC: every byte arrives, in another topic or another broker, and is finished only then."""

from __future__ import annotations

import re

import pytest
from conftest import MakeBroker
from harness.brokers import Broker
from harness.shell import Shell
from harness.waiting import wait_until

pytestmark = pytest.mark.forks

ODD = [b"\x00\xff", b"two\nlines", b" ", b"{", b"x" * 100_000, "ü".encode()]


def test_every_byte_arrives_in_order(shell: Shell, broker: Broker, topic: str) -> None:
    lines = [*ODD, *(b"%05d" % number for number in range(20_000))]
    broker.create(topic, "q-bridge")
    broker.fill(topic, lines)
    done = shell.run("q-bridge", topic, "--to", f"{topic}.copy", "--until-empty", *broker.flags)
    assert done.status == 0, done.err
    assert re.fullmatch(
        r"q-bridge: 20,006 messages \(\d+\.\d kB\) in \d+\.\d s(, [\d,]+/s)? read: 20,006 routed\n", done.err
    ), done.err
    copied = broker.bodies(f"{topic}.copy")
    assert sorted(copied) == sorted(lines)
    assert broker.depth(topic, "q-bridge").held == 0


def test_many_sources_and_many_topics(shell: Shell, broker: Broker, topic: str) -> None:
    for name in ("a", "b"):
        broker.fill(f"{topic}.{name}", [b"%s%d" % (name.encode(), nth) for nth in range(100)])
    words = [f"{topic}.a", f"{topic}.b/other", "--to", f"{topic}.x", "--to", f"{topic}.y", "--until-empty"]
    done = shell.run("q-bridge", *words, *broker.flags)
    assert done.status == 0, done.err
    assert "200 messages" in done.err
    assert "200 routed" in done.err  # counted once, though each went to two topics
    for name in ("x", "y"):
        assert len(set(broker.bodies(f"{topic}.{name}"))) == 200
    assert broker.channels(f"{topic}.a") == ["q-bridge"]
    assert broker.channels(f"{topic}.b") == ["other"]


def test_to_another_broker_under_the_same_name(shell: Shell, make_broker: MakeBroker, topic: str) -> None:
    here, there = make_broker(), make_broker()
    here.fill(topic, ODD)
    done = shell.run("q-bridge", topic, "--to", topic, "--to-nsqd", there.address, "--until-empty", *here.flags)
    assert done.status == 0, done.err
    assert there.bodies(topic) == ODD
    assert here.depth(topic, "q-bridge").held == 0


def test_a_count_moves_exactly_so_many(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(topic, "q-bridge")
    broker.fill(topic, [b"%d" % nth for nth in range(50)])
    done = shell.run("q-bridge", topic, "--to", f"{topic}.copy", "-n", "20", *broker.flags)
    assert done.status == 0, done.err
    assert broker.published(f"{topic}.copy") == 20
    broker.wait_held(topic, "q-bridge", 30)


def test_what_comes_later_is_moved_as_it_comes(shell: Shell, broker: Broker, topic: str) -> None:
    bridge = shell.start("q-bridge", topic, "--to", f"{topic}.copy", "-q", *broker.flags)
    broker.wait_clients(topic, "q-bridge")
    for nth in range(3):
        broker.fill(topic, [b"%d" % nth])
        wait_until(lambda: broker.published(f"{topic}.copy") == nth + 1)  # noqa: B023
    bridge.signal(15)
    done = bridge.wait()
    assert (done.status, done.err) == (0, "")
    assert broker.bodies(f"{topic}.copy") == [b"0", b"1", b"2"]


def test_deferred_messages_come_later(shell: Shell, broker: Broker, topic: str) -> None:
    broker.create(f"{topic}.copy", "c")
    broker.fill(topic, [b"a", b"b"])
    done = shell.run("q-bridge", topic, "--to", f"{topic}.copy", "--defer", "1h", "--until-empty", *broker.flags)
    assert done.status == 0, done.err
    assert wait_until(lambda: broker.depth(f"{topic}.copy", "c").deferred == 2)


def test_no_more_than_the_rate(shell: Shell, broker: Broker, topic: str) -> None:
    broker.fill(topic, [b"%d" % nth for nth in range(60)])
    done = shell.run("q-bridge", topic, "--to", f"{topic}.copy", "--rate", "50", "--until-empty", *broker.flags)
    found = re.search(r" in (\d+\.\d) s", done.err)
    assert found is not None, done.err
    assert 1.0 <= float(found[1]) < 5


def test_it_is_listed_and_runs_as_a_word_of_qtools(shell: Shell, broker: Broker, topic: str) -> None:
    assert re.search(rb"^ +bridge +send messages on", shell.run("qtools").out, re.MULTILINE)
    broker.fill(topic, [b"a"])
    done = shell.run("qtools", "bridge", topic, "--to", f"{topic}.copy", "-n", "1", *broker.flags)
    assert done.status == 0, done.err
    assert broker.bodies(f"{topic}.copy") == [b"a"]


def test_with_the_local_broker_and_nothing_named(shell: Shell) -> None:
    shell.run("q-pipe", "letters", input=b"a\nb\n")
    done = shell.run("q-bridge", "letters", "--to", "copies", "--until-empty")
    assert done.status == 0, done.err
    assert shell.run("q-tail", "copies/me", "--until-empty").out == b"a\nb\n"
