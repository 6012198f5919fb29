"""Whatever call of the system fails, and wherever the process dies: what was acknowledged is in the archive, once.

The same small run is made again and again; each time another of its system calls, in turn, is the one that fails.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qtools.to_file.archive.archive import Archive, Rotation
from to_file.house import House, batch

CALLS = ("open", "pwrite", "fsync", "fdatasync", "ftruncate", "link", "unlink", "replace", "mkdir")
COMPRESSIONS = ["none", "gzip", "zstd"]
BATCHES = [range(0, 50), range(50, 80), range(80, 81), range(81, 200)]


class Crash(BaseException):
    """The process ends here."""


class Faults:
    """Lets the `nth` system call fail: with `error`, or, as a crash would, after having done half of a write."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.nth = -1
        self.count = 0
        self.failed = ""
        self.error: BaseException = Crash()
        for name in CALLS:
            monkeypatch.setattr(os, name, self._around(name, getattr(os, name)))

    def arm(self, nth: int, error: BaseException) -> None:
        self.nth, self.error, self.count, self.failed = nth, error, 0, ""

    def _around(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*words: Any, **flags: Any) -> Any:
            here, self.count = self.count, self.count + 1
            if here != self.nth:
                return real(*words, **flags)
            self.failed = name
            if name == "pwrite":
                real(words[0], bytes(words[1])[: len(words[1]) // 2], *words[2:])
            raise self.error

        return call


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Path]:
    """In memory, where there is such a place: what is looked at is the order of calls, and there are many syncs."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    made = Path(tempfile.mkdtemp(prefix="qt-", dir="/dev/shm"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch, room: Path) -> Iterator[Faults]:
    made = Faults(monkeypatch)
    yield made
    made.nth = -1


def run(archive: Archive, acknowledged: list[int], retry: bool) -> None:
    """The small run: four batches, a rotation by count in between, and the end."""
    for numbers in BATCHES:
        sent = batch(numbers)
        again(lambda sent=sent: archive.write(sent), retry)  # type: ignore[misc]
        acknowledged += numbers
    again(archive.cycle, retry)
    archive.close()


def again(call: Callable[[], None], retry: bool) -> None:
    try:
        call()
    except OSError:
        assert retry
        call()


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("spooled", [False, True])
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_it_dies_at_any_call(room: Path, faults: Faults, compression: str, spooled: bool) -> None:
    seen: set[str] = set()
    for nth in itertools.count():
        (room / str(nth)).mkdir()
        house = House(room / str(nth), compression, spooled=spooled)
        archive = house.open(rotation=Rotation(count=70))
        acknowledged: list[int] = []
        before = descriptors()
        faults.arm(nth, Crash())
        with contextlib.suppress(Crash):
            run(archive, acknowledged, retry=False)
        faults.nth = -1
        for left in descriptors() - before:  # a process that dies leaves none open
            with contextlib.suppress(OSError):
                os.close(int(left))
        house.dir.close()
        second = house.open()
        second.settle()
        house.close(second)
        found = list(house.numbers())
        assert len(found) == len(set(found)), f"twice in the archive, after {faults.failed} failed as call {nth}"
        assert set(acknowledged) <= set(found), f"lost, after {faults.failed} failed as call {nth}"
        assert house.in_work == []
        if not faults.failed:
            assert len(found) == 200
            break
        seen.add(faults.failed)
    assert seen >= {"open", "pwrite", "fsync", "fdatasync", "ftruncate", "link", "unlink"}


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_any_call_fails_and_is_made_again(room: Path, faults: Faults, compression: str) -> None:
    for nth in itertools.count():
        (room / str(nth)).mkdir()
        house = House(room / str(nth), compression)
        archive = house.open(rotation=Rotation(count=70))
        acknowledged: list[int] = []
        faults.arm(nth, OSError(errno.ENOSPC, "No space left on device"))
        run(archive, acknowledged, retry=True)
        faults.nth = -1
        house.dir.close()
        assert sorted(house.numbers()) == list(range(200)), f"after {faults.failed} failed as call {nth}"
        assert house.in_work == []
        if not faults.failed:
            return


def test_a_failure_at_the_end_is_mended_by_the_next_run(tmp_path: Path, faults: Faults) -> None:
    house = House(tmp_path, "gzip")
    archive = house.open()
    archive.write(batch(range(10)))
    faults.arm(0, OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(OSError, match="No space left"):
        archive.close()
    house.dir.close()
    assert archive.open == 1
    assert house.names == []
    second = house.open()
    house.close(second)
    assert list(house.numbers()) == list(range(10))
    assert second.recovered == 1
