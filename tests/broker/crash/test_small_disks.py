"""Volumes of every size that become full: what consumers finish stays finished, and publishing works again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness.brokers import Q_BROKER, Broker
from harness.waiting import wait_until

from tests.broker.crash.test_full_disk import fill_up, publish

MIB = 1024 * 1024


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A small file system of its own, of so many MiB."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(size: int) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", str(place)]
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
        if mounted.returncode:
            pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
        return place

    yield mount
    subprocess.run(["umount", "-l", str(place)], check=False)


def take_all(other: int) -> None:
    """Write to a file until there is no room."""
    for step in (1 << 20, 1 << 16, 1 << 12, 1):
        try:
            while True:
                os.write(other, bytes(step))
        except OSError:
            pass


def finish(broker: Broker, count: int) -> None:
    """Take so many messages, and finish them."""
    reader = broker.reader("t", "c", ready=500)
    left = count
    while left:
        messages = reader.read(0.2)[:left]
        reader.finish(messages)
        left -= len(messages)
    reader.close()


def is_served(broker: Broker) -> bool:
    return broker.ask("GET", "/ping") == (200, b"OK")


@pytest.mark.parametrize("size", [8, 16, 32, 64, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("how", ["stop", "kill"])
def test_what_is_finished_on_a_full_disk_does_not_come_again(
    size: int, how: str, volume: Callable[[int], Path]
) -> None:
    broker = Broker(Q_BROKER, volume(size) / "broker")
    broker.start()
    try:
        broker.create("t", "c")
        confirmed = fill_up(broker, "t")
        assert confirmed
        found = broker.bodies("t", "c")
        assert sorted(set(found)) == sorted(confirmed)
        (broker.stop if how == "stop" else broker.kill)()
        broker.start()
        again = broker.depth("t", "c").depth
        if how == "stop":
            assert again == 0
        else:
            broker.bodies("t", "c")
        wait_until(lambda: is_served(broker), what=lambda: broker.log)
        wait_until(lambda: publish(broker, "t", [b"yes"])[0] == 200, what=lambda: broker.log)
        assert broker.bodies("t", "c") == [b"yes"]
    finally:
        broker.close()


@pytest.mark.parametrize("size", [8, 32])
def test_what_is_finished_stays_finished_while_something_else_has_filled_the_disk(
    size: int, volume: Callable[[int], Path]
) -> None:
    place = volume(size)
    broker = Broker(Q_BROKER, place / "broker")
    broker.start()
    try:
        broker.create("t", "c")
        status, _ = publish(broker, "t", [b"%d" % n * 20 for n in range(5000)])
        assert status == 200
        with (place / "other").open("wb") as file:
            take_all(file.fileno())
            finish(broker, 3000)
            take_all(file.fileno())
            assert publish(broker, "t", [b"x" * 100_000])[0] in (200, 503)
            take_all(file.fileno())
            finish(broker, 1500)
            take_all(file.fileno())
            broker.stop()
            take_all(file.fileno())
        (place / "other").unlink()
        broker.start()
        assert broker.depth("t", "c").depth in (500, 501)
    finally:
        broker.close()
