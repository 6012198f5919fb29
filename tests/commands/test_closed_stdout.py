"""Whoever reads q-tail's stdout goes away: a quiet end, and what was not written is back in its queue."""

from __future__ import annotations

import os

import pytest
from harness.brokers import Broker
from harness.shell import Shell
from harness.waiting import pass_time


@pytest.fixture
def lines(broker: Broker, topic: str) -> list[bytes]:
    """Ten megabytes in topic/me."""
    made = [b"%05d " % number + b"x" * 994 for number in range(10_000)]
    broker.create(topic, "me")
    broker.fill(topic, made)
    return made


def test_head_ends_it_quietly_and_at_once(shell: Shell, broker: Broker, topic: str, lines: list[bytes]) -> None:
    done = shell.script(f"q-tail {topic}/me {' '.join(broker.flags)} | head -1").wait(10)
    assert (done.status, done.err) == (0, "")
    assert len(done.lines) == 1
    assert done.lines[0] in lines
    # A pipe holds 64 KiB, head reads as much: so many are gone, and everything else is there.
    held = broker.wait_held(topic, "me", broker.depth(topic, "me").held)
    assert len(lines) - 300 < held.held < len(lines)


def test_its_own_status_is_0_too(shell: Shell, broker: Broker, topic: str, lines: list[bytes]) -> None:
    done = shell.script(f"{{ q-tail {topic}/me {' '.join(broker.flags)}; echo $? >&2; }} | head -c 100").wait(10)
    assert done.err == "0\n"
    assert len(done.out) == 100


def test_a_reader_that_goes_away_while_nothing_comes(shell: Shell, broker: Broker, topic: str) -> None:
    read, write = os.pipe()
    tail = shell.start("q-tail", f"{topic}/me", *broker.flags, stdout=write)
    os.close(write)
    broker.wait_clients(topic, "me")
    os.close(read)
    done = tail.wait(5)
    assert (done.status, done.err) == (0, "")
    broker.wait_clients(topic, "me", 0)


def test_a_reader_that_goes_away_while_a_write_is_stuck(
    shell: Shell, broker: Broker, topic: str, lines: list[bytes]
) -> None:
    read, write = os.pipe()
    tail = shell.start("q-tail", f"{topic}/me", *broker.flags, stdout=write)
    os.close(write)
    assert os.read(read, 6) in {line[:6] for line in lines}
    pass_time(0.2)
    os.close(read)
    done = tail.wait(5)
    assert (done.status, done.err) == (0, "")
    held = broker.wait_held(topic, "me", broker.depth(topic, "me").held)
    assert len(lines) - 100 < held.held < len(lines)
    assert held.timed_out == 0


def test_a_socket_for_stdout_ends_the_same_way(shell: Shell, broker: Broker, topic: str) -> None:
    import socket

    ours, its = socket.socketpair()
    tail = shell.start("q-tail", f"{topic}/me", *broker.flags, stdout=its.fileno())
    its.close()
    broker.wait_clients(topic, "me")
    ours.close()
    broker.fill(topic, [b"somebody there?"])
    done = tail.wait(5)
    assert (done.status, done.err) == (0, "")
    assert broker.wait_held(topic, "me", 1)


def test_a_full_disk_is_one_line_and_status_1(shell: Shell, broker: Broker, topic: str, lines: list[bytes]) -> None:
    with open("/dev/full", "wb") as full:
        done = shell.run("q-tail", f"{topic}/me", *broker.flags, stdout=full)
    assert done.status == 1
    assert done.err_lines == ["q-tail: cannot write to stdout: No space left on device"]
    assert broker.wait_held(topic, "me", len(lines)).timed_out == 0


def test_a_disk_that_fills_up_keeps_count(shell: Shell, broker: Broker, topic: str, lines: list[bytes]) -> None:
    """A file may only grow to 1 MiB: whole messages up to there are done with, the others are back."""
    out = shell.home / "out"
    done = shell.script(
        f"trap '' XFSZ; ulimit -f 1024; exec 2>&1; q-tail {topic}/me {' '.join(broker.flags)} 2>{shell.home}/err >{out}"
    ).wait()
    assert done.status == 1
    assert (shell.home / "err").read_text() == "q-tail: cannot write to stdout: File too large\n"
    written = out.read_bytes().split(b"\n")
    written.pop()  # the one that was cut
    assert 400 < len(written) < 1100
    assert broker.wait_held(topic, "me", len(lines) - len(written)).timed_out == 0


def test_stdout_that_is_closed_from_the_start(shell: Shell, broker: Broker, topic: str) -> None:
    done = shell.script(f"q-tail {topic}/me {' '.join(broker.flags)} >&-").wait()
    assert done.status == 2
    assert done.err_lines == ["q-tail: stdout is closed: there is nowhere to print to (see q-tail --help)"]
    assert broker.topic(topic) is None
