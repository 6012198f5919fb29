"""--checkpoint: a run that was killed goes on; nothing is left out, at most the window is there twice."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
from collections import Counter

import pytest
from harness.brokers import Broker
from harness.shell import Shell
from harness.waiting import wait_until

pytestmark = pytest.mark.forks

BATCH, WINDOW = 50, 3


def killed_until_done(shell: Shell, broker: Broker, topic: str, lines: int, kills: int, seed: int) -> None:
    """Send a file with `kills` kills -9 at random moments; look at what arrived."""
    chance = random.Random(seed)
    text = b"".join([b"line %07d\n" % number for number in range(lines)])
    (shell.home / "input").write_bytes(text)
    words = [
        topic, "input", "--checkpoint", "position",
        "--batch-count", str(BATCH), "--window", str(WINDOW), "--rate", "20000", *broker.flags,
    ]  # fmt: skip
    killed = 0
    while killed < kills:
        before = broker.published(topic)
        pipe = shell.start("q-pipe", *words)
        aim = before + chance.randrange(lines // kills + 1)
        wait_until(lambda aim=aim, pipe=pipe: broker.published(topic) > aim or not pipe.is_running)
        pipe.signal(signal.SIGKILL)
        if pipe.wait().status != -signal.SIGKILL:
            break  # it was faster
        killed += 1
    assert killed >= min(3, kills)
    done = shell.run("q-pipe", *words)
    assert done.status == 0, done.err
    count = Counter(broker.bodies(topic))
    assert sorted(count) == text.splitlines()  # nothing is left out
    twice = sum(count.values()) - len(count)
    assert twice <= killed * BATCH * WINDOW


def test_killed_at_random_moments(shell: Shell, broker: Broker, topic: str) -> None:
    killed_until_done(shell, broker, topic, lines=20_000, kills=4, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_killed_at_many_random_moments(shell: Shell, broker: Broker, topic: str, seed: int) -> None:
    killed_until_done(shell, broker, topic, lines=100_000, kills=20, seed=seed)


def test_a_file_that_grows_is_read_on(shell: Shell, broker: Broker, topic: str) -> None:
    log = shell.home / "log"
    words = [topic, "log", "--checkpoint", "position", *broker.flags]
    log.write_bytes(b"1\n2\n")
    assert shell.run("q-pipe", *words).status == 0
    assert broker.bodies(topic) == [b"1", b"2"]
    again = shell.run("q-pipe", *words)
    assert again.status == 0
    assert again.err_lines[0] == "q-pipe: going on after the 2 messages sent before"
    assert broker.bodies(topic) == []
    with log.open("ab") as file:
        file.write(b"3\n\n4\n")
    assert shell.run("q-pipe", *words).status == 0
    assert broker.bodies(topic) == [b"3", b"4"]


def test_several_files_are_gone_on_with_in_the_right_one(shell: Shell, broker: Broker, topic: str) -> None:
    large = b"x" * (1024 * 1024 + 1)
    for name, text in (("one", b"1\n2\n"), ("two", b"3\n" + large + b"\n4\n"), ("three", b"5\n")):
        (shell.home / name).write_bytes(text)
    words = [topic, "one", "two", "three", "--checkpoint", "position", *broker.flags]
    failed = shell.run("q-pipe", *words)
    assert failed.status == 1
    assert failed.err_lines[-1] == ("q-pipe: confirmed: 3 messages, 6 bytes of input; the same command goes on there")
    before = broker.bodies(topic)
    done = shell.run("q-pipe", *words, "--on-oversize", "skip")
    assert done.status == 0, done.err
    assert before[:3] == [b"1", b"2", b"3"]
    assert broker.bodies(topic) == [b"4", b"5"]


@pytest.mark.parametrize("form", ["envelope", "length32"])
def test_it_knows_the_place_in_every_format(shell: Shell, broker: Broker, topic: str, form: str) -> None:
    bodies = [b"body %d" % number for number in range(50)]
    if form == "envelope":
        text = b"".join([json.dumps({"body": body.decode()}).encode() + b"\n" for body in bodies])
    else:
        text = b"".join([len(body).to_bytes(4, "big") + body for body in bodies])
    (shell.home / "input").write_bytes(text)
    words = [topic, "input", "-f", form, "--checkpoint", "position", *broker.flags]
    pipe = shell.start("q-pipe", *words, "--rate", "100")
    wait_until(lambda: broker.published(topic) >= 20)
    pipe.signal(signal.SIGINT)
    assert pipe.wait().status == -signal.SIGINT
    assert broker.published(topic) < 50
    assert shell.run("q-pipe", *words).status == 0
    assert broker.bodies(topic) == bodies  # each once


def test_stdin_is_gone_on_with_too(shell: Shell, broker: Broker, topic: str) -> None:
    words = [topic, "--checkpoint", "position", *broker.flags]
    pipe = shell.start("q-pipe", *words, stdin=subprocess.PIPE)
    pipe.feed(b"1\n2\n")
    wait_until(lambda: (shell.home / "position").exists() and broker.published(topic) == 2)
    wait_until(lambda: json.loads((shell.home / "position").read_text())["messages"] == 2)
    pipe.signal(signal.SIGKILL)
    pipe.wait()
    assert shell.run("q-pipe", *words, input=b"1\n2\n3\n").status == 0
    assert broker.bodies(topic) == [b"1", b"2", b"3"]


def test_the_checkpoint_of_another_run_is_refused(shell: Shell, broker: Broker, topic: str) -> None:
    (shell.home / "one").write_bytes(b"1\n")
    (shell.home / "two").write_bytes(b"2\n")
    assert shell.run("q-pipe", topic, "one", "--checkpoint", "position", *broker.flags).status == 0
    for words in ([topic, "two"], [f"{topic}.other", "one"], [topic], [topic, "-", "one"]):
        done = shell.run("q-pipe", *words, "--checkpoint", "position", *broker.flags)
        assert done.status == 2
        assert f"the checkpoint position is of another run (topic {topic}, inputs {shell.home}/one)" in done.err
    assert broker.bodies(topic) == [b"1"]


def test_more_files_than_before_are_the_same_run(shell: Shell, broker: Broker, topic: str) -> None:
    (shell.home / "one").write_bytes(b"1\n")
    (shell.home / "two").write_bytes(b"2\n")
    assert shell.run("q-pipe", topic, "one", "--checkpoint", "position", *broker.flags).status == 0
    assert shell.run("q-pipe", topic, "one", "two", "--checkpoint", "position", *broker.flags).status == 0
    (shell.home / "one").write_bytes(b"1\n3\n")
    assert shell.run("q-pipe", topic, "two", "--checkpoint", "position", *broker.flags).status == 0
    assert shell.run("q-pipe", topic, "one", "two", "--checkpoint", "position", *broker.flags).status == 0
    assert broker.bodies(topic) == [b"1", b"2", b"3"]  # what is not read now is not forgotten


@pytest.mark.parametrize("text", [b"", b"{}", b"not json", b"[1]", b'{"file": "x"}', b'{"file": 1e400}'])
def test_what_is_no_checkpoint_is_refused_and_kept(shell: Shell, broker: Broker, topic: str, text: bytes) -> None:
    (shell.home / "position").write_bytes(text)
    done = shell.run("q-pipe", topic, "--checkpoint", "position", *broker.flags, input=b"1\n")
    assert done.status == 2
    assert "position is not a checkpoint of q-pipe: remove it to begin anew" in done.err
    assert (shell.home / "position").read_bytes() == text
    assert broker.published(topic) == 0


def test_a_file_that_has_become_shorter_is_not_the_same(shell: Shell, broker: Broker, topic: str) -> None:
    (shell.home / "log").write_bytes(b"1\n2\n3\n")
    words = [topic, "log", "--checkpoint", "position", *broker.flags]
    assert shell.run("q-pipe", *words).status == 0
    (shell.home / "log").write_bytes(b"1\n")
    done = shell.run("q-pipe", *words)
    assert done.status == 1
    assert (
        "log: the file read last time (up to byte 6) is gone: it is neither log nor any log.*; lines written to it"
        " after that may be lost. The log was read no further; --rotated GLOB says where the file is, --on-missing skip"
        " goes on without it"
    ) in done.err_lines[-1]
    assert broker.bodies(topic) == [b"1", b"2", b"3"]
    again = shell.run("q-pipe", *words, "--on-missing", "skip")
    assert again.status == 1  # something may be missing
    assert "may be lost; going on without" in again.err
    assert broker.bodies(topic) == [b"1"]
    assert shell.run("q-pipe", *words).status == 0  # said once


def test_a_place_where_no_checkpoint_can_be_written(shell: Shell, broker: Broker, topic: str) -> None:
    done = shell.run("q-pipe", topic, "--checkpoint", "no/such/place", *broker.flags, input=b"1\n2\n")
    assert done.status == 3
    told = "q-pipe: cannot write the checkpoint no/such/place: the directory no/such does not exist"
    assert done.err_lines[-1] == told
    assert broker.published(topic) == 0  # said before anything is sent


@pytest.mark.parametrize("follow", [[], ["--follow"]])
def test_a_fifo_is_no_checkpoint(shell: Shell, broker: Broker, topic: str, follow: list[str]) -> None:
    """Nothing is ever read from it: the run would wait for ever, and end by SIGKILL only."""
    (shell.home / "log").write_bytes(b"1\n")
    os.mkfifo(shell.home / "fifo")
    done = shell.run("q-pipe", topic, "log", "--checkpoint", "fifo", *follow, *broker.flags, timeout=10)
    assert done.status == 3
    assert done.err == "q-pipe: cannot write the checkpoint fifo: it is not a regular file\n"


def test_a_crash_leaves_no_litter_and_a_good_checkpoint(shell: Shell, broker: Broker, topic: str) -> None:
    (shell.home / "input").write_bytes(b"".join([b"%d\n" % number for number in range(5000)]))
    done = shell.run("q-pipe", topic, "input", "--checkpoint", "position", "--batch-count", "10", *broker.flags)
    assert done.status == 0
    assert sorted(path.name for path in shell.home.iterdir()) == ["input", "position", "run"]
    told = json.loads((shell.home / "position").read_text())
    assert (told["messages"], told["total"]) == (5000, (shell.home / "input").stat().st_size)


def test_a_checkpoint_that_is_no_regular_file(shell: Shell, broker: Broker, topic: str) -> None:
    """An endless device would be read until the memory is full, and a FIFO blocks the process that opens it."""
    (shell.home / "input").write_bytes(b"1\n")
    os.mkfifo(shell.home / "fifo")
    for path in ("/dev/full", "/dev/zero", "fifo"):
        for names, text in ((["input"], None), ([], b"1\n")):
            done = shell.run("q-pipe", topic, *names, "--checkpoint", path, *broker.flags, input=text)
            assert done.status == 3
            assert done.err_lines == [f"q-pipe: cannot write the checkpoint {path}: it is not a regular file"]
    assert broker.published(topic) == 0
