"""A disk that fails while the broker runs, as one that is unplugged: no message is taken for damaged."""

from __future__ import annotations

import fcntl
import json
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.brokers import Q_BROKER, Broker
from harness.waiting import wait_until

EXT4_IOC_SHUTDOWN = 0x8004587D  # from now on, all calls fail with EIO, reads as well
WITHOUT_THE_LOG = 2


class ImageDisk:
    """An ext4 file system in a file."""

    def __init__(self, room: Path) -> None:
        self.place = room / "disk"
        self._image = room / "image"
        self.place.mkdir()

    def make(self) -> None:
        with self._image.open("wb") as file:
            file.truncate(96 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", str(self._image)], check=True, capture_output=True)
        self.mount()

    def mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", str(self._image), str(self.place)], check=True, capture_output=True)

    def unmount(self) -> None:
        subprocess.run(["umount", str(self.place)], check=False, capture_output=True)

    def fail(self) -> None:
        held = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(held, EXT4_IOC_SHUTDOWN, struct.pack("I", WITHOUT_THE_LOG))
        finally:
            os.close(held)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[ImageDisk]:
    made = ImageDisk(tmp_path)
    try:
        made.make()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no ext4 file system can be mounted here: {error}")
    yield made
    made.unmount()


def test_a_disk_that_is_unplugged_costs_no_message(disk: ImageDisk, tmp_path: Path) -> None:
    flags = [f"--data-path={disk.place / 'broker'}", "--mem-queue-size=100"]
    broker = Broker(Q_BROKER, tmp_path / "broker", flags)
    broker.start()
    try:
        broker.create("t", "c")
        bodies = [b"%d %s" % (number, b"x" * 1000) for number in range(10_000)]
        for start in range(0, len(bodies), 500):
            broker.fill("t", bodies[start : start + 500])
        broker.stop()
        broker.start()  # nothing is cached any more, neither here nor by SQLite
        disk.fail()
        reader = broker.reader("t", "c", ready=500)
        wait_until(lambda: "cannot read messages: the disk reports errors" in broker.log, what=lambda: broker.log)
        reader.read(1.0)  # it has tried again since
        status, answer = broker.ask("POST", "/pub?topic=t", b"refused")
        assert (status, json.loads(answer)["message"].partition(" ")[0]) == (503, "PUB_FAILED")
        assert "damaged" not in answer.decode()
        status, answer = broker.ask("GET", "/stats?format=json")
        assert (status, json.loads(answer).get("damaged")) == (200, None)
        assert "messages cannot be read" not in broker.log
        assert "is damaged" not in broker.log
        status, answer = broker.ask("GET", "/ping")
        assert (status, answer[:6]) == (500, b"NOK - ")
        assert b"damaged" not in answer
        reader.close()
        broker.kill()
        disk.unmount()
        disk.mount()
        broker.start()
        assert sorted(broker.bodies("t", "c")) == sorted(bodies)
        assert broker.ask("GET", "/ping") == (200, b"OK")
    finally:
        broker.close()
