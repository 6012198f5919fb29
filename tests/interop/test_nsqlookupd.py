"""q-broker in a real NSQ cluster: a real nsqlookupd knows it, and NSQ's own tools find it there."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness.brokers import NSQD, Q_BROKER, Broker, Lookupd, nsqlookupd_binary
from harness.shell import MARK, SESSION, Shell, base_environment
from harness.waiting import wait_until

MakeLookupd = Callable[[], Lookupd]


@pytest.fixture
def join(tmp_path: Path) -> Iterator[Callable[..., Broker]]:
    """Starts brokers that register with nsqlookupds: join(kind, lookupd, …)."""
    brokers: list[Broker] = []

    def make(kind: str, *lookupds: Lookupd, flags: tuple[str, ...] = ()) -> Broker:
        flags = (*(f"--lookupd-tcp-address={one.address}" for one in lookupds), *flags)
        brokers.append(Broker(kind, tmp_path / f"{kind}-{len(brokers)}", flags))
        brokers[-1].start()
        return brokers[-1]

    yield make
    for made in brokers:
        made.close()


def channels(lookupd: Lookupd, topic: str) -> list[str]:
    told: list[str] = json.loads(lookupd.ask("GET", f"/channels?topic={topic}")[1])["channels"]
    return sorted(told)


def topics(lookupd: Lookupd) -> list[str]:
    told: list[str] = json.loads(lookupd.ask("GET", "/topics")[1])["topics"]
    return sorted(told)


def test_topics_and_channels_come_and_go_in_every_nsqlookupd(
    make_lookupd: MakeLookupd, join: Callable[..., Broker]
) -> None:
    one, other = make_lookupd(), make_lookupd()
    broker = join(Q_BROKER, one, other)
    broker.create("t", "c", "e#ephemeral")
    for lookupd in (one, other):
        wait_until(lambda lookupd=lookupd: channels(lookupd, "t") == ["c", "e#ephemeral"])
        (producer,) = json.loads(lookupd.ask("GET", "/lookup?topic=t")[1])["producers"]
        assert (producer["broadcast_address"], producer["tcp_port"]) == ("127.0.0.1", broker.port)
        assert (producer["http_port"], producer["version"]) == (broker.http_port, "1.3.0")
    broker.tell("/channel/delete?topic=t&channel=e%23ephemeral")
    wait_until(lambda: channels(one, "t") == channels(other, "t") == ["c"])
    broker.tell("/topic/delete?topic=t")
    for lookupd in (one, other):
        wait_until(lambda lookupd=lookupd: not lookupd.producers("t"))
    broker.create("u", "c")
    wait_until(lambda: one.producers("u") and other.producers("u"))
    broker.stop()
    wait_until(lambda: not one.producers("u") and not other.producers("u"))


def test_a_nsqlookupd_that_was_away_knows_everything_again(
    make_lookupd: MakeLookupd, join: Callable[..., Broker]
) -> None:
    one, other = make_lookupd(), make_lookupd()
    broker = join(Q_BROKER, one, other)
    broker.create("t", "c")
    wait_until(lambda: channels(one, "t") == channels(other, "t") == ["c"])
    one.kill()
    broker.create("u", "d")
    wait_until(lambda: channels(other, "u") == ["d"])
    one.start()
    wait_until(lambda: topics(one) == ["t", "u"] and channels(one, "u") == ["d"])
    assert broker.log.count("it is tried again until it works") == 1


def test_a_wrong_port_is_named(make_lookupd: MakeLookupd, join: Callable[..., Broker]) -> None:
    lookupd = make_lookupd()
    broker = join(Q_BROKER, flags=(f"--lookupd-tcp-address={lookupd.http}",))
    told = f"nsqlookupd {lookupd.http}: it answers HTTP: that is nsqlookupd's HTTP port, its TCP port is usually 4160"
    wait_until(lambda: told in broker.log, what=lambda: broker.log)


def test_a_new_topic_has_the_channels_of_the_cluster(make_lookupd: MakeLookupd, join: Callable[..., Broker]) -> None:
    lookupd = make_lookupd()
    for channel in ("archive", "metrics", "tail%23ephemeral"):
        lookupd.tell(f"/channel/create?topic=t&channel={channel}")
    broker = join(Q_BROKER, lookupd)
    wait_until(lambda: "registered with nsqlookupd" in broker.log)
    broker.fill("t", [b"first"])
    wait_until(lambda: sorted(broker.channels("t")) == ["archive", "metrics"])
    assert broker.bodies("t", "archive") == broker.bodies("t", "metrics") == [b"first"]


def nsq_tail() -> str | None:
    beside = Path(nsqlookupd_binary() or "").with_name("nsq_tail") if nsqlookupd_binary() else None
    return shutil.which("nsq_tail") or (str(beside) if beside is not None and beside.exists() else None)


@pytest.mark.skipif(nsq_tail() is None, reason="no nsq_tail on PATH, nor beside nsqlookupd")
def test_stock_nsq_tail_finds_it_and_reads(make_lookupd: MakeLookupd, join: Callable[..., Broker]) -> None:
    lookupd = make_lookupd()
    broker = join(Q_BROKER, lookupd)
    bodies = [b"message %d" % number for number in range(200)]
    broker.fill("t", bodies)
    wait_until(lambda: lookupd.producers("t") == 1)
    program = nsq_tail()
    assert program is not None
    done = subprocess.run(
        [program, "-topic=t", "-channel=c", f"-lookupd-http-address={lookupd.http}", "-n=200"],
        env=base_environment() | {MARK: SESSION},
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert sorted(done.stdout.split(b"\n")[:-1]) == sorted(bodies)


@pytest.mark.nsqd
def test_it_shares_a_topic_with_an_nsqd(make_lookupd: MakeLookupd, join: Callable[..., Broker], shell: Shell) -> None:
    lookupd = make_lookupd()
    ours, theirs = join(Q_BROKER, lookupd), join(NSQD, lookupd)
    ours.fill("t", [b"ours %d" % number for number in range(50)])
    theirs.fill("t", [b"theirs %d" % number for number in range(50)])
    wait_until(lambda: lookupd.producers("t") == 2)
    done = shell.run("q-tail", "t/c", "-n", "100", *lookupd.flags)
    assert done.status == 0, done.err
    assert len({*done.lines}) == 100
    assert sum(line.startswith(b"ours") for line in done.lines) == 50
