"""--topic-pattern: every topic that matches from the first second on, and those that come later."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import MakeBroker
from harness.archives import finished, lines
from harness.brokers import NSQD, Broker, Lookupd
from harness.shell import Shell
from harness.waiting import wait_until


def topics_in(output: Path) -> set[str]:
    return {path.name.split("_")[0] for path in finished(output)}


NAME = ["--filename-format", "<TOPIC>_<REV>.log", "--sync-interval", "50ms"]


def test_topics_of_an_nsqd_now_and_later(shell: Shell, make_broker: MakeBroker, tmp_path: Path) -> None:
    broker = make_broker()
    for name in ("events.a", "events.b", "other"):
        broker.fill(name, [name.encode()])
    words = ["--topic-pattern", "^events[.]", "--topic-refresh", "100ms", "-o", tmp_path / "a", *NAME]
    running = shell.start("q-to-file", *words, *broker.flags)
    wait_until(lambda: all(broker.depth(name, "q-to-file").clients for name in ("events.a", "events.b")))
    broker.fill("events.later", [b"events.later"] * 3)
    running.wait_err("found topic events.later")
    wait_until(lambda: broker.depth("events.later", "q-to-file").held == 0)
    running.signal(signal.SIGTERM)
    assert running.wait(10).status == 0
    assert sorted(lines(tmp_path / "a")) == [b"events.a", b"events.b", *[b"events.later"] * 3]
    assert topics_in(tmp_path / "a") == {"events.a", "events.b", "events.later"}
    assert broker.channels("other") == []


def test_a_glob_means_whole_names(shell: Shell, make_broker: MakeBroker, tmp_path: Path) -> None:
    broker = make_broker()
    for name in ("ev.a", "ev.b", "prev.a"):
        broker.fill(name, [name.encode()])
    words = ["--topic-glob", "ev.*", "--channel", "arch", "-o", tmp_path / "a", "--until-empty", *NAME]
    assert shell.run("q-to-file", *words, *broker.flags).status == 0
    assert topics_in(tmp_path / "a") == {"ev.a", "ev.b"}
    assert broker.channels("ev.a") == ["arch"]


def test_a_topic_that_is_given_keeps_its_channel(shell: Shell, make_broker: MakeBroker, tmp_path: Path) -> None:
    broker = make_broker()
    for name in ("ev.a", "ev.b"):
        broker.fill(name, [name.encode()])
    words = ["ev.a/mine", "--topic-pattern", "ev", "-o", tmp_path / "a", "--until-empty", *NAME]
    assert shell.run("q-to-file", *words, *broker.flags).status == 0
    assert (broker.channels("ev.a"), broker.channels("ev.b")) == (["mine"], ["q-to-file"])
    assert sorted(lines(tmp_path / "a")) == [b"ev.a", b"ev.b"]


def test_no_topic_yet_is_waited_for(shell: Shell, make_broker: MakeBroker, tmp_path: Path) -> None:
    broker = make_broker()
    running = shell.start("q-to-file", "--topic-pattern", "^ev", "-o", tmp_path / "a", *NAME, *broker.flags)
    running.wait_err("no topic matches yet; looking again every second")
    broker.fill("events", [b"first"])
    wait_until(lambda: broker.depth("events", "q-to-file").clients == 1)
    wait_until(lambda: broker.depth("events", "q-to-file").held == 0)
    running.signal(signal.SIGTERM)
    assert running.wait(10).status == 0
    assert lines(tmp_path / "a") == [b"first"]


def test_no_topic_at_all_is_empty(shell: Shell, make_broker: MakeBroker, tmp_path: Path) -> None:
    words = ["--topic-pattern", "^ev", "-o", tmp_path / "a", "--until-empty", *make_broker().flags]
    done = shell.run("q-to-file", *words)
    assert (done.status, done.err_lines[0]) == (0, "q-to-file: no topic matches: nothing to read")
    done = shell.run("q-to-file", "-q", *words)
    assert (done.status, done.err) == (0, "")


@pytest.fixture
def nsqds(tmp_path: Path, make_lookupd: Callable[[], Lookupd]) -> Iterator[tuple[Lookupd, list[Broker]]]:
    """Two nsqds, and an nsqlookupd that knows of both; q-broker registers nowhere yet."""
    lookupd = make_lookupd()
    made = [Broker(NSQD, tmp_path / f"nsqd-{nth}", [f"--lookupd-tcp-address={lookupd.address}"]) for nth in range(2)]
    for nsqd in made:
        nsqd.start()
    yield lookupd, made
    for nsqd in made:
        nsqd.close()


@pytest.mark.nsqd
def test_nsqlookupds_are_all_asked_and_one_may_be_down(
    shell: Shell, topic: str, tmp_path: Path, nsqds: tuple[Lookupd, list[Broker]]
) -> None:
    lookupd, brokers = nsqds
    for nth, broker in enumerate(brokers):
        broker.fill(f"{topic}.{nth}", [b"%d" % nth])
        wait_until(lambda nth=nth: lookupd.producers(f"{topic}.{nth}") == 1)  # type: ignore[misc]
    words = ["--topic-pattern", topic, "-o", tmp_path / "a", "--topic-refresh", "100ms", *NAME, *lookupd.flags]
    running = shell.start("q-to-file", *words, "--lookupd", "127.0.0.1:1")
    wait_until(lambda: all(b.depth(f"{topic}.{n}", "q-to-file").clients for n, b in enumerate(brokers)))
    brokers[1].fill(f"{topic}.late", [b"late"])
    wait_until(lambda: brokers[1].depth(f"{topic}.late", "q-to-file").clients)
    wait_until(lambda: brokers[1].depth(f"{topic}.late", "q-to-file").held == 0)
    running.signal(signal.SIGTERM)
    assert running.wait(10).status == 0
    assert sorted(lines(tmp_path / "a")) == [b"0", b"1", b"late"]
    assert running.err.count("127.0.0.1:1") == 1  # said once, not once a topic


def test_nobody_who_knows_the_topics(shell: Shell, tmp_path: Path) -> None:
    done = shell.run("q-to-file", "--topic-pattern", "x", "-o", tmp_path / "a", "--lookupd", "127.0.0.1:1")
    assert done.status == 3
    assert "no nsqlookupd answers which topics there are" in done.err_lines[-1]
