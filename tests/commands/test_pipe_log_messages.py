"""What q-pipe says of logs that are not there, are no files any more, or have another checkpoint."""

from __future__ import annotations

import os
import signal

from harness.brokers import Broker
from harness.shell import Shell
from harness.waiting import wait_until


def test_following_what_is_not_there_says_so(shell: Shell, broker: Broker, topic: str) -> None:
    pipe = shell.start("q-pipe", topic, "-F", "*.log", "app.txt", *broker.flags)
    pipe.wait_err("nothing matches '*.log' yet; waiting")
    pipe.wait_err("app.txt is not there yet; waiting")
    (shell.home / "app.log").write_bytes(b"1\n")
    (shell.home / "app.txt").write_bytes(b"2\n")
    wait_until(lambda: broker.published(topic) == 2, what=lambda: pipe.err)
    pipe.signal(signal.SIGTERM)
    assert pipe.wait().err.count("waiting") == 2


def test_a_log_that_is_no_file_any_more(shell: Shell, broker: Broker, topic: str) -> None:
    log = shell.home / "app.log"
    log.write_bytes(b"1\n")
    words = [topic, "app.log", "--checkpoint", "position", *broker.flags]
    assert shell.run("q-pipe", *words).status == 0
    log.unlink()
    log.mkdir()
    done = shell.run("q-pipe", *words)
    assert done.status == 2
    assert f"q-pipe: {log} is a directory now, and was a log when the checkpoint position was made" in done.err
    log.rmdir()
    os.mkfifo(log)
    done = shell.run("q-pipe", *words)
    assert done.status == 2
    assert f"q-pipe: {log} is no regular file now, and was a log when the checkpoint position was made" in done.err


def test_a_directory_with_a_checkpoint_for_other_inputs(shell: Shell, broker: Broker, topic: str) -> None:
    for name in ("a.log", "b.log", "c.log"):
        (shell.home / name).write_bytes(b"1\n")
    (shell.home / "od").mkdir()
    words = ["--checkpoint", "od/", *broker.flags]
    first = shell.run("q-pipe", topic, "a.log", *words)
    second = shell.run("q-pipe", topic, "*.log", *words)
    again = shell.run("q-pipe", topic, "*.log", *words)
    third = shell.run("q-pipe", topic, "b.log", *words)
    told = "no checkpoint for these inputs in od/ yet (there is one for"
    assert [told in each.err for each in (first, second, again, third)] == [False, True, False, True]
    assert f"q-pipe: {told} {shell.home}/a.log): beginning anew" in second.err
    assert f"{shell.home}/*.log and 1 other): beginning anew" in third.err


def test_bytes_are_said_once_where_they_are_few(shell: Shell, broker: Broker, topic: str) -> None:
    for count, said in ((3, "3 messages, 6 bytes of input; "), (1000, "2000 bytes of input (2.0 kB); ")):
        lines = b"1\n" * count + b"x" * 2_000_000 + b"\n"
        done = shell.run("q-pipe", topic, *broker.flags, input=lines)
        assert done.status == 1
        assert said in done.err_lines[-1]
