"""Signals: SIGTERM ends q-to-file in order, SIGHUP closes its files, a second run is told who is there."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from harness.archives import finished, in_work, lines
from harness.brokers import Broker
from harness.shell import Shell, stopped_by
from harness.waiting import wait_until


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_order_while_much_comes(
    shell: Shell, broker: Broker, topic: str, tmp_path: Path, number: signal.Signals
) -> None:
    broker.create(topic, "me")
    broker.fill(topic, [b"%06d" % nth for nth in range(200_000)])
    running = shell.start("q-to-file", f"{topic}/me", "-o", tmp_path, "--gzip", *broker.flags)
    wait_until(lambda: broker.depth(topic, "me").depth < 190_000)
    running.signal(number)
    done = running.wait(10)
    assert done.status == stopped_by(number)
    found = lines(tmp_path)
    assert len(set(found)) == len(found) < 200_000
    left = broker.wait_held(topic, "me", 200_000 - len(found), 5)
    assert left.timed_out == 0
    assert in_work(tmp_path) == []


def test_hang_up_closes_files_and_it_lives_on(shell: Shell, broker: Broker, topic: str, tmp_path: Path) -> None:
    running = shell.start(
        "q-to-file", f"{topic}/me", "-o", tmp_path / "a", "--work-dir", tmp_path / "w", "--sync-interval", "20ms",
        "--rotate-interval", "1h", "--datetime-format", "x", *broker.flags,
    )  # fmt: skip
    broker.wait_clients(topic, "me")
    for nth in range(1, 4):
        broker.fill(topic, [b"%d" % nth])
        broker.wait_finished(topic, "me", nth)
        running.signal(signal.SIGHUP)
        wait_until(lambda nth=nth: len(finished(tmp_path / "a")) == nth)  # type: ignore[misc]
    running.signal(signal.SIGHUP)  # nothing is open: nothing appears
    broker.fill(topic, [b"4"])
    broker.wait_finished(topic, "me", 4)
    running.signal(signal.SIGTERM)
    assert running.wait(10).status == 0
    assert sorted(lines(tmp_path / "a")) == [b"1", b"2", b"3", b"4"]
    assert len(finished(tmp_path / "a")) == 4


def test_a_second_run_refuses_and_says_who_is_there(shell: Shell, broker: Broker, topic: str, tmp_path: Path) -> None:
    first = shell.start("q-to-file", f"{topic}/me", "-o", tmp_path, *broker.flags)
    broker.wait_clients(topic, "me")
    refused = shell.run("q-to-file", f"{topic}/me", "-o", tmp_path, *broker.flags)
    assert refused.status == 3
    assert len(refused.err_lines) == 1
    assert f"work directory {tmp_path}/.work is in use by process {first.pid} on " in refused.err
    assert "--work-dir" in refused.err
    polite = shell.run("q-to-file", f"{topic}/me", "-o", tmp_path, "--skip-if-running", *broker.flags)
    assert (polite.status, polite.err) == (0, "")
    told = shell.run("q-to-file", f"{topic}/me", "-o", tmp_path, "--skip-if-running", "-v", *broker.flags)
    assert f"in use by process {first.pid}" in told.err
    beside = shell.run(
        "q-to-file", f"{topic}/me", "-o", tmp_path, "--work-dir", tmp_path / ".other", "--until-empty", *broker.flags
    )
    assert beside.status == 0
    first.signal(signal.SIGKILL)
    first.wait()
    again = shell.run("q-to-file", f"{topic}/me", "-o", tmp_path, "--until-empty", *broker.flags)
    assert again.status == 0


def test_nobody_there_is_a_start_that_failed(shell: Shell, tmp_path: Path) -> None:
    done = shell.run("q-to-file", "t/me", "-o", tmp_path, "--nsqd", "127.0.0.1:1")
    assert done.status == 3
    assert done.err == "q-to-file: 127.0.0.1:1: nothing listens there; is nsqd running?\n"
