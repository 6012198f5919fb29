"""Input from files: one after the other, - for stdin; what cannot be read is said before anything is sent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from harness.brokers import Broker
from harness.shell import Shell
from harness.waiting import wait_until


def test_several_files_and_stdin_in_the_order_given(shell: Shell, broker: Broker, topic: str) -> None:
    (shell.home / "one").write_bytes(b"1\n1 without newline")
    (shell.home / "two").write_bytes(b"2\n")
    (shell.home / "none").write_bytes(b"")
    done = shell.run("q-pipe", topic, "one", "-", "none", "two", *broker.flags, input=b"in\n")
    assert done.status == 0, done.err
    assert broker.bodies(topic) == [b"1", b"1 without newline", b"in", b"2"]


def test_a_named_pipe_is_read_to_its_end(shell: Shell, broker: Broker, topic: str) -> None:
    os.mkfifo(shell.home / "fifo")
    pipe = shell.start("q-pipe", topic, "fifo", *broker.flags)
    with (shell.home / "fifo").open("wb") as fifo:
        fifo.write(b"a\n")
        fifo.flush()
        wait_until(lambda: broker.published(topic) == 1)
        fifo.write(b"b\n")
    assert pipe.wait().status == 0
    assert broker.bodies(topic) == [b"a", b"b"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("missing", "cannot read missing: No such file or directory"),
        (".", ". is a directory"),
        ("loop", "cannot read loop: Too many levels of symbolic links"),
    ],
)
def test_what_cannot_be_read_is_told_before_anything_is_sent(
    shell: Shell, broker: Broker, topic: str, name: str, told: str
) -> None:
    (shell.home / "good").write_bytes(b"a\n")
    (shell.home / "loop").symlink_to("loop")
    done = shell.run("q-pipe", topic, "good", name, *broker.flags)
    assert done.status == 2
    assert done.err_lines == [f"q-pipe: {told} (see q-pipe --help)"]
    assert broker.published(topic) == 0


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no file here fails at the first read")
def test_a_file_that_cannot_be_read_on(shell: Shell, broker: Broker, topic: str) -> None:
    (shell.home / "good").write_bytes(b"a\n")
    done = shell.run("q-pipe", topic, "good", "/proc/self/mem", *broker.flags)
    assert done.status == 1
    assert done.err_lines[0] == "q-pipe: /proc/self/mem: cannot read on: Input/output error"
    assert "confirmed: 1 message, 2 bytes of input" in done.err_lines[1]
    assert broker.bodies(topic) == [b"a"]


def test_a_pipe_loses_nothing_by_being_looked_at_first(shell: Shell, broker: Broker, topic: str) -> None:
    os.mkfifo(shell.home / "one")
    os.mkfifo(shell.home / "two")
    done = shell.script(f"(echo 1 >one; echo 2 >two) & q-pipe {topic} one two {' '.join(broker.flags)}").wait()
    assert done.status == 0, done.err
    assert broker.bodies(topic) == [b"1", b"2"]


def test_stdin_that_is_closed(shell: Shell, broker: Broker, topic: str) -> None:
    done = shell.script(f"q-pipe {topic} {' '.join(broker.flags)} <&-").wait()
    assert done.status == 2
    assert done.err_lines == ["q-pipe: stdin is closed: pipe something in, or name a file (see q-pipe --help)"]


def test_a_file_is_read_although_stdin_is_closed(shell: Shell, broker: Broker, topic: str) -> None:
    (shell.home / "one").write_bytes(b"1\n2\n")
    done = shell.script(f"q-pipe {topic} one {' '.join(broker.flags)} <&-").wait()
    assert done.status == 0, done.err
    assert broker.bodies(topic) == [b"1", b"2"]


def test_stdin_can_only_be_read_once(shell: Shell) -> None:
    done = shell.run("q-pipe", "topic", "-", "-", input=b"a\n")
    assert done.status == 2
    assert "stdin (-) can only be read once" in done.err
