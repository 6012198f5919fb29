"""nsqlookupd: all are asked, the union counts, one that is down is no failure."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness.brokers import NSQD, Broker, Lookupd
from harness.shell import Shell
from harness.waiting import wait_until

pytestmark = pytest.mark.nsqd  # q-broker registers nowhere yet

MakeLookupd = Callable[[], Lookupd]


class Cluster:
    """Two nsqlookupds, and an nsqd that registers with each."""

    def __init__(self, lookupds: list[Lookupd], room: Path) -> None:
        self.lookupds = lookupds
        self.nsqds = [
            Broker(NSQD, room / f"nsqd-{nth}", [f"--lookupd-tcp-address={lookupd.address}"])
            for nth, lookupd in enumerate(lookupds)
        ]
        for nsqd in self.nsqds:
            nsqd.start()

    @property
    def flags(self) -> list[str]:
        return [word for lookupd in self.lookupds for word in lookupd.flags]

    def create(self, topic: str, *channels: str) -> None:
        """The topic on both, and both nsqlookupds know."""
        for nsqd, lookupd in zip(self.nsqds, self.lookupds, strict=True):
            nsqd.create(topic, *channels)
            wait_until(lambda lookupd=lookupd: lookupd.producers(topic) == 1)


@pytest.fixture
def cluster(make_lookupd: MakeLookupd, tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster([make_lookupd(), make_lookupd()], tmp_path)
    for nsqd, lookupd in zip(made.nsqds, made.lookupds, strict=True):
        wait_until(lambda lookupd=lookupd, nsqd=nsqd: str(nsqd.port) in lookupd.ask("GET", "/nodes")[1].decode())
    yield made
    for nsqd in made.nsqds:
        nsqd.close()


def test_the_union_of_what_they_know_is_read(shell: Shell, cluster: Cluster, topic: str) -> None:
    cluster.create(topic, "me")
    for nth, nsqd in enumerate(cluster.nsqds):
        nsqd.fill(topic, [b"of %d" % nth])
    done = shell.run("q-tail", f"{topic}/me", "--until-empty", *cluster.flags)
    assert (done.status, done.err) == (0, "")
    assert sorted(done.lines) == [b"of 0", b"of 1"]


@pytest.mark.parametrize("flags", [["-n", "1"], ["--until-empty"]])
def test_one_that_is_down_is_said_once_and_done_without(
    shell: Shell, cluster: Cluster, topic: str, flags: list[str]
) -> None:
    cluster.create(topic, "me")
    cluster.lookupds[0].kill()
    cluster.nsqds[1].fill(topic, [b"there"])
    done = shell.run("q-tail", f"{topic}/me", *flags, *cluster.flags)
    assert (done.status, done.out) == (0, b"there\n")
    assert len(done.err_lines) == 1
    assert cluster.lookupds[0].http in done.err


@pytest.mark.parametrize(
    "words",
    [
        ["q-tail", "TOPIC/me", "-n", "1"],
        ["q-tail", "TOPIC/me", "--until-empty"],
        ["q-tail", "TOPIC/me", "--peek"],
        ["q-bridge", "TOPIC/me", "--to", "elsewhere"],
        ["q-to-file", "TOPIC/me", "--output", "out"],
        ["q-to-file", "--topic-pattern", "^t", "--output", "out"],
        ["q-pipe", "TOPIC"],
    ],
)
def test_none_that_answers_is_the_end_in_one_line(shell: Shell, cluster: Cluster, topic: str, words: list[str]) -> None:
    for lookupd in cluster.lookupds:
        lookupd.kill()
    program, *rest = (word.replace("TOPIC", topic) for word in words)
    done = shell.run(program, *rest, *cluster.flags, input=b"")
    assert done.status == 3
    (line,) = done.err_lines
    assert "no nsqlookupd answers" in line
    assert all(lookupd.http.removeprefix("http://") in line for lookupd in cluster.lookupds)


def test_a_topic_that_appears_later_is_found(shell: Shell, cluster: Cluster, topic: str) -> None:
    tail = shell.start("q-tail", f"{topic}/me", "-n", "1", *cluster.flags)
    tail.wait_err(f"no nsqd has the topic {topic} yet; looking again every second")
    cluster.nsqds[0].fill(topic, [b"here it is"])
    assert tail.wait(10).out == b"here it is\n"


@pytest.mark.parametrize("program", ["q-tail", "q-bridge", "q-to-file"])
@pytest.mark.parametrize("flag", ["--until-empty", "--until-now"])
def test_a_topic_that_no_nsqd_has_is_not_waited_for(
    shell: Shell, cluster: Cluster, topic: str, program: str, flag: str
) -> None:
    where = {"q-tail": [], "q-bridge": ["--to", f"{topic}.copy"], "q-to-file": ["--output", "out"]}[program]
    done = shell.run(program, f"{topic}/me", *where, flag, *cluster.flags)
    assert (done.status, done.err_lines[0]) == (0, f"{program}: no nsqd has the topic {topic}: nothing to read")


def test_an_nsqd_that_appears_later_is_found(shell: Shell, cluster: Cluster, topic: str) -> None:
    cluster.nsqds[0].create(topic, "me")
    wait_until(lambda: cluster.lookupds[0].producers(topic) == 1)
    tail = shell.start("q-tail", f"{topic}/me", "-n", "2", *cluster.flags)
    cluster.nsqds[0].fill(topic, [b"first"])
    tail.wait_out(6)
    cluster.create(topic)
    cluster.nsqds[1].fill(topic, [b"second"])
    assert tail.wait(25).out == b"first\nsecond\n"


def test_an_nsqd_that_comes_back_is_found_again(shell: Shell, cluster: Cluster, topic: str) -> None:
    cluster.create(topic, "me")
    tail = shell.start("q-tail", f"{topic}/me", "-n", "2", *cluster.flags)
    cluster.nsqds[0].wait_clients(topic, "me")
    cluster.nsqds[0].fill(topic, [b"before"])
    tail.wait_out(7)
    cluster.nsqds[0].stop()
    tail.wait_err("trying again")
    cluster.nsqds[0].start()
    cluster.nsqds[0].fill(topic, [b"after"])
    done = tail.wait(25)
    assert (done.status, done.out) == (0, b"before\nafter\n")


def test_q_pipe_publishes_to_any_nsqd_there_is(shell: Shell, cluster: Cluster, topic: str) -> None:
    lines = [b"%d" % number for number in range(1000)]
    done = shell.run("q-pipe", topic, "--batch-count", "10", *cluster.flags, input=b"\n".join(lines))
    assert done.status == 0, done.err
    assert sorted(cluster.nsqds[0].bodies(topic) + cluster.nsqds[1].bodies(topic)) == sorted(lines)


def test_q_pipe_replicates_to_every_nsqd_there_is(shell: Shell, cluster: Cluster, topic: str) -> None:
    done = shell.run("q-pipe", topic, "--replicate", *cluster.flags, input=b"a\nb\n")
    assert done.status == 0, done.err
    for nsqd in cluster.nsqds:
        assert nsqd.bodies(topic) == [b"a", b"b"]


def test_q_pipe_waits_for_an_nsqd_when_there_is_none(
    shell: Shell, make_lookupd: MakeLookupd, tmp_path: Path, topic: str
) -> None:
    lookupd = make_lookupd()
    pipe = shell.start("q-pipe", topic, *lookupd.flags, stdin=subprocess.PIPE)
    pipe.feed(b"a\n")
    pipe.end_input()
    pipe.wait_err("no nsqd is known")
    nsqd = Broker(NSQD, tmp_path / "late", [f"--lookupd-tcp-address={lookupd.address}"])
    nsqd.start()
    try:
        assert pipe.wait(20).status == 0
        assert nsqd.bodies(topic) == [b"a"]
    finally:
        nsqd.close()


def test_the_temporary_channel_takes_no_backlog_here_either(shell: Shell, cluster: Cluster, topic: str) -> None:
    cluster.create(topic)
    cluster.nsqds[1].fill(topic, [b"a"])
    done = shell.run("q-tail", topic, *cluster.flags)
    assert done.status == 2
    assert f"{topic} has no channel yet and 1 messages" in done.err or "1 message" in done.err
    assert cluster.nsqds[1].bodies(topic) == [b"a"]


@pytest.mark.parametrize("which", ["nsqd's HTTP", "nsqd's TCP", "nsqlookupd's TCP"])
def test_something_else_for_a_lookupd(shell: Shell, cluster: Cluster, topic: str, which: str) -> None:
    wrong = {
        "nsqd's HTTP": cluster.nsqds[0].http,
        "nsqd's TCP": cluster.nsqds[0].address,
        "nsqlookupd's TCP": cluster.lookupds[0].address,
    }[which]
    done = shell.run("q-tail", f"{topic}/me", "-n", "1", "--lookupd", wrong)
    assert done.status == 3
    assert wrong in done.err
    assert "is it nsqlookupd's HTTP port (usually 4161)?" in done.err  # what the usual ports are, test_address has
    assert "answers 404" in done.err if which == "nsqd's HTTP" else "what listens there does not speak HTTP" in done.err


def test_no_lookupd_there(shell: Shell, topic: str) -> None:
    done = shell.run("q-tail", f"{topic}/me", "-n", "1", "--lookupd", "127.0.0.1:1")
    assert done.status == 3
    assert "127.0.0.1:1: nothing listens there (is it nsqlookupd's HTTP port (usually 4161)?)" in done.err_lines[-1]
