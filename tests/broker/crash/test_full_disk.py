"""A disk that is full: publishers are told, consumers are served, and it goes on by itself when there is room."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.brokers import Q_BROKER, Broker
from harness.shell import Shell
from harness.waiting import wait_until

SIZE = 112 * 1024 * 1024


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def broker(disk: Path) -> Iterator[Broker]:
    made = Broker(Q_BROKER, disk / "broker")
    made.start()
    yield made
    made.close()


def publish(broker: Broker, topic: str, bodies: list[bytes]) -> tuple[int, bytes]:
    framed = b"".join(len(body).to_bytes(4, "big") + body for body in bodies)
    return broker.ask("POST", f"/mpub?topic={topic}&binary=true", len(bodies).to_bytes(4, "big") + framed)


def fill_up(broker: Broker, topic: str) -> list[bytes]:
    """Publish until it is refused; what was confirmed."""
    confirmed: list[bytes] = []
    for nth in range(1000):
        bodies = [b"%d-%d %s" % (nth, n, os.urandom(400).hex().encode()) for n in range(1000)]
        status, answer = publish(broker, topic, bodies)
        if status == 503:
            assert json.loads(answer)["message"].startswith("PUB_FAILED the disk is full: ")
            return confirmed
        assert status == 200, answer
        confirmed += bodies
    raise AssertionError("the disk never became full")


def test_publishers_are_told_consumers_served_and_all_goes_on_when_there_is_room(broker: Broker, disk: Path) -> None:
    broker.create("t", "c")
    confirmed = fill_up(broker, "t")
    assert confirmed
    status, answer = broker.ask("GET", "/ping")
    assert status == 500
    assert re.fullmatch(rb"NOK - the disk is full: [0-9.]+ MB have to be free in .*/broker", answer)
    assert publish(broker, "t", [b"no"])[0] == 503
    # What is read makes room, and that is enough for it to go on by itself.
    found = broker.bodies("t", "c")
    assert sorted(set(found)) == sorted(confirmed)
    wait_until(lambda: broker.ask("GET", "/ping") == (200, b"OK"), what=lambda: broker.log)
    assert publish(broker, "t", [b"yes"])[0] == 200
    assert broker.bodies("t", "c") == [b"yes"]
    assert broker.log.count("the disk is full") == 1
    assert broker.log.count("can be written to again") == 1


def test_somebody_else_fills_the_disk_and_leaves_again(broker: Broker, disk: Path, shell: Shell) -> None:
    broker.create("t", "c")
    other = disk / "other"
    with other.open("wb") as file:
        try:
            while True:
                file.write(bytes(1 << 16))
                file.flush()
        except OSError:
            pass
    lines = [b"%d %s" % (n, os.urandom(500).hex().encode()) for n in range(3000)]
    pipe = shell.start("q-pipe", "t", *broker.flags, stdin=subprocess.PIPE)
    pipe.feed(b"\n".join(lines))
    pipe.end_input()
    pipe.wait_err("E_MPUB_FAILED MPUB failed the disk is full: ")
    other.unlink()
    done = pipe.wait()
    assert done.status == 0, done.err
    assert sorted(broker.bodies("t", "c")) == sorted(lines)


def test_what_was_confirmed_on_a_full_disk_is_there_after_a_kill(broker: Broker) -> None:
    broker.create("t", "c")
    confirmed = fill_up(broker, "t")
    broker.kill()
    broker.start()
    assert set(broker.bodies("t", "c")) >= set(confirmed)
